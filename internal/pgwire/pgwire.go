// Package pgwire is the ground of the PostgreSQL protocol, versions 3.0 and 3.2, as a proxy needs it:
// where a message ends, the few messages that it writes itself, startup packets, and both sides of
// SCRAM-SHA-256. It copies no message that it can leave where it lies, and it does no input or output.
//
// Begin at Header and Append*; startup packets are in startup.go, SCRAM in scram.go.
package pgwire

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// MaxMessage is the longest message taken, in bytes after its type: PostgreSQL's own limit.
const MaxMessage = 0x3fffffff

// HeaderSize is a message's type and length.
const HeaderSize = 5

// ErrFraming is a length that no message has.
var ErrFraming = errors.New("invalid message length")

// Header reads the type and the whole size, header included, of the message that b begins with.
// ok is false while b is shorter than a header.
func Header(b []byte) (typ byte, size int, ok bool, err error) {
	if len(b) < HeaderSize {
		return 0, 0, false, nil
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n < 4 || n > MaxMessage {
		return 0, 0, false, ErrFraming
	}
	return b[0], int(n) + 1, true, nil
}

// CString cuts a zero-terminated string off the front of b; ok is false when there is no end.
func CString(b []byte) (s, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return nil, nil, false
	}
	return b[:i], b[i+1:], true
}

// Append adds a message of one type whose body is parts, one after the other.
func Append(dst []byte, typ byte, parts ...string) []byte {
	n := 4
	for _, p := range parts {
		n += len(p)
	}
	dst = append(dst, typ)
	dst = binary.BigEndian.AppendUint32(dst, uint32(n))
	for _, p := range parts {
		dst = append(dst, p...)
	}
	return dst
}

// AppendReady adds ReadyForQuery with a transaction's status: 'I', 'T' or 'E'.
func AppendReady(dst []byte, status byte) []byte {
	return append(dst, 'Z', 0, 0, 0, 5, status)
}

// AppendQuery adds a simple query.
func AppendQuery(dst []byte, sql string) []byte { return Append(dst, 'Q', sql, "\x00") }

// AppendParameter adds ParameterStatus.
func AppendParameter(dst []byte, name, value string) []byte {
	return Append(dst, 'S', name, "\x00", value, "\x00")
}

// AppendAuth adds an authentication request of a kind, with its data.
func AppendAuth(dst []byte, kind uint32, data string) []byte {
	var k [4]byte
	binary.BigEndian.PutUint32(k[:], kind)
	return Append(dst, 'R', string(k[:]), data)
}

// Kinds of authentication requests.
const (
	AuthOK           = 0
	AuthCleartext    = 3
	AuthMD5          = 5 // its data is a salt of four bytes
	AuthSASL         = 10
	AuthSASLContinue = 11
	AuthSASLFinal    = 12
)

// Error is an ErrorResponse: what a client shows, and its SQLSTATE.
type Error struct {
	Severity string // "ERROR", or "FATAL" when the connection ends
	Code     string // SQLSTATE
	Message  string
	Detail   string
	Hint     string // what to do
}

func (e *Error) Error() string { return e.Message + " (SQLSTATE " + e.Code + ")" }

// Fatal says that whoever sent it closes the connection.
func (e *Error) Fatal() bool { return e.Severity == "FATAL" || e.Severity == "PANIC" }

// AppendError adds an ErrorResponse.
func AppendError(dst []byte, e *Error) []byte {
	parts := []string{"S", e.Severity, "\x00V", e.Severity, "\x00C", e.Code, "\x00M", e.Message}
	if e.Detail != "" {
		parts = append(parts, "\x00D", e.Detail)
	}
	if e.Hint != "" {
		parts = append(parts, "\x00H", e.Hint)
	}
	return Append(dst, 'E', append(parts, "\x00\x00")...)
}

// ParseError reads the body of an ErrorResponse. Fields that it does not know are left out.
func ParseError(body []byte) Error {
	var e Error
	for len(body) > 1 && body[0] != 0 {
		s, rest, ok := CString(body[1:])
		if !ok {
			return e
		}
		switch body[0] {
		case 'S':
			if e.Severity == "" {
				e.Severity = string(s)
			}
		case 'V': // as S, never translated
			e.Severity = string(s)
		case 'C':
			e.Code = string(s)
		case 'M':
			e.Message = string(s)
		case 'D':
			e.Detail = string(s)
		case 'H':
			e.Hint = string(s)
		}
		body = rest
	}
	return e
}

// Row is a DataRow's columns; nil columns are NULL. The columns lie in body.
func Row(body []byte) ([][]byte, error) {
	if len(body) < 2 {
		return nil, ErrFraming
	}
	n := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	out := make([][]byte, 0, min(n, len(body)/4))
	for range n {
		if len(body) < 4 {
			return nil, ErrFraming
		}
		size := int(int32(binary.BigEndian.Uint32(body)))
		body = body[4:]
		if size < 0 {
			out = append(out, nil)
			continue
		}
		if size > len(body) {
			return nil, ErrFraming
		}
		out = append(out, body[:size:size])
		body = body[size:]
	}
	return out, nil
}

// AppendColumns adds RowDescription of columns of text.
func AppendColumns(dst []byte, names ...string) []byte {
	at := len(dst)
	dst = binary.BigEndian.AppendUint16(append(dst, 'T', 0, 0, 0, 0), uint16(len(names)))
	for _, n := range names {
		dst = append(append(dst, n...), 0)
		dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0) // type 25: text
	}
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-1))
	return dst
}

// AppendRow adds a DataRow of text.
func AppendRow(dst []byte, values ...string) []byte {
	at := len(dst)
	dst = binary.BigEndian.AppendUint16(append(dst, 'D', 0, 0, 0, 0), uint16(len(values)))
	for _, v := range values {
		dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(v))), v...)
	}
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-1))
	return dst
}
