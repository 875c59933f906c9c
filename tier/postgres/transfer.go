package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/engines"
	"tenfold/internal/keeper"
)

// A transfer copies the app's database from one server to another of a different major and keeps it up to date,
// by logical replication. Tables whose rows nothing identifies, sequences and large objects are not in that
// stream: they are copied at the end, while nobody writes.
//
// Both sides are records of one server: what is there for the database itself (ask, connect, configure) works on
// them.
type transfer struct {
	p        *Postgres
	from, to record
	what     survey
	shape    map[string]string // of from, when the schema was copied
	say      func(step string)
}

// Names that both servers know a transfer by, and the way back.
const (
	forth = "tenfold_upgrade"
	back  = "tenfold_back"
)

// side is a server of a record's database as a database of its own.
func side(r record, n node, major int) record {
	s := r
	s.cluster = cluster{Nodes: []node{n}, Primary: n.N, Epoch: 1}
	s.Spec.Major, s.Spec.Readers, s.Spec.Sync, s.Spec.Clone, s.Was = major, tenfold.Bounds{}, "", "", 0
	return s
}

// open connects to the app's database on a side. Statements there take as long as they take.
func (p *Postgres) open(ctx context.Context, s record) (*pgx.Conn, error) {
	return connect(ctx, s, role(s.ID))
}

// start begins a side's server, made from nothing where it has no data.
func (p *Postgres) start(ctx context.Context, e engines.Engine, s record) error {
	if err := p.initialize(ctx, e, s); err != nil {
		return err
	}
	key := s.ID.String()
	if err := p.cfg.Units.Remove(ctx, unitOf(key, s.Primary)); err != nil {
		return err
	}
	if _, err := p.configure(s, s.Primary); err != nil {
		return err
	}
	if _, err := p.launch(ctx, e, s, s.Primary); err != nil {
		return err
	}
	return p.await(ctx, key, s, s.Primary)
}

// scrap removes a side with its data.
func (p *Postgres) scrap(ctx context.Context, s record) error {
	key := s.ID.String()
	if err := p.cfg.Units.Remove(ctx, unitOf(key, s.Primary)); err != nil {
		return err
	}
	p.unlink(key, s.Primary)
	gone := p.homeOf(s.ID, s.Primary)
	if s.Primary == 1 {
		gone = p.dataOf(s.ID, 1)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("remove node %d: %w", s.Primary, err)
	}
	return nil
}

// schema copies roles and definitions.
func (t *transfer) schema(ctx context.Context) error {
	from, to, err := t.both(ctx)
	if err != nil {
		return err
	}
	defer from.Close(context.WithoutCancel(ctx))
	defer to.Close(context.WithoutCancel(ctx))
	if err := lacking(ctx, to, t.what.extensions, t.to.Spec.Major); err != nil {
		return err
	}
	if err := roles(ctx, from, to, role(t.from.ID)); err != nil {
		return err
	}
	if t.shape, err = shapeOf(ctx, from); err != nil {
		return err
	}
	text, err := t.dump(ctx)
	if err != nil {
		return err
	}
	if err := to.PgConn().Exec(ctx, text).Close(); err != nil {
		return tenfold.Errorf(tenfold.CodeFailed, "make the schema in PostgreSQL %d: %w", t.to.Spec.Major, err).WithHint("nothing was switched; what the newer major does not take has to be changed first")
	}
	return nil
}

func (t *transfer) both(ctx context.Context) (from, to *pgx.Conn, err error) {
	if from, err = t.p.open(ctx, t.from); err != nil {
		return nil, nil, err
	}
	if to, err = t.p.open(ctx, t.to); err != nil {
		from.Close(context.WithoutCancel(ctx))
		return nil, nil, err
	}
	return from, to, nil
}

