package function

import (
	"errors"
	"log/slog"
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
