package ledger

import (
	"slices"
	"testing"
	"time"
)

func TestPatience(t *testing.T) {
	var p Patience
	var got []time.Duration
	for range 9 {
		got = append(got, p.Pause("a")/FirstPause)
	}
	if want := []time.Duration{1, 2, 4, 8, 16, 32, 64, 100, 100}; !slices.Equal(got, want) {
		t.Errorf("pauses are %v times the first", got)
	}
	if d := p.Pause("b"); d != FirstPause {
		t.Errorf("another waits %s", d)
	}
	if p.Done("a"); p.Pause("a") != FirstPause {
		t.Error("after what went well it waits as before")
	}
	for i, x := range []struct {
		text string
		news bool
	}{{"", false}, {"x", true}, {"x", false}, {"y", true}, {"", true}, {"", false}, {"y", true}} {
		if got := p.News("a", x.text); got != x.news {
			t.Errorf("%d: %q is news: %t", i, x.text, got)
		}
	}
	if p.Forget("a"); p.Pause("a") != FirstPause || !p.News("a", "y") {
		t.Error("what was forgotten is remembered")
	}
}
