// Package unixhttp speaks HTTP to another process of the house, over its unix socket. Begin at Transport.
package unixhttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Transport connects to socket whatever the address of a request. It dials when it is asked.
func Transport(socket string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
}

// Once is a client that has a connection for one question: while one process hands over to the next both
// have the socket's name, and a connection that is kept is the old one's, which then alone would hear what
// changes.
func Once(socket string) *http.Client {
	t := Transport(socket)
	t.DisableKeepAlives = true
	return &http.Client{Transport: t}
}

// Ask puts a question to whom c connects to and reads the answer, both JSON; a nil question has no body. whom
// is for errors: "the pool". What the other side refuses with is in the error.
func Ask(ctx context.Context, c *http.Client, whom, method, path string, question, answer any) error {
	var body io.Reader
	if question != nil {
		b, err := json.Marshal(question)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://house"+path, body)
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", whom, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		return fmt.Errorf("ask %s: %s", whom, strings.TrimSpace(string(said)))
	}
	return json.NewDecoder(res.Body).Decode(answer)
}

// comeBack is how long AskPatiently waits for a process that is yet to come, as after a death or in an upgrade.
const (
	comeBack  = 10 * time.Second
	lookAgain = 20 * time.Millisecond
)

// AskPatiently is Ask for who cannot ask again by himself: while there is no process it waits for one, for ten
// seconds at most.
func AskPatiently(ctx context.Context, c *http.Client, whom, method, path string, question, answer any) error {
	until := time.Now().Add(comeBack)
	for {
		err := Ask(ctx, c, whom, method, path, question, answer)
		var dial *net.OpError
		if !errors.As(err, &dial) || dial.Op != "dial" || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}
