package upstream

import (
	"bytes"
	"testing"
)

func TestWhereFramesEnd(t *testing.T) {
	long := append([]byte{0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}, make([]byte, 65536)...)
	for _, c := range []struct {
		name string
		b    []byte
		end  bool
	}{
		{"nothing", nil, true},
		{"half a head", []byte{0x81}, false},
		{"a short frame", []byte{0x81, 2, 'h', 'i'}, true},
		{"a frame without a byte", []byte{0x89, 0}, true},
		{"a frame but a byte", []byte{0x81, 3, 'h', 'i'}, false},
		{"a frame of 126 bytes", append([]byte{0x81, 126, 0, 126}, make([]byte, 126)...), true},
		{"half its length", []byte{0x81, 126, 0}, false},
		{"a long frame", long, true},
		{"a masked frame", []byte{0x81, 0x82, 1, 2, 3, 4, 'x', 'y'}, true},
		{"two and a half", []byte{0x81, 1, 'a', 0x81, 1, 'b', 0x81}, false},
		{"a length that cannot be", []byte{0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255}, false},
	} {
		var f frames
		f.pass(c.b)
		if f.between() != c.end {
			t.Errorf("%s: %v", c.name, f.between())
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{0x81, 2, 'h', 'i', 0x82, 126, 1, 0}, 3)
	f.Add(bytes.Repeat([]byte{0x81, 0xff}, 20), 1)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		var whole, parts frames
		whole.pass(b)
		at = max(0, min(at, len(b)))
		parts.pass(b[:at])
		for i := range b[at:] {
			parts.pass(b[at+i : at+i+1])
		}
		if whole.between() != parts.between() || whole.left != parts.left || whole.lost != parts.lost {
			t.Errorf("%+v, %+v", whole, parts)
		}
	})
}
