package data

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"tenfold"
	"tenfold/internal/awsapi"
	"tenfold/internal/unixhttp"
)

// Store holds the resources of one kind.
type Store interface {
	// Keep makes the resources of an account as they are to be, and leaves others as they are, for those that
	// made them; what it names cannot be deleted by a client. It is called again with the same. The errors are
	// by name.
	Keep(ctx context.Context, account string, wants []Want) map[string]error
	// Remove deletes one with all that is in it. One that is not there is no error.
	Remove(ctx context.Context, account, name string) error
	// Facts says how each resource of an account is now, by name.
	Facts(account string) map[string]Outcome
}

// Server is the process of the stores.
type Server struct {
	stores   map[tenfold.Kind]Store
	writable func() error
	log      *slog.Logger
	front    *awsapi.Front
	services map[string]awsapi.Service
	first    chan struct{} // closed with the first snapshot

	putting sync.Mutex // one Put at a time
	mu      sync.Mutex
	keys    map[string]awsapi.Key
	wants   map[string]Want // by ID
	failed  map[string]error
}

// NewServer joins the stores. writable says why nothing can be written.
func NewServer(stores map[tenfold.Kind]Store, services map[string]awsapi.Served, writable func() error, log *slog.Logger) *Server {
	s := &Server{stores: stores, writable: writable, log: log, services: map[string]awsapi.Service{}, first: make(chan struct{}), keys: map[string]awsapi.Key{}, wants: map[string]Want{}, failed: map[string]error{}}
	for name, x := range services {
		s.services[name] = x.Service
	}
	s.front = awsapi.NewFront(s.Key, services, log)
	return s
}

// Key finds an access key.
func (s *Server) Key(access string) (awsapi.Key, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.keys[access]
	return k, ok
}

