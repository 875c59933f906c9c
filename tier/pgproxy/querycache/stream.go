package querycache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// changes reads pgoutput, version 1 of its protocol
// (postgresql.org/docs/current/protocol-logicalrep-message-formats.html), far enough to tell which tables
// a transaction changed.
type changes struct {
	now    Change
	inside bool
}

// maxTables bounds how many tables one transaction may name: beyond it, something is wrong.
const maxTables = 1 << 20

var errShort = errors.New("a message that is cut off")

// take reads one message. At the end of a transaction done is true and end where its commit ends.
func (c *changes) take(p []byte) (done bool, end uint64, err error) {
	if len(p) == 0 {
		return false, 0, errShort
	}
	body := p[1:]
	switch p[0] {
	case 'B': // where it ends, when, number
		if len(body) < 20 {
			return false, 0, errShort
		}
		c.now, c.inside = Change{XID: binary.BigEndian.Uint32(body[16:])}, true
		return false, 0, nil
	case 'C': // flags, where the commit is and where it ends, when
		if len(body) < 25 {
			return false, 0, errShort
		}
		if !c.inside {
			return false, 0, errors.New("the end of a transaction that did not begin")
		}
		c.inside = false
		return true, binary.BigEndian.Uint64(body[9:]), nil
	case 'I', 'U', 'D':
		if len(body) < 4 {
			return false, 0, errShort
		}
		return false, 0, c.changed(binary.BigEndian.Uint32(body))
	case 'T': // how many tables, options, tables
		if len(body) < 5 {
			return false, 0, errShort
		}
		n := int(binary.BigEndian.Uint32(body))
		if body = body[5:]; n < 0 || len(body)/4 < n {
			return false, 0, errShort
		}
		for i := range n {
			if err := c.changed(binary.BigEndian.Uint32(body[4*i:])); err != nil {
				return false, 0, err
			}
		}
		return false, 0, nil
	case 'R', 'Y', 'O', 'M': // what tables and types look like, origins, messages
		return false, 0, nil
	}
	return false, 0, fmt.Errorf("unknown message %q of pgoutput", p[0])
}

func (c *changes) changed(oid uint32) error {
	switch n := len(c.now.Tables); {
	case !c.inside:
		return errors.New("a change outside of a transaction")
	case n > 0 && c.now.Tables[n-1] == oid, n < 64 && slices.Contains(c.now.Tables, oid):
		return nil
	case n >= maxTables:
		return errors.New("a transaction of too many tables")
	}
	c.now.Tables = append(c.now.Tables, oid)
	return nil
}
