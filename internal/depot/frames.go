package depot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Compression, by several processors at once.
//
// A stream is cut into pieces of frameSize, each is compressed as a zstd frame of its own by whichever processor is
// free, and the frames are written in order. Before each stands its length, in a frame that zstd skips, so that
// whoever reads can hand them out in the same way; that is how pzstd does it, and "zstd -d" reads it like any other.
// At the end another such frame has the length of the whole: a file that was cut off between two frames would be
// read as a shorter one without it.
//
//	0x184D2A50 uint32, 4 uint32, length of the frame uint32, frame    for each piece
//	0x184D2A5E uint32, 8 uint32, length of the stream uint64          at the end
//
// All numbers are little-endian. Several objects for one backup lost: to open it by hand is no longer one command,
// and whether all of it is there becomes a question of its own.
const (
	frameSize  = 4 << 20
	frameMagic = 0x184D2A50
	endMagic   = 0x184D2A5E
	// frameLimit is what a frame may be long: what cannot be compressed is stored, with little around it.
	frameLimit = frameSize + frameSize/64
)

// workers bounds the pieces of one stream that are in work, and with it the memory, two buffers for each.
func workers() int { return min(max(runtime.GOMAXPROCS(0), 2), 8) }

// piece is a part of a stream on its way.
type piece struct {
	raw, packed []byte
	done        chan struct{} // closed when both are there, or err
	err         error
}

// pieces hands buffers out again.
type pieces struct{ free chan *piece }

func newPieces() pieces { return pieces{make(chan *piece, 2*workers())} }

func (p pieces) get() *piece {
	select {
	case x := <-p.free:
		x.done, x.err = make(chan struct{}), nil
		return x
	default:
		return &piece{done: make(chan struct{})}
	}
}

func (p pieces) put(x *piece) {
	select {
	case p.free <- x:
	default:
	}
}

// compress writes what write writes to out.
func compress(out io.Writer, write func(io.Writer) error) error {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(workers()), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	defer enc.Close()
	c := &compressor{enc: enc, pieces: newPieces(), order: make(chan *piece, workers()), failed: make(chan struct{})}
	sent := make(chan error, 1)
	go func() { sent <- c.send(out) }() // ends when order is closed, below
	err = write(c)
	if err == nil && c.part != nil {
		c.submit()
	}
	close(c.order)
	if serr := <-sent; err == nil {
		err = serr
	}
	if err != nil {
		return err // without the end: what was written so far is read as cut off
	}
	end := binary.LittleEndian.AppendUint32(nil, endMagic)
	end = binary.LittleEndian.AppendUint32(end, 8)
	_, err = out.Write(binary.LittleEndian.AppendUint64(end, c.total))
	return err
}

// compressor is what compress hands out to write to. Its user owns it, but for what send has.
type compressor struct {
	enc    *zstd.Encoder
	pieces pieces
	part   *piece // not full yet; nil: nothing of it
	total  uint64
	order  chan *piece   // in work and waiting for send, which bounds them
	failed chan struct{} // closed by send when out takes no more
	err    error         // why; written by send before failed is closed
}

func (c *compressor) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		select {
		case <-c.failed:
			return n, c.err
		default:
		}
		if c.part == nil {
			c.part = c.pieces.get()
			c.part.raw = c.part.raw[:0]
		}
		k := min(len(b), frameSize-len(c.part.raw))
		c.part.raw = append(c.part.raw, b[:k]...)
		b, n, c.total = b[k:], n+k, c.total+uint64(k)
		if len(c.part.raw) == frameSize {
			c.submit()
		}
	}
	return n, nil
}

func (c *compressor) submit() {
	x := c.part
	c.part = nil
	c.order <- x // waits while enough are in work
	go func() {  // ends by itself; send waits for it
		x.packed = c.enc.EncodeAll(x.raw, x.packed[:0])
		close(x.done)
	}()
}

