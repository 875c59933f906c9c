package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/directory"
)

// certificatePace is how often the door is asked how its certificates stand.
const certificatePace = 15 * time.Second

// certificates raises an event when a certificate cannot be got or renewed, and when it can again.
type certificates struct{ h *house }

func (certificates) Name() string { return "certificates" }

func (c certificates) Run(ctx context.Context, ready func()) error {
	ready()
	if c.h.settings.TLS == "" {
		<-ctx.Done() // there are none
		return nil
	}
	tick := time.NewTicker(certificatePace)
	defer tick.Stop()
	known := map[string]directory.Fault{}
	for {
		if r, err := c.h.edge.Report(ctx, true); err == nil {
			c.compare(known, r.Faults)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// compare tells what is new and what is mended, and notes it in known.
func (c certificates) compare(known map[string]directory.Fault, now []directory.Fault) {
	still := map[string]bool{}
	for _, f := range now {
		still[f.Host] = true
		if old, ok := known[f.Host]; ok && old.Title == f.Title && old.Cause == f.Cause {
			continue
		}
		known[f.Host] = f
		e := tenfold.Event{ID: c.h.hostOwner(f.Host), Severity: tenfold.SeverityWarning, Text: f.Title, Detail: f.Cause, Hint: f.Hint}
		if f.Severe {
			e.Severity = tenfold.SeverityError
		}
		c.h.hub.emit(e)
	}
	for host := range known {
		if !still[host] {
			delete(known, host)
			c.h.hub.emit(tenfold.Event{ID: c.h.hostOwner(host), Severity: tenfold.SeverityInfo, Text: "the certificate of " + host + " is in order again"})
		}
	}
}

// hostOwner is whose event one of a host is: of the app that has it, else of the house.
func (h *house) hostOwner(host string) tenfold.ID {
	envs, err := h.store.Environments(context.Background())
	if err != nil {
		return tenfold.ID{}
	}
	for _, e := range envs {
		if e.Goal == 0 {
			continue
		}
		app, err := h.app(context.Background(), e.App, e.Env, e.Goal)
		if err != nil {
			continue
		}
		for _, name := range h.hostsOf(app) {
			if covers(host, name) {
				return app.ID(tenfold.KindEdge, "edge")
			}
		}
	}
	return tenfold.ID{}
}

// covers says whether a certificate for host is name's: of that name, or of the wildcard above it.
func covers(host, name string) bool {
	_, below, _ := strings.Cut(name, ".")
	return host == name || host == "*."+below
}

// hostsOf are the names of an app that have certificates.
func (h *house) hostsOf(app tenfold.App) []string {
	var out []string
	for _, u := range h.urls(app) {
		_, rest, _ := strings.Cut(u, "://")
		name, _, _ := strings.Cut(rest, ":")
		out = append(out, strings.TrimSuffix(name, "/"))
	}
	return out
}

// certificatesOf says how those of an app stand, for status; local names are the house's own business
// and always in order.
func (h *house) certificatesOf(ctx context.Context, app tenfold.App) []control.Certificate {
	if h.settings.TLS == "" {
		return nil
	}
	r, err := h.edge.Report(ctx, true)
	if err != nil {
		return nil
	}
	var out []control.Certificate
	for _, name := range h.hostsOf(app) {
		for _, c := range r.Certificates {
			if !covers(c.Host, name) || c.Local && c.Error == "" {
				continue
			}
			v := control.Certificate{Host: c.Host, Issuer: c.Issuer, NotAfter: c.NotAfter, Renewal: c.Renewal, Error: c.Error}
			for _, f := range r.Faults {
				if f.Host == c.Host {
					v.Error, v.Hint = strings.TrimSuffix(fmt.Sprintf("%s: %s", f.Title, f.Cause), ": "), f.Hint
				}
			}
			out = append(out, v)
		}
	}
	return out
}
