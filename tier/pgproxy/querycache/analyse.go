package querycache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Question asks what a query reads. SQL is one statement, without what ends it; Types are what the client
// said of its parameters, Settings the SQL that makes a session like the client's.
type Question struct {
	SQL      string
	Types    []uint32
	Settings string
}

// firstOwn is the first number of what is not PostgreSQL's own.
const firstOwn = 16384

// refusal is a reason not to cache, as an error.
type refusal string

func (r refusal) Error() string { return string(r) }

// analyse asks a server what a query reads. What it makes for that is rolled back.
func analyse(ctx context.Context, c *pgconn.PgConn, q Question) (v Verdict, err error) {
	if err := exec(ctx, c, "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '1s';"+q.Settings); err != nil {
		return v, err
	}
	v, err = reads(ctx, c, q)
	if rerr := exec(ctx, c, "ROLLBACK"); rerr != nil {
		return v, rerr
	}
	var why refusal
	var said *pgconn.PgError
	switch {
	case errors.As(err, &why):
		return Verdict{Why: string(why)}, nil
	case errors.As(err, &said) && said.SeverityUnlocalized != "FATAL":
		return Verdict{Why: "PostgreSQL says of it: " + said.Message}, nil
	}
	return v, err
}

// reads finds what a query reads, in a transaction.
func reads(ctx context.Context, c *pgconn.PgConn, q Question) (v Verdict, err error) {
	body, err := treeOf(ctx, c, q)
	if err != nil {
		return v, err
	}
	v.Relations = map[uint32]string{}
	var functions, operators, next []uint32
	for texts := []string{body}; len(texts) > 0; {
		next = nil
		for _, text := range texts {
			t := readTree(text)
			if t.why != "" {
				return v, refusal(t.why)
			}
			functions, operators = append(functions, t.functions...), append(operators, t.operators...)
			for _, oid := range t.relations {
				if _, known := v.Relations[oid]; !known {
					v.Relations[oid] = ""
					next = append(next, oid)
				}
			}
		}
		if texts, err = v.relations(ctx, c, next); err != nil {
			return v, err
		}
	}
	if len(v.Tables) == 0 {
		return v, refusal("it reads no table")
	}
	if err := harmless(ctx, c, functions, operators); err != nil {
		return v, err
	}
	all := make([]uint32, 0, len(v.Relations))
	for oid := range v.Relations {
		all = append(all, oid)
	}
	rows, err := ask(ctx, c, "SELECT "+catalogOf(all))
	if err != nil {
		return v, err
	}
	v.Relations, err = parseCatalog(rows[0][0])
	return v, err
}

// treeOf has the server analyse a query and gives what it made of it. As the body of a function it may
// have parameters, which a view may not, and the columns of its answer any names.
func treeOf(ctx context.Context, c *pgconn.PgConn, q Question) (string, error) {
	d, err := c.Prepare(ctx, "", q.SQL, q.Types)
	if err != nil {
		return "", err
	}
	for _, f := range d.Fields {
		if slices.Contains(nameTypes, f.DataTypeOID) && f.DataTypeOID != 24 {
			return "", refusal("a name of the catalogs as a value (regclass and its like)")
		}
	}
	types := ""
	if len(d.ParamOIDs) > 0 {
		rows, err := ask(ctx, c, "SELECT pg_catalog.string_agg(pg_catalog.format_type(t, NULL), ', ' ORDER BY n) FROM pg_catalog.unnest("+array(d.ParamOIDs)+") WITH ORDINALITY x(t, n)")
		if err != nil {
			return "", err
		}
		types = rows[0][0]
	}
	// By the extended protocol, which takes one statement: a text that ends the body early is an error.
	made := c.ExecParams(ctx, "CREATE FUNCTION pg_temp.tenfold_cached("+types+") RETURNS SETOF record LANGUAGE sql BEGIN ATOMIC "+q.SQL+"\n; END", nil, nil, nil, nil).Read()
	if made.Err != nil {
		return "", made.Err
	}
	rows, err := ask(ctx, c, "SELECT prosqlbody::pg_catalog.text FROM pg_catalog.pg_proc WHERE proname OPERATOR(pg_catalog.=) 'tenfold_cached' AND pronamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()")
	if err != nil {
		return "", err
	}
	if len(rows) != 1 {
		return "", refusal("what PostgreSQL says of it is not understood")
	}
	return rows[0][0], nil
}

// relations looks at relations: tables are noted with those that inherit from them, of views the texts are
// returned.
func (v *Verdict) relations(ctx context.Context, c *pgconn.PgConn, oids []uint32) (texts []string, err error) {
	for len(oids) > 0 {
		rows, err := ask(ctx, c, `SELECT c.oid, c.oid::pg_catalog.regclass, c.relkind, c.relpersistence, c.relrowsecurity,
			c.relreplident = 'f' OR c.relreplident IN ('d', 'i') AND EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid
				AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate ELSE i.indisreplident END),
			coalesce((SELECT pg_catalog.string_agg(h.inhrelid::pg_catalog.text, ' ') FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid), ''),
			coalesce((SELECT r.ev_action::pg_catalog.text FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '1' AND c.relkind = 'v'), ''),
			pg_catalog.pg_has_role(c.relowner, 'USAGE')
			FROM pg_catalog.pg_class c WHERE c.oid = ANY(`+array(oids)+`)`)
		if err != nil {
			return nil, err
		}
		if len(rows) != len(oids) {
			return nil, refusal("a relation of it went away")
		}
		oids = nil
		for _, r := range rows {
			oid, name := number(r[0]), r[1]
			if why := relationWhy(oid, name, r[2], r[3], r[4] == "t", r[5] == "t", r[8] == "t"); why != "" {
				return nil, refusal(why)
			}
			v.Relations[oid] = ""
			switch r[2] {
			case "r":
				v.Tables = append(v.Tables, oid)
			case "v":
				texts = append(texts, r[7])
			}
			for x := range strings.FieldsSeq(r[6]) {
				if child := number(x); child != 0 {
					if _, known := v.Relations[child]; !known {
						v.Relations[child] = ""
						oids = append(oids, child)
					}
				}
			}
		}
	}
	return texts, nil
}

