package webhook

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const secret = "It's a Secret to Everybody"

// recorded is a delivery of testdata: headers and body as the provider's documentation has them, the
// body without the fields that are not read; times and signature are put in here.
func recorded(t testing.TB, name string) *http.Request {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".http"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	text := strings.NewReplacer("NOWUNIX", strconv.FormatInt(now.Unix(), 10), "NOWRFC", now.Format(time.RFC3339),
		"NOWGITLAB", now.Format("2006-01-02 15:04:05 MST"), "TOKEN", secret).Replace(string(b))
	head, body, _ := strings.Cut(text, "\n\n")
	h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(head + "\r\n\r\n"))).ReadMIMEHeader()
	if err != nil {
		t.Fatal(err)
	}
	if h.Get("Content-Type") == "application/x-www-form-urlencoded" {
		body = url.Values{"payload": {body}}.Encode()
	}
	return signed(http.Header(h), body)
}

func signed(h http.Header, body string) *http.Request {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	sum := hex.EncodeToString(mac.Sum(nil))
	for k := range h {
		h[k][0] = strings.Replace(strings.Replace(h[k][0], "HEXSIGNATURE", sum, 1), "SIGNATURE", "sha256="+sum, 1)
	}
	req := httptest.NewRequest("POST", "/hook", strings.NewReader(body))
	req.Header = h
	return req
}

