//go:build scenario

package test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// HTTP/3 beside TLS: it is offered, answers hits and misses, takes uploads, and an upload that is
// under way outlives the door that began it.
func TestHTTP3(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "edge: {routes: {/echo: {cache: 1h}}}\n")})
	addr, roots := h.upTLS(dir)
	_, port, _ := net.SplitHostPort(addr)
	url := "https://echo.localhost:" + port + "/echo"

	over2 := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}}}
	res, err := over2.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if alt := res.Header.Get("Alt-Svc"); !strings.Contains(alt, `h3=":`+port+`"`) {
		t.Fatalf("HTTP/2 does not offer HTTP/3: %q", alt)
	}
	over3 := func() *http.Client {
		tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots},
			Dial: func(ctx context.Context, _ string, t *tls.Config, q *quic.Config) (*quic.Conn, error) {
				return quic.DialAddrEarly(ctx, addr, t, q)
			}}
		t.Cleanup(func() { tr.Close() })
		return &http.Client{Transport: tr, Timeout: time.Minute}
	}
	send := func(c *http.Client, body io.Reader) string {
		t.Helper()
		res, err := c.Post(url, "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.ProtoMajor != 3 || res.StatusCode != 200 {
			t.Fatalf("%s %d %v", res.Proto, res.StatusCode, err)
		}
		return string(b)
	}
	client := over3()
	eventually(t, "a hit over HTTP/3", 10*time.Second, func() bool {
		res, err := client.Get(url)
		if err != nil || res.StatusCode != 200 || res.ProtoMajor != 3 {
			t.Fatalf("%+v, %v", res, err)
		}
		res.Body.Close()
		return strings.Contains(res.Header.Get("Cache-Status"), "hit")
	})
	large := bytes.Repeat([]byte("0123456789"), 200_000)
	if got := send(client, bytes.NewReader(large)); got != "1 "+string(large) {
		t.Errorf("an upload came back as %d bytes", len(got))
	}

	next := h.next()
	body, feed := io.Pipe()
	got := make(chan string, 1)
	go func() { got <- send(client, body) }()
	feed.Write(large[:1_000_000])
	old := h.process("house door")
	h.bin = next
	h.must(dir, "upgrade")
	eventually(t, "the next door", 20*time.Second, func() bool { return h.process("house door") != old })
	if answer := send(over3(), strings.NewReader("new")); answer != "1 new" {
		t.Errorf("a new client: %q", answer)
	}
	feed.Write(large[1_000_000:])
	feed.Close()
	if answer := <-got; answer != "1 "+string(large) {
		t.Errorf("the upload under way came back as %d bytes", len(answer))
	}
}
