package pgproxy

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestFairTakesTurns(t *testing.T) {
	var f fair
	at := time.Unix(0, 0)
	add := func(names string) {
		for _, n := range names {
			at = at.Add(time.Second)
			f.push(&client{app: string(n), since: at})
		}
	}
	take := func() string {
		var b strings.Builder
		for c := f.pop(); c != nil; c = f.pop() {
			b.WriteString(c.app)
		}
		return b.String()
	}
	add("aaaabbc")
	if got := take(); got != "abcabaa" {
		t.Error(got)
	}
	add("aab")
	back := f.pop()
	f.pushFront(back)
	add("b")
	if got := take(); got != "aabb" && got != "abab" {
		t.Error(got)
	}
	add("ab")
	if c := f.expired(at.Add(time.Minute), time.Minute, time.Time{}); c == nil || c.app != "a" {
		t.Error(c)
	}
	if due := f.due(time.Minute, time.Time{}); !due.Equal(at.Add(time.Minute - time.Second)) {
		t.Error(due)
	}
	if f.oldest().app != "a" || f.size != 2 {
		t.Error(f.size)
	}
}

// Whatever comes and goes, nobody is lost or counted twice, and who waits is passed at most once by each
// other application.
func TestFairKeepsAll(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var f fair
	waiting := map[*client]int{} // how many others of the same name were before it
	for range 20000 {
		switch k := r.IntN(5); {
		case k < 2:
			c := &client{app: string(rune('a' + r.IntN(100)))}
			f.push(c)
			waiting[c] = 0
		case k < 4:
			if c := f.pop(); c != nil {
				if _, ok := waiting[c]; !ok {
					t.Fatal("somebody who does not wait")
				}
				delete(waiting, c)
			} else if len(waiting) > 0 {
				t.Fatal("nobody, and some wait")
			}
		default:
			for c := range waiting {
				c.inQueue.remove(c)
				delete(waiting, c)
				break
			}
		}
		if f.size != len(waiting) {
			t.Fatal(f.size, len(waiting))
		}
	}
	n := 0
	for range f.all {
		n++
	}
	if n != f.size {
		t.Error(n, f.size)
	}
}
