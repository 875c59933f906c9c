package webhook

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

func decode(payload []byte, into any) error {
	if err := json.Unmarshal(payload, into); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// githubRepo is a repository of GitHub or Gitea.
type githubRepo struct {
	FullName string          `json:"full_name"`
	CloneURL string          `json:"clone_url"`
	HTMLURL  string          `json:"html_url"`
	PushedAt json.RawMessage `json:"pushed_at"` // GitHub: of a push seconds since 1970, else a time
}

type githubSide struct {
	Ref  string      `json:"ref"`
	SHA  string      `json:"sha"`
	Repo *githubRepo `json:"repo"` // null when the fork is deleted
}

// githubPayload is of "push" and "pull_request": GitHub "Webhook events and payloads", Gitea "Webhooks".
type githubPayload struct {
	Ref        string     `json:"ref"`
	Before     string     `json:"before"`
	After      string     `json:"after"`
	Deleted    bool       `json:"deleted"`
	RefType    string     `json:"ref_type"`
	Repository githubRepo `json:"repository"`
	Sender     struct {
		Login string `json:"login"`
	} `json:"sender"`
	HeadCommit *struct {
		Message string `json:"message"`
	} `json:"head_commit"`

	Action      string `json:"action"`
	Number      int    `json:"number"`
	PullRequest *struct {
		Title     string     `json:"title"`
		HTMLURL   string     `json:"html_url"`
		Merged    bool       `json:"merged"`
		UpdatedAt time.Time  `json:"updated_at"`
		Head      githubSide `json:"head"`
		Base      githubSide `json:"base"`
	} `json:"pull_request"`
}

func readGitHub(provider Provider, event string, payload []byte) ([]Event, error) {
	// Gitea tells of a deleted branch by an event of its own; GitHub by a push, and by that event too.
	gone := provider == Gitea && event == "delete"
	if event != "push" && event != "pull_request" && !gone {
		return []Event{{Kind: Other}}, nil
	}
	var p githubPayload
	if err := decode(payload, &p); err != nil {
		return nil, err
	}
	switch {
	case event == "pull_request":
		return githubPull(p)
	case gone:
		return giteaDelete(p)
	}
	return githubPush(p)
}

func githubPush(p githubPayload) ([]Event, error) {
	name, ok := branch(p.Ref)
	if !ok {
		return []Event{{Kind: Other}}, nil
	}
	e := Event{
		Kind: Push, Action: Updated, Repository: p.Repository.FullName, CloneURL: p.Repository.CloneURL, Ref: p.Ref,
		Branch: name, Commit: commit(p.After), Before: commit(p.Before), Author: p.Sender.Login, URL: p.Repository.HTMLURL,
	}
	if p.HeadCommit != nil {
		e.Title, _, _ = strings.Cut(p.HeadCommit.Message, "\n")
	}
	var pushed int64
	if json.Unmarshal(p.Repository.PushedAt, &pushed) == nil && pushed > 0 {
		e.At = time.Unix(pushed, 0)
	}
	if p.Deleted || e.Commit == "" {
		e.Action, e.Commit = Deleted, ""
	}
	return []Event{e}, nil
}

func giteaDelete(p githubPayload) ([]Event, error) {
	if p.RefType != "branch" {
		return []Event{{Kind: Other}}, nil
	}
	name := strings.TrimPrefix(p.Ref, "refs/heads/")
	return []Event{{
		Kind: Push, Action: Deleted, Repository: p.Repository.FullName, CloneURL: p.Repository.CloneURL, Ref: "refs/heads/" + name,
		Branch: name, Author: p.Sender.Login, URL: p.Repository.HTMLURL,
	}}, nil
}

func githubPull(p githubPayload) ([]Event, error) {
	pr := p.PullRequest
	if pr == nil {
		return nil, fmt.Errorf("%w: no pull_request", ErrMalformed)
	}
	var did Action
	switch p.Action {
	case "opened", "reopened":
		did = Opened
	case "synchronize", "synchronized": // GitHub's word, Gitea's word
		did = Updated
	case "closed":
		if did = Closed; pr.Merged {
			did = Merged
		}
	default:
		return []Event{{Kind: Other}}, nil
	}
	e := Event{
		Kind: PullRequest, Action: did, Repository: p.Repository.FullName, CloneURL: p.Repository.CloneURL,
		Ref: fmt.Sprintf("refs/pull/%d/head", p.Number), Branch: pr.Head.Ref, Base: pr.Base.Ref, Commit: commit(pr.Head.SHA),
		PullRequest: p.Number, Title: pr.Title, Author: p.Sender.Login, URL: pr.HTMLURL, At: pr.UpdatedAt,
		// A head whose repository is gone was a fork.
		Fork: pr.Head.Repo == nil || !strings.EqualFold(pr.Head.Repo.FullName, p.Repository.FullName),
	}
	return []Event{e}, nil
}

// gitlabPayload is of "Push Hook" and "Merge Request Hook": GitLab "Webhook events". Which it is stands
// in object_kind.
type gitlabPayload struct {
	Kind     string  `json:"object_kind"`
	Ref      string  `json:"ref"`
	Before   string  `json:"before"`
	After    string  `json:"after"`
	UserName string  `json:"user_username"`
	Project  project `json:"project"`
	Commits  []struct {
		ID    string `json:"id"`
		Title string `json:"title"`
	} `json:"commits"`
	User struct {
		Username string `json:"username"`
	} `json:"user"`
	MR struct {
		IID        int        `json:"iid"`
		Title      string     `json:"title"`
		Action     string     `json:"action"`
		URL        string     `json:"url"`
		OldRev     string     `json:"oldrev"` // of an update with new commits
		From       string     `json:"source_branch"`
		To         string     `json:"target_branch"`
		FromID     int64      `json:"source_project_id"`
		ToID       int64      `json:"target_project_id"`
		UpdatedAt  gitlabTime `json:"updated_at"`
		LastCommit struct {
			ID string `json:"id"`
		} `json:"last_commit"`
	} `json:"object_attributes"`
}

type project struct {
	Path   string `json:"path_with_namespace"`
	Clone  string `json:"git_http_url"`
	WebURL string `json:"web_url"`
}

// gitlabTime is written in two ways, by GitLab's age. One that is neither is no time.
type gitlabTime struct{ time.Time }

// UnmarshalJSON implements json.Unmarshaler.
func (t *gitlabTime) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		return nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05 MST", "2006-01-02 15:04:05 -0700"} {
		if at, err := time.Parse(layout, s); err == nil {
			t.Time = at
		}
	}
	return nil
}

