package pgrepl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Relation is what a table looks like.
type Relation struct {
	Schema, Name string
	Columns      []Column
}

// Column is one column of a Relation; Type is the OID of its type. Key: it is of what identifies a row.
type Column struct {
	Name string
	Type uint32
	Key  bool
}

// Row is a row that was inserted. Values are in text, in the order of its relation's columns; nil: NULL.
type Row struct {
	Of     *Relation
	Values [][]byte
}

// Commit is a transaction with the rows that it inserted, in its order.
type Commit struct {
	At   time.Time
	End  LSN // what follows it
	Rows []Row
}

// RowSink takes inserted rows. Its methods are called by one goroutine.
type RowSink interface {
	// Commit takes a transaction with at least one row.
	Commit(Commit) error
	// Safe is the position up to which the server may forget, called every second with that up to which everything
	// was handed to Commit.
	Safe(seen LSN) (LSN, error)
}

// StreamRows hands what is inserted into the tables of a publication to s, a transaction at a time in the order
// of their commits, from where the slot (logical, of pgoutput) stands, until ctx ends or the connection does,
// which was opened with replication=database.
func StreamRows(ctx context.Context, conn *pgconn.PgConn, slot, publication string, s RowSink) error {
	conn.Frontend().Send(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL 0/0 (proto_version '1', publication_names '%s')", slot, publication)})
	if err := conn.Frontend().Flush(); err != nil {
		return fmt.Errorf("stream rows: %w", err)
	}
	var c changes
	f := follower{conn: conn}
	f.write = func(_, _ LSN, p []byte) (LSN, error) {
		done, err := c.take(p)
		if err != nil || !done {
			return 0, err
		}
		if len(c.now.Rows) > 0 {
			err = s.Commit(c.now)
		}
		return c.now.End, err
	}
	f.safe = func() (LSN, error) { return s.Safe(f.at) }
	f.alive = func(at LSN, _ time.Time) {
		if !c.inside { // what the server has read and not sent is not of these tables
			f.at = max(f.at, at)
		}
	}
	_, err := f.run(ctx)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("stream rows: %w", err)
	}
	return ctx.Err()
}

// changes reads pgoutput, version 1 of its protocol
// (postgresql.org/docs/current/protocol-logicalrep-message-formats.html).
type changes struct {
	relations map[uint32]*Relation
	now       Commit
	inside    bool
}

var errShort = errors.New("a message that is cut off")

// take reads one message; done: now is whole.
func (c *changes) take(p []byte) (done bool, err error) {
	m := &message{rest: p}
	switch kind := m.byte(); kind {
	case 'B': // where it ends, when, number
		m.uint64()
		c.now, c.inside = Commit{At: serverMoment(m.uint64())}, true
		m.uint32()
	case 'C': // flags, where the commit is and where it ends, when
		m.byte()
		m.uint64()
		c.now.End = LSN(m.uint64())
		if m.uint64(); m.ok() && !c.inside {
			return false, errors.New("the end of a transaction that did not begin")
		}
		c.inside, done = false, true
	case 'R':
		c.relation(m)
	case 'I':
		r := c.relations[m.uint32()]
		if r == nil && m.ok() {
			return false, errors.New("a row of a table that was not told of")
		}
		m.byte() // 'N'
		if row, ok := m.row(r); ok {
			c.now.Rows = append(c.now.Rows, row)
		}
	case 'U', 'D', 'T', 'Y', 'O', 'M': // other changes, types, origins, messages
	default:
		return false, fmt.Errorf("unknown message %q of pgoutput", kind)
	}
	if !m.ok() {
		return false, errShort
	}
	return done, nil
}

func (c *changes) relation(m *message) {
	oid := m.uint32()
	r := &Relation{Schema: m.text(), Name: m.text()}
	m.byte() // what identifies its rows
	n := int(m.uint16())
	for range n {
		if !m.ok() {
			return
		}
		x := Column{Key: m.byte()&1 != 0, Name: m.text(), Type: m.uint32()}
		m.uint32() // what the type was narrowed to
		r.Columns = append(r.Columns, x)
	}
	if m.ok() {
		if c.relations == nil {
			c.relations = map[uint32]*Relation{}
		}
		c.relations[oid] = r
	}
}

func serverMoment(µs uint64) time.Time { return epoch.Add(time.Duration(µs) * time.Microsecond) }

// message is read from its beginning. What is missing reads as nothing, and ok is false from then on.
type message struct {
	rest  []byte
	short bool
}

func (m *message) ok() bool { return !m.short }

func (m *message) take(n int) []byte {
	if n < 0 || n > len(m.rest) {
		m.short, m.rest = true, nil
		return nil
	}
	out := m.rest[:n]
	m.rest = m.rest[n:]
	return out
}

func (m *message) byte() byte {
	if b := m.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (m *message) uint16() uint16 {
	if b := m.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (m *message) uint32() uint32 {
	if b := m.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (m *message) uint64() uint64 {
	if b := m.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// text ends with a zero.
func (m *message) text() string {
	for i, c := range m.rest {
		if c == 0 {
			s := string(m.rest[:i])
			m.rest = m.rest[i+1:]
			return s
		}
	}
	m.take(-1)
	return ""
}

// row reads the values of a row of r.
func (m *message) row(r *Relation) (Row, bool) {
	n := int(m.uint16())
	if !m.ok() || n != len(r.Columns) {
		m.take(-1)
		return Row{}, false
	}
	out := Row{r, make([][]byte, n)}
	for i := range n {
		switch m.byte() {
		case 'n', 'u': // NULL; a value out of line that did not change, which no insert has
		case 't':
			out.Values[i] = append([]byte{}, m.take(int(m.uint32()))...)
		default:
			m.take(-1)
		}
	}
	return out, m.ok()
}
