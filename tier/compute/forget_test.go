package compute

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tenfold"
)

// remove takes an app away as the loop does.
func (b *box) remove(app tenfold.App) {
	b.t.Helper()
	rs, err := b.Desired(app, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, r := range rs {
		if err := b.Apply(b.t.Context(), tenfold.Step{Verb: tenfold.VerbRemove, Want: tenfold.Resource{ID: r.ID}}); err != nil {
			b.t.Fatal(err)
		}
		b.until(r.ID, func(o tenfold.Resource) bool { return o.ID == (tenfold.ID{}) })
	}
}

// left is what the disk, the keeper and the tier have of an environment.
func (b *box) left(env tenfold.Environment) (out []string) {
	b.t.Helper()
	units, err := b.cfg.Units.List(b.t.Context(), "")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, u := range units {
		if strings.Contains(u.Unit.ID, "/"+string(env)+"/") {
			out = append(out, "unit "+u.Unit.ID)
		}
	}
	records, err := os.ReadDir(b.records())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, r := range records {
		if strings.Contains(r.Name(), "~"+strings.ReplaceAll(string(env), "/", "~")+"~") {
			out = append(out, "record "+r.Name())
		}
	}
	if _, err := os.Stat(filepath.Join(b.cfg.Dir, "logs", "shop", filepath.FromSlash(string(env)))); err == nil {
		out = append(out, "logs")
	}
	for _, it := range b.all() {
		if it.of().id.Env == env {
			out = append(out, "item "+it.of().id.String())
		}
	}
	return out
}

func TestAForgottenEnvironmentIsGone(t *testing.T) {
	b := newBox(t)
	one := func(w *tenfold.Workload) { w.Scale = tenfold.Bounds{Min: 1, Max: 1} }
	kept, gone := b.app(one), b.app(one)
	gone.Env = "preview/pr-7"
	gone.Jobs = map[tenfold.Name]tenfold.Job{"hand": {Service: "api", Command: tenfold.Command{Shell: "exec sleep 600"}}}
	b.deploy(kept)
	before := b.live(1)
	b.deploy(gone)
	preview := gone.ID(tenfold.KindService, "api")
	run, err := b.RunJob(t.Context(), gone.ID(tenfold.KindJob, "hand"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Exec(t.Context(), preview, []string{"/bin/sh", "-c", "exec sleep 600"}); err != nil {
		t.Fatal(err)
	}

	// What is there is not forgotten, and lives on.
	if err := b.Forget(t.Context(), "shop", gone.Env); tenfold.CodeOf(err) != tenfold.CodeConflict || !strings.Contains(tenfold.HintOf(err), "tenfold down --app shop --env preview/pr-7") {
		t.Fatalf("forgot what is there: %v", err)
	}
	if o := b.until(preview, func(tenfold.Resource) bool { return true }); o.State != tenfold.StateReady {
		t.Errorf("after the refusal: %+v", o)
	}

	b.remove(gone)
	var pursuits []*pursuit
	for _, it := range b.all() {
		if it.of().id.Env == gone.Env {
			pursuits = append(pursuits, it.of())
		}
	}
	for range 2 { // again is no error
		if err := b.Forget(t.Context(), "shop", gone.Env); err != nil {
			t.Fatal(err)
		}
	}
	if left := b.left(gone.Env); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	for _, p := range pursuits {
		select {
		case <-p.ended:
		default:
			t.Errorf("%s is still pursued", p.id)
		}
	}
	if len(pursuits) != 3 {
		t.Errorf("there were %d pursuits", len(pursuits))
	}
	b.door.mu.Lock()
	if down := b.door.down[preview]; down != "removed" {
		t.Errorf("the door was told %q", down)
	}
	b.door.mu.Unlock()
	if _, err := b.WaitRun(t.Context(), run); err == nil {
		t.Error("a run of what is forgotten ended well")
	}
	if now := b.live(1); !slices.Equal(now, before) || len(b.left(kept.Env)) == 0 {
		t.Errorf("the other environment: %v serve, before %v; left %v", now, before, b.left(kept.Env))
	}

	// It may come back, now and over the records.
	b.stop()
	b.begin()
	if o := b.deploy(gone); o.Failed != "" {
		t.Errorf("back again: %+v", o)
	}
}
