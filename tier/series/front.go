package series

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"tenfold"
	"tenfold/internal/awsapi"
)

// What one client may cost all.
const (
	// mostBody is the longest body of a write, in bytes, as it comes; mostQuestion that of a question.
	mostBody, mostQuestion = 32 << 20, 1 << 20
	// mostKept is the longest body that is kept until it is answered, so that it can be sent again.
	mostKept = 1 << 20
	// holdFor is how long a request waits for an engine that starts again; mostHeld is how many may wait.
	holdFor  = 10 * time.Second
	mostHeld = 1000
	againIn  = 20 * time.Millisecond
	// answerFor bounds the wait for an engine's answer.
	answerFor = queryFor + 15*time.Second
)

// Snapshot is everything the front serves by. It has secrets in it: it is handed over on a socket and never written.
type Snapshot struct {
	Entries []Entry `json:"entries"`
	Keys    []Key   `json:"keys,omitempty"`
}

// Entry is one series and its engine.
type Entry struct {
	ID       tenfold.ID `json:"id"`
	Port     int        `json:"port"`
	Password string     `json:"password"`
	Accept   []string   `json:"accept,omitempty"` // empty: all
	OTLP     bool       `json:"otlp,omitempty"`   // the engine has it
	Engine   string     `json:"engine,omitempty"` // for errors
	Line     int        `json:"line,omitempty"`   // in tenfold.yaml; 0: not known
	Down     string     `json:"down,omitempty"`   // why nothing answers, nor will soon
}

// Key is the password of one service for one series.
type Key struct {
	Of     tenfold.ID `json:"of"`     // the service or function
	Series tenfold.ID `json:"series"` // what it is for
	User   string     `json:"user"`
	Secret string     `json:"secret"`
	Uses   bool       `json:"uses,omitempty"` // its `uses` names the series
	Line   int        `json:"line,omitempty"` // of the service, in tenfold.yaml
}

// Count is what was asked by one protocol since the process began.
type Count struct {
	Requests uint64 `json:"requests"`
	Bytes    uint64 `json:"bytes"` // of bodies, as they came
	Errors   uint64 `json:"errors"`
}

// Report says how the front is used, by the IDs of series and by protocol.
type Report struct {
	Counts map[string]map[string]Count `json:"counts,omitempty"`
}

type counter struct{ requests, bytes, errors atomic.Uint64 }

// Front is the address that apps are given: it lets them in, refuses what is not for them, and has the engine answer.
type Front struct {
	log   *slog.Logger
	quiet *log.Logger
	first chan struct{} // closed with the first snapshot
	way   *http.Transport
	held  chan struct{} // one for each request that waits for an engine

	mu sync.RWMutex
	// Under mu:
	entries map[string]Entry          // by ID
	hosts   map[string]string         // IDs by what the transport calls them
	keys    map[[sha256.Size]byte]Key // by the hash of the secret: what is looked up tells nothing by its time
	may     map[string]map[string]Key // by who and by ID of the series
	counts  map[string]map[string]*counter
}

// NewFront serves nobody until it was told whom it knows.
func NewFront(logger *slog.Logger) *Front {
	f := &Front{log: logger, quiet: slog.NewLogLogger(logger.Handler(), slog.LevelDebug), first: make(chan struct{}), held: make(chan struct{}, mostHeld),
		entries: map[string]Entry{}, hosts: map[string]string{}, keys: map[[sha256.Size]byte]Key{}, may: map[string]map[string]Key{}, counts: map[string]map[string]*counter{}}
	f.way = &http.Transport{DialContext: f.dial, DisableCompression: true, MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second,
		ResponseHeaderTimeout: answerFor, ExpectContinueTimeout: time.Second, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10}
	return f
}