// Owner finds the key of the owner of an account. It waits until it was told whom it knows.
func (s *Server) Owner(ctx context.Context, account string) (awsapi.Key, bool) {
	select {
	case <-s.first:
	case <-ctx.Done():
		return awsapi.Key{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys {
		if k.Account == account && k.Of == awsapi.Owner {
			return k, true
		}
	}
	return awsapi.Key{}, false
}

// Handler serves clients of AWS' protocols in JSON.
func (s *Server) Handler() http.Handler { return s.Gate(s.front) }

// Gate has clients wait until the process was told whom it knows.
func (s *Server) Gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.first:
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}

// Put has the stores as a snapshot says.
func (s *Server) Put(ctx context.Context, snap Snapshot) Report {
	s.putting.Lock()
	defer s.putting.Unlock()
	keys := map[string]awsapi.Key{}
	for _, k := range snap.Keys {
		keys[k.Access] = k
	}
	wants := map[string]Want{}
	type place struct {
		kind    tenfold.Kind
		account string
	}
	by := map[place][]Want{}
	for _, w := range snap.Wants {
		wants[w.ID.String()] = w
		by[place{w.ID.Kind, w.Account}] = append(by[place{w.ID.Kind, w.Account}], w)
	}
	s.mu.Lock()
	for _, w := range s.wants { // an account whose last resource left the manifest has to hear of it
		if p := (place{w.ID.Kind, w.Account}); by[p] == nil {
			by[p] = []Want{}
		}
	}
	s.mu.Unlock()
	failed := map[string]error{}
	for p, list := range by {
		store := s.stores[p.kind]
		if store == nil {
			continue
		}
		errs := store.Keep(ctx, p.account, list)
		for _, w := range list {
			if err := errs[w.Name]; err != nil {
				failed[w.ID.String()] = err
			}
		}
	}
	s.mu.Lock()
	s.keys, s.wants, s.failed = keys, wants, failed
	s.mu.Unlock()
	select {
	case <-s.first:
	default:
		close(s.first)
	}
	return s.Report()
}

// Report says how the stores are.
func (s *Server) Report() Report {
	s.mu.Lock()
	wants, failed := maps.Clone(s.wants), maps.Clone(s.failed)
	s.mu.Unlock()
	facts := map[string]map[string]Outcome{}
	rep := Report{Resources: map[string]Outcome{}}
	for id, w := range wants {
		at := string(w.ID.Kind) + w.Account
		if facts[at] == nil && s.stores[w.ID.Kind] != nil {
			facts[at] = s.stores[w.ID.Kind].Facts(w.Account)
		}
		o := facts[at][w.Name]
		o.Goal = w.Goal
		if err := failed[id]; err != nil {
			o.Failed = err.Error()
			var te *tenfold.Error
			if errors.As(err, &te) {
				o.Hint = te.Hint
			}
		}
		rep.Resources[id] = o
	}
	select {
	case <-s.first:
	default:
		rep.Untold = true
	}
	if err := s.writable(); err != nil {
		rep.Trouble = err.Error()
	}
	return rep
}

// Call is an operation of one of AWS' services, by the owner of an environment.
type Call struct {
	Account   string          `json:"account"`
	Service   string          `json:"service"` // as clients sign for it
	Operation string          `json:"operation"`
	Body      json.RawMessage `json:"body"`
}

// Called is what came of a Call. A refusal is no error of it.
type Called struct {
	Body    json.RawMessage `json:"body,omitempty"`
	Code    string          `json:"code,omitempty"`
	Message string          `json:"message,omitempty"`
}

func (s *Server) call(ctx context.Context, c Call) (Called, error) {
	svc := s.services[c.Service]
	if svc == nil {
		return Called{}, fmt.Errorf("no service %q; there are %s", c.Service, strings.Join(slices.Sorted(maps.Keys(s.services)), ", "))
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.Service+"/", bytes.NewReader(c.Body))
	if err != nil {
		return Called{}, err
	}
	b, err := svc.Serve(ctx, &awsapi.Request{Operation: c.Operation, Body: c.Body, HTTP: r, Caller: awsapi.Caller{Account: c.Account, Region: awsapi.Region, Of: awsapi.Owner, Uses: map[string][]string{c.Service: {awsapi.Every}, "s3": {awsapi.Every}}}})
	var f *awsapi.Fault
	if errors.As(err, &f) {
		return Called{Code: f.Code, Message: f.Message}, nil
	}
	return Called{Body: b}, err
}

// ControlHandler serves the daemon. It believes whoever asks.
func (s *Server) ControlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /snapshot", func(w http.ResponseWriter, r *http.Request) {
		var snap Snapshot
		if read(w, r, &snap) {
			reply(w, s.Put(r.Context(), snap))
		}
	})
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) { reply(w, s.Report()) })
	mux.HandleFunc("POST /remove", func(w http.ResponseWriter, r *http.Request) {
		var x Want
		if !read(w, r, &x) {
			return
		}
		store := s.stores[x.ID.Kind]
		if store == nil {
			http.Error(w, "no store of "+string(x.ID.Kind), http.StatusBadRequest)
			return
		}
		if err := store.Remove(r.Context(), x.Account, x.Name); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		reply(w, struct{}{})
	})
	mux.HandleFunc("POST /call", func(w http.ResponseWriter, r *http.Request) {
		var c Call
		if !read(w, r, &c) {
			return
		}
		out, err := s.call(r.Context(), c)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		reply(w, out)
	})
	return mux
}

func read(w http.ResponseWriter, r *http.Request, v any) bool {
	err := json.NewDecoder(r.Body).Decode(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return err == nil
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// Remote is a Server in another process, as the daemon sees it.
type Remote struct{ client *http.Client }

// NewRemote is for the Server whose ControlHandler is served on a unix socket. It connects when it is asked.
func NewRemote(socket string) *Remote { return &Remote{unixhttp.Once(socket)} }

// Put hands down a snapshot.
func (r *Remote) Put(ctx context.Context, s Snapshot) (rep Report, err error) {
	return rep, r.ask(ctx, http.MethodPut, "/snapshot", s, &rep)
}

// Report asks how the stores are.
func (r *Remote) Report(ctx context.Context) (rep Report, err error) {
	return rep, r.ask(ctx, http.MethodGet, "/report", nil, &rep)
}

// Remove deletes a resource.
func (r *Remote) Remove(ctx context.Context, w Want) error {
	return r.ask(ctx, http.MethodPost, "/remove", w, &struct{}{})
}

// Call asks for an operation. While there is no process it waits for one.
func (r *Remote) Call(ctx context.Context, c Call) (out Called, err error) {
	return out, unixhttp.AskPatiently(ctx, r.client, whom, http.MethodPost, "/call", c, &out)
}

// whom is what a Remote asks, for errors.
const whom = "the stores' process"

func (r *Remote) ask(ctx context.Context, method, path string, question, answer any) error {
	return unixhttp.Ask(ctx, r.client, whom, method, path, question, answer)
}
