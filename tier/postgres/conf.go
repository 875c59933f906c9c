package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/engines"
	"tenfold/internal/keeper"
)

// Bounds of the WAL that is kept for readers.
const (
	walKeep       = "256MB" // for one that comes back after a failover
	walWriterPace = "10ms"  // of who follows by logical replication: it says so often what is on its disk
	walBound      = "1GB"   // for one that is away: beyond it, it is cloned again rather than the disk filled
)

// configure writes the files that say who may connect to a node and how it runs, and says whether
// anything in them is new.
func (p *Postgres) configure(r record, n int) (changed bool, err error) {
	data := p.dataOf(r.ID, n)
	hba := fmt.Sprintf("# written by tenfold\nhost all %[1]s 127.0.0.1/32 scram-sha-256\nhost replication %[1]s 127.0.0.1/32 scram-sha-256\nhost %[2]q %[2]q 127.0.0.1/32 scram-sha-256\nlocal %[2]q %[2]q scram-sha-256\n",
		superuser, role(r.ID))
	sockets := p.socketsOf(r.ID, n)
	if sockets != "" {
		if err := makeSockets(sockets); err != nil {
			return false, err
		}
	}
	files := []struct{ name, text string }{{"pg_hba.conf", hba}, {"postgresql.conf", "# written by tenfold\n" + settings(r, n, sockets)}}
	if n != r.Primary {
		files = append(files, struct{ name, text string }{"standby.signal", ""})
	}
	for _, f := range files {
		wrote, err := replace(filepath.Join(data, f.name), f.text)
		if err != nil {
			return changed, fmt.Errorf("write %s: %w", f.name, err)
		}
		changed = changed || wrote
	}
	return changed, nil
}

// socketsOf is the folder of a node's Unix socket, by which the pool comes: nobody else passes it. "": its path is
// too long for one.
func (p *Postgres) socketsOf(id tenfold.ID, n int) string {
	dir := filepath.Join(p.homeOf(id, n), "run")
	if len(socketOf(dir, 65535)) >= len(syscall.RawSockaddrUnix{}.Path) {
		return ""
	}
	return dir
}

// socketOf is what PostgreSQL calls a socket.
func socketOf(dir string, port int) string {
	return filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(port))
}

// makeSockets makes the folder, for the user that servers run as.
func makeSockets(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if uid, gid := engines.RunAs(); err == nil && uid > 0 {
		err = os.Chown(dir, uid, gid)
	}
	if err != nil {
		return fmt.Errorf("make the folder of a socket: %w", err)
	}
	return nil
}

