package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// answer is what one request of a drill got. A body that is shorter than it said is an error.
type answer struct {
	status int
	body   []byte
	took   time.Duration
	err    error
}

// drillClient has as many connections as it wants and waits for no answer longer than 15 s.
func drillClient() *http.Client {
	return &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}}
}

func get(ctx context.Context, c *http.Client, url string) answer {
	return send(ctx, c, http.MethodGet, url, nil)
}

func send(ctx context.Context, c *http.Client, method, url string, body io.Reader) (a answer) {
	begun := time.Now()
	defer func() { a.took = time.Since(begun) }()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return answer{err: err}
	}
	res, err := c.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{status: res.StatusCode, body: b, err: err}
}

// bad says what is wrong with an answer that should be 200; "" is nothing.
func (a answer) bad() string {
	switch {
	case a.err != nil:
		return a.err.Error()
	case a.status != http.StatusOK:
		return fmt.Sprintf("status %d: %.80s", a.status, a.body)
	}
	return ""
}

// together sends n requests for a URL at once: the answers, and the time until the last.
func together(ctx context.Context, c *http.Client, n int, url func(i int) string) ([]answer, time.Duration) {
	out := make([]answer, n)
	var wg sync.WaitGroup
	begun := time.Now()
	for i := range n {
		wg.Go(func() { out[i] = get(ctx, c, url(i)) })
	}
	wg.Wait()
	return out, time.Since(begun)
}

// firstBad says what is wrong with the first bad answer, and how many there are.
func firstBad(answers []answer) (what string, n int) {
	for _, a := range answers {
		if b := a.bad(); b != "" {
			if n++; what == "" {
				what = b
			}
		}
	}
	return what, n
}

// stream keeps n workers sending one request after the other until stop is closed.
func stream(n int, stop <-chan struct{}, one func(worker int) answer) (answers int, wrong []string) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for w := range n {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a := one(w)
				mu.Lock()
				answers++
				if b := a.bad(); b != "" {
					wrong = append(wrong, time.Now().Format("05.000 ")+b)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return answers, wrong
}
