package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// fetched is a source as it was answered.
type fetched struct {
	body      []byte
	etag      string
	fresh     freshness
	unchanged bool // 304: no body
}

// freshness is what a source's Cache-Control says to a shared cache (RFC 9111, 5.2.2).
type freshness struct {
	age       time.Duration // how long it may be used
	noStore   bool          // or private: for this asker alone
	immutable bool
}

func freshnessOf(h http.Header) freshness {
	var f freshness
	shared := false
	for _, part := range strings.Split(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(part)), "=")
		seconds, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 32)
		switch name {
		case "no-store", "private":
			f.noStore = true
		case "no-cache":
			f.age, shared = 0, true
		case "immutable":
			f.immutable = true
		case "s-maxage":
			if err == nil && seconds >= 0 {
				f.age, shared = time.Duration(seconds)*time.Second, true
			}
		case "max-age":
			if err == nil && seconds >= 0 && !shared {
				f.age = time.Duration(seconds) * time.Second
			}
		}
	}
	if age, err := strconv.ParseInt(h.Get("Age"), 10, 32); err == nil && age > 0 {
		f.age = max(0, f.age-time.Duration(age)*time.Second)
	}
	f.immutable = f.immutable && f.age > 0
	return f
}

// fetch asks the app or the host. etag, when not "", is one that is known.
func (h *Handler) fetch(ctx context.Context, r *http.Request, want wanted, etag string) (fetched, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, want.url, nil)
	if err != nil {
		return fetched{}, refuse(http.StatusBadRequest, `"url" is no URL`)
	}
	req.Header.Set("Accept", "image/*")
	req.Header.Set("User-Agent", "tenfold-image")
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	if want.own {
		return h.fetchOwn(r, req, etag)
	}
	res, err := h.remote.Do(req)
	if err != nil {
		var se *statusError
		if errors.As(err, &se) {
			return fetched{}, se
		}
		return fetched{}, refuse(http.StatusBadGateway, "the picture's host does not answer")
	}
	defer res.Body.Close()
	if res.ContentLength > h.cfg.MostSource {
		return fetched{}, h.tooLarge()
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, h.cfg.MostSource+1))
	if err != nil {
		return fetched{}, refuse(http.StatusBadGateway, "the picture's host does not send all of it")
	}
	return h.judge(res.StatusCode, res.Header, body, etag)
}

func (h *Handler) tooLarge() error {
	return refuse(http.StatusRequestEntityTooLarge, "the picture has more than %d bytes", h.cfg.MostSource)
}

// judge turns an answer into a source or the error that the asker is told.
func (h *Handler) judge(status int, head http.Header, body []byte, etag string) (fetched, error) {
	f := fetched{body: body, etag: head.Get("ETag"), fresh: freshnessOf(head)}
	switch {
	case status == http.StatusNotModified && etag != "":
		f.body, f.unchanged = nil, true
		return f, nil
	case status == http.StatusNotFound || status == http.StatusGone:
		return f, refuse(http.StatusNotFound, "there is no such picture")
	case status != http.StatusOK:
		return f, refuse(http.StatusBadGateway, "the picture's host answers with %d", status)
	case int64(len(body)) > h.cfg.MostSource:
		return f, h.tooLarge()
	case len(body) == 0:
		return f, refuse(http.StatusBadRequest, "the picture is empty")
	}
	return f, nil
}

// fetchOwn asks the app in this process, as the same site and without who asks: what is made is for all.
func (h *Handler) fetchOwn(r, req *http.Request, etag string) (f fetched, err error) {
	req.Host, req.RequestURI = r.Host, req.URL.RequestURI()
	req.RemoteAddr, req.TLS = r.RemoteAddr, r.TLS
	c := &capture{head: http.Header{}, most: h.cfg.MostSource}
	defer func() {
		// A handler that aborts its answer panics.
		if p := recover(); p != nil {
			f, err = fetched{}, refuse(http.StatusBadGateway, "the app broke its answer off")
		}
	}()
	h.cfg.App.ServeHTTP(c, req)
	if c.over {
		return fetched{}, h.tooLarge()
	}
	if c.status == 0 {
		c.status = http.StatusOK
	}
	if n, err := strconv.ParseInt(c.head.Get("Content-Length"), 10, 64); err == nil && c.status == http.StatusOK && n != int64(len(c.body)) {
		return fetched{}, refuse(http.StatusBadGateway, "the app broke its answer off")
	}
	if c.head.Get("Content-Encoding") != "" {
		return fetched{}, refuse(http.StatusBadGateway, "the app sends the picture encoded, unasked")
	}
	return h.judge(c.status, c.head, c.body, etag)
}

// capture is a ResponseWriter that keeps an answer, up to most bytes.
type capture struct {
	head   http.Header
	status int
	body   []byte
	most   int64
	over   bool
}

// Header implements http.ResponseWriter.
func (c *capture) Header() http.Header { return c.head }

// WriteHeader implements http.ResponseWriter; informational answers pass by.
func (c *capture) WriteHeader(status int) {
	if c.status == 0 && status >= 200 {
		c.status = status
	}
}

func (c *capture) Write(b []byte) (int, error) {
	c.WriteHeader(http.StatusOK)
	if int64(len(c.body)+len(b)) > c.most {
		c.over = true
		return 0, errors.New("the picture is too large")
	}
	c.body = append(c.body, b...)
	return len(b), nil
}

// client asks other hosts: no proxy, three redirects to hosts that are named, public addresses only.
func (h *Handler) client() *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		// Here the name is resolved: what is checked is what is dialled.
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("read address: %w", err)
		}
		return h.dialable(ap)
	}}
	return &http.Client{
		Timeout: 15 * time.Second,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, DisableCompression: true, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 2, MaxConnsPerHost: mostFetches,
			IdleConnTimeout: 20 * time.Second, TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 3 {
				return refuse(http.StatusBadGateway, "the picture's host redirects too often")
			}
			if !h.allowed(req.URL) {
				return refuse(http.StatusBadRequest, "the picture's host redirects to one that is not named")
			}
			return nil
		},
	}
}

// Close ends the idle connections to other hosts.
func (h *Handler) Close() error {
	h.remote.CloseIdleConnections()
	return nil
}

// closed are networks that no picture comes from, besides those that netip tells: shared and
// benchmarking addresses, protocol assignments, documentation, reserved ones (RFC 6890), and the IPv6
// networks that stand for IPv4 addresses (RFC 6052, 8215, 3056, 4380).
var closed = prefixes("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	"64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/23", "2001:db8::/32", "100::/64", "fec0::/10", "::/96")

func prefixes(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// public refuses addresses of this machine and of networks that are not the Internet.
func public(ap netip.AddrPort) error {
	a := ap.Addr().Unmap().WithZone("")
	bad := !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified()
	for _, p := range closed {
		bad = bad || p.Contains(a)
	}
	if bad {
		return refuse(http.StatusBadRequest, "the picture's host has a private address")
	}
	return nil
}
