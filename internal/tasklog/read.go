package tasklog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	maxFiles   = 100                    // rotated files that Read looks for
	chunkSize  = 256 << 10              // bytes read from a file at once, from its end on
	followPace = 100 * time.Millisecond // how often Follow looks for more
)

// Options select lines.
type Options struct {
	Tail  int       // only the last ones; 0: all
	Since time.Time // only later ones
	Until time.Time // only earlier ones; zero: all
	// Match says of a line's text whether it is wanted; nil: all are. Tail counts those that are.
	Match func(text string) bool
}

// wants says of a line whether it is selected, by all but Tail and Since.
func (o Options) wants(l Line) bool {
	return (o.Until.IsZero() || l.At.Before(o.Until)) && (o.Match == nil || o.Match(l.Text))
}

// Read returns stored lines, oldest first, over rotated files. A log that does not exist is empty.
// It reads backwards from the end and no more than it needs. A rotation while it reads may show a
// file's lines twice or not at all; what stands still is read exactly.
func Read(path string, o Options) ([]Line, error) {
	var files [][]Line
	n := 0
	for i := range maxFiles {
		p := path
		if i > 0 {
			p = old(path, i)
		}
		want := o
		if o.Tail > 0 {
			want.Tail = o.Tail - n
		}
		lines, enough, err := readFile(p, want)
		if errors.Is(err, fs.ErrNotExist) {
			if i > 0 {
				break
			}
			continue // between the two steps of a rotation
		}
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		files = append(files, lines)
		if n += len(lines); enough {
			break
		}
	}
	slices.Reverse(files)
	return slices.Concat(files...), nil
}

// readFile returns the selected lines of one file and whether older files have none to add. It holds a chunk of
// the file and what is selected, however large the file is.
func readFile(path string, o Options) (lines []Line, enough bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	var chunks [][]Line // newest first
	n := 0
	for end, size := info.Size(), int64(chunkSize); end > 0 && !enough; {
		begin := max(0, end-size)
		b := make([]byte, end-begin)
		if _, err := f.ReadAt(b, begin); err != nil && !errors.Is(err, io.EOF) {
			return nil, false, err
		}
		if begin > 0 { // begins within a line, which belongs to the chunk before
			cut := bytes.IndexByte(b[:len(b)-1], '\n') + 1
			if cut == 0 {
				size *= 2 // what has so long a line is damaged
				continue
			}
			b, begin = b[cut:], begin+int64(cut)
		}
		end, size = begin, chunkSize
		chosen, older := choose(parseAll(b), o)
		chunks = append(chunks, chosen)
		n += len(chosen)
		enough = older || o.Tail > 0 && n >= o.Tail
	}
	slices.Reverse(chunks)
	lines = slices.Concat(chunks...)
	if o.Tail > 0 && n > o.Tail {
		lines = lines[n-o.Tail:]
	}
	return lines, enough, nil
}

// choose keeps the lines that are selected, and says whether some are older than asked for.
func choose(all []Line, o Options) (chosen []Line, older bool) {
	from, _ := slices.BinarySearchFunc(all, o.Since, func(l Line, t time.Time) int {
		if l.At.After(t) {
			return 1
		}
		return -1
	})
	chosen = slices.DeleteFunc(all[from:], func(l Line) bool { return !o.wants(l) })
	return chosen, from > 0
}

func parseAll(b []byte) []Line {
	var out []Line
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return out // what follows is being written
		}
		if l, ok := parse(string(b[:i])); ok {
			out = append(out, l)
		}
		b = b[i+1:]
	}
}

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
	for {
		// Asked before reading: what was renamed by then takes no more lines after it was read.
		moved := place(f, path) != 0
		var err error
		if rest, err = drain(f, rest, yield); err != nil {
			return err
		}
		if moved {
			if g := successor(f, path); g != nil {
				if f != nil {
					f.Close()
				}
				f, rest = g, ""
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

// drain yields the lines up to the end of f and returns the unfinished one.
func drain(f *os.File, rest string, yield func(Line) error) (string, error) {
	if f == nil {
		return rest, nil
	}
	buf := make([]byte, bufSize)
	for {
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
					return rest, err
				}
			}
		}
		if n == 0 || err != nil {
			return rest, nil
		}
	}
}

// place is the number of rotations since f was the newest file, -1 when it has gone.
func place(f *os.File, path string) int {
	if f == nil {
		return -1
	}
	for i := range maxFiles {
		if is(f, path, i) { // files only move up, as this looks: none is missed
			return i
		}
	}
	return -1
}

func is(f *os.File, path string, i int) bool {
	if i > 0 {
		path = old(path, i)
	}
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// successor opens the file that follows f, nil when there is none yet. Several rotations may have
// passed since f was the newest, and one may pass meanwhile. A rotation renames the oldest first,
// so when f is still in its place after the next file was opened, that was the next.
func successor(f *os.File, path string) *os.File {
	for {
		i := place(f, path)
		next := path
		if i > 1 {
			next = old(path, i-1)
		}
		if i == 0 {
			return nil
		}
		g, err := os.Open(next)
		if i < 0 || err == nil && is(f, path, i) {
			return g
		}
		if err == nil {
			g.Close()
		} else if is(f, path, i) {
			return nil // between the two steps of a rotation
		}
	}
}
