package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// State is how far a deploy of a commit came.
type State string

// The states of a commit.
const (
	Pending State = "pending"
	Success State = "success"
	Failure State = "failure" // the commit's own fault: a test, a build
	Broken  State = "error"   // not the commit's fault
)

// Status is what stands beside a commit on the provider's pages.
type Status struct {
	Commit      string // whole ID
	State       State
	URL         string // where it leads: the preview, or the log
	Description string // cut at 140 characters, GitHub's limit
	Name        string // tells Tenfold's statuses of one commit apart: "tenfold" when ""
}

// Poster tells a provider what became of a commit or pull request. The zero Base is the provider's
// public API; others end where the documented paths begin: https://git.example.org/api/v1 (Gitea),
// https://gitlab.example.org/api/v4, https://github.example.org/api/v3, https://api.bitbucket.org/2.0.
type Poster struct {
	Provider Provider
	Base     string
	Token    string       // sent to Base alone; redirects are not followed
	Client   *http.Client // nil: one with a limit of 15 s for a call
}

// ResponseError is an answer of a provider that is not a success.
type ResponseError struct {
	Provider Provider
	Method   string
	Path     string
	Code     int
	Body     string // its first 300 bytes
}

func (e *ResponseError) Error() string {
	return fmt.Sprintf("%s answers %s %s with %d: %s", e.Provider, e.Method, e.Path, e.Code, e.Body)
}

func cut(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most-1]) + "…"
}

// Status posts the status of a commit of a repository (owner/name). An answer that refuses it is a
// *ResponseError.
//
// Sources: GitHub REST "Commit statuses", GitLab "Commits API: set commit pipeline status", Gitea API
// repoCreateStatus, Bitbucket Cloud REST "Commit statuses".
func (p Poster) Status(ctx context.Context, repository string, s Status) error {
	if s.Name == "" {
		s.Name = "tenfold"
	}
	s.Description = cut(s.Description, 140)
	if !validRepository(repository) || !commitForm.MatchString(s.Commit) {
		return fmt.Errorf("post status: repository %q, commit %q: not a name and an ID", repository, s.Commit)
	}
	var path string
	var body map[string]any
	switch p.Provider {
	case GitHub, Gitea:
		path = "/repos/" + repository + "/statuses/" + s.Commit
		body = map[string]any{"state": s.State, "target_url": s.URL, "description": s.Description, "context": s.Name}
	case GitLab:
		state := map[State]string{Pending: "running", Success: "success", Failure: "failed", Broken: "failed"}[s.State]
		path = "/projects/" + url.PathEscape(repository) + "/statuses/" + s.Commit
		body = map[string]any{"state": state, "target_url": s.URL, "description": s.Description, "name": s.Name}
	case Bitbucket:
		state := map[State]string{Pending: "INPROGRESS", Success: "SUCCESSFUL", Failure: "FAILED", Broken: "FAILED"}[s.State]
		path = "/repositories/" + repository + "/commit/" + s.Commit + "/statuses/build"
		body = map[string]any{"key": cut(s.Name, 40), "name": s.Name, "state": state, "url": s.URL, "description": s.Description}
	default:
		return fmt.Errorf("post status: provider %q is not known", p.Provider)
	}
	if err := p.call(ctx, http.MethodPost, path, body, nil); err != nil {
		return fmt.Errorf("post status: %w", err)
	}
	return nil
}

// mark is a line of a comment that no renderer shows: by it the comment is found again.
func mark(name string) string { return "[//]: # (tenfold:" + name + ")" }

// commentPages bounds how far back a comment is looked for, 100 on a page.
const commentPages = 5

