package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// manifest is the app that the house runs. Its tasks are this program; PLACE is a folder where they
// leave what must outlive them.
const manifest = `app: bench
services:
  bytes:
    routes: [/h/*, /o/*, /p/*]
    build: false
    test: false
    command: ./bench task bytes
    health: /healthz
  drill:
    routes: [/stored/*, /never/*, /stale/*, /cut/*, /count]
    build: false
    test: false
    command: ./bench task drill
    health: /healthz
  roll:
    routes: [/roll/*]
    build: false
    test: false
    command: ./bench task roll
    health: {route: /healthz, every: 1s}
    scale: 2
    env: {PLACE: %[1]s}
  four:
    routes: [/four/*]
    build: false
    test: false
    command: ./bench task four
    health: /healthz
    scale: 4
    env: {PLACE: %[1]s}
frontends:
  web:
    path: web
    build: false
    test: false
    routes: [/*]
`

// task serves one of the app's services until it is killed, or runs the open loop.
func task(service string, args []string) error {
	if service == "loop" {
		return loop(os.Stdout, args)
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		return err
	}
	place := os.Getenv("PLACE")
	switch service {
	case "bytes":
		return serveBytes(l)
	case "drill":
		return http.Serve(l, drills())
	case "roll":
		h, err := roll(place)
		if err != nil {
			return err
		}
		return http.Serve(l, h)
	case "four":
		return http.Serve(l, oneOfFour(place))
	}
	return fmt.Errorf("no service %q", service)
}

const (
	small = 1 << 10
	large = 64 << 10
)

// serveBytes answers GETs with bytes and as little work as there can be: it shares its processor with
// the load, so what it spends is taken from what the server under test can be given.
func serveBytes(l net.Listener) error {
	body := bytes.Repeat([]byte("0123456789abcdef"), large/16)
	answer := func(size int, fields string) []byte {
		head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n%s\r\n", size, fields)
		return append([]byte(head), body[:size]...)
	}
	stored := "Cache-Control: public, max-age=86400\r\n"
	answers := map[string][]byte{
		"/h/1k": answer(small, stored), "/h/64k": answer(large, stored),
		"/p/1k": answer(small, ""), "/p/64k": answer(large, ""),
	}
	object, well := answer(small, stored), answer(2, "")
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			buf, n := make([]byte, 16<<10), 0
			for {
				m, err := conn.Read(buf[n:])
				n += m
				for end := bytes.Index(buf[:n], []byte("\r\n\r\n")); end >= 0; end = bytes.Index(buf[:n], []byte("\r\n\r\n")) {
					_, rest, _ := strings.Cut(string(buf[:min(end, 64)]), " ")
					path, _, _ := strings.Cut(rest, " ")
					out := well
					if a, ok := answers[path]; ok {
						out = a
					} else if strings.HasPrefix(path, "/o/") {
						out = object
					}
					if _, err := conn.Write(out); err != nil {
						return
					}
					n = copy(buf, buf[end+4:n])
				}
				if err != nil || n == len(buf) {
					return
				}
			}
		}()
	}
}

// originTime is how long a drill's origin takes.
const originTime = 500 * time.Millisecond

// drills is the slow origin of the coalescing drill. It counts requests by path; /count?of=PATH says.
func drills() http.Handler {
	var mu sync.Mutex
	counts := map[string]int{}
	answer := func(cacheControl string, slow func(n int) bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			counts[r.URL.Path]++
			n := counts[r.URL.Path]
			mu.Unlock()
			if slow(n) {
				time.Sleep(originTime)
			}
			w.Header().Set("Cache-Control", cacheControl)
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Length", strconv.Itoa(small))
			io.WriteString(w, strings.Repeat("x", small))
		}
	}
	always := func(int) bool { return true }
	mux := http.NewServeMux()
	mux.HandleFunc("/stored/", answer("public, max-age=600", always))
	mux.HandleFunc("/never/", answer("no-store", always))
	mux.HandleFunc("/stale/", answer("public, max-age=1, stale-while-revalidate=600", func(n int) bool { return n > 1 }))
	// The body comes in pieces over the origin's time, so that a client can leave in the middle of it.
	mux.HandleFunc("/cut/", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		counts[r.URL.Path]++
		mu.Unlock()
		w.Header().Set("Cache-Control", "public, max-age=600")
		w.Header().Set("Content-Length", strconv.Itoa(large))
		for range 16 {
			if _, err := io.WriteString(w, strings.Repeat("y", large/16)); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(originTime / 16)
		}
	})
	mux.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprint(w, counts[r.FormValue("of")])
	})
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	return mux
}

// Files of the restart drill: a byte for each request that reached a task, a line for each start.
const (
	requestsFile = "requests"
	startsFile   = "starts"
)

// roll answers after 2 ms. What it counts is on disk before it answers: tasks are killed here.
func roll(place string) (http.Handler, error) {
	appendTo := func(name string) (*os.File, error) {
		f, err := os.OpenFile(filepath.Join(place, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil { // shut in as another user: the service's own home is left
			return os.OpenFile(filepath.Join(os.Getenv("HOME"), name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		}
		return f, err
	}
	requests, err := appendTo(requestsFile)
	starts, err2 := appendTo(startsFile)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	fmt.Fprintln(starts, time.Now().UnixNano())
	starts.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/roll/", func(w http.ResponseWriter, r *http.Request) {
		requests.Write([]byte{'.'})
		io.Copy(io.Discard, r.Body)
		time.Sleep(2 * time.Millisecond)
		w.Header().Set("Cache-Control", "no-store")
		io.WriteString(w, "rolled")
	})
	return mux, nil
}

// oneOfFour answers after 5 ms, but the first task to start takes ten times as long.
func oneOfFour(place string) http.Handler {
	wait := 5 * time.Millisecond
	slow := func(dir string) (*os.File, error) {
		return os.OpenFile(filepath.Join(dir, "slow"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	}
	f, err := slow(place)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		f, err = slow(os.Getenv("HOME"))
	}
	if err == nil {
		f.Close()
		wait *= 10
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/four/", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(wait)
		w.Header().Set("Cache-Control", "no-store")
		io.WriteString(w, "answered")
	})
	return mux
}
