package httpcache

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Fields are the fields of a request, for keys and Vary. The name is in canonical form
// ("Accept-Encoding"). n is in how many lines it stands; of several, value is whatever.
type Fields interface {
	Value(name string) (value string, n int)
}

// headerFields is Fields of a http.Header, with several lines joined as RFC 9110 §5.3 has it.
type headerFields http.Header

func (h headerFields) Value(name string) (string, int) {
	switch v := h[name]; len(v) {
	case 0:
		return "", 0
	case 1:
		return v[0], 1
	default:
		return strings.Join(v, ", "), 1
	}
}

// keySeparator ends the URL in a key; what the rule adds follows it.
const keySeparator = 0

// appendKey appends the primary key: the URL, its query by the rule, then release, header fields and
// cookies that the rule names. Both doors make their keys here. ok is false when a field stands in
// several lines that fields does not join: the fast door then leaves the request to the other. It
// allocates nothing for an ordinary request.
func appendKey(dst []byte, ru *Rule, scheme, host, target string, fields Fields) (key []byte, ok bool) {
	dst = append(dst, scheme...)
	dst = append(dst, "://"...)
	for i := 0; i < len(host); i++ {
		dst = append(dst, lower(host[i]))
	}
	if ru.Query == QueryWhole {
		dst = append(dst, target...)
	} else {
		dst = appendQuery(dst, ru, target)
	}
	if ru.Release != "" {
		dst = append(dst, keySeparator, 'r', '=')
		dst = append(dst, ru.Release...)
	}
	for _, name := range ru.Headers {
		value, n := fields.Value(http.CanonicalHeaderKey(name))
		if n > 1 {
			return dst, false
		}
		dst = append(dst, keySeparator, 'h', ':')
		dst = append(dst, name...)
		if n > 0 {
			dst = append(dst, '=')
			dst = appendNormal(dst, value)
		}
	}
	if len(ru.Cookies) > 0 {
		value, n := fields.Value("Cookie")
		if n > 1 {
			return dst, false
		}
		for _, name := range ru.Cookies {
			dst = append(dst, keySeparator, 'c', ':')
			dst = append(dst, name...)
			if v, has := cookie(value, name); has {
				dst = append(dst, '=')
				dst = append(dst, v...)
			}
		}
	}
	return dst, true
}

// appendQuery appends the target with the parameters that the rule keeps, sorted by name. A parameter
// whose name is written in an unusual way (a semicolon, an undecodable escape) is always kept: an origin
// may read another name in it than we do, and what it reads must be in the key.
func appendQuery(dst []byte, ru *Rule, target string) []byte {
	path, query, has := strings.Cut(target, "?")
	dst = append(dst, path...)
	if !has || ru.Query == QueryNone && !strings.ContainsAny(query, ";") {
		return dst
	}
	var room [32]string
	kept := room[:0]
	for query != "" {
		var param string
		param, query, _ = strings.Cut(query, "&")
		if param != "" && keepParam(ru, param) {
			kept = append(kept, param)
		}
	}
	// by hand: slices.SortStableFunc would move room to the heap
	for i := 1; i < len(kept); i++ {
		for j := i; j > 0 && paramName(kept[j]) < paramName(kept[j-1]); j-- {
			kept[j], kept[j-1] = kept[j-1], kept[j]
		}
	}
	for i, param := range kept {
		dst = append(dst, "&?"[b2i(i == 0)])
		dst = append(dst, param...)
	}
	return dst
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func paramName(param string) string {
	name, _, _ := strings.Cut(param, "=")
	return name
}

func keepParam(ru *Rule, param string) bool {
	name := paramName(param)
	if strings.Contains(param, ";") {
		return true
	}
	if strings.ContainsAny(name, "%+") {
		decoded, err := url.QueryUnescape(name)
		if err != nil {
			return true
		}
		name = decoded
	}
	switch ru.Query {
	case QueryOnly:
		return slices.Contains(ru.Params, name)
	case QueryExcept:
		return !slices.Contains(ru.Params, name)
	}
	return false
}

// cookie finds the first value of a cookie in a Cookie field, as it was sent.
func cookie(field, name string) (string, bool) {
	for field != "" {
		var pair string
		pair, field, _ = strings.Cut(field, ";")
		if n, v, ok := strings.Cut(strings.Trim(pair, " \t"), "="); ok && n == name {
			return v, true
		}
	}
	return "", false
}

// appendNormal appends a field's value without the white space around commas and at its ends, which means
// nothing in a list (RFC 9110 §5.6.1). Quoted strings are left alone.
func appendNormal(dst []byte, value string) []byte {
	quoted := false
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case quoted:
			if c == '\\' && i+1 < len(value) {
				dst = append(dst, c)
				i++
				c = value[i]
			} else if c == '"' {
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == ' ' || c == '\t':
			j := i
			for j < len(value) && (value[j] == ' ' || value[j] == '\t') {
				j++
			}
			if j == len(value) || value[j] == ',' || i == 0 || value[i-1] == ',' {
				i = j - 1
				continue
			}
		}
		dst = append(dst, c)
	}
	return dst
}

