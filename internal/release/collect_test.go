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
// was served in the last 24 hours, each asset that it names is there, with the content of its hash,
// whatever the policy says.
func TestWhatAServedPageNamesStays(t *testing.T) {
	for seed, policy := range []Policy{{Newest: 2}, {Newest: 1, Keep: 30 * time.Hour}} {
		t.Run(fmt.Sprintf("%+v", policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { history(t, rand.New(rand.NewPCG(1, uint64(2+seed))), policy) })
		})
	}
}

func history(t *testing.T, rng *rand.Rand, policy Policy) {
	s := Site{Dir: t.TempDir()}
	type view struct {
		at   time.Time
		page string // its lines are the assets that it names
	}
	var views []view
	see := func() {
		current, err := s.Current()
		if err != nil {
			t.Fatal(err)
		}
		page, err := os.ReadFile(s.Path(current, "index.html"))
		if err != nil {
			t.Fatal(err)
		}
		views = append(views, view{time.Now(), string(page)})
	}
	deploys, removed := 0, 0
	for step := range 240 {
		time.Sleep(time.Duration(rng.IntN(160)) * time.Minute)
		now := time.Now()
		if step > 0 {
			see()
		}
		if step%3 == 0 {
			// An asset of its own, and one that others may have too.
			files := map[string]string{}
			for _, name := range []string{fmt.Sprintf("assets/app-%08x.js", 0x3f2a9000+deploys), fmt.Sprintf("assets/part-%08x.js", 0x1a2b3c00+rng.IntN(20))} {
				files["index.html"] += name + "\n"
				files[name] = "content of " + name
			}
			deploys++
			if err := s.Switch(add(t, s, files).ID); err != nil {
				t.Fatal(err)
			}
		} else if step%7 == 0 {
			// A rollback, to any release that is kept.
			all, _ := s.List()
			if err := s.Switch(all[rng.IntN(len(all))].ID); err != nil {
				t.Fatal(err)
			}
		}
		see()
		gone, err := s.Collect(now, policy)
		if err != nil {
			t.Fatal(err)
		}
		removed += len(gone)
		views = slices.DeleteFunc(views, func(v view) bool { return now.Sub(v.at) > Day })
		all, _ := s.List()
		looked := map[string]bool{}
		for _, v := range views {
			for asset := range strings.Lines(v.page) {
				if asset = strings.TrimSpace(asset); looked[asset] {
					continue
				}
				looked[asset] = true
				i := slices.IndexFunc(all, func(r Release) bool { return r.Files[asset].Hashed })
				if i < 0 {
					t.Fatalf("step %d: %s, named by a page served %s ago, is gone", step, asset, now.Sub(v.at))
				}
				if b, err := os.ReadFile(s.Path(all[i].ID, asset)); err != nil || string(b) != "content of "+asset {
					t.Fatalf("step %d: %s: %q, %v", step, asset, b, err)
				}
			}
		}
	}
	if all, _ := s.List(); removed < 40 || len(all) > 60 {
		t.Errorf("%d releases were removed, %d are left: nothing is collected", removed, len(all))
	}
	if notes, _ := os.ReadDir(s.Dir + "/left"); len(notes) > 60 {
		t.Errorf("%d notes are left", len(notes))
	}
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
