package runtimeapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of what a subscriber of telemetry is sent, of those that the guide gives.
const (
	batchItems   = 1000
	batchTimeout = time.Second
	keptItems    = 10_000 // for a subscriber that is behind; what is more is dropped and said
)

// telemetry sends platform events and the function's output to extensions that want them: the Telemetry
// API, and the Logs API before it.
type telemetry struct {
	mu   sync.Mutex
	subs []*subscriber
}

// Record is one item of telemetry.
type Record struct {
	Time   time.Time `json:"time"`
	Type   string    `json:"type"` // platform.start, platform.report, function, extension, …
	Record any       `json:"record"`
}

type subscriber struct {
	types   []string
	to      string
	timeout time.Duration
	items   int

	mu      sync.Mutex
	pending []Record
	dropped int
	wake    chan struct{}
}

func (t *telemetry) routes(mux *http.ServeMux, e *Environment) {
	put := func(w http.ResponseWriter, r *http.Request) { t.subscribe(w, r, e) }
	mux.HandleFunc("PUT /2022-07-01/telemetry", put)
	mux.HandleFunc("PUT /2020-08-15/logs", put)
}

func (t *telemetry) subscribe(w http.ResponseWriter, r *http.Request, e *Environment) {
	if e.ext.find(w, r) == nil {
		return
	}
	var body struct {
		Types     []string `json:"types"`
		Buffering struct {
			MaxItems  int   `json:"maxItems"`
			TimeoutMs int64 `json:"timeoutMs"`
		} `json:"buffering"`
		Destination struct {
			Protocol string `json:"protocol"`
			URI      string `json:"URI"`
		} `json:"destination"`
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil || json.Unmarshal(b, &body) != nil || len(body.Types) == 0 {
		refuse(w, http.StatusBadRequest, "ValidationError", "the body names no types of telemetry")
		return
	}
	for _, k := range body.Types {
		if k != "platform" && k != "function" && k != "extension" {
			refuse(w, http.StatusBadRequest, "ValidationError", "a type of telemetry is platform, function or extension, not "+k)
			return
		}
	}
	u, err := url.Parse(body.Destination.URI)
	if err != nil || !strings.EqualFold(body.Destination.Protocol, "HTTP") || u.Scheme != "http" {
		refuse(w, http.StatusBadRequest, "ValidationError", "the destination is an address of this environment over HTTP: http://sandbox.localdomain:<port>")
		return
	}
	if h := u.Hostname(); h == "sandbox" || h == "sandbox.localdomain" || h == "sandbox.local" {
		u.Host = "127.0.0.1:" + u.Port() // the environment is this machine
	} else if h != "127.0.0.1" && h != "localhost" {
		refuse(w, http.StatusBadRequest, "ValidationError", "the destination is not in this environment: http://sandbox.localdomain:<port>")
		return
	}
	s := &subscriber{types: body.Types, to: u.String(), items: batchItems, timeout: batchTimeout, wake: make(chan struct{}, 1)}
	if n := body.Buffering.MaxItems; n > 0 && n < batchItems {
		s.items = n
	}
	if ms := body.Buffering.TimeoutMs; ms >= 25 && ms <= 30_000 {
		s.timeout = time.Duration(ms) * time.Millisecond
	}
	t.mu.Lock()
	t.subs = append(t.subs, s)
	t.mu.Unlock()
	go s.send(e.over)
	w.WriteHeader(http.StatusOK)
	io.WriteString(w, "OK")
}

// Tell gives subscribers an item: kind is "platform", "function" or "extension". It never waits.
func (e *Environment) Tell(kind string, r Record) {
	e.tel.mu.Lock()
	defer e.tel.mu.Unlock()
	for _, s := range e.tel.subs {
		if slices.Contains(s.types, kind) {
			s.add(r)
		}
	}
}

// Watched says whether anybody subscribed to a kind of telemetry.
func (e *Environment) Watched(kind string) bool {
	e.tel.mu.Lock()
	defer e.tel.mu.Unlock()
	return slices.ContainsFunc(e.tel.subs, func(s *subscriber) bool { return slices.Contains(s.types, kind) })
}

func (s *subscriber) add(r Record) {
	s.mu.Lock()
	if len(s.pending) >= keptItems {
		s.dropped++
	} else {
		s.pending = append(s.pending, r)
	}
	full := len(s.pending) >= s.items
	s.mu.Unlock()
	if full {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// send delivers batches until the environment is over, and once more.
func (s *subscriber) send(over <-chan struct{}) {
	tick := time.NewTicker(s.timeout)
	defer tick.Stop()
	for {
		last := false
		select {
		case <-over:
			last = true
		case <-s.wake:
		case <-tick.C:
		}
		for s.deliver() {
		}
		if last {
			return
		}
	}
}

// deliver sends one batch and says whether there may be another. One that is refused is lost, as Lambda
// loses it.
func (s *subscriber) deliver() bool {
	s.mu.Lock()
	n := min(len(s.pending), s.items)
	batch := s.pending[:n:n]
	s.pending = s.pending[n:]
	if s.dropped > 0 {
		batch = append(batch, Record{time.Now(), "platform.logsDropped", map[string]any{"reason": "the consumer is behind", "droppedRecords": s.dropped}})
		s.dropped = 0
	}
	more := len(s.pending) > 0
	s.mu.Unlock()
	if len(batch) == 0 {
		return false
	}
	b, err := json.Marshal(batch)
	if err != nil {
		return more
	}
	ctx, cancel := context.WithTimeout(context.Background(), ShutdownGrace)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.to, bytes.NewReader(b))
	if err != nil {
		return more
	}
	req.Header.Set("Content-Type", "application/json")
	if res, err := http.DefaultClient.Do(req); err == nil {
		io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
		res.Body.Close()
	}
	return more
}
