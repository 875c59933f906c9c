package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func handler(f func(w http.ResponseWriter, r *http.Request)) Config {
	return Config{Handler: http.HandlerFunc(f)}
}

func TestStreamingTrailersAndInformation(t *testing.T) {
	speaks(t, func(t *testing.T, secure, two bool) {
		s := start(t, handler(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			w.Header().Set("Trailer", "X-Declared")
			rc := http.NewResponseController(w)
			for i := range 3 {
				fmt.Fprintf(w, "part %d,", i)
				if err := rc.Flush(); err != nil {
					t.Error(err)
				}
			}
			io.Copy(io.Discard, r.Body)
			w.Header().Set("X-Declared", "a"+r.Trailer.Get("X-From-Client"))
			w.Header().Set(http.TrailerPrefix+"X-Prefixed", "b")
			w.Header().Set(http.TrailerPrefix+"Content-Length", "9")
		}), secure, two)
		early := ""
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			early = fmt.Sprint(code, h.Get("Link"))
			return nil
		}})
		req, _ := http.NewRequestWithContext(ctx, "POST", s.url("/"), io.MultiReader(strings.NewReader("x"), strings.NewReader("y")))
		req.Trailer = http.Header{"X-From-Client": {"z"}}
		res, err := s.client.Do(req)
		if b := body(t, res, err); b != "part 0,part 1,part 2," {
			t.Errorf("body %q", b)
		}
		if early != "103</a.css>; rel=preload" || res.Header.Get("Link") != "" {
			t.Errorf("early hints %q", early)
		}
		if res.Trailer.Get("X-Declared") != "az" || res.Trailer.Get("X-Prefixed") != "b" || res.Trailer.Get("Content-Length") != "" {
			t.Errorf("trailers %v", res.Trailer)
		}
	})
}

// TestConversation is a stream both sides of which talk in turn, as in gRPC.
func TestConversation(t *testing.T) {
	for _, secure := range []bool{false, true} {
		s := start(t, handler(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			rc.Flush()
			in := bufio.NewReader(r.Body)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					break
				}
				io.WriteString(w, "you said "+line)
				rc.Flush()
			}
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		}), secure, true)
		pr, pw := io.Pipe()
		req, _ := http.NewRequestWithContext(t.Context(), "POST", s.url("/"), pr)
		res, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		out := bufio.NewReader(res.Body)
		for i := range 50 {
			fmt.Fprintf(pw, "line %d\n", i)
			if line, err := out.ReadString('\n'); err != nil || line != fmt.Sprintf("you said line %d\n", i) {
				t.Fatalf("%q %v", line, err)
			}
		}
		pw.Close()
		if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 || res.Trailer.Get("Grpc-Status") != "0" {
			t.Fatalf("end: %q %v %v", rest, err, res.Trailer)
		}
		res.Body.Close()
	}
}

// TestLargeBothWays sends more than any window at once in both directions, on many streams.
func TestLargeBothWays(t *testing.T) {
	speaks(t, func(t *testing.T, secure, two bool) {
		s := start(t, handler(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(w, r.Body); err != nil {
				t.Error(err)
			}
		}), secure, two)
		const size = 3 << 20
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				part := fmt.Sprintf("%07d\n", i)
				res, err := s.client.Post(s.url("/"), "", strings.NewReader(strings.Repeat(part, size/8)))
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				b, err := io.ReadAll(res.Body)
				if err != nil || len(b) != size || strings.Count(string(b), part) != size/8 {
					t.Errorf("%d bytes came back: %v", len(b), err)
				}
			})
		}
		wg.Wait()
	})
}

// TestBrokenAnswers: what a handler did not finish never looks whole.
func TestBrokenAnswers(t *testing.T) {
	speaks(t, func(t *testing.T, secure, two bool) {
		s := start(t, handler(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/panic":
				io.WriteString(w, "half")
				http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			case "/panic-first":
				panic(http.ErrAbortHandler)
			case "/short":
				w.Header().Set("Content-Length", "10")
				io.WriteString(w, "half")
			case "/long":
				w.Header().Set("Content-Length", "4")
				if n, err := io.WriteString(w, "whole and more"); err == nil {
					t.Errorf("wrote %d bytes of 4", n)
				}
				io.WriteString(w, "rest")
			}
		}), secure, two)
		for _, path := range []string{"/panic", "/panic-first", "/short"} {
			res, err := s.client.Get(s.url(path))
			if err == nil {
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if err == nil {
				t.Errorf("%s looks whole", path)
			}
		}
		res, err := s.client.Get(s.url("/long"))
		if b := body(t, res, err); b != "rest" {
			t.Errorf("/long: %q", b)
		}
	})
	// HTTP/1.0 has no framing: only a reset tells.
	s := start(t, handler(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}), false, false)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	if b, err := io.ReadAll(c); err == nil {
		t.Errorf("HTTP/1.0: %q looks whole", b)
	}
}