func readGitLab(payload []byte) ([]Event, error) {
	var p struct {
		Kind string `json:"object_kind"`
	}
	if err := decode(payload, &p); err != nil {
		return nil, err
	}
	var whole gitlabPayload
	switch p.Kind {
	case "push":
		if err := decode(payload, &whole); err != nil {
			return nil, err
		}
		return gitlabPush(whole)
	case "merge_request":
		if err := decode(payload, &whole); err != nil {
			return nil, err
		}
		return gitlabMerge(whole)
	}
	return []Event{{Kind: Other}}, nil
}

func gitlabPush(p gitlabPayload) ([]Event, error) {
	name, ok := branch(p.Ref)
	if !ok {
		return []Event{{Kind: Other}}, nil
	}
	e := Event{
		Kind: Push, Action: Updated, Repository: p.Project.Path, CloneURL: p.Project.Clone, Ref: p.Ref,
		Branch: name, Commit: commit(p.After), Before: commit(p.Before), Author: p.UserName, URL: p.Project.WebURL,
	}
	for _, c := range p.Commits {
		if c.ID == p.After {
			e.Title = c.Title
		}
	}
	if e.Commit == "" {
		e.Action = Deleted
	}
	return []Event{e}, nil
}

func gitlabMerge(p gitlabPayload) ([]Event, error) {
	var did Action
	switch mr := p.MR; {
	case mr.Action == "open" || mr.Action == "reopen":
		did = Opened
	case mr.Action == "update" && mr.OldRev != "":
		did = Updated
	case mr.Action == "merge":
		did = Merged
	case mr.Action == "close":
		did = Closed
	default: // a label, an approval, another title
		return []Event{{Kind: Other}}, nil
	}
	return []Event{{
		Kind: PullRequest, Action: did, Repository: p.Project.Path, CloneURL: p.Project.Clone,
		Ref: fmt.Sprintf("refs/merge-requests/%d/head", p.MR.IID), Branch: p.MR.From, Base: p.MR.To, Commit: commit(p.MR.LastCommit.ID),
		PullRequest: p.MR.IID, Fork: p.MR.FromID != p.MR.ToID || p.MR.FromID == 0,
		Title: p.MR.Title, Author: p.User.Username, URL: p.MR.URL, At: p.MR.UpdatedAt.Time,
	}}, nil
}

