package compute

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/build"
	"tenfold/internal/container"
)

// keptBuilds is how many builds nobody uses are kept for fast rollbacks and restarts.
const keptBuilds = 10

// keptProven is how many versions of a service that served well keep their builds beside.
const keptProven = 5

// buildGoal is a build spec as it was applied.
type buildGoal struct {
	Spec        buildSpec    `json:"spec"`
	Needs       []tenfold.ID `json:"needs,omitempty"`
	Fingerprint string       `json:"fingerprint"`
}

type buildRecord struct {
	ID      tenfold.ID `json:"id"`
	Goal    *buildGoal `json:"goal,omitempty"`
	Serving *buildGoal `json:"serving,omitempty"`
	Stopped bool       `json:"stopped,omitempty"`
	Failed  string     `json:"failed,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Hint    string     `json:"hint,omitempty"`
	Gone    bool       `json:"gone,omitempty"`
}

// buildItem pursues the build of one service.
type buildItem struct {
	pursuit
	mu     sync.Mutex
	rec    buildRecord
	cancel context.CancelFunc // of the build on its way; under mu
}

func (b *buildItem) apply(s tenfold.Step) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	rec := b.rec
	switch s.Verb {
	case tenfold.VerbStart, tenfold.VerbUpdate:
		spec, ok := s.Want.Spec.(buildSpec)
		if !ok {
			return fmt.Errorf("the spec is a %T", s.Want.Spec)
		}
		if rec.Goal != nil && rec.Goal.Fingerprint == s.Want.Fingerprint && !rec.Stopped && !rec.Gone {
			return nil
		}
		rec.Goal = &buildGoal{spec, s.Want.Needs, s.Want.Fingerprint}
		rec.Stopped, rec.Gone, rec.Failed, rec.Reason, rec.Hint = false, false, "", "", ""
	case tenfold.VerbStop:
		rec.Stopped = true
	case tenfold.VerbRemove:
		rec = buildRecord{ID: b.id, Gone: true}
	}
	if err := b.c.save(b.id, rec); err != nil {
		return err
	}
	b.rec = rec
	if b.cancel != nil {
		b.cancel() // it was for another goal
	}
	b.prod()
	return nil
}

func (b *buildItem) observe() (tenfold.Resource, bool) {
	b.mu.Lock()
	rec := b.rec
	b.mu.Unlock()
	r := tenfold.Resource{ID: b.id, State: tenfold.StatePending, Failed: rec.Failed, Reason: rec.Reason, Hint: rec.Hint}
	if rec.Gone || rec.Goal == nil {
		return r, false
	}
	r.Goal, r.Needs = rec.Goal.Fingerprint, rec.Goal.Needs
	if rec.Serving != nil {
		if done, err := b.c.cfg.Builder.Find(rec.Serving.Spec.Key); err == nil {
			r.Serving, r.Note = rec.Serving.Fingerprint, "built in "+done.Took.Round(100*time.Millisecond).String()
		}
	}
	switch {
	case rec.Stopped:
		r.State = tenfold.StateStopped
	case r.Serving == r.Goal:
		r.State = tenfold.StateReady
	case r.Failed == r.Goal && r.Serving == "":
		r.State = tenfold.StateFailed
	case r.Failed == r.Goal:
		r.State = tenfold.StateReady
	}
	return r, true
}

func (b *buildItem) run(ctx context.Context) {
	for {
		if goal, ctx, done := b.begin(ctx); goal != nil {
			b.build(ctx, *goal)
			done()
		}
		if !b.wait(ctx, 2*time.Second) {
			return
		}
	}
}

// begin returns the goal if it has to be built, with a context that a new goal ends.
func (b *buildItem) begin(ctx context.Context) (*buildGoal, context.Context, func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.rec.Goal
	if g == nil || b.rec.Stopped || b.rec.Gone || b.rec.Failed == g.Fingerprint {
		return nil, ctx, nil
	}
	if b.rec.Serving != nil && b.rec.Serving.Fingerprint == g.Fingerprint {
		if _, err := b.c.cfg.Builder.Find(g.Spec.Key); err == nil {
			return nil, ctx, nil
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	b.cancel = cancel
	return g, ctx, func() {
		cancel()
		b.mu.Lock()
		b.cancel = nil
		b.mu.Unlock()
	}
}

func (b *buildItem) build(ctx context.Context, g buildGoal) {
	req := g.Spec.request(b.id)
	req.Log = filepath.Join(b.c.logDir(b.id), "build.log")
	req.Progress = func(text string) { b.emit(tenfold.SeverityProgress, 0, text) }
	req.Done = func(s build.Stage) { b.emit(tenfold.SeverityInfo, s.Took, stageText(s)) }
	began := time.Now()
	_, err := b.c.cfg.Builder.Build(ctx, req)
	if ctx.Err() != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rec.Goal == nil || b.rec.Goal.Fingerprint != g.Fingerprint || b.rec.Gone {
		return
	}
	rec := b.rec
	if err != nil {
		reason, hint := buildFailure(err)
		rec.Failed, rec.Reason, rec.Hint = g.Fingerprint, reason, hint
		b.emit(tenfold.SeverityError, time.Since(began), err.Error())
	} else {
		rec.Serving, rec.Failed, rec.Reason, rec.Hint = &g, "", "", ""
	}
	if err := b.c.save(b.id, rec); err != nil {
		b.emit(tenfold.SeverityWarning, 0, err.Error())
		return
	}
	b.rec = rec
	b.c.cfg.Changed() // what is built serves only now; the events came before
}

// stageText is the line a finished stage prints.
func stageText(s build.Stage) string {
	switch {
	case s.Note != "":
		return s.Note
	case s.Name == "pull":
		return "pulled: " + strings.TrimPrefix(s.Command, "docker pull ")
	case s.Name == "image":
		return "built: " + s.Command
	case s.Name == "test":
		return "tested: " + s.Command
	case s.Name == "install":
		return "installed: " + s.Command
	case s.Name == "build":
		return "built: " + s.Command
	}
	return s.Name + ": " + s.Command
}

// buildFailure is the reason and the hint that a failed build shows.
func buildFailure(err error) (reason, hint string) {
	reason = err.Error()
	var stage *build.StageError
	var missing *build.MissingError
	var engine *container.MissingError
	switch {
	case errors.As(err, &stage):
		if d := stage.Detail(); d != "" {
			reason += "\n  " + indent(d)
		}
		hint = stage.Hint
	case errors.As(err, &missing):
		hint = missing.Hint
	case errors.As(err, &engine):
		hint = engine.Hint
	case errors.Is(err, build.ErrChanged):
		hint = "deploy again, and leave the files alone until they are copied"
	}
	return reason, hint
}

// PruneBuilds deletes builds that no record names and that keep, which holds keys others need, does
// not name either; a few of the newest stay.
func (c *Compute) PruneBuilds(keep map[string]bool) error {
	all := map[string]bool{}
	for k := range keep {
		all[k] = true
	}
	for _, it := range c.all() {
		switch it := it.(type) {
		case *buildItem:
			it.mu.Lock()
			for _, g := range []*buildGoal{it.rec.Goal, it.rec.Serving} {
				if g != nil {
					all[g.Spec.Key] = true
				}
			}
			it.mu.Unlock()
		case *service:
			rec := it.snapshot()
			for _, key := range rec.builds() {
				all[key] = true
			}
		}
	}
	return errors.Join(c.cfg.Builder.Prune(all, keptBuilds), c.pruneImages())
}

// builds are what tasks run from, or may soon: those of the last versions that served well, too, so that
// going back to one builds nothing.
func (r record) builds() (keys []string) {
	for _, v := range []*version{r.Goal, r.Serving, r.Before} {
		if v != nil {
			keys = append(keys, v.Spec.Build)
		}
	}
	if r.Watch != nil {
		keys = append(keys, r.Watch.Old.Spec.Build)
	}
	for _, k := range r.Kept {
		keys = append(keys, k.Version.Spec.Build)
	}
	for _, v := range r.Proven[max(0, len(r.Proven)-keptProven):] {
		keys = append(keys, v.Build)
	}
	return keys
}
