package gitserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const token = "a-token-of-some-length"

// world is a server with a client's repository.
type world struct {
	t    *testing.T
	s    *Server
	http *httptest.Server
	dir  string // the client's

	mu     sync.Mutex
	pushes []Push
	on     func(ctx context.Context, p Push, out io.Writer) error
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	cfg := Config{Dir: t.TempDir(), Auth: TokenAuth(token), Push: func(ctx context.Context, p Push, out io.Writer) error {
		w.mu.Lock()
		w.pushes = append(w.pushes, p)
		on := w.on
		w.mu.Unlock()
		if on == nil {
			return nil
		}
		return on(ctx, p, out)
	}}
	if change != nil {
		change(&cfg)
	}
	var err error
	if w.s, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	w.http = httptest.NewServer(w.s)
	t.Cleanup(w.http.Close)
	w.must("init", "--quiet", "--initial-branch=main")
	return w
}

func (w *world) url(app string) string {
	return strings.Replace(w.http.URL, "http://", "http://x:"+token+"@", 1) + "/" + app + ".git"
}

func (w *world) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "git", args...)
	c.Dir = w.dir
	c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org", "HOME="+w.dir)
	ownGroup(c)
	return c
}

func (w *world) git(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := w.command(ctx, args...).CombinedOutput()
	return string(out), err
}

