// Package webhook reads what Git hosts send when somebody pushes or proposes a change (GitHub, GitLab,
// Gitea and Forgejo, Bitbucket Cloud), and posts back what became of it.
//
// A delivery is believed only when it is signed with the hook's secret, is not too large, was not seen
// before and is not old. It never fetches or runs anything: whoever gets an Event decides. An Event of
// a fork (Fork) was made by somebody who may have no right to the repository: it must wait for approval
// and gets no secret. Begin at Receiver for what comes in, at Poster for what goes out.
package webhook

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tenfold/internal/lazy"
)

// Provider is a kind of Git host.
type Provider string

// The providers. Forgejo sends and takes what Gitea does.
const (
	GitHub    Provider = "github"
	GitLab    Provider = "gitlab"
	Gitea     Provider = "gitea"
	Bitbucket Provider = "bitbucket"
)

// Kind is what an Event tells of.
type Kind string

// The kinds of events. Other means a delivery that is genuine and asks for nothing: a ping, a push of
// a tag, a comment, a label.
const (
	Push        Kind = "push"
	PullRequest Kind = "pull_request"
	Other       Kind = "other"
)

// Action is what became of a branch or a pull request.
type Action string

// The actions. A push is Updated or Deleted; a pull request (GitLab: merge request) is Opened (also
// when it is opened again), Updated with new commits, Merged, or Closed without being merged.
const (
	Opened  Action = "opened"
	Updated Action = "updated"
	Deleted Action = "deleted"
	Merged  Action = "merged"
	Closed  Action = "closed"
)

// Event is one thing that happened to one branch or pull request.
type Event struct {
	Provider Provider
	Kind     Kind
	Action   Action
	Delivery string // the provider's ID of the delivery, for people; "" when it gave none

	Repository string // owner/name (GitLab: with all groups) of the repository that the hook is of
	// CloneURL (http, https or ssh) and Ref together fetch Commit. Of a pull request that is the ref
	// which the provider keeps in the target repository; of Bitbucket, which keeps none, the source.
	CloneURL string
	Ref      string
	Branch   string // pushed to, or proposed by the pull request; a valid name of a branch
	Base     string // of a pull request, the branch it would be merged into
	Commit   string // lower case hexadecimal; Bitbucket abbreviates it to 12. "" when Deleted
	Before   string // of a push, the commit before it; "" when the branch is new

	PullRequest int  // its number; 0 for a push
	Fork        bool // the pull request's commits come from another repository

	Title  string    // of the pull request, or of the newest commit
	Author string    // who did it: the login
	URL    string    // of the pull request or the repository, for people
	At     time.Time // when, as the signed payload says; zero when it does not
}

// What is wrong with a delivery that Receive refuses.
var (
	ErrForged      = errors.New("the signature is not that of the hook's secret")
	ErrReplayed    = errors.New("the delivery was received before")
	ErrStale       = errors.New("the delivery is too old")
	ErrTooLarge    = errors.New("the delivery is too large")
	ErrMalformed   = errors.New("the delivery cannot be read")
	ErrUnsupported = errors.New("the delivery is of no provider that is known here")
)

// StatusOf is the HTTP status that answers a delivery: 204 for no error; 200 for one that was received
// before, so that the provider does not count it as failed.
func StatusOf(err error) int {
	switch {
	case err == nil:
		return http.StatusNoContent
	case errors.Is(err, ErrReplayed):
		return http.StatusOK
	case errors.Is(err, ErrForged):
		return http.StatusUnauthorized
	case errors.Is(err, ErrTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrMalformed), errors.Is(err, ErrUnsupported), errors.Is(err, ErrStale):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

var commitForm = lazy.Regexp(`^[0-9a-f]{7,64}$`)

// commit returns a commit's ID, and "" for the ID of zeros that stands for none.
func commit(id string) string {
	if strings.Trim(id, "0") == "" {
		return ""
	}
	return id
}

// branch returns the branch of a ref, false for a tag and all else.
func branch(ref string) (string, bool) { return strings.CutPrefix(ref, "refs/heads/") }

// validBranch is git's check-ref-format, and no name that a command would take for an option.
func validBranch(b string) bool {
	if b == "" || len(b) > 255 || b[0] == '-' || b == "@" || strings.HasPrefix(b, "/") || strings.HasSuffix(b, "/") || strings.HasSuffix(b, ".") {
		return false
	}
	for _, r := range b {
		if r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) {
			return false
		}
	}
	for _, part := range strings.Split(b, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return !strings.Contains(b, "..") && !strings.Contains(b, "@{")
}

// validURL refuses what git would take for a command or a file (ext::, file:, -option).
func validURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && u.Host[0] != '-' && (u.Scheme == "https" || u.Scheme == "http" || u.Scheme == "ssh")
}

var repositoryForm = lazy.Regexp(`^[A-Za-z0-9_.][A-Za-z0-9_.-]*(/[A-Za-z0-9_.][A-Za-z0-9_.-]*)+$`)

func validRepository(s string) bool {
	return len(s) <= 512 && repositoryForm.MatchString(s) && !strings.Contains("/"+s+"/", "/../") && !strings.Contains("/"+s+"/", "/./")
}

// check refuses an event with a field that could not stand for what it should.
func (e Event) check() error {
	if e.Kind == Other {
		return nil
	}
	bad := func(field, value string) error { return fmt.Errorf("%w: %s is %.80q", ErrMalformed, field, value) }
	gone := e.Action == Deleted
	switch {
	case !validRepository(e.Repository):
		return bad("repository", e.Repository)
	case !validURL(e.CloneURL):
		return bad("clone URL", e.CloneURL)
	case !validBranch(e.Branch):
		return bad("branch", e.Branch)
	case e.Kind == PullRequest && !validBranch(e.Base):
		return bad("target branch", e.Base)
	case gone != (e.Commit == "") || !gone && !commitForm.MatchString(e.Commit):
		return bad("commit", e.Commit)
	case e.Before != "" && !commitForm.MatchString(e.Before):
		return bad("commit before", e.Before)
	case (e.Kind == PullRequest) != (e.PullRequest > 0):
		return fmt.Errorf("%w: pull request number %d", ErrMalformed, e.PullRequest)
	}
	return nil
}
