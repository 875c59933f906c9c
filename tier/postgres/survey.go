package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/dbinfo"
)

// survey is what a copy to another major has to bring along.
type survey struct {
	tables     []table  // with data of their own, in order of name
	extensions []string // of the app's database
	sequences  []string // quoted names
	views      []string // materialized ones that hold data
	blobs      int64
	blobBytes  int64
	notes      []string
	bytes      int64
}

// table is one with rows of its own: a partition, not what it is part of.
type table struct {
	name  string // quoted, with its schema
	bytes int64
	// stays says why it cannot be published; "": it can. Published all the same, each UPDATE and DELETE of
	// the app would be an error.
	stays string
}

// surveyTables finds tables with what identifies their rows. Those of extensions come with them.
const surveyTables = `select format('%I.%I', n.nspname, c.relname), pg_table_size(c.oid), case
	when c.relpersistence = 'u' then 'unlogged: its rows are not in the WAL'
	when c.relreplident = 'f' then ''
	when c.relreplident = 'd' and exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary and i.indisvalid and i.indimmediate) then ''
	when c.relreplident = 'i' and exists (select from pg_index i where i.indrelid = c.oid and i.indisreplident and i.indisvalid) then ''
	when c.relreplident = 'n' then 'its replica identity is NOTHING'
	else 'no primary key: no replica identity' end
	from pg_class c join pg_namespace n on n.oid = c.relnamespace
	where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
	and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e') order by 1`

func surveyOf(ctx context.Context, c *pgx.Conn, app string) (s survey, err error) {
	rows, err := c.Query(ctx, surveyTables)
	if err != nil {
		return s, fmt.Errorf("look at tables: %w", err)
	}
	var t table
	if _, err = pgx.ForEachRow(rows, []any{&t.name, &t.bytes, &t.stays}, func() error {
		s.tables = append(s.tables, t)
		s.bytes += t.bytes
		return nil
	}); err != nil {
		return s, fmt.Errorf("look at tables: %w", err)
	}
	for _, q := range []struct {
		into *[]string
		sql  string
	}{
		{&s.extensions, "select extname from pg_extension where extname <> 'plpgsql' order by 1"},
		{&s.sequences, `select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
			where c.relkind = 'S' and c.relpersistence <> 't' and n.nspname !~ '^pg_'
			and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e') order by 1`},
		{&s.views, `select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
			where c.relkind = 'm' and c.relispopulated and n.nspname !~ '^pg_' order by c.oid`},
	} {
		rows, err := c.Query(ctx, q.sql)
		if err != nil {
			return s, fmt.Errorf("look at the database: %w", err)
		}
		if *q.into, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return s, fmt.Errorf("look at the database: %w", err)
		}
	}
	if err := c.QueryRow(ctx, "select (select count(*) from pg_largeobject_metadata), (select coalesce(sum(length(data)), 0)::bigint from pg_largeobject)").Scan(&s.blobs, &s.blobBytes); err != nil {
		return s, fmt.Errorf("look at large objects: %w", err)
	}
	var others []string
	if err := c.QueryRow(ctx, "select coalesce(array_agg(datname::text), '{}') from pg_database where not datistemplate and datname not in ('postgres', $1)", app).Scan(&others); err != nil {
		return s, fmt.Errorf("look at the server: %w", err)
	}
	if len(others) > 0 {
		s.notes = append(s.notes, "databases besides the app's do not come along: "+strings.Join(others, ", "))
	}
	var slots []string
	if err := c.QueryRow(ctx, "select coalesce(array_agg(slot_name::text), '{}') from pg_replication_slots where slot_type = 'logical' and slot_name not like 'tenfold%'").Scan(&slots); err != nil {
		return s, fmt.Errorf("look at the server: %w", err)
	}
	if len(slots) > 0 {
		s.notes = append(s.notes, "logical slots of others do not come along: "+strings.Join(slots, ", "))
	}
	return s, nil
}

func (s survey) published() (out []string) {
	for _, t := range s.tables {
		if t.stays == "" {
			out = append(out, t.name)
		}
	}
	return out
}

// rest are the tables that are copied while writes wait.
func (s survey) rest() (out []table) {
	for _, t := range s.tables {
		if t.stays != "" {
			out = append(out, t)
		}
	}
	return out
}

