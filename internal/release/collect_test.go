package release

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWhatAServedPageNamesStays plays two weeks of deploys, rollbacks and collections: whatever HTML
// was served in the last 24 hours, each asset that it names is there, with the content of its hash.
func TestWhatAServedPageNamesStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Site{Dir: t.TempDir()}
		rng := rand.New(rand.NewPCG(1, 2))
		type view struct {
			at    time.Time
			asset string
		}
		var views []view
		asset := func(n int) string { return fmt.Sprintf("assets/app-%08x.js", 0x3f2a9000+n) }
		var ids []string
		removed := 0
		for step := range 240 {
			time.Sleep(time.Duration(rng.IntN(160)) * time.Minute)
			now := time.Now()
			if step%3 == 0 {
				n := len(ids)
				r := add(t, s, map[string]string{"index.html": asset(n), asset(n): fmt.Sprint("content ", n)})
				ids = append(ids, r.ID)
				if err := s.Switch(r.ID); err != nil {
					t.Fatal(err)
				}
			} else if step%7 == 0 {
				// A rollback, to any release that is kept.
				all, _ := s.List()
				if err := s.Switch(all[rng.IntN(len(all))].ID); err != nil {
					t.Fatal(err)
				}
			}
			current, err := s.Current()
			if err != nil {
				t.Fatal(err)
			}
			page, err := os.ReadFile(s.Path(current, "index.html"))
			if err != nil {
				t.Fatal(err)
			}
			views = append(views, view{now, string(page)})
			gone, err := s.Collect(now, Policy{Newest: 2})
			if err != nil {
				t.Fatal(err)
			}
			removed += len(gone)
			views = slices.DeleteFunc(views, func(v view) bool { return now.Sub(v.at) > Day })
			all, _ := s.List()
			for _, v := range views {
				i := slices.IndexFunc(all, func(r Release) bool { _, ok := r.Files[v.asset]; return ok })
				if i < 0 {
					t.Fatalf("step %d: %s, named by a page served %s ago, is gone", step, v.asset, now.Sub(v.at))
				}
				if b, err := os.ReadFile(s.Path(all[i].ID, v.asset)); err != nil || !strings.HasPrefix(string(b), "content ") {
					t.Fatalf("step %d: %s: %q, %v", step, v.asset, b, err)
				}
			}
		}
		if all, _ := s.List(); removed < 40 || len(all) > 60 {
			t.Errorf("%d releases were removed, %d are left: nothing is collected", removed, len(all))
		}
		if notes, _ := os.ReadDir(s.Dir + "/left"); len(notes) > 60 {
			t.Errorf("%d notes are left", len(notes))
		}
	})
}

func TestCollectKeepsWhatItCannotTell(t *testing.T) {
	s := Site{Dir: t.TempDir()}
	one := add(t, s, map[string]string{"index.html": "one"})
	two := add(t, s, map[string]string{"index.html": "two"})
	for _, id := range []string{one.ID, two.ID} {
		if err := s.Switch(id); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.leftPath(one.ID), []byte("never"), 0o644); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(1000 * time.Hour)
	if gone, err := s.Collect(later, Policy{Newest: 1}); len(gone) != 0 || err != nil {
		t.Errorf("removed %v, %v", gone, err)
	}
	if err := s.Switch(one.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Switch(two.ID); err != nil {
		t.Fatal(err)
	}
	if gone, err := s.Collect(later, Policy{Newest: 1}); !slices.Equal(gone, []string{one.ID}) || err != nil {
		t.Errorf("removed %v, %v", gone, err)
	}
	if err := s.Clear(); err != nil {
		t.Fatal(err)
	}
	if at, err := s.LeftAt(two.ID); at.IsZero() || err != nil {
		t.Errorf("a cleared release left at %v, %v", at, err)
	}
}