// varied is one field that a stored response's Vary names, and what the request that made it had in it
// (RFC 9111 §4.1).
type varied struct {
	Name   string `json:"n"`
	Absent bool   `json:"a,omitempty"`
	Raw    string `json:"r,omitempty"`
	Normal string `json:"v,omitempty"`
}

// varyNames reads Vary. star: it matches no later request.
func varyNames(h http.Header) (names []string, star bool) {
	for _, line := range h["Vary"] {
		for _, n := range strings.Split(line, ",") {
			switch n = strings.Trim(n, " \t"); n {
			case "":
			case "*":
				return nil, true
			default:
				names = append(names, http.CanonicalHeaderKey(n))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), false
}

func selecting(names []string, h http.Header) []varied {
	var out []varied
	for _, name := range names {
		raw, n := headerFields(h).Value(name)
		out = append(out, varied{Name: name, Absent: n == 0, Raw: raw, Normal: normalise(name, raw)})
	}
	return out
}

// normalise brings a selecting field into the form that equals that of every other field with the same
// meaning: for preferences, the members by falling weight, in lower case, then by name.
func normalise(name, value string) string {
	switch name {
	case "Accept-Language", "Accept-Encoding", "Accept-Charset":
		return strings.Join(preferences(value), ",")
	}
	return string(appendNormal(nil, value))
}

// preferences lists the members of a field of weighted members as "name;q", best first.
func preferences(value string) []string {
	type member struct {
		name string
		q    int
	}
	var members []member
	for value != "" {
		var m string
		m, value, _ = strings.Cut(value, ",")
		name, q := weighted(m)
		if name != "" {
			members = append(members, member{strings.ToLower(name), q})
		}
	}
	slices.SortStableFunc(members, func(a, b member) int {
		if a.q != b.q {
			return b.q - a.q
		}
		return strings.Compare(a.name, b.name)
	})
	out := make([]string, len(members))
	for i, m := range members {
		out[i] = m.name + ";" + string(rune('0'+m.q/1000)) + string([]byte{'0' + byte(m.q/100%10), '0' + byte(m.q/10%10), '0' + byte(m.q%10)})
	}
	return out
}

// weighted reads name[;q=0.5] of RFC 9110 §12.4.2; q in thousandths. An invalid weight is 0: not wanted.
func weighted(s string) (name string, q int) {
	name, params, has := strings.Cut(s, ";")
	name = strings.Trim(name, " \t")
	if !has {
		return name, 1000
	}
	params = strings.Trim(params, " \t")
	if len(params) < 3 || lower(params[0]) != 'q' || params[1] != '=' {
		return name, 1000
	}
	return name, qvalue(params[2:])
}

func qvalue(s string) int {
	if s == "" || s[0] != '0' && s[0] != '1' {
		return 0
	}
	q := int(s[0]-'0') * 1000
	if len(s) > 1 && s[1] != '.' || len(s) > 5 {
		return 0
	}
	for i, unit := 2, 100; i < len(s); i, unit = i+1, unit/10 {
		if s[i] < '0' || s[i] > '9' {
			return 0
		}
		q += int(s[i]-'0') * unit
	}
	return min(q, 1000)
}

// matches says whether a stored response was selected by fields like these. language is its only
// Content-Language: it answers a request that prefers that language to all others, whatever else it
// accepts.
func (v *varied) matches(fields Fields, language string) bool {
	raw, n := fields.Value(v.Name)
	if n > 1 {
		return false
	}
	if v.Absent || n == 0 {
		return v.Absent == (n == 0)
	}
	if raw == v.Raw {
		return true
	}
	switch v.Name {
	case "Accept-Language":
		p := preferences(raw)
		if strings.Join(p, ",") == v.Normal {
			return true
		}
		return language != "" && len(p) > 0 && preferred(p[0]) == language && (len(p) == 1 || weight(p[0]) != weight(p[1]))
	case "Accept-Encoding", "Accept-Charset":
		return strings.Join(preferences(raw), ",") == v.Normal
	}
	var room [256]byte
	return string(appendNormal(room[:0], raw)) == v.Normal
}

func preferred(p string) string { name, _, _ := strings.Cut(p, ";"); return name }
func weight(p string) string    { _, q, _ := strings.Cut(p, ";"); return q }

// secondary is the part of a flight's key that Vary adds.
func secondary(names []string, h http.Header) string {
	var b strings.Builder
	for _, v := range selecting(names, h) {
		b.WriteByte(keySeparator)
		b.WriteString(v.Name)
		if !v.Absent {
			b.WriteByte('=')
			b.WriteString(v.Normal)
		}
	}
	return b.String()
}

// urlOf is the URL that a key begins with.
func urlOf(key string) string {
	if i := strings.IndexByte(key, keySeparator); i >= 0 {
		return key[:i]
	}
	return key
}
