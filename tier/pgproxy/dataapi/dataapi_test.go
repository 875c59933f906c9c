package dataapi

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
)

func TestRewrite(t *testing.T) {
	for sql, want := range map[string]string{
		"select 1":                           "select 1 []",
		"select :a, :b, :a":                  "select $1, $2, $1 [a b]",
		"select :a::int, x::text":            "select $1::int, x::text [a]",
		"select ':a', \":a\", ':a'':b', :b":  "select ':a', \":a\", ':a'':b', $1 [b]",
		`select E'\':a', e':b\\', :c`:        `select E'\':a', e':b\\', $1 [c]`,
		"select $$:a$$, $x$ :a $$ $x$, :b":   "select $$:a$$, $x$ :a $$ $x$, $1 [b]",
		"select 1 -- :a\n, :b":               "select 1 -- :a\n, $1 [b]",
		"select 1 /* :a /* :b */ :c */ , :d": "select 1 /* :a /* :b */ :c */ , $1 [d]",
		"select a[1:2], a[:x], type$:y":      "select a[1:2], a[$1], type$$2 [x y]",
		"select x := :_a1, :été":             "select x := $1, $2 [_a1 été]",
		"select ':a":                         "select ':a []",
		"select '\\' || :a":                  "select '\\' || $1 [a]",
		"select :1, : a, :":                  "select :1, : a, : []",
	} {
		got, names := rewrite(sql)
		if got += " [" + strings.Join(names, " ") + "]"; got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
}

// What is rewritten means the same with the names put back, and nothing of it is a parameter any more.
func FuzzRewrite(f *testing.F) {
	for _, s := range []string{"select :a::int, ':b', $$:c$$ -- :d", "/* :a", "E'\\':a", "::a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		got, names := rewrite(sql)
		if len(names) == 0 && got != sql {
			t.Errorf("%q became %q", sql, got)
		}
		sorted := slices.Clone(names)
		slices.Sort(sorted)
		if len(slices.Compact(sorted)) != len(names) {
			t.Errorf("%q: a name twice: %q", sql, names)
		}
		for _, n := range names {
			if !strings.Contains(sql, ":"+n) {
				t.Errorf("%q has no %q", sql, n)
			}
		}
	})
}

func TestArrays(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                      `{"stringValues":[]}`,
		`{a,"b,\"c",NULL,"NULL"}`: `{"stringValues":["a","b,\"c",null,"NULL"]}`,
		`{{a,b},{c,NULL}}`:        `{"arrayValues":[{"stringValues":["a","b"]},{"stringValues":["c",null]}]}`,
		`[0:1]={x,y}`:             `{"stringValues":["x","y"]}`,
		`[0:1][2:2]={{x},{y}}`:    `{"arrayValues":[{"stringValues":["x"]},{"stringValues":["y"]}]}`,
		`{"[1]={"}`:               `{"stringValues":["[1]={"]}`,
	} {
		var d decoder
		if got, err := d.array(pgtype.TextOID, in); err != nil || string(got) != want {
			t.Errorf("%s: %s %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "{", "{a", `{"a`, "{a}}", "{a,}", "{{a},b", "x"} {
		var d decoder
		if got, err := d.array(pgtype.TextOID, in); err == nil {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func FuzzArray(f *testing.F) {
	f.Add(`{a,"b\"",NULL,{1}}`)
	f.Fuzz(func(t *testing.T, in string) {
		for _, of := range []uint32{pgtype.TextOID, pgtype.Int4OID, pgtype.NumericOID, pgtype.ByteaOID} {
			var d decoder
			d.array(of, in)
		}
	})
}
