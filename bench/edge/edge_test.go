package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestOutputOfTheLoadGenerators(t *testing.T) {
	l, err := readWrk("Running 1s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n  4445 requests in 1.10s, 5.00MB read\n  Socket errors: connect 0, read 2, write 0, timeout 1\n  Non-2xx or 3xx responses: 7\nRequests/sec:   4040.18\nTransfer/sec:      4.55MB\n")
	if err != nil || l.answers != 4445 || l.rate != 4040.18 || l.bad != 10 {
		t.Errorf("%+v, %v", l, err)
	}
	l, err = readH2load("finished in 3.00s, 12345.67 req/s, 1.00MB/s\nrequests: 37037 total, 37100 started, 37037 done, 37030 succeeded, 7 failed, 0 errored, 0 timeout\nstatus codes: 37030 2xx, 0 3xx, 7 4xx, 0 5xx\n")
	if err != nil || l.answers != 37030 || l.rate != 12345.67 || l.bad != 14 {
		t.Errorf("%+v, %v", l, err)
	}
	for _, read := range []func(string) (load, error){readWrk, readH2load} {
		if _, err := read("unable to connect\n"); err == nil {
			t.Error("no numbers, no error")
		}
	}
}

// A server that stalls once must show in the tail, although it answers few requests while it does:
// those that came due meanwhile have waited.
func TestOpenLoopCountsTheWaitOfADueRequest(t *testing.T) {
	var gate = make(chan struct{}, 1)
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gate <- struct{}{}
		if n++; n == 100 {
			<-time.After(200 * time.Millisecond)
		}
		<-gate
		io.WriteString(w, "here")
	}))
	defer srv.Close()
	l, err := runOpenLoop(context.Background(), srv.URL+"/x?y=1", 8, 500, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	// 500 a second for one second; a fifth of them came due during the stall, so p99 is near 200 ms.
	if l.answers < 450 || l.answers > 550 || l.bad != 0 || l.p99 < 100 {
		t.Errorf("%+v", l)
	}
}

func TestOpenLoopTellsABrokenServer(t *testing.T) {
	for name, answer := range map[string]string{
		"no length": "HTTP/1.1 200 OK\r\n\r\nhere",
		"not HTTP":  "SSH-2.0-x\r\n\r\n",
		"cut off":   "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhere",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Read(make([]byte, 1<<10))
				io.WriteString(c, answer)
				c.Close()
			}
		}()
		if _, err := runOpenLoop(context.Background(), "http://"+l.Addr().String()+"/", 1, 100, 200*time.Millisecond); err == nil {
			t.Errorf("%s: no error", name)
		}
		l.Close()
	}
}

func FuzzAnswerHead(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")
	f.Add("HTTP/1.1 503 \r\ncontent-length:0\r\n\r\n")
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n")
	f.Add("\r\n\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		end, status, length, err := answerHead([]byte(s))
		if err == nil && end > 0 && (end > len(s) || !strings.HasSuffix(s[:end], "\r\n\r\n") || status < 0 || length < 0) {
			t.Errorf("%q: %d, %d, %d", s, end, status, length)
		}
	})
}
