package compute

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"tenfold"
)

const (
	soonPace = 5 * time.Millisecond // of the first forty of them
	// firstPatience is how long a first probe waits for a new task to listen at all, looking every dialPace for
	// dialSoon, then every dialLater: nothing tells of a socket that listens.
	firstPatience = 250 * time.Millisecond
	dialPace      = 500 * time.Microsecond
	dialSoon      = 100 * time.Millisecond
	dialLater     = 5 * time.Millisecond
	firstPace     = 100 * time.Millisecond // between probes until the first good answer
	sickAfter     = 3                      // bad probes in a row take a task out of traffic
	hungAfter     = 30 * time.Second       // without a good answer a task is started again
	workerUp      = time.Second            // a worker that lives so long is healthy
)

// health is what is known of a task's answers. Guarded by service.mu.
type health struct {
	asking bool
	next   time.Time // of the next probe
	ok     bool
	bad    int       // in a row
	since  time.Time // of the first of those
	tries  int
	answer string // of the last probe: "GET / answered 404, below 500"
}

func (h *health) take(ok bool, answer string, now time.Time, every time.Duration) {
	h.asking, h.ok, h.answer = false, ok, answer
	h.tries++
	if ok {
		h.bad = 0
		h.next = now.Add(every)
		return
	}
	if h.bad == 0 {
		h.since = now
	}
	h.bad++
	pace := firstPace * time.Duration(1+h.bad/20)
	if h.bad < 40 {
		pace = soonPace
	}
	h.next = now.Add(min(every, pace))
}

// prober asks tasks whether they are well. It follows no redirect and keeps no connection: a probe
// must see what a new visitor sees.
var prober = &http.Client{
	Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			if c, ok := ctx.Value(connection{}).(net.Conn); ok {
				return c, nil
			}
			return connect(ctx, addr, 0)
		},
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// connection is the key by which a probe hands its connection to prober.
type connection struct{}

// connect reaches a task, and tries again for a while when it does not listen yet.
func connect(ctx context.Context, addr string, patience time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	for begun := time.Now(); ; {
		c, err := dialer.DialContext(ctx, "tcp", addr)
		since := time.Since(begun)
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) || since >= patience {
			return c, err
		}
		pace := dialPace
		if since > dialSoon {
			pace = dialLater
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pace):
		}
	}
}

// probe asks once, when the task listens or patience is over.
func probe(ctx context.Context, h tenfold.Health, port int, patience time.Duration) (ok bool, answer string) {
	route := h.Route
	if route == "" {
		route = "/"
	}
	timeout := h.Timeout
	if timeout <= 0 {
		timeout = 2 * time.Second
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	if patience > 0 { // the time for the answer begins when there is somebody to give it
		c, err := connect(ctx, addr, patience)
		if err != nil {
			return false, fmt.Sprintf("GET %s on %s: %s", route, addr, cause(err, timeout))
		}
		defer c.Close()
		ctx = context.WithValue(ctx, connection{}, c)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+route, nil)
	if err != nil {
		return false, err.Error()
	}
	req.Header.Set("User-Agent", "tenfold-health")
	res, err := prober.Do(req)
	if err != nil {
		return false, fmt.Sprintf("GET %s on %s: %s", route, addr, cause(err, timeout))
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
	said := fmt.Sprintf("GET %s answered %d", route, res.StatusCode)
	if h.Route == "" {
		if res.StatusCode < 500 {
			if res.StatusCode >= 400 {
				said += ", below 500"
			}
			return true, said
		}
		return false, said + ", not below 500"
	}
	low, high := h.Low, h.High
	if high == 0 {
		low, high = 200, 399
	}
	if res.StatusCode < low || res.StatusCode > high {
		return false, fmt.Sprintf("%s, not %d-%d", said, low, high)
	}
	return true, said
}

func cause(err error, timeout time.Duration) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + timeout.String()
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset"
	case errors.Is(err, io.EOF):
		return "connection closed without an answer"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}
