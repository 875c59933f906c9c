package gitserver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Fetch is a commit of a repository elsewhere.
type Fetch struct {
	URL string // https, http or ssh; file only with File
	// Ref is where the commit is looked for first; "" for at its own ID alone, which not all servers give.
	Ref string
	// Commit is an ID, or the beginning of one: what is fetched is this and nothing newer.
	Commit string
	// User and Password are sent to URL alone, over http and https; redirects are not followed.
	User, Password string
	File           bool
}

// ErrMoved says that a ref names another commit by now, and that the server gives none by its ID.
var ErrMoved = errors.New("the branch has moved on")

// Fetch fetches one commit, without its history and its submodules, and calls do with its files, as a
// push would get them. What it brings is bounded like a push: by MostPack and MostTime. They go when do has returned. No hook runs and no configuration but this
// package's counts. Warnings for people go to out.
func (s *Server) Fetch(ctx context.Context, f Fetch, out io.Writer, do func(dir, commit string) error) error {
	if err := f.check(); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.MostTime)
	defer cancel()
	work, err := os.MkdirTemp(filepath.Join(s.cfg.Dir, "work"), "fetch-")
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	defer removeAll(work)
	repo, tree := filepath.Join(work, "repo.git"), filepath.Join(work, "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	if said, err := s.git(ctx, work, "init", "--quiet", "--bare", "--template=", repo).CombinedOutput(); err != nil {
		return fmt.Errorf("fetch: %w: %s", err, firstLine(said))
	}
	commit, err := s.within(ctx, repo, func(ctx context.Context) (string, error) { return s.fetchCommit(ctx, repo, f) })
	if err != nil {
		return fmt.Errorf("fetch %s: %w", f.public(), err)
	}
	if err := s.export(ctx, repo, nil, commit, tree, out); err != nil {
		return err
	}
	return do(filepath.Join(tree, "files"), commit)
}

// fetchLook is how often the size of what is being fetched is looked at: git has no bound of its own for
// a fetch. At 1 Gbit/s a quarter of a second is 30 MB too many.
const fetchLook = 250 * time.Millisecond

// within runs fetch and ends it when dir grows past MostPack.
func (s *Server) within(ctx context.Context, dir string, fetch func(context.Context) (string, error)) (string, error) {
	tooLarge := fmt.Errorf("the commit has more than %d MiB", s.cfg.MostPack>>20)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var looking sync.WaitGroup
	looking.Go(func() {
		tick := time.NewTicker(fetchLook)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if sizeOf(dir) > s.cfg.MostPack {
					cancel(tooLarge)
				}
			}
		}
	})
	commit, err := fetch(ctx)
	if err == nil && sizeOf(dir) > s.cfg.MostPack {
		cancel(tooLarge)
	}
	cancel(nil)
	looking.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, tooLarge) {
		return "", tooLarge
	}
	return commit, err
}

// sizeOf is how many bytes the files below dir have; one that goes meanwhile has none.
func sizeOf(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

func (f Fetch) check() error {
	u, err := url.Parse(f.URL)
	switch {
	case err != nil, u.Scheme == "file" && !f.File, u.Scheme != "file" && (u.Host == "" || u.Host[0] == '-'):
		return fmt.Errorf("%q is no address of a repository", f.public())
	case u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "ssh" && u.Scheme != "file":
		return fmt.Errorf("%q: only https, http and ssh are fetched from", f.public())
	case u.User != nil && u.Scheme != "ssh":
		return errors.New("the address holds a password; it belongs into a secret")
	case len(f.Commit) < 7 || strings.Trim(f.Commit, "0123456789abcdef") != "":
		return fmt.Errorf("%.80q is no commit", f.Commit)
	case strings.HasPrefix(f.Ref, "-") || strings.ContainsAny(f.Ref, " :\x00\n"):
		return fmt.Errorf("%.80q is no ref", f.Ref)
	}
	return nil
}

// public is the address without what nobody should read.
func (f Fetch) public() string {
	if u, err := url.Parse(f.URL); err == nil {
		return u.Redacted()
	}
	return "the repository"
}

// fetchCommit brings the commit into repo and gives its whole ID.
func (s *Server) fetchCommit(ctx context.Context, repo string, f Fetch) (string, error) {
	var last error
	for _, from := range []string{f.Ref, f.Commit} {
		if from == "" || from == f.Commit && len(f.Commit) < 40 {
			continue
		}
		c := s.git(ctx, repo, "-c", "http.followRedirects=false", "-c", "protocol.version=2", "-c", "fetch.fsckObjects=true",
			"-c", "fetch.fsck.badTimezone=ignore", "-c", "fetch.fsck.missingEmail=ignore", "-c", "fetch.fsck.zeroPaddedFilemode=ignore",
			"fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", f.URL, from)
		c.Env = append(c.Env, "GIT_ALLOW_PROTOCOL=https:http:ssh"+map[bool]string{true: ":file"}[f.File], "GIT_SSH_COMMAND=ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new -oConnectTimeout=15")
		if f.Password != "" {
			// By the environment, which other users cannot read, and never on the command line.
			c.Env = append(c.Env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http."+f.URL+".extraHeader",
				"GIT_CONFIG_VALUE_0=Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(f.User+":"+f.Password)))
		}
		said, err := c.CombinedOutput()
		if err != nil {
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			last = fmt.Errorf("%w: %s", err, firstLine(said))
			continue
		}
		id, err := s.git(ctx, repo, "rev-parse", "--verify", "FETCH_HEAD^{commit}").Output()
		if err != nil {
			return "", fmt.Errorf("read what was fetched: %w", err)
		}
		if commit := strings.TrimSpace(string(id)); strings.HasPrefix(commit, f.Commit) {
			return commit, nil
		}
		last = ErrMoved
	}
	if last == nil {
		last = ErrMoved
	}
	return "", last
}
