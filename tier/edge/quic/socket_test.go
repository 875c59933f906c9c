package quic

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/ipv4"
)

// pair are two sockets of one address, as two processes have them.
func pair(t *testing.T) (a, b *Socket) {
	t.Helper()
	u := socket(t).(*net.UDPConn)
	f, err := u.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	other, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	share := func(c net.PacketConn) *Socket {
		s, err := Share(c.(*net.UDPConn), dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	return share(u), share(other)
}

// serveOn runs a server that says its name, on a socket.
func serveOn(t *testing.T, s *Socket, name string, cert tls.Certificate, key [32]byte) *Server {
	t.Helper()
	srv, err := New(Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, TokenKey: key, Log: slog.New(slog.DiscardHandler),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			fmt.Fprintf(w, "%s %d", name, n)
		})})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return srv
}

func TestTwoDoorsShareASocket(t *testing.T) {
	cert, pool := certificate(t)
	a, b := pair(t)
	url := "https://" + a.LocalAddr().String() + "/"
	clientTLS := &tls.Config{ServerName: "localhost", RootCAs: pool, NextProtos: []string{"h3"}}
	client := func() *http.Client {
		tr := &http3.Transport{TLSClientConfig: clientTLS}
		t.Cleanup(func() { tr.Close() })
		return &http.Client{Transport: tr, Timeout: 20 * time.Second}
	}
	get := func(c *http.Client) string {
		res, err := c.Get(url)
		_, text := read(t, res, err)
		return text
	}
	old := serveOn(t, a, "old", cert, [32]byte{1})
	first := client()
	if got := get(first); got != "old 0" {
		t.Fatalf("before: %q", got)
	}
	// A request is under way when the next door comes.
	body, feed := io.Pipe()
	answer := make(chan string, 1)
	go func() {
		res, err := first.Post(url, "text/plain", body)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		answer <- string(text)
	}()
	chunk := bytes.Repeat([]byte("x"), 100_000)
	feed.Write(chunk)
	if a.Others() != true {
		t.Fatal("the other is not seen")
	}
	serveOn(t, b, "new", cert, [32]byte{1})
	a.Leave(t.Context())
	drained := make(chan error, 1)
	go func() { drained <- old.Drain(context.Background()) }()
	for range 20 { // what the new door reads of this it passes on
		feed.Write(chunk)
	}
	if got := get(client()); got != "new 0" {
		t.Errorf("a new client: %q", got)
	}
	feed.Write(chunk)
	feed.Close()
	if got := <-answer; got != "old 2200000" {
		t.Errorf("the request under way: %q", got)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if got := get(first); got != "new 0" {
		t.Errorf("the old client, again: %q", got)
	}
	a.Close()
	if b.Others() {
		t.Error("one that has closed is still seen")
	}
}

// The next door may be late: who comes meanwhile is not refused, and is served once it is there.
func TestTheNextDoorIsLate(t *testing.T) {
	cert, pool := certificate(t)
	u := socket(t).(*net.UDPConn)
	f, err := u.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := t.TempDir()
	a, err := Share(u, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	old := serveOn(t, a, "old", cert, [32]byte{1})
	url := "https://" + a.LocalAddr().String() + "/"
	ask := func(body io.Reader) (string, error) {
		tr := &http3.Transport{TLSClientConfig: &tls.Config{ServerName: "localhost", RootCAs: pool, NextProtos: []string{"h3"}}}
		defer tr.Close()
		res, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Post(url, "text/plain", body)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return string(b), err
	}
	// Something is under way, so that the old door goes on reading.
	body, feed := io.Pipe()
	under := make(chan string, 1)
	go func() {
		got, err := ask(body)
		under <- fmt.Sprint(got, err)
	}()
	feed.Write([]byte("x"))
	eventually(t, "a request", func() bool {
		old.mu.Lock()
		defer old.mu.Unlock()
		for v := range old.visits {
			if v.active.Load() > 0 {
				return true
			}
		}
		return false
	})
	left := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { defer close(left); a.Leave(ctx) }()
	drained := make(chan error, 1)
	go func() { drained <- old.Drain(context.Background()) }()
	answer := make(chan string, 1)
	go func() {
		got, err := ask(bytes.NewReader([]byte("x")))
		answer <- fmt.Sprint(got, err)
	}()
	eventually(t, "a first packet was thrown away", func() bool { return a.thrown.Load() > 0 })
	other, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Share(other.(*net.UDPConn), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	serveOn(t, b, "new", cert, [32]byte{1})
	if got := <-answer; got != "new 1<nil>" {
		t.Errorf("who came meanwhile: %s", got)
	}
	feed.Close()
	if got := <-under; got != "old 1<nil>" {
		t.Errorf("what was under way: %s", got)
	}
	<-left
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// With both reading, each gets packets of the other's connections.
func TestNothingIsLostWhileBothRead(t *testing.T) {
	cert, pool := certificate(t)
	a, b := pair(t)
	serveOn(t, a, "a", cert, [32]byte{1})
	serveOn(t, b, "b", cert, [32]byte{1})
	for i := range 6 {
		tr := &http3.Transport{TLSClientConfig: &tls.Config{ServerName: "localhost", RootCAs: pool, NextProtos: []string{"h3"}}}
		c := &http.Client{Transport: tr, Timeout: 20 * time.Second}
		res, err := c.Post("https://"+a.LocalAddr().String()+"/", "text/plain", bytes.NewReader(make([]byte, 300_000)))
		if _, text := read(t, res, err); text != "a 300000" && text != "b 300000" {
			t.Errorf("client %d: %q", i, text)
		}
		tr.Close()
	}
}

func TestDeadDoorsLeaveNothing(t *testing.T) {
	a, b := pair(t)
	// A process that was killed leaves its socket's file.
	path := filepath.Join(a.dir, "quic-ffff.sock")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if a.Others() {
		t.Error("the dead are seen")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("its file is still there")
	}
	// A packet for one that is gone stays here, so that its sender gets a stateless reset.
	p := append([]byte{0x40, 0xff, 0xff}, make([]byte, 30)...)
	ms := []ipv4.Message{{Buffers: [][]byte{p}, N: len(p), Addr: a.LocalAddr()}}
	if n := a.sort(ms); n != 1 {
		t.Error("a packet for nobody was thrown away")
	}
}

// quic-go pairs the places of a batch with buffers of its own: what is kept moves, its buffer does not.
func TestKeptPacketsMoveAndBuffersStay(t *testing.T) {
	a, b := pair(t)
	packet := func(m mark, text string) []byte {
		return append(append([]byte{0x40, m[0], m[1]}, "123456"...), text...)
	}
	var ms []ipv4.Message
	for _, p := range [][]byte{packet(b.mark, "his"), packet(a.mark, "mine"), packet(b.mark, "his too"), packet(a.mark, "mine again")} {
		buf := make([]byte, 64)
		ms = append(ms, ipv4.Message{Buffers: [][]byte{buf}, OOB: make([]byte, 32), N: copy(buf, p), Addr: a.LocalAddr()})
	}
	first, second := &ms[0].Buffers[0][0], &ms[1].Buffers[0][0]
	if n := a.sort(ms); n != 2 || &ms[0].Buffers[0][0] != first || &ms[1].Buffers[0][0] != second {
		t.Fatalf("%d kept, or a buffer has moved", n)
	}
	for i, want := range []string{"mine", "mine again"} {
		if got := string(ms[i].Buffers[0][9:ms[i].N]); got != want {
			t.Errorf("place %d has %q, not %q", i, got, want)
		}
	}
}

func TestCloseEndsAll(t *testing.T) {
	a, _ := pair(t)
	a.Close()
	if _, err := a.ReadBatch(make([]ipv4.Message, 1), 0); err == nil {
		t.Error("a closed socket reads")
	}
}

func FuzzPassedOn(f *testing.F) {
	f.Add([]byte{}, []byte{0x40})
	f.Add([]byte{6, 127, 0, 0, 1, 80, 0, 0, 0, 'x'}, []byte{0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, b, packet []byte) {
		if p, ok := unpack(b); ok && len(p.oob)+len(p.data) > len(b) {
			t.Fatal("more than there was")
		}
		addressee(packet)
	})
}
