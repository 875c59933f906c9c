//go:build scenario

package test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tenfold"
	"tenfold/control"
)

// gitRepo is a repository of a developer, which is what Git hosts fetch from too.
type gitRepo struct {
	t   *testing.T
	dir string
}

func newRepo(t *testing.T) *gitRepo {
	r := &gitRepo{t, t.TempDir()}
	r.git("init", "-q", "-b", "main")
	return r
}

func (r *gitRepo) try(args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
		"GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_SSH_COMMAND="+os.Getenv("TEST_GIT_SSH"))
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (r *gitRepo) git(args ...string) string {
	r.t.Helper()
	out, err := r.try(args...)
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return out
}

// commit stores files on a branch and gives the commit's ID.
func (r *gitRepo) commit(branch string, files map[string]string) string {
	r.t.Helper()
	if _, err := r.try("checkout", "-q", branch); err != nil {
		r.git("checkout", "-q", "-b", branch)
	}
	write(r.t, r.dir, files)
	r.git("add", "-A")
	r.git("commit", "-qm", "to "+branch)
	return r.git("rev-parse", "HEAD")
}

// site is an app whose one page says text; its build runs command first.
func site(text, command, extra string) map[string]string {
	return map[string]string{"index.html": text, "tenfold.yaml": "frontends:\n  web: {path: ., test: '" + command + "', build: {command: mkdir -p out && cp index.html out/, output: out}}\n" + extra}
}

var standIn = regexp.MustCompile(`HEXSIGNATURE|SIGNATURE|TOKEN`)