// send writes frames in order.
func (c *compressor) send(out io.Writer) (err error) {
	for x := range c.order {
		<-x.done
		if err == nil {
			var head [12]byte
			binary.LittleEndian.PutUint32(head[0:], frameMagic)
			binary.LittleEndian.PutUint32(head[4:], 4)
			binary.LittleEndian.PutUint32(head[8:], uint32(len(x.packed)))
			if _, err = out.Write(head[:]); err == nil {
				_, err = out.Write(x.packed)
			}
			if err != nil {
				c.err = err
				close(c.failed)
			}
		}
		c.pieces.put(x)
	}
	return err
}

// What a stream can be that is not as compress wrote it.
var (
	errCut   = fmt.Errorf("it is cut off: %w", io.ErrUnexpectedEOF)
	errFrame = errors.New("it is no frame of a compressed object")
)

// decompressor reads what compress wrote: one goroutine reads frames, one for each frame in work decompresses it.
type decompressor struct {
	dec    *zstd.Decoder
	pieces pieces
	order  chan *piece // in the order of the stream; the last has an error, io.EOF at the end
	stop   chan struct{}
	wg     sync.WaitGroup

	// Of Read.
	part  *piece
	rest  []byte // of part
	total uint64
	err   error
}

// decompress begins to read in. It is read from until end has returned.
func decompress(in io.Reader) (*decompressor, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(workers()), zstd.WithDecoderMaxMemory(frameSize))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	d := &decompressor{dec: dec, pieces: newPieces(), order: make(chan *piece, workers()), stop: make(chan struct{})}
	d.wg.Go(func() { d.fetch(in) })
	return d, nil
}

// fetch reads frames until the end of the stream, an error, or stop.
func (d *decompressor) fetch(in io.Reader) {
	for {
		x := d.pieces.get()
		err := d.next(in, x)
		if err != nil {
			x.err = err
			close(x.done)
		} else {
			d.wg.Go(func() {
				x.raw, x.err = d.dec.DecodeAll(x.packed, x.raw[:0])
				close(x.done)
			})
		}
		select {
		case d.order <- x:
		case <-d.stop:
			return
		}
		if err != nil {
			return
		}
	}
}

// next reads one frame into x. io.EOF: it was the end, whose length of the stream is in x.packed.
func (d *decompressor) next(in io.Reader, x *piece) error {
	var head [16]byte
	if _, err := io.ReadFull(in, head[:12]); err != nil {
		return cut(err)
	}
	magic, size, length := binary.LittleEndian.Uint32(head[0:]), binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[8:])
	switch {
	case magic == endMagic && size == 8:
		if _, err := io.ReadFull(in, head[12:]); err != nil {
			return cut(err)
		}
		x.packed = append(x.packed[:0], head[8:]...)
		if n, err := io.ReadFull(in, head[:1]); n > 0 || !errors.Is(err, io.EOF) { // to the end, which is sealed too
			if n > 0 {
				return errFrame
			}
			return err
		}
		return io.EOF
	case magic != frameMagic || size != 4 || length > frameLimit:
		return errFrame
	}
	if cap(x.packed) < int(length) {
		x.packed = make([]byte, length)
	}
	x.packed = x.packed[:length]
	_, err := io.ReadFull(in, x.packed)
	return cut(err)
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return err
}

func (d *decompressor) Read(b []byte) (int, error) {
	for len(d.rest) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		if d.part != nil {
			d.pieces.put(d.part)
		}
		d.part = <-d.order
		<-d.part.done
		if d.err = d.part.err; d.err == nil {
			d.rest = d.part.raw
			d.total += uint64(len(d.rest))
		}
		if errors.Is(d.err, io.EOF) && binary.LittleEndian.Uint64(d.part.packed) != d.total {
			d.err = errCut
		}
	}
	n := copy(b, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// end stops it and returns when nothing of it runs. Whoever in waits for has to be ended before.
func (d *decompressor) end() {
	close(d.stop)
	d.wg.Wait()
	d.dec.Close()
}
