package attr

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
)

// Items on disk. The first byte is the version of the format, then come the attributes of the item:
//
//	item   version attributes
//	attributes  count, then for each, sorted by name: name value
//	value  kind, then by it
//	         S, N, B     bytes (a number in its form)
//	         SS, NS, BS  count, then that many bytes
//	         L           count, then that many values
//	         M           attributes
//	         BOOL        0 or 1
//	         NULL        nothing
//	name, bytes   length, then that many bytes
//	count, length uvarint
//	kind   a byte, the number of the Kind
//
// The same item gives the same bytes.
const binaryVersion = 1

var errBinary = errors.New("attr: broken item")

// AppendBinary appends the item in its compact form.
func (i Item) AppendBinary(b []byte) []byte {
	return i.appendAttributes(append(b, binaryVersion))
}

func (i Item) appendAttributes(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(i)))
	var few [24]string
	for _, name := range i.names(few[:0]) {
		b = appendText(b, name)
		b = i[name].appendBinary(b)
	}
	return b
}

// names are the item's names in order, appended to a slice.
func (i Item) names(names []string) []string {
	for name := range i {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func (v Value) appendBinary(b []byte) []byte {
	b = append(b, byte(v.Kind))
	switch v.Kind {
	case S, N, B:
		return v.appendBare(b)
	case SS, NS, BS:
		b = binary.AppendUvarint(b, uint64(len(v.List)))
		for _, e := range v.List {
			b = e.appendBare(b)
		}
	case L:
		b = binary.AppendUvarint(b, uint64(len(v.List)))
		for _, e := range v.List {
			b = e.appendBinary(b)
		}
	case M:
		return v.Map.appendAttributes(b)
	case Bool:
		if v.True {
			return append(b, 1)
		}
		return append(b, 0)
	}
	return b
}

// appendBare appends what is S, N or B, without its kind.
func (v Value) appendBare(b []byte) []byte {
	if v.Kind == B {
		b = binary.AppendUvarint(b, uint64(len(v.Bytes)))
		return append(b, v.Bytes...)
	}
	return appendText(b, v.Text)
}

// ParseBinary reads an item in its compact form. The item keeps no part of b.
func ParseBinary(b []byte) (Item, error) {
	if len(b) == 0 || b[0] != binaryVersion {
		return nil, errBinary
	}
	r := reader{text: string(b), pos: 1} // one copy, of which all texts are parts
	item := r.attributes(0)
	if r.bad || r.pos != len(r.text) {
		return nil, errBinary
	}
	return item, nil
}

// reader reads the compact form. After bad is set what it gives means nothing.
type reader struct {
	text string
	pos  int
	bad  bool
}

func (r *reader) fail() {
	r.bad = true
	r.pos = len(r.text)
}

func (r *reader) byte() byte {
	if r.pos >= len(r.text) {
		r.fail()
		return 0
	}
	c := r.text[r.pos]
	r.pos++
	return c
}

// count reads a length or a count, neither of which can be more than the bytes that are left.
func (r *reader) count() int {
	var n uint64
	for shift := 0; shift < 63; shift += 7 {
		c := r.byte()
		n |= uint64(c&0x7F) << shift
		if c < 0x80 {
			if n > uint64(len(r.text)-r.pos) {
				break
			}
			return int(n)
		}
	}
	r.fail()
	return 0
}

func (r *reader) bytes() string {
	n := r.count()
	s := r.text[r.pos : r.pos+n]
	r.pos += n
	return s
}

// tooDeepOnDisk bounds the reader's recursion; an update may store what is a little deeper than MaxDepth.
const tooDeepOnDisk = 4 * MaxDepth

func (r *reader) attributes(depth int) Item {
	n := r.count()
	if depth > tooDeepOnDisk {
		r.fail()
		return nil
	}
	item := make(Item, min(n, 1024))
	for ; n > 0 && !r.bad; n-- {
		name := r.bytes()
		item[name] = r.value(depth)
	}
	return item
}

func (r *reader) value(depth int) Value {
	v := Value{Kind: Kind(r.byte())}
	switch v.Kind {
	case S, N, B:
		return r.bare(v.Kind)
	case SS, NS, BS:
		n := r.count()
		v.List = make([]Value, 0, min(n, 1024)) // a count that lies must not cost memory
		for ; n > 0 && !r.bad; n-- {
			v.List = append(v.List, r.bare(v.Kind.element()))
		}
	case L:
		n := r.count()
		if depth > tooDeepOnDisk {
			r.fail()
			return v
		}
		v.List = make([]Value, 0, min(n, 1024))
		for ; n > 0 && !r.bad; n-- {
			v.List = append(v.List, r.value(depth+1))
		}
	case M:
		v.Map = r.attributes(depth + 1)
	case Bool:
		v.True = r.byte() != 0
	case Null:
	default:
		r.fail()
	}
	return v
}

func (r *reader) bare(k Kind) Value {
	s := r.bytes()
	if k == B {
		return Value{Kind: B, Bytes: []byte(s)}
	}
	return Value{Kind: k, Text: s}
}

// BinaryToJSON appends, as JSON, the item that b has in its compact form: what ParseBinary and AppendJSON
// give, without building the item.
func BinaryToJSON(dst, b []byte) ([]byte, error) {
	if len(b) == 0 || b[0] != binaryVersion {
		return dst, errBinary
	}
	r := byteReader{b: b[1:]}
	out := r.attributes(dst, 0)
	if r.bad || len(r.b) != 0 {
		return dst, errBinary
	}
	return out, nil
}

// byteReader reads the compact form from bytes that it does not copy.
type byteReader struct {
	b   []byte
	bad bool
}

func (r *byteReader) fail() { r.b, r.bad = nil, true }

func (r *byteReader) count() int {
	n, used := binary.Uvarint(r.b)
	if used <= 0 || n > uint64(len(r.b)-used) {
		r.fail()
		return 0
	}
	r.b = r.b[used:]
	return int(n)
}

func (r *byteReader) bytes() []byte {
	n := r.count()
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}

func (r *byteReader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *byteReader) attributes(dst []byte, depth int) []byte {
	n := r.count()
	if depth > tooDeepOnDisk {
		r.fail()
		return dst
	}
	dst = append(dst, '{')
	for i := 0; i < n && !r.bad; i++ {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, r.bytes())
		dst = append(dst, ':')
		dst = r.value(dst, depth)
	}
	return append(dst, '}')
}

func (r *byteReader) value(dst []byte, depth int) []byte {
	k := Kind(r.byte())
	dst = append(dst, '{', '"')
	dst = append(dst, k.String()...)
	dst = append(dst, '"', ':')
	switch k {
	case S, N, B:
		dst = r.bare(dst, k)
	case SS, NS, BS, L:
		n := r.count()
		if depth > tooDeepOnDisk {
			r.fail()
		}
		dst = append(dst, '[')
		for i := 0; i < n && !r.bad; i++ {
			if i > 0 {
				dst = append(dst, ',')
			}
			if k == L {
				dst = r.value(dst, depth+1)
			} else {
				dst = r.bare(dst, k.element())
			}
		}
		dst = append(dst, ']')
	case M:
		dst = r.attributes(dst, depth+1)
	case Bool:
		dst = appendBool(dst, r.byte() != 0)
	case Null:
		dst = append(dst, "true"...)
	default:
		r.fail()
	}
	return append(dst, '}')
}

func (r *byteReader) bare(dst []byte, k Kind) []byte {
	s := r.bytes()
	if k == B {
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, s)
		return append(dst, '"')
	}
	return appendString(dst, s)
}
