package frontend

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tenfold"
)

func TestAForgottenEnvironmentIsGone(t *testing.T) {
	s := newShop(t)
	served := map[string]bool{}
	s.stop()
	s.cfg.Serves = func(_ tenfold.ID, build string) (bool, string) { return served[build], "" }
	s.begin()
	kept := s.app("kept", good)
	s.deploy(kept)
	gone := s.paired("gone", halves)
	gone.Env = "preview/pr-7"
	key := BuildKey(gone, "web")
	served[key] = true
	if o := s.deploy(gone); o.Failed != "" {
		t.Fatalf("%+v", o)
	}
	preview := gone.ID(tenfold.KindFrontend, "web")

	// What is there is not forgotten, and lives on.
	if err := s.Forget(t.Context(), "shop", gone.Env); tenfold.CodeOf(err) != tenfold.CodeConflict || !strings.Contains(tenfold.HintOf(err), "tenfold down --app shop --env preview/pr-7") {
		t.Fatalf("forgot what is there: %v", err)
	}
	if got := s.Released(preview); got != key || !s.BuildKeys()[key] {
		t.Errorf("after the refusal %q is released, %v kept", got, s.BuildKeys())
	}

	for _, kind := range []tenfold.Kind{tenfold.KindFrontend, tenfold.KindBuild} {
		id := gone.ID(kind, "web")
		if err := s.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbRemove, Want: tenfold.Resource{ID: id}}); err != nil {
			t.Fatal(err)
		}
		s.until(id, func(o tenfold.Resource) bool { return o.Goal == "" })
	}
	if s.BuildKeys()[key] {
		t.Error("the build of what was removed may not be pruned")
	}
	var pursued []*item
	for _, it := range s.all() {
		if it.id.Env == gone.Env {
			pursued = append(pursued, it)
		}
	}
	for range 2 { // again is no error
		if err := s.Forget(t.Context(), "shop", gone.Env); err != nil {
			t.Fatal(err)
		}
	}
	if len(pursued) != 2 {
		t.Errorf("%d were pursued", len(pursued))
	}
	for _, it := range pursued {
		select {
		case <-it.ended:
		default:
			t.Errorf("%s is still pursued", it.id)
		}
	}
	for _, it := range s.all() {
		if it.id.Env == gone.Env {
			t.Errorf("%s is still known", it.id)
		}
	}
	for _, dir := range []string{filepath.Dir(s.SiteDir(preview)), filepath.Dir(s.logDir(preview))} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is still there", dir)
		}
	}
	records, err := filepath.Glob(filepath.Join(s.records(), "*.json"))
	if err != nil || len(records) != 2 {
		t.Errorf("records: %v, %v", records, err)
	}
	if got := s.serves(); got != "kept" {
		t.Errorf("the other environment serves %q", got)
	}

	// It may come back, now and over the records.
	s.stop()
	s.begin()
	if o := s.deploy(gone); o.Failed != "" || s.Released(preview) != key {
		t.Errorf("back again: %+v", o)
	}
}
