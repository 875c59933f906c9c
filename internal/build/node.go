package build

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"tenfold/internal/lazy"
)

// oldestNode is the major version that a project gets which asks for none.
const oldestNode = 20

// tools names what each language cannot do without, and how to get it.
var tools = map[string]MissingError{
	"node":   {"node", "apt-get install nodejs npm, or tenfold doctor --fix"},
	"go":     {"go", "apt-get install golang-go, or tenfold doctor --fix"},
	"python": {"python3", "apt-get install python3 python3-venv, or tenfold doctor --fix"},
	"ruby":   {"ruby", "apt-get install ruby-full, or tenfold doctor --fix"},
	"php":    {"php", "apt-get install php-cli, or tenfold doctor --fix"},
	"hugo":   {"hugo", "apt-get install hugo, or install it and start the daemon with it in PATH"},
	"deno":   {"deno", "install deno, and start the daemon with it in PATH"},
	"bun":    {"bun", "install bun, and start the daemon with it in PATH"},
}

// prepare settles the environment of the commands and the runtime they need.
func (m *making) prepare(ctx context.Context) (err error) {
	machine := m.Builder.Env
	if len(machine) == 0 {
		machine = inherited()
	}
	if m.machine, err = m.settle(machine, m.toolchains()); err != nil {
		return err
	}
	own := slices.Concat(machine, m.Request.Env, m.Secret)
	if m.env, err = m.settle(own, filepath.Join(m.Builder.Dir, "cache")); err != nil {
		return err
	}
	if m.Language == "node" {
		if err := m.node(ctx); err != nil {
			return err
		}
		if err := m.manager(ctx); err != nil {
			return err
		}
	}
	if t, ok := tools[m.Language]; ok && len(m.Install)+len(m.Test)+len(m.Command) > 0 {
		if _, found := lookup(m.env, t.Tool); !found {
			return &t
		}
	}
	return nil
}

// settle adds to an environment what all commands get. Builds share the user's own caches; without a home
// that can be written to they share one below dir.
func (m *making) settle(env []string, dir string) ([]string, error) {
	env = append(slices.Clone(env), "CI=true", "npm_config_fund=false", "npm_config_audit=false", "npm_config_update_notifier=false",
		"NEXT_TELEMETRY_DISABLED=1", "TURBO_TELEMETRY_DISABLED=1", "ASTRO_TELEMETRY_DISABLED=1", "NUXT_TELEMETRY_DISABLED=1", "PIP_DISABLE_PIP_VERSION_CHECK=1")
	if valueOf(env, "PATH") == "" {
		env = append(env, "PATH="+os.Getenv("PATH"))
	}
	if home := valueOf(env, "HOME"); home == "" || !writable(home) {
		home = filepath.Join(dir, "home")
		if err := os.MkdirAll(home, 0o755); err != nil {
			return nil, fmt.Errorf("prepare build: %w", err)
		}
		env = append(without(env, "HOME"), "HOME="+home)
	}
	return env, nil
}

// passed are the variables of this process that builds get when nobody says which: where programs,
// caches and the network's ways out are. Never the rest, which may hold what is not theirs.
var passed = []string{
	"PATH", "HOME", "LANG", "TMPDIR", "GOPATH", "GOCACHE", "GOMODCACHE", "GOPROXY", "GONOSUMDB", "GOSUMDB", "GOPRIVATE", "GOTOOLCHAIN",
	"XDG_CACHE_HOME", "PIP_INDEX_URL", "PIP_CERT", "UV_INDEX_URL", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}

func inherited() []string {
	var out []string
	for _, name := range passed {
		if v := os.Getenv(name); v != "" {
			out = append(out, name+"="+v)
		}
	}
	for _, e := range os.Environ() {
		if strings.HasPrefix(strings.ToLower(e), "npm_config_") {
			out = append(out, e)
		}
	}
	return out
}

