package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

// mostWidth bounds a width that may be configured, in pixels.
const mostWidth = 8192

// wanted is a request for a picture.
type wanted struct {
	url     string // normal form
	own     bool   // a path of the app
	host    string // of the site, for own
	width   int
	quality int    // 5 to 100, in steps of 5
	format  string // "webp", "avif", or "": the source's
}

// source names where the picture comes from.
func (w wanted) source() string { return w.host + "\x00" + w.url }

func (w wanted) id() string {
	return fmt.Sprintf("%s\x00%d\x00%d\x00%s", w.source(), w.width, w.quality, w.format)
}

// key names a result by content: the same source under another name is the same picture.
func (w wanted) key(digest string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%d\x00%s", version, digest, w.width, w.quality, w.format))
	return hex.EncodeToString(sum[:])
}

// parse reads the query: url, w, and if need be q (75) and dpr (1 to 4, by which w is multiplied).
// Without dpr w must be one of the widths; with it the next larger one is taken.
func (h *Handler) parse(query string) (wanted, error) {
	bad := func(format string, args ...any) (wanted, error) {
		return wanted{}, refuse(http.StatusBadRequest, format, args...)
	}
	if len(query) > 8192 {
		return bad("the query is too long")
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return bad("the query cannot be read")
	}
	for _, name := range []string{"url", "w", "q", "dpr"} {
		if len(q[name]) > 1 {
			return bad("%q is given more than once", name)
		}
	}
	var want wanted
	if want.url, want.own, err = h.parseURL(q.Get("url")); err != nil {
		return wanted{}, err
	}
	width, ok := number(q.Get("w"))
	if !ok || width < 1 {
		return bad(`"w" (the width in pixels) must be a whole number above 0`)
	}
	want.width = width
	if d := q.Get("dpr"); d != "" {
		dpr, err := strconv.ParseFloat(d, 64)
		if err != nil || !(dpr >= 1 && dpr <= 4) {
			return bad(`"dpr" must be 1 to 4`)
		}
		want.width = h.nextWidth(min(mostWidth, int(float64(width)*dpr+0.5)))
	} else if !slices.Contains(h.cfg.Widths, width) {
		return bad(`"w" (width) of %d is not allowed; allowed are %v`, width, h.cfg.Widths)
	}
	want.quality = 75
	if s := q.Get("q"); s != "" {
		n, ok := number(s)
		if !ok || n < 1 || n > 100 {
			return bad(`"q" (the quality) must be a whole number from 1 to 100`)
		}
		want.quality = (n + 4) / 5 * 5
	}
	return want, nil
}

// number is a whole number as people write it: digits only.
func number(s string) (int, bool) {
	if s == "" || len(s) > 6 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

func (h *Handler) nextWidth(n int) int {
	for _, w := range h.cfg.Widths {
		if w >= n {
			return w
		}
	}
	return h.cfg.Widths[len(h.cfg.Widths)-1]
}

// parseURL takes a path of the app, or the URL of a picture on a host that is named.
func (h *Handler) parseURL(s string) (normal string, own bool, err error) {
	bad := func(why string) (string, bool, error) {
		return "", false, refuse(http.StatusBadRequest, `"url" %s`, why)
	}
	if s == "" {
		return bad("is missing")
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }) {
		return bad("holds a character that no URL has")
	}
	u, err := url.Parse(s)
	if err != nil {
		return bad("is no URL")
	}
	u.Fragment, u.RawFragment = "", ""
	if strings.HasPrefix(s, "/") {
		// "//host/x" is another host's.
		if u.Host != "" || u.Scheme != "" || strings.HasPrefix(s, "//") {
			return bad("must be a path, or begin with https://")
		}
		p := path.Clean(u.Path)
		if strings.HasPrefix(p, "/_next/image") || strings.HasPrefix(p, "/_tenfold/") {
			return bad("leads back here")
		}
		return u.String(), true, nil
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Opaque != "" {
		return bad("must be a path, or begin with https://")
	}
	if !h.allowed(u) {
		return bad("is of a host that is not named: name it under images.from")
	}
	u.Host = strings.ToLower(u.Host)
	return u.String(), false, nil
}

// origin is one entry of Config.From.
type origin struct {
	scheme string // "" for either
	host   string // without the "*." of a wildcard
	below  bool   // a wildcard: hosts below, not the host itself
	port   string // "" for the scheme's own
}

func parseOrigin(s string) (origin, error) {
	var o origin
	rest := s
	if scheme, r, ok := strings.Cut(s, "://"); ok {
		o.scheme, rest = scheme, r
	}
	if h, p, err := net.SplitHostPort(rest); err == nil {
		rest, o.port = h, p
	}
	o.host, o.below = strings.CutPrefix(strings.ToLower(rest), "*.")
	if o.host == "" || strings.ContainsAny(o.host, "*/@?# ") || o.scheme != "" && o.scheme != "https" && o.scheme != "http" {
		return o, fmt.Errorf("host %q: write cdn.example.com, *.example.com or https://cdn.example.com", s)
	}
	if o.below && !strings.Contains(o.host, ".") {
		return o, fmt.Errorf("host %q: a whole top-level domain is too much", s)
	}
	return o, nil
}

// allowed says whether a URL is of a host that is named.
func (h *Handler) allowed(u *url.URL) bool {
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	port := u.Port()
	if u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		port = ""
	}
	return slices.ContainsFunc(h.from, func(o origin) bool {
		match := host == o.host && !o.below || o.below && strings.HasSuffix(host, "."+o.host)
		return match && port == o.port && (o.scheme == "" || o.scheme == u.Scheme)
	})
}

// format picks the first of the formats that a browser names in Accept. "*/*" names none: browsers
// that know WebP say so, and other clients are given what surely works.
func (h *Handler) format(accept []string) string {
	for _, f := range h.cfg.Formats {
		for _, part := range strings.Split(strings.Join(accept, ","), ",") {
			name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
			if strings.EqualFold(strings.TrimSpace(name), "image/"+f) && !zeroQuality(params) {
				return f
			}
		}
	}
	return ""
}

// zeroQuality is q=0 in any of its spellings (RFC 9110, 12.4.2): not acceptable.
func zeroQuality(params string) bool {
	for _, p := range strings.Split(params, ";") {
		if v, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(p)), "q="); ok {
			q, err := strconv.ParseFloat(v, 64)
			return err == nil && q == 0
		}
	}
	return false
}
