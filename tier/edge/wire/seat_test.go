package wire

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

const askHit = "GET /hit HTTP/1.1\r\nHost: a\r\n\r\n"

// seats is a server with a stored answer at /hit, and a larger one at /large.
func seats(t *testing.T, cfg Config) (s *served, large []byte) {
	large = bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	cfg.Hits = stored{"a/hit": hello("hit"), "a/large": hello(string(large))}
	cfg.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "handled") })
	return start(t, cfg, false, false), large
}

// caller is a connection as a client has it.
type caller struct {
	*net.TCPConn
	*bufio.Reader
}

func (c caller) Read(p []byte) (int, error) { return c.Reader.Read(p) }

func dialTo(t *testing.T, addr string) caller {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return caller{c.(*net.TCPConn), bufio.NewReader(c)}
}

// ask sends a head and gives the body of the answer.
func (c caller) ask(t *testing.T, head string) string {
	t.Helper()
	if _, err := io.WriteString(c, head); err != nil {
		t.Fatal(err)
	}
	return c.answer(t)
}

func (c caller) answer(t *testing.T) string {
	t.Helper()
	res, err := http.ReadResponse(c.Reader, nil)
	return body(t, res, err)
}

// where says how many connections have a goroutine, and how many a seat.
func (s *served) where() (goroutines, seated int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.links), s.seated
}

func TestIdleConnectionsHaveNoGoroutine(t *testing.T) {
	s, _ := seats(t, Config{})
	before := runtime.NumGoroutine()
	for range 300 {
		if got := dialTo(t, s.addr).ask(t, askHit); got != "hit" {
			t.Fatalf("%q", got)
		}
	}
	if n := runtime.NumGoroutine() - before; n > 30 {
		t.Errorf("%d goroutines for 300 connections", n)
	}
	if g, n := s.where(); g != 0 || n != 300 {
		t.Errorf("%d with a goroutine, %d seated", g, n)
	}
}

func TestConnectionsLeaveTheirSeatsAndComeBack(t *testing.T) {
	s, _ := seats(t, Config{})
	c := dialTo(t, s.addr)
	c.ask(t, askHit)
	leaves := func() {
		t.Helper()
		if got := c.ask(t, "GET /other HTTP/1.1\r\nHost: a\r\n\r\n"); got != "handled" {
			t.Fatalf("%q", got)
		}
		if g, n := s.where(); g != 1 || n != 0 {
			t.Errorf("after a miss: %d with a goroutine, %d seated", g, n)
		}
	}
	seated := func() bool { g, n := s.where(); return g == 0 && n == 1 }
	leaves()
	for range hitsInARow {
		if got := c.ask(t, askHit); got != "hit" {
			t.Fatalf("%q", got)
		}
	}
	until(t, "a seat after hits in a row", seated)
	leaves()
	until(t, "a seat when it idles", func() bool {
		for _, l := range s.all(nil) {
			l.sweep(time.Now().Add(2 * nudgeAfter).UnixMilli())
		}
		return seated()
	})
	leaves()
}

