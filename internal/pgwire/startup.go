package pgwire

import (
	"encoding/binary"
	"errors"
	"strings"
)

// Codes that stand in a startup packet where the version does.
const (
	codeCancel = 80877102
	codeTLS    = 80877103
	codeGSS    = 80877104
)

// TLSHello is the first byte of a client that begins with TLS at once, as PostgreSQL 17 has it.
const TLSHello = 0x16

// MaxStartup is the longest startup packet taken, in bytes, as PostgreSQL has it.
const MaxStartup = 10000

// Minor versions of protocol 3: 2 has secret keys longer than 4 bytes.
const (
	MinorOld    = 0
	MinorNewest = 2
)

// StartupKind is what a client's first packet asks for.
type StartupKind int

// The kinds.
const (
	StartupSession StartupKind = iota
	StartupTLS                 // answered by one byte, 'S' or 'N'; another packet follows
	StartupGSS                 // likewise
	StartupCancel
)

// Startup is a client's first packet.
type Startup struct {
	Kind  StartupKind
	Minor int // asked for; above MinorNewest there must be a negotiation
	// Params are as sent, without protocol options.
	Params []Param
	// Options are protocol options (_pq_.…), of which none is known.
	Options []string
	// PID and Secret name who is to be cancelled.
	PID    uint32
	Secret []byte
}

// Param is a run-time parameter in a startup packet.
type Param struct{ Name, Value string }

// Get is a parameter's value, "" without one.
func (s *Startup) Get(name string) string {
	for _, p := range s.Params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// Errors of startup packets.
var (
	ErrStartup = errors.New("invalid startup packet")
	ErrVersion = errors.New("unsupported version of the protocol")
)

// ParseStartup reads the startup packet that b begins with. size is 0 while it is incomplete.
// ErrVersion is for protocols that are not 3, ErrStartup for what is no packet at all.
func ParseStartup(b []byte) (s Startup, size int, err error) {
	if len(b) < 8 {
		return s, 0, nil
	}
	n := binary.BigEndian.Uint32(b)
	if n < 8 || n > MaxStartup {
		return s, 0, ErrStartup
	}
	if len(b) < int(n) {
		return s, 0, nil
	}
	code, body := binary.BigEndian.Uint32(b[4:]), b[8:n]
	switch code {
	case codeTLS:
		s.Kind = StartupTLS
		return s, int(n), nil
	case codeGSS:
		s.Kind = StartupGSS
		return s, int(n), nil
	case codeCancel:
		if len(body) < 5 || len(body) > 4+256 {
			return s, 0, ErrStartup
		}
		s.Kind, s.PID, s.Secret = StartupCancel, binary.BigEndian.Uint32(body), body[4:]
		return s, int(n), nil
	}
	if code>>16 != 3 {
		return s, 0, ErrVersion
	}
	s.Minor = int(code & 0xffff)
	for len(body) > 0 && body[0] != 0 {
		k, rest, ok := CString(body)
		if !ok {
			return s, 0, ErrStartup
		}
		v, rest, ok := CString(rest)
		if !ok {
			return s, 0, ErrStartup
		}
		if strings.HasPrefix(string(k), "_pq_.") {
			s.Options = append(s.Options, string(k))
		} else {
			s.Params = append(s.Params, Param{string(k), string(v)})
		}
		body = rest
	}
	if len(body) != 1 {
		return s, 0, ErrStartup
	}
	return s, int(n), nil
}

// AppendStartup adds a startup packet of protocol 3.0.
func AppendStartup(dst []byte, params ...Param) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 3, 0, MinorOld)
	for _, p := range params {
		dst = append(append(append(append(dst, p.Name...), 0), p.Value...), 0)
	}
	dst = append(dst, 0)
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}

// AppendCancel adds a request to cancel.
func AppendCancel(dst []byte, pid uint32, secret []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(12+len(secret)))
	dst = binary.BigEndian.AppendUint32(dst, codeCancel)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return append(dst, secret...)
}

// Negotiate says which version is spoken when a client asked for minor, and whether it must be told,
// with the options that are not known.
func (s *Startup) Negotiate() (minor int, tell bool) {
	return min(s.Minor, MinorNewest), s.Minor > MinorNewest || len(s.Options) > 0
}

// AppendNegotiate adds NegotiateProtocolVersion.
func AppendNegotiate(dst []byte, minor int, options []string) []byte {
	var body []byte
	body = binary.BigEndian.AppendUint32(body, uint32(3<<16|minor))
	body = binary.BigEndian.AppendUint32(body, uint32(len(options)))
	for _, o := range options {
		body = append(append(body, o...), 0)
	}
	return Append(dst, 'v', string(body))
}

// AppendKey adds BackendKeyData.
func AppendKey(dst []byte, pid uint32, secret []byte) []byte {
	var p [4]byte
	binary.BigEndian.PutUint32(p[:], pid)
	return Append(dst, 'K', string(p[:]), string(secret))
}

// Settings reads the parameter `options`: -c name=value and --name=value; ok is false for what is
// neither. A backslash keeps a space.
func Settings(options string) (out []Param, ok bool) {
	words := optionWords(options)
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "-c" && i+1 < len(words):
			i++
			w = words[i]
		case strings.HasPrefix(w, "-c"):
			w = w[2:]
		case strings.HasPrefix(w, "--"):
			w = w[2:]
		default:
			return nil, false
		}
		k, v, found := strings.Cut(w, "=")
		if !found || k == "" {
			return nil, false
		}
		out = append(out, Param{strings.ReplaceAll(k, "-", "_"), v})
	}
	return out, true
}

func optionWords(s string) (words []string) {
	var w []byte
	in := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			w, in = append(w, s[i]), true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			if in {
				words, w, in = append(words, string(w)), nil, false
			}
		default:
			w, in = append(w, c), true
		}
	}
	if in {
		words = append(words, string(w))
	}
	return words
}
