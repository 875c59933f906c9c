// Package image makes the pictures of a site fit who looks at them: smaller, in a format that the
// browser takes (WebP, AVIF), from the app's own files or from hosts that are named. It answers
//
//	/_tenfold/image?url=/photo.jpg&w=640&q=75
//	/_tenfold/image?url=/photo.jpg&w=320&dpr=2
//
// and, by the same rules, the default loader of Next.js, /_next/image. Everybody may ask, so all that
// an asker chooses is bounded: widths from a list, qualities in steps of 5, the source's bytes and
// pixels before it is decoded, work at once, results on disk. A source is what its first bytes say it
// is; SVG, which can hold scripts, is refused. A private address is never asked, whatever a name or a
// redirect says. Begin at Handler.
package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Handler needs. Dir and App are required.
type Config struct {
	Dir   string       // results on disk; the Handler owns all below it
	Bytes int64        // that they may take: 256 MiB
	App   http.Handler // answers for the app's own paths, asked without cookies
	// From names the hosts that others' pictures may come from: "cdn.example.com", "*.example.com",
	// with a scheme (https://…) or a port when only that is meant. None: the app's own only.
	From []string
	// Widths are those that may be asked for, in pixels: those of Next.js' defaults.
	Widths []int
	// Formats are offered to browsers that take them, the preferred first: "webp", "avif". AVIF is
	// smaller and several times as much work; its encoder costs some seconds once in a process.
	Formats    []string // webp
	MostSource int64    // bytes of a source: 20 MiB
	// MostPixels bounds a source, before it is decoded: 32,000,000. Pixels of 16 bits a colour, and
	// those of interlaced and progressive pictures, count twice: they take so much more memory.
	MostPixels int
	AtOnce     int           // pictures being made: half of the processors, at least 1
	Queue      int           // requests that wait for it: 64; beyond that 503
	MinAge     time.Duration // how long another host's picture is not asked for again, at least: 60 s
}

// nextWidths are the device and image sizes of Next.js.
var nextWidths = []int{16, 32, 48, 64, 96, 128, 256, 384, 640, 750, 828, 1080, 1200, 1920, 2048, 3840}

// version is part of each result's key: another way of making pictures gives other results.
const version = "1"

// patience bounds the making of one picture, fetching included.
const patience = 30 * time.Second

// Handler answers requests for pictures. It may be used by many at once and has no goroutine.
type Handler struct {
	cfg    Config
	from   []origin
	store  *store
	remote *http.Client

	// dialable says which addresses may be asked; tests allow their own.
	dialable func(netip.AddrPort) error

	slots   chan struct{} // one for each picture being made
	fetches chan struct{} // one for each source being fetched
	waiting atomic.Int64  // for a slot

	mu      sync.Mutex
	flights map[string]*flight
	known   map[string]known // by source; bounded by mostKnown
}

const (
	mostKnown   = 4096
	mostFetches = 8
)

// known is what is remembered of a source, so that a result is found without it.
type known struct {
	digest  string
	etag    string
	fresh   freshness
	expires time.Time
}

// flight is one picture being made, that others wait for.
type flight struct {
	done chan struct{}
	res  result
	err  error
}

// result is a picture with what its answer says.
type result struct {
	body      []byte
	kind      kind
	key       string
	fresh     freshness
	remaining time.Duration
}

// statusError is an error that the asker is told, with its status.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

func refuse(status int, format string, args ...any) error {
	return &statusError{status, fmt.Sprintf(format, args...)}
}

// New makes a Handler. It reads what is on disk and starts nothing.
func New(cfg Config) (*Handler, error) {
	if cfg.Dir == "" || cfg.App == nil {
		return nil, errors.New("new image handler: Dir and App are required")
	}
	def := func(n *int, to int) {
		if *n <= 0 {
			*n = to
		}
	}
	def(&cfg.MostPixels, 32_000_000)
	def(&cfg.AtOnce, max(1, runtime.GOMAXPROCS(0)/2))
	def(&cfg.Queue, 64)
	if cfg.Bytes <= 0 {
		cfg.Bytes = 256 << 20
	}
	if cfg.MostSource <= 0 {
		cfg.MostSource = 20 << 20
	}
	if cfg.MinAge <= 0 {
		cfg.MinAge = time.Minute
	}
	if len(cfg.Widths) == 0 {
		cfg.Widths = nextWidths
	}
	cfg.Widths = slices.Clone(cfg.Widths)
	slices.Sort(cfg.Widths)
	if cfg.Widths[0] < 1 || cfg.Widths[len(cfg.Widths)-1] > mostWidth {
		return nil, fmt.Errorf("new image handler: widths must be 1 to %d", mostWidth)
	}
	if cfg.Formats == nil {
		cfg.Formats = []string{"webp"}
	}
	for _, f := range cfg.Formats {
		if f != "webp" && f != "avif" {
			return nil, fmt.Errorf("new image handler: format %q: webp and avif are made", f)
		}
	}
	h := &Handler{
		cfg: cfg, dialable: public, slots: make(chan struct{}, cfg.AtOnce), fetches: make(chan struct{}, mostFetches),
		flights: map[string]*flight{}, known: map[string]known{},
	}
	for _, f := range cfg.From {
		o, err := parseOrigin(f)
		if err != nil {
			return nil, fmt.Errorf("new image handler: %w", err)
		}
		h.from = append(h.from, o)
	}
	var err error
	if h.store, err = openStore(cfg.Dir, cfg.Bytes); err != nil {
		return nil, fmt.Errorf("new image handler: %w", err)
	}
	h.remote = h.client()
	return h, nil
}

