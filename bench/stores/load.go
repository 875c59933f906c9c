package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"tenfold/internal/measure"
)

// party is a server that speaks AWS' JSON.
type party struct {
	at  string // host:port
	key aws.Credentials
	pid int
}

// request is one that was written down whole: a signature is good for a quarter of an hour.
func (p party) request(service, target, body string) ([]byte, error) {
	u := &url.URL{Scheme: "http", Host: p.at, Path: "/"}
	r := &http.Request{Method: http.MethodPost, URL: u, Host: p.at, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}, "X-Amz-Target": {target}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(context.Background(), p.key, r, hex.EncodeToString(sum[:]), service, "us-east-1", time.Now()); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err := r.Write(&b)
	return b.Bytes(), err
}

// conn is one connection, which sends a request when the last was answered.
type conn struct {
	net.Conn
	r *bufio.Reader
}

func (p party) dial() (*conn, error) {
	c, err := net.Dial("tcp", p.at)
	if err != nil {
		return nil, err
	}
	return &conn{c, bufio.NewReaderSize(c, 64<<10)}, nil
}

// ask sends a request and reads its answer.
func (c *conn) ask(request []byte) (status int, body []byte, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, nil, err
	}
	length := -1
	for first := true; ; first = false {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first {
			if len(line) < 12 {
				return 0, nil, fmt.Errorf("no answer: %q", line)
			}
			status, err = strconv.Atoi(string(line[9:12]))
			if err != nil {
				return 0, nil, err
			}
			continue
		}
		if len(line) == 0 {
			break
		}
		const name = "content-length:"
		if len(line) > len(name) && strings.EqualFold(string(line[:len(name)]), name) {
			if length, err = strconv.Atoi(strings.TrimSpace(string(line[len(name):]))); err != nil {
				return 0, nil, err
			}
		}
	}
	if length < 0 {
		return 0, nil, fmt.Errorf("an answer without Content-Length")
	}
	body = make([]byte, length)
	_, err = io.ReadFull(c.r, body)
	return status, body, err
}

// take is what a load came to.
type take struct {
	rate float64 // answers a second
	cpu  float64 // microseconds of the server's time an answer

	n, took, spent float64 // answers, and seconds of the clock and of the server's processor
}

// plus is two loads of one server together.
func (t take) plus(o take) take {
	t.n, t.took, t.spent = t.n+o.n, t.took+o.took, t.spent+o.spent
	t.rate, t.cpu = t.n/t.took, t.spent/t.n*1e6
	return t
}

// besideTurns is how often a round goes from one side to the other: what else the machine does is much the same
// for both.
const besideTurns = 10

// inTurn loads two servers in turn for a while each; in another round the other is first. One without a process
// is left out.
func inTurn(conns int, d time.Duration, round int, sides [2]party, requests [2][][]byte) (out [2]take, err error) {
	for i := range 2 * besideTurns {
		of := (i + i/2 + round) % 2
		if sides[of].pid == 0 {
			continue
		}
		t, err := sides[of].load(conns, d/besideTurns, requests[of])
		if err != nil {
			return out, fmt.Errorf("%s: %w", sides[of].at, err)
		}
		out[of] = out[of].plus(t)
	}
	return out, nil
}

// load sends the requests in turn over several connections for a while. A refusal is an error.
func (p party) load(conns int, d time.Duration, requests [][]byte) (take, error) {
	before, _, err := measure.CPU(p.pid)
	if err != nil {
		return take{}, err
	}
	var n, next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	begun := time.Now()
	for range conns {
		wg.Go(func() {
			err := func() error {
				c, err := p.dial()
				if err != nil {
					return err
				}
				defer c.Close()
				for time.Since(begun) < d {
					status, body, err := c.ask(requests[next.Add(1)%int64(len(requests))])
					if err != nil {
						return err
					}
					if status != http.StatusOK {
						return fmt.Errorf("%d %.300s", status, body)
					}
					n.Add(1)
				}
				return nil
			}()
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	wg.Wait()
	took := time.Since(begun).Seconds()
	if err := failed.Load(); err != nil {
		return take{}, *err
	}
	after, _, err := measure.CPU(p.pid)
	return take{}.plus(take{n: float64(n.Load()), took: took, spent: after - before}), err
}
