package upstream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// echo is a backend that changes to a protocol that answers line by line.
func echo(t testing.TB) Endpoint {
	return script(t, func(_ int, c net.Conn, in *bufio.Reader) {
		if r := hears(in); r == nil || r.Header.Get("Upgrade") != "echo" || r.Header.Get("Connection") != "Upgrade" {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-A: 1\r\n\r\nfirst\n")
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				io.WriteString(c, "bye\n") // the other direction still works
				return
			}
			io.WriteString(c, "echo "+line)
		}
	})
}

func (f *front) upgrade(t testing.TB, more string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n"+more)
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, in, res
}

func TestUpgradedConnectionsPassBothWays(t *testing.T) {
	f := serve(t, Policy{}, echo(t))
	c, in, res := f.upgrade(t, "early\n")
	if res.StatusCode != 101 || res.Header.Get("Upgrade") != "echo" || res.Header.Get("X-A") != "1" {
		t.Fatal(res.StatusCode, res.Header)
	}
	big := strings.Repeat("x", 200_000) + "\n"
	go io.WriteString(c, big)
	for _, want := range []string{"first\n", "echo early\n", "echo " + big} {
		if line, err := in.ReadString('\n'); line != want {
			t.Fatalf("%.40q %v", line, err)
		}
	}
	if f.inFlight() != 1 {
		t.Fatal("does not count as in flight")
	}
	c.(*net.TCPConn).CloseWrite()
	if line, err := in.ReadString('\n'); line != "bye\n" {
		t.Fatalf("%q after half a close: %v", line, err)
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Fatal(err)
	}
	eventually(t, "nothing in flight", func() bool { return f.inFlight() == 0 })
	if r := f.last(t); r.Status != 101 || r.Bytes < 400_000 || r.Err != nil {
		t.Fatalf("%+v", r)
	}
}

func TestUpgradedConnectionsEndWhenSilentAndWhenRefused(t *testing.T) {
	f := serve(t, Policy{Idle: 100 * time.Millisecond}, echo(t))
	_, in, _ := f.upgrade(t, "")
	in.ReadString('\n')
	if _, err := in.ReadByte(); err == nil {
		t.Fatal("a byte")
	}
	if r := f.last(t); r.Err != ErrSilent {
		t.Fatalf("%+v", r)
	}
	f.Update([]Endpoint{answers(t, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")}, "")
	if _, _, res := f.upgrade(t, ""); res.StatusCode != 403 {
		t.Fatal(res.StatusCode)
	}
	f.Update([]Endpoint{answers(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")}, "")
	if _, _, res := f.upgrade(t, ""); res.StatusCode != 502 {
		t.Fatal(res.StatusCode)
	}
}

func TestEventsPassAtOnceAndEndWhenSilent(t *testing.T) {
	more := make(chan struct{})
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-more
		}
		<-r.Context().Done()
	})
	f := serve(t, Policy{Idle: 300 * time.Millisecond}, ep)
	res, err := http.Get("http://" + f.addr + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	for i := range 3 {
		if line, err := in.ReadString('\n'); line != fmt.Sprintf("data: %d\n", i) {
			t.Fatal(line, err)
		}
		in.ReadString('\n')
		more <- struct{}{}
	}
	if _, err := io.ReadAll(in); err == nil {
		t.Fatal("the silent stream ended as if it were whole")
	}
}

// gRPC is HTTP/2 all the way: both bodies at once, and trailers.
func TestGRPCPassesBothWaysAtOnce(t *testing.T) {
	var proto atomic.Value
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto.Store(r.Proto + " " + r.Header.Get("Te") + " " + r.Header.Get("X-Forwarded-For"))
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.(http.Flusher).Flush()
		in := bufio.NewReader(r.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				break
			}
			io.WriteString(w, "echo "+line)
			w.(http.Flusher).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
	})
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	dead := httptest.NewServer(nil)
	dead.Close()
	f := serve(t, Policy{}, endpointAt(s.Listener.Addr()), endpointAt(dead.Listener.Addr()))
	two := &http.Transport{Protocols: new(http.Protocols)}
	two.Protocols.SetUnencryptedHTTP2(true)
	defer two.CloseIdleConnections()
	for range 4 {
		body, send := io.Pipe()
		req, _ := http.NewRequest("POST", "http://"+f.addr+"/svc/Method", body)
		req.Header.Set("Content-Type", "application/grpc+proto")
		req.Header.Set("Te", "trailers")
		res, err := two.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(res.Body)
		for i := range 3 {
			fmt.Fprintf(send, "message %d\n", i)
			if line, err := in.ReadString('\n'); line != fmt.Sprintf("echo message %d\n", i) {
				t.Fatal(line, err)
			}
		}
		send.Close()
		if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
			t.Fatal(rest, err)
		}
		if res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "fine" {
			t.Fatal(res.Trailer)
		}
		res.Body.Close()
	}
	if got := proto.Load(); got != "HTTP/2.0 trailers 127.0.0.1" {
		t.Fatal(got)
	}
	eventually(t, "nothing in flight", func() bool { return f.inFlight() == 0 })
	// A call that breaks off is reset, not ended.
	breaks := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	breaks.Config.Protocols, breaks.Config.ErrorLog = s.Config.Protocols, quiet
	breaks.Start()
	defer breaks.Close()
	f.Update([]Endpoint{endpointAt(breaks.Listener.Addr())}, "")
	req, _ := http.NewRequest("POST", "http://"+f.addr+"/svc/Method", strings.NewReader("x"))
	req.Header.Set("Content-Type", "application/grpc")
	res, err := two.RoundTrip(req)
	if err == nil {
		_, err = io.ReadAll(res.Body)
	}
	if err == nil {
		t.Fatal("looks whole")
	}
}

// A chunked request and its answer can pass at the same time on HTTP/2 without gRPC.
func TestPlainStreamsPassBothWaysAtOnce(t *testing.T) {
	ep := script(t, func(_ int, c net.Conn, in *bufio.Reader) {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
		lines := bufio.NewReader(r.Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				break
			}
			fmt.Fprintf(c, "%x\r\n%s\r\n", len(line), line)
		}
		io.WriteString(c, "0\r\n\r\n")
	})
	f := serve(t, Policy{}, ep)
	for _, version := range []int{1, 2} {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(version == 1)
		tr.Protocols.SetUnencryptedHTTP2(version == 2)
		body, send := io.Pipe()
		req, _ := http.NewRequest("POST", "http://"+f.addr+"/", body)
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(res.Body)
		for i := range 5 {
			fmt.Fprintf(send, "%d\n", i)
			if line, err := in.ReadString('\n'); line != fmt.Sprintf("%d\n", i) {
				t.Fatalf("HTTP/%d: %q %v", version, line, err)
			}
		}
		send.Close()
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Fatalf("HTTP/%d: %q %v", version, rest, err)
		}
		res.Body.Close()
		tr.CloseIdleConnections()
	}
	eventually(t, "nothing in flight", func() bool { return f.inFlight() == 0 })
}

