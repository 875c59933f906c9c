package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const sha = "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c"

// provider is the part of a provider's API that is documented: it keeps comments and notes requests.
type provider struct {
	kind     Provider
	log      []string // method and path of each request
	bodies   []map[string]any
	comments map[string]string // by path
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := map[Provider][2]string{
		GitHub: {"Authorization", "Bearer t0ken"}, GitLab: {"Private-Token", "t0ken"}, Gitea: {"Authorization", "token t0ken"}, Bitbucket: {"Authorization", "Bearer t0ken"},
	}[p.kind]
	if r.Header.Get(token[0]) != token[1] || p.kind == GitHub && r.Header.Get("X-GitHub-Api-Version") == "" {
		http.Error(w, "bad credentials", http.StatusUnauthorized)
		return
	}
	p.log = append(p.log, r.Method+" "+r.URL.EscapedPath())
	if r.Method == http.MethodGet {
		var all []map[string]any
		for _, text := range p.comments {
			c := map[string]any{"id": 41, "body": text}
			if p.kind == Bitbucket {
				c = map[string]any{"id": 41, "content": map[string]any{"raw": text}}
			}
			all = append(all, map[string]any{"id": 40, "body": "somebody else's"}, c)
		}
		if p.kind == Bitbucket {
			_ = json.NewEncoder(w).Encode(map[string]any{"values": all})
			return
		}
		_ = json.NewEncoder(w).Encode(all)
		return
	}
	b, _ := io.ReadAll(r.Body)
	body := map[string]any{}
	if err := json.Unmarshal(b, &body); err != nil || r.Header.Get("Content-Type") != "application/json" {
		http.Error(w, "not JSON", http.StatusBadRequest)
		return
	}
	p.bodies = append(p.bodies, body)
	if text, ok := body["body"].(string); ok {
		p.comments["one"] = text
	} else if c, ok := body["content"].(map[string]any); ok {
		p.comments["one"] = c["raw"].(string)
	}
	w.WriteHeader(http.StatusCreated)
	fmt.Fprint(w, "{}")
}

func TestPostAsDocumented(t *testing.T) {
	for kind, want := range map[Provider]struct {
		status, list, post, edit, state, name string
	}{
		GitHub:    {"POST /repos/octo/shop/statuses/" + sha, "GET /repos/octo/shop/issues/7/comments", "POST /repos/octo/shop/issues/7/comments", "PATCH /repos/octo/shop/issues/comments/41", "failure", "context"},
		Gitea:     {"POST /repos/octo/shop/statuses/" + sha, "GET /repos/octo/shop/issues/7/comments", "POST /repos/octo/shop/issues/7/comments", "PATCH /repos/octo/shop/issues/comments/41", "failure", "context"},
		GitLab:    {"POST /projects/octo%2Fshop/statuses/" + sha, "GET /projects/octo%2Fshop/merge_requests/7/notes", "POST /projects/octo%2Fshop/merge_requests/7/notes", "PUT /projects/octo%2Fshop/merge_requests/7/notes/41", "failed", "name"},
		Bitbucket: {"POST /repositories/octo/shop/commit/" + sha + "/statuses/build", "GET /repositories/octo/shop/pullrequests/7/comments", "POST /repositories/octo/shop/pullrequests/7/comments", "PUT /repositories/octo/shop/pullrequests/7/comments/41", "FAILED", "key"},
	} {
		t.Run(string(kind), func(t *testing.T) {
			api := &provider{kind: kind, comments: map[string]string{}}
			s := httptest.NewServer(api)
			defer s.Close()
			p := Poster{Provider: kind, Base: s.URL + "/", Token: "t0ken"}
			if err := p.Status(t.Context(), "octo/shop", Status{Commit: sha, State: Failure, URL: "https://x.example.org/", Description: strings.Repeat("ä", 200)}); err != nil {
				t.Fatal(err)
			}
			b := api.bodies[0]
			if d := b["description"].(string); len([]rune(d)) != 140 || b["state"] != want.state || b[want.name] != "tenfold" || b["target_url"] != "https://x.example.org/" && b["url"] != "https://x.example.org/" {
				t.Errorf("status sent as %v", b)
			}
			for i, text := range []string{"preview: https://cart.shop.example.org", "preview 2"} {
				if err := p.Comment(t.Context(), "octo/shop", 7, "preview", text); err != nil {
					t.Fatal(err)
				}
				if got := api.comments["one"]; !strings.HasPrefix(got, text) {
					t.Errorf("comment %d is %q", i, got)
				}
			}
			if got, want := strings.Join(api.log, "\n"), strings.Join([]string{want.status, want.list, want.post, want.list, want.edit}, "\n"); got != want {
				t.Errorf("requests:\n%s\nwant:\n%s", got, want)
			}
			p.Token = "wrong"
			err := p.Status(t.Context(), "octo/shop", Status{Commit: sha, State: Success})
			var re *ResponseError
			if !errors.As(err, &re) || re.Code != 401 || strings.Contains(err.Error(), "wrong") {
				t.Errorf("refused: %v", err)
			}
			if err := p.Status(t.Context(), "../admin", Status{Commit: sha}); err == nil {
				t.Error("a repository that leaves its path is taken")
			}
		})
	}
}

func TestTokenIsNotSentAlongARedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("asked with %v", r.Header) }))
	defer elsewhere.Close()
	s := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	var re *ResponseError
	if err := (Poster{Provider: GitLab, Base: s.URL, Token: "t"}).Status(t.Context(), "a/b", Status{Commit: sha}); !errors.As(err, &re) || re.Code != 307 {
		t.Error(err)
	}
}
