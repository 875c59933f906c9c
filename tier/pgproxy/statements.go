package pgproxy

import (
	"encoding/binary"
	"strconv"
)

// serverStatements is how many prepared statements a server connection keeps; the one unused for
// longest is closed for another.
const serverStatements = 500

// forgottenStatements is how many statements that no client names are remembered.
const forgottenStatements = 2000

// prepared is a statement as servers have it: one for each text and parameter types, whatever clients
// call it.
type prepared struct {
	name  string // at servers
	parse []byte // body of Parse after the name
	class class
	refs  int // clients' names for it
	ddl   uint64
	// gen grows when its plan turned out to be outdated: servers that have an older one parse it again.
	gen uint32
	// good says that a server has taken it once.
	good bool
}

// kept is a statement at one server.
type kept struct {
	gen  uint32
	used uint64 // the server's counter when it was last asked for
}

// statements are all prepared statements of a database, by body of Parse. Owned by the loop.
type statements struct {
	byBody map[string]*prepared
	last   uint64
	// ddl grows whenever the meaning of a text may have changed: what is prepared from then on is
	// another statement. Those who have the old one keep it, with the types that they were told.
	ddl uint64
}

// find gives the statement for a body of Parse (after its name) under a session's settings; nil when
// there is none, or only one that was made before the last DDL.
func (s *statements) find(body []byte, of *settings) *prepared {
	var p *prepared
	if scope := of.scope(); scope == "" {
		p = s.byBody[string(body)]
	} else {
		p = s.byBody[string(body)+scope]
	}
	if p == nil || p.ddl != s.ddl {
		return nil
	}
	return p
}

// intern is find for one that is made if need be, and counts a reference.
// class is of its text.
func (s *statements) intern(body []byte, of *settings, class func(sql []byte) class) *prepared {
	if p := s.find(body, of); p != nil {
		p.refs++
		return p
	}
	if len(s.byBody) >= forgottenStatements {
		for k, p := range s.byBody {
			if p.refs == 0 {
				delete(s.byBody, k)
			}
		}
	}
	s.last++
	key := string(body)
	p := &prepared{name: "tenfold_" + strconv.FormatUint(s.last, 36), parse: []byte(key), refs: 1, ddl: s.ddl}
	p.class = class(sqlOf(body))
	s.byBody[key+of.scope()] = p
	return p
}

// drop gives back a reference.
func (s *statements) drop(p *prepared) { p.refs-- }

// appendParse adds the message that makes p at a server.
func appendParse(dst []byte, p *prepared) []byte {
	dst = append(dst, 'P')
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+len(p.name)+1+len(p.parse)))
	dst = append(append(dst, p.name...), 0)
	return append(dst, p.parse...)
}

// appendClose adds the message that closes a statement at a server.
func appendClose(dst []byte, name string) []byte {
	dst = append(dst, 'C')
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+1+len(name)+1))
	return append(append(append(dst, 'S'), name...), 0)
}

// appendNamed adds a message whose body is head, a statement's name and tail: Bind and Describe.
func appendNamed(dst []byte, typ byte, head []byte, name string, tail []byte) []byte {
	dst = append(dst, typ)
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+len(head)+len(name)+1+len(tail)))
	dst = append(append(append(dst, head...), name...), 0)
	return append(dst, tail...)
}