// relationWhy says why what reads a relation may not be cached.
func relationWhy(oid uint32, name, kind, persistence string, secured, identity, owned bool) string {
	switch {
	case oid < firstOwn:
		return "it reads the catalogs: " + name
	case persistence == "t":
		return "a temporary table: " + name
	case persistence == "u":
		return "an unlogged table, whose changes are not in the WAL: " + name
	case secured:
		return "row-level security: " + name
	case kind == "f":
		return "a foreign table: " + name
	case kind == "m":
		return "a materialized view, whose refresh is not seen: " + name
	case kind == "S":
		return "a sequence: " + name
	case kind != "r" && kind != "v" && kind != "p":
		return "it is not known what this is: " + name
	case kind == "r" && !identity:
		return "a table without primary key or replica identity: " + name
	case kind == "r" && !owned:
		return "a table of another owner, whose changes may not be published: " + name
	}
	return ""
}

// harmless says whether all functions answer the same to the same arguments.
func harmless(ctx context.Context, c *pgconn.PgConn, functions, operators []uint32) error {
	rows, err := ask(ctx, c, `SELECT p.oid, p.proname, p.provolatile, l.lanname FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
		WHERE p.oid = ANY(`+array(functions)+`) OR p.oid IN (SELECT o.oprcode FROM pg_catalog.pg_operator o WHERE o.oid = ANY(`+array(operators)+`))`)
	if err != nil {
		return err
	}
	for _, r := range rows {
		own, name := number(r[0]) >= firstOwn, r[1]
		switch {
		case r[2] == "v":
			return refusal("a volatile function: " + name)
		case own && r[3] != "c" && r[3] != "internal":
			return refusal("a function of the app's own, which may read anything: " + name)
		case r[2] != "i" && (own || !steady[name]):
			return refusal("a function whose answer depends on more than its arguments: " + name)
		}
	}
	return nil
}

// catalogOf is an expression: what the catalogs say of relations, as "oid=number" for each. The number is
// another one when anything of them was defined anew. Rows of catalogs are replaced with each change, so
// the transactions that wrote them tell; what VACUUM and ANALYZE note is written in place.
func catalogOf(oids []uint32) string {
	sum := func(table, column, more string) string {
		return ` + coalesce((SELECT sum(x.xmin::pg_catalog.text::pg_catalog.int8 * 31 + 1) FROM pg_catalog.` + table + ` x WHERE x.` + column + ` = c.oid` + more + `), 0)`
	}
	return `coalesce((SELECT pg_catalog.string_agg(c.oid || '=' || (c.xmin::pg_catalog.text::pg_catalog.int8` +
		sum("pg_attribute", "attrelid", "") + sum("pg_rewrite", "ev_class", "") + sum("pg_policy", "polrelid", "") + sum("pg_inherits", "inhparent", "") +
		sum("pg_index", "indrelid", " AND (x.indisprimary OR x.indisreplident)") +
		`), ' ') FROM pg_catalog.pg_class c WHERE c.oid = ANY(` + array(oids) + `)), '')`
}

// global is an expression: what the catalogs say of what belongs to no relation and changes answers.
const global = `(SELECT (SELECT coalesce(sum(xmin::pg_catalog.text::pg_catalog.int8 + oid::pg_catalog.int8), 0) FROM pg_catalog.pg_namespace WHERE nspname NOT LIKE 'pg\_%') || ' ' ||
	(SELECT coalesce(sum(xmin::pg_catalog.text::pg_catalog.int8 + oid::pg_catalog.int8), 0) FROM pg_catalog.pg_enum) || ' ' ||
	(SELECT coalesce(sum(xmin::pg_catalog.text::pg_catalog.int8 + roleid::pg_catalog.int8), 0) FROM pg_catalog.pg_auth_members))`

func parseCatalog(s string) (map[uint32]string, error) {
	out := map[uint32]string{}
	for x := range strings.FieldsSeq(s) {
		oid, is, ok := strings.Cut(x, "=")
		if !ok {
			return nil, fmt.Errorf("read catalogs: %q", x)
		}
		out[number(oid)] = is
	}
	return out, nil
}

func array(oids []uint32) string {
	var b strings.Builder
	b.WriteString("'{")
	for i, n := range oids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(uint64(n), 10))
	}
	b.WriteString("}'::pg_catalog.oid[]")
	return b.String()
}

func number(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return uint32(n)
}

func exec(ctx context.Context, c *pgconn.PgConn, sql string) error {
	_, err := c.Exec(ctx, sql).ReadAll()
	return err
}

// ask runs one query and gives its rows as text.
func ask(ctx context.Context, c *pgconn.PgConn, sql string) ([][]string, error) {
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var out [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			cols := make([]string, len(row))
			for i, v := range row {
				cols[i] = string(v)
			}
			out = append(out, cols)
		}
	}
	return out, nil
}
