// Package gitserver makes Tenfold a Git remote: git push over HTTP and SSH into repositories of its
// own, one for each app. Before a branch moves, a callback gets its new files in a folder; what the
// callback writes is shown to whoever pushes ("remote: …"), and its error refuses the push. So a failing
// test stops a push with its output, and what a branch names has been deployed.
//
// The protocol is spoken by the machine's git (receive-pack, upload-pack: gitprotocol-http(5),
// gitprotocol-pack(5)); this package authenticates, bounds, orders and cleans up. It never trusts a
// path: an app's name is checked and joined, nothing else of a request becomes part of one.
// Begin at Server.
package gitserver

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tenfold/internal/lazy"
)

// Push is one branch that is about to move.
type Push struct {
	App    string
	Branch string
	Old    string // commit in hexadecimal; "" when the branch is new
	New    string // "" when the branch is being removed
	// Dir holds the files of New, without .git; it belongs to the server and goes when the callback
	// has returned. "" when the branch is being removed.
	Dir string
	By  string // who pushes: what Auth said, or the name of the key
}

// Config is what a Server needs.
type Config struct {
	Dir string // required: repositories, host key, keys; the server owns all below it
	// Push is called before a branch moves, for one push of an app at a time. Its ctx ends when the
	// client is gone or the time is up. Lines written to progress reach the pusher at once. Required.
	Push func(ctx context.Context, p Push, progress io.Writer) error
	// Auth says who a user and password of HTTP (Basic) are; false refuses. See TokenAuth. Required
	// for HTTP: without it everybody is refused.
	Auth func(ctx context.Context, app, user, password string) (who string, ok bool)
	// Allow says whether who may push to and fetch from an app; nil allows everybody known.
	Allow func(app, who string) error
	// MostPack bounds what a push may send, in bytes: 512 MiB.
	MostPack int64
	// MostTime bounds a push with its callback: 30 minutes.
	MostTime time.Duration
	// Wait bounds how long a push waits for another of the same app: 10 minutes.
	Wait time.Duration
	// Git is the program: "git", found by PATH.
	Git string
}

// Server holds the repositories and answers for them, by ServeHTTP and ServeSSH.
type Server struct {
	cfg  Config
	keys *Keys

	mu   sync.Mutex
	apps map[string]*app
}

// app is what the pushes of one app share.
type app struct {
	turn chan struct{} // holds one while a push is between its callback and its end

	mu     sync.Mutex
	active int // receive-packs running
}

var appForm = lazy.Regexp(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// errUnknown is for a name that no app can have.
var errUnknown = errors.New("no such repository")

// New makes a Server. It creates its folders, puts the hook in place and clears away what a crash
// left, and starts nothing. One Server at a time may have a folder.
func New(cfg Config) (*Server, error) {
	if cfg.Dir == "" || cfg.Push == nil {
		return nil, errors.New("new git server: Dir and Push are required")
	}
	if cfg.MostPack <= 0 {
		cfg.MostPack = 512 << 20
	}
	if cfg.MostTime <= 0 {
		cfg.MostTime = 30 * time.Minute
	}
	if cfg.Wait <= 0 {
		cfg.Wait = 10 * time.Minute
	}
	if cfg.Git == "" {
		cfg.Git = "git"
	}
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("new git server: %w", err)
	}
	s := &Server{cfg: cfg, apps: map[string]*app{}}
	for _, dir := range []string{"repos", "hooks", "work"} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, dir), 0o700); err != nil {
			return nil, fmt.Errorf("new git server: %w", err)
		}
	}
	if err := s.clean(); err != nil {
		return nil, fmt.Errorf("new git server: %w", err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, "hooks", "pre-receive"), []byte(hookScript), 0o700); err != nil {
		return nil, fmt.Errorf("new git server: %w", err)
	}
	if s.keys, err = openKeys(filepath.Join(cfg.Dir, "keys.json")); err != nil {
		return nil, fmt.Errorf("new git server: %w", err)
	}
	return s, nil
}

// Keys are the public keys that ServeSSH knows.
func (s *Server) Keys() *Keys { return s.keys }

// TokenAuth makes an Auth of one token, compared in constant time: it is the password, whatever the
// user. who is the user's name, or "token".
func TokenAuth(token string) func(context.Context, string, string, string) (string, bool) {
	want := sha256.Sum256([]byte(token))
	return func(_ context.Context, _, user, password string) (string, bool) {
		got := sha256.Sum256([]byte(password))
		if user == "" {
			user = "token"
		}
		return user, token != "" && subtle.ConstantTimeCompare(got[:], want[:]) == 1
	}
}

