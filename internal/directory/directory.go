// Package directory is what the front door knows: hosts, routes and endpoints, as plain data.
//
// The daemon writes snapshots, the door keeps the last one on disk and serves by it whether or not
// the daemon lives. Nothing here opens a socket. Begin at Snapshot.
package directory

import "time"

// PinScript is the script by which pages say, on every host of a site that pins calls, which deployment
// made them.
const PinScript = "/_tenfold/pin.js"

// PinOf is the part of a deployment's id that names a version of a service.
func PinOf(release string) string { return release[:min(8, len(release))] }

// HooksPath begins the paths that lead to the console's socket on every host: deliveries of Git hosts.
const HooksPath = "/_tenfold/hooks/"

// Snapshot is everything the door routes by. Version only grows; a door refuses an older one.
type Snapshot struct {
	Version uint64 `json:"version"`
	Sites   []Site `json:"sites"`
	// Candidates are tried out before users get them.
	Candidates []Candidate `json:"candidates,omitempty"`
	// Console is the unix socket that serves ConsoleHosts (the daemon's console).
	Console      string   `json:"console,omitempty"`
	ConsoleHosts []string `json:"consoleHosts,omitempty"`
	// Trust are the proxies, as CIDR, that all sites together trust.
	Trust []string `json:"trust,omitempty"`
	// Memory and Disk bound the HTTP cache, in bytes; 0: the default.
	Memory int64 `json:"memory,omitempty"`
	Disk   int64 `json:"disk,omitempty"`
	// Contact is the e-mail address that authorities of certificates are given; empty: none.
	Contact string `json:"contact,omitempty"`
}

// Site is one environment of an app.
type Site struct {
	App string `json:"app"`
	Env string `json:"env"`
	// Hosts are exact names without port, lower case; Redirect maps further hosts to the canonical one.
	Hosts    []string          `json:"hosts"`
	Redirect map[string]string `json:"redirect,omitempty"`
	// Default makes the site answer for localhost, 127.0.0.1 and [::1] too: the only app of the house.
	Default  bool      `json:"default,omitempty"`
	Routes   []Route   `json:"routes"`
	Rules    []Rule    `json:"rules,omitempty"`
	Log      *Logging  `json:"log,omitempty"` // nil: all requests, for 14 days, nothing of persons
	Services []Service `json:"services,omitempty"`
	// Frontends maps a name to its release.Site folder.
	Frontends map[string]Frontend `json:"frontends,omitempty"`
	// Password, a bcrypt hash, keeps the whole site for those who know it; the user's name is free.
	Password string `json:"password,omitempty"`
	// HSTS is the age of Strict-Transport-Security; 0: none.
	HSTS time.Duration `json:"hsts,omitempty"`
	// Errors are pages of the app's own, in HTML, by status.
	Errors map[int]string `json:"errors,omitempty"`
	// Geo is a MaxMind file that says where clients are; empty: none.
	Geo string `json:"geo,omitempty"`
	// DNS proves the names of the site; nil: only ports do.
	DNS *DNS `json:"dns,omitempty"`
}

// DNS is who writes records into the zone of a site's names; see tenfold.DNS. Credentials are in it,
// since a door renews certificates without the daemon: a snapshot is stored where private keys are,
// and for its owner alone.
type DNS struct {
	Provider    string `json:"provider"`
	Credentials string `json:"credentials"`
	// Version is the secret's: of two sites below one wildcard the higher one is used.
	Version   int64    `json:"version,omitempty"`
	Wildcards []string `json:"wildcards,omitempty"`
}

// Route sends what matches Pattern ("[METHOD ][host]/path", see tenfold.Route) to a service or a frontend.
type Route struct {
	Pattern  string `json:"pattern"`
	Service  string `json:"service,omitempty"`
	Frontend string `json:"frontend,omitempty"`
}