// dumper is the pg_dump to use: of the newer major, else the newest that can read the older.
func (p *Postgres) dumper(ctx context.Context, from, to int) (e engines.Engine, note string, err error) {
	for _, x := range engines.AllPostgres(ctx, p.cfg.Engines) {
		if x.Major == to && x.Has("pg_dump") {
			return x, "", nil
		}
		if x.Major >= from && x.Has("pg_dump") && e.Major == 0 {
			e = x
		}
	}
	advice := fmt.Sprintf("apt-get install postgresql-client-%d", to)
	if e.Major == 0 {
		return e, "", tenfold.Errorf(tenfold.CodeMissing, "pg_dump is not installed: the schema is copied by it").WithHint("%s", advice)
	}
	return e, fmt.Sprintf("the schema is read by pg_dump %d; that of %d is better (%s)", e.Major, to, advice), nil
}

// dump is the schema as SQL.
func (t *transfer) dump(ctx context.Context) (string, error) {
	p := t.p
	e, _, err := p.dumper(ctx, t.from.Spec.Major, t.to.Spec.Major)
	if err != nil {
		return "", err
	}
	file := filepath.Join(p.homeOf(t.to.ID, t.to.Primary), "schema.sql")
	uid, gid := engines.RunAs()
	exit, lines, err := keeper.RunToEnd(ctx, p.cfg.Units, keeper.Unit{
		ID: "dump/" + t.from.ID.String(), Argv: []string{filepath.Join(e.Bin, "pg_dump"), "--schema-only", "--no-publications", "--no-subscriptions", "--file", file},
		Env:  append(environment(e), "PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(t.from.port()), "PGUSER="+superuser, "PGPASSWORD="+t.from.Super, "PGDATABASE="+role(t.from.ID), "PGSSLMODE=disable"),
		Hide: []string{"PGPASSWORD"}, Dir: "/", UID: uid, GID: gid, Log: filepath.Join(p.cfg.Dir, "log", "dump.log"),
	}, 5)
	if err != nil {
		return "", err
	}
	if exit.Code != 0 {
		return "", tenfold.Errorf(tenfold.CodeFailed, "pg_dump: %s\n  last output  %s", exit.Describe(), strings.Join(lines, "\n               ")).WithHint("nothing was switched")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read schema: %w", err)
	}
	var out strings.Builder
	for l := range strings.Lines(string(b)) {
		if !strings.HasPrefix(l, `\restrict `) && !strings.HasPrefix(l, `\unrestrict `) { // words for psql
			out.WriteString(l)
		}
	}
	return out.String(), nil
}

// publish makes from's publication of the tables whose rows something identifies.
func publish(ctx context.Context, c *pgx.Conn, name string, tables []string) error {
	sql := "create publication " + name
	if len(tables) > 0 {
		sql += " for table only " + strings.Join(tables, ", only ")
	}
	for _, s := range []string{"drop publication if exists " + name, sql} {
		if _, err := c.Exec(ctx, s); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	return nil
}

// subscribe makes s follow a publication of the server at of. The password stands in a file: statements are
// logged when they fail.
func (p *Postgres) subscribe(ctx context.Context, s record, of record, name, with string) error {
	pass := filepath.Join(p.homeOf(s.ID, s.Primary), ".pgpass")
	if _, err := replace(pass, fmt.Sprintf("127.0.0.1:%d:*:%s:%s\n", of.port(), superuser, of.Super)); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	c, err := p.open(ctx, s)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s passfile='%s' sslmode=disable application_name=%s", of.port(), superuser, role(of.ID), pass, name)
	if _, err := c.Exec(ctx, "create subscription "+name+" connection "+quoteConf(dsn)+" publication "+name+" with ("+with+")"); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return nil
}

// unsubscribe ends a subscription without asking its publisher, whose slot is dropped apart.
func unsubscribe(ctx context.Context, c *pgx.Conn, name string) error {
	var has bool
	if err := c.QueryRow(ctx, "select exists (select from pg_subscription where subname = $1)", name).Scan(&has); err != nil || !has {
		return err
	}
	for _, s := range []string{"alter subscription " + name + " disable", "alter subscription " + name + " set (slot_name = none)", "drop subscription " + name} {
		if _, err := c.Exec(ctx, s); err != nil {
			return fmt.Errorf("end subscription: %w", err)
		}
	}
	return nil
}

// unpublish drops a publication with its slots, those of tables under way included.
func unpublish(ctx context.Context, c *pgx.Conn, name string) error {
	if err := until(ctx, 10*time.Second, func(ctx context.Context) (bool, error) {
		_, err := c.Exec(ctx, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_type = 'logical' and database = current_database() and (slot_name = $1 or slot_name ~ '^pg_[0-9]+_sync_')", name)
		if inUse(err) { // its reader has not gone yet
			_, err = c.Exec(ctx, "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active", name)
			return false, err
		}
		return err == nil, err
	}); err != nil {
		return fmt.Errorf("drop slot: %w", err)
	}
	if _, err := c.Exec(ctx, "drop publication if exists "+name); err != nil {
		return fmt.Errorf("drop publication: %w", err)
	}
	return nil
}

// copyPace is how often a copy is looked at.
const copyPace = 100 * time.Millisecond

// follow begins the copy and returns when all tables are there and kept up to date. same says whether the source
// still is what it was.
func (t *transfer) follow(ctx context.Context, same func() error) error {
	from, to, err := t.both(ctx)
	if err != nil {
		return err
	}
	defer from.Close(context.WithoutCancel(ctx))
	defer to.Close(context.WithoutCancel(ctx))
	if err := publish(ctx, from, forth, t.what.published()); err != nil {
		return err
	}
	if err := t.p.subscribe(ctx, t.to, t.from, forth, "copy_data = true"); err != nil {
		return err
	}
	var last, looked time.Time
	for {
		var left, all, failed int64
		var have int64
		if err := to.QueryRow(ctx, `select (select count(*) filter (where srsubstate <> 'r') from pg_subscription_rel), (select count(*) from pg_subscription_rel),
			coalesce((select sum(sync_error_count + apply_error_count) from pg_stat_subscription_stats), 0)::bigint, (select coalesce(sum(pg_table_size(srrelid)), 0)::bigint from pg_subscription_rel)`).Scan(&left, &all, &failed, &have); err != nil {
			return fmt.Errorf("look at the copy: %w", err)
		}
		if left == 0 {
			break
		}
		if failed > 2 {
			lines := keeper.LastLines(t.p.logOf(t.to.ID, t.to.Primary), time.Time{}, 4)
			if err := unchanged(ctx, from, t.shape); err != nil {
				return err
			}
			return tenfold.Errorf(tenfold.CodeFailed, "the copy fails again and again\n  last output  %s", strings.Join(lines, "\n               ")).WithHint("nothing was switched")
		}
		if now := time.Now(); now.Sub(looked) > 2*time.Second {
			looked = now
			if err := errors.Join(same(), unchanged(ctx, from, t.shape)); err != nil {
				return err
			}
			if now.Sub(last) > 10*time.Second {
				last = now
				t.say(fmt.Sprintf("copied %d of %d MB, %d of %d tables", have>>20, t.what.bytes>>20, all-left, all))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(copyPace):
		}
	}
	return nil
}

// polish makes what a copy of rows does not bring: statistics, and what materialized views hold.
func (t *transfer) polish(ctx context.Context) error {
	to, err := t.p.open(ctx, t.to)
	if err != nil {
		return err
	}
	defer to.Close(context.WithoutCancel(ctx))
	views := t.what.views
	for len(views) > 0 { // one may read another
		var again []string
		var fault error
		for _, v := range views {
			if _, err := to.Exec(ctx, "refresh materialized view "+v); err != nil {
				again, fault = append(again, v), err
			}
		}
		if len(again) == len(views) {
			return fmt.Errorf("refresh materialized view %s: %w", again[0], fault)
		}
		views = again
	}
	if _, err := to.Exec(ctx, "analyze"); err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	return nil
}

// rest copies what the stream does not have. Nobody writes meanwhile.
func rest(ctx context.Context, from, to *pgx.Conn, what survey) error {
	if _, err := to.Exec(ctx, "set session_replication_role = replica"); err != nil {
		return err
	}
	for _, x := range what.rest() {
		if err := copyTable(ctx, from, to, x.name); err != nil {
			return err
		}
	}
	if err := copySequences(ctx, from, to, what.sequences); err != nil {
		return err
	}
	return copyBlobs(ctx, from, to)
}

// copyTable makes a table's rows those of another's.
func copyTable(ctx context.Context, from, to *pgx.Conn, name string) error {
	var columns *string
	if err := from.QueryRow(ctx, "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped and attgenerated = ''", name).Scan(&columns); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	if columns == nil {
		return nil
	}
	if _, err := to.Exec(ctx, "delete from only "+name); err != nil { // truncate would ask for those that refer to it
		return fmt.Errorf("copy %s: %w", name, err)
	}
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { // ends with the pipe
		_, err := from.PgConn().CopyTo(ctx, w, "copy (select "+*columns+" from only "+name+") to stdout")
		w.CloseWithError(err)
		done <- err
	}()
	_, err := to.PgConn().CopyFrom(ctx, r, "copy "+name+" ("+*columns+") from stdin")
	r.CloseWithError(err)
	if err := errors.Join(<-done, err); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	return nil
}

func copySequences(ctx context.Context, from, to *pgx.Conn, names []string) error {
	if len(names) == 0 {
		return nil
	}
	var ask strings.Builder
	for i, n := range names {
		if i > 0 {
			ask.WriteString(" union all ")
		}
		fmt.Fprintf(&ask, "select format('select setval(%%L, %%s, %%L)', %s, last_value, is_called) from %s", quoteConf(n), n)
	}
	rows, err := from.Query(ctx, ask.String())
	if err != nil {
		return fmt.Errorf("read sequences: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read sequences: %w", err)
	}
	if err := to.PgConn().Exec(ctx, strings.Join(all, ";")).Close(); err != nil {
		return fmt.Errorf("set sequences: %w", err)
	}
	return nil
}

// copyBlobs makes the large objects of one server those of another, with owners and grants.
func copyBlobs(ctx context.Context, from, to *pgx.Conn) error {
	if _, err := to.Exec(ctx, "select lo_unlink(oid) from pg_largeobject_metadata"); err != nil {
		return fmt.Errorf("copy large objects: %w", err)
	}
	rows, err := from.Query(ctx, `select m.oid::bigint, lo_get(m.oid), format('alter large object %s owner to %I', m.oid, pg_get_userbyid(m.lomowner)) || coalesce((select string_agg(
		format('; grant %s on large object %s to %s', a.privilege_type, m.oid, case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end), '') from aclexplode(m.lomacl) a where a.grantee <> m.lomowner), '') from pg_largeobject_metadata m`)
	if err != nil {
		return fmt.Errorf("copy large objects: %w", err)
	}
	var oid int64
	var data []byte
	var owner string
	if _, err := pgx.ForEachRow(rows, []any{&oid, &data, &owner}, func() error {
		if _, err := to.Exec(ctx, "select lo_from_bytea($1::bigint::oid, $2)", oid, data); err != nil {
			return err
		}
		return to.PgConn().Exec(ctx, owner).Close()
	}); err != nil {
		return fmt.Errorf("copy large objects: %w", err)
	}
	return nil
}

// compare reads every table on both sides and names the first that differs. It returns how many rows there are.
func (t *transfer) compare(ctx context.Context) (rows int64, err error) {
	from, to, err := t.both(ctx)
	if err != nil {
		return 0, err
	}
	defer from.Close(context.WithoutCancel(ctx))
	defer to.Close(context.WithoutCancel(ctx))
	for _, x := range t.what.tables {
		type sum struct {
			n   int64
			sum string
		}
		look := func(c *pgx.Conn) (s sum, err error) {
			err = c.QueryRow(ctx, "select count(*), coalesce(sum(('x' || substr(md5(x::text), 1, 12))::bit(48)::bigint), 0)::text from only "+x.name+" x").Scan(&s.n, &s.sum)
			return s, err
		}
		other := make(chan sum, 1)
		var lerr error
		go func() { // ends with its query
			var s sum
			s, lerr = look(to)
			other <- s
		}()
		a, err := look(from)
		b := <-other
		if err := errors.Join(err, lerr); err != nil {
			return rows, fmt.Errorf("compare %s: %w", x.name, err)
		}
		if a != b {
			return rows, tenfold.Errorf(tenfold.CodeFailed, "%s differs after the copy: %d rows there, %d here", x.name, a.n, b.n).WithHint("do not upgrade; the copy is wrong")
		}
		rows += a.n
	}
	return rows, nil
}