// Comment writes text (Markdown) below a pull request, and the next time in place of what it wrote
// under the same name (letters, digits, hyphens), so that a pull request has one comment and not one
// for each commit.
//
// Sources: GitHub REST "Issue comments", GitLab "Notes API", Gitea API issueCreateComment, Bitbucket
// Cloud REST "Pullrequests: comments".
func (p Poster) Comment(ctx context.Context, repository string, number int, name, text string) error {
	if !validRepository(repository) || number <= 0 {
		return fmt.Errorf("post comment: repository %q, pull request %d: not a name and a number", repository, number)
	}
	var list, one string
	switch p.Provider {
	case GitHub, Gitea:
		list, one = fmt.Sprintf("/repos/%s/issues/%d/comments", repository, number), "/repos/"+repository+"/issues/comments"
	case GitLab:
		list = fmt.Sprintf("/projects/%s/merge_requests/%d/notes", url.PathEscape(repository), number)
		one = list
	case Bitbucket:
		list = fmt.Sprintf("/repositories/%s/pullrequests/%d/comments", repository, number)
		one = list
	default:
		return fmt.Errorf("post comment: provider %q is not known", p.Provider)
	}
	id, err := p.find(ctx, list, mark(name))
	if err != nil {
		return fmt.Errorf("post comment: %w", err)
	}
	text += "\n\n" + mark(name)
	body := map[string]any{"body": text}
	if p.Provider == Bitbucket {
		body = map[string]any{"content": map[string]string{"raw": text}}
	}
	if id != 0 {
		err = p.call(ctx, p.updates(), fmt.Sprintf("%s/%d", one, id), body, nil)
	} else {
		err = p.call(ctx, http.MethodPost, list, body, nil)
	}
	if err != nil {
		return fmt.Errorf("post comment: %w", err)
	}
	return nil
}

func (p Poster) updates() string {
	if p.Provider == GitHub || p.Provider == Gitea {
		return http.MethodPatch
	}
	return http.MethodPut
}

type comment struct {
	ID      int64  `json:"id"`
	Body    string `json:"body"`
	Content struct {
		Raw string `json:"raw"`
	} `json:"content"`
	Deleted bool `json:"deleted"`
}

// find looks for the comment that carries a mark, as its last line; 0 when there is none.
func (p Poster) find(ctx context.Context, list, mark string) (int64, error) {
	for page := 1; page <= commentPages; page++ {
		var all []comment
		var err error
		switch p.Provider {
		case Bitbucket:
			var paged struct {
				Values []comment `json:"values"`
			}
			err = p.call(ctx, http.MethodGet, fmt.Sprintf("%s?pagelen=100&page=%d", list, page), nil, &paged)
			all = paged.Values
		case Gitea: // its list of an issue's comments has no pages
			err = p.call(ctx, http.MethodGet, list, nil, &all)
		default:
			err = p.call(ctx, http.MethodGet, fmt.Sprintf("%s?per_page=100&page=%d", list, page), nil, &all)
		}
		if err != nil {
			return 0, err
		}
		for _, c := range all {
			if !c.Deleted && strings.HasSuffix(strings.TrimSpace(c.Body+c.Content.Raw), mark) {
				return c.ID, nil
			}
		}
		if len(all) < 100 || p.Provider == Gitea {
			break
		}
	}
	return 0, nil
}

var publicAPI = map[Provider]string{
	GitHub: "https://api.github.com", GitLab: "https://gitlab.com/api/v4", Gitea: "https://gitea.com/api/v1", Bitbucket: "https://api.bitbucket.org/2.0",
}

func (p Poster) call(ctx context.Context, method, path string, body, into any) error {
	base := strings.TrimSuffix(p.Base, "/")
	if base == "" {
		base = publicAPI[p.Provider]
	}
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, send)
	if err != nil {
		return err
	}
	p.sign(req)
	client := http.Client{Timeout: 15 * time.Second}
	if p.Client != nil {
		client = *p.Client
	}
	// GitLab's header would go along to wherever a redirect leads.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return fmt.Errorf("read answer of %s: %w", p.Provider, err)
	}
	if res.StatusCode/100 != 2 {
		return &ResponseError{p.Provider, method, path, res.StatusCode, string(answer[:min(300, len(answer))])}
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("read answer of %s: %w", p.Provider, err)
	}
	return nil
}

// sign puts the token where each provider's documentation has it.
func (p Poster) sign(req *http.Request) {
	h := req.Header
	h.Set("User-Agent", "tenfold")
	h.Set("Accept", "application/json")
	if req.Body != nil {
		h.Set("Content-Type", "application/json")
	}
	switch p.Provider {
	case GitHub:
		h.Set("Accept", "application/vnd.github+json")
		h.Set("X-GitHub-Api-Version", "2022-11-28")
		h.Set("Authorization", "Bearer "+p.Token)
	case GitLab:
		h.Set("Private-Token", p.Token)
	case Gitea:
		h.Set("Authorization", "token "+p.Token)
	case Bitbucket:
		h.Set("Authorization", "Bearer "+p.Token)
	}
}
