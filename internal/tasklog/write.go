package tasklog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// bufSize is how much a Writer gathers before it hands it to the kernel, in bytes.
const bufSize = 64 << 10

// Writer appends lines to a file and rotates it. Safe for concurrent use.
//
// The file only ever grows by whole lines, so a reader never sees a part of one. When the disk is
// full lines are dropped, not waited with: the task must not block. How many were lost is the first
// line that is stored again.
type Writer struct {
	path string
	max  int64
	keep int

	hide *strings.Replacer // nil: nothing; set before the first line

	mu   sync.Mutex // owns what is below
	f    *os.File   // nil when it could not be opened: tried again with the next line
	buf  []byte
	in   int   // lines in buf
	size int64 // of the file and buf
	// prefix is the time of second, as lines have it.
	second int64
	prefix []byte
	lost   int
}

// Create opens path for appending. max is the size in bytes past which it is rotated, keep how
// many old files stay.
func Create(path string, max int64, keep int) (*Writer, error) {
	w := &Writer{path: path, max: max, keep: keep, buf: make([]byte, 0, bufSize)}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return w, w.open()
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	w.f, w.size = f, info.Size()
	// A writer that was killed in the middle of a line must not spoil the next one.
	var last [1]byte
	if w.size > 0 {
		if _, err := f.ReadAt(last[:], w.size-1); err == nil && last[0] != '\n' {
			w.buf = append(w.buf, '\n')
		}
	}
	return nil
}

// shortest is the length in bytes from which a value is hidden: shorter ones are words of any log.
const shortest = 4

// Hide keeps values out of the log: "***" stands in their place. Of a value with several lines each is
// hidden. It is called before the first line is added. A value that a line longer than MaxLine cuts in
// two is not found.
func (w *Writer) Hide(values ...string) {
	var pairs []string
	seen := map[string]bool{}
	for _, v := range values {
		for line := range strings.SplitSeq(v, "\n") {
			if line = strings.TrimSpace(line); len(line) >= shortest && !seen[line] {
				seen[line] = true
				pairs = append(pairs, line)
			}
		}
	}
	// Of two of which one begins the other the longer is replaced.
	slices.SortFunc(pairs, func(a, b string) int { return len(b) - len(a) })
	var list []string
	for _, p := range pairs {
		list = append(list, p, "***")
	}
	if len(list) > 0 {
		w.hide = strings.NewReplacer(list...)
	}
}

// Add appends a line; it reaches the file with the next Flush, or when much has gathered.
func (w *Writer) Add(at time.Time, stderr, partial bool, text []byte) error {
	if w.hide != nil {
		text = []byte(w.hide.Replace(string(text)))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var err error
	if w.size+int64(len(w.buf)) > w.max {
		err = w.rotate()
	}
	if len(w.buf) > 0 && len(w.buf)+len(text)+len(stamp)+4 > bufSize {
		err = errors.Join(err, w.flush())
	}
	if w.lost > 0 && len(w.buf) == 0 {
		w.line(at, 'e', fmt.Appendf(nil, "tenfold: %d lines could not be stored", w.lost))
	}
	mark := byte('o')
	if stderr {
		mark = 'e'
	}
	if partial {
		mark -= 'a' - 'A'
	}
	w.line(at, mark, text)
	w.in++
	return err
}

func (w *Writer) line(at time.Time, mark byte, text []byte) {
	// Formatting a time costs as much as all the rest of a line; most lines share their second.
	at = at.UTC()
	if s := at.Unix(); s != w.second || w.prefix == nil {
		w.second, w.prefix = s, at.Truncate(time.Second).AppendFormat(w.prefix[:0], stamp)
	}
	w.buf = append(w.buf, w.prefix...)
	for i, n := len(w.buf)-2, at.Nanosecond(); n > 0; i, n = i-1, n/10 { // ".000000000Z"
		w.buf[i] = byte('0' + n%10)
	}
	w.buf = append(w.buf, ' ', mark, ' ')
	w.buf = append(w.buf, text...)
	w.buf = append(w.buf, '\n')
}

// flush empties the buffer into the file, or loses it.
func (w *Writer) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	var err error
	if w.f == nil {
		err = w.open()
	}
	if err == nil {
		n := 0
		n, err = w.f.Write(w.buf)
		if err != nil && n > 0 { // nothing but whole lines
			w.f.Truncate(w.size)
		} else {
			w.size += int64(n)
		}
	}
	if err != nil {
		w.lost += w.in
	} else {
		w.lost = 0
	}
	w.buf, w.in = w.buf[:0], 0
	if cap(w.buf) > 4*bufSize {
		w.buf = make([]byte, 0, bufSize)
	}
	return err
}

func (w *Writer) rotate() error {
	if err := w.flush(); err != nil {
		return err
	}
	w.f.Close()
	w.f = nil
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

// Flush hands what is buffered to the kernel.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush()
}

// Close flushes and closes.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.flush()
	if w.f != nil {
		err = errors.Join(err, w.f.Close())
	}
	w.f = nil
	return err
}

// Copy stores what r gives, line by line, until it ends, and flushes whenever r has nothing ready.
// pending is the beginning of a line that was read before. When r stops for another reason than its
// end, such as a deadline, what Copy read of an unfinished line comes back with that error. What
// could not be stored is lost and makes no error: reading has to go on, or the task would block.
func (w *Writer) Copy(r io.Reader, stderr bool, pending []byte) (rest []byte, err error) {
	buf := make([]byte, MaxLine)
	have := copy(buf, pending)
	for {
		n, err := r.Read(buf[have:])
		have += n
		at, from := time.Now(), 0
		for {
			i := bytes.IndexByte(buf[from:have], '\n')
			if i < 0 {
				break
			}
			w.Add(at, stderr, false, buf[from:from+i])
			from += i + 1
		}
		if from == 0 && have == len(buf) {
			w.Add(at, stderr, true, buf)
			from = have
		}
		have = copy(buf, buf[from:have])
		ended := errors.Is(err, io.EOF)
		if ended && have > 0 {
			w.Add(at, stderr, false, buf[:have])
		}
		// A read that did not fill the buffer emptied the pipe.
		if err != nil || n < len(buf)/2 {
			w.Flush()
		}
		if ended {
			return nil, nil
		}
		if err != nil {
			return bytes.Clone(buf[:have]), err
		}
	}
}