type bitbucketRepo struct {
	FullName string `json:"full_name"`
	Links    struct {
		HTML struct {
			Href string `json:"href"`
		} `json:"html"`
	} `json:"links"`
}

// clone is where it is fetched: the payload has no URL for that, but the page's is the same.
func (r bitbucketRepo) clone() string { return strings.TrimSuffix(r.Links.HTML.Href, "/") + ".git" }

type bitbucketRef struct {
	Type   string `json:"type"`
	Name   string `json:"name"`
	Target struct {
		Hash    string `json:"hash"`
		Message string `json:"message"`
	} `json:"target"`
}

type bitbucketSide struct {
	Branch struct {
		Name string `json:"name"`
	} `json:"branch"`
	Commit struct {
		Hash string `json:"hash"`
	} `json:"commit"`
	Repository *bitbucketRepo `json:"repository"` // null when the fork is deleted
}

// bitbucketPayload is of "repo:push" and "pullrequest:*": Bitbucket Cloud "Event payloads".
type bitbucketPayload struct {
	Actor struct {
		Nickname    string `json:"nickname"`
		DisplayName string `json:"display_name"`
	} `json:"actor"`
	Repository bitbucketRepo `json:"repository"`
	Push       struct {
		Changes []struct {
			New *bitbucketRef `json:"new"` // null when deleted
			Old *bitbucketRef `json:"old"` // null when created
		} `json:"changes"`
	} `json:"push"`
	PullRequest *struct {
		ID          int           `json:"id"`
		Title       string        `json:"title"`
		Source      bitbucketSide `json:"source"`
		Destination bitbucketSide `json:"destination"`
		UpdatedOn   time.Time     `json:"updated_on"`
		Links       struct {
			HTML struct {
				Href string `json:"href"`
			} `json:"html"`
		} `json:"links"`
	} `json:"pullrequest"`
}

func readBitbucket(event string, payload []byte) ([]Event, error) {
	if event != "repo:push" && !strings.HasPrefix(event, "pullrequest:") {
		return []Event{{Kind: Other}}, nil
	}
	var p bitbucketPayload
	if err := decode(payload, &p); err != nil {
		return nil, err
	}
	if event == "repo:push" {
		return bitbucketPush(p)
	}
	return bitbucketPull(event, p)
}

func (p bitbucketPayload) author() string {
	if p.Actor.Nickname != "" {
		return p.Actor.Nickname
	}
	return p.Actor.DisplayName
}

func bitbucketPush(p bitbucketPayload) ([]Event, error) {
	var out []Event
	for _, c := range p.Push.Changes {
		e := Event{Kind: Push, Action: Updated, Repository: p.Repository.FullName, CloneURL: p.Repository.clone(), Author: p.author(), URL: p.Repository.Links.HTML.Href}
		of := c.New
		if c.Old != nil {
			e.Before = commit(c.Old.Target.Hash)
		}
		if of == nil {
			of, e.Action = c.Old, Deleted
		} else {
			e.Commit = commit(of.Target.Hash)
			e.Title, _, _ = strings.Cut(of.Target.Message, "\n")
		}
		if of == nil || of.Type != "branch" {
			continue
		}
		e.Branch, e.Ref = of.Name, "refs/heads/"+of.Name
		out = append(out, e)
	}
	return out, nil
}

func bitbucketPull(event string, p bitbucketPayload) ([]Event, error) {
	actions := map[string]Action{
		"pullrequest:created": Opened, "pullrequest:updated": Updated, "pullrequest:fulfilled": Merged, "pullrequest:rejected": Closed,
	}
	did, ok := actions[event]
	if !ok {
		return []Event{{Kind: Other}}, nil
	}
	pr := p.PullRequest
	if pr == nil {
		return nil, fmt.Errorf("%w: no pullrequest", ErrMalformed)
	}
	e := Event{
		Kind: PullRequest, Action: did, Repository: p.Repository.FullName, CloneURL: p.Repository.clone(), Ref: "refs/heads/" + pr.Source.Branch.Name,
		Branch: pr.Source.Branch.Name, Base: pr.Destination.Branch.Name, Commit: commit(pr.Source.Commit.Hash), PullRequest: pr.ID,
		Fork:  pr.Source.Repository == nil || !strings.EqualFold(pr.Source.Repository.FullName, p.Repository.FullName),
		Title: pr.Title, Author: p.author(), URL: pr.Links.HTML.Href, At: pr.UpdatedOn,
	}
	if e.Fork && pr.Source.Repository != nil {
		e.CloneURL = pr.Source.Repository.clone()
	}
	return []Event{e}, nil
}
