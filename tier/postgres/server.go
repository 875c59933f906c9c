package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/engines"
	"tenfold/internal/keeper"
)

const (
	unitPrefix = "database/"
	superuser  = "tenfold"
)

// home is the folder of one database: data and log.
func (p *Postgres) home(id tenfold.ID) string {
	return filepath.Join(p.cfg.Dir, string(id.App), strings.ReplaceAll(string(id.Env), "/", "~"), string(id.Name))
}

// homeOf is the folder of one node. The first has the database's own, which it had when it was alone.
func (p *Postgres) homeOf(id tenfold.ID, n int) string {
	if n == 1 {
		return p.home(id)
	}
	return filepath.Join(p.home(id), "node-"+strconv.Itoa(n))
}

func (p *Postgres) dataOf(id tenfold.ID, n int) string { return filepath.Join(p.homeOf(id, n), "data") }

// engine finds the server program for a record: of the major that its data has, which must be the
// one that is asked for.
func (p *Postgres) engine(ctx context.Context, r record) (engines.Engine, error) {
	major := r.Spec.Major
	have, err := dataMajor(p.dataOf(r.ID, r.Primary))
	if err != nil {
		return engines.Engine{}, err
	}
	if have != 0 {
		if major != 0 && have != major && major != r.Was {
			return engines.Engine{}, otherMajor(r.ID, have, major)
		}
		major = have
	}
	p.mu.Lock()
	known, asked := p.engines[major]
	p.mu.Unlock()
	if asked && major != 0 && known.made.Equal(made(known.Server)) {
		return known.Engine, nil // to ask it for its version takes longer than a database takes to wake
	}
	e, err := engines.Postgres(ctx, major, p.cfg.Engines)
	if err == nil {
		p.mu.Lock()
		p.engines[major] = found{e, made(e.Server)}
		p.mu.Unlock()
	}
	if err != nil {
		return e, missingEngine(major, err)
	}
	return e, nil
}

// dataMajor is the major of a data directory; 0: there is none.
func dataMajor(data string) (int, error) {
	b, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read data directory: %w", err)
	}
	have, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("read data directory: its PG_VERSION is %q", b)
	}
	return have, nil
}

// otherMajor says what to do when the manifest asks for another major than the data has: a server of the wrong
// one is never started.
func otherMajor(id tenfold.ID, have, want int) error {
	e := tenfold.Errorf(tenfold.CodeConflict, "its data is of PostgreSQL %d, %d is asked for", have, want)
	if want < have {
		return e.WithHint("write engine: postgres-%d: data of a newer major is not read by an older one", have)
	}
	return e.WithHint("move the data first: tenfold db upgrade --name %s --to %d --rehearse, then without --rehearse; until then write engine: postgres-%d", id.Name, want, have)
}

// found is an engine, as long as its program is the one that was asked.
type found struct {
	engines.Engine
	made time.Time
}

func made(program string) time.Time {
	info, err := os.Stat(program)
	if err != nil {
		return time.Now() // equal to no other
	}
	return info.ModTime()
}

// initialize makes the data directory, once. It is built beside and renamed: half of one is never used.
func (p *Postgres) initialize(ctx context.Context, e engines.Engine, r record) error {
	data := p.dataOf(r.ID, r.Primary)
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
		return nil
	}
	if r.Epoch > 1 {
		return tenfold.Errorf(tenfold.CodeConflict, "the data of its primary is gone from %s", data).WithHint("put it back, or restore a backup: tenfold db backups")
	}
	if err := p.makeHome(r.ID, r.Primary); err != nil {
		return err
	}
	home := p.homeOf(r.ID, r.Primary)
	uid, gid := engines.RunAs()
	fresh, pw := data+".new", filepath.Join(home, ".pw")
	if err := errors.Join(os.RemoveAll(fresh), os.WriteFile(pw, []byte(r.Super+"\n"), 0o600)); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	defer os.Remove(pw)
	if uid > 0 {
		if err := os.Chown(pw, uid, gid); err != nil {
			return fmt.Errorf("make data directory: %w", err)
		}
	}
	locale := []string{"--locale=C.UTF-8"}
	if e.Major >= 17 {
		locale = []string{"--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"}
	}
	argv := append([]string{filepath.Join(e.Bin, "initdb"), "-D", fresh, "-U", superuser, "--pwfile", pw, "-A", "scram-sha-256", "-E", "UTF8", "--data-checksums", "--no-instructions"}, locale...)
	exit, lines, err := keeper.RunToEnd(ctx, p.cfg.Units, keeper.Unit{
		ID: "initdb/" + r.ID.String(), Argv: argv, Env: environment(e), Dir: "/", UID: uid, GID: gid, Log: filepath.Join(p.cfg.Dir, "log", "initdb.log"),
	}, 5)
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		return tenfold.Errorf(tenfold.CodeFailed, "initdb: %s\n  last output  %s", exit.Describe(), strings.Join(lines, "\n               ")).WithHint("tenfold doctor says what of the machine is amiss")
	}
	if err := os.Rename(fresh, data); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	return nil
}

