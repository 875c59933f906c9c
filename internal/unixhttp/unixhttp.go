// Package unixhttp speaks HTTP to another process of the house, over its unix socket. Begin at Transport.
package unixhttp

import (
	"context"
	"net"
	"net/http"
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