// recorded delivers a recorded payload of a Git host, with some of its words replaced.
func (h *house) recorded(app, name, secret string, swap ...string) int {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "internal", "webhook", "testdata", name+".http"))
	if err != nil {
		h.t.Fatal(err)
	}
	now := time.Now().UTC()
	swap = append([]string{"NOWUNIX", strconv.FormatInt(now.Unix(), 10), "NOWRFC", now.Format(time.RFC3339), "NOWGITLAB", now.Format("2006-01-02 15:04:05 MST")}, swap...)
	head, body, _ := strings.Cut(strings.NewReplacer(swap...).Replace(string(b)), "\n\n")
	body = strings.TrimSpace(body)
	if strings.Contains(head, "x-www-form-urlencoded") {
		body = "payload=" + url.QueryEscape(body)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	io.WriteString(mac, body)
	sum := hex.EncodeToString(mac.Sum(nil))
	r, _ := http.NewRequest("POST", "http://"+h.addr+"/_tenfold/hooks/"+app, strings.NewReader(body))
	r.Host = app + ".localhost"
	for _, line := range strings.Split(head, "\n") {
		k, v, _ := strings.Cut(line, ": ")
		r.Header.Set(k, standIn.ReplaceAllStringFunc(v, func(p string) string {
			return map[string]string{"HEXSIGNATURE": sum, "SIGNATURE": "sha256=" + sum, "TOKEN": secret}[p]
		}))
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// fakeHost is the API of a Git host: it remembers statuses and comments.
type fakeHost struct {
	*httptest.Server
	mu   sync.Mutex
	said []string
}

func newFakeHost(t *testing.T) *fakeHost {
	f := &fakeHost{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		defer f.mu.Unlock()
		if !strings.Contains(r.Header.Get("Authorization")+r.Header.Get("Private-Token"), "hush-hush") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet {
			io.WriteString(w, "[]")
			return
		}
		f.said = append(f.said, r.URL.EscapedPath()+" "+string(b))
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, "{}")
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fakeHost) heard(parts ...string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.said {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(s, p)
		}
		if all {
			return true
		}
	}
	return false
}

// withApp starts a house with another app in it, so that there is somebody to push to.
func withApp(t *testing.T, args ...string) *house {
	h := newHouse(t)
	first := write(t, t.TempDir(), map[string]string{"index.html": "first", "tenfold.yaml": "app: first\nfrontends: {web: {path: ., build: false}}\n"})
	h.must(first, append([]string{"up", "--detach", "--listen", "127.0.0.1:0"}, args...)...)
	info, err := h.client().House(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.addr = info.Listen[0]
	return h
}

func (h *house) previews(app string) map[string]control.Preview {
	h.t.Helper()
	var all []control.Preview
	if err := json.Unmarshal([]byte(h.must("", "preview", "list", "--app", app, "--json")), &all); err != nil {
		h.t.Fatal(err)
	}
	out := map[string]control.Preview{}
	for _, p := range all {
		out[string(p.Env.Env)] = p
	}
	return out
}

// visit asks a host with a password.
func (h *house) visit(host, password string) (int, string) {
	h.t.Helper()
	code, body, _ := h.ask(host, "/", func(r *http.Request) {
		if password != "" {
			r.SetBasicAuth("me", password)
		}
	})
	return code, body
}

// Recorded deliveries of three Git hosts become previews, each behind its password; statuses go back.
func TestPullRequestsHavePreviews(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind, payload, repository, ref string
		swap                           []string
	}{
		{"github", "github-pull-fork", "octo/shop", "refs/pull/7/head", []string{"34c5c7793cb3b279e22454cb6750c80560547b3a", "COMMIT", "stranger/shop", "octo/shop", `"fork":true`, `"fork":false`}},
		{"gitlab", "gitlab-merge", "gitlabhq/gitlab-test", "refs/merge-requests/1/head", []string{"da1560886d4f094c3e6c9ef40349f7d38b5d27d7", "COMMIT", `"source_project_id":14`, `"source_project_id":1`, "ms-viewport", "cart", "awesome_space/awesome_project", "gitlabhq/gitlab-test"}},
		{"gitea", "forgejo-pull", "octo/shop", "refs/pull/3/head", []string{"bffeb74224043ba2feb48d137756c8a9331c449a", "COMMIT"}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			h, origin, host := withApp(t), newRepo(t), newFakeHost(t)
			if _, err := h.client().SetSecret(t.Context(), "shop", "GIT_TOKEN", "hush-hush"); err != nil {
				t.Fatal(err)
			}
			out := h.must("", "git", "connect", "file://"+origin.dir, "--kind", c.kind, "--api", host.URL, "--token", "GIT_TOKEN", "--app", "shop", "--json")
			var hook control.GitConnected
			if err := json.Unmarshal([]byte(out), &hook); err != nil || hook.Secret == "" || !strings.HasSuffix(hook.Webhook, "/_tenfold/hooks/shop") {
				t.Fatalf("connect: %s %v", out, err)
			}
			commit := origin.commit("cart", site("the new cart", "true", ""))
			origin.git("update-ref", c.ref, commit)
			swap := strings.Split(strings.ReplaceAll(strings.Join(c.swap, "\n"), "COMMIT", commit), "\n")
			if code := h.recorded("shop", c.payload, "not the secret, but as long as one", swap...); code != 401 {
				t.Errorf("a forged delivery: %d", code)
			}
			if code := h.recorded("shop", c.payload, hook.Secret, swap...); code != 204 {
				t.Fatalf("a delivery: %d", code)
			}
			if code := h.recorded("shop", c.payload, hook.Secret, swap...); code != 200 {
				t.Errorf("the same again: %d", code)
			}
			if code := h.recorded("nobody", c.payload, hook.Secret, swap...); code != 404 {
				t.Errorf("of an app that is not connected: %d", code)
			}
			eventually(t, "a preview", 30*time.Second, func() bool { return h.previews("shop")["preview/cart"].State == "serving" })
			p := h.previews("shop")["preview/cart"]
			if code, _ := h.visit("cart.shop.localhost", ""); code != 401 {
				t.Errorf("without the password: %d", code)
			}
			if code, body := h.visit("cart.shop.localhost", p.Password); code != 200 || body != "the new cart" {
				t.Errorf("with the password %q: %d %q", p.Password, code, body)
			}
			path := "statuses/" + commit
			state := map[string]string{"gitlab": `"state":"success"`}[c.kind]
			if state == "" {
				state = `"state":"success"`
			}
			eventually(t, "a status", 10*time.Second, func() bool { return host.heard(path, state, "cart.shop.localhost") })
			eventually(t, "a comment", 10*time.Second, func() bool {
				return host.heard("/comments ", "cart.shop.localhost") || host.heard("/notes ", "cart.shop.localhost")
			})
			if host.heard(p.Password) {
				t.Error("the password was posted")
			}
		})
	}
}

