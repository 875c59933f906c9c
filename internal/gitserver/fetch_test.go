package gitserver

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func fetcher(t *testing.T) *Server {
	t.Helper()
	s, err := New(Config{Dir: t.TempDir(), Push: func(context.Context, Push, io.Writer) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// origin is a repository with two commits on main.
func origin(t *testing.T) (dir, first, second string) {
	t.Helper()
	dir = t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		c := exec.Command("git", args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com", "GIT_CONFIG_GLOBAL=/dev/null")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main")
	for _, page := range []string{"one", "two"} {
		if err := os.WriteFile(filepath.Join(dir, "page"), []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		os.Symlink("/etc/passwd", filepath.Join(dir, "out"))
		git("add", "-A")
		git("commit", "-qm", page)
		first, second = second, git("rev-parse", "HEAD")
	}
	return dir, first, second
}

func TestFetchOfOneCommit(t *testing.T) {
	s := fetcher(t)
	dir, first, second := origin(t)
	var warned strings.Builder
	read := func(f Fetch) (string, error) {
		page := ""
		err := s.Fetch(t.Context(), f, &warned, func(dir, commit string) error {
			b, err := os.ReadFile(filepath.Join(dir, "page"))
			page = string(b) + " " + commit
			if _, lerr := os.Lstat(filepath.Join(dir, "out")); lerr == nil {
				t.Error("a link that leads out is there")
			}
			return err
		})
		return page, err
	}
	f := Fetch{URL: "file://" + dir, Ref: "refs/heads/main", Commit: second, File: true}
	if page, err := read(f); err != nil || page != "two "+second {
		t.Errorf("%q %v", page, err)
	}
	f.Commit = second[:12]
	if page, err := read(f); err != nil || page != "two "+second {
		t.Errorf("by the beginning of its ID: %q %v", page, err)
	}
	// What a ref names by now is not what was asked for.
	f.Commit = strings.Repeat("ab", 20)
	if page, err := read(f); err == nil {
		t.Errorf("a commit that is not there: %q", page)
	}
	f.Commit = first
	if page, err := read(f); err == nil && page != "one "+first {
		t.Errorf("an older commit gave %q", page)
	}
	f.Commit, f.File = second, false
	if _, err := read(f); err == nil {
		t.Error("a folder of this machine was fetched from")
	}
	left, _ := filepath.Glob(filepath.Join(s.cfg.Dir, "work", "*"))
	if len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// A fork's commit fills no disk before anybody has approved of it.
func TestFetchIsBounded(t *testing.T) {
	s := fetcher(t)
	dir, _, second := origin(t)
	s.cfg.MostPack = 100
	err := s.Fetch(t.Context(), Fetch{URL: "file://" + dir, Ref: "refs/heads/main", Commit: second, File: true}, io.Discard, func(string, string) error {
		t.Error("its files were given")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "the commit has more than") {
		t.Errorf("%v", err)
	}
	s.cfg.MostPack = 2 << 10 // one that never ends is ended
	synctest.Test(t, func(t *testing.T) {
		grows := t.TempDir()
		_, err := s.within(t.Context(), grows, func(ctx context.Context) (string, error) {
			for i := 0; ctx.Err() == nil; i++ {
				if i > 100 {
					return "", errors.New("nobody stops it")
				}
				if err := os.WriteFile(filepath.Join(grows, strconv.Itoa(i)), make([]byte, 512), 0o600); err != nil {
					return "", err
				}
				select {
				case <-ctx.Done():
				case <-time.After(fetchLook):
				}
			}
			return "", ctx.Err()
		})
		if err == nil || !strings.Contains(err.Error(), "the commit has more than") {
			t.Errorf("%v", err)
		}
	})
	left, _ := filepath.Glob(filepath.Join(s.cfg.Dir, "work", "*"))
	if len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func TestFetchShowsItsPasswordToItsServerAlone(t *testing.T) {
	s := fetcher(t)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Errorf("asked with %v", r.Header) }))
	defer other.Close()
	seen := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Get("Authorization")
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusFound)
	}))
	defer srv.Close()
	err := s.Fetch(t.Context(), Fetch{URL: srv.URL + "/o/r.git", Ref: "refs/heads/main", Commit: strings.Repeat("a", 40), User: "u", Password: "hush"}, io.Discard, func(string, string) error { return nil })
	if err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("%v", err)
	}
	if want := "Basic " + base64.StdEncoding.EncodeToString([]byte("u:hush")); seen != want {
		t.Errorf("the server saw %q", seen)
	}
}

func TestFetchRefusesWhatGitWouldRun(t *testing.T) {
	s := fetcher(t)
	commit := strings.Repeat("a", 40)
	for _, f := range []Fetch{
		{URL: "ext::sh -c touch% /tmp/x", Ref: "main", Commit: commit}, {URL: "--upload-pack=x", Ref: "main", Commit: commit},
		{URL: "https://-x/", Ref: "main", Commit: commit}, {URL: "https://a:b@example.com/x", Ref: "main", Commit: commit},
		{URL: "https://example.com/x", Ref: "--upload-pack=x", Commit: commit}, {URL: "https://example.com/x", Ref: "a:b", Commit: commit},
		{URL: "https://example.com/x", Ref: "main", Commit: "HEAD"}, {URL: "git://example.com/x", Ref: "main", Commit: commit},
	} {
		if err := s.Fetch(t.Context(), f, io.Discard, func(string, string) error { return errors.New("ran") }); err == nil || strings.HasSuffix(err.Error(), ": ran") || err != nil && err.Error() == "ran" {
			t.Errorf("%+v: %v", f, err)
		}
	}
}
