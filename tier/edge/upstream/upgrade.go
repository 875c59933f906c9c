package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tenfold/tier/edge/wire"
)

// halfClosed is the silence that ends an upgraded connection of which one side has said its last.
const halfClosed = 30 * time.Second

// upgradeOf gives the protocol that a request wants to change to (RFC 9110 §7.8); empty: none.
func upgradeOf(r *http.Request) string {
	if r.ProtoMajor != 1 || r.ProtoMinor < 1 || len(r.Header["Upgrade"]) != 1 || !connectionLists(r.Header["Connection"], "upgrade") {
		return ""
	}
	v := r.Header["Upgrade"][0]
	if v == "" || !clean(v) || strings.EqualFold(v, "h2c") {
		return ""
	}
	return v
}

// switchOver passes 101 on and pumps bytes both ways until both sides have ended, one breaks, or
// nothing came for Policy.Idle.
func (x *exchange) switchOver(c *conn) error {
	e := c.ep
	defer e.leave()
	defer c.discard()
	defer x.stopSender(c)
	if x.stream != nil {
		return x.switchStream(c)
	}
	header := x.w.Header()
	for _, f := range c.head.fields {
		if f.name == "Connection" || f.name == "Upgrade" || !hopByHop(f.name) && f.name != "Content-Length" {
			header.Add(f.name, f.value)
		}
	}
	header["Connection"] = []string{"Upgrade"}
	client, rw, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return x.blame(err)
	}
	defer client.Close()
	x.begun, x.taken = true, true
	c.end()
	client.SetDeadline(time.Time{})
	var b strings.Builder
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	header.Write(&b)
	b.WriteString("\r\n")
	if _, err := io.WriteString(client, b.String()); err != nil {
		return ErrClientGone
	}
	return x.pump(client, rw.Reader, c)
}

// tunnel is an upgraded connection. Two goroutines pump; the timer closes both ends when silent.
type tunnel struct {
	client, task net.Conn
	idle         time.Duration
	heard        atomic.Int64
	bytes        atomic.Int64
	ended        atomic.Int32 // directions
	mu           sync.Mutex
	err          error // the first

	// frames are those that a WebSocket's client gets; nil: it is none. saying is held while the client is
	// written to.
	frames *frames
	saying sync.Mutex
}

func (x *exchange) pump(client net.Conn, early *bufio.Reader, c *conn) error {
	t := &tunnel{client: client, task: c.Conn, idle: x.policy.Idle}
	t.heard.Store(clock())
	if strings.EqualFold(upgradeOf(x.r), "websocket") {
		t.frames = &frames{}
	}
	stop := context.AfterFunc(x.r.Context(), func() {
		t.goAway()
		t.cut(ErrClientGone)
	})
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		pending, _ := early.Peek(early.Buffered())
		t.direction(c.Conn, client, pending)
	})
	done := make(chan struct{})
	wg.Go(func() { t.direction(client, c.Conn, c.buf[c.r:c.w]) })
	go func() { wg.Wait(); close(done) }()
	t.watch(done)
	x.result.Bytes = t.bytes.Load()
	return t.err
}

// watch cuts the tunnel when it is silent, and returns when both directions have ended.
func (t *tunnel) watch(done <-chan struct{}) {
	timer := time.NewTimer(t.idle)
	defer timer.Stop()
	for {
		select {
		case <-done:
			return
		case <-timer.C:
			limit := t.idle
			if t.ended.Load() > 0 {
				limit = min(limit, halfClosed)
			}
			left := t.heard.Load() + int64(limit) - clock()
			if left <= 0 {
				t.cut(ErrSilent)
				<-done
				return
			}
			timer.Reset(time.Duration(min(left, int64(halfClosed))))
		}
	}
}

// goAway says goodbye to a WebSocket's client, where it can be said: between two frames.
func (t *tunnel) goAway() {
	if t.frames == nil || !t.saying.TryLock() {
		return
	}
	defer t.saying.Unlock()
	if t.frames.between() {
		t.client.SetWriteDeadline(time.Now().Add(goodbye))
		t.client.Write(goingAway)
		t.frames.lost = true // nothing follows it
	}
}

// goodbye bounds how long a client may take to be told that its connection ends.
const goodbye = time.Second

// cut closes both ends.
func (t *tunnel) cut(err error) {
	t.mu.Lock()
	if t.err == nil {
		t.err = err
	}
	t.mu.Unlock()
	past := time.Unix(1, 0)
	t.client.SetDeadline(past)
	t.task.SetDeadline(past)
}

// direction pumps one way; its end is passed on as an end of that direction alone.
func (t *tunnel) direction(to, from net.Conn, pending []byte) {
	err := t.send(to, pending)
	raw := rawOf(from)
	for err == nil {
		if err = ready(raw); err != nil {
			break
		}
		var n int
		lent := borrowed.Get().(*[]byte)
		n, err = from.Read(*lent)
		if werr := t.send(to, (*lent)[:n]); werr != nil {
			err = werr
		}
		borrowed.Put(lent)
	}
	t.ended.Add(1)
	if err == io.EOF {
		if h, ok := to.(interface{ CloseWrite() error }); ok && h.CloseWrite() == nil {
			return
		}
		t.cut(nil)
		return
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		err = nil // cut did that
	}
	t.cut(err)
}

func (t *tunnel) send(to net.Conn, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	t.heard.Store(clock())
	if t.frames != nil && to == t.client {
		t.saying.Lock()
		defer t.saying.Unlock()
		t.frames.pass(p)
	}
	n, err := to.Write(p)
	t.bytes.Add(int64(n))
	return err
}

func rawOf(c net.Conn) syscall.RawConn {
	if t, ok := c.(syscall.Conn); ok {
		if raw, err := t.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// ready waits until a socket can be read, so that a silent connection holds no buffer.
func ready(raw syscall.RawConn) error {
	if raw == nil {
		return nil
	}
	return raw.Read(func(fd uintptr) bool { return wire.PeekByte(fd) != syscall.EAGAIN })
}
