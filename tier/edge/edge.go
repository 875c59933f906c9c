// Package edge is the front door: it routes each request by host and path to a frontend's release or
// a service's task, and never fails one because something behind it is being replaced.
//
// It has two halves. Edge, in the daemon, is the tier: it keeps what should be routed and hands
// snapshots down. Door, a process of its own, serves by the last snapshot (door.go; the life of a
// request in serve.go, of one for a frontend in find.go); it goes on without the daemon. Begin at Edge
// and at Door.ServeHTTP.
package edge

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/atomicfile"
	"tenfold/internal/directory"
	"tenfold/internal/freeport"
	"tenfold/internal/ledger"
	"tenfold/internal/unixhttp"
)

// Config is what an Edge needs.
type Config struct {
	Dir     string // shared with the door
	Control string // the door's unix socket
	// Leaving gives the sockets of doors before it that have connections yet, such as WebSockets; nil: there are none.
	Leaving func() []string
	// SiteDir is where a frontend's releases lie.
	SiteDir func(tenfold.ID) string
	// Resolve gives the secrets that rules name. The door gets hashes of passwords, and public keys.
	Resolve tenfold.Resolve
	// Password gives the hash that a whole environment is kept by; "": none. Nil: nowhere.
	Password func(tenfold.AppName, tenfold.Environment) string
	// Pass gives what the door shows a function's process, to be believed. Nil: no app has functions.
	Pass func(function tenfold.ID) string
	Emit tenfold.Emit
	// Console is the unix socket of the console, ConsoleHosts the names that lead there.
	Console      string
	ConsoleHosts []string
}

// Edge is the tier of the front door.
type Edge struct {
	cfg       Config
	records   *ledger.Ledger[record]
	endpoints *ledger.Ledger[published] // by service
	pursuit   ledger.Pursuit
	client    *http.Client
	last      lately

	turn    chan struct{} // holds one: a snapshot is made and handed down by one at a time
	version uint64        // of the last snapshot; owned by the holder of turn
	contact string        // of the last snapshot; owned by the holder of turn
	// credentials of DNS providers that the last snapshot had; owned by the holder of turn.
	credentials map[tenfold.Binding]string

	mu         sync.Mutex
	candidates map[tenfold.ID]directory.Candidate // by frontend; forgotten with the daemon, as their tests are
}

var _ tenfold.Tier = (*Edge)(nil)

type spec struct {
	Hosts     []string                    `json:"hosts"`
	Redirect  map[string]string           `json:"redirect,omitempty"`
	Routes    []directory.Route           `json:"routes"`
	Rules     []directory.Rule            `json:"rules,omitempty"`
	Frontends map[string]string           `json:"frontends,omitempty"` // name -> fallback
	Servers   []string                    `json:"servers,omitempty"`   // frontends with a service of the same name
	Services  map[string]limits           `json:"services,omitempty"`
	Log       *directory.Logging          `json:"log,omitempty"`
	Images    map[string]directory.Images `json:"images,omitempty"` // of frontends that say something of them
	// Pins are the routes of calls that reach the deployment that made the page, by frontend.
	Pins map[string][]string `json:"pins,omitempty"`
	// Auth are the secrets of rules, by pattern: what Rules say of it is filled in when they are resolved.
	Auth map[string]tenfold.Auth `json:"auth,omitempty"`
	// What concerns the site, or with others the house.
	HSTS   time.Duration  `json:"hsts,omitempty"`
	Errors map[int]string `json:"errors,omitempty"`
	Geo    string         `json:"geo,omitempty"`
	Trust  []string       `json:"trust,omitempty"`
	Memory int64          `json:"memory,omitempty"`
	Disk   int64          `json:"disk,omitempty"`
	// DNS names a secret, which snapshots alone have the value of.
	DNS     *tenfold.DNS `json:"dns,omitempty"`
	Contact string       `json:"contact,omitempty"`
}

// limits are how a service is used.
type limits struct {
	Request time.Duration `json:"request,omitempty"`
	Idle    time.Duration `json:"idle,omitempty"`
	Sticky  time.Duration `json:"sticky,omitempty"`
	Hold    time.Duration `json:"hold,omitempty"`
}

