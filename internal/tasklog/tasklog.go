// Package tasklog is the format of a unit's output on disk: one line of text an output line,
//
//	2026-11-26T01:02:03.123456789Z o text
//
// with "o" for standard output and "e" for standard error. A line longer than MaxLine is split; all
// parts but the last carry "O" or "E". Files rotate by size: name, name.1 (newer) to name.N.
// Begin at Writer and Read.
package tasklog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// MaxLine bounds a stored line's text, in bytes.
const MaxLine = 64 << 10

// Line is one line of output.
type Line struct {
	At      time.Time
	Stderr  bool
	Partial bool // the line goes on in the next one
	Text    string
}

// Writer appends lines to a file and rotates it. Safe for concurrent use.
type Writer struct {
	path string
	max  int64
	keep int

	mu   sync.Mutex
	f    *os.File
	buf  *bufio.Writer
	size int64
}

// Create opens path for appending. max is the size in bytes past which it is rotated, keep how
// many old files stay.
func Create(path string, max int64, keep int) (*Writer, error) {
	w := &Writer{path: path, max: max, keep: keep}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return w, w.open()
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	w.f, w.buf, w.size = f, bufio.NewWriterSize(f, 32<<10), info.Size()
	return nil
}

// Add appends a line.
func (w *Writer) Add(at time.Time, stderr, partial bool, text []byte) error {
	mark := byte('o')
	if stderr {
		mark = 'e'
	}
	if partial {
		mark -= 'a' - 'A'
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.size > w.max {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	b := at.UTC().AppendFormat(w.buf.AvailableBuffer(), "2006-01-02T15:04:05.000000000Z")
	b = append(b, ' ', mark, ' ')
	b = append(b, text...)
	b = append(b, '\n')
	n, err := w.buf.Write(b)
	w.size += int64(n)
	return err
}

func (w *Writer) rotate() error {
	if err := errors.Join(w.buf.Flush(), w.f.Close()); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	for i := w.keep; i > 0; i-- {
		from := w.path
		if i > 1 {
			from = old(w.path, i-1)
		}
		if err := os.Rename(from, old(w.path, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotate log: %w", err)
		}
	}
	if w.keep == 0 {
		os.Remove(w.path)
	}
	return w.open()
}

func old(path string, i int) string { return path + "." + strconv.Itoa(i) }

// Flush hands what is buffered to the kernel.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Flush()
}

// Close flushes and closes.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.buf.Flush(), w.f.Close())
}

// Copy stores what r gives, line by line, until it ends, and flushes whenever r has nothing ready.
func (w *Writer) Copy(r io.Reader, stderr bool) error {
	in := bufio.NewReaderSize(r, MaxLine)
	var failed error
	for {
		line, err := in.ReadSlice('\n')
		partial := errors.Is(err, bufio.ErrBufferFull)
		if n := len(line); n > 0 && line[n-1] == '\n' {
			line = line[:n-1]
		}
		if len(line) > 0 || err == nil {
			// A full disk must not stop the task: reading goes on, what cannot be stored is lost.
			failed = errors.Join(w.Add(time.Now(), stderr, partial, line))
		}
		if in.Buffered() == 0 || err != nil && !partial {
			failed = errors.Join(failed, w.Flush())
		}
		if err != nil && !partial {
			if errors.Is(err, io.EOF) || errors.Is(err, fs.ErrClosed) {
				return failed
			}
			return err
		}
	}
}

// parse reads a stored line.
func parse(s string) (Line, bool) {
	stamp, rest, ok := strings.Cut(s, " ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if !ok || err != nil || len(rest) < 2 || rest[1] != ' ' {
		return Line{}, false
	}
	l := Line{At: at, Text: rest[2:]}
	switch rest[0] {
	case 'o':
	case 'e':
		l.Stderr = true
	case 'O':
		l.Partial = true
	case 'E':
		l.Stderr, l.Partial = true, true
	default:
		return Line{}, false
	}
	return l, true
}

// Options select lines.
type Options struct {
	Tail  int       // only the last ones; 0: all
	Since time.Time // only later ones
}

// Read returns stored lines, oldest first, over rotated files. A log that does not exist is empty.
func Read(path string, o Options) ([]Line, error) {
	var out []Line
	for i := 99; i >= 0; i-- {
		p := path
		if i > 0 {
			p = old(path, i)
		}
		f, err := os.Open(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		err = scan(f, func(l Line) {
			if l.At.After(o.Since) {
				out = append(out, l)
			}
			if o.Tail > 0 && len(out) > 2*o.Tail+1000 {
				out = append(out[:0], out[len(out)-o.Tail:]...)
			}
		})
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
	}
	if o.Tail > 0 && len(out) > o.Tail {
		out = out[len(out)-o.Tail:]
	}
	return out, nil
}

func scan(r io.Reader, f func(Line)) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		s, err := in.ReadString('\n')
		if l, ok := parse(strings.TrimSuffix(s, "\n")); ok && err == nil {
			f(l)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// followPace is how often Follow looks for more.
const followPace = 100 * time.Millisecond

// Follow calls yield for each line stored after now, across rotations, until ctx ends or yield errs.
func Follow(ctx context.Context, path string, yield func(Line) error) error {
	var f *os.File
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	if g, err := os.Open(path); err == nil {
		f = g
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			return fmt.Errorf("follow log: %w", err)
		}
	}
	var rest string
	buf := make([]byte, 64<<10)
	for {
		for f != nil {
			n, err := f.Read(buf)
			rest += string(buf[:n])
			for {
				s, after, ok := strings.Cut(rest, "\n")
				if !ok {
					break
				}
				rest = after
				if l, ok := parse(s); ok {
					if err := yield(l); err != nil {
						return err
					}
				}
			}
			if n == 0 || err != nil {
				break
			}
		}
		if moved(f, path) {
			if g, err := os.Open(path); err == nil {
				if f != nil {
					f.Close()
				}
				f = g
				continue
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followPace):
		}
	}
}

// moved says that path is another file than f.
func moved(f *os.File, path string) bool {
	if f == nil {
		return true
	}
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && !os.SameFile(a, b)
}
