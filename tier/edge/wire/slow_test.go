package wire

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// pipes is a listener whose connections are net.Pipe: their deadlines obey virtual time.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipes) dial() net.Conn {
	a, b := net.Pipe()
	p.conns <- b
	return a
}

// virtual runs f against a server in a bubble of virtual time.
func virtual(t *testing.T, cfg Config, secure bool, f func(t *testing.T, dial func() net.Conn)) {
	cert, _ := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l := newPipes()
		var wg sync.WaitGroup
		wg.Go(func() {
			if secure {
				s.ServeTLS(l)
			} else {
				s.Serve(l)
			}
		})
		f(t, l.dial)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
}

// took checks how long something took in virtual time, give or take two sweeps.
func took(t *testing.T, what string, since time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(since); got < want || got > want+2*sweepEvery {
		t.Errorf("%s after %v, not %v", what, got, want)
	}
}

func ok(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		w.WriteHeader(http.StatusRequestTimeout)
		return
	}
	io.WriteString(w, "ok")
}

func TestSlowHead(t *testing.T) {
	virtual(t, handler(ok), false, func(t *testing.T, dial func() net.Conn) {
		c := dial()
		begun := time.Now()
		go func() {
			for {
				if _, err := io.WriteString(c, "G"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != http.StatusRequestTimeout {
			t.Error(res, err)
		}
		took(t, "408", begun, 10*time.Second)
		c.Close()
		time.Sleep(2 * time.Second)
	})
}

func TestSlowHandshake(t *testing.T) {
	virtual(t, handler(ok), true, func(t *testing.T, dial func() net.Conn) {
		c := dial()
		begun := time.Now()
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		took(t, "closed", begun, 10*time.Second)
	})
}

func TestIdleConnections(t *testing.T) {
	virtual(t, handler(ok), false, func(t *testing.T, dial func() net.Conn) {
		c := dial()
		br := bufio.NewReader(c)
		for range 3 {
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			res, err := http.ReadResponse(br, nil)
			if b := body(t, res, err); b != "ok" {
				t.Errorf("%q", b)
			}
			time.Sleep(time.Minute) // its buffers are given back meanwhile
		}
		begun := time.Now()
		if _, err := br.ReadByte(); err != io.EOF {
			t.Error(err)
		}
		took(t, "closed", begun, time.Minute)
	})
}

func TestSlowBody(t *testing.T) {
	for name, pace := range map[string]struct {
		bytes int
		every time.Duration
		want  int
	}{"drip": {10, time.Second, 408}, "modem": {500, time.Second, 200}, "silent": {1, time.Hour, 408}} {
		t.Run(name, func(t *testing.T) {
			virtual(t, handler(ok), false, func(t *testing.T, dial func() net.Conn) {
				c := dial()
				stop := make(chan struct{})
				io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n")
				go func() {
					for range 20000 / pace.bytes {
						if _, err := io.WriteString(c, strings.Repeat("x", pace.bytes)); err != nil {
							return
						}
						select {
						case <-time.After(pace.every):
						case <-stop:
							return
						}
					}
				}()
				res, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil || res.StatusCode != pace.want {
					t.Error(res, err)
				}
				close(stop)
				c.Close()
				time.Sleep(2 * time.Second)
			})
		})
	}
}

func TestClientThatDoesNotRead(t *testing.T) {
	var wrote error
	virtual(t, handler(func(w http.ResponseWriter, r *http.Request) {
		_, wrote = w.Write(make([]byte, 1<<20))
	}), false, func(t *testing.T, dial func() net.Conn) {
		c := dial()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		time.Sleep(32 * time.Second)
		synctest.Wait()
		if wrote == nil {
			t.Error("the handler still waits")
		}
		if _, err := c.Write([]byte("x")); err == nil {
			t.Error("the connection is open")
		}
	})
}

// TestStreamWithoutWindow: an HTTP/2 client that never takes one answer loses that stream alone.
func TestStreamWithoutWindow(t *testing.T) {
	wrote := make(chan error, 1)
	virtual(t, handler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/big" {
			_, err := w.Write(make([]byte, 1<<20))
			wrote <- err
		}
	}), false, func(t *testing.T, dial func() net.Conn) {
		c := dial()
		p := newPeer(t, c)
		begun := time.Now()
		p.request(1, "/big")
		for reset := false; !reset; {
			f := p.next()
			if f == nil {
				t.Fatal("the connection ended")
			}
			rst, is := f.(*http2.RSTStreamFrame)
			reset = is && rst.StreamID == 1
		}
		took(t, "reset", begun, 30*time.Second)
		if err := <-wrote; err == nil {
			t.Error("the handler was not told")
		}
		p.request(3, "/")
		for {
			f := p.next()
			if f == nil {
				t.Fatal("the connection ended")
			}
			if h, is := f.(*http2.HeadersFrame); is && h.StreamID == 3 {
				break
			}
		}
		c.Close()
	})
}

// TestSweepNeverWaits: a client that takes nothing does not keep others from their limits.
func TestSweepNeverWaits(t *testing.T) {
	virtual(t, handler(func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, 1<<20))
	}), false, func(t *testing.T, dial func() net.Conn) {
		c := dial()
		fr := http2.NewFramer(c, c)
		go func() {
			io.WriteString(c, preface)
			fr.WriteSettings()
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: new(peer).init().get("/"), EndStream: true, EndHeaders: true})
		}()
		for got := uint32(0); got < defaultWindow; { // then the window is empty, and nobody reads
			f, err := fr.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if f, is := f.(*http2.DataFrame); is {
				got += f.Length
			}
		}
		time.Sleep(32 * time.Second)
		slow := dial()
		begun := time.Now()
		go io.WriteString(slow, "G")
		res, err := http.ReadResponse(bufio.NewReader(slow), nil)
		if err != nil || res.StatusCode != http.StatusRequestTimeout {
			t.Error(res, err)
		}
		took(t, "408", begun, 10*time.Second)
		c.Close()
		slow.Close()
	})
}

func TestIdleHTTP2SaysGoodbye(t *testing.T) {
	virtual(t, handler(ok), false, func(t *testing.T, dial func() net.Conn) {
		p := newPeer(t, dial())
		begun := time.Now()
		for {
			f := p.next()
			if f == nil {
				t.Fatal("closed without GOAWAY")
			}
			if g, is := f.(*http2.GoAwayFrame); is {
				if g.ErrCode != http2.ErrCodeNo {
					t.Error(g)
				}
				break
			}
		}
		took(t, "GOAWAY", begun, 2*time.Minute)
	})
}

// full is a listener that meets the limit of open files at every other connection.
type full struct {
	*net.TCPListener
	n      int
	queued net.Conn
}

func (f *full) Accept() (net.Conn, error) {
	if c := f.queued; c != nil {
		f.queued = nil
		return c, nil
	}
	c, err := f.TCPListener.Accept()
	if f.n++; err == nil && f.n%2 == 1 {
		f.queued = c
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return c, err
}

func TestFileLimitRefusesOneAndServesOn(t *testing.T) {
	s, err := New(handler(ok))
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &full{TCPListener: inner.(*net.TCPListener)}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	refused, answered := 0, 0
	for range 6 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if errors.Is(err, syscall.ECONNRESET) {
			refused++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if res, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil && res.StatusCode == 200 {
			answered++
		} else if ne := net.Error(nil); !errors.As(err, &ne) || !ne.Timeout() {
			refused++
		}
		c.Close()
	}
	if refused != 3 || answered != 3 {
		t.Errorf("%d refused, %d answered", refused, answered)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
