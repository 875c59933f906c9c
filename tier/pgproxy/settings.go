package pgproxy

import (
	"slices"
	"strings"
)

// A setting is a run-time parameter that a client set for its session.
type setting struct{ name, value string }

// settings are all of them, sorted by name. They never change, and equal ones are one pointer, so that
// comparing a client's with a server's costs nothing. nil is none.
type settings struct{ list []setting }

// maxInterned bounds how many different sets are known; beyond it, equal ones may differ and are
// applied once too often.
const maxInterned = 10000

// interned are the sets in use. Owned by the loop.
type interned map[string]*settings

func (in interned) get(list []setting) *settings {
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b setting) int { return strings.Compare(a.name, b.name) })
	var key strings.Builder
	for _, s := range list {
		key.WriteString(s.name + "\x00" + s.value + "\x00")
	}
	if s := in[key.String()]; s != nil {
		return s
	}
	if len(in) >= maxInterned {
		clear(in)
	}
	s := &settings{list}
	in[key.String()] = s
	return s
}

func (s *settings) get(name string) (string, bool) {
	if s == nil {
		return "", false
	}
	for _, x := range s.list {
		if x.name == name {
			return x.value, true
		}
	}
	return "", false
}

// scope is what a session's names mean other things by than those of a fresh one; "" for nothing.
func (s *settings) scope() string {
	if s == nil {
		return ""
	}
	path, set := s.get("search_path")
	role, as := s.get("role")
	if !set && !as {
		return ""
	}
	return path + "\x00" + role
}

func (s *settings) all() []setting {
	if s == nil {
		return nil
	}
	return s.list
}

// with gives these settings with others in place of those with the same names.
func (in interned) with(s *settings, others []setting) *settings {
	list := make([]setting, 0, len(s.all())+len(others))
	for _, x := range s.all() {
		if !slices.ContainsFunc(others, func(o setting) bool { return o.name == x.name }) {
			list = append(list, x)
		}
	}
	return in.get(append(list, others...))
}

// without gives these settings but for some names.
func (in interned) without(s *settings, names []string) *settings {
	list := make([]setting, 0, len(s.all()))
	for _, x := range s.all() {
		if !slices.Contains(names, x.name) {
			list = append(list, x)
		}
	}
	return in.get(list)
}

// replay is the SQL that makes a session with the settings from one with the settings to. The role is
// given up first and taken last: what lies between may need the right of the one who logged in.
func replay(from, to *settings) string {
	var b strings.Builder
	role, hadRole := from.get("role")
	wanted, wantRole := to.get("role")
	changed := hadRole || wantRole
	if changed && hadRole && (!wantRole || role != wanted || from != to) {
		b.WriteString("RESET ROLE;")
	}
	for _, x := range from.all() {
		if _, ok := to.get(x.name); !ok && x.name != "role" {
			b.WriteString("RESET " + quoteName(x.name) + ";")
		}
	}
	for _, x := range to.all() {
		if v, ok := from.get(x.name); (!ok || v != x.value) && x.name != "role" {
			b.WriteString("SELECT pg_catalog.set_config(" + quoteText(x.name) + "," + quoteText(x.value) + ",false);")
		}
	}
	if wantRole {
		b.WriteString("SELECT pg_catalog.set_config('role'," + quoteText(wanted) + ",false);")
	}
	return b.String()
}

// quoteName quotes a setting's name, part by part.
func quoteName(n string) string {
	parts := strings.Split(n, ".")
	for i, p := range parts {
		parts[i] = `"` + strings.ReplaceAll(p, `"`, `""`) + `"`
	}
	return strings.Join(parts, ".")
}

// quoteText quotes a literal so that it means the same whatever standard_conforming_strings says.
func quoteText(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", "''")
	if strings.Contains(s, `\`) {
		return " E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}

// probe is the SQL that asks a server what stayed in the session: one row of five booleans, then a row
// for each of the names with its value, when it is set for the session at all.
func probe(names []string) string {
	var b strings.Builder
	b.WriteString(`SELECT EXISTS(SELECT FROM pg_catalog.pg_type WHERE typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())` +
		` OR EXISTS(SELECT FROM pg_catalog.pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()),` +
		` EXISTS(SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()),` +
		` EXISTS(SELECT FROM pg_catalog.pg_cursors WHERE is_holdable),` +
		` EXISTS(SELECT FROM pg_catalog.pg_listening_channels()),` +
		` EXISTS(SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)`)
	if len(names) == 0 {
		return b.String()
	}
	b.WriteString(`;SELECT n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest(ARRAY[`)
	for i, n := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quoteText(n))
	}
	// A setting of an extension or of the app's own, and the role, are not in the view: those count when
	// they have a value.
	b.WriteString(`]::pg_catalog.text[]) n LEFT JOIN pg_catalog.pg_settings s ON pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) n` +
		` WHERE s.source OPERATOR(pg_catalog.=) 'session' OR s.source IS NULL AND NOT (pg_catalog.current_setting(n, true) OPERATOR(pg_catalog.=) ANY (ARRAY['', CASE n WHEN 'role' THEN 'none' ELSE '' END]))`)
	return b.String()
}