// Put has it serve as a snapshot says.
func (f *Front) Put(s Snapshot) Report {
	entries, hosts, keys, may := map[string]Entry{}, map[string]string{}, map[[sha256.Size]byte]Key{}, map[string]map[string]Key{}
	for _, e := range s.Entries {
		entries[e.ID.String()], hosts[hostOf(e.ID)] = e, e.ID.String()
	}
	for _, k := range s.Keys {
		keys[sha256.Sum256([]byte(k.Secret))] = k
		of := k.Of.String()
		if may[of] == nil {
			may[of] = map[string]Key{}
		}
		may[of][k.Series.String()] = k
	}
	f.mu.Lock()
	f.entries, f.hosts, f.keys, f.may = entries, hosts, keys, may
	for id := range f.counts {
		if _, ok := entries[id]; !ok {
			delete(f.counts, id)
		}
	}
	f.mu.Unlock()
	select {
	case <-f.first:
	default:
		close(f.first)
	}
	return f.Report()
}

// Report says how it is used.
func (f *Front) Report() Report {
	f.mu.RLock()
	defer f.mu.RUnlock()
	out := Report{Counts: map[string]map[string]Count{}}
	for id, by := range f.counts {
		out.Counts[id] = map[string]Count{}
		for protocol, c := range by {
			out.Counts[id][protocol] = Count{c.requests.Load(), c.bytes.Load(), c.errors.Load()}
		}
	}
	return out
}

// hostOf is what the transport knows an engine by, whatever its port is.
func hostOf(id tenfold.ID) string {
	sum := sha256.Sum256([]byte(id.String()))
	return hex.EncodeToString(sum[:8])
}

// refusal is an answer that the engine does not give.
type refusal struct {
	status int
	code   string // InfluxDB's word for it
	text   string
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, code, format string, args ...any) *refusal {
	return &refusal{status, code, fmt.Sprintf(format, args...)}
}

// asked is one request as it was understood.
type asked struct {
	entry Entry
	route route
	count *counter
}

// ServeHTTP lets in who may and has the engine answer. It implements http.Handler.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-f.first:
	case <-r.Context().Done():
		return
	}
	if h, q := r.Header.Get("Authorization"), r.URL.RawQuery; h == "" && q == "" && (strings.HasSuffix(r.URL.Path, "/ping") || strings.HasSuffix(r.URL.Path, "/health")) {
		greet(w, r) // who only asks whether somebody is there says no name, as with InfluxDB
		return
	}
	a, err := f.admit(r)
	if a.count != nil {
		a.count.requests.Add(1)
	}
	switch {
	case err != nil:
		f.refused(w, r, a, err)
	case a.route.protocol == ping:
		greet(w, r)
	default:
		r.Body = &counted{http.MaxBytesReader(w, r.Body, a.route.most()), a.count}
		if err := rewindable(r); err != nil {
			f.refused(w, r, a, err)
			return
		}
		f.proxy(a).ServeHTTP(w, r)
	}
}

// rewindable has a body that is not long be sent a second time, should the engine die of the first.
func rewindable(r *http.Request) error {
	if r.ContentLength <= 0 || r.ContentLength > mostKept {
		return nil
	}
	b := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, b); err != nil {
		return refuse(http.StatusBadRequest, "invalid", "the body ends early")
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	return nil
}

// again asks anew when an engine died over a question: the values of a request that is written twice are there once.
// It implements http.RoundTripper.
type again struct{ way *http.Transport }

// pauses are before each further try. A process that is killed takes a moment to close what it listens on; and a
// question that it dies of is not asked for ever.
var pauses = []time.Duration{50 * time.Millisecond, 250 * time.Millisecond}

// RoundTrip implements http.RoundTripper.
func (a again) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := a.way.RoundTrip(r)
	for _, pause := range pauses {
		var no *refusal
		if err == nil || r.Context().Err() != nil || errors.As(err, &no) || r.ContentLength != 0 && r.GetBody == nil {
			break
		}
		select {
		case <-r.Context().Done():
			return nil, r.Context().Err()
		case <-time.After(pause):
		}
		next := r.Clone(r.Context())
		if r.GetBody != nil {
			body, err := r.GetBody()
			if err != nil {
				return nil, err
			}
			next.Body = body
		}
		a.way.CloseIdleConnections() // they led to the one that died
		res, err = a.way.RoundTrip(next)
	}
	return res, err
}

// most is the longest body that a route takes.
func (r route) most() int64 {
	if r.protocol == query || r.to == "/query" {
		return mostQuestion
	}
	return mostBody
}