func TestHedgesGoToAnotherTask(t *testing.T) {
	stuck, _ := task(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	quick, _ := task(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "quick") })
	f := serve(t, Policy{Hedge: Hedge{After: 10 * time.Millisecond}, Retry: Retry{Least: 100}, Eject: Eject{Failures: -1, Latency: -1}}, stuck, quick)
	hedged := 0
	for range 20 {
		if status, b := f.get(t, "/"); status != 200 || b != "quick" {
			t.Fatal(status, b)
		}
		if f.last(t).Hedged {
			hedged++
		}
	}
	if hedged == 0 {
		t.Fatal("none was")
	}
	eventually(t, "nothing in flight", func() bool { return f.inFlight() == 0 })
	f.SetPolicy(Policy{Hedge: Hedge{After: 10 * time.Millisecond}, Timeout: 50 * time.Millisecond})
	f.Update([]Endpoint{stuck}, "")
	if status, _ := f.get(t, "/"); status != 504 {
		t.Fatal(status)
	}
	f.Update([]Endpoint{quick}, "")
	if res, b, err := f.ask(t, "POST", "/", strings.NewReader("x")); err != nil || b != "quick" {
		t.Fatal(res, err)
	}
}

func TestStickyClientsStayWhereTheyAre(t *testing.T) {
	var eps []Endpoint
	for i := range 4 {
		ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, i) })
		eps = append(eps, ep)
	}
	f := serve(t, Policy{Sticky: time.Hour}, eps...)
	res, first, err := f.ask(t, "GET", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	cookies := res.Cookies()
	if len(cookies) != 1 || !cookies[0].HttpOnly || cookies[0].MaxAge != 3600 || strings.Contains(cookies[0].Value, "127.0.0.1") {
		t.Fatal(cookies)
	}
	cookie := cookies[0].Name + "=" + cookies[0].Value
	for range 20 {
		res, b, err := f.ask(t, "GET", "/", nil, "Cookie", cookie)
		if err != nil || b != first || len(res.Cookies()) != 0 {
			t.Fatal(b, err, res.Cookies())
		}
	}
	for i := range eps {
		eps[i].Draining = fmt.Sprint(i) == first
	}
	f.Update(eps, "")
	res, b, err := f.ask(t, "GET", "/", nil, "Cookie", cookie)
	if err != nil || b == first || len(res.Cookies()) != 1 {
		t.Fatal(b, err, res.Cookies())
	}
}
