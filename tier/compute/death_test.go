package compute

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tenfold"
)

// TestTheDaemonMayDieAtAnyPoint ends the tier again and again while it deploys: the deployment goes on
// by the record, and the migration runs once.
func TestTheDaemonMayDieAtAnyPoint(t *testing.T) {
	b := newBox(t)
	count := filepath.Join(t.TempDir(), "migrations")
	app := b.app(func(w *tenfold.Workload) {
		w.Migrate = tenfold.Command{Shell: fmt.Sprintf("echo ran >> %s; sleep 0.3", count)}
	})
	rs, err := b.Desired(app, nil)
	if err != nil {
		t.Fatal(err)
	}
	apply := func(kind tenfold.Kind) tenfold.Resource {
		for _, r := range rs {
			if r.ID.Kind == kind {
				if err := b.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStart, Want: r}); err != nil {
					t.Fatal(err)
				}
				return r
			}
		}
		t.Fatalf("no %s", kind)
		return tenfold.Resource{}
	}
	build := apply(tenfold.KindBuild)
	b.stop()
	b.begin()
	b.until(build.ID, func(o tenfold.Resource) bool { return o.Serving == build.Fingerprint })
	want := apply(tenfold.KindService)
	for range 8 {
		life := time.NewTimer(60 * time.Millisecond)
		<-life.C
		b.stop()
		b.begin()
	}
	b.until(api, func(o tenfold.Resource) bool {
		return o.Serving == want.Fingerprint && o.State == tenfold.StateReady
	})
	b.live(2)
	if out, err := os.ReadFile(count); err != nil || string(out) != "ran\n" {
		t.Errorf("migrations: %q, %v", out, err)
	}
	if tasks, err := b.Tasks(t.Context()); err != nil || len(tasks) != 2 {
		t.Errorf("tasks: %+v, %v", tasks, err)
	}
}
