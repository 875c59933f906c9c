package querycache

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"tenfold/internal/lazy"
)

// PostgreSQL keeps an analysed statement as text, in pg_proc.prosqlbody for the body of a function and in
// pg_rewrite.ev_action for a view: every relation, function and operator in it is named by its number,
// nothing is left out yet because it could not be reached, and nothing has been computed. That is what is
// read here. The form of the text differs from version to version, so only nodes whose names are known are
// taken; whatever is new is refused.

// tree is what was found in such a text.
type tree struct {
	relations []uint32
	functions []uint32
	operators []uint32 // whose function is not said
	types     []uint32 // of constants, columns and results
	why       string   // it may not be cached; "": nothing was found against it
}

var (
	nodeName   = lazy.Regexp(`(?:^|[^\\])\{([A-Z_]+)`)
	relidField = lazy.Regexp(`:relid (\d+)`)
	funcField  = lazy.Regexp(`:(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)`)
	opField    = lazy.Regexp(`:opno (\d+) :opfuncid 0 `)
	opsField   = lazy.Regexp(`:opnos \(o([0-9 ]*)\)`)
	typeField  = lazy.Regexp(`:(?:consttype|vartype|paramtype|resulttype|funcresulttype|opresulttype|array_typeid|aggtype|wintype) (\d+)`)
)

// nodes that depend on nothing but what else is in the tree, by the names of PostgreSQL 14 to 18.
var nodes = func() map[string]bool {
	m := map[string]bool{}
	for _, n := range strings.Fields(`
		QUERY RTE RANGETBLENTRY RTEPERMISSIONINFO ALIAS FROMEXPR JOINEXPR RANGETBLREF RANGETBLFUNCTION TARGETENTRY VAR CONST PARAM
		FUNCEXPR NAMEDARGEXPR OPEXPR DISTINCTEXPR NULLIFEXPR SCALARARRAYOPEXPR BOOLEXPR NULLTEST BOOLEANTEST AGGREF GROUPINGFUNC
		WINDOWFUNC WINDOWCLAUSE SUBSCRIPTINGREF SUBLINK FIELDSELECT RELABELTYPE COERCEVIAIO ARRAYCOERCEEXPR
		CONVERTROWTYPEEXPR CASE CASEEXPR WHEN CASEWHEN CASETESTEXPR ARRAY ARRAYEXPR ROW ROWEXPR ROWCOMPARE ROWCOMPAREEXPR
		COALESCE COALESCEEXPR MINMAX MINMAXEXPR COLLATE COLLATEEXPR SORTGROUPCLAUSE GROUPINGSET COMMONTABLEEXPR SETOPERATIONSTMT`) {
		m[n] = true
	}
	return m
}()

// nodeWhy says what some of the others are.
var nodeWhy = map[string]string{
	"SQLVALUEFUNCTION": "current_date, current_user or their like: the answer is another each time",
	"SVF":              "current_date, current_user or their like: the answer is another each time",
	"NEXTVALUEEXPR":    "it takes a number from a sequence", "ROWMARKCLAUSE": "FOR UPDATE or FOR SHARE: it locks",
	"TABLESAMPLECLAUSE": "TABLESAMPLE: the answer is another each time",
}

// dateTypes depend on the day when they are read from text ('now', 'today'), nameTypes on the catalogs.
var (
	dateTypes = []uint32{1082, 1083, 1114, 1184, 1266}
	nameTypes = []uint32{24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191}
)

// readTree reads the text of an analysed statement.
func readTree(text string) tree {
	var t tree
	names := map[string]bool{}
	for _, m := range nodeName.FindAllStringSubmatch(text, -1) {
		names[m[1]] = true
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if !nodes[n] && t.why == "" {
			if t.why = nodeWhy[n]; t.why == "" {
				t.why = "a part of it is not known to be harmless: " + strings.ToLower(n)
			}
		}
	}
	switch {
	case t.why != "":
	case !names["QUERY"]:
		t.why = "what PostgreSQL says of it is not understood"
	case strings.Count(text, ":commandType ") != strings.Count(text, ":commandType 1 "):
		t.why = "it writes"
	case strings.Contains(text, ":hasModifyingCTE true"):
		t.why = "it writes"
	case strings.Contains(text, ":hasForUpdate true"):
		t.why = nodeWhy["ROWMARKCLAUSE"]
	case strings.Contains(text, ":hasRowSecurity true"):
		t.why = "row-level security"
	case strings.Contains(text, ":varattno -"):
		t.why = "a system column (ctid, xmin, tableoid), which changes unseen"
	}
	t.relations = numbers(relidField, text)
	t.functions = numbers(funcField, text)
	t.operators = numbers(opField, text)
	for _, m := range opsField.FindAllStringSubmatch(text, -1) {
		for x := range strings.FieldsSeq(m[1]) {
			if n, err := strconv.ParseUint(x, 10, 32); err == nil {
				t.operators = append(t.operators, uint32(n))
			}
		}
	}
	t.types = numbers(typeField, text)
	if t.why == "" {
		for _, n := range t.types {
			if slices.Contains(nameTypes, n) {
				t.why = "a name of the catalogs as a value (regclass and its like)"
			}
		}
		if names["COERCEVIAIO"] && slices.ContainsFunc(numbers(lazy.Regexp(`:resulttype (\d+)`), text), func(n uint32) bool { return slices.Contains(dateTypes, n) }) {
			t.why = "text is read as a time, and may be 'now'"
		}
	}
	return t
}

// numbers are the different ones that a field has, but 0.
func numbers(field *lazy.Expr, text string) (out []uint32) {
	for _, m := range field.FindAllStringSubmatch(text, -1) {
		if n, err := strconv.ParseUint(m[1], 10, 32); err == nil && n != 0 && !slices.Contains(out, uint32(n)) {
			out = append(out, uint32(n))
		}
	}
	return out
}

// steady are PostgreSQL's own functions that are marked as stable and depend on nothing but their
// arguments and the session's settings, which are a part of an answer's key.
var steady = func() map[string]bool {
	m := map[string]bool{}
	for _, n := range strings.Fields(`
		to_char to_date to_timestamp to_number date_trunc date_part extract timezone timestamptz timestamp date time timetz concat
		concat_ws format quote_literal quote_nullable array_to_string array_to_json row_to_json to_json to_jsonb
		json_build_object json_build_array jsonb_build_object jsonb_build_array json_object jsonb_object
		json_agg jsonb_agg json_object_agg jsonb_object_agg json_agg_strict jsonb_agg_strict json_agg_finalfn
		textanycat anytextcat timestamptz_pl_interval timestamptz_mi_interval interval_pl_timestamptz
		date_eq_timestamptz date_ne_timestamptz date_lt_timestamptz date_le_timestamptz date_gt_timestamptz date_ge_timestamptz
		timestamptz_eq_date timestamptz_ne_date timestamptz_lt_date timestamptz_le_date timestamptz_gt_date timestamptz_ge_date
		timestamp_eq_timestamptz timestamp_ne_timestamptz timestamp_lt_timestamptz timestamp_le_timestamptz timestamp_gt_timestamptz timestamp_ge_timestamptz
		timestamptz_eq_timestamp timestamptz_ne_timestamp timestamptz_lt_timestamp timestamptz_le_timestamp timestamptz_gt_timestamp timestamptz_ge_timestamp
		generate_series to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery`) {
		m[n] = true
	}
	return m
}()