// A fork's pull request waits, runs without secrets once it is approved, waits again with its next
// commit, and is gone when it is closed.
func TestForksWaitAndGetNoSecrets(t *testing.T) {
	t.Parallel()
	h, origin, host := withApp(t), newRepo(t), newFakeHost(t)
	for name, value := range map[string]string{"GIT_TOKEN": "hush-hush", "STRIPE_KEY": "sk_live_production"} {
		if _, err := h.client().SetSecret(t.Context(), "shop", tenfold.Name(name), value); err != nil {
			t.Fatal(err)
		}
	}
	var hook control.GitConnected
	json.Unmarshal([]byte(h.must("", "git", "connect", "file://"+origin.dir, "--kind", "github", "--api", host.URL, "--token", "GIT_TOKEN", "--app", "shop", "--json")), &hook)
	if out := h.must("", "git", "connect", "file://"+origin.dir, "--kind", "github", "--api", host.URL, "--token", "GIT_TOKEN", "--app", "shop"); !strings.Contains(out, "Only this machine reaches that address") || !strings.Contains(out, hook.Secret) {
		t.Errorf("connected again, on a machine without a domain: %s", out)
	}
	extra := "secrets: {STRIPE_KEY: , OWN: {generate: 16}}\nedge: {trust: [0.0.0.0/0], routes: {/x: {auth: STRIPE_KEY}}}\ndomain: stolen.example.com\n"
	show := map[string]string{
		"index.html":   "x",
		"tenfold.yaml": "frontends:\n  web: {path: ., uses: [STRIPE_KEY, OWN], build: {command: 'mkdir -p out && echo \"key=${STRIPE_KEY-none} own=${OWN:+some}\" > out/index.html', output: out}}\n" + extra,
	}
	commit := origin.commit("cart", show)
	origin.git("update-ref", "refs/pull/7/head", commit)
	deliver := func(commit string) {
		t.Helper()
		if code := h.recorded("shop", "github-pull-fork", hook.Secret, "34c5c7793cb3b279e22454cb6750c80560547b3a", commit); code != 204 {
			t.Fatalf("a delivery: %d", code)
		}
	}
	waiting := func() bool { return h.previews("shop")["preview/pr-7"].State == "waiting for approval" }
	deliver(commit)
	eventually(t, "it waits", 20*time.Second, waiting)
	eventually(t, "the status says so", 10*time.Second, func() bool { return host.heard(commit, "waiting for approval") })
	if code, _ := h.visit("pr-7.shop.localhost", ""); code != 404 {
		t.Errorf("before it is approved: %d", code)
	}
	if out, code := h.run("preview", "approve", "7", "--app", "shop", "--commit", "0000000"); code == 0 || !strings.Contains(out, "another commit waits") {
		t.Errorf("approved of what nobody read: %d %s", code, out)
	}
	if out := h.must("", "preview", "approve", "7", "--app", "shop", "--commit", commit[:7]); !strings.Contains(out, "is being deployed: ") {
		t.Errorf("approve: %s", out)
	}
	eventually(t, "it serves", 30*time.Second, func() bool { return h.previews("shop")["preview/pr-7"].State == "serving" })
	p := h.previews("shop")["preview/pr-7"]
	if code, body := h.visit("pr-7.shop.localhost", p.Password); code != 200 || strings.TrimSpace(body) != "key=none own=some" {
		t.Errorf("%d %q", code, body)
	}
	if code, _ := h.visit("stolen.example.com", p.Password); code != 404 {
		t.Errorf("a fork took a host name: %d", code)
	}
	next := origin.commit("cart", map[string]string{"more": "x"})
	origin.git("update-ref", "refs/pull/7/head", next)
	deliver(next)
	eventually(t, "its next commit waits", 20*time.Second, waiting)
	if out := h.must("", "secrets", "--app", "shop"); strings.Contains(out, "OWN") {
		t.Errorf("a fork's secret became the app's: %s", out)
	}
	if code := h.recorded("shop", "github-pull-merged", hook.Secret, `"number":8`, `"number":7`); code != 204 {
		t.Fatalf("merged: %d", code)
	}
	eventually(t, "it is gone", 20*time.Second, func() bool { return len(h.previews("shop")) == 0 })
	if code, _ := h.visit("pr-7.shop.localhost", p.Password); code != 404 {
		t.Errorf("after the merge: %d", code)
	}
	big := strings.Repeat("x", 6<<20)
	r, _ := http.NewRequest("POST", "http://"+h.addr+"/_tenfold/hooks/shop", strings.NewReader(big))
	r.Header.Set("X-GitHub-Event", "push")
	if res, err := http.DefaultClient.Do(r); err != nil || res.StatusCode != 413 {
		t.Errorf("six megabytes: %v %v", res, err)
	}
	h.must("", "git", "disconnect", "--app", "shop")
	if code := h.recorded("shop", "github-pull-merged", hook.Secret, `"number":8`, `"number":7`); code != 404 {
		t.Errorf("a delivery to an app that is not connected: %d", code)
	}
}

