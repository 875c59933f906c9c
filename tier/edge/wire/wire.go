// Package wire is the front door's own HTTP/1.1 and HTTP/2 connection loops.
//
// A plain GET or HEAD that a stored response may answer as it is (Hits says so) is answered inside
// the loop, from a head that was serialised when the response was stored; what several requests of
// one connection get is sent in one write. Everything else runs as an http.Handler. A message whose
// framing could be read in two ways is never passed on: it gets 400 and the connection closes.
//
// Plain HTTP/1.1 connections that idle, or ask for hits alone, share one goroutine a processor (loop.go);
// the others have one each.
//
// The package knows nothing of routes, caches or backends. Both protocols are owned from the first
// byte to the last, so the same strict rules hold for the hundredth request of a connection, and a
// drain can say goodbye on each. Begin at Config and Server; the HTTP/1.1 loop is in http1.go, the
// HTTP/2 loop in http2.go.
//
// Sources: RFC 9110, RFC 9112 (HTTP/1.1), RFC 9113 (HTTP/2), RFC 7541 (HPACK), RFC 8441.
package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Hits finds a stored response that may be sent as it is. It is asked for every GET and HEAD
// without a body, Upgrade or Expect, on the goroutine of the connection: it must not block, and
// must not keep r or any string of it. Ranges, conditions, authorization and cookies are for it to
// judge. It returns nil when the Handler has to answer; otherwise a Hit that is good until the next call,
// for which it may use room.
type Hits interface {
	Hit(r *Request, room *Hit) *Hit
}

// Field is one header field; Name is in lower case, Value without surrounding white space.
type Field struct{ Name, Value string }

// Request is a request's head as the loops read it. Its strings are views of the connection's
// buffer: they change when the call that got the Request returns.
type Request struct {
	Major  int    // 1 or 2
	Secure bool   // came over TLS
	Method string // a token, as sent
	Host   string // authority, as sent; of an absolute target, that target's. May be "" in HTTP/1.0
	Target string // origin form: path and query, as sent; or "*"
	Remote netip.AddrPort
	TLS    *tls.ConnectionState // nil without TLS
	// Mark is Hits' own: set, it lets Passes answer what Hits could not. Of HTTP/2 it means nothing.
	Mark   any
	fields []Field
}

// Get returns the first value of a field, "" when there is none. name is in lower case. Host is
// not among the fields.
func (r *Request) Get(name string) string {
	for i := range r.fields {
		if f := &r.fields[i]; len(f.Name) == len(name) && f.Name == name {
			return f.Value
		}
	}
	return ""
}

// Value finds a field without regard to case: its value and in how many lines it stands; of several,
// the first value.
func (r *Request) Value(name string) (value string, lines int) {
	for i := range r.fields {
		f := &r.fields[i]
		if len(f.Name) == len(name) && strings.EqualFold(f.Name, name) {
			if lines++; lines == 1 {
				value = f.Value
			}
		}
	}
	return value, lines
}

// Fields are all fields in the order they came, without Host and HTTP/2's pseudo-header fields.
func (r *Request) Fields() []Field { return r.fields }

// Hit is a stored response, ready to be sent. It is shared between connections and never written to.
// Prepare makes one.
type Hit struct {
	Status int
	// Head1 is the status line and the fields of HTTP/1.1, Content-Length included, each with its
	// CRLF; without Age, Connection and the empty line, and without Date unless Dated.
	Head1 []byte
	// Block2 is the same as an HPACK block: :status first, only static references and literals
	// without indexing, so that it fits every connection's table.
	Block2 []byte
	Body   []byte
	// Born is the second of Unix time at which the response's age was zero. 0: no Age field is sent.
	Born int64
	// Dated says that the heads hold a Date: the origin's, which a cache does not change (RFC 9110 §6.6.1).
	Dated bool
	// Tag is the caller's own: Served finds it here again.
	Tag any
}

// Config is what a Server needs. The zero value of each limit means its default.
type Config struct {
	// Handler answers what Hits does not. It gets no Content-Type guessed for it: what it does not
	// set is not sent. Required.
	Handler http.Handler
	Hits    Hits   // nil: no stored responses
	Passes  Passes // nil: the Handler answers what Hits does not
	// Served is told of each hit: body bytes queued, when the head was read and how long ago that is. It runs on the
	// connection's goroutine, under its lock, and must not block; r is good for the call only.
	Served func(r *Request, h *Hit, bytes int64, begun time.Time, took time.Duration)
	// Refused is told of each message that was answered by the loop itself because it broke the
	// protocol or a limit.
	Refused func(remote netip.AddrPort, status int, why string)
	// TLS is for ServeTLS. Without NextProtos it offers h2 and http/1.1.
	TLS *tls.Config
	// AltSvc is the value of an Alt-Svc field (RFC 7838) that the first answer of each TLS connection
	// carries; empty: none. Clients remember it, so later answers need not.
	AltSvc string
	// BaseContext is the root of every request's context; nil: context.Background.
	BaseContext context.Context
	// ConnContext may add to the context of a connection, when it gets a goroutine.
	ConnContext func(ctx context.Context, c net.Conn) context.Context
	Log         *slog.Logger // nil: slog.Default

	MaxHeader        int           // bytes of a request head; 32 KiB. Beyond: 431
	MaxConns         int           // open connections; seven eighths of the limit of open files. Beyond: refused
	MaxStreams       int           // concurrent streams of an HTTP/2 connection; 250
	HandshakeTimeout time.Duration // 10 s
	HeaderTimeout    time.Duration // from a head's first byte to its last; 10 s. Beyond: 408
	IdleTimeout      time.Duration // between requests; 2 min
	WriteTimeout     time.Duration // a write (64 KiB) or an HTTP/2 stream that makes no progress; 30 s
	BodyRate         int           // least bytes/s of a request body, after 10 s of grace; 240
	DrainGrace       time.Duration // how long a connection has been idle when a drain closes it; 2 s
	// ExtendedConnect offers RFC 8441: a CONNECT with :protocol reaches the Handler with the
	// protocol in Header[":protocol"], and streams both ways.
	ExtendedConnect bool
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (c *Config) complete() error {
	if c.Handler == nil {
		return errors.New("make wire server: no handler")
	}
	orDefault(&c.Log, slog.Default())
	orDefault(&c.MaxHeader, 32<<10)
	orDefault(&c.MaxStreams, 250)
	orDefault(&c.HandshakeTimeout, 10*time.Second)
	orDefault(&c.HeaderTimeout, 10*time.Second)
	orDefault(&c.IdleTimeout, 2*time.Minute)
	orDefault(&c.WriteTimeout, 30*time.Second)
	orDefault(&c.BodyRate, 240)
	orDefault(&c.DrainGrace, 2*time.Second)
	if c.MaxHeader < 1<<10 || c.MaxHeader > 1<<20 {
		return errors.New("make wire server: MaxHeader is not between 1 KiB and 1 MiB")
	}
	if c.BaseContext == nil {
		c.BaseContext = context.Background()
	}
	if c.MaxConns == 0 {
		c.MaxConns = openFiles() / 8 * 7
	}
	if c.TLS != nil {
		c.TLS = c.TLS.Clone()
		if len(c.TLS.NextProtos) == 0 {
			c.TLS.NextProtos = []string{"h2", "http/1.1"}
		}
	}
	return nil
}