// greet answers those who ask whether somebody is there, as InfluxDB does.
func greet(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Influxdb-Version", "1.8.10")
	if strings.HasSuffix(r.URL.Path, "/ping") {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, `{"name":"series","message":"ready for queries and writes","status":"pass","checks":[]}`+"\n")
}

// counted counts the bytes of a body.
type counted struct {
	io.ReadCloser
	by *counter
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.by.bytes.Add(uint64(n))
	return n, err
}

// admit finds what is asked of which series, and says whether it may be.
func (f *Front) admit(r *http.Request) (asked, error) {
	var a asked
	user, secret, err := credentials(r)
	if err != nil {
		return a, err
	}
	f.mu.RLock()
	k, known := f.keys[sha256.Sum256([]byte(secret))]
	f.mu.RUnlock()
	if !known || user != "" && user != k.User {
		return a, refuse(http.StatusUnauthorized, "unauthorized", "this password is nobody's; a service finds its own in SERIES_URL, which it is given by `uses` in tenfold.yaml")
	}
	name, rest := splitPath(r.URL.Path, func(n tenfold.Name) bool { return f.known(k, n) })
	id := k.Series
	if name != "" {
		id.Name = name
	}
	f.mu.Lock()
	entry, there := f.entries[id.String()]
	allowed := f.may[k.Of.String()][id.String()]
	route, ok := routeOf(rest)
	a = asked{entry: entry, route: route}
	if there && ok {
		a.count = f.counter(id.String(), route.protocol)
	}
	f.mu.Unlock()
	if !allowed.Uses {
		return a, denied(k, id, route)
	}
	if !there {
		return a, refuse(http.StatusServiceUnavailable, "unavailable", "%s is not there yet", id.Short())
	}
	if !ok {
		return a, refuse(http.StatusNotFound, "not found", "%q: %s", cut(rest), unserved(rest))
	}
	return a, f.check(r, a)
}

// known says whether a name is that of a series in the environment of a key.
func (f *Front) known(k Key, n tenfold.Name) bool {
	id := k.Series
	id.Name = n
	f.mu.RLock()
	defer f.mu.RUnlock()
	_, ok := f.entries[id.String()]
	return ok
}

// counter is the one of a series' protocol. The caller holds mu.
func (f *Front) counter(id, protocol string) *counter {
	by := f.counts[id]
	if by == nil {
		by = map[string]*counter{}
		f.counts[id] = by
	}
	if by[protocol] == nil {
		by[protocol] = &counter{}
	}
	return by[protocol]
}

// denied tells which line is missing.
func denied(k Key, id tenfold.ID, r route) error {
	operation := "Write"
	if r.protocol == query || r.protocol == ping {
		operation = "Query"
	}
	c := awsapi.Caller{Of: k.Of.Short(), Line: k.Line}
	return refuse(http.StatusForbidden, "forbidden", "%s", awsapi.Denied(c, "series:"+operation, string(id.Name), string(id.Name)).Message)
}

// check refuses what a series does not take.
func (f *Front) check(r *http.Request, a asked) error {
	e, p := a.entry, a.route.protocol
	switch {
	case !slices.Contains(a.route.methods, r.Method):
		return refuse(http.StatusMethodNotAllowed, "method not allowed", "%q is asked by %s", cut(r.URL.Path), strings.Join(a.route.methods, " or "))
	case p != query && p != ping && len(e.Accept) > 0 && !slices.Contains(e.Accept, p):
		return refuse(http.StatusForbidden, "forbidden", "series.%s.accept has no %s: add it%s", e.ID.Name, p, atLine(e.Line))
	case p == tenfold.SeriesOTLP && !e.OTLP:
		return refuse(http.StatusNotImplemented, "not implemented", "%s has no OTLP: install a newer one (Debian 13 has 1.112), then tenfold down and tenfold up; or write by remote write or by InfluxDB's line protocol", e.Engine)
	case p == tenfold.SeriesRemoteWrite && strings.Contains(r.Header.Get("Content-Type"), "io.prometheus.write.v2"):
		// The engine would take it for the first version and find nothing in it. A sender that is told so goes back to that.
		return refuse(http.StatusUnsupportedMediaType, "unsupported media type", "remote write is served in its version 1.0 (prometheus.WriteRequest)")
	case e.Down != "":
		return refuse(http.StatusServiceUnavailable, "unavailable", "%s does not run: %s", e.ID.Short(), e.Down)
	case r.ContentLength > a.route.most():
		return tooLong(a.route)
	case a.route.to == "/query" && r.Method != http.MethodPost && !influxQL(r.URL.Query().Get("q")):
		return errInfluxQL
	case a.route.to == "/query" && r.Method == http.MethodPost:
		return f.statement(r)
	}
	return nil
}

