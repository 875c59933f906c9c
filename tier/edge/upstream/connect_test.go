package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// twoWay is the answer of a stream of HTTP/2 whose both ends the test holds.
type twoWay struct {
	h      http.Header
	status chan int
	out    *io.PipeWriter
	in     *io.PipeReader
}

func (w *twoWay) Header() http.Header         { return w.h }
func (w *twoWay) WriteHeader(status int)      { w.status <- status }
func (w *twoWay) Write(p []byte) (int, error) { return w.out.Write(p) }
func (w *twoWay) Flush()                      {}
func (w *twoWay) SetReadDeadline(t time.Time) error {
	w.in.CloseWithError(net.ErrClosed)
	return nil
}
func (w *twoWay) SetWriteDeadline(t time.Time) error { return nil }

// WebSocket over one stream of HTTP/2 reaches a task that knows upgrades of HTTP/1.1 only.
func TestExtendedConnectBecomesAnUpgrade(t *testing.T) {
	wrong := false
	ep := script(t, func(_ int, c net.Conn, in *bufio.Reader) {
		r := hears(in)
		if r == nil || r.Method != "GET" || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-WebSocket-Version") != "13" || r.RequestURI != "/ws?a" {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		accept := acceptOf(r.Header.Get("Sec-WebSocket-Key"))
		if wrong {
			accept = acceptOf("other")
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+accept+"\r\nSec-WebSocket-Protocol: chat\r\n\r\n")
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				io.WriteString(c, "bye\n")
				return
			}
			io.WriteString(c, "echo "+line)
		}
	})
	s := NewService(Config{Name: "api"})
	defer s.Close()
	s.Update([]Endpoint{ep}, "")
	begin := func(protocol string) (*twoWay, *io.PipeWriter, *bufio.Reader, chan any) {
		fromClient, toServer := io.Pipe()
		toClient, out := io.Pipe()
		r := httptest.NewRequest("CONNECT", "/ws?a", fromClient)
		r.URL.Path, r.URL.RawQuery, r.RequestURI, r.Host = "/ws", "a", "/ws?a", "shop.localhost"
		r.ProtoMajor, r.ProtoMinor, r.ContentLength = 2, 0, -1
		r.Header = http.Header{"Sec-Websocket-Version": {"13"}}
		if protocol != "" {
			r.Header[":protocol"] = []string{protocol}
		}
		w := &twoWay{http.Header{}, make(chan int, 2), out, fromClient}
		done := make(chan any, 1)
		go func() {
			defer func() { v := recover(); out.Close(); done <- v }()
			s.ServeHTTP(w, r)
		}()
		return w, toServer, bufio.NewReader(toClient), done
	}
	w, send, in, done := begin("websocket")
	if status := <-w.status; status != 200 || w.h.Get("Sec-WebSocket-Protocol") != "chat" || w.h.Get("Sec-WebSocket-Accept") != "" || w.h.Get("Upgrade") != "" {
		t.Fatal(status, w.h)
	}
	io.WriteString(send, "hello\n")
	if line, err := in.ReadString('\n'); line != "echo hello\n" {
		t.Fatal(line, err)
	}
	send.Close()
	if line, err := in.ReadString('\n'); line != "bye\n" {
		t.Fatal(line, err)
	}
	if v := <-done; v != nil {
		t.Fatal(v)
	}
	for protocol, want := range map[string]int{"": 400, "other": 400} {
		w, _, in, done := begin(protocol)
		if status := <-w.status; status != want {
			t.Errorf("%q: %d", protocol, status)
		}
		io.Copy(io.Discard, in)
		<-done
	}
	wrong = true
	w, _, in, done = begin("websocket")
	if status := <-w.status; status != 502 {
		t.Error(status)
	}
	io.Copy(io.Discard, in)
	<-done
	eventually(t, "nothing in flight", func() bool { return s.Counts()[0].InFlight == 0 })
}
