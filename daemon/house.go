package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/container"
	"tenfold/internal/gitserver"
	"tenfold/internal/keeper"
	"tenfold/internal/ledger"
	"tenfold/internal/secret"
	"tenfold/internal/store"
	"tenfold/tier/cache"
	"tenfold/tier/compute"
	"tenfold/tier/data"
	"tenfold/tier/edge"
	"tenfold/tier/frontend"
	"tenfold/tier/function"
	"tenfold/tier/postgres"
	"tenfold/tier/series"
)

// house is the daemon's side of a data directory: what the tiers are joined by. It implements
// control.API.
type house struct {
	version  string
	started  time.Time
	layout   Layout
	settings Settings
	log      *slog.Logger
	store    *store.Store
	key      *secret.Key
	access   []byte // what keys of services are derived from
	keeper   *keeper.Client
	hub      *hub
	listen   string // the front door's address as bound
	door     string // the name of the door that serves
	oldDoors *oldDoors

	postgres *postgres.Postgres
	cache    *cache.Cache
	compute  *compute.Compute
	frontend *frontend.Frontend
	edge     *edge.Edge
	function *function.Tier
	invokers *invokers
	data     *data.Tier
	stores   *stores
	files    *data.Tier // buckets
	series   *series.Tier
	pools    *pools

	filesProcess *stores
	tiers        []tenfold.Tier // in floor order
	containers   *container.Driver
	owners       sync.Map // tenfold.ID -> tenfold.Tier

	git         *gitserver.Server
	ssh         atomic.Value               // the address of git over SSH as bound, a string
	connections *ledger.Ledger[connection] // by app
	previews    *ledger.Ledger[preview]
	jobs        *ledger.Ledger[gitJob]
	jobsWake    chan struct{} // holds one
	receivers   sync.Map      // tenfold.AppName -> *webhook.Receiver

	settled    *time.Timer   // gives back what only the start needed, and each deploy
	wakeup     chan struct{} // of the loop; holds one
	previewing sync.Map      // a lock for each preview (lockPreview)
	deploying  sync.Mutex    // one revision is made at a time
	deciding   sync.RWMutex  // held while a revision's state is stored with the event that tells of it

	mu sync.Mutex
	// Under mu: decoded documents, and counts of requests for rates.
	apps    map[appKey]tenfold.App
	samples map[control.Env][]sample
}

type appKey struct {
	app, env string
	revision int64
}

func (h *house) wake() {
	select {
	case h.wakeup <- struct{}{}:
	default:
	}
}

// app decodes the document of a revision; revisions never change, so it is kept.
func (h *house) app(ctx context.Context, name, env string, revision int64) (tenfold.App, error) {
	k := appKey{name, env, revision}
	h.mu.Lock()
	a, ok := h.apps[k]
	h.mu.Unlock()
	if ok {
		return a, nil
	}
	rev, err := h.store.Revision(ctx, name, env, revision)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(rev.Document, &a); err != nil {
		return a, fmt.Errorf("read deployment %d of %s/%s: %w", revision, name, env, err)
	}
	h.mu.Lock()
	if len(h.apps) > 100 {
		clear(h.apps)
	}
	h.apps[k] = a
	h.mu.Unlock()
	return a, nil
}

// resolve looks up what a binding stands for: a tier's field or a secret's value.
func (h *house) resolve(ctx context.Context, b tenfold.Binding) (string, error) {
	switch b.From.Kind {
	case tenfold.KindSecret:
		s, err := h.store.Secret(ctx, string(b.From.App), string(b.From.Name), b.Version)
		if errors.Is(err, store.ErrNotFound) {
			return "", tenfold.Errorf(tenfold.CodeInvalid, "secret %s has no value", b.From.Name).WithHint("tenfold secrets set %s --app %s", b.From.Name, b.From.App)
		}
		if err != nil {
			return "", err
		}
		return h.key.Open(s.Sealed)
	case tenfold.KindDatabase:
		if err := h.pools.opened(ctx, b.From); err != nil {
			return "", err
		}
		return h.databaseField(ctx, b.From, b.Field)
	case tenfold.KindIdentity:
		return h.identityField(ctx, b.From, b.Field)
	case tenfold.KindCache:
		return h.cache.FieldFor(ctx, b.From, b.Field, b.By)
	case tenfold.KindFunction:
		return h.function.Field(b.From, b.Field)
	case tenfold.KindQueue, tenfold.KindTable, tenfold.KindBus:
		return h.data.Field(b.From, b.Field)
	case tenfold.KindBucket:
		return h.files.Field(b.From, b.Field)
	case tenfold.KindSeries:
		return h.seriesField(ctx, b)
	case tenfold.KindService:
		return h.edge.ServiceURL(ctx, b.From)
	}
	return "", fmt.Errorf("resolve %s: a %s has no %s", b.Var, b.From.Kind, b.Field)
}

// urls are where an app is reached, the best first.
func (h *house) urls(app tenfold.App) []string {
	_, port, err := net.SplitHostPort(h.listen)
	if err != nil {
		return nil
	}
	suffix := ":" + port
	if port == "80" {
		suffix = ""
	}
	var out []string
	scheme, at := "http://", suffix
	if _, secure, err := net.SplitHostPort(h.settings.TLS); err == nil {
		if scheme, at = "https://", ":"+secure; secure == "443" {
			at = ""
		}
	}
	for _, d := range app.Domains {
		out = append(out, scheme+d+at)
	}
	return append(out, scheme+edge.Host(app.Name, app.Env)+at)
}

// url is what a process of the app is told as APP_URL.
func (h *house) url(app tenfold.AppName, env tenfold.Environment) string {
	a := tenfold.App{Name: app, Env: env}
	if u := h.urls(a); len(u) > 0 {
		return u[0]
	}
	return ""
}