var errInfluxQL = refuse(http.StatusNotImplemented, "not implemented", "InfluxQL is not served, but for SHOW DATABASES and CREATE DATABASE: ask by PromQL, at /api/v1/query and /api/v1/query_range")

// statement reads InfluxQL that is in a form.
func (f *Front) statement(r *http.Request) error {
	r.Body = http.MaxBytesReader(nil, r.Body, mostQuestion)
	if err := r.ParseForm(); err != nil {
		return refuse(http.StatusBadRequest, "invalid", "read the form: %s", err)
	}
	if !influxQL(r.Form.Get("q")) {
		return errInfluxQL
	}
	r.Body, r.ContentLength = http.NoBody, 0 // the engine is asked by GET
	return nil
}

func tooLong(r route) error {
	return refuse(http.StatusRequestEntityTooLarge, "request too large", "the body is longer than %d MB: write fewer values at once", r.most()>>20)
}

func atLine(n int) string {
	if n == 0 {
		return " in tenfold.yaml"
	}
	return " (tenfold.yaml:" + strconv.Itoa(n) + ")"
}

func cut(s string) string {
	if len(s) > 300 {
		return strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

// credentials are who asks, in each way that clients have: Basic, InfluxDB's Token, Bearer, or u and p.
func credentials(r *http.Request) (user, secret string, err error) {
	h := r.Header.Get("Authorization")
	if user, secret, ok := r.BasicAuth(); ok {
		return user, secret, nil
	}
	scheme, value, _ := strings.Cut(h, " ")
	switch strings.ToLower(scheme) {
	case "token", "bearer":
		if user, secret, ok := strings.Cut(strings.TrimSpace(value), ":"); ok { // as InfluxDB 1.8 has it
			return user, secret, nil
		}
		return "", strings.TrimSpace(value), nil
	case "":
		if q := r.URL.Query(); q.Get("p") != "" {
			return q.Get("u"), q.Get("p"), nil
		}
	}
	return "", "", refuse(http.StatusUnauthorized, "unauthorized", "say who you are: with the user and the password of SERIES_URL, or with that password as a token")
}

// proxy has the engine answer.
func (f *Front) proxy(a asked) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport: again{f.way},
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", hostOf(a.entry.ID), "engine"
			p.Out.URL.Path, p.Out.URL.RawPath, p.Out.URL.RawQuery = a.route.to, "", cleaned(p.In.URL.RawQuery)
			if a.route.to == "/query" {
				p.Out.Method, p.Out.URL.RawQuery = http.MethodGet, "q=SHOW+DATABASES"
			}
			p.Out.ContentLength = p.In.ContentLength
			p.Out.Header.Del("Cookie")
			p.Out.SetBasicAuth(engineUser, a.entry.Password)
		},
		ModifyResponse: func(res *http.Response) error {
			if res.StatusCode == http.StatusUnauthorized { // the password is ours: what answers is no engine of ours
				return errors.New("what answers does not know us")
			}
			if res.StatusCode < 400 {
				return nil
			}
			if err := reworded(a.entry, res); err != nil {
				return err
			}
			a.count.errors.Add(1)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var long *http.MaxBytesError
			var no *refusal
			switch {
			case r.Context().Err() != nil:
				a.count.errors.Add(1)
				panic(http.ErrAbortHandler)
			case errors.As(err, &long):
				err = tooLong(a.route)
			case errors.As(err, &no):
			default:
				f.log.Warn("an engine did not answer", "series", a.entry.ID.String(), "protocol", a.route.protocol, "err", err)
				err = refuse(http.StatusBadGateway, "unavailable", "the engine of %s broke off before it answered: ask again, or write fewer values at once; what is written twice is there once", a.entry.ID.Short())
			}
			f.refused(w, r, a, err)
		},
		ErrorLog:   f.quiet,
		BufferPool: buffers{},
	}
}

