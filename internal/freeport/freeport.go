// Package freeport picks loopback ports for servers that must be told one. Between picking and
// listening nobody holds the port, so one that was picked is not given out again for a while: two
// servers that start at once never get the same. Begin at Pick.
package freeport

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// rest is how long a picked port is not picked again.
const rest = 2 * time.Minute

var (
	mu     sync.Mutex
	picked = map[int]time.Time{}
)

// Pick returns a TCP port of 127.0.0.1 on which nothing listens.
func Pick() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	for p, at := range picked {
		if time.Since(at) > rest {
			delete(picked, p)
		}
	}
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, fmt.Errorf("pick a port: %w", err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("pick a port: %w", err)
		}
		if _, ok := picked[port]; !ok {
			picked[port] = time.Now()
			return port, nil
		}
	}
	return 0, fmt.Errorf("pick a port: all that were offered are spoken for")
}