// makeHome makes a node's folder, for the user that servers run as.
func (p *Postgres) makeHome(id tenfold.ID, n int) error {
	home := p.homeOf(id, n)
	if err := os.MkdirAll(home, 0o755); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	uid, gid := engines.RunAs()
	if uid == 0 {
		return nil
	}
	if d, err := engines.Blocked(home); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	} else if d != "" {
		return tenfold.Errorf(tenfold.CodeDenied, "PostgreSQL does not run as root, and its user cannot pass %s", d).
			WithHint("use another data directory: --data /var/lib/tenfold")
	}
	if err := os.Chown(home, uid, gid); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	return nil
}

// environment is what the programs need and no more.
func environment(e engines.Engine) []string {
	env := []string{"PATH=" + e.Bin + ":/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	if strings.Contains(e.Bin, "@embedded-postgres") {
		env = append(env, "LD_LIBRARY_PATH="+filepath.Join(filepath.Dir(e.Bin), "lib"))
	}
	return env
}

// library says whether a module that servers load at their start came with the engine.
func library(e engines.Engine, name string) bool {
	for _, d := range []string{"lib", "lib/postgresql", "lib64/postgresql", "lib64/pgsql"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(e.Bin), d, name+".so")); err == nil {
			return true
		}
	}
	return false
}

// unit is the postmaster. Its session and all backends are one tree of the keeper, and only when
// none of it lives may another primary start.
func (p *Postgres) unit(e engines.Engine, r record, n int) keeper.Unit {
	uid, gid := engines.RunAs()
	return keeper.Unit{
		ID:   unitOf(r.ID.String(), n),
		Argv: []string{e.Server, "-D", p.dataOf(r.ID, n)}, Env: environment(e), Dir: "/", UID: uid, GID: gid,
		StopSignal: syscall.SIGINT, StopGrace: 60 * time.Second, DeathSignal: syscall.SIGINT, // SIGINT: fast shutdown
		Log: p.logOf(r.ID, n), OOMScore: -300, Memory: limitsOf(r).Memory, // from its first page on; the cores later
	}
}

// launch starts a postmaster. What a dead one left of its socket is removed: a server that finds the number of its
// process in use again, as after a start of the machine, would not start.
func (p *Postgres) launch(ctx context.Context, e engines.Engine, r record, n int) (keeper.Status, error) {
	if dir := p.socketsOf(r.ID, n); dir != "" {
		left, _ := filepath.Glob(filepath.Join(dir, ".s.PGSQL.*"))
		for _, f := range left {
			if err := os.Remove(f); err != nil {
				return keeper.Status{}, fmt.Errorf("remove the socket of a dead server: %w", err)
			}
		}
	}
	return p.cfg.Units.Start(ctx, p.unit(e, r, n))
}

func (p *Postgres) logOf(id tenfold.ID, n int) string {
	return filepath.Join(p.homeOf(id, n), "log", "postgres.log")
}

// LogPath is the file with the output of a database's primary.
func (p *Postgres) LogPath(id tenfold.ID) string {
	r, _ := p.get(id.String())
	return p.logOf(id, max(r.Primary, 1))
}

func password() string {
	var b [18]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// populate makes role, database and extensions where they do not exist.
func populate(ctx context.Context, r record) error {
	c, err := connect(ctx, r, "postgres")
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	name := pgx.Identifier{role(r.ID)}.Sanitize()
	var has bool
	if err := c.QueryRow(ctx, "select exists (select from pg_roles where rolname = $1)", role(r.ID)).Scan(&has); err != nil {
		return fmt.Errorf("make role: %w", err)
	}
	verb := "create"
	if has {
		verb = "alter"
	}
	// The password is hexadecimal, of our own making: nothing in it needs quoting.
	// Replication is for the pool's query cache, which reads changes as the app's role; pg_hba.conf lets it into
	// its own database only, so there is no copying of the whole server with it.
	follows := " noreplication"
	if r.Spec.Proxy.Cache && !r.Spec.Proxy.Off {
		follows = " replication"
	}
	if _, err := c.Exec(ctx, verb+" role "+name+" login"+follows+" password '"+r.Password+"'"); err != nil {
		return fmt.Errorf("make role: %w", err)
	}
	if err := c.QueryRow(ctx, "select exists (select from pg_database where datname = $1)", role(r.ID)).Scan(&has); err != nil {
		return fmt.Errorf("make database: %w", err)
	}
	if !has {
		if _, err := c.Exec(ctx, "create database "+name+" owner "+name); err != nil {
			return fmt.Errorf("make database: %w", err)
		}
	}
	if r.Counts {
		if _, err := c.Exec(ctx, "create extension if not exists pg_stat_statements"); err != nil {
			return fmt.Errorf("make extension pg_stat_statements: %w", err)
		}
	}
	if len(r.Spec.Extensions) == 0 {
		return nil
	}
	d, err := connect(ctx, r, role(r.ID))
	if err != nil {
		return err
	}
	defer d.Close(ctx)
	for _, x := range r.Spec.Extensions {
		if _, err := d.Exec(ctx, "create extension if not exists "+pgx.Identifier{x}.Sanitize()); err != nil {
			return tenfold.Errorf(tenfold.CodeMissing, "make extension %s: %w", x, err).WithHint("install its package, for example apt-get install postgresql-NN-%s", x)
		}
	}
	return nil
}
