package series

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"tenfold"
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