// settings is a node's postgresql.conf. sockets is the folder of its Unix socket; "": it has none.
func settings(r record, n int, sockets string) string {
	x, _ := r.node(n)
	var conf strings.Builder
	set := func(k, v string) { fmt.Fprintf(&conf, "%s = %s\n", k, quoteConf(v)) }
	for _, kv := range [][2]string{
		{"max_connections", "100"},
		{"shared_buffers", "128MB"},
		{"password_encryption", "scram-sha-256"},
		{"logging_collector", "off"},
		{"log_destination", "stderr"},
		{"log_timezone", "UTC"},
		{"timezone", "UTC"},
		{"max_slot_wal_keep_size", walBound},
	} {
		set(kv[0], kv[1])
	}
	if r.Logical {
		set("wal_level", "logical")
	}
	if r.Upgrade.copying() || r.Upgrade.alive() {
		set("wal_writer_delay", walWriterPace) // see crossing.fully
	}
	if r.Upgrade.alive() { // what follows is slower than a reader, and cannot be copied again
		set("max_slot_wal_keep_size", strconv.FormatInt(r.Upgrade.Bound, 10)+"MB")
	}
	if most := r.Spec.Capacity.Max; most > 0 {
		most, _ = clamped(most)
		connections, err := strconv.Atoi(r.Spec.Settings["max_connections"])
		if err != nil {
			connections = 100
		}
		for _, kv := range sizing(r.ACU, most, connections) {
			set(kv[0], kv[1])
		}
	}
	if r.Spec.Readers.Max > 0 || r.Spec.Backups != nil {
		set("wal_keep_size", walKeep)
	}
	names := make([]string, 0, len(r.Spec.Settings))
	for k := range r.Spec.Settings {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		set(k, r.Spec.Settings[k])
	}
	if own := r.Spec.Settings["shared_preload_libraries"]; r.Counts && !strings.Contains(own, "pg_stat_statements") {
		set("shared_preload_libraries", strings.TrimPrefix(own+",pg_stat_statements", ","))
	}
	// Last, so that no setting of the manifest takes their place: the supervisor stands on them.
	set("listen_addresses", "127.0.0.1")
	set("port", strconv.Itoa(x.Port))
	set("unix_socket_directories", sockets)
	if r.Spec.Proxy.Cache || len(r.Spec.Outboxes) > 0 || r.Outboxed {
		set("wal_level", "logical") // the pool reads from it which rows changed, outboxes which there are
	}
	if len(r.Nodes) == 1 {
		return conf.String()
	}
	set("hot_standby", "on")
	set("wal_retrieve_retry_interval", "100ms")
	set("synchronous_standby_names", r.waitsFor(n))
	if n != r.Primary {
		set("primary_conninfo", fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s sslmode=disable application_name=%s", r.port(), superuser, r.Super, standby(n)))
		set("primary_slot_name", standby(n))
	}
	return conf.String()
}

// waitsFor is a node's synchronous_standby_names: a commit waits for any one of Sync.
func (r record) waitsFor(n int) string {
	if n != r.Primary || len(r.Sync) == 0 {
		return ""
	}
	var names []string
	for _, m := range r.Sync {
		names = append(names, strconv.Quote(standby(m)))
	}
	return "ANY 1 (" + strings.Join(names, ",") + ")"
}

// replace writes a file whole, for the user that servers run as, when its text differs.
func replace(path, text string) (bool, error) {
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return false, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	fresh := path + ".new"
	if err := os.WriteFile(fresh, []byte(text), 0o600); err != nil {
		return false, err
	}
	if uid, gid := engines.RunAs(); uid > 0 {
		if err := os.Chown(fresh, uid, gid); err != nil {
			return false, err
		}
	}
	return true, os.Rename(fresh, path)
}

func quoteConf(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// reload makes a running node take its files, as the record has them now: whom commits wait for is in
// them, and an older idea of that must not come back.
func (p *Postgres) reload(ctx context.Context, r record, n int) error {
	mu := p.one(r.ID.String() + "#conf")
	mu.Lock()
	defer mu.Unlock()
	if now, ok := p.get(r.ID.String()); ok {
		r = now
	}
	changed, err := p.configure(r, n)
	if err != nil || !changed {
		return err
	}
	return p.cfg.Units.Signal(ctx, unitOf(r.ID.String(), n), int(syscall.SIGHUP))
}

// reloaded is reload, and returns when the server has taken its files.
func (p *Postgres) reloaded(ctx context.Context, r record, n int) error {
	mu := p.one(r.ID.String() + "#conf")
	mu.Lock()
	defer mu.Unlock()
	if now, ok := p.get(r.ID.String()); ok {
		r = now
	}
	return p.take(ctx, r, n)
}

// take makes a node take the files of a record and returns when it has. The caller holds the lock of
// reload.
func (p *Postgres) take(ctx context.Context, r record, n int) error {
	loaded := func(ctx context.Context) (at string, err error) {
		err = p.ask(ctx, r, n, func(ctx context.Context, c *pgx.Conn) error {
			return c.QueryRow(ctx, "select pg_conf_load_time()::text || current_setting('synchronous_standby_names')").Scan(&at)
		})
		return at, err
	}
	before, err := loaded(ctx)
	if err != nil {
		return err
	}
	want := r.waitsFor(n)
	changed, err := p.configure(r, n)
	if err != nil || !changed && strings.HasSuffix(before, want) && (want != "" || !strings.Contains(before, "ANY")) {
		return err
	}
	if err := p.cfg.Units.Signal(ctx, unitOf(r.ID.String(), n), int(syscall.SIGHUP)); err != nil {
		return err
	}
	return until(ctx, askLimit, func(ctx context.Context) (bool, error) {
		after, err := loaded(ctx)
		return after != before, err // the postmaster takes them before it tells those who ask
	})
}

// until asks again and again, and fails when the answer has not become yes within a limit.
func until(ctx context.Context, limit time.Duration, ok func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		yes, err := ok(ctx)
		if err != nil || yes {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(answerPace):
		}
	}
}

// wrong finds what a running server could not take of its files. What takes a restart is no fault; of what
// stands there no more and takes one, the server says so without a name.
func wrong(ctx context.Context, c *pgx.Conn) error {
	var name, value, fault string
	err := c.QueryRow(ctx, `select f.name, coalesce(f.setting, ''), f.error from pg_file_settings f left join pg_settings s using (name)
		where f.error is not null and f.name is not null and s.context is distinct from 'postmaster' order by f.seqno limit 1`).Scan(&name, &value, &fault)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check settings: %w", err)
	}
	return tenfold.Errorf(tenfold.CodeInvalid, "setting %s: %s (%q)", name, fault, value).WithHint("correct settings.%s of the database in tenfold.yaml", name)
}

// proveSettings has the server program read a node's files without starting: one that is restarted with what
// it cannot take would not come back.
func (p *Postgres) proveSettings(ctx context.Context, e engines.Engine, r record, n int) error {
	uid, gid := engines.RunAs()
	exit, lines, err := keeper.RunToEnd(ctx, p.cfg.Units, keeper.Unit{
		ID: "rehearse/" + r.ID.String(), Argv: []string{e.Server, "-D", p.dataOf(r.ID, n), "-C", "port"}, Env: environment(e), Dir: "/",
		UID: uid, GID: gid, Log: filepath.Join(p.cfg.Dir, "log", "rehearse.log"),
	}, 3)
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		return tenfold.Errorf(tenfold.CodeInvalid, "PostgreSQL would not start with these settings\n  last output  %s", strings.Join(lines, "\n               ")).
			WithHint("correct settings of the database in tenfold.yaml; it runs on with the old ones")
	}
	return nil
}
