package function

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tenfold"
	"tenfold/internal/keeper"
	"tenfold/tier/function/runtimeapi"
)

// noUnits is a keeper that is not asked.
type noUnits struct{ keeper.Units }

// still is an Invoker that starts nothing.
func still(t *testing.T) *Invoker {
	t.Helper()
	v, err := NewInvoker(InvokerConfig{Dir: t.TempDir(), Units: noUnits{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestACallOfAFunctionThatIsRemovedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFunction(still(t), Goal{ID: tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindFunction, Name: "echo"}, Max: 1, Concurrency: 1, Timeout: time.Second})
		f.end()
		// A deadlock here is a call that nobody ever answers.
		if _, err := f.invoke(t.Context(), runtimeapi.Invocation{ID: "1"}, false, &collect{}); !errors.Is(err, errRemoved) {
			t.Errorf("it says %v", err)
		}
	})
}

func TestWhatCameOfAnEventIsKeptWhateverItsDestination(t *testing.T) {
	v := still(t)
	to := tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindFunction, Name: "gone"}
	g := Goal{ID: tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindFunction, Name: "echo"}, To: &to}
	if err := v.keep(g.ID, runtimeapi.Invocation{ID: "1", Payload: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	e, _ := v.async.Get("1")
	big := []byte(`"` + strings.Repeat("x", runtimeapi.MaxEvent) + `"`)
	if d := v.finish(g, e, big); d.unkept {
		t.Error("the event is to be tried again, and the function had it")
	}
	all := v.async.All()
	if _, ok := all["1"]; ok || len(all) != 1 {
		t.Fatalf("kept: %d events", len(all))
	}
	for _, told := range all {
		if told.Function != to || !bytes.Contains(told.Payload, []byte(`"condition":"Success"`)) || !bytes.Contains(told.Payload, []byte(`"responsePayload":null`)) {
			t.Errorf("told: %v, %.300s", told.Function, told.Payload)
		}
	}
}

func TestAnEventThatCannotBeWrittenDownIsNotTriedAtOnce(t *testing.T) {
	v := still(t)
	e := event1{ID: "1", Function: tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindFunction, Name: "echo"}}
	if err := os.RemoveAll(v.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.cfg.Dir, nil, 0o600); err != nil { // nothing can be written below it
		t.Fatal(err)
	}
	due := time.Now().Add(time.Hour)
	if d := v.put(e, due); !d.unkept || !d.e.Due.Equal(due) || d.rest != nil {
		t.Errorf("put: %+v", d)
	}
	to := e.Function
	if d := v.finish(Goal{To: &to}, e, nil); !d.unkept || d.rest == nil || !d.e.Due.After(time.Now()) {
		t.Errorf("finish: %+v", d)
	}
}