// Branches go where the manifest says; one of a template has a preview with its own database, which
// goes with the branch. Keys push over SSH.
func TestBranchesAndKeys(t *testing.T) {
	h := withApp(t, "--ssh", "127.0.0.1:0")
	r := newRepo(t)
	key := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ann@laptop", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	t.Setenv("TEST_GIT_SSH", "ssh -i "+key+" -oIdentitiesOnly=yes -oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null -oBatchMode=yes")
	remote := strings.Fields(h.must("", "git", "remote", "pages", "--ssh"))
	r.git("remote", "add", "tenfold", remote[len(remote)-1])
	environments := "databases: [db]\nenvironments:\n  staging: {branch: develop}\n  preview: {branch: [feature/*, pull-requests], keep: 2h}\n"
	r.commit("main", site("main", "true", environments))
	if out, err := r.try("push", "tenfold", "main"); err == nil {
		t.Fatalf("pushed with a key that nobody knows: %s", out)
	}
	if out := h.must("", "git", "keys", "add", key+".pub"); !strings.Contains(out, "ann@laptop may push") {
		t.Errorf("keys add: %s", out)
	}
	if out := r.git("push", "tenfold", "main"); !strings.Contains(out, "pages is up") {
		t.Errorf("push: %s", out)
	}
	r.commit("develop", map[string]string{"index.html": "develop"})
	if out := r.git("push", "tenfold", "develop"); !strings.Contains(out, "staging is up: http://staging.pages.localhost") {
		t.Errorf("push of develop: %s", out)
	}
	r.commit("feature/Fix_Cart", map[string]string{"index.html": "a better cart"})
	out := r.git("push", "tenfold", "feature/Fix_Cart")
	told := regexp.MustCompile(`preview/(feature-fix-cart-[0-9a-f]{5}) is up: http://(\S+?):\d+`).FindStringSubmatch(out)
	password := regexp.MustCompile(`its password: (\S+)`).FindStringSubmatch(out)
	if told == nil || password == nil {
		t.Fatalf("push of a feature: %s", out)
	}
	if code, _ := h.visit(told[2], ""); code != 401 {
		t.Errorf("without the password: %d", code)
	}
	for host, want := range map[string]string{told[2]: "a better cart", "pages.localhost": "main", "staging.pages.localhost": "develop"} {
		if code, body := h.visit(host, password[1]); code != 200 || body != want {
			t.Errorf("%s: %d %q, want %q", host, code, body, want)
		}
	}
	if p := h.previews("pages")["preview/"+told[1]]; time.Until(p.Expires) > 2*time.Hour || time.Until(p.Expires) < time.Hour {
		t.Errorf("it is kept until %v", p.Expires)
	}
	if out := h.must("", "status", "--app", "pages", "--env", "preview/"+told[1]); !strings.Contains(out, "PostgreSQL") {
		t.Errorf("no database of its own: %s", out)
	}
	if out, err := r.try("push", "tenfold", ":develop"); err == nil || !strings.Contains(out, "serves as staging") {
		t.Errorf("removing a branch that serves: %v %s", err, out)
	}
	if out := r.git("push", "tenfold", ":feature/Fix_Cart"); !strings.Contains(out, "is removed") {
		t.Errorf("removing the branch: %s", out)
	}
	if code, _ := h.visit(told[2], password[1]); code != 404 {
		t.Errorf("after its branch: %d", code)
	}
	if out := h.must("", "kept"); strings.Contains(out, told[1]) {
		t.Errorf("its database is kept: %s", out)
	}
	r.commit("other", map[string]string{"index.html": "other"})
	if out := r.git("push", "tenfold", "other"); !strings.Contains(out, "other is kept") {
		t.Errorf("a branch of nowhere: %s", out)
	}
	h.must("", "git", "keys", "remove", "ann@laptop")
	if out, err := r.try("push", "tenfold", "other:again"); err == nil {
		t.Errorf("pushed with a key that was removed: %s", out)
	}
}
