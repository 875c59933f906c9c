package upstream

// frames follows a stream of WebSocket frames (RFC 6455 §5.2) to know where one ends: there, and only there,
// another may be put in.
type frames struct {
	head [14]byte // of the frame whose head is being read
	n    int      // bytes of head that came
	left uint64   // of the payload
	lost bool     // it is no stream of frames
}

// pass takes what passes.
func (f *frames) pass(b []byte) {
	for len(b) > 0 && !f.lost {
		if f.left > 0 {
			n := min(f.left, uint64(len(b)))
			f.left -= n
			b = b[n:]
			continue
		}
		f.head[f.n] = b[0]
		b = b[1:]
		if f.n++; f.n < 2 || f.n < f.size() {
			continue
		}
		f.left = f.length()
		f.lost = f.left > 1<<63
		f.n = 0
	}
}

// size is how long a head is, by its first two bytes.
func (f *frames) size() int {
	n := 2
	switch f.head[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.head[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// length is that of the payload.
func (f *frames) length() (n uint64) {
	switch l := f.head[1] & 0x7f; l {
	case 126:
		return uint64(f.head[2])<<8 | uint64(f.head[3])
	case 127:
		for _, c := range f.head[2:10] {
			n = n<<8 | uint64(c)
		}
		return n
	default:
		return uint64(l)
	}
}

// between says that a frame has ended and no other begun.
func (f *frames) between() bool { return !f.lost && f.n == 0 && f.left == 0 }

// goingAway is the frame by which a server says that it goes: close, 1001.
var goingAway = []byte{0x88, 0x02, 0x03, 0xe9}
