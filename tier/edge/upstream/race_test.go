package upstream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The task closes idle connections just when requests come on them: no idempotent request fails, and
// no POST is seen twice. A POST may fail here, when it lay in the task's kernel as the task closed:
// nothing tells that from one it read. pool.get keeps POSTs away from such moments.
func TestTheKeepAliveRaceReachesNobody(t *testing.T) {
	const idle = 3 * time.Millisecond
	var seen sync.Map
	var twice atomic.Int64
	ep := script(t, func(_ int, c net.Conn, in *bufio.Reader) {
		for {
			c.SetReadDeadline(time.Now().Add(idle))
			if _, err := in.Peek(1); err != nil {
				return // closes, whatever is on its way
			}
			c.SetReadDeadline(time.Time{})
			r := hears(in)
			if r == nil {
				return
			}
			if _, had := seen.LoadOrStore(r.Header.Get("X-Id"), true); had && r.Method == "POST" {
				twice.Add(1)
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	f := serve(t, Policy{Eject: Eject{Failures: -1}}, ep)
	var wg sync.WaitGroup
	var posts, id atomic.Int64
	for i := range 4 {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for n := range 150 {
				<-time.After(idle + time.Duration(n%20-10)*50*time.Microsecond)
				method := []string{"GET", "POST", "PUT", "POST"}[i]
				var body io.Reader
				if method != "GET" {
					body = strings.NewReader("body")
				}
				req, _ := http.NewRequest(method, "http://"+f.addr+"/", body)
				req.Header.Set("X-Id", fmt.Sprint(id.Add(1)))
				res, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				b, _ := io.ReadAll(res.Body)
				res.Body.Close()
				switch {
				case res.StatusCode == 200:
				case method == "POST" && strings.Contains(string(b), "connection reset"):
					posts.Add(1)
				default:
					t.Errorf("%s: %d %s", method, res.StatusCode, b)
				}
			}
		})
	}
	wg.Wait()
	again := 0
	f.mu.Lock()
	for _, r := range f.results {
		if r.Tries > 1 {
			again++
		}
	}
	f.mu.Unlock()
	t.Logf("%d of %d requests were sent again, %d POSTs failed", again, id.Load(), posts.Load())
	if twice.Load() > 0 {
		t.Fatalf("%d POSTs were seen twice", twice.Load())
	}
}

// Only a FIN that was sent before the request arrived proves that the task saw nothing.
func TestWhatAClosedConnectionProves(t *testing.T) {
	for name, test := range map[string]struct {
		then   func(c *net.TCPConn, in *bufio.Reader, go1 chan struct{})
		unseen bool
	}{
		"closed before":      {func(c *net.TCPConn, _ *bufio.Reader, go1 chan struct{}) { c.Close(); close(go1) }, true},
		"read and closed":    {func(_ *net.TCPConn, in *bufio.Reader, go1 chan struct{}) { close(go1); hears(in) }, false},
		"reset after it":     {func(c *net.TCPConn, in *bufio.Reader, go1 chan struct{}) { close(go1); in.Peek(1); c.SetLinger(0) }, false},
		"read half of it":    {func(c *net.TCPConn, _ *bufio.Reader, go1 chan struct{}) { close(go1); c.Read(make([]byte, 3)) }, false},
		"half closed before": {func(c *net.TCPConn, in *bufio.Reader, go1 chan struct{}) { c.CloseWrite(); close(go1); hears(in) }, true},
	} {
		go1 := make(chan struct{})
		ep := script(t, func(_ int, c net.Conn, in *bufio.Reader) {
			hears(in)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			test.then(c.(*net.TCPConn), in, go1)
		})
		e := newEndpoint(ep, nil)
		c, err := dial(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		const request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
		io.WriteString(c, request)
		if err := c.readHead(); err != nil {
			t.Fatal(err)
		}
		b := bodyOf(c, &c.head, "POST")
		b.next(nil)
		e.pool.put(c, clock())
		<-go1
		if strings.HasSuffix(name, "before") {
			eventually(t, "closed", func() bool { return !c.alive() })
		}
		io.WriteString(c, request)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		err = c.readHead()
		if got := c.unseen(err); got != test.unseen {
			t.Errorf("%s: unseen %v after %v", name, got, err)
		}
		c.discard()
	}
}

// A FIN that is there before the request goes out costs no try at all.
func TestClosedConnectionsAreNotUsed(t *testing.T) {
	closed := make(chan struct{}, 8)
	ep := script(t, func(_ int, c net.Conn, in *bufio.Reader) {
		if hears(in) != nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
		c.Close()
		closed <- struct{}{}
	})
	f := serve(t, Policy{}, ep)
	for range 5 {
		if res, _, err := f.ask(t, "POST", "/", strings.NewReader("x")); err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		<-closed
		if r := f.last(t); r.Tries != 1 {
			t.Fatalf("%d tries", r.Tries)
		}
	}
}

// A task that takes connections and closes them unread is asked again at a measured pace, POST
// included, until it serves.
func TestConnectionsThatCloseUnreadAreRefusals(t *testing.T) {
	var n atomic.Int64
	ep := script(t, func(_ int, c net.Conn, in *bufio.Reader) {
		if n.Add(1) < 4 {
			return
		}
		if hears(in) != nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	f := serve(t, Policy{}, ep)
	res, b, err := f.ask(t, "POST", "/", strings.NewReader("x"))
	if err != nil || (b != "ok" && !strings.Contains(b, "reset")) { // a reset proves nothing: see conn.unseen
		t.Fatal(res.StatusCode, b, err)
	}
	if took := f.last(t).Total; b == "ok" && took < 2*redialFirst {
		t.Errorf("four attempts in %v", took)
	}
}

// What a task says of its keep-alive is believed, and what it does is learned.
func TestIdleTimesAreLearned(t *testing.T) {
	var p pool
	const second = int64(time.Second)
	if p.keep(0) != int64(idleMost) {
		t.Fatal(p.keep(0))
	}
	p.told(0, 3*time.Second)
	if p.keep(0) != 2*second {
		t.Fatal(p.keep(0))
	}
	p.learn(0, second) // found closed after one second
	if got := p.keep(0); got != 3*second/4 {
		t.Fatal(got)
	}
	p.learn(0, second/1000) // a restart, not a setting
	if got := p.keep(0); got != 3*second/4 {
		t.Fatal(got)
	}
	now := int64(0)
	for range 10 { // doubted again and again
		now += int64(relearn) + 1
		p.keep(now)
	}
	if p.keep(now) != int64(idleMost) {
		t.Fatal(p.keep(now))
	}
}

// restarting is a backend that can be killed and started again at the same address.
type restarting struct {
	t    *testing.T
	addr string
	h    http.HandlerFunc
	s    *http.Server
	wg   sync.WaitGroup
}

func (r *restarting) start() {
	r.t.Helper()
	addr := r.addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var l net.Listener
	eventually(r.t, "the address is free", func() bool {
		var err error
		l, err = net.Listen("tcp", addr)
		return err == nil
	})
	r.addr = l.Addr().String()
	s := &http.Server{Handler: r.h, ErrorLog: quiet}
	r.s = s
	r.wg.Go(func() { s.Serve(l) })
}

// kill closes everything at once, as the kernel does for a killed process.
func (r *restarting) kill() { r.s.Close() }

// term ends as many servers do on SIGTERM: no more connections, requests under way are answered.
func (r *restarting) term() { r.s.Shutdown(r.t.Context()) }

// Two tasks are restarted in turn under 16 connections: no GET fails.
func TestRollingRestartsReachNobody(t *testing.T) {
	var sent atomic.Int64
	start := func() *restarting {
		r := &restarting{t: t, h: func(w http.ResponseWriter, _ *http.Request) {
			sent.Add(1)
			<-time.After(time.Millisecond)
			io.WriteString(w, "whole")
		}}
		r.start()
		return r
	}
	tasks := []*restarting{start(), start()}
	defer func() {
		for _, r := range tasks {
			r.kill()
			r.wg.Wait()
		}
	}()
	f := serve(t, Policy{}, Endpoint{ID: "a", Addr: tasks[0].addr, Weight: 1}, Endpoint{ID: "b", Addr: tasks[1].addr, Weight: 1})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var good, bad atomic.Int64
	for range 16 {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				res, err := client.Get("http://" + f.addr + "/")
				if err != nil {
					t.Error(err)
					bad.Add(1)
					return
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || string(b) != "whole" {
					t.Errorf("%d %q %v", res.StatusCode, b, err)
					bad.Add(1)
					return
				}
				good.Add(1)
			}
		})
	}
	for i := range 8 {
		before := good.Load()
		eventually(t, "requests pass", func() bool { return good.Load() > before+100 || bad.Load() > 0 })
		r := tasks[i%2]
		if i%4 < 2 {
			r.kill()
		} else {
			r.term()
		}
		<-time.After(20 * time.Millisecond)
		r.start()
		eventually(t, "it takes requests again", func() bool { return !f.Counts()[i%2].Refusing || bad.Load() > 0 })
	}
	close(stop)
	wg.Wait()
	t.Logf("%d good, sent %d", good.Load(), sent.Load())
	if extra := sent.Load() - good.Load(); bad.Load() > 0 || float64(extra) > 0.2*float64(good.Load()) {
		t.Fatalf("%d good, %d bad, %d sent", good.Load(), bad.Load(), sent.Load())
	}
}

// With all tasks gone requests wait, and are answered at once when one is back.
func TestRequestsAreHeldWhileAllTasksAreGone(t *testing.T) {
	r := &restarting{t: t, h: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") }}
	r.start()
	r.kill()
	r.wg.Wait()
	f := serve(t, Policy{HoldMost: 20, Hold: 20 * time.Second}, Endpoint{ID: "a", Addr: r.addr, Weight: 1})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if res, b, err := f.ask(t, "POST", "/", strings.NewReader("x")); err != nil || b != "here" {
				t.Error(res, b, err)
			}
		})
	}
	eventually(t, "all are held", func() bool { return f.Held() == 20 })
	if status, b := f.get(t, "/"); status != 503 || !strings.Contains(b, "too many") {
		t.Error(status, b)
	}
	// It stays away long enough for the pauses between attempts to have grown.
	eventually(t, "several attempts", func() bool {
		s := f.set.Load()
		return s.all[0].refusals.Load() >= 4
	})
	r.start()
	begun := time.Now()
	wg.Wait()
	if took := time.Since(begun); took > time.Second {
		t.Errorf("back after %v", took)
	}
	r.kill()
	r.wg.Wait()
	f.Update(nil, "nothing is deployed")
	done := make(chan int)
	go func() { status, _ := f.get(t, "/"); done <- status }()
	eventually(t, "held", func() bool { return f.Held() == 1 })
	r.start()
	f.Update([]Endpoint{{ID: "b", Addr: r.addr, Weight: 1}}, "")
	if status := <-done; status != 200 {
		t.Error(status)
	}
	r.kill()
	r.wg.Wait()
}

// A draining task finishes what it has, gets nothing new, and is told of once, when it counts zero.
func TestDrainingEndsAtZero(t *testing.T) {
	release := make(chan struct{})
	old, _ := task(t, func(w http.ResponseWriter, r *http.Request) { <-release; io.WriteString(w, "old") })
	next, _ := task(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "next") })
	drained := make(chan string, 10)
	f := &front{Service: NewService(Config{Name: "api", Drained: func(id string) { drained <- id }})}
	f.Update([]Endpoint{old}, "")
	srv := &http.Server{Handler: f.Service}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()
	defer f.Close()
	f.addr = l.Addr().String()
	got := make(chan string)
	go func() { _, b := f.get(t, "/"); got <- b }()
	eventually(t, "in flight", func() bool { return f.inFlight() == 1 })
	old.Draining = true
	f.Update([]Endpoint{old, next}, "")
	for range 10 {
		if _, b := f.get(t, "/"); b != "next" {
			t.Fatal(b)
		}
	}
	if len(drained) > 0 {
		t.Fatal("told while a request is in flight")
	}
	close(release)
	if b := <-got; b != "old" {
		t.Fatal(b)
	}
	if id := <-drained; id != old.ID {
		t.Fatal(id)
	}
	f.Update([]Endpoint{next}, "")
	next.Draining = true
	f.Update([]Endpoint{next}, "")
	if id := <-drained; id != next.ID || len(drained) > 0 {
		t.Fatal(id, len(drained))
	}
}