// clean removes what a crash left: exported files, half a repository, quarantined objects.
func (s *Server) clean() error {
	if err := os.RemoveAll(filepath.Join(s.cfg.Dir, "work")); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(s.cfg.Dir, "work"), 0o700); err != nil {
		return err
	}
	halves, err := filepath.Glob(filepath.Join(s.cfg.Dir, "repos", ".new-*"))
	if err != nil {
		return err
	}
	for _, h := range halves {
		if err := os.RemoveAll(h); err != nil {
			return err
		}
	}
	repos, err := filepath.Glob(filepath.Join(s.cfg.Dir, "repos", "*.git"))
	if err != nil {
		return err
	}
	for _, r := range repos {
		sweepRepo(r)
	}
	return nil
}

// sweepRepo removes what a killed receive-pack leaves. None may be running.
func sweepRepo(repo string) {
	for _, pattern := range []string{"objects/tmp_objdir-*", "objects/incoming-*", "objects/pack/tmp_*", "refs/heads/*.lock", "packed-refs.lock"} {
		left, _ := filepath.Glob(filepath.Join(repo, pattern))
		for _, l := range left {
			os.RemoveAll(l)
		}
	}
}

func (s *Server) app(name string) *app {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.apps[name]
	if !ok {
		a = &app{turn: make(chan struct{}, 1)}
		s.apps[name] = a
	}
	return a
}

// begin and end count the pushes of an app; the last one to end sweeps.
func (a *app) begin() {
	a.mu.Lock()
	a.active++
	a.mu.Unlock()
}

func (a *app) end(repo string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.active--; a.active == 0 {
		sweepRepo(repo)
	}
}

// repo returns the folder of an app's repository, which is made when it is not there yet.
func (s *Server) repo(ctx context.Context, name, who string) (string, error) {
	if !appForm.MatchString(name) {
		return "", errUnknown
	}
	if s.cfg.Allow != nil {
		if err := s.cfg.Allow(name, who); err != nil {
			return "", err
		}
	}
	dir := filepath.Join(s.cfg.Dir, "repos", name+".git")
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); err == nil {
		return dir, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); err == nil {
		return dir, nil
	}
	tmp, err := os.MkdirTemp(filepath.Join(s.cfg.Dir, "repos"), ".new-")
	if err != nil {
		return "", fmt.Errorf("make repository: %w", err)
	}
	defer os.RemoveAll(tmp)
	if out, err := s.git(ctx, tmp, "init", "--quiet", "--bare", "--template=", "--initial-branch=main", ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("make repository: %w: %s", err, firstLine(out))
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", fmt.Errorf("make repository: %w", err)
	}
	return dir, nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return line
}

// settings are git's for every repository here, given with each command: nothing in a repository's own
// config, and nothing of the machine's or a user's, changes how a push is handled.
func (s *Server) settings() []string {
	set := []string{
		"core.hooksPath=" + filepath.Join(s.cfg.Dir, "hooks"),
		"receive.maxInputSize=" + fmt.Sprint(s.cfg.MostPack),
		// What git itself finds unsafe or broken is refused, but for the flaws of old, honest commits.
		"receive.fsckObjects=true",
		"receive.fsck.badTimezone=warn", "receive.fsck.missingEmail=warn", "receive.fsck.missingNameBeforeEmail=warn",
		"receive.fsck.missingSpaceBeforeDate=warn", "receive.fsck.missingSpaceBeforeEmail=warn", "receive.fsck.zeroPaddedFilemode=warn",
		"receive.autogc=false", "gc.auto=0",
		"receive.denyDeleteCurrent=ignore", "receive.denyCurrentBranch=ignore",
		"receive.advertisePushOptions=false", "receive.keepAlive=5",
		"uploadpack.allowFilter=true", "uploadpack.allowAnySHA1InWant=false",
		"core.symlinks=true", "core.autocrlf=false", "core.protectHFS=true", "core.protectNTFS=true",
	}
	var args []string
	for _, v := range set {
		args = append(args, "-c", v)
	}
	return args
}

// git is one command in a repository, in a process group of its own that ends with ctx.
func (s *Server) git(ctx context.Context, dir string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, s.cfg.Git, append(s.settings(), args...)...)
	c.Dir = dir
	c.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.cfg.Dir, "LC_ALL=C", "GIT_TERMINAL_PROMPT=0",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1",
	}
	ownGroup(c)
	return c
}