func TestASeatIsOwedWhatItsClientDoesNotRead(t *testing.T) {
	s, large := seats(t, Config{})
	c := dialTo(t, s.addr)
	for range 3 { // and one after the other, so that some of a head is owed, too
		io.WriteString(c, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n"+askHit)
	}
	other := dialTo(t, s.addr)
	if got := other.ask(t, askHit); got != "hit" { // while the first takes nothing
		t.Errorf("%q", got)
	}
	for range 3 {
		if got := c.answer(t); got != string(large) {
			t.Fatalf("%d bytes of %d", len(got), len(large))
		}
		if got := c.answer(t); got != "hit" {
			t.Fatalf("%q", got)
		}
	}
	if got := c.ask(t, "GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); got != string(large) {
		t.Errorf("%d bytes of %d", len(got), len(large))
	}
	if _, err := c.ReadByte(); err != io.EOF {
		t.Errorf("after the last answer: %v", err)
	}
}

// TestASeatLeavesWithWhatItIsOwed has a request that is no hit follow an answer that the client does not read.
func TestASeatLeavesWithWhatItIsOwed(t *testing.T) {
	s, large := seats(t, Config{})
	c := dialTo(t, s.addr)
	io.WriteString(c, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n"+askHit+"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"+askHit)
	for i, want := range []string{string(large), "hit", "handled", "hit"} {
		if got := c.answer(t); got != want {
			t.Fatalf("answer %d: %d bytes: %.20q", i, len(got), got)
		}
	}
}

func TestASeatWhoseClientReadsNothingIsClosed(t *testing.T) {
	s, _ := seats(t, Config{})
	c := dialTo(t, s.addr)
	io.WriteString(c, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := c.Reader.Peek(1); err != nil {
		t.Fatal(err)
	}
	sweepSeats(s, s.cfg.WriteTimeout-time.Second)
	if _, n := s.where(); n != 1 {
		t.Errorf("%d seats before the limit", n)
	}
	sweepSeats(s, s.cfg.WriteTimeout+time.Second)
	until(t, "its end", func() bool { return s.Conns() == 0 })
}

func TestIdleSeatsAreClosed(t *testing.T) {
	s, _ := seats(t, Config{})
	c := dialTo(t, s.addr)
	c.ask(t, askHit)
	sweepSeats(s, s.cfg.IdleTimeout-time.Second)
	if got := c.ask(t, askHit); got != "hit" {
		t.Errorf("%q", got)
	}
	sweepSeats(s, s.cfg.IdleTimeout+time.Second)
	if _, err := c.ReadByte(); err != io.EOF {
		t.Errorf("past the limit: %v", err)
	}
}

// sweepSeats has the loops swept as if it were later, and waits for it.
func sweepSeats(s *served, later time.Duration) {
	for _, p := range s.loops {
		done := make(chan struct{})
		p.do(func() { p.sweep(time.Now().Add(later).UnixMilli()); close(done) })
		<-done
	}
}

func TestADrainSaysGoodbyeToSeats(t *testing.T) {
	s, _ := seats(t, Config{DrainGrace: time.Hour, IdleTimeout: 3 * time.Hour})
	asks, idles := dialTo(t, s.addr), dialTo(t, s.addr)
	asks.ask(t, askHit)
	idles.ask(t, askHit)
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(context.Background()) }()
	until(t, "the drain", s.draining.Load)
	io.WriteString(asks, askHit)
	res, err := http.ReadResponse(asks.Reader, nil)
	if got := body(t, res, err); got != "hit" || !res.Close {
		t.Errorf("%q, says close: %v", got, res.Close)
	}
	if _, err := asks.ReadByte(); err != io.EOF {
		t.Errorf("after goodbye: %v", err)
	}
	sweepSeats(s, 30*time.Minute)
	if s.Conns() != 1 {
		t.Errorf("%d connections within the grace", s.Conns())
	}
	sweepSeats(s, 2*time.Hour)
	if _, err := idles.ReadByte(); err != io.EOF {
		t.Errorf("past the grace: %v", err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestAClientThatEndsItsSideIsAnswered(t *testing.T) {
	s, _ := seats(t, Config{})
	for _, ask := range []string{askHit, strings.Repeat(askHit, 3), "GET /other HTTP/1.1\r\nHost: a\r\n\r\n"} {
		c := dialTo(t, s.addr)
		io.WriteString(c, ask)
		c.CloseWrite()
		for range strings.Count(ask, "GET") {
			if got := c.answer(t); got != "hit" && got != "handled" {
				t.Errorf("%q", got)
			}
		}
		if _, err := c.ReadByte(); err != io.EOF {
			t.Error(err)
		}
	}
	until(t, "their end", func() bool { return s.Conns() == 0 })
}

// TestALastAnswerIsNotDestroyed has a client send more than it may after its last request: a close with
// unread input is a reset, which takes away what the client has not read.
func TestALastAnswerIsNotDestroyed(t *testing.T) {
	s, _ := seats(t, Config{})
	for i := range 20 {
		c := dialTo(t, s.addr)
		io.WriteString(c, "GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"+strings.Repeat("x", i*100))
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Fatalf("%d bytes too many: %v", i*100, err)
		}
	}
}

func TestManyConnectionsAtOnce(t *testing.T) {
	s, _ := seats(t, Config{})
	const conns, rounds = 600, 5 // more than the kernel gives at once
	all := make([]caller, conns)
	for i := range all {
		all[i] = dialTo(t, s.addr)
	}
	for range rounds {
		for i, c := range all {
			ask := askHit
			if i%97 == 0 {
				ask = fmt.Sprintf("GET /other/%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
			}
			io.WriteString(c, ask)
		}
		for _, c := range all {
			if got := c.answer(t); got != "hit" && got != "handled" {
				t.Fatalf("%q", got)
			}
		}
	}
	for _, c := range all {
		c.TCPConn.Close()
	}
	until(t, "all gone", func() bool { return s.Conns() == 0 })
}

// FuzzSeat holds a seat to what a connection with a goroutine answers to the same bytes, whatever pieces
// they come in.
func FuzzSeat(f *testing.F) {
	for _, in := range []string{
		askHit + "GET /other HTTP/1.1\r\nHost: a\r\n\r\n" + askHit,
		"\r\n" + askHit + "\r\n" + askHit,
		"HEAD /hit HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" + askHit + "GET /hit HTTP/1.0\r\nHost: a\r\n\r\n",
		askHit + "POST /hit HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + askHit,
		"GET /hit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + askHit,
		"GET /hit HTTP/1.1\nHost: a\n\n",
		"GET /hit HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 5000) + "\r\n\r\n" + askHit,
		strings.Repeat(askHit, 600),
		"PRI * HTTP/2.0\r\n\r\n",
	} {
		f.Add([]byte(in), uint16(0))
		f.Add([]byte(in), uint16(7))
	}
	cfg := Config{Hits: stored{"a/hit": Prepare(200, http.Header{}, []byte("stored"), 0)}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %q", r.Method, r.RequestURI, b)
	})}
	seated := start(f, cfg, false, false)
	other, err := New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	pipe := newPipes()
	go other.Serve(pipe)
	f.Cleanup(func() { other.Close() })
	dates := regexp.MustCompile(`Date: [^\r]*\r\n`)
	f.Fuzz(func(t *testing.T, in []byte, size uint16) {
		if bytes.HasPrefix(in, []byte(preface[:18])) {
			return // HTTP/2
		}
		in = append(bytes.Clone(in), "\x00\n\x00\n"...) // what ends each connection
		tell := func(c net.Conn, size int, patience time.Duration) string {
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience)) // a body that has not come whole
			go func() {
				for rest := in; len(rest) > 0; {
					n := min(len(rest), size)
					if _, err := c.Write(rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
			}()
			all, _ := io.ReadAll(c)
			return dates.ReplaceAllString(string(all), "")
		}
		differ := func(patience time.Duration) (got, want string, yes bool) {
			c, err := net.Dial("tcp", seated.addr)
			if err != nil {
				t.Fatal(err)
			}
			got, want = tell(c, max(1, int(size)), patience), tell(pipe.dial(), len(in), patience)
			return got, want, got != want
		}
		_, _, yes := differ(100 * time.Millisecond)
		if !yes {
			return
		}
		if got, want, yes := differ(5 * time.Second); yes { // a busy machine is none
			t.Errorf("%q in pieces of %d: seated:\n%.2000q\nnot:\n%.2000q", in, size, got, want)
		}
	})
}
