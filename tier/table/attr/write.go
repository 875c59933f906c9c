package attr

import (
	"encoding/base64"
	"strconv"
)

// AppendJSON appends the value as it stands on the wire.
func (v Value) AppendJSON(b []byte) []byte {
	b = append(b, '{', '"')
	b = append(b, v.Kind.String()...)
	b = append(b, '"', ':')
	switch v.Kind {
	case S, N, B:
		b = v.appendBareJSON(b)
	case SS, NS, BS, L:
		b = append(b, '[')
		for i, e := range v.List {
			if i > 0 {
				b = append(b, ',')
			}
			if v.Kind == L {
				b = e.AppendJSON(b)
			} else {
				b = e.appendBareJSON(b)
			}
		}
		b = append(b, ']')
	case M:
		b = v.Map.AppendJSON(b)
	case Bool:
		b = appendBool(b, v.True)
	default:
		b = append(b, "true"...)
	}
	return append(b, '}')
}

func appendBool(b []byte, yes bool) []byte {
	return strconv.AppendBool(b, yes)
}

func (v Value) appendBareJSON(b []byte) []byte {
	if v.Kind == B {
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes)
		return append(b, '"')
	}
	return appendString(b, v.Text)
}

// AppendJSON appends the item as it stands on the wire, attributes by name.
func (i Item) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	var few [24]string
	for n, name := range i.names(few[:0]) {
		if n > 0 {
			b = append(b, ',')
		}
		b = appendString(b, name)
		b = append(b, ':')
		b = i[name].AppendJSON(b)
	}
	return append(b, '}')
}

// AppendString appends a string of JSON. It must be valid UTF-8, as all is that was read here.
func AppendString(b []byte, s string) []byte { return appendString(b, s) }

func appendString[T string | []byte](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xF])
		}
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
