// Package limit refuses requests before they cost anything: rates per client or route, concurrency
// that adapts to what a service can bear, sizes of heads and bodies.
//
// A limiter is a plain object with a Handler to put before another one. What is refused is described
// by a Denied, which says the status and when to come again; the caller renders the page. Nothing here
// starts a goroutine, and nothing grows without bound: who sends from many addresses costs memory
// for Rate.Keys of them.
//
// Begin at Rates (how often), Concurrency (how many at once), Body and Header (how large).
package limit

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Denied is a request that a limit refused. It is an error.
type Denied struct {
	Status     int           // 413, 429, 431 or 503
	Reason     string        // "more than 50 requests per 1s"
	RetryAfter time.Duration // 0: not said
}

func (d *Denied) Error() string { return "refuse request: " + d.Reason }

// Deny answers a refused request. Retry-After and RateLimit fields are in the header already.
type Deny func(w http.ResponseWriter, r *http.Request, d *Denied)

func refuse(w http.ResponseWriter, r *http.Request, d *Denied, deny Deny) {
	h := w.Header()
	if d.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(d.RetryAfter.Seconds())))) // RFC 9110 §10.2.3
	}
	if deny != nil {
		deny(w, r, d)
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(d.Status)
	io.WriteString(w, d.Reason+"\n")
}

// ClientKey gives the key of a client by its address: IPv4 by the whole address, IPv6 by its /64,
// which is what one subscriber has. What is no address is its own key.
func ClientKey(remote string) string {
	ip := remote
	if a, err := netip.ParseAddrPort(remote); err == nil {
		return addrKey(a.Addr())
	}
	if a, err := netip.ParseAddr(strings.Trim(ip, "[]")); err == nil {
		return addrKey(a)
	}
	return ip
}

func addrKey(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr().String()
	}
	return a.String()
}

// Body refuses bodies of more than most bytes: at once with 413 when the length is said, else when
// more was read; then reading fails with *http.MaxBytesError.
func Body(most int64, next http.Handler, deny Deny) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > most {
			refuse(w, r, &Denied{Status: http.StatusRequestEntityTooLarge, Reason: fmt.Sprintf("a body of more than %d bytes", most)}, deny)
			return
		}
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = http.MaxBytesReader(w, r.Body, most)
		}
		next.ServeHTTP(w, r)
	})
}

// Header refuses heads whose fields and target have more than most bytes, with 431 (RFC 6585 §5).
func Header(most int, next http.Handler, deny Deny) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if HeaderSize(r) > most {
			refuse(w, r, &Denied{Status: http.StatusRequestHeaderFieldsTooLarge, Reason: fmt.Sprintf("a head of more than %d bytes", most)}, deny)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// HeaderSize is about the bytes of a request's head as HTTP/1.1 would have it.
func HeaderSize(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Host) + 24
	for k, vs := range r.Header {
		for _, v := range vs {
			n += len(k) + len(v) + 4
		}
	}
	return n
}