func receiver(t testing.TB, c Config) *Receiver {
	t.Helper()
	c.Secret = []byte(secret)
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRecordedDeliveries(t *testing.T) {
	const g, b = "https://github.com/octo/shop", "https://bitbucket.org/team_name/repo_name"
	for name, want := range map[string][]Event{
		"github-push":        {{Provider: GitHub, Kind: Push, Action: Updated, Repository: "baxterthehacker/public-repo", CloneURL: "https://github.com/baxterthehacker/public-repo.git", Ref: "refs/heads/feature/cart", Branch: "feature/cart", Commit: "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c", Before: "6113728f27ae82c7b1a177c8d03f9e96e0adf246", Title: "Update README.md", Author: "baxterthehacker", URL: "https://github.com/baxterthehacker/public-repo"}},
		"github-pull-fork":   {{Provider: GitHub, Kind: PullRequest, Action: Updated, Repository: "octo/shop", CloneURL: g + ".git", Ref: "refs/pull/7/head", Branch: "cart", Base: "main", Commit: "34c5c7793cb3b279e22454cb6750c80560547b3a", PullRequest: 7, Fork: true, Title: "A better cart", Author: "stranger", URL: g + "/pull/7"}},
		"github-pull-merged": {{Provider: GitHub, Kind: PullRequest, Action: Merged, Repository: "octo/shop", CloneURL: g + ".git", Ref: "refs/pull/8/head", Branch: "cart", Base: "main", Commit: "34c5c7793cb3b279e22454cb6750c80560547b3a", PullRequest: 8, Title: "Cart", Author: "octocat", URL: g + "/pull/8"}},
		"github-ping":        {{Provider: GitHub, Kind: Other}},
		"gitlab-push":        {{Provider: GitLab, Kind: Push, Action: Updated, Repository: "mike/diaspora", CloneURL: "http://example.com/mike/diaspora.git", Ref: "refs/heads/master", Branch: "master", Commit: "da1560886d4f094c3e6c9ef40349f7d38b5d27d7", Before: "95790bf891e76fee5e1747ab589903a6a1f80f22", Title: "fixed readme", Author: "jsmith", URL: "http://example.com/mike/diaspora"}},
		"gitlab-merge":       {{Provider: GitLab, Kind: PullRequest, Action: Opened, Repository: "gitlabhq/gitlab-test", CloneURL: "http://example.com/gitlabhq/gitlab-test.git", Ref: "refs/merge-requests/1/head", Branch: "ms-viewport", Base: "master", Commit: "da1560886d4f094c3e6c9ef40349f7d38b5d27d7", PullRequest: 1, Fork: true, Title: "MS-Viewport", Author: "root", URL: "http://example.com/gitlabhq/gitlab-test/merge_requests/1"}},
		"gitea-push":         {{Provider: Gitea, Kind: Push, Action: Updated, Repository: "gitea/webhooks", CloneURL: "http://localhost:3000/gitea/webhooks.git", Ref: "refs/heads/develop", Branch: "develop", Commit: "bffeb74224043ba2feb48d137756c8a9331c449a", Before: "28e1879d029cb852e4844d9c718537df08844e03", Title: "Webhooks Yay!", Author: "gitea", URL: "http://localhost:3000/gitea/webhooks"}},
		"gitea-delete":       {{Provider: Gitea, Kind: Push, Action: Deleted, Repository: "octo/shop", CloneURL: "https://gitea.example.org/octo/shop.git", Ref: "refs/heads/cart", Branch: "cart", Author: "ana", URL: "https://gitea.example.org/octo/shop"}},
		"forgejo-pull":       {{Provider: Gitea, Kind: PullRequest, Action: Updated, Repository: "octo/shop", CloneURL: "https://forge.example.org/octo/shop.git", Ref: "refs/pull/3/head", Branch: "cart", Base: "main", Commit: "bffeb74224043ba2feb48d137756c8a9331c449a", PullRequest: 3, Title: "Cart", Author: "ana", URL: "https://forge.example.org/octo/shop/pulls/3"}},
		"bitbucket-push": {
			{Provider: Bitbucket, Kind: Push, Action: Updated, Repository: "team_name/repo_name", CloneURL: b + ".git", Ref: "refs/heads/name-of-branch", Branch: "name-of-branch", Commit: "709d658dc5b6d6afcd46049c2f332ee3f515a67d", Before: "1e65c05c1d5171631d92438a13901ca7dae9618c", Title: "new commit message", Author: "emma", URL: b},
			{Provider: Bitbucket, Kind: Push, Action: Deleted, Repository: "team_name/repo_name", CloneURL: b + ".git", Ref: "refs/heads/old-idea", Branch: "old-idea", Before: "1e65c05c1d5171631d92438a13901ca7dae9618c", Author: "emma", URL: b},
		},
		"bitbucket-pull": {{Provider: Bitbucket, Kind: PullRequest, Action: Merged, Repository: "team_name/repo_name", CloneURL: "https://bitbucket.org/emma/repo_name.git", Ref: "refs/heads/branch2", Branch: "branch2", Base: "master", Commit: "d3022fc0ca3d", PullRequest: 1, Fork: true, Title: "Title of pull request", Author: "emma", URL: b + "/pull-requests/1"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := receiver(t, Config{})
			got, err := r.Receive(recorded(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if got.Delivery == "" {
				t.Error("no delivery ID")
			}
			for i := range got.Events {
				e := &got.Events[i]
				if e.Delivery != got.Delivery || !e.At.IsZero() && time.Since(e.At) > time.Minute {
					t.Errorf("delivery %q at %s", e.Delivery, e.At)
				}
				e.Delivery, e.At = "", time.Time{}
			}
			if !reflect.DeepEqual(got.Events, want) {
				t.Errorf("got  %+v\nwant %+v", got.Events, want)
			}
			// Replayed under another ID, forged, and oversized.
			again := recorded(t, name)
			for _, h := range []string{"X-GitHub-Delivery", "X-Gitea-Delivery", "X-Forgejo-Delivery", "X-Request-UUID"} {
				again.Header.Set(h, "another")
			}
			if _, err := r.Receive(again); want[0].Kind != Other && (!errors.Is(err, ErrReplayed) || StatusOf(err) != 200) {
				t.Errorf("replayed: %v", err)
			}
			other := receiver(t, Config{})
			other.cfg.Secret = []byte("another secret altogether")
			if _, err := other.Receive(recorded(t, name)); !errors.Is(err, ErrForged) || StatusOf(err) != 401 {
				t.Errorf("another secret: %v", err)
			}
			if _, err := receiver(t, Config{Most: 50}).Receive(recorded(t, name)); !errors.Is(err, ErrTooLarge) || StatusOf(err) != 413 {
				t.Errorf("oversized: %v", err)
			}
			long := recorded(t, name)
			long.ContentLength = -1
			if _, err := receiver(t, Config{Most: 50}).Receive(long); !errors.Is(err, ErrTooLarge) {
				t.Errorf("oversized, of a length not told: %v", err)
			}
		})
	}
}

func TestForgedSignatures(t *testing.T) {
	for name, forge := range map[string]func(http.Header){
		"none":  func(h http.Header) { h.Del("X-Hub-Signature-256") },
		"SHA-1": func(h http.Header) { h.Set("X-Hub-Signature-256", "sha1=00") },
		"no method": func(h http.Header) {
			h.Set("X-Hub-Signature-256", strings.TrimPrefix(h.Get("X-Hub-Signature-256"), "sha256="))
		},
		"empty":              func(h http.Header) { h.Set("X-Hub-Signature-256", "sha256=") },
		"cut":                func(h http.Header) { h.Set("X-Hub-Signature-256", h.Get("X-Hub-Signature-256")[:60]) },
		"another provider's": func(h http.Header) { h.Set("X-Gitlab-Event", "Push Hook") },
	} {
		req := recorded(t, "github-push")
		forge(req.Header)
		if _, err := receiver(t, Config{}).Receive(req); !errors.Is(err, ErrForged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Config{Secret: []byte("short")}); err == nil {
		t.Error("a short secret is taken")
	}
	if _, err := receiver(t, Config{}).Receive(httptest.NewRequest("POST", "/", strings.NewReader("{}"))); !errors.Is(err, ErrUnsupported) {
		t.Errorf("without a provider's headers: %v", err)
	}
}

// TestMalformedIsRefused puts into a genuine delivery what would become a git argument, a file or a URL.
func TestMalformedIsRefused(t *testing.T) {
	for _, swap := range [][2]string{
		{"refs/heads/feature/cart", "refs/heads/--upload-pack=x"}, {"refs/heads/feature/cart", "refs/heads/a/../b"},
		{"refs/heads/feature/cart", "refs/heads/a b"}, {"refs/heads/feature/cart", "refs/heads/"},
		{"https://github.com/baxterthehacker/public-repo.git", "ext::sh -c id"}, {"https://github.com/baxterthehacker/public-repo.git", "file:///etc"},
		{`"full_name":"baxterthehacker/public-repo"`, `"full_name":"../../etc"`}, {`"full_name":"baxterthehacker/public-repo"`, `"full_name":"shop"`},
		{`"after":"0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c"`, `"after":"HEAD"`}, {`"after":"0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c"`, `"after":7`},
	} {
		b, _ := os.ReadFile("testdata/github-push.http")
		_, body, _ := strings.Cut(string(b), "\n\n")
		body = strings.Replace(strings.Replace(body, "NOWUNIX", "0", 1), swap[0], swap[1], 1)
		h := http.Header{"X-Github-Event": {"push"}, "X-Hub-Signature-256": {"SIGNATURE"}}
		if _, err := receiver(t, Config{}).Receive(signed(h, body)); !errors.Is(err, ErrMalformed) || StatusOf(err) != 400 {
			t.Errorf("%s: %v", swap[1], err)
		}
	}
}

func TestRemovedBranchesAndTags(t *testing.T) {
	const zeros = "0000000000000000000000000000000000000000"
	for name, c := range map[string]struct {
		old, new string
		want     Event
	}{
		"github-push": {`"after":"0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c","created":false,"deleted":false`, `"after":"` + zeros + `","created":false,"deleted":true`, Event{Kind: Push, Action: Deleted, Branch: "feature/cart"}},
		"gitlab-push": {`"after":"da1560886d4f094c3e6c9ef40349f7d38b5d27d7"`, `"after":"` + zeros + `"`, Event{Kind: Push, Action: Deleted, Branch: "master"}},
		"gitea-push":  {"refs/heads/develop", "refs/tags/v1", Event{Kind: Other}},
	} {
		req := recorded(t, name)
		body := new(bytes.Buffer)
		_, _ = body.ReadFrom(req.Body)
		changed := strings.Replace(body.String(), c.old, c.new, 1)
		if changed == body.String() {
			t.Fatalf("%s: nothing to change", name)
		}
		for _, h := range []string{"X-Hub-Signature-256", "X-Gitea-Signature"} {
			if req.Header.Get(h) != "" {
				req.Header.Set(h, map[bool]string{true: "HEXSIGNATURE", false: "SIGNATURE"}[h == "X-Gitea-Signature"])
			}
		}
		got, err := receiver(t, Config{}).Receive(signed(req.Header, changed))
		if err != nil || len(got.Events) != 1 {
			t.Errorf("%s: %+v, %v", name, got, err)
			continue
		}
		if e := got.Events[0]; e.Kind != c.want.Kind || e.Action != c.want.Action || e.Branch != c.want.Branch || e.Commit != "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func TestReplaysAreKnownAfterARestartAndForABoundedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "deliveries.json")
		r := receiver(t, Config{File: file, Remember: 2})
		first := recorded(t, "github-push")
		body := new(bytes.Buffer)
		_, _ = body.ReadFrom(first.Body)
		send := func(r *Receiver) error {
			_, err := r.Receive(signed(first.Header.Clone(), body.String()))
			return err
		}
		got, err := r.Receive(signed(first.Header.Clone(), body.String()))
		if err != nil {
			t.Fatal(err)
		}
		if err := send(receiver(t, Config{File: file})); !errors.Is(err, ErrReplayed) {
			t.Errorf("after a restart: %v", err)
		}
		if err := r.Forget(got); err != nil {
			t.Fatal(err)
		}
		if err := send(r); err != nil {
			t.Errorf("after a failure of ours: %v", err)
		}
		time.Sleep(73 * time.Hour)
		for _, n := range []string{"gitea-push", "bitbucket-push", "github-pull-merged"} {
			if _, err := r.Receive(recorded(t, n)); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(r.seen.seen); n != 2 {
			t.Errorf("%d deliveries are remembered, want 2", n)
		}
		if err := send(r); !errors.Is(err, ErrStale) {
			t.Errorf("when it is forgotten: %v", err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(file, "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Receive(recorded(t, "gitlab-push")); err == nil || errors.Is(err, ErrReplayed) || StatusOf(err) != 500 {
			t.Errorf("when it cannot be remembered: %v", err)
		}
	})
}

func FuzzReceive(f *testing.F) {
	all, _ := filepath.Glob("testdata/*.http")
	for _, p := range all {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		_, body, _ := strings.Cut(string(b), "\n\n")
		for i := range 4 {
			f.Add(uint8(i), strings.NewReplacer("NOWUNIX", "0", "NOWRFC", "2100-01-01T00:00:00Z", "NOWGITLAB", "2100-01-01 00:00:00 UTC").Replace(body))
		}
	}
	r := receiver(f, Config{Remember: 4})
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		h := []http.Header{
			{"X-Github-Event": {"push"}, "X-Hub-Signature-256": {"SIGNATURE"}}, {"X-Github-Event": {"pull_request"}, "X-Hub-Signature-256": {"SIGNATURE"}},
			{"X-Gitlab-Event": {"x"}, "X-Gitlab-Token": {secret}}, {"X-Event-Key": {"repo:push"}, "X-Hub-Signature": {"SIGNATURE"}},
			{"X-Event-Key": {"pullrequest:created"}, "X-Hub-Signature": {"SIGNATURE"}}, {"X-Gitea-Event": {"delete"}, "X-Gitea-Signature": {"HEXSIGNATURE"}},
		}[int(which)%6]
		got, err := r.Receive(signed(h, body))
		if err != nil {
			if StatusOf(err) == 500 || errors.Is(err, ErrForged) {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		for _, e := range got.Events {
			if e.Kind != Other && (!validBranch(e.Branch) || strings.HasPrefix(e.CloneURL, "-") || !validURL(e.CloneURL) || strings.Contains(e.Repository, "..")) {
				t.Errorf("%q gives %+v", body, e)
			}
		}
	})
}