// Rule is edge.routes: what the most specific matching pattern says, key by key.
type Rule struct {
	Pattern    string            `json:"pattern"`
	RedirectTo string            `json:"redirectTo,omitempty"`
	Status     int               `json:"status,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"` // "" removes
	Cache      *Caching          `json:"cache,omitempty"`
	Limit      *Limiting         `json:"limit,omitempty"`

	Rewrite     string            `json:"rewrite,omitempty"`
	Request     map[string]string `json:"request,omitempty"` // "" removes
	CORS        []string          `json:"cors,omitzero"`
	Timeout     time.Duration     `json:"timeout,omitempty"`
	Hedge       float64           `json:"hedge,omitempty"`
	Auth        *Auth             `json:"auth,omitempty"`
	Maintenance string            `json:"maintenance,omitempty"` // a page in HTML
	Line        int               `json:"line,omitempty"`        // of the manifest
}

// Auth is who may pass along a route; see tenfold.Auth. No secret is in it: passwords are bcrypt
// hashes, the rest is public.
type Auth struct {
	Off    bool              `json:"off,omitempty"`
	Basic  map[string]string `json:"basic,omitempty"`  // user to hash
	MTLS   string            `json:"mtls,omitempty"`   // authorities in PEM
	Signed map[string]string `json:"signed,omitempty"` // id of a key to the key in PEM
	Allow  []string          `json:"allow,omitempty"`
	Deny   []string          `json:"deny,omitempty"`
}

// Logging is what the access log notes; see tenfold.AccessLog.
type Logging struct {
	Off      bool          `json:"off,omitempty"`
	Keep     time.Duration `json:"keep,omitempty"`
	Sample   float64       `json:"sample"` // (0, 1]
	Personal bool          `json:"personal,omitempty"`
}

// Caching is what a route says of the HTTP cache; see tenfold.Caching, whose fields these are.
type Caching struct {
	Off             bool          `json:"off,omitempty"`
	Default         time.Duration `json:"default,omitempty"`
	Min             time.Duration `json:"min,omitempty"`
	Max             time.Duration `json:"max,omitempty"`
	StaleRevalidate time.Duration `json:"staleRevalidate,omitempty"`
	StaleError      time.Duration `json:"staleError,omitempty"`
	Query           []string      `json:"query,omitempty"`
	NoQuery         bool          `json:"noQuery,omitempty"`
	Headers         []string      `json:"headers,omitempty"`
	Cookies         []string      `json:"cookies,omitempty"`
	Tags            []string      `json:"tags,omitempty"`
	OverridePrivate bool          `json:"overridePrivate,omitempty"`
	OverrideNoStore bool          `json:"overrideNoStore,omitempty"`
}

// Limiting is what a route refuses; see tenfold.Limiting, whose fields these are.
type Limiting struct {
	Rate        int           `json:"rate,omitempty"`
	Per         time.Duration `json:"per,omitempty"`
	By          string        `json:"by,omitempty"`
	Burst       int           `json:"burst,omitempty"`
	Concurrency int           `json:"concurrency,omitempty"`
	Body        int64         `json:"body,omitempty"`
	Header      int64         `json:"header,omitempty"`
}

// Frontend is where a frontend's releases lie and what answers paths without a file.
type Frontend struct {
	Dir      string `json:"dir"`
	Fallback string `json:"fallback,omitempty"`
	Images   Images `json:"images,omitzero"`
	// Server is the service that answers what has no file: those of its endpoints whose Build is the
	// release's Server, so that nobody gets the files of one release and the pages of another.
	Server string `json:"server,omitempty"`
	// Pin are the routes along which calls reach the deployment that made the page.
	Pin []string `json:"pin,omitempty"`
}

// Candidate is a site as it will be, on an address of its own: with a release of one of its frontends
// that users do not have yet.
type Candidate struct {
	Addr     string `json:"addr"` // of the loopback interface
	Site     Site   `json:"site"`
	Frontend string `json:"frontend"`
	Release  string `json:"release"`
}

// Images is how a frontend's pictures are made to fit; see tenfold.Images, whose fields these are.
type Images struct {
	Off     bool     `json:"off,omitempty"`
	Widths  []int    `json:"widths,omitempty"`
	Formats []string `json:"formats,omitempty"`
	From    []string `json:"from,omitempty"`
}