func TestClientThatLeavesEndsTheRequest(t *testing.T) {
	speaks(t, func(t *testing.T, secure, two bool) {
		began, ended := make(chan struct{}), make(chan error, 1)
		s := start(t, handler(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			close(began)
			select {
			case <-r.Context().Done():
				ended <- nil
			case <-time.After(10 * time.Second):
				ended <- errors.New("the handler was not told")
			}
		}), secure, two)
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "POST", s.url("/"), strings.NewReader("body"))
		go func() { <-began; cancel() }()
		if _, err := s.client.Do(req); err == nil {
			t.Error("an answer came")
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestSlowAnswerThenNextRequest: what the watch reads while a handler runs is the next request.
func TestSlowAnswerThenNextRequest(t *testing.T) {
	more := make(chan struct{})
	s := start(t, handler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-more
			if r.Context().Err() != nil {
				t.Error("the context ended")
			}
		}
		io.WriteString(w, r.URL.Path)
	}), false, false)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	br := bufio.NewReader(c)
	for range 5 {
		io.WriteString(c, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
		timer := time.NewTimer(3 * watchAfter / 2)
		<-timer.C
		io.WriteString(c, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
		more <- struct{}{}
		for _, want := range []string{"/slow", "/next"} {
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b := body(t, res, nil); b != want {
				t.Fatalf("%q, not %q", b, want)
			}
		}
	}
}

func TestExpectContinue(t *testing.T) {
	speaks(t, func(t *testing.T, secure, two bool) {
		s := start(t, handler(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/no" {
				http.Error(w, "no", http.StatusForbidden)
				return
			}
			io.Copy(w, r.Body)
		}), secure, two)
		s.client.Transport.(*http.Transport).ExpectContinueTimeout = 9 * time.Second
		for path, want := range map[string]string{"/yes": "hello", "/no": "no\n"} {
			req, _ := http.NewRequestWithContext(t.Context(), "POST", s.url(path), strings.NewReader("hello"))
			req.Header.Set("Expect", "100-continue")
			begun := time.Now()
			res, err := s.client.Do(req)
			if b := body(t, res, err); b != want || time.Since(begun) > 5*time.Second {
				t.Errorf("%s: %q after %v", path, b, time.Since(begun))
			}
		}
	})
}

// TestUpgradeThroughReverseProxy carries a conversation through net/http's proxy on our loop.
func TestUpgradeThroughReverseProxy(t *testing.T) {
	backend := start(t, handler(func(w http.ResponseWriter, r *http.Request) {
		c, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		brw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		brw.Flush()
		io.Copy(c, c)
	}), false, false)
	u, _ := url.Parse(backend.url("/"))
	front := start(t, Config{Handler: httputil.NewSingleHostReverseProxy(u)}, true, false)
	c, err := tls.Dial("tcp", front.addr, &tls.Config{RootCAs: front.roots})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	br := bufio.NewReader(c)
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	for i := range 20 {
		line := fmt.Sprintf("line %d\n", i)
		io.WriteString(c, line)
		if got, err := br.ReadString('\n'); got != line {
			t.Fatal(got, err)
		}
	}
	if front.Conns() != 1 || backend.Conns() != 1 {
		t.Errorf("upgraded connections are not counted: %d, %d", front.Conns(), backend.Conns())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := front.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drain with an upgraded connection: %v", err)
	}
	c.Close()
	if err := front.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDrainFailsNoRequest drains one of two servers that accept from the same socket, as an old
// door and a new one do, while clients send as fast as they can.
func TestDrainFailsNoRequest(t *testing.T) {
	speaks(t, func(t *testing.T, secure, two bool) {
		var handled atomic.Int64
		cfg := handler(func(w http.ResponseWriter, r *http.Request) {
			handled.Add(1)
			io.WriteString(w, "ok")
		})
		cfg.DrainGrace = 300 * time.Millisecond
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		same, err := net.FileListener(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		s := startOn(t, l, cfg, secure, two)
		tr := s.client.Transport.(*http.Transport)
		tr.MaxIdleConnsPerHost = 8
		var done, failed atomic.Int64
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					// A body that cannot be sent again: the client may not hide a failure. Of HTTP/2,
					// net/http's client needs one that can: it closes a connection that said GOAWAY
					// under a request that has it already, and has not sent it.
					var b io.Reader = strings.NewReader("x")
					if !two {
						b = io.MultiReader(b)
					}
					req, _ := http.NewRequestWithContext(t.Context(), "POST", s.url("/"), b)
					res, err := s.client.Do(req)
					if err == nil {
						_, err = io.ReadAll(res.Body)
						res.Body.Close()
					}
					if err != nil {
						failed.Add(1)
						t.Logf("failed: %v", err)
					}
					done.Add(1)
				}
			})
		}
		until(t, "traffic", func() bool { return done.Load() > 200 })
		other := startOn(t, same, cfg, secure, two)
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		if err := s.Drain(ctx); err != nil {
			t.Error(err)
		}
		n := done.Load()
		until(t, "traffic at the other", func() bool { return done.Load() > n+50 && other.Conns() > 0 })
		close(stop)
		wg.Wait()
		if failed.Load() > 0 {
			t.Errorf("%d of %d failed", failed.Load(), done.Load())
		}
		if handled.Load() != done.Load() {
			t.Errorf("%d handled of %d", handled.Load(), done.Load())
		}
		tr.CloseIdleConnections()
	})
}

func TestConnectionLimitRefusesAndServesOn(t *testing.T) {
	cfg := handler(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
	cfg.MaxConns = 3
	s := start(t, cfg, false, false)
	var held []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	until(t, "three connections", func() bool { return s.Conns() == 3 })
	c, err := net.Dial("tcp", s.addr)
	if err == nil {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err = c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the fourth was not refused: %v", err)
		}
		c.Close()
	}
	for _, c := range held {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != 200 {
			t.Error(err)
		}
	}
}
