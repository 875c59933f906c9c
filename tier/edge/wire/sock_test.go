package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// pair is the two ends of a TCP connection.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestASockWritesWhatItsBufferDoesNotHold(t *testing.T) {
	a, b := pair(t)
	a.(*net.TCPConn).SetWriteBuffer(4 << 10)
	head, body := bytes.Repeat([]byte("h"), 3<<20), bytes.Repeat([]byte("b"), 3<<20)
	got := make(chan []byte)
	go func() { all, _ := io.ReadAll(b); got <- all }()
	n, err := NewSock(a).WriteBoth(head, body)
	if n != len(head)+len(body) || err != nil {
		t.Fatalf("wrote %d of %d: %v", n, len(head)+len(body), err)
	}
	a.Close()
	if !bytes.Equal(<-got, append(head, body...)) {
		t.Error("what came is not what was written")
	}
}

func TestASockHasDeadlinesAndEnds(t *testing.T) {
	a, b := pair(t)
	s := NewSock(a)
	a.SetReadDeadline(long)
	if n, err := s.Read(make([]byte, 8)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read past its deadline: %d, %v", n, err)
	}
	a.SetReadDeadline(time.Time{})
	b.Close()
	if n, err := s.ReadEach(make([]byte, 8), func(int) bool { return true }); n != 0 || err != io.EOF {
		t.Errorf("read of what ended: %d, %v", n, err)
	}
	for range 100 {
		if _, err := s.Write([]byte("x")); err != nil {
			return
		}
	}
	t.Error("writes to a connection that is gone succeed")
}

// TestHitsBetweenOtherRequests sends hits and others, in pieces and in one, over one connection: what the
// idle connection answers in place and what it leaves must come out in order.
func TestHitsBetweenOtherRequests(t *testing.T) {
	addr := serveHits(t)
	for _, size := range []int{1, 7, 64, 4096, 5000, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var ask, want strings.Builder
			for i := range 300 {
				switch i % 5 {
				case 0, 1, 3:
					ask.WriteString("GET /hit HTTP/1.1\r\nHost: a\r\n\r\n")
					want.WriteString("hit")
				case 2:
					fmt.Fprintf(&ask, "GET /other-%d HTTP/1.1\r\nHost: a\r\nX-Fill: %s\r\n\r\n", i, strings.Repeat("x", i))
					fmt.Fprintf(&want, "/other-%d", i)
				case 4:
					fmt.Fprintf(&ask, "POST /sent-%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", i)
					fmt.Fprintf(&want, "/sent-%dabc", i)
				}
			}
			ask.WriteString("GET /hit HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			want.WriteString("hit")
			go func() {
				for rest := []byte(ask.String()); len(rest) > 0; {
					n := min(size, len(rest))
					c.Write(rest[:n])
					rest = rest[n:]
				}
			}()
			all, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for rest := string(all); rest != ""; {
				head, body, ok := strings.Cut(rest, "\r\n\r\n")
				if !ok || !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") {
					t.Fatalf("no answer: %.200q", rest)
				}
				_, l, _ := strings.Cut(head, "Content-Length: ")
				var n int
				fmt.Sscan(l, &n)
				got.WriteString(body[:n])
				rest = body[n:]
			}
			if got.String() != want.String() {
				t.Errorf("got  %.300q\nwant %.300q", got.String(), want.String())
			}
		})
	}
}

// serveHits serves a stored answer at /hit, and tells of other requests.
func serveHits(t *testing.T) string {
	t.Helper()
	hit := &Hit{Head1: []byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"), Body: []byte("hit")}
	s, err := New(Config{Hits: hitAt{hit}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.URL.Path)
		io.Copy(w, r.Body)
	})})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

type hitAt struct{ stored *Hit }

func (h hitAt) Hit(r *Request, _ *Hit) *Hit {
	if r.Target == "/hit" {
		return h.stored
	}
	return nil
}

func TestASockExchanges(t *testing.T) {
	a, b := pair(t)
	s, buf := NewSock(a), make([]byte, 64)
	go func() {
		in := make([]byte, 64)
		for {
			n, err := b.Read(in)
			if err != nil || string(in[:n]) == "bye" {
				b.Close()
				return
			}
			b.Write(bytes.ToUpper(in[:n]))
		}
	}()
	for range 100 {
		if sent, n, err := s.Exchange([]byte("hello"), buf); sent != 5 || err != nil || string(buf[:n]) != "HELLO" {
			t.Fatalf("sent %d, got %q: %v", sent, buf[:n], err)
		}
	}
	if sent, n, err := s.Exchange([]byte("bye"), buf); sent != 3 || n != 0 || err == nil {
		t.Errorf("an answer of one that closes: sent %d, got %d, %v", sent, n, err)
	}
	if _, _, err := s.Exchange([]byte("hello"), buf); err == nil {
		t.Error("an answer of one that closed")
	}

	a, _ = pair(t) // of which nobody reads
	a.(*net.TCPConn).SetWriteBuffer(4 << 10)
	if sent, n, err := NewSock(a).Exchange(make([]byte, 16<<20), buf); sent == 0 || sent == 16<<20 || n != 0 || err != nil {
		t.Errorf("more than the socket takes: sent %d, got %d, %v", sent, n, err)
	}
	s = NewSock(a)
	a.SetReadDeadline(long)
	if _, n, err := s.Exchange(nil, buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past its deadline: %d, %v", n, err)
	}
}
