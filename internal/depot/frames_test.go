package depot

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// blob is of so many bytes of rows, which compress to about half.
func blob(n int) []byte {
	raw := make([]byte, n/4+64)
	rand.NewChaCha8([32]byte{byte(n)}).Read(raw)
	out := make([]byte, 0, n+64)
	for i := 0; len(out) < n; i++ {
		out = strconv.AppendInt(append(out, "\x00\x00row "...), int64(i), 10)
		out = hex.AppendEncode(out, raw[i*8%(len(raw)-8):][:8])
		out = append(out, "\tsomebody@example.com\tactive\t"...)
	}
	return out[:n]
}

func pack(t testing.TB, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := compress(&out, func(w io.Writer) error { _, err := io.Copy(w, bytes.NewReader(text)); return err }); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unpack(packed []byte) ([]byte, error) {
	z, end, err := opened(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	defer end()
	return io.ReadAll(z)
}

func TestFramesComeBackInOrder(t *testing.T) {
	for _, n := range []int{0, 1, frameSize, frameSize + 1, (workers()+1)*frameSize + 7} {
		text := blob(n)
		packed := pack(t, text)
		got, err := unpack(packed)
		if err != nil || !bytes.Equal(got, text) {
			t.Fatalf("%d bytes: %d come back, %v", n, len(got), err)
		}
		// Any zstd reads it.
		z, err := zstd.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		got, err = io.ReadAll(z)
		z.Close()
		if err != nil || !bytes.Equal(got, text) {
			t.Fatalf("%d bytes: a plain decoder reads %d, %v", n, len(got), err)
		}
	}
	if tool, err := exec.LookPath("zstd"); err == nil {
		cmd := exec.Command(tool, "-d", "-c")
		cmd.Stdin = bytes.NewReader(pack(t, blob(2*frameSize+9)))
		if got, err := cmd.Output(); err != nil || !bytes.Equal(got, blob(2*frameSize+9)) {
			t.Errorf("zstd reads %d bytes: %v", len(got), err)
		}
	}
}

// Cut off anywhere, between two frames too, it is refused.
func TestFramesThatAreCutOffAreRefused(t *testing.T) {
	packed := pack(t, blob(2*frameSize+100))
	second := 12 + int(binary.LittleEndian.Uint32(packed[8:]))
	for _, at := range []int{1, 4, 11, 12, 100, second, second + 5, second + 12, len(packed) - 17, len(packed) - 16, len(packed) - 8, len(packed) - 1} {
		if _, err := unpack(packed[:at]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut off after %d of %d bytes: %v", at, len(packed), err)
		}
	}
	// A frame that is gone, or there twice.
	gone := append(bytes.Clone(packed[:0]), packed[second:]...)
	if _, err := unpack(gone); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("without its first frame: %v", err)
	}
	if _, err := unpack(append(bytes.Clone(packed), 'x')); err == nil {
		t.Error("with a byte behind its end it is read")
	}
}

// What was stored before there were frames.
func TestAnObjectOfOneFrameIsRead(t *testing.T) {
	text := blob(3*frameSize + 5)
	var old bytes.Buffer
	z, err := zstd.NewWriter(&old, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	z.Write(text)
	z.Close()
	if got, err := unpack(old.Bytes()); err != nil || !bytes.Equal(got, text) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if _, err := unpack(old.Bytes()[:old.Len()-3]); err == nil {
		t.Error("one that is cut off is read")
	}
}

// Whoever fails or leaves in the middle leaves nothing running, and nobody waits for them.
func TestFramesEndInTheMiddle(t *testing.T) {
	full := errors.New("no space left")
	half, n := blob(frameSize/2), 0
	err := compress(writerFunc(func(b []byte) (int, error) {
		if n += len(b); n > frameSize {
			return 0, full
		}
		return len(b), nil
	}), func(w io.Writer) error {
		for {
			if _, err := w.Write(half); err != nil {
				return err
			}
		}
	})
	if !errors.Is(err, full) {
		t.Error(err)
	}
	d := Depot{Place: Dir(t.TempDir())}
	text := blob(6 * frameSize)
	if err := d.Put(t.Context(), "x", func(w io.Writer) error { _, err := w.Write(text); return err }); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	if err := d.Get(t.Context(), "x", func(r io.Reader) error { io.CopyN(io.Discard, r, 10); return enough }); !errors.Is(err, enough) {
		t.Error(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// A part that does not come in time is waited for no longer than its reader does.
func TestAReaderOfABucketLeavesInTheMiddle(t *testing.T) {
	place, b := testBucket(t)
	large := blob(2*partSize + 3)
	if err := place.Put(t.Context(), "large", bytes.NewReader(large)); err != nil {
		t.Fatal(err)
	}
	r, err := place.Get(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	io.CopyN(io.Discard, r, partSize+1)
	done := make(chan struct{})
	go func() { r.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it is not closed")
	}
	// A request that fails is made again; an object that became another is refused.
	b.mu.Lock()
	b.failing = 2
	b.mu.Unlock()
	r, err = place.Get(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	r.Close()
	if err != nil || !bytes.Equal(got, large) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err = place.Get(ctx, "large")
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.objects["shop/large"] = blob(2*partSize + 4)
	b.mu.Unlock()
	if got, err := io.ReadAll(r); err == nil && !bytes.Equal(got, large) {
		t.Error("parts of two objects are put together")
	}
	cancel()
	r.Close()
}

func FuzzFrames(f *testing.F) {
	packed := pack(f, []byte(strings.Repeat("row 42; ", 1000)))
	f.Add(packed)
	f.Add(packed[:30])
	f.Add(pack(f, nil))
	f.Add([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := unpack(b)
		if err != nil || len(b) < 4 || binary.LittleEndian.Uint32(b) != frameMagic {
			return
		}
		if again, err := unpack(pack(t, got)); err != nil || !bytes.Equal(again, got) {
			t.Errorf("%d bytes do not come back: %v", len(got), err)
		}
	})
}

// BenchmarkPut and BenchmarkGet are of a sealed object of 256 MB in a folder; with -cpu 1,2 as many processors.
func BenchmarkPut(b *testing.B) {
	d, text := Depot{Place: Dir(b.TempDir()), Key: "correct horse battery staple"}, blob(256<<20)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if err := d.Put(b.Context(), "x", func(w io.Writer) error { _, err := w.Write(text); return err }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	dir := b.TempDir()
	d, text := Depot{Place: Dir(dir), Key: "correct horse battery staple"}, blob(256<<20)
	if err := d.Put(b.Context(), "x", func(w io.Writer) error { _, err := w.Write(text); return err }); err != nil {
		b.Fatal(err)
	}
	if all, _ := filepath.Glob(filepath.Join(dir, "*")); len(all) != 1 {
		b.Fatal(all)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if err := d.Get(b.Context(), "x", func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }); err != nil {
			b.Fatal(err)
		}
	}
}