type record struct {
	ID    tenfold.ID   `json:"id"`
	Spec  spec         `json:"spec"`
	Needs []tenfold.ID `json:"needs,omitempty"`
	Goal  string       `json:"goal"`
	// Live is what snapshots say of the site: Spec, once it is known that no other site has its hosts.
	Live    *spec     `json:"live,omitempty"`
	Serving string    `json:"serving,omitempty"`
	Failed  string    `json:"failed,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Hint    string    `json:"hint,omitempty"`
	Default bool      `json:"default,omitempty"`
	Begun   time.Time `json:"begun,omitzero"`
}

// published is what compute said of a service.
type published struct {
	ID        tenfold.ID           `json:"id"`
	Endpoints []directory.Endpoint `json:"endpoints,omitempty"`
	Down      string               `json:"down,omitempty"`
	Private   string               `json:"private,omitempty"`
}

// New reads the records and the last snapshot's version; it opens nothing.
func New(cfg Config) (*Edge, error) {
	recs, err := ledger.Open[record](filepath.Join(cfg.Dir, "goals"))
	if err != nil {
		return nil, err
	}
	eps, err := ledger.Open[published](filepath.Join(cfg.Dir, "endpoints"))
	if err != nil {
		return nil, err
	}
	var last directory.Snapshot
	if err := atomicfile.ReadJSON(filepath.Join(cfg.Dir, snapshotFile), &last); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	e := &Edge{cfg: cfg, records: recs, endpoints: eps, version: last.Version, contact: last.Contact, turn: make(chan struct{}, 1)}
	e.client = &http.Client{Transport: unixhttp.Transport(cfg.Control)}
	e.pursuit = ledger.Pursuit{Keys: recs.Keys, Work: e.pursue, Pace: 10 * time.Second}
	return e, nil
}

func (e *Edge) Name() string { return "edge" }

func (e *Edge) Run(ctx context.Context, ready func()) error {
	defer e.client.CloseIdleConnections()
	// The door may have been started anew: hand it what is known.
	first, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := e.push(first); err != nil && ctx.Err() == nil {
		return fmt.Errorf("reach the door: %w", err)
	}
	return e.pursuit.Run(ctx, ready)
}

// Host is the name of an app's environment, beside those of the user's own domain. Of one among many,
// "preview/fix-cart", what follows the slash is enough.
func Host(app tenfold.AppName, env tenfold.Environment) string {
	h := string(app) + ".localhost"
	if env == "production" {
		return h
	}
	if _, one, ok := strings.Cut(string(env), "/"); ok {
		env = tenfold.Environment(one)
	}
	return strings.ReplaceAll(string(env), "/", "-") + "." + h
}

func (e *Edge) Desired(app tenfold.App, _ tenfold.Scale) ([]tenfold.Resource, error) {
	s := spec{Hosts: []string{Host(app.Name, app.Env)}, Frontends: map[string]string{}, Services: map[string]limits{}}
	for i, d := range app.Domains {
		if i == 0 {
			s.Hosts = append(s.Hosts, strings.ToLower(d))
			continue
		}
		if s.Redirect == nil {
			s.Redirect = map[string]string{}
		}
		s.Redirect[strings.ToLower(d)] = strings.ToLower(app.Domains[0])
	}
	var needs []tenfold.ID
	for _, name := range slices.Sorted(maps.Keys(app.Services)) {
		v := app.Services[name]
		s.Services[string(name)] = limits{v.Timeout.Request, v.Timeout.Idle, v.Sticky, holdOf(v)}
		if len(v.Routes) > 0 {
			needs = append(needs, app.ID(tenfold.KindService, name))
		}
		for _, r := range v.Routes {
			s.Routes = append(s.Routes, directory.Route{Pattern: string(r), Service: string(name)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(app.Functions)) {
		v := app.Functions[name]
		if len(v.Routes) == 0 {
			continue
		}
		s.Services[string(name)] = limits{Request: v.Timeout + functionSlack}
		needs = append(needs, app.ID(tenfold.KindFunction, name))
		for _, r := range v.Routes {
			s.Routes = append(s.Routes, directory.Route{Pattern: string(r), Service: string(name)})
		}
	}
	rules := maps.Clone(app.Rules)
	for _, name := range slices.Sorted(maps.Keys(app.Buckets)) {
		v := app.Buckets[name]
		if len(v.Routes) == 0 {
			continue
		}
		s.Services[string(name)] = limits{Request: bucketRequest}
		needs = append(needs, app.ID(tenfold.KindBucket, name))
		for _, r := range v.Routes {
			s.Routes = append(s.Routes, directory.Route{Pattern: string(r), Service: string(name)})
			if rules == nil {
				rules = map[tenfold.Route]tenfold.Rule{}
			}
			rules[r] = uploading(rules[r], v.Body)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(app.Frontends)) {
		v := app.Frontends[name]
		s.Frontends[string(name)] = v.Fallback
		if v.Server != nil {
			s.Servers = append(s.Servers, string(name))
			s.Services[string(name)] = limits{v.Server.Timeout.Request, v.Server.Timeout.Idle, v.Server.Sticky, holdOf(*v.Server)}
		}
		if v.Pin != nil {
			if s.Pins == nil {
				s.Pins = map[string][]string{}
			}
			for _, r := range v.Pin.Routes {
				s.Pins[string(name)] = append(s.Pins[string(name)], string(r))
			}
		}
		if v.Images != nil {
			if s.Images == nil {
				s.Images = map[string]directory.Images{}
			}
			s.Images[string(name)] = directory.Images(*v.Images)
		}
		needs = append(needs, app.ID(tenfold.KindFrontend, name))
		for _, r := range v.Routes {
			s.Routes = append(s.Routes, directory.Route{Pattern: string(r), Frontend: string(name)})
		}
	}
	if l := app.Log; l != (tenfold.AccessLog{}) {
		s.Log = &directory.Logging{Off: l.Off, Keep: l.Keep, Sample: cmp.Or(l.Sample, 1), Personal: l.Personal}
	}
	for _, route := range slices.Sorted(maps.Keys(rules)) {
		v := rules[route]
		r := directory.Rule{
			Pattern: string(route), Headers: v.Headers, Rewrite: v.Rewrite, Request: v.Request, CORS: v.CORS,
			Timeout: v.Timeout, Hedge: v.Hedge, Line: v.Line,
		}
		if v.Maintenance != nil {
			r.Maintenance = v.Maintenance.Body
		}
		if v.Auth != nil {
			r.Auth = &directory.Auth{Off: v.Auth.Off, Allow: v.Auth.Allow, Deny: v.Auth.Deny}
			if len(v.Auth.Secrets()) > 0 {
				if s.Auth == nil {
					s.Auth = map[string]tenfold.Auth{}
				}
				s.Auth[string(route)] = *v.Auth
			}
		}
		if v.Redirect != nil {
			r.RedirectTo, r.Status = v.Redirect.To, v.Redirect.Status
		}
		if v.Cache != nil {
			c := directory.Caching(*v.Cache)
			r.Cache = &c
		}
		if v.Limit != nil {
			l := directory.Limiting(*v.Limit)
			r.Limit = &l
		}
		s.Rules = append(s.Rules, r)
	}
	d := app.Door
	s.HSTS, s.Trust, s.Memory, s.Disk = d.HSTS, d.Trust, d.Memory, d.Disk
	s.DNS, s.Contact = d.DNS, app.Contact
	if d.Geo != nil {
		s.Geo = d.Geo.Copy
	}
	for status, p := range d.Errors {
		if s.Errors == nil {
			s.Errors = map[int]string{}
		}
		s.Errors[status] = p.Body
	}
	f, err := tenfold.FingerprintOf(s, needs)
	if err != nil {
		return nil, err
	}
	return []tenfold.Resource{{ID: app.ID(tenfold.KindEdge, "edge"), Spec: s, Fingerprint: f, Needs: needs}}, nil
}

func (e *Edge) Apply(ctx context.Context, s tenfold.Step) error {
	key := s.Want.ID.String()
	defer e.pursuit.Wake()
	if s.Verb == tenfold.VerbStop || s.Verb == tenfold.VerbRemove {
		if err := e.records.Delete(key); err != nil {
			return err
		}
		return e.push(ctx)
	}
	want, ok := s.Want.Spec.(spec)
	if !ok {
		return fmt.Errorf("apply %s: its spec is a %T", s.Want.ID.Short(), s.Want.Spec)
	}
	return e.records.Update(key, func(r *record) {
		r.ID, r.Spec, r.Needs, r.Goal, r.Failed, r.Reason, r.Hint, r.Begun = s.Want.ID, want, s.Want.Needs, s.Want.Fingerprint, "", "", "", time.Now()
	})
}

func (e *Edge) Observe(context.Context) ([]tenfold.Resource, error) {
	var out []tenfold.Resource
	for _, r := range e.records.All() {
		o := tenfold.Resource{ID: r.ID, Needs: r.Needs, Goal: r.Goal, Serving: r.Serving, Failed: r.Failed, Reason: r.Reason, Hint: r.Hint, State: tenfold.StatePending}
		switch {
		case r.Serving == r.Goal:
			o.State = tenfold.StateReady
		case r.Failed == r.Goal:
			o.State = tenfold.StateFailed
			if r.Serving != "" {
				o.State = tenfold.StateReady
			}
		}
		out = append(out, o)
	}
	return out, nil
}

// pursue switches traffic to what a record says.
func (e *Edge) pursue(ctx context.Context, key string) time.Duration {
	r, ok := e.records.Get(key)
	if !ok || r.Serving == r.Goal || r.Failed == r.Goal {
		return time.Minute
	}
	if host, other := e.claimed(key, r); other != "" {
		e.records.Change(key, func(x *record) {
			x.Failed, x.Reason = r.Goal, fmt.Sprintf("host %s belongs to %s", host, other)
			x.Hint = "give this app another domain or name (tenfold.yaml), or end the one that has it: tenfold down"
		})
		return time.Minute
	}
	live, err := e.reveal(ctx, r.Spec)
	if err != nil {
		e.records.Change(key, func(x *record) { x.Failed, x.Reason, x.Hint = r.Goal, err.Error(), tenfold.HintOf(err) })
		return time.Minute
	}
	first, byDefault := r.Serving == "", r.Default || !e.hasDefault(key)
	if err := e.records.Change(key, func(x *record) {
		if x.Goal == r.Goal {
			x.Live, x.Default = &live, byDefault
		}
	}); err != nil {
		return time.Second
	}
	begun := time.Now()
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := e.push(limited); err != nil {
		return time.Second
	}
	if err := e.records.Change(key, func(x *record) { x.Serving = r.Goal }); err != nil {
		return time.Second
	}
	text := "traffic switched to the new routes"
	if first {
		text = "traffic switched on for " + strings.Join(r.Spec.Hosts, ", ")
	}
	e.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: text, Took: time.Since(begun)})
	return time.Minute
}

// claimed finds a host of r that another site or the console has.
func (e *Edge) claimed(key string, r record) (host, by string) {
	mine := slices.Concat(r.Spec.Hosts, slices.Sorted(maps.Keys(r.Spec.Redirect)))
	for _, h := range mine {
		if slices.Contains(e.cfg.ConsoleHosts, h) {
			return h, "the console"
		}
		for k, o := range e.records.All() {
			if k == key || o.Live == nil {
				continue
			}
			if _, redirects := o.Live.Redirect[h]; redirects || slices.Contains(o.Live.Hosts, h) {
				return h, fmt.Sprintf("app %s (%s)", o.ID.App, o.ID.Env)
			}
		}
	}
	return "", ""
}

func (e *Edge) hasDefault(except string) bool {
	for k, o := range e.records.All() {
		if k != except && o.Default {
			return true
		}
	}
	return false
}

// Publish sets the tasks of a service and returns when the door routes by them. down says why there
// are none.
func (e *Edge) Publish(ctx context.Context, service tenfold.ID, endpoints []directory.Endpoint, down string) error {
	key := service.String()
	old, _ := e.endpoints.Get(key)
	if slices.Equal(old.Endpoints, endpoints) && old.Down == down && old.ID == service {
		return e.push(ctx) // the door may not have it: only its answer tells
	}
	change := func(p *published) { p.ID, p.Endpoints, p.Down = service, endpoints, down }
	if old.ID == (tenfold.ID{}) {
		if err := e.endpoints.Update(key, change); err != nil {
			return err
		}
		return e.push(ctx)
	}
	// Requests may wait for it, and the disk takes longer than all the rest.
	e.endpoints.Soon(key, change)
	err := e.push(ctx)
	e.endpoints.Flush()
	return err
}

// Withdraw forgets a service that was removed.
func (e *Edge) Withdraw(ctx context.Context, service tenfold.ID) error {
	if err := e.endpoints.Delete(service.String()); err != nil {
		return err
	}
	return e.push(ctx)
}

// ServiceURL is the private address of a service, for others of its app.
func (e *Edge) ServiceURL(ctx context.Context, service tenfold.ID) (string, error) {
	p, _ := e.endpoints.Get(service.String())
	if p.Private == "" {
		port, err := freeport.Pick()
		if err != nil {
			return "", err
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if err := e.endpoints.Update(service.String(), func(p *published) { p.ID, p.Private = service, addr }); err != nil {
			return "", err
		}
		if err := e.push(ctx); err != nil {
			return "", err
		}
		p.Private = addr
	}
	return "http://" + p.Private, nil
}

// snapshot puts together what the door should know. The caller holds e.turn.
func (e *Edge) snapshot(ctx context.Context) directory.Snapshot {
	s := directory.Snapshot{Version: e.version, Console: e.cfg.Console, ConsoleHosts: e.cfg.ConsoleHosts, Sites: []directory.Site{}}
	sites := map[[2]string]*directory.Site{}
	get := func(id tenfold.ID) *directory.Site {
		k := [2]string{string(id.App), string(id.Env)}
		if sites[k] == nil {
			sites[k] = &directory.Site{App: k[0], Env: k[1], Frontends: map[string]directory.Frontend{}}
		}
		return sites[k]
	}
	bounds := map[tenfold.ID]limits{}
	trust := map[string]bool{}
	contacts := map[tenfold.ID]string{}
	credentials := map[tenfold.Binding]string{}
	for _, r := range e.records.All() {
		x := get(r.ID)
		if r.Live == nil {
			continue
		}
		e.fill(x, r.ID, *r.Live)
		x.Default = r.Default
		if e.cfg.Password != nil {
			x.Password = e.cfg.Password(r.ID.App, r.ID.Env)
		}
		for _, t := range r.Live.Trust {
			trust[t] = true
		}
		if x.DNS = e.dns(ctx, r.Live.DNS); x.DNS != nil && x.DNS.Credentials != "" {
			credentials[r.Live.DNS.Secret] = x.DNS.Credentials
		}
		if r.Live.Contact != "" {
			contacts[r.ID] = r.Live.Contact
		}
		s.Memory, s.Disk = max(s.Memory, r.Live.Memory), max(s.Disk, r.Live.Disk)
		for name, limit := range r.Live.Services {
			bounds[tenfold.ID{App: r.ID.App, Env: r.ID.Env, Name: tenfold.Name(name)}] = limit
		}
	}
	for _, key := range e.endpoints.Keys() {
		p, _ := e.endpoints.Get(key)
		x := get(p.ID)
		b := bounds[tenfold.ID{App: p.ID.App, Env: p.ID.Env, Name: p.ID.Name}]
		sv := directory.Service{Name: string(p.ID.Name), Endpoints: p.Endpoints, Down: p.Down, Private: p.Private, Request: b.Request, Idle: b.Idle, Sticky: b.Sticky, Hold: b.Hold}
		if p.ID.Kind == tenfold.KindBucket {
			sv.Bucket = p.ID.String()
		}
		if p.ID.Kind == tenfold.KindFunction && e.cfg.Pass != nil {
			sv.Function, sv.Pass = p.ID.String(), e.cfg.Pass(p.ID)
		}
		x.Services = append(x.Services, sv)
	}
	s.Trust = slices.Sorted(maps.Keys(trust))
	e.contact, e.credentials = contactOf(e.contact, contacts), credentials
	s.Contact = e.contact
	s.Candidates = e.tried()
	for _, k := range slices.SortedFunc(maps.Keys(sites), func(a, b [2]string) int { return strings.Compare(a[0]+"/"+a[1], b[0]+"/"+b[1]) }) {
		s.Sites = append(s.Sites, *sites[k])
	}
	return s
}

// fill says of a site what its spec does.
func (e *Edge) fill(x *directory.Site, id tenfold.ID, s spec) {
	x.Hosts, x.Redirect, x.Routes, x.Rules, x.Log = s.Hosts, s.Redirect, s.Routes, s.Rules, s.Log
	x.HSTS, x.Errors, x.Geo = s.HSTS, s.Errors, s.Geo
	for name, fallback := range s.Frontends {
		id := tenfold.ID{App: id.App, Env: id.Env, Kind: tenfold.KindFrontend, Name: tenfold.Name(name)}
		f := directory.Frontend{Dir: e.cfg.SiteDir(id), Fallback: fallback, Images: s.Images[name], Pin: s.Pins[name]}
		if slices.Contains(s.Servers, name) {
			f.Server = name
		}
		x.Frontends[name] = f
	}
}

// push makes a snapshot and hands it to the door, again and again until the door acknowledges it, and has stored it,
// or ctx ends: a door that died is back within milliseconds, and begins by what is stored for it meanwhile.
func (e *Edge) push(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return fmt.Errorf("hand down snapshot: %w", ctx.Err())
	}
	if err := os.MkdirAll(e.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("hand down snapshot: %w", err)
	}
	e.version++
	for {
		s := e.snapshot(ctx)
		err := e.put(ctx, s)
		if err == nil {
			return nil
		}
		if errors.Is(err, errOlder) { // our file was lost: the door knows how far we were
			if r, rerr := e.Report(ctx, false); rerr == nil && r.Version >= e.version {
				e.version = r.Version + 1
				continue
			}
		} else {
			err = errors.Join(err, atomicfile.WriteJSON(filepath.Join(e.cfg.Dir, snapshotFile), s, 0o600))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("hand down snapshot %d: %w", s.Version, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// errOlder says that the door has a newer snapshot.
var errOlder = errors.New("the door has a newer snapshot")

func (e *Edge) put(ctx context.Context, s directory.Snapshot) error {
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://door/directory", bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusConflict {
		return errOlder
	}
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return fmt.Errorf("door answers %s: %s", res.Status, bytes.TrimSpace(b))
	}
	return nil
}

// Purge has the door forget stored responses and returns how many there were. When it returns, none of
// them is served any more.
func (e *Edge) Purge(ctx context.Context, p directory.Purge) (int, error) {
	var out directory.Purged
	err := e.ask(ctx, "/purge", p, &out)
	return out.Count, err
}

// ask puts a question to the door.
func (e *Edge) ask(ctx context.Context, path string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://door"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the door: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return fmt.Errorf("ask the door: it answers %s: %s", res.Status, bytes.TrimSpace(b))
	}
	if err := json.NewDecoder(res.Body).Decode(answer); err != nil {
		return fmt.Errorf("ask the door: %w", err)
	}
	return nil
}

// Report asks the door for its traffic.
func (e *Edge) Report(ctx context.Context, routes bool) (directory.Report, error) {
	return reportOf(ctx, e.client, routes)
}

// reportOf asks one door.
func reportOf(ctx context.Context, door *http.Client, routes bool) (r directory.Report, err error) {
	err = unixhttp.Ask(ctx, door, "the door", http.MethodGet, fmt.Sprintf("/report?routes=%t", routes), nil, &r)
	return r, err
}

// holdOf is how long requests wait for a service that has no task. One that may sleep gets as long as its
// tasks get for their first good answer.
func holdOf(w tenfold.Workload) time.Duration {
	if !w.Sleeps() {
		return 0
	}
	return max(w.Health.Grace, 5*time.Second)
}

// Waiting says for which services, by "app/env/name", requests wait that have no task, and the number by
// which to ask again; asked with that, it answers when somebody else begins to wait, or after half a minute.
func (e *Edge) Waiting(ctx context.Context, after uint64) (directory.Waiting, error) {
	var out directory.Waiting
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://door/waiting?after=%d", after), nil)
	if err != nil {
		return out, err
	}
	res, err := e.client.Do(req)
	if err != nil {
		return out, fmt.Errorf("ask the door who waits: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return out, fmt.Errorf("ask the door who waits: it answers %s", res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return out, fmt.Errorf("ask the door who waits: %w", err)
	}
	return out, nil
}

// freshFor is how old a report may be that says how services are used: every service asks once a second, and the door
// writes down all of them each time.
const freshFor = 50 * time.Millisecond

// lately is a report that is fresh enough.
type lately struct {
	mu     sync.Mutex // held while the door is asked: who asks meanwhile gets that answer
	at     time.Time
	report directory.Report
	err    error
}

func (e *Edge) lately(ctx context.Context) (directory.Report, error) {
	e.last.mu.Lock()
	defer e.last.mu.Unlock()
	if time.Since(e.last.at) > freshFor {
		e.last.report, e.last.err = e.Report(ctx, false)
		if e.last.err == nil {
			e.withLeaving(ctx, &e.last.report)
		}
		e.last.at = time.Now()
	}
	return e.last.report, e.last.err
}

// leaving are the reports of the doors before this one that have connections yet.
func (e *Edge) leaving(ctx context.Context) (out []directory.Report) {
	if e.cfg.Leaving == nil {
		return nil
	}
	for _, socket := range e.cfg.Leaving() {
		if r, err := reportOf(ctx, unixhttp.Once(socket), false); err == nil { // else it is gone, with what it had
			out = append(out, r)
		}
	}
	return out
}

// withLeaving adds what is at tasks, or waits for one, by the doors before this one: a service that only a WebSocket of
// theirs uses is used. What they counted up is not added: it would be missing from the sum as soon as they end.
func (e *Edge) withLeaving(ctx context.Context, r *directory.Report) {
	for _, door := range e.leaving(ctx) {
		for name, old := range door.Services {
			if r.Services == nil {
				r.Services = map[string]directory.Load{}
			}
			now := r.Services[name]
			now.Add(directory.Load{InFlight: old.InFlight, Waiting: old.Waiting})
			r.Services[name] = now
		}
	}
}

// Load is how a service is used, by connections of doors before this one too.
func (e *Edge) Load(ctx context.Context, service tenfold.ID) (directory.Load, error) {
	r, err := e.lately(ctx)
	return r.Services[string(service.App)+"/"+string(service.Env)+"/"+string(service.Name)], err
}

// Counts renews a lease of tasks, if it names any, and gives the traffic of all tasks by their names.
func (e *Edge) Counts(ctx context.Context, l directory.Lease) (map[string]directory.Count, error) {
	if len(l.Tasks) == 0 {
		r, err := e.Report(ctx, false)
		return r.Endpoints, err
	}
	var r directory.Report
	err := e.ask(ctx, "/lease", l, &r)
	return r.Endpoints, err
}

// InFlight is how many requests a task is answering, as the door counts, and the doors before it that have
// connections yet. A task that they do not know has none.
func (e *Edge) InFlight(ctx context.Context, task string) (int, error) {
	r, err := e.Report(ctx, false)
	n := int(r.Endpoints[task].InFlight)
	if err != nil {
		return n, err
	}
	for _, old := range e.leaving(ctx) {
		n += int(old.Endpoints[task].InFlight)
	}
	return n, nil
}