func (w *world) must(args ...string) string {
	w.t.Helper()
	out, err := w.git(args...)
	if err != nil {
		w.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(out)
}

func (w *world) commit(name, text string) string {
	w.t.Helper()
	p := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.must("add", "--all")
	w.must("commit", "--quiet", "--message", name)
	return w.must("rev-parse", "HEAD")
}

// tip is what the server has.
func (w *world) tip(app, branch string) string {
	w.t.Helper()
	out, err := w.s.tip(w.t.Context(), filepath.Join(w.s.cfg.Dir, "repos", app+".git"), "refs/heads/"+branch)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// eventually waits for a condition of the world outside the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(15 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// clean says that no push left anything in the server's folders.
func (w *world) clean() bool {
	work, _ := os.ReadDir(filepath.Join(w.s.cfg.Dir, "work"))
	quarantine, _ := filepath.Glob(filepath.Join(w.s.cfg.Dir, "repos", "*", "objects", "tmp_objdir*"))
	return len(work) == 0 && len(quarantine) == 0
}

func TestPushDeploysAndShowsItsLog(t *testing.T) {
	w := newWorld(t, nil)
	w.on = func(_ context.Context, p Push, out io.Writer) error {
		if p.Dir == "" {
			return nil
		}
		b, err := os.ReadFile(filepath.Join(p.Dir, "site", "index.html"))
		fmt.Fprintf(out, "building %s of %s for %s: %s\nno end of line", p.Branch, p.App, p.By, b)
		if _, serr := os.Stat(filepath.Join(p.Dir, "secret")); serr == nil {
			return errors.New("a link out of the project was kept")
		}
		fmt.Fprintf(out, "\n=yes\n\x1b]0;title\x07\x1b[2Jend")
		return err
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(w.dir, "secret")); err != nil {
		t.Fatal(err)
	}
	// What git archive would leave out is deployed.
	if err := os.WriteFile(filepath.Join(w.dir, ".gitattributes"), []byte("site export-ignore\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	one := w.commit("site/index.html", "hello")
	out := w.must("push", w.url("shop"), "main")
	for _, want := range []string{"remote: building main of shop for x: hello", "remote: no end of line", "remote: =yes", "remote: warning: secret is a link", "main -> main"} {
		if !strings.Contains(out, want) {
			t.Errorf("the pusher does not see %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") || strings.Contains(out, "\x07") {
		t.Errorf("the pusher's terminal gets %q", out)
	}
	if p := w.pushes[0]; p.Old != "" || p.New != one || w.tip("shop", "main") != one {
		t.Errorf("pushed %+v, the server has %s", p, w.tip("shop", "main"))
	}
	two := w.commit("site/index.html", "hello again")
	w.must("push", w.url("shop"), "main", "HEAD:refs/tags/v1")
	if p := w.pushes[1]; p.Old != one || p.New != two {
		t.Errorf("pushed %+v", p)
	}
	w.must("push", w.url("shop"), "main:feature/cart")
	w.must("push", w.url("shop"), ":feature/cart")
	if p := w.pushes[3]; p.Branch != "feature/cart" || p.Old != two || p.New != "" || p.Dir != "" {
		t.Errorf("removed %+v", p)
	}
	if out, err := w.git("push", w.url("shop"), "main:a", "main:b"); err == nil || !strings.Contains(out, "one branch") {
		t.Errorf("two branches at once: %v\n%s", err, out)
	}
	if out, err := w.git("push", w.url("shop"), "main:refs/other/x"); err == nil || !strings.Contains(out, "neither a branch nor a tag") {
		t.Errorf("another ref: %v\n%s", err, out)
	}
	to := filepath.Join(t.TempDir(), "clone")
	w.must("clone", "--quiet", w.url("shop"), to)
	if b, err := os.ReadFile(filepath.Join(to, "site", "index.html")); string(b) != "hello again" || err != nil {
		t.Errorf("cloned %q, %v", b, err)
	}
	if len(w.pushes) != 4 || !w.clean() {
		t.Errorf("%d pushes, clean: %v", len(w.pushes), w.clean())
	}
}

func TestFailingTestStopsThePush(t *testing.T) {
	w := newWorld(t, nil)
	fail := true
	w.on = func(_ context.Context, _ Push, out io.Writer) error {
		fmt.Fprintln(out, "--- FAIL: TestCart")
		if fail {
			return errors.New("the unit tests fail\nsee above")
		}
		return nil
	}
	one := w.commit("a", "a")
	out, err := w.git("push", w.url("shop"), "main")
	if err == nil || !strings.Contains(out, "remote: --- FAIL: TestCart") || !strings.Contains(out, "remote: error: the unit tests fail") || !strings.Contains(out, "pre-receive hook declined") {
		t.Errorf("%v:\n%s", err, out)
	}
	if w.tip("shop", "main") != "" || !w.clean() {
		t.Error("a refused push left something")
	}
	fail = false
	w.must("push", w.url("shop"), "main")
	if w.tip("shop", "main") != one {
		t.Error("the branch did not move")
	}
}

func TestOnePushOfAnAppAtATime(t *testing.T) {
	w := newWorld(t, nil)
	begun, goOn := make(chan bool, 3), make(chan bool)
	w.on = func(_ context.Context, p Push, _ io.Writer) error {
		begun <- true
		<-goOn
		return nil
	}
	w.commit("a", "a")
	type result struct {
		out string
		err error
	}
	first, second := make(chan result, 1), make(chan result, 1)
	push := func(to chan result, spec string) {
		out, err := w.git("push", w.url("shop"), spec)
		to <- result{out, err}
	}
	go push(first, "main")
	<-begun
	// The same branch: when its turn comes, the branch has moved.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := w.command(ctx, "push", w.url("shop"), "main")
	said, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	for b := make([]byte, 256); !strings.Contains(seen.String(), "another push to shop is under way"); {
		n, err := said.Read(b)
		seen.Write(b[:n])
		if err != nil {
			t.Fatalf("the second push was not told that it waits: %s", &seen)
		}
	}
	go push(second, "main:other")
	select {
	case <-begun:
		t.Error("two pushes of an app at once")
	default:
	}
	goOn <- true
	if r := <-first; r.err != nil {
		t.Errorf("the first push: %v\n%s", r.err, r.out)
	}
	rest, _ := io.ReadAll(said)
	if err := c.Wait(); err == nil || !strings.Contains(string(rest), "was moved by another push") {
		t.Errorf("the second push of the same branch: %v\n%s", err, rest)
	}
	<-begun
	goOn <- true
	if r := <-second; r.err != nil {
		t.Errorf("the push of another branch: %v\n%s", r.err, r.out)
	}
}

func TestDyingClientLeavesNothing(t *testing.T) {
	w := newWorld(t, nil)
	begun, ended := make(chan bool, 1), make(chan error, 1)
	w.on = func(ctx context.Context, p Push, _ io.Writer) error {
		// A build makes folders that cannot be written to.
		cache := filepath.Join(p.Dir, "cache")
		err := os.MkdirAll(filepath.Join(cache, "mod"), 0o755)
		err = errors.Join(err, os.Chmod(filepath.Join(cache, "mod"), 0o500), os.Chmod(cache, 0o500))
		if err != nil {
			t.Error(err)
		}
		begun <- true
		<-ctx.Done()
		ended <- ctx.Err()
		return nil
	}
	w.commit("a", "a")
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	c := w.command(ctx, "push", w.url("shop"), "main")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	<-begun
	kill()
	_ = c.Wait()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(15 * time.Second):
		t.Fatal("the deploy goes on without its pusher")
	}
	eventually(t, "nothing is left", w.clean)
	if w.tip("shop", "main") != "" {
		t.Error("the branch moved without its pusher")
	}
	w.on = nil
	w.must("push", w.url("shop"), "main")
}

func TestLimits(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MostPack, c.MostTime = 100<<10, 2*time.Second })
	var noise strings.Builder
	for i := range uint32(60_000) {
		fmt.Fprintf(&noise, "%08x", i*2654435761)
	}
	w.commit("large", noise.String())
	if out, err := w.git("push", w.url("shop"), "main"); err == nil || len(w.pushes) > 0 {
		t.Errorf("a large pack: %v\n%s", err, out)
	}
	w.must("checkout", "--quiet", "--orphan", "small")
	w.must("rm", "--quiet", "-r", "--cached", ".")
	if err := os.Remove(filepath.Join(w.dir, "large")); err != nil {
		t.Fatal(err)
	}
	w.commit("a", "a")
	w.on = func(ctx context.Context, _ Push, _ io.Writer) error { <-ctx.Done(); return ctx.Err() }
	if out, err := w.git("push", w.url("shop"), "small"); err == nil {
		t.Errorf("a push without end: %s", out)
	}
	eventually(t, "nothing is left", w.clean)
}

func TestOnlyKnownUsersAndOurOwnPaths(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Allow = func(app, _ string) error {
			if app == "theirs" {
				return errors.New("not yours")
			}
			return nil
		}
	})
	w.commit("a", "a")
	if out, err := w.git("push", w.http.URL+"/shop.git", "main"); err == nil {
		t.Errorf("without a token: %s", out)
	}
	if out, err := w.git("push", strings.Replace(w.url("shop"), token, "wrong", 1), "main"); err == nil {
		t.Errorf("with another token: %s", out)
	}
	if out, err := w.git("push", w.url("theirs"), "main"); err == nil || !strings.Contains(out, "403") {
		t.Errorf("another's app: %v\n%s", err, out)
	}
	for path, want := range map[string]int{
		"/../../x.git/info/refs?service=git-upload-pack": 404, "/%2e%2e%2fx.git/info/refs?service=git-upload-pack": 404, "/a/b.git/info/refs?service=git-upload-pack": 404,
		"/shop.git/HEAD": 404, "/shop.git/info/refs": 403, "/shop.git/info/refs?service=git-upload-archive": 403, "/shop.git/objects/../../../keys.json": 404,
		"/Shop.git/info/refs?service=git-upload-pack": 404, "/-x.git/info/refs?service=git-upload-pack": 404, "/shop.git/git-receive-pack": 405,
		"/shop.git/info/refs?service=git-upload-pack": 200,
	} {
		req := httptest.NewRequest("GET", "http://x"+path, nil)
		req.SetBasicAuth("x", token)
		rec := httptest.NewRecorder()
		w.s.ServeHTTP(rec, req)
		if rec.Code != want {
			t.Errorf("GET %s: %d, want %d", path, rec.Code, want)
		}
	}
	post := httptest.NewRequest("POST", "/shop.git/git-receive-pack", strings.NewReader("0000"))
	post.SetBasicAuth("x", token)
	rec := httptest.NewRecorder()
	if w.s.ServeHTTP(rec, post); rec.Code != http.StatusUnsupportedMediaType {
		t.Errorf("a form's POST: %d", rec.Code)
	}
	repos, _ := os.ReadDir(filepath.Join(w.s.cfg.Dir, "repos"))
	if len(repos) != 1 || len(w.pushes) != 0 {
		t.Errorf("repositories %v, pushes %v", repos, w.pushes)
	}
}

func TestNewClearsWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"work/shop-1/files", "repos/.new-1/refs", "repos/shop.git/objects/tmp_objdir-incoming-x"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := New(Config{Dir: dir, Push: func(context.Context, Push, io.Writer) error { return nil }}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"work/shop-1", "repos/.new-1", "repos/shop.git/objects/tmp_objdir-incoming-x"} {
		if _, err := os.Stat(filepath.Join(dir, d)); err == nil {
			t.Errorf("%s is left", d)
		}
	}
}

func FuzzProgressIsLinesAndNeverAVerdict(f *testing.F) {
	for _, s := range []string{"a\nb", "=yes\n", "\r=no\r\n", "\x1b]0;x\x07", "\x1b[31mred\x1b[0m", strings.Repeat("x", 3*longest), "\x1b", "\x1b["} {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, s string, at int) {
		var got bytes.Buffer
		p := &progress{to: &got}
		at = max(0, min(len(s), at))
		for _, part := range []string{s[:at], s[at:]} {
			if n, err := p.Write([]byte(part)); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		p.flush()
		for _, l := range strings.SplitAfter(got.String(), "\n") {
			if l != "" && (l[0] != '.' || !strings.HasSuffix(l, "\n")) {
				t.Errorf("%q gives the line %q", s, l)
			}
		}
	})
}

func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{"git-receive-pack '/shop.git'", "git upload-pack shop", "git-upload-pack \"shop.git\"", "git-receive-pack '../x'", "sh -c id", "git-receive-pack"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if service, app, ok := parseCommand(s); ok && (service != "receive-pack" && service != "upload-pack" || strings.ContainsAny(app, "./\\") || app[0] == '-') {
			t.Errorf("%q: %s %q", s, service, app)
		}
	})
}