// Service is a set of endpoints that answer alike.
type Service struct {
	Name      string        `json:"name"`
	Endpoints []Endpoint    `json:"endpoints"`
	Request   time.Duration `json:"request"` // time limit of a response's first byte; 0: 60 s
	Idle      time.Duration `json:"idle"`    // silence of WebSocket and SSE; 0: 10 m
	// Sticky keeps a client at its task by a cookie of that age; 0: no cookie.
	Sticky time.Duration `json:"sticky,omitempty"`
	// Hold is how long requests wait while there is no task; 0: 5 s. One that sleeps needs as long as it boots.
	Hold time.Duration `json:"hold,omitempty"`
	// Private is a loopback address of the door's own that leads to this service only: how another
	// service of the app calls it. Empty: none.
	Private string `json:"private,omitempty"`
	// Down says why there is no endpoint, for the error page: "service api: deploy failed: …".
	Down string `json:"down,omitempty"`
	// Function is the ID of the function that this is, and Pass what the door shows its process; empty: it is a service.
	Function string `json:"function,omitempty"`
	// Bucket is the ID of the bucket that this is; empty: it is none.
	Bucket string `json:"bucket,omitempty"`
	Pass   string `json:"pass,omitempty"`
}

// Endpoint is one task. A draining endpoint gets no new request but keeps those in flight.
type Endpoint struct {
	ID       string `json:"id"`   // the task's
	Addr     string `json:"addr"` // host:port
	Draining bool   `json:"draining,omitempty"`
	Build    string `json:"build,omitempty"` // of a frontend's server: what it runs
	// Release is the version that it runs: requests are spread over releases by the sums of their Weights,
	// and within one by load. 0 is the usual weight, 1.
	Release string  `json:"release,omitempty"`
	Weight  float64 `json:"weight,omitempty"`
	// Leased says that it gets requests only while a Lease of it lasts, unless nobody else is there.
	Leased bool `json:"leased,omitempty"`
	// Apart says that it gets only requests that are pinned to its Release.
	Apart bool `json:"apart,omitempty"`
}

// LeaseFor is how long a lease lasts that is not renewed.
const LeaseFor = 10 * time.Second

// Lease lets tasks of a service have requests for LeaseFor, and until Errors more of each failed: whoever
// tries a version out looks at what came of it before there can be many more.
type Lease struct {
	Tasks  []string `json:"tasks"`
	Errors int      `json:"errors"`
}

// Report is what the door says of itself, every second and at once when asked.
type Report struct {
	Version   uint64           `json:"version"` // snapshot in use
	Endpoints map[string]Count `json:"endpoints"`
	Routes    []RouteCount     `json:"routes,omitempty"`
	Cache     CacheCount       `json:"cache"`
	// Services are how services are used, by "app/env/name".
	Services map[string]Load `json:"services,omitempty"`
	// Root is the certificate, in PEM, of the authority that signs local names; empty without TLS.
	Root         string        `json:"root,omitempty"`
	Certificates []Certificate `json:"certificates,omitempty"`
	// Faults are what is wrong with certificates, by host; each stands here until it is mended.
	Faults []Fault `json:"faults,omitempty"`
}

// Load is how a service is used: sums since the door began, and what is under way.
type Load struct {
	Requests uint64        `json:"requests"`          // sent to tasks
	Answered uint64        `json:"answered"`          // of which an answer began
	Busy     time.Duration `json:"busy"`              // that tasks took to begin those, in sum
	InFlight int64         `json:"inFlight"`          // at tasks
	Waiting  int64         `json:"waiting"`           // held until a task takes them
	Buckets  []uint64      `json:"buckets,omitempty"` // of Answered by time, as Bounds
}

// Add adds another part of the same service.
func (l *Load) Add(o Load) {
	l.Requests += o.Requests
	l.Answered += o.Answered
	l.Busy += o.Busy
	l.InFlight += o.InFlight
	l.Waiting += o.Waiting
	if l.Buckets == nil {
		l.Buckets = make([]uint64, len(Bounds)+1)
	}
	for i, n := range o.Buckets {
		l.Buckets[i] += n
	}
}

// Waiting answers who waits for services that have no task.
type Waiting struct {
	Seq      uint64   `json:"seq"`      // to be named when asked again: the answer comes when it changed
	Services []string `json:"services"` // "app/env/name"
}

