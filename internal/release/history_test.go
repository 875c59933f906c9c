package release

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestNothingThatAServedPageNamesGoes plays random histories of deploys, rollbacks and collections over
// days of virtual time. A page that was served in the last 24 hours finds every asset that it names, with
// the right content, whatever the policy says.
func TestNothingThatAServedPageNamesGoes(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { history(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

// served is a release that pages were served of, and when the last was.
type served struct {
	release Release
	last    time.Time
}

func history(t *testing.T, r *rand.Rand) {
	s := Site{Dir: t.TempDir()}
	policy := Policy{Keep: time.Duration(r.IntN(30)) * time.Hour, Newest: 1 + r.IntN(2)}
	pages := map[string]*served{}
	removed := 0
	see := func() { // whoever looks now gets a page of the current release
		id, err := s.Current()
		if err != nil || id == "" {
			return
		}
		pages[id].last = time.Now()
	}
	for step := range 60 {
		see()
		switch r.IntN(4) {
		case 0, 1: // a deploy: some assets are new, some as before
			from := t.TempDir()
			os.Mkdir(filepath.Join(from, "assets"), 0o755)
			page := ""
			for i := range 1 + r.IntN(5) {
				name := fmt.Sprintf("assets/part%d-%08x.js", i, 0x1a2b3c00+r.IntN(60))
				page += name + "\n"
				if err := os.WriteFile(filepath.Join(from, name), []byte("content of "+name), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(from, "index.html"), []byte(page), 0o644); err != nil {
				t.Fatal(err)
			}
			rel, err := s.Add(t.Context(), from, Meta{})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Switch(rel.ID); err != nil {
				t.Fatal(err)
			}
			if pages[rel.ID] == nil {
				pages[rel.ID] = &served{release: rel}
			}
		case 2: // back to any that is kept
			all, err := s.List()
			if err != nil {
				t.Fatal(err)
			}
			if len(all) > 0 {
				if err := s.Switch(all[r.IntN(len(all))].ID); err != nil {
					t.Fatal(err)
				}
			}
		}
		see()
		time.Sleep(time.Duration(r.Int64N(int64(9 * time.Hour))))
		see()
		gone, err := s.Collect(time.Now(), policy)
		if err != nil {
			t.Fatal(err)
		}
		removed += len(gone)
		for id, p := range pages {
			if time.Since(p.last) <= Day {
				found(t, s, step, id, p.release)
			}
		}
	}
	if removed == 0 && policy.Keep < 24*time.Hour {
		t.Errorf("nothing was ever collected with %+v: the test shows nothing", policy)
	}
}

// found looks for the hashed files of a release as the door does: in any release that is kept.
func found(t *testing.T, s Site, step int, id string, of Release) {
	t.Helper()
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range of.Files {
		if !f.Hashed {
			continue
		}
		ok := false
		for _, r := range all {
			if r.Files[name].Digest != f.Digest {
				continue
			}
			b, err := os.ReadFile(s.Path(r.ID, name))
			ok = ok || err == nil && string(b) == "content of "+name
		}
		if !ok {
			t.Fatalf("step %d: a page of release %s names %s, which no release has", step, id, name)
		}
	}
}