func writable(dir string) bool {
	f, err := os.CreateTemp(dir, ".tenfold-*")
	if err != nil {
		return false
	}
	f.Close()
	return os.Remove(f.Name()) == nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

var firstNumber = lazy.Regexp(`\d+`)

// wantedNode is the major version that a project needs at least: of "^22.1 || >=24" 22.
func wantedNode(version string) int {
	n, err := strconv.Atoi(firstNumber.FindString(version))
	if err != nil {
		return oldestNode
	}
	return n
}

// node puts a Node.js that is new enough first in PATH. npm's own package "node" carries the
// binaries, so one that the machine lacks comes by the way that the project's dependencies come.
func (m *making) node(ctx context.Context) error {
	want, have := wantedNode(m.Version), 0
	if path, ok := lookup(m.env, "node"); ok {
		have = m.majorOf(ctx, path)
	}
	if have >= want {
		return nil
	}
	missing := tools["node"]
	if have > 0 {
		missing.Tool = fmt.Sprintf("node %d (node %d is, without npm to fetch a newer one)", want, have)
	}
	return m.fetch(ctx, tool{
		name: "node", version: strconv.Itoa(want), pack: fmt.Sprintf("node@%d", want), bin: "node_modules/node/bin",
		why: "the project asks for it, " + installed(have), missing: missing,
		works: func(program string) error {
			if m.majorOf(ctx, program) >= want {
				return nil
			}
			return &MissingError{Tool: fmt.Sprintf("node %d", want), Hint: fmt.Sprintf("install node %d, or ask for another with runtime: node-%d", want, oldestNode)}
		},
	})
}

func installed(have int) string {
	if have == 0 {
		return "the machine has none"
	}
	return fmt.Sprintf("the machine has %d", have)
}

// majorOf asks a program for its version, in the machine's environment.
func (m *making) majorOf(ctx context.Context, program string) int {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ask := exec.CommandContext(ctx, program, "--version")
	ask.Env = Dedupe(m.machine)
	out, err := ask.Output()
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(firstNumber.FindString(string(out)))
	return n
}

// install runs the install command, or restores what it made before from the same lock file.
func (m *making) install(ctx context.Context) error {
	if len(m.Install) == 0 {
		return nil
	}
	cache := m.moduleCache(ctx)
	modules := filepath.Join(m.result.Dir, "node_modules")
	count := func() string {
		if n := packages(modules); n != "" {
			return n
		}
		// A workspace is installed in its root.
		return packages(filepath.Join(m.dir(m.result.Key), "tree", "node_modules"))
	}
	if cache != "" {
		began := time.Now()
		if _, err := os.Stat(cache); err == nil {
			m.progress("restoring the installed packages")
			if err := mirror(ctx, cache, modules); err == nil {
				_ = os.Chtimes(cache, time.Now(), time.Now()) // used: stays longest
				m.done(Stage{Name: "install", Command: text(m.Install), Took: time.Since(began), Note: count()})
				return nil
			}
			if err := errors.Join(ctx.Err(), os.RemoveAll(modules)); err != nil {
				return err
			}
		}
	}
	if found := managerWord.FindStringSubmatch(text(m.Install) + " "); found != nil && found[1] == "yarn" {
		// Two of its first version break each other's downloads.
		lock := m.lock("yarn")
		lock.Lock()
		defer lock.Unlock()
	}
	if err := m.stage(ctx, "install", m.Install, count); err != nil {
		return err
	}
	if cache != "" {
		keep(ctx, modules, cache)
	}
	return nil
}

// moduleCache is where the node_modules of this lock file are kept, "" when they cannot be: with
// another tool than npm, with workspaces or linked packages, or when the project's own install
// scripts would be skipped.
func (m *making) moduleCache(ctx context.Context) string {
	cmd := strings.TrimSpace(text(m.Install))
	if m.Language != "node" || cmd != "npm ci" && cmd != "npm install" {
		return ""
	}
	lock, err := os.ReadFile(filepath.Join(m.result.Dir, "package-lock.json"))
	if err != nil || strings.Contains(string(lock), `"link": true`) {
		return ""
	}
	manifest, err := os.ReadFile(filepath.Join(m.result.Dir, "package.json"))
	if err != nil {
		return ""
	}
	var p struct {
		Scripts    map[string]string
		Workspaces json.RawMessage
	}
	if json.Unmarshal(manifest, &p) != nil || p.Workspaces != nil {
		return ""
	}
	for _, s := range []string{"preinstall", "install", "postinstall", "preprepare", "prepare", "postprepare", "prepublish"} {
		if p.Scripts[s] != "" {
			return ""
		}
	}
	path, ok := lookup(m.env, "node")
	if !ok {
		return ""
	}
	h := sha256.New()
	rc, _ := os.ReadFile(filepath.Join(m.result.Dir, ".npmrc"))
	// The project's variables decide what npm is, where it fetches from, and what install scripts do.
	env := strings.Join(slices.Sorted(slices.Values(m.Request.Env)), "\x00")
	fmt.Fprintf(h, "%s\x00%d\x00%s\x00%x\x00%x\x00%x\x00%x", cmd, m.majorOf(ctx, path), runtime.GOARCH, sha256.Sum256(lock), sha256.Sum256(manifest), sha256.Sum256(rc), sha256.Sum256([]byte(env)))
	return filepath.Join(m.Builder.Dir, "cache", "node_modules", hex.EncodeToString(h.Sum(nil))[:20])
}

// packages counts what npm installed: "131 packages installed".
func packages(modules string) string {
	b, err := os.ReadFile(filepath.Join(modules, ".package-lock.json"))
	if err != nil {
		return ""
	}
	var lock struct{ Packages map[string]json.RawMessage }
	if json.Unmarshal(b, &lock) != nil {
		return ""
	}
	if len(lock.Packages) == 1 {
		return "1 package installed"
	}
	return fmt.Sprintf("%d packages installed", len(lock.Packages))
}

// keep stores a node_modules for the next build of the same lock file. That it could not is no error.
func keep(ctx context.Context, modules, cache string) {
	tmp := filepath.Join(filepath.Dir(cache), ".new-"+rand.Text())
	defer os.RemoveAll(tmp)
	if err := os.MkdirAll(filepath.Dir(cache), 0o755); err != nil {
		return
	}
	if err := mirror(ctx, modules, tmp); err == nil {
		_ = os.Rename(tmp, cache) // another build may have been first: its copy is as good
	}
}

// mirror makes a copy of a folder out of hard links. Below folders whose name starts with a dot, and
// Prisma's client, files are copied: there tools write in place, and a link would let one build change another.
func mirror(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(dst, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			return os.Symlink(target, dst)
		case !d.Type().IsRegular():
			return nil
		case strings.HasPrefix(rel, ".") || strings.Contains(rel, "/.") || strings.HasPrefix(rel, "@prisma/client/"):
			return duplicate(p, dst)
		}
		return os.Link(p, dst)
	})
}

func duplicate(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