// restBytes is what is copied while writes wait.
func (s survey) restBytes() (n int64) {
	for _, t := range s.rest() {
		n += t.bytes
	}
	return n + s.blobBytes
}

// restLimit bounds what is copied while writes wait: about a second's work.
const restLimit = 64 << 20

func (s survey) tooLarge() error {
	if s.restBytes() <= restLimit {
		return nil
	}
	var what []string
	for _, t := range s.rest() {
		what = append(what, fmt.Sprintf("%s, %d MB (%s)", t.name, t.bytes>>20, t.stays))
	}
	if s.blobs > 0 {
		what = append(what, fmt.Sprintf("%d large objects, %d MB", s.blobs, s.blobBytes>>20))
	}
	return tenfold.Errorf(tenfold.CodeConflict, "%d MB would be copied while writes wait, %d MB may be: %s", s.restBytes()>>20, int64(restLimit)>>20, strings.Join(what, "; ")).
		WithHint("give the tables a primary key, or: alter table … replica identity full")
}

func (s survey) tell(out *dbinfo.Upgrade) {
	out.Tables, out.Bytes, out.Notes = len(s.tables), s.bytes+s.blobBytes, s.notes
	out.Skipped = nil
	for _, t := range s.rest() {
		out.Skipped = append(out.Skipped, dbinfo.UpgradeTable{Name: t.name, Bytes: t.bytes, Why: t.stays})
	}
	if s.blobs > 0 {
		out.Skipped = append(out.Skipped, dbinfo.UpgradeTable{Name: fmt.Sprintf("%d large objects", s.blobs), Bytes: s.blobBytes, Why: "not in the WAL's logical stream"})
	}
}

// shape is the definition of every object of the app's schemas, by name: what a change of the schema changes.
const shapeQuery = `select format('table %I.%I', n.nspname, c.relname), md5(string_agg(format('%s %s %s %s', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)), ',' order by a.attnum) || c.relreplident::text || c.relpersistence::text || coalesce(c.relacl::text, ''))
	from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
	left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
	where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' group by n.nspname, c.relname, c.relreplident, c.relpersistence, c.relacl::text
	union all select format('view %I.%I', n.nspname, c.relname), md5(pg_get_viewdef(c.oid)) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('v', 'm') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
	union all select format('index %I.%I', n.nspname, c.relname), md5(pg_get_indexdef(c.oid)) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('i', 'I') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
	union all select format('sequence %I.%I', n.nspname, c.relname), md5(format('%s %s %s %s', s.seqtypid, s.seqincrement, s.seqmin, s.seqmax)) from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_sequence s on s.seqrelid = c.oid where c.relpersistence <> 't'
	union all select format('constraint %I on %s', x.conname, x.conrelid::regclass), md5(pg_get_constraintdef(x.oid)) from pg_constraint x join pg_namespace n on n.oid = x.connamespace where x.conrelid <> 0 and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
	union all select format('trigger %I on %s', t.tgname, t.tgrelid::regclass), md5(pg_get_triggerdef(t.oid) || t.tgenabled::text) from pg_trigger t where not t.tgisinternal
	union all select format('function %s', p.oid::regprocedure), md5(coalesce(p.prosrc, '') || coalesce(p.proconfig::text, '') || p.prorettype::text) from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
	union all select format('type %s', t.oid::regtype), md5(t.typtype::text || coalesce((select string_agg(e.enumlabel, ',' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid), '')) from pg_type t join pg_namespace n on n.oid = t.typnamespace where t.typtype in ('e', 'd') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
	union all select format('schema %I', n.nspname), md5(coalesce(n.nspacl::text, '') || n.nspowner::text) from pg_namespace n where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
	union all select format('extension %I', x.extname), md5(x.extversion) from pg_extension x`

func shapeOf(ctx context.Context, c *pgx.Conn) (map[string]string, error) {
	return pairs(ctx, c, shapeQuery)
}

// columnsOf is what two majors say alike: the columns of each table.
func columnsOf(ctx context.Context, c *pgx.Conn) (map[string]string, error) {
	return pairs(ctx, c, `select format('table %I.%I', n.nspname, c.relname), string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ',' order by a.attname)
		from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
		where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' group by 1`)
}