// Fault is what is wrong with a host's certificate.
type Fault struct {
	Host   string    `json:"host"`
	Title  string    `json:"title"`
	Cause  string    `json:"cause,omitempty"`
	Hint   string    `json:"hint,omitempty"`
	Since  time.Time `json:"since"`
	Severe bool      `json:"severe,omitempty"` // visitors see errors
}

// Certificate is how a host's certificate stands.
type Certificate struct {
	Host     string    `json:"host"`
	Issuer   string    `json:"issuer,omitempty"` // empty while there is none
	Local    bool      `json:"local,omitempty"`  // signed by the house's own authority, when it is asked for
	NotAfter time.Time `json:"notAfter,omitzero"`
	Renewal  time.Time `json:"renewal,omitzero"`
	Error    string    `json:"error,omitempty"` // why the last attempt to get or renew it failed
}

// CacheCount is what the HTTP cache did since the door started, and what it holds.
type CacheCount struct {
	Hits        uint64 `json:"hits"`
	Stale       uint64 `json:"stale"`
	Misses      uint64 `json:"misses"`
	Revalidated uint64 `json:"revalidated"`
	Collapsed   uint64 `json:"collapsed"` // waited for another's request
	Uncacheable uint64 `json:"uncacheable"`
	Entries     int    `json:"entries"`
	Memory      int64  `json:"memory"` // bytes
	Disk        int64  `json:"disk"`   // bytes
}

// Purge asks the door to forget stored responses: a URL, all below one, or all of a tag.
type Purge struct {
	URL    string `json:"url,omitempty"`
	Prefix string `json:"prefix,omitempty"`
	Tag    string `json:"tag,omitempty"`
	Site   string `json:"site,omitempty"` // "app/env": whose Tag
}

// Question asks the door what it would do with a request.
type Question struct {
	Method string            `json:"method"`
	URL    string            `json:"url"`    // http or https, with the host
	Client string            `json:"client"` // host:port of who asks
	Header map[string]string `json:"header,omitempty"`
}

// Explanation answers a Question.
type Explanation struct {
	Answer string `json:"answer"` // who or what would answer
	Lines  []Line `json:"lines"`  // in the order in which a request meets them
}

// Line is one thing that a request would meet.
type Line struct {
	What string `json:"what"`
	Says string `json:"says"`
	Why  string `json:"why,omitempty"`
}

// Purged answers a Purge.
type Purged struct {
	Count int `json:"count"`
}

// Count is one endpoint's traffic since the door started.
type Count struct {
	InFlight int64  `json:"inFlight"`
	Requests uint64 `json:"requests"`
	Errors   uint64 `json:"errors"` // no answer, or 5xx
	// Class counts answers by status class, index 0 those that never came; Buckets the latencies of the
	// others up to the first byte, by Bounds, one more than these: the last is everything above.
	Class   [6]uint64 `json:"class"`
	Buckets []uint64  `json:"buckets,omitempty"`
	// Lapsed says that it has a lease no more.
	Lapsed bool `json:"lapsed,omitempty"`
}

// Add adds what another way to the same task counted.
func (c *Count) Add(o Count) {
	c.InFlight, c.Requests, c.Errors, c.Lapsed = c.InFlight+o.InFlight, c.Requests+o.Requests, c.Errors+o.Errors, c.Lapsed || o.Lapsed
	for i, n := range o.Class {
		c.Class[i] += n
	}
	if c.Buckets == nil {
		c.Buckets = make([]uint64, len(Bounds)+1)
	}
	for i, n := range o.Buckets {
		c.Buckets[i] += n
	}
}

// RouteCount is one route's traffic, with latency in a histogram whose bounds are Bounds.
type RouteCount struct {
	App     string        `json:"app"`
	Env     string        `json:"env"`
	Pattern string        `json:"pattern"`
	Class   [6]uint64     `json:"class"` // by status class; index 0: no answer
	Hits    uint64        `json:"hits"`  // answered from the HTTP cache
	Sum     time.Duration `json:"sum"`
	Buckets []uint64      `json:"buckets"` // one more than Bounds: the last is everything above
}

// Bounds are the upper limits of the latency buckets.
var Bounds = []time.Duration{
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}
