package attr

import (
	"errors"
	"strings"
)

// Keys on disk. Bytes compare as the values do, and a key's end is in its own bytes, so that keys can be
// concatenated and the whole still sorts by the first, then the second.
//
//	S, B  the bytes, 0x00 as 0x00 0xFF; then 0x00 0x01
//	N     0x02 for zero; 0x03, the exponent + 130, two digits a byte as 1…100, 0x00 for a positive number;
//	      0x01 and the complement of those bytes for a negative one
//
// The exponent is that of the first digit: d.ddd × 10^e. It has 256 values, which is one byte exactly.

const (
	escape     = 0x00
	escapedNul = 0xFF
	endOfBytes = 0x01

	negativeNumber = 0x01
	zeroNumber     = 0x02
	positiveNumber = 0x03
)

var errKey = errors.New("attr: broken key")

// AppendKey appends a value of kind S, N or B as bytes that sort as DynamoDB sorts. Keys that are appended
// one after the other sort by the first, then by the second.
func AppendKey(b []byte, v Value) []byte {
	switch v.Kind {
	case N:
		return appendNumberKey(b, v.Text)
	default:
		return append(AppendKeyPrefix(b, v), escape, endOfBytes)
	}
}

// AppendKeyPrefix appends what the keys of all values begin with that begin with v, which is of kind S or B.
func AppendKeyPrefix(b []byte, v Value) []byte {
	if v.Kind == B {
		for _, c := range v.Bytes {
			b = appendEscaped(b, c)
		}
		return b
	}
	for i := range len(v.Text) {
		b = appendEscaped(b, v.Text[i])
	}
	return b
}

func appendEscaped(b []byte, c byte) []byte {
	if c == escape {
		return append(b, escape, escapedNul)
	}
	return append(b, c)
}

func appendNumberKey(b []byte, s string) []byte {
	d, _ := readDecimal(s)
	if d.digits == "" {
		return append(b, zeroNumber)
	}
	start := len(b)
	b = append(b, positiveNumber, byte(d.exp-minExponent))
	for i := 0; i < len(d.digits); i += 2 {
		pair := (d.digits[i] - '0') * 10
		if i+1 < len(d.digits) {
			pair += d.digits[i+1] - '0'
		}
		b = append(b, pair+1)
	}
	b = append(b, 0)
	if d.negative {
		b[start] = negativeNumber
		for i := start + 1; i < len(b); i++ {
			b[i] = ^b[i]
		}
	}
	return b
}

// ReadKey reads the key that stands at the front of b, of kind S, N or B, and gives what follows it.
func ReadKey(b []byte, k Kind) (v Value, rest []byte, err error) {
	switch k {
	case N:
		return readNumberKey(b)
	case S, B:
	default:
		return Value{}, nil, errKey
	}
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] != escape {
			out = append(out, b[i])
			continue
		}
		i++
		switch {
		case i < len(b) && b[i] == escapedNul:
			out = append(out, 0)
		case i < len(b) && b[i] == endOfBytes:
			if k == S {
				return Value{Kind: S, Text: string(out)}, b[i+1:], nil
			}
			return Value{Kind: B, Bytes: out}, b[i+1:], nil
		default:
			return Value{}, nil, errKey
		}
	}
	return Value{}, nil, errKey
}

func readNumberKey(b []byte) (v Value, rest []byte, err error) {
	if len(b) == 0 {
		return Value{}, nil, errKey
	}
	d := decimal{}
	flip := byte(0)
	switch b[0] {
	case zeroNumber:
		return Value{Kind: N, Text: "0"}, b[1:], nil
	case positiveNumber:
	case negativeNumber:
		d.negative, flip = true, 0xFF
	default:
		return Value{}, nil, errKey
	}
	if len(b) < 2 {
		return Value{}, nil, errKey
	}
	d.exp = int(b[1]^flip) + minExponent
	var digits [maxDigits + 2]byte
	n := 0
	for i := 2; i < len(b); i++ {
		c := b[i] ^ flip
		switch {
		case c == 0:
			d.digits = strings.TrimRight(string(digits[:n]), "0")
			if n == 0 || digits[0] == '0' || digits[n-2] == '0' && digits[n-1] == '0' || d.check() != nil {
				return Value{}, nil, errKey
			}
			return Value{Kind: N, Text: d.String()}, b[i+1:], nil
		case c > 100 || n+2 > len(digits):
			return Value{}, nil, errKey
		}
		digits[n], digits[n+1] = '0'+(c-1)/10, '0'+(c-1)%10
		n += 2
	}
	return Value{}, nil, errKey
}