func pairs(ctx context.Context, c *pgx.Conn, sql string) (map[string]string, error) {
	rows, err := c.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("look at the schema: %w", err)
	}
	out := map[string]string{}
	var k, v string
	_, err = pgx.ForEachRow(rows, []any{&k, &v}, func() error { out[k] += v; return nil })
	if err != nil {
		return nil, fmt.Errorf("look at the schema: %w", err)
	}
	return out, nil
}

// differing names what differs between two looks at a schema, in order.
func differing(a, b map[string]string) []string {
	out := map[string]bool{}
	for k, v := range a {
		if b[k] != v {
			out[k] = true
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			out[k] = true
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// unchanged is an error that names what of a schema changed.
func unchanged(ctx context.Context, c *pgx.Conn, before map[string]string) error {
	now, err := shapeOf(ctx, c)
	if err != nil {
		return err
	}
	d := differing(before, now)
	if len(d) == 0 {
		return nil
	}
	more := ""
	if len(d) > 5 {
		d, more = d[:5], fmt.Sprintf(" and %d more", len(d)-5)
	}
	return tenfold.Errorf(tenfold.CodeConflict, "the schema changed during the copy: %s%s", strings.Join(d, ", "), more).
		WithHint("nothing was switched; begin again when no migration runs")
}

// lacking is an error that names extensions which another server does not have.
func lacking(ctx context.Context, c *pgx.Conn, extensions []string, major int) error {
	var missing []string
	err := c.QueryRow(ctx, "select coalesce(array_agg(x), '{}') from unnest($1::text[]) x where not exists (select from pg_available_extensions where name = x)", extensions).Scan(&missing)
	if err != nil {
		return fmt.Errorf("look for extensions: %w", err)
	}
	if len(missing) == 0 {
		return nil
	}
	return tenfold.Errorf(tenfold.CodeMissing, "PostgreSQL %d has no extension %s", major, strings.Join(missing, ", ")).
		WithHint("install it for this major, for example apt-get install postgresql-%d-%s", major, missing[0])
}

// roles makes the roles of one server in another, with their passwords, memberships and settings, and the
// settings of the app's database.
func roles(ctx context.Context, from, to *pgx.Conn, app string) error {
	rows, err := from.Query(ctx, `select format('do $r$ begin if not exists (select from pg_roles where rolname = %L) then create role %I; end if; end $r$; alter role %I %s %s %s %s %s connection limit %s%s', rolname, rolname, rolname,
		case when rolinherit then 'inherit' else 'noinherit' end, case when rolcanlogin then 'login' else 'nologin' end, case when rolcreatedb then 'createdb' else 'nocreatedb' end,
		case when rolcreaterole then 'createrole' else 'nocreaterole' end, case when rolbypassrls then 'bypassrls' else 'nobypassrls' end, rolconnlimit, coalesce(' password ' || quote_literal(rolpassword), ''))
		from pg_authid where rolname !~ '^pg_' and rolname not in ($1, $2) and not rolsuper
		union all select format('grant %I to %I%s', g.rolname, m.rolname, case when a.admin_option then ' with admin option' else '' end) from pg_auth_members a join pg_roles g on g.oid = a.roleid join pg_roles m on m.oid = a.member where m.rolname <> $1
		union all select format('alter role %I%s set %s to %s', r.rolname, case when s.setdatabase <> 0 then format(' in database %I', $2::text) else '' end, split_part(x, '=', 1), case when split_part(x, '=', 1) in ('search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries') then substr(x, strpos(x, '=') + 1) else quote_literal(substr(x, strpos(x, '=') + 1)) end)
			from pg_db_role_setting s join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) x where r.rolname <> $1 and (s.setdatabase = 0 or d.datname = $2)
		union all select format('alter database %I set %s to %s', $2::text, split_part(x, '=', 1), case when split_part(x, '=', 1) in ('search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries') then substr(x, strpos(x, '=') + 1) else quote_literal(substr(x, strpos(x, '=') + 1)) end) from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) x where s.setrole = 0 and d.datname = $2`, superuser, app)
	if err != nil {
		return fmt.Errorf("read roles: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read roles: %w", err)
	}
	for _, sql := range all {
		if _, err := to.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			return errors.New("make roles: " + err.Error()) // not the statement: passwords are in it
		}
	}
	return nil
}
