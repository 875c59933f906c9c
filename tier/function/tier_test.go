package function

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tenfold"
	"tenfold/internal/build"
	"tenfold/internal/directory"
)

// process stands for the invoke process and the front door: it notes what it is told.
type process struct {
	snap      Snapshot
	withdrawn []tenfold.ID
}

func (p *process) Put(_ context.Context, s Snapshot) (Report, error) {
	p.snap = s
	return Report{}, nil
}
func (p *process) Report(context.Context) (Report, error)               { return Report{}, nil }
func (p *process) Invoke(context.Context, Call) (a Answered, err error) { return a, nil }
func (p *process) Publish(context.Context, tenfold.ID, []directory.Endpoint, string) error {
	return nil
}

func (p *process) Withdraw(_ context.Context, id tenfold.ID) error {
	p.withdrawn = append(p.withdrawn, id)
	return nil
}

func TestWhatServesOutlivesWhatCannotBeLookedUp(t *testing.T) {
	dir, key := t.TempDir(), "0123456789abcdef0123"
	if err := os.MkdirAll(filepath.Join(dir, "builds", key, "tree"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "builds", key, "build.json"), []byte(`{}`), 0o644); err != nil {
		t.Fatal(err)
	}
	var p process
	var trouble error
	tier, err := New(Config{
		Dir: t.TempDir(), Builder: &build.Builder{Dir: dir}, BuildKey: func(tenfold.App, tenfold.Name) string { return key }, Invokers: &p, Traffic: &p,
		Resolve: func(context.Context, tenfold.Binding) (string, error) { return "postgres://db", trouble }, Emit: func(tenfold.Event) {},
		URL: func(tenfold.AppName, tenfold.Environment) string { return "" }, Account: func(tenfold.AppName, tenfold.Environment) string { return "123456789012" },
		Keys: func(context.Context) ([]Key, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	id := tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindFunction, Name: "echo"}
	want := spec{Build: key, Command: tenfold.Command{Args: []string{"./run"}}, Bindings: []tenfold.Binding{{Var: "DATABASE_URL"}}, Scale: tenfold.Bounds{Max: 1}, Concurrency: 1}
	apply := func(goal string) {
		t.Helper()
		if err := tier.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStart, Want: tenfold.Resource{ID: id, Spec: want, Fingerprint: goal}}); err != nil {
			t.Fatal(err)
		}
	}
	look := func(state tenfold.State) {
		t.Helper()
		if err := tier.serve(t.Context()); err != nil {
			t.Fatal(err)
		}
		seen, err := tier.Observe(t.Context())
		if err != nil || len(seen) != 1 || seen[0].State != state {
			t.Errorf("observed: %+v, %v", seen, err)
		}
		if len(p.snap.Functions) != 1 || p.snap.Functions[0].Env[len(p.snap.Functions[0].Env)-1] == "" || len(p.withdrawn) > 0 {
			t.Errorf("told: %+v, withdrawn %v", p.snap, p.withdrawn)
		}
	}
	apply("one")
	look(tenfold.StateReady)
	trouble = errors.New("the pool does not answer")
	look(tenfold.StateReady)
	trouble = tenfold.Errorf(tenfold.CodeInvalid, "the secret has no value")
	apply("two")
	look(tenfold.StateReady) // by the version before
	look(tenfold.StateReady) // and again, from the record
	apply("one")             // it went back
	look(tenfold.StateReady)
	if err := tier.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStop, Want: tenfold.Resource{ID: id}}); err != nil {
		t.Fatal(err)
	}
	if err := tier.serve(t.Context()); err != nil || len(p.snap.Functions)+len(p.snap.Kept) > 0 || len(p.withdrawn) != 1 {
		t.Errorf("stopped: %v, %+v, %v", err, p.snap, p.withdrawn)
	}
}
