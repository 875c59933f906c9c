package keeper

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/tasklog"
)

// Where a log is rotated unless its unit says otherwise.
const (
	defaultLogMax  = 16 << 20
	defaultLogKeep = 3
)

// output is what takes a process's standard output and error: a pipe and its reader each. A nil
// output discards.
type output struct {
	log     *tasklog.Writer
	readers [2]*reader // standard output, error; nil when it had ended before a re-exec
	running sync.WaitGroup
}

// reader copies one pipe into the log. Before a re-exec it is parked: it stops reading, keeps the
// beginning of an unfinished line in pending, and goes on only if the exec does not happen.
type reader struct {
	f       *os.File
	in      io.Reader // f, in order with the other pipe
	stderr  bool
	pending []byte // owned by the reader; by the main goroutine while parked
	parked  chan struct{}
	resume  chan struct{}
	ended   chan struct{}
}

// openOutput makes the pipes of u and starts their readers. out and errw are the ends to write to.
func (k *Keeper) openOutput(u Unit) (o *output, out, errw *os.File, err error) {
	if u.Log == "" {
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		return nil, null, null, err
	}
	outR, out, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	errR, errw, err := os.Pipe()
	if err != nil {
		outR.Close()
		out.Close()
		return nil, nil, nil, err
	}
	o, err = k.readOutput(u, [2]*os.File{outR, errR}, [2][]byte{})
	if err != nil {
		for _, f := range []*os.File{outR, out, errR, errw} {
			f.Close()
		}
	}
	return o, out, errw, err
}

// hidden are the values that the log of u must not hold.
func hidden(u Unit) (out []string) {
	for _, e := range u.Env {
		if name, value, ok := strings.Cut(e, "="); ok && slices.Contains(u.Hide, name) {
			out = append(out, value)
		}
	}
	return out
}

// readOutput starts readers on pipes; nil ones have ended already.
func (k *Keeper) readOutput(u Unit, pipes [2]*os.File, pending [2][]byte) (*output, error) {
	most, keep := u.LogMax, u.LogKeep
	if most == 0 {
		most = defaultLogMax
	}
	if keep == 0 {
		keep = defaultLogKeep
	}
	w, err := tasklog.Create(u.Log, most, keep)
	if err != nil {
		return nil, err
	}
	w.Hide(hidden(u)...)
	o := &output{log: w}
	out := &leader{f: pipes[0]}
	in := [2]io.Reader{out, &trailer{f: pipes[1], out: out}}
	for i, f := range pipes {
		if f == nil {
			continue
		}
		r := &reader{f: f, in: in[i], stderr: i == 1, pending: pending[i], parked: make(chan struct{}), resume: make(chan struct{}), ended: make(chan struct{})}
		o.readers[i] = r
		o.running.Go(func() {
			defer close(r.ended)
			defer f.Close()
			for {
				rest, err := w.Copy(r.in, r.stderr, r.pending)
				r.pending = rest
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					if err != nil {
						k.log("read output", "unit", u.ID, "err", err)
					}
					return
				}
				r.parked <- struct{}{}
				<-r.resume
			}
		})
	}
	return o, nil
}

// Two pipes keep no order between them, but what a command says on standard error mostly follows
// what it printed, and people read the two as one. So standard error waits a little until what
// stands in the other pipe is stored.

// leader reads standard output.
type leader struct {
	f    *os.File
	busy atomic.Bool // read, and perhaps not stored yet
}

func (l *leader) Read(b []byte) (int, error) {
	l.busy.Store(false)
	n, err := l.f.Read(b)
	l.busy.Store(n > 0)
	return n, err
}

// behind says whether there is output that was not stored yet.
func (l *leader) behind() bool {
	if l.f == nil {
		return false
	}
	if l.busy.Load() {
		return true
	}
	fds := []unix.PollFd{{Fd: int32(rawFD(l.f)), Events: unix.POLLIN}} // a closed one is -1: ignored
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&unix.POLLIN != 0
}

// trailer reads standard error.
type trailer struct {
	f   *os.File
	out *leader
}

const (
	trailPace = 100 * time.Microsecond
	trailMost = 50 // paces: a command that floods its output delays its errors by 5 ms
)

func (t *trailer) Read(b []byte) (int, error) {
	n, err := t.f.Read(b)
	for i := 0; n > 0 && i < trailMost && t.out.behind(); i++ {
		time.Sleep(trailPace)
	}
	return n, err
}

// close waits until all writers of the pipes are gone and closes the log, after a line of the
// keeper's own when there is one.
func (o *output) close(line string) error {
	if o == nil {
		return nil
	}
	o.running.Wait()
	if line != "" {
		o.log.Add(time.Now(), true, false, []byte("tenfold: "+line))
	}
	return o.log.Close()
}

// park stops the readers and returns what each has left to do: its descriptor (-1: none) and the
// beginning of a line.
func (o *output) park() (fds [2]int, pending [2][]byte) {
	fds = [2]int{-1, -1}
	if o == nil {
		return fds, pending
	}
	for i, r := range o.readers {
		if r == nil {
			continue
		}
		r.f.SetReadDeadline(time.Unix(1, 0))
		select {
		case <-r.parked:
			fds[i], pending[i] = rawFD(r.f), r.pending
		case <-r.ended:
		}
	}
	return fds, pending
}

// unpark lets parked readers go on: fds are as park returned them.
func (o *output) unpark(fds [2]int) {
	for i, fd := range fds {
		if fd >= 0 {
			o.readers[i].f.SetReadDeadline(time.Time{})
			o.readers[i].resume <- struct{}{}
		}
	}
}

// rawFD is the descriptor of c, left in its mode: os.File.Fd would make it block.
func rawFD(c syscall.Conn) int {
	fd := -1
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(f uintptr) { fd = int(f) })
	}
	return fd
}
