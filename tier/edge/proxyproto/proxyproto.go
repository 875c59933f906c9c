// Package proxyproto tells the front door who its clients are when a load balancer stands before it
// and says so by the PROXY protocol, version 1 or 2 (HAProxy's proxy-protocol.txt).
//
// Only what comes from trusted addresses is believed. A connection from anywhere else is handed on
// untouched, so a header in it is what it looks like to HTTP and to TLS: a broken message, answered
// by 400 or a closed connection. Trusted addresses may leave the header out, as those do that send
// X-Forwarded-For instead. Begin at Listen.
package proxyproto

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// HeaderTimeout is how long a trusted address may take for its header, or for the first byte that
// shows there is none.
const HeaderTimeout = 10 * time.Second

// Listener hands out connections whose RemoteAddr is the client's. Accept never waits for a header:
// that is read by whoever first asks a connection for bytes or for its RemoteAddr, so that one slow
// or broken connection delays nobody else.
type Listener struct {
	net.Listener
	trusted func() []netip.Prefix
	timeout time.Duration
}

// Listen wraps l. trusted is asked for each connection; with no prefixes it is handed on untouched.
func Listen(l net.Listener, trusted func() []netip.Prefix) *Listener {
	return &Listener{Listener: l, trusted: trusted, timeout: HeaderTimeout}
}

// SetDeadline is the inner listener's, where it has one: it limits Accept.
func (l *Listener) SetDeadline(t time.Time) error {
	if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		return d.SetDeadline(t)
	}
	return errors.ErrUnsupported
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || !l.trusts(c.RemoteAddr()) {
		return c, err
	}
	return l.Wrap(c), nil
}

// Under is the inner listener, for who accepts from it and asks Wants of each connection.
func (l *Listener) Under() net.Listener { return l.Listener }

// Wants says whether a connection of that address is to be wrapped.
func (l *Listener) Wants(peer netip.AddrPort) bool { return l.trusts(net.TCPAddrFromAddrPort(peer)) }

// Wrap wraps a connection that Wants named.
func (l *Listener) Wrap(c net.Conn) net.Conn { return &Conn{Conn: c, timeout: l.timeout} }

func (l *Listener) trusts(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := t.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(l.trusted(), func(p netip.Prefix) bool { return p.Contains(ip) })
}

// Conn is a connection of a trusted address.
type Conn struct {
	net.Conn
	timeout time.Duration

	once   sync.Once
	err    error         // of the header; set by once
	client net.Addr      // the client's, or the peer's own; set by once
	buf    *bufio.Reader // bytes read beyond the header; nil once they are used. Owned by the reader
}

// begin reads the header. The limit is a timer and not a deadline, so that deadlines set by the
// user of the connection meanwhile stay as they are.
func (c *Conn) begin() {
	c.once.Do(func() {
		c.client = c.Conn.RemoteAddr()
		limit := time.AfterFunc(c.timeout, func() { c.Conn.Close() })
		c.buf = bufio.NewReaderSize(c.Conn, 256)
		h, err := proxyproto.Read(c.buf)
		late := !limit.Stop()
		switch {
		case late:
			c.err = fmt.Errorf("read PROXY header: %w", os.ErrDeadlineExceeded)
		case errors.Is(err, proxyproto.ErrNoProxyProtocol):
		case err != nil:
			c.err = fmt.Errorf("read PROXY header: %w", err)
			c.Conn.Close()
		case !h.Command.IsLocal():
			if a, ok := h.SourceAddr.(*net.TCPAddr); ok && a != nil {
				c.client = a
			}
		}
	})
}

// Read reads what follows the header.
func (c *Conn) Read(b []byte) (int, error) {
	c.begin()
	if c.err != nil {
		return 0, c.err
	}
	if c.buf != nil {
		if c.buf.Buffered() > 0 {
			return c.buf.Read(b)
		}
		c.buf = nil
	}
	return c.Conn.Read(b)
}

// RemoteAddr is the client's address as the header says; the peer's own if there is no header, or
// one for a connection of the load balancer's own (LOCAL), or of no TCP address. It waits for the
// header.
func (c *Conn) RemoteAddr() net.Addr {
	c.begin()
	return c.client
}

// CloseWrite is the inner connection's, where it has one.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetLinger is the inner connection's, where it has one.
func (c *Conn) SetLinger(sec int) error {
	if w, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return w.SetLinger(sec)
	}
	return errors.ErrUnsupported
}
