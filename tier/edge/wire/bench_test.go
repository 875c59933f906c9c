package wire

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkHit is a stored response of 1 KiB over one connection: it should allocate nothing.
func BenchmarkHit(b *testing.B) {
	s := start(b, Config{Handler: http.NotFoundHandler(), Hits: stored{"a/hit": hello(strings.Repeat("x", 1024))}}, false, false)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	req := []byte("GET /hit HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n")
	buf := make([]byte, 16<<10)
	c.Write(req)
	size, _ := c.Read(buf)
	b.ReportAllocs()
	for b.Loop() {
		c.Write(req)
		if _, err := io.ReadAtLeast(c, buf, size); err != nil {
			b.Fatal(err)
		}
	}
}
