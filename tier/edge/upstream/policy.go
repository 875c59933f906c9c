package upstream

import (
	"net/http"
	"net/netip"
	"time"
)

// Endpoint is a task that serves. The zero Weight takes no new requests, as Draining does; the usual
// one is 1. Tasks of one Release share what the release gets: a release's part of all requests is the
// sum of its tasks' weights by the sum of all.
type Endpoint struct {
	ID       string // the task's
	Addr     string // host:port
	Release  string
	Weight   float64
	Draining bool
	// Leased says that it takes requests only while Lease is renewed, unless nobody else can.
	Leased bool
}

// Policy is how a service's tasks are used. The zero value of each field means its default.
type Policy struct {
	// Timeout is for the head of a response, and its body when that is short, after the last progress
	// of the request (60 s; negative: none).
	Timeout time.Duration
	// Idle is the silence that ends a response under way or an upgraded connection (10 min).
	Idle time.Duration
	// Hold is how long a request waits while there is no task to take it (5 s; negative: not at all),
	// and HoldMost how many do so at once (1024). More are answered that the service is down.
	Hold     time.Duration
	HoldMost int
	// SlowStart is the time in which a task that is new, or was passed over, comes to its full share
	// (10 s; negative: at once).
	SlowStart time.Duration
	// Sticky keeps a client at its task by a cookie of that age (0: no cookie).
	Sticky time.Duration
	Retry  Retry
	Hedge  Hedge
	Eject  Eject
	Health Health
	// Trust are addresses of proxies whose X-Forwarded-For, -Proto and -Host are believed and passed
	// on. From anybody else they are replaced; Forwarded (RFC 7239) is always dropped.
	Trust []netip.Prefix
}

// Retry bounds how many requests are sent a second time after a task may have seen them: Share of
// the requests of the last 10 s (0.2), and always Least per second (3). Negative: none.
type Retry struct {
	Share float64
	Least float64
}

// Hedge sends a safe request without a body to a second task when the first did not answer within
// After, or within the Quantile (0.95) of this service's latencies. The first answer counts. Hedges
// take from the budget of retries. Zero: off.
type Hedge struct {
	After    time.Duration
	Quantile float64
}

// Eject says when a task is passed over for a while: after Failures in a row (5; negative: never;
// no answer, 502, 503 and 504 are failures), or while its latency is Latency times (8; negative:
// never) the median of the others. The first time takes Base (1 s), each next twice as long, at most
// Most (30 s). At most half of the tasks are ever passed over: when more would be, none is.
type Eject struct {
	Failures int
	Latency  float64
	Base     time.Duration
	Most     time.Duration
}

// Health asks each task by itself, GET Path, while Service.Run runs. An empty Path asks nothing. A
// task whose checks fail Down times in a row (2) gets requests only when all do; Up good ones (1)
// bring it back.
type Health struct {
	Path     string
	StatusLo int           // 200
	StatusHi int           // 399
	Every    time.Duration // 5 s
	Timeout  time.Duration // 2 s
	Down     int
	Up       int
	Host     string // the Host field (the task's address)
}

// Route overrides a service's policy for one route. Zero fields override nothing.
type Route struct {
	Timeout time.Duration
	Hedge   Hedge
}

func or[T int | float64 | time.Duration](v *T, otherwise T) {
	if *v == 0 {
		*v = otherwise
	} else if *v < 0 {
		*v = 0
	}
}

func (p Policy) withDefaults() *Policy {
	or(&p.Timeout, 60*time.Second)
	or(&p.Idle, 10*time.Minute)
	or(&p.Hold, 5*time.Second)
	or(&p.HoldMost, 1024)
	or(&p.SlowStart, 10*time.Second)
	or(&p.Retry.Share, 0.2)
	or(&p.Retry.Least, 3)
	or(&p.Eject.Failures, 5)
	or(&p.Eject.Latency, 8)
	or(&p.Eject.Base, time.Second)
	or(&p.Eject.Most, 30*time.Second)
	or(&p.Health.StatusLo, 200)
	or(&p.Health.StatusHi, 399)
	or(&p.Health.Every, 5*time.Second)
	or(&p.Health.Timeout, 2*time.Second)
	or(&p.Health.Down, 2)
	or(&p.Health.Up, 1)
	return &p
}

// Result is what became of a request, for log and metrics. Durations count from its arrival.
type Result struct {
	Endpoint  string // the task that answered, or that was tried last; empty: none
	Release   string
	Status    int   // answered; after an abort the status that was begun
	Bytes     int64 // of the body that were passed on; of an upgraded connection, both ways
	Tries     int   // how often it was sent; 0: never
	Hedged    bool
	Queue     time.Duration // held because no task could take it
	Connect   time.Duration // making a connection; 0 when one was at hand
	FirstByte time.Duration // until the head of the answer
	Total     time.Duration
	Err       error // why there is no whole answer
}

// Count is one task's traffic since it became known.
type Count struct {
	ID, Addr, Release string
	InFlight          int64
	Requests          uint64
	Errors            uint64    // no answer, or 5xx
	Class             [6]uint64 // answers by status class; 0: none came
	Buckets           []uint64
	Latency           time.Duration // as measured for balancing; 0: unknown
	Idle              int           // connections kept
	Ejected           bool
	Sick              bool // its health check fails
	Refusing          bool // takes no connection
	Lapsed            bool // its lease is over
	Draining          bool
}

// Config is what a Service needs. Name alone suffices.
type Config struct {
	Name   string
	Policy Policy
	// Fail answers a request of which nothing was answered yet; see Status. A client that is gone
	// (ErrClientGone) is answered too, by nobody heard: an empty 200 must not be. Nil: plain text.
	Fail func(w http.ResponseWriter, r *http.Request, err error)
	// Done is called once for each request, after its last byte. It must not keep res.
	Done func(r *http.Request, res *Result)
	// Drained is called with the id of a draining task when nothing is in flight to it any more.
	// Nothing will be. It may be called while Update runs: it must neither block nor call the Service.
	Drained func(id string)
	// Waits is called when a request begins to wait while there is no task at all. It must not block.
	Waits func()
}
