package frontend

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"tenfold"
)

// passed says whether the goal may be switched to as far as its end-to-end tests go.
func (r record) passed() bool {
	return r.Goal == nil || r.Goal.Spec.E2E.IsZero() || slices.Contains(r.Passed, r.Goal.Fingerprint)
}

// gate runs the end-to-end tests of the goal's release, unless they passed or failed before; false
// means that nothing is to be switched now. Users have the release before meanwhile.
func (it *item) gate(ctx context.Context) bool {
	it.mu.Lock()
	rec := it.rec
	g := rec.Goal
	if g == nil || rec.Stopped || rec.Gone || rec.passed() || rec.Pin != "" {
		it.mu.Unlock()
		return true
	}
	if rec.Failed == g.Fingerprint {
		it.mu.Unlock()
		return false
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	it.cancel = cancel
	it.mu.Unlock()

	began := time.Now()
	ran, err := it.try(ctx, *g)

	it.mu.Lock()
	defer it.mu.Unlock()
	it.cancel = nil
	rec = it.rec
	if !ran || ctx.Err() != nil || rec.Goal == nil || rec.Goal.Fingerprint != g.Fingerprint {
		return false
	}
	if err != nil {
		rec.Failed = g.Fingerprint
		rec.Reason, rec.Hint = failure(err)
		it.emit(tenfold.SeverityError, time.Since(began), err.Error())
	} else {
		rec.Passed = append(slices.Clone(rec.Passed), g.Fingerprint)
		rec.Passed = rec.Passed[max(0, len(rec.Passed)-50):]
		it.emit(tenfold.SeverityInfo, time.Since(began), "tested before promotion: "+g.Spec.E2E.String())
	}
	if err := it.save(rec); err != nil {
		it.emit(tenfold.SeverityWarning, 0, err.Error())
		return false
	}
	return err == nil
}

// try runs the tests against the release on an address of its own. ran is false when it is not there yet.
func (it *item) try(ctx context.Context, g goal) (ran bool, err error) {
	id := it.id
	id.Kind = tenfold.KindBuild
	b := it.f.item(id)
	rec := b.snapshot()
	r, ok := b.releaseOf(rec, g.Spec.Made)
	if !ok || rec.Goal == nil || rec.Goal.Fingerprint != g.Spec.Made {
		return false, nil
	}
	if r.Meta.Server != "" {
		if ok, _ := it.f.serves(it.id, r.Meta.Server); !ok {
			return false, nil
		}
	}
	if it.f.cfg.Try == nil {
		return true, fmt.Errorf("e2e: there is no front door to try the release at")
	}
	url, end, err := it.f.cfg.Try(ctx, it.id, r.ID)
	if err != nil {
		return true, fmt.Errorf("e2e: %w", err)
	}
	defer end()
	req := rec.Goal.Spec.request(id)
	req.Log = filepath.Join(it.f.logDir(it.id), "e2e.log")
	req.Progress = func(text string) { it.emit(tenfold.SeverityProgress, 0, text) }
	req.Env = append(req.Env, "APP_URL="+url, "APP_ENV="+string(it.id.Env))
	// Secrets of the build are not handed to tests, which print what they please.
	return true, it.f.cfg.Builder.Check(ctx, keyOf(rec, g.Spec.Made), req, "e2e", g.Spec.E2E.Argv())
}

// keyOf is the build that a fingerprint came to.
func keyOf(rec record, fingerprint string) string {
	for _, m := range slices.Backward(rec.Releases) {
		if m.Fingerprint == fingerprint {
			return m.Key
		}
	}
	return ""
}
