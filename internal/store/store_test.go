package store

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestRevisionsAreNumberedAndSurviveReopening(t *testing.T) {
	path, ctx := filepath.Join(t.TempDir(), "house.db"), t.Context()
	s := open(t, path)
	for want := int64(1); want <= 3; want++ {
		got, err := s.AddRevision(ctx, Revision{App: "shop", Env: "production", Created: time.Now(), Manifest: []byte("app: shop"), State: "pending"},
			func(n int64) ([]byte, error) { return []byte{byte(n)}, nil })
		if err != nil || got != want {
			t.Fatalf("revision %d, %v; want %d", got, err, want)
		}
		if err := s.Serve(ctx, "shop", "production", got); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	s = open(t, path)
	envs, err := s.Environments(ctx)
	if err != nil || len(envs) != 1 || envs[0].Goal != 3 || envs[0].Serving != 3 {
		t.Fatalf("environments %+v, %v", envs, err)
	}
	rs, err := s.Revisions(ctx, "shop", "production", 2)
	if err != nil || len(rs) != 2 || rs[0].State != "serving" || rs[1].State != "superseded" || rs[0].Document[0] != 3 {
		t.Fatalf("revisions %+v, %v", rs, err)
	}
	if _, err := s.Revision(ctx, "shop", "production", 9); !errors.Is(err, ErrNotFound) {
		t.Fatalf("revision 9: %v", err)
	}
}

func TestAForgottenEnvironmentRepeatsNoNumber(t *testing.T) {
	s, ctx := open(t, filepath.Join(t.TempDir(), "house.db")), t.Context()
	deploy := func(env string) int64 {
		n, err := s.AddRevision(ctx, Revision{App: "shop", Env: env, Created: time.Now(), Manifest: []byte{}, State: "pending"},
			func(int64) ([]byte, error) { return []byte{}, nil })
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Audit(ctx, Entry{At: time.Now(), App: "shop", Env: env, Revision: n, Verb: "deploy"}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	deploy("preview/cart")
	deploy("preview/cart")
	if err := s.Forget(ctx, "shop", "preview/cart"); err != nil {
		t.Fatal(err)
	}
	if n := deploy("preview/cart"); n != 3 {
		t.Errorf("made again it begins with %d", n)
	}
	if n := deploy("preview/other"); n != 1 {
		t.Errorf("another begins with %d", n)
	}
}

func TestAuditCannotBeChanged(t *testing.T) {
	s, ctx := open(t, filepath.Join(t.TempDir(), "house.db")), t.Context()
	if err := s.Audit(ctx, Entry{At: time.Now(), App: "shop", Verb: "start", Resource: "service api", Reason: "new"}); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"delete from audit", "update audit set reason = ''"} {
		if _, err := s.db.ExecContext(ctx, q); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", q, err)
		}
	}
	if es, err := s.AuditLog(ctx, "shop", 10); err != nil || len(es) != 1 || es[0].Reason != "new" {
		t.Fatalf("audit %+v, %v", es, err)
	}
}

func TestEventsByAppAndTail(t *testing.T) {
	s, ctx := open(t, filepath.Join(t.TempDir(), "house.db")), t.Context()
	for i, app := range []string{"a", "b", "a", "a"} {
		if seq, err := s.AddEvent(ctx, Event{At: time.Now(), App: app, Env: "production", Document: []byte{byte(i)}}); err != nil || seq != int64(i+1) {
			t.Fatal(seq, err)
		}
	}
	for _, c := range []struct {
		app         string
		after, want int64
		tail, n     int
	}{{"a", 0, 1, 0, 3}, {"", 1, 2, 0, 3}, {"a", 0, 3, 2, 2}, {"c", 0, 0, 0, 0}} {
		es, err := s.Events(ctx, c.app, "", c.after, c.tail)
		if err != nil || len(es) != c.n || c.n > 0 && es[0].Seq != c.want {
			t.Errorf("%+v: %+v %v", c, es, err)
		}
	}
}

func TestSecretsKeepTheirVersions(t *testing.T) {
	s, ctx := open(t, filepath.Join(t.TempDir(), "house.db")), t.Context()
	for i := byte(1); i <= 2; i++ {
		if v, err := s.SetSecret(ctx, "shop", "KEY", []byte{i}, time.Now()); err != nil || v != int64(i) {
			t.Fatal(v, err)
		}
	}
	for version, want := range map[int64]byte{0: 2, 1: 1, 2: 2} {
		if x, err := s.Secret(ctx, "shop", "KEY", version); err != nil || x.Sealed[0] != want {
			t.Errorf("version %d: %v %v", version, x, err)
		}
	}
	if err := s.RemoveSecret(ctx, "shop", "KEY"); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveSecret(ctx, "shop", "KEY"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "house.db")
	s := open(t, path)
	if _, err := s.db.ExecContext(t.Context(), "pragma user_version = 99"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(context.Background(), path); err == nil || !strings.Contains(err.Error(), "newer Tenfold") {
		t.Fatal(err)
	}
}

// A revision that is given up after it served gives way to the one before at once: what fails next goes back
// to that one.
func TestGivingUpWhatServed(t *testing.T) {
	s, ctx := open(t, filepath.Join(t.TempDir(), "house.db")), t.Context()
	add := func() int64 {
		n, err := s.AddRevision(ctx, Revision{App: "shop", Env: "production", Created: time.Now(), Manifest: []byte{}, State: "pending"},
			func(int64) ([]byte, error) { return []byte{}, nil })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	give := func(n, back int64) Environment {
		if err := s.GiveUp(ctx, "shop", "production", n, back, "because", time.Now()); err != nil {
			t.Fatal(err)
		}
		envs, err := s.Environments(ctx)
		if err != nil || len(envs) != 1 {
			t.Fatal(envs, err)
		}
		return envs[0]
	}
	for range 2 {
		if err := s.Serve(ctx, "shop", "production", add()); err != nil {
			t.Fatal(err)
		}
	}
	if e := give(2, 1); e.Goal != 1 || e.Serving != 1 {
		t.Errorf("after what served: %+v", e)
	}
	if e := give(add(), 1); e.Goal != 1 || e.Serving != 1 {
		t.Errorf("after what never did: %+v", e)
	}
	revs, err := s.Revisions(ctx, "shop", "production", 9)
	if err != nil || len(revs) != 3 || revs[2].State != "serving" || revs[1].State != "failed" || revs[0].State != "failed" {
		t.Errorf("%v: %+v", err, revs)
	}
}