// reworded is an error that the engine tells in text, without what is the engine's own business; nil for one that is
// told in JSON, as clients of Prometheus read it.
func reworded(e Entry, res *http.Response) error {
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
		return nil
	}
	var from io.Reader = io.LimitReader(res.Body, 64<<10)
	if res.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(from)
		if err != nil {
			return nil
		}
		from = io.LimitReader(z, 64<<10)
	}
	b, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	text := strings.TrimSpace(string(b))
	if strings.Contains(text, "read-only mode") {
		return refuse(http.StatusServiceUnavailable, "unavailable", "%s is read only: less than %s are free on its disk; make room, and it takes values again", e.ID.Short(), sizeOf(leastFree))
	}
	if i := strings.LastIndex(text, "requestURI: "); i >= 0 { // it begins with who asked for what
		_, text, _ = strings.Cut(text[i:], "; ")
	}
	return refuse(res.StatusCode, "invalid", "%s", cut(text))
}

// dial connects to an engine, and waits for one that starts again. What is asked has not been sent by then, so nothing
// is asked twice.
func (f *Front) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	waits := false
	for until := time.Now().Add(holdFor); ; {
		f.mu.RLock()
		e, ok := f.entries[f.hosts[host]]
		f.mu.RUnlock()
		if !ok || e.Down != "" {
			return nil, refuse(http.StatusServiceUnavailable, "unavailable", "the series was stopped")
		}
		if e.Port != 0 {
			c, err := (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", strconv.Itoa(e.Port)))
			if err == nil || ctx.Err() != nil {
				return c, err
			}
		}
		if !waits {
			select {
			case f.held <- struct{}{}:
				waits = true
				defer func() { <-f.held }()
			default:
				return nil, refuse(http.StatusServiceUnavailable, "unavailable", "the engine of %s starts, and %d requests wait for it already: try again", e.ID.Short(), mostHeld)
			}
		}
		if time.Now().After(until) {
			return nil, refuse(http.StatusServiceUnavailable, "unavailable", "the engine of %s does not answer; tenfold status says why", e.ID.Short())
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(againIn):
		}
	}
}

// drained bounds what is read of a body that is refused, in bytes and in time: a client that is still sending does not
// read the answer.
const drained, drainedFor = 64 << 20, 5 * time.Second

// refused answers an error in one body that clients of each protocol find their message in.
func (f *Front) refused(w http.ResponseWriter, r *http.Request, a asked, err error) {
	var no *refusal
	if !errors.As(err, &no) {
		f.log.Error("answer a request", "err", err)
		no = refuse(http.StatusInternalServerError, "internal error", "the request could not be answered; the log of the process series says why")
	}
	if a.count != nil {
		a.count.errors.Add(1)
	}
	if r.ContentLength != 0 && r.Body != nil {
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainedFor))
		if n, err := io.Copy(io.Discard, io.LimitReader(r.Body, drained)); err != nil || n == drained {
			w.Header().Set("Connection", "close")
		}
		http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
	switch no.status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="series"`)
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", strings.Join(a.route.methods, ", "))
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/json")
	if !strings.ContainsFunc(no.text, unicode.IsControl) {
		w.Header().Set("X-Influxdb-Error", no.text)
	}
	w.WriteHeader(no.status)
	if r.Method == http.MethodHead {
		return
	}
	json.NewEncoder(w).Encode(struct {
		Status    string `json:"status"`
		ErrorType string `json:"errorType"`
		Error     string `json:"error"`
		Code      string `json:"code"`
		Message   string `json:"message"`
	}{"error", strings.ReplaceAll(no.code, " ", "_"), no.text, no.code, no.text})
}

// buffers are what bodies are copied through.
type buffers struct{}

var pool = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// Get implements httputil.BufferPool.
func (buffers) Get() []byte { return *pool.Get().(*[]byte) }

// Put implements httputil.BufferPool.
func (buffers) Put(b []byte) { pool.Put(&b) }
