package compute

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"tenfold"
	"tenfold/internal/directory"
	"tenfold/internal/keeper"
)

// knowsDraining says that the door sends a task nothing new, so that a count of zero is final.
func (s *service) knowsDraining(n int) bool {
	if !s.known {
		return false
	}
	for _, e := range s.published {
		if e.ID == taskID(s.id, n) {
			return e.Draining
		}
	}
	return true
}

// answering names the versions that get requests by a record: the serving one, and one that is tried out.
func answering(r record) string {
	out := "none"
	if r.Serving != nil {
		out = r.Serving.Version
	}
	if d := r.Deploy; d != nil && !d.Tried.IsZero() {
		out += " " + d.To.Version
	}
	return out
}

// heard says that the door goes by who answers in a record.
func (s *service) heard(r record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked == answering(r)
}

func (s *service) acknowledge(r record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked = answering(r)
}

// heeds says that a service has a goal, the fingerprint of one or "" for none, and that the door goes by it: what the
// goal is not gets no more new requests. One that was given up counts, too.
func (s *service) heeds(goal string) bool {
	r := s.snapshot()
	if goal == "" {
		return r.Goal == nil && r.Serving == nil && r.Deploy == nil && s.heard(r)
	}
	o, _ := s.observe()
	return o.Goal == goal && (o.Serving == goal && o.State == tenfold.StateReady || o.Failed == goal)
}

// Heed returns when a service goes by a goal, the fingerprint of one or "" for none, and the front door too, or with
// ctx's error. A service that nobody knows has no goal.
func (c *Compute) Heed(ctx context.Context, id tenfold.ID, goal string) error {
	s, err := c.find(id)
	if err != nil && goal == "" {
		return nil
	}
	if err != nil {
		return err
	}
	tick := time.NewTicker(soonPace)
	defer tick.Stop()
	for !s.heeds(goal) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// publish tells the door who answers, when that changed.
func (s *service) publish(ctx context.Context, r record, w seen) {
	endpoints, down := s.endpoints(r, w)
	if s.known && (down == s.down || len(endpoints) == 0 && s.waking(r)) && slices.Equal(endpoints, s.published) { // who waits needs no other words
		s.acknowledge(r)
		return
	}
	if r.Gone && len(endpoints) == 0 && len(s.published) == 0 && !s.known {
		s.known = true // nothing was ever told, or the site went with it
		s.acknowledge(r)
		return
	}
	limited, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	tell := func() error { return s.c.cfg.Traffic.Publish(limited, s.id, endpoints, down) }
	if r.Gone && len(r.Tasks) == 0 {
		tell = func() error { return s.c.cfg.Traffic.Withdraw(limited, s.id) }
	}
	if err := tell(); err != nil {
		s.known = false
		return
	}
	s.published, s.down, s.known = endpoints, down, true
	s.acknowledge(r)
	s.prod() // who drains may be asked now
}

// place says which requests a task gets, and how many of them.
func (s *service) place(r record, t task, v version, e *directory.Endpoint) {
	if v.Spec.Paired {
		return // files and tasks are switched together, by build
	}
	e.Release = strings.TrimSuffix(t.Version, againMark)
	if t.Apart {
		e.Apart = v.Spec.Pinned > 0
		e.Draining = e.Draining || !e.Apart
		return
	}
	d := r.Deploy
	if d == nil || d.Tried.IsZero() || r.Serving == nil || t.Phase != serving {
		return
	}
	e.Leased = t.Version == d.To.Version && t.Version != r.Serving.Version
	if d.To.Spec.Strategy != tenfold.StrategyCanary {
		return
	}
	alike := 0
	for _, o := range r.Tasks {
		if o.Version == t.Version && o.Phase == serving && !o.Down && !o.Apart {
			alike++
		}
	}
	share := 1 - d.To.Spec.share()
	if e.Leased {
		share = d.To.Spec.share()
	}
	e.Weight = share / float64(max(1, alike))
}

// endpoints are the tasks that answer. A task that misses its probes gets no traffic, unless all do:
// then slow answers are better than none.
func (s *service) endpoints(r record, w seen) (out []directory.Endpoint, down string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sick []directory.Endpoint
	for _, t := range r.Tasks {
		u, ok := w.Units[t.N]
		if !ok || u.Phase == keeper.Exited || t.Down || t.Phase != serving && t.Phase != draining {
			continue
		}
		e := directory.Endpoint{ID: taskID(s.id, t.N), Addr: "127.0.0.1:" + strconv.Itoa(t.Port), Draining: t.Phase == draining}
		v, ok := versionOf(r, t)
		if ok && v.Spec.Paired {
			e.Build = v.Spec.Build
		}
		s.place(r, t, v, &e)
		if h := s.probes[t.N]; h != nil && h.bad >= sickAfter && t.Phase == serving {
			sick = append(sick, e)
			continue
		}
		out = append(out, e)
	}
	if !slices.ContainsFunc(out, func(e directory.Endpoint) bool { return !e.Draining && !e.Apart }) {
		out = append(out, sick...)
	}
	switch {
	case len(out) > 0:
	case r.Failed != "":
		first, _, _ := strings.Cut(r.Reason, "\n")
		down = s.id.Short() + ": deploy failed: " + first
	case r.Goal == nil:
		down = s.id.Short() + " is stopped"
	case r.Serving == nil:
		down = s.id.Short() + " is starting"
	case r.count(r.Serving.Spec) == 0:
		down = s.id.Short() + " sleeps and did not wake in time"
	default:
		down = s.id.Short() + ": no task is healthy"
	}
	return out, down
}