// ServeHTTP answers GET and HEAD of any path: who routes here has chosen it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		head.Set("Allow", "GET, HEAD")
		h.fail(w, refuse(http.StatusMethodNotAllowed, "GET and HEAD only"))
		return
	}
	want, err := h.parse(r.URL.RawQuery)
	if err != nil {
		h.fail(w, err)
		return
	}
	want.format = h.format(r.Header.Values("Accept"))
	if want.own {
		want.host = r.Host
	}
	res, err := h.share(r, want)
	if err != nil {
		h.fail(w, err)
		return
	}
	head.Set("Vary", "Accept")
	head.Set("Content-Type", res.kind.mime())
	head.Set("Content-Disposition", `inline; filename="image.`+string(res.kind)+`"`)
	head.Set("Content-Security-Policy", "script-src 'none'; frame-src 'none'; sandbox;")
	head.Set("ETag", `"`+res.key[:32]+`"`)
	head.Set("Cache-Control", res.cacheControl())
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(res.body))
}

func (r result) cacheControl() string {
	seconds := strconv.FormatInt(int64(max(0, r.remaining)/time.Second), 10)
	switch {
	case r.fresh.noStore:
		return "private, no-store"
	case r.fresh.immutable:
		return "public, max-age=" + seconds + ", immutable"
	}
	return "public, max-age=" + seconds + ", must-revalidate"
}

// fail answers with a short text that nobody keeps.
func (h *Handler) fail(w http.ResponseWriter, err error) {
	status, text := http.StatusInternalServerError, "the picture cannot be made"
	var se *statusError
	if errors.As(err, &se) {
		status, text = se.status, se.text
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Vary", "Accept")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	http.Error(w, text, status)
}

// share makes a picture once for all who ask for it at the same time. Who asks first makes it, and does
// not stop when its client leaves: the others wait for it.
func (h *Handler) share(r *http.Request, want wanted) (result, error) {
	id := want.id()
	h.mu.Lock()
	f, ok := h.flights[id]
	if !ok {
		f = &flight{done: make(chan struct{}), err: errors.New("make picture: it panicked")}
		h.flights[id] = f
	}
	h.mu.Unlock()
	if ok {
		select {
		case <-f.done:
			return f.res, f.err
		case <-r.Context().Done():
			return result{}, r.Context().Err()
		}
	}
	defer func() {
		h.mu.Lock()
		delete(h.flights, id)
		h.mu.Unlock()
		close(f.done)
	}()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), patience)
	defer cancel()
	f.res, f.err = h.make(ctx, r, want)
	return f.res, f.err
}

// make finds a result, or makes it.
func (h *Handler) make(ctx context.Context, r *http.Request, want wanted) (result, error) {
	now := time.Now()
	h.mu.Lock()
	k, ok := h.known[want.source()]
	h.mu.Unlock()
	var data []byte
	if !ok || !now.Before(k.expires) {
		var err error
		if k, data, err = h.look(ctx, r, want, k); err != nil {
			return result{}, err
		}
	}
	res := result{key: want.key(k.digest), fresh: k.fresh, remaining: k.expires.Sub(now)}
	if !k.fresh.noStore {
		if res.body, res.kind, ok = h.store.get(res.key); ok {
			return res, nil
		}
	}
	if data == nil {
		// The source is known, this picture of it is not.
		var err error
		if k, data, err = h.look(ctx, r, want, known{}); err != nil {
			return result{}, err
		}
		res.key, res.fresh, res.remaining = want.key(k.digest), k.fresh, k.expires.Sub(now)
	}
	if err := h.enter(ctx); err != nil {
		return result{}, err
	}
	defer func() { <-h.slots }()
	var err error
	if res.body, res.kind, err = transform(data, want.width, want.quality, want.format, h.cfg.MostPixels); err != nil {
		return result{}, err
	}
	if !k.fresh.noStore {
		h.store.put(res.key, res.kind, res.body)
	}
	return res, nil
}

// enter waits for a slot; when too many wait already, 503.
func (h *Handler) enter(ctx context.Context) error {
	if h.waiting.Add(1) > int64(h.cfg.Queue+h.cfg.AtOnce) {
		h.waiting.Add(-1)
		return refuse(http.StatusServiceUnavailable, "too many pictures are being made")
	}
	defer h.waiting.Add(-1)
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return refuse(http.StatusServiceUnavailable, "too many pictures are being made")
	}
}

// look fetches a source, or learns that what is known of it still holds: then the data is nil.
func (h *Handler) look(ctx context.Context, r *http.Request, want wanted, old known) (known, []byte, error) {
	select {
	case h.fetches <- struct{}{}:
		defer func() { <-h.fetches }()
	case <-ctx.Done():
		return known{}, nil, refuse(http.StatusServiceUnavailable, "too many pictures are being fetched")
	}
	got, err := h.fetch(ctx, r, want, old.etag)
	if err != nil {
		return known{}, nil, err
	}
	age := got.fresh.age
	if !want.own {
		age = max(age, h.cfg.MinAge)
	}
	k := known{digest: old.digest, etag: got.etag, fresh: got.fresh, expires: time.Now().Add(min(age, 365*24*time.Hour))}
	if got.unchanged {
		if k.etag == "" {
			k.etag = old.etag
		}
	} else {
		sum := sha256.Sum256(got.body)
		k.digest = hex.EncodeToString(sum[:])
	}
	if k.fresh.noStore {
		return k, got.body, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.known) >= mostKnown {
		clear(h.known)
	}
	h.known[want.source()] = k
	return k, got.body, nil
}
