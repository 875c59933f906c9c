//go:build scenario

package test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// greets is a service that switches to WebSocket and answers whatever it gets with a frame.
const greets = `package main

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil { return }
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
		b := make([]byte, 1024)
		for {
			if _, err := c.Read(b); err != nil { return }
			c.Write([]byte("\x81\x05hello"))
		}
	})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok"); io.Copy(w, r.Body) })
	http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil)
}
`

// A WebSocket outlives an upgrade of the house, with the door that has it; when its time is over, its client
// is told.
func TestWebSocketsOutliveAnUpgrade(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{"go.mod": "module greets\n\ngo 1.24\n", "main.go": greets,
		"tenfold.yaml": "app: greets\nservices:\n  api: {path: ., build: go build -o greets ., command: exec ./greets, routes: [/*]}\n"})
	h.up(dir)
	doors := func() int { return h.count("house door") }
	c, in := h.websocket("greets.localhost")
	first := h.bin
	h.bin = h.next()
	h.must(dir, "upgrade")
	// The old door takes nothing new: what comes is answered by the next.
	if status, body := h.get("greets.localhost", "/"); status != 200 || body != "ok" {
		t.Errorf("after the upgrade: %d %s", status, body)
	}
	for range 3 {
		h.hello(c, in)
		<-time.After(time.Second) // longer in all than idle connections are kept
	}
	if doors() != 2 {
		t.Errorf("%d doors while a connection lives", doors())
	}
	// A deployment's old tasks wait for what an old door has with them, too.
	write(t, dir, map[string]string{"more.go": "package main\n"})
	deployed := make(chan string)
	go func() { out, _ := h.runIn(dir, "deploy"); deployed <- out }()
	eventually(t, "new tasks", 60*time.Second, func() bool { return strings.Contains(h.must(dir, "ps"), "draining") })
	for range 3 {
		h.hello(c, in)
		<-time.After(time.Second)
	}
	c.Close()
	if out := <-deployed; !strings.Contains(out, "serves") {
		t.Error(out)
	}
	eventually(t, "the end of the old door with its last connection", 20*time.Second, func() bool { return doors() == 1 })

	c, in = h.websocket("greets.localhost")
	h.hello(c, in)
	h.bin = first
	h.must(dir, "upgrade", "--linger", "1s")
	c.SetReadDeadline(time.Now().Add(60 * time.Second))
	got, err := io.ReadAll(in)
	if err != nil || !bytes.Equal(got, []byte{0x88, 2, 0x03, 0xe9}) {
		t.Errorf("when its time is over the client gets %x, %v", got, err)
	}
	eventually(t, "the end of the old door with its time", 20*time.Second, func() bool { return doors() == 1 })
}

// Who goes back to the version before, or on again, while connections live on with each of the doors, has a door
// that takes new ones all the time.
func TestUpgradesThereAndBack(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{"go.mod": "module greets\n\ngo 1.24\n", "main.go": greets,
		"tenfold.yaml": "app: greets\nservices:\n  api: {path: ., build: go build -o greets ., command: exec ./greets, routes: [/*], uses: [db, jobs]}\ndatabases: [db]\nqueues: [jobs]\n"})
	h.up(dir)
	h.must(dir, "db", "psql", "--", "-c", "create table t (n int)")
	binaries := []string{h.next(), h.bin}
	l := h.load("greets.localhost", 4, time.Millisecond)
	var conns []net.Conn
	var ins []*bufio.Reader
	for n := range 6 {
		c, in := h.websocket("greets.localhost")
		conns, ins = append(conns, c), append(ins, in)
		h.bin = binaries[n%2]
		h.must(dir, "upgrade")
		if status, body := h.get("greets.localhost", "/"); status != 200 || body != "ok" {
			t.Errorf("after upgrade %d: %d %s", n+1, status, body)
		}
		h.must(dir, "db", "psql", "--", "-c", "insert into t values (1)")
		h.must(dir, "queue", "send", "jobs", "hello")
		for i := range conns {
			h.hello(conns[i], ins[i])
		}
	}
	if out := h.must(dir, "status"); strings.Contains(out, "does not answer") {
		t.Error(out)
	}
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "one door alone", 60*time.Second, func() bool {
		return h.count("house door") == 1 && h.count("house pool") == 1 && h.count("house data") == 1
	})
	h.must(dir, "deploy")
	if ok, failed := l.end(); ok == 0 || failed > 0 {
		t.Errorf("%d answered, %d failed: %v", ok, failed, l.first)
	}
}

// websocket opens one.
func (h *house) websocket(host string) (net.Conn, *bufio.Reader) {
	h.t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", host)
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 101 {
		h.t.Fatalf("%v %v", res, err)
	}
	return c, in
}

// hello sends a frame and expects one.
func (h *house) hello(c net.Conn, in *bufio.Reader) {
	h.t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte{0x81, 0x82, 0, 0, 0, 0, 'h', 'i'}); err != nil {
		h.t.Fatal(err)
	}
	b := make([]byte, 7)
	if _, err := io.ReadFull(in, b); err != nil || string(b) != "\x81\x05hello" {
		h.t.Fatalf("%q %v", b, err)
	}
	c.SetReadDeadline(time.Time{})
}

// Who says up just as the daemon died, or while another says it too, gets the house that there is.
func TestUpBesideAnother(t *testing.T) {
	h, dir := echoApp(t)
	for range 3 { // the third start waits: time to say up
		h.kill("house daemon")
		h.must(dir, "up", "--detach", "--listen", h.addr)
	}
	if n := h.count("house warden"); n != 1 {
		t.Errorf("%d wardens", n)
	}
	h.must(dir, "down", "--house")
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if out, status := h.runIn(dir, "up", "--detach", "--listen", h.addr); status != 0 && !strings.Contains(out, "overtaken by another") {
				t.Errorf("up beside another: exit %d\n%s", status, out)
			}
		})
	}
	both.Wait()
	if n := h.count("house warden"); n != 1 {
		t.Errorf("%d wardens", n)
	}
}
