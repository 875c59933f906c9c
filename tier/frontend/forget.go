package frontend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"tenfold"
)

// home is one environment of one app.
type home struct {
	app tenfold.AppName
	env tenfold.Environment
}

func homeOf(id tenfold.ID) home { return home{id.App, id.Env} }

// Forget ends all that is left of an environment whose resources were removed: its pursuits, releases,
// records and logs. It refuses while Observe tells of any of them, and may be called again when it was
// cut off.
func (f *Frontend) Forget(ctx context.Context, app tenfold.AppName, env tenfold.Environment) error {
	f.forgets.Lock()
	defer f.forgets.Unlock()
	h := home{app, env}
	items, err := f.leave(h)
	if err != nil {
		return err
	}
	defer func() {
		f.goals.Lock()
		delete(f.leaving, h)
		f.goals.Unlock()
	}()
	f.hold(items)
	for _, it := range items {
		if err := it.forget(ctx); err != nil {
			f.release(items)
			return fmt.Errorf("forget %s: %w", it.id, err)
		}
	}
	return nil
}

// leave lists the items of an environment and refuses new goals for it from here on, if none is there
// that is not removed.
func (f *Frontend) leave(h home) ([]*item, error) {
	f.goals.Lock()
	defer f.goals.Unlock()
	var items []*item
	for _, it := range f.all() {
		if homeOf(it.id) != h {
			continue
		}
		if _, there, err := it.observe(); there || err != nil {
			return nil, tenfold.Errorf(tenfold.CodeConflict, "%s of %s/%s is not removed yet", it.id.Short(), it.id.App, it.id.Env).
				WithHint("take it down first: tenfold down --app %s --env %s", it.id.App, it.id.Env)
		}
		items = append(items, it)
	}
	f.leaving[h] = true
	return items, nil
}

// hold ends the pursuits of items, waits for them, and lets Run begin none again.
func (f *Frontend) hold(items []*item) {
	var ended []chan struct{}
	f.mu.Lock()
	for _, it := range items {
		it.claimed = true
		if it.end != nil {
			it.end()
			ended = append(ended, it.ended)
		}
	}
	f.mu.Unlock()
	for _, e := range ended {
		<-e
	}
}

// release undoes hold.
func (f *Frontend) release(items []*item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, it := range items {
		it.claimed, it.end = false, nil
	}
	f.prod()
}

// forget takes away what the item left. Its record goes last, so that what was cut off is found again.
func (it *item) forget(ctx context.Context) error {
	f := it.f
	if err := f.cfg.Builder.Clear(ctx, entry(it.id)); err != nil {
		return err
	}
	for _, dir := range []string{f.SiteDir(it.id), f.logDir(it.id)} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		_ = os.Remove(filepath.Dir(dir)) // the environment's, once it is empty
	}
	if err := os.Remove(it.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.items, it.id)
	return nil
}
