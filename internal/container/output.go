package container

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// stream is the output of a container on its way to ours.
type stream struct {
	conn io.ReadCloser
	done chan struct{} // closed when all of it was passed on
}

// attach passes on what the container says from now on.
func (r *runner) attach(ctx context.Context, id string) (*stream, error) {
	in := ""
	if r.spec.Terminal {
		in = "&stdin=1"
	}
	res, err := r.send(ctx, http.MethodPost, "/containers/"+id+"/attach?stream=1&stdout=1&stderr=1"+in, nil,
		http.Header{"Connection": {"Upgrade"}, "Upgrade": {"tcp"}})
	if err != nil {
		return nil, err
	}
	s := &stream{conn: res.Body, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		if r.spec.Terminal && isTerminal(r.in) {
			io.Copy(r.out, s.conn) // a terminal has one stream, as it is
			return
		}
		if err := demultiplex(s.conn, r.out, initWatch{r}); err != nil && ctx.Err() == nil && errors.Is(err, errStream) {
			r.say("read the container's output: %v", err)
		}
	}()
	return s, nil
}

// initWatch passes what a container complains of on, and notices the complaint of its first process, which
// the engine brings, that there is no program to start.
type initWatch struct{ r *runner }

func (w initWatch) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("[FATAL tini")) {
		w.r.noInit.Store(true)
	}
	return w.r.errw.Write(p)
}

// drain waits for the rest of what was said before the end.
func (s *stream) drain(limit time.Duration) {
	select {
	case <-s.done:
	case <-time.After(limit):
	}
}

// close ends it, and returns when nothing more is written.
func (s *stream) close() {
	s.conn.Close()
	<-s.done
}

// errStream says that what came is not the engine's stream.
var errStream = errors.New("not a stream of a container engine")

// demultiplex takes the engine's stream apart into what came on the two outputs. Each frame has a head
// of eight bytes: which output, three zeros, and a length of four bytes, big endian.
// (Docker Engine API, ContainerAttach.)
func demultiplex(from io.Reader, out, errw io.Writer) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(from, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		to := out
		switch {
		case head[0] > 3 || head[1]|head[2]|head[3] != 0:
			return fmt.Errorf("%w: a frame begins with % x", errStream, head[:4])
		case head[0] >= 2: // 3: the engine itself complains
			to = errw
		}
		if _, err := io.CopyN(to, from, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return err
		}
	}
}
