package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// drop is an answer that nobody reads.
type drop struct{ h http.Header }

func (d *drop) Header() http.Header         { return d.h }
func (d *drop) WriteHeader(int)             { clear(d.h) }
func (d *drop) Write(p []byte) (int, error) { return len(p), nil }
func (d *drop) Flush()                      {}

// BenchmarkGet is the way to a task and back without the front door's own connection; bare is the
// same bytes on the same kind of connection with nothing around them.
func BenchmarkGet(b *testing.B) {
	answer := "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 26 Nov 2026 03:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\nLast-Modified: Thu, 26 Nov 2026 03:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"5f\"\r\nAccept-Ranges: bytes\r\n\r\n" + strings.Repeat("x", 1024)
	ep := script(b, func(_ int, c net.Conn, in *bufio.Reader) {
		for {
			for {
				line, err := in.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) == 2 {
					break
				}
			}
			io.WriteString(c, answer)
		}
	})
	b.Run("service", func(b *testing.B) {
		s := NewService(Config{Name: "api"})
		defer s.Close()
		s.Update([]Endpoint{ep}, "")
		r, _ := http.NewRequest("GET", "http://shop.localhost/api/x", nil)
		r.RequestURI, r.RemoteAddr = "/api/x", "127.0.0.1:5"
		r.Header.Set("User-Agent", "bench")
		r.Header.Set("Accept", "*/*")
		w := &drop{http.Header{}}
		b.ReportAllocs()
		for b.Loop() {
			s.ServeHTTP(w, r)
		}
	})
	b.Run("bare", func(b *testing.B) {
		c, err := net.Dial("tcp", ep.Addr)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		request := []byte("GET /api/x HTTP/1.1\r\nHost: shop.localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
		buf := make([]byte, 8<<10)
		b.ReportAllocs()
		for b.Loop() {
			c.Write(request)
			for n := 0; n < len(answer); {
				m, err := c.Read(buf)
				if err != nil {
					b.Fatal(err)
				}
				n += m
			}
		}
	})
}
