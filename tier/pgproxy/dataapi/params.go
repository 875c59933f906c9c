package dataapi

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// parameter is a SqlParameter.
type parameter struct {
	Name  string `json:"name"`
	Value field  `json:"value"`
	Hint  string `json:"typeHint"`
}

// field is a Field: one of its members is set.
type field struct {
	Null   *bool           `json:"isNull,omitempty"`
	Bool   *bool           `json:"booleanValue,omitempty"`
	Long   *int64          `json:"longValue,omitempty"`
	Double *double         `json:"doubleValue,omitempty"`
	String *string         `json:"stringValue,omitempty"`
	Blob   *[]byte         `json:"blobValue,omitempty"`
	Array  json.RawMessage `json:"arrayValue,omitempty"`
}

// double is a number that may be none: JSON has those as strings.
type double float64

func (d double) MarshalJSON() ([]byte, error) {
	switch f := float64(d); {
	case math.IsNaN(f):
		return []byte(`"NaN"`), nil
	case math.IsInf(f, 1):
		return []byte(`"Infinity"`), nil
	case math.IsInf(f, -1):
		return []byte(`"-Infinity"`), nil
	default:
		return json.Marshal(f)
	}
}

func (d *double) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		f, err := strconv.ParseFloat(s, 64)
		*d = double(f)
		return err
	}
	return json.Unmarshal(b, (*float64)(d))
}

// bound is a parameter as PostgreSQL takes it.
type bound struct {
	value  []byte
	oid    uint32 // 0: as the statement has it
	binary bool
}

// hints are the types that a string may be of. Those that PostgreSQL finds out by itself are 0.
var hints = map[string]uint32{
	"DATE": pgtype.DateOID, "DECIMAL": pgtype.NumericOID, "JSON": 0, "TIME": pgtype.TimeOID, "TIMESTAMP": pgtype.TimestampOID, "UUID": pgtype.UUIDOID,
}

// bind makes a parameter of PostgreSQL. A string without a hint is a varchar, as it is at AWS: it does
// not become an integer or a UUID by itself, so that what works here works there.
func (p parameter) bind() (bound, error) {
	oid, known := hints[p.Hint]
	if p.Hint != "" && !known {
		return bound{}, bad("typeHint of parameter %q is none of DATE, DECIMAL, JSON, TIME, TIMESTAMP, UUID", p.Name)
	}
	v := p.Value
	text := func(s string, oid uint32) (bound, error) {
		if strings.IndexByte(s, 0) >= 0 {
			return bound{}, bad("parameter %q has a zero byte", p.Name)
		}
		return bound{value: []byte(s), oid: oid}, nil
	}
	switch {
	case v.Null != nil && *v.Null:
		return bound{oid: oid}, nil
	case v.Array != nil:
		return bound{}, bad("Array parameters are not supported.")
	case v.Bool != nil:
		return text(strconv.FormatBool(*v.Bool), pgtype.BoolOID)
	case v.Long != nil:
		return text(strconv.FormatInt(*v.Long, 10), pgtype.Int8OID)
	case v.Double != nil:
		return text(strconv.FormatFloat(float64(*v.Double), 'g', -1, 64), pgtype.Float8OID)
	case v.Blob != nil:
		return bound{value: *v.Blob, oid: pgtype.ByteaOID, binary: true}, nil
	case v.String != nil && known:
		return text(*v.String, oid)
	case v.String != nil:
		return text(*v.String, pgtype.VarcharOID)
	}
	return bound{}, bad("Parameter %q has value with no field set", p.Name)
}

// rewrite puts $1, $2, … in place of :name, and gives the names by number. What stands in strings, quoted
// names and comments stays, and so do casts (::) and slices of numbers.
func rewrite(sql string) (string, []string) {
	var out strings.Builder
	var names []string
	numbers := map[string]int{}
	from := 0
	for i := 0; i < len(sql); {
		c := sql[i]
		if c != ':' {
			i = skip(sql, i)
			continue
		}
		if i+1 < len(sql) && (sql[i+1] == ':' || sql[i+1] == '=') {
			i += 2
			continue
		}
		end := i + 1
		for end < len(sql) && inName(sql[end], end == i+1) {
			end++
		}
		if end == i+1 {
			i++
			continue
		}
		name := sql[i+1 : end]
		n := numbers[name]
		if n == 0 {
			names = append(names, name)
			n = len(names)
			numbers[name] = n
		}
		out.WriteString(sql[from:i])
		out.WriteByte('$')
		out.WriteString(strconv.Itoa(n))
		i, from = end, end
	}
	if len(names) == 0 {
		return sql, nil
	}
	out.WriteString(sql[from:])
	return out.String(), names
}

func inName(c byte, first bool) bool {
	return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80 || !first && c >= '0' && c <= '9'
}

// skip gives the end of what begins at i: a string, a quoted name, a comment, a word or one byte.
func skip(s string, i int) int {
	switch c := s[i]; {
	case c == '\'':
		return quoted(s, i, '\'', false)
	case c == '"':
		return quoted(s, i, '"', false)
	case c == '-' && strings.HasPrefix(s[i:], "--"):
		if n := strings.IndexAny(s[i:], "\r\n"); n >= 0 {
			return i + n
		}
		return len(s)
	case c == '/' && strings.HasPrefix(s[i:], "/*"):
		return comment(s, i)
	case c == '$':
		return dollar(s, i)
	case inName(c, true):
		j := i
		for j < len(s) && (inName(s[j], false) || s[j] == '$') {
			j++
		}
		if j == i+1 && c|0x20 == 'e' && j < len(s) && s[j] == '\'' {
			return quoted(s, j, '\'', true)
		}
		return j
	}
	return i + 1
}

// quoted gives the end of what is quoted from i on; a doubled quote stands for itself.
func quoted(s string, i int, quote byte, backslash bool) int {
	for i++; i < len(s); i++ {
		switch {
		case s[i] == quote:
			if i+1 >= len(s) || s[i+1] != quote {
				return i + 1
			}
			i++
		case backslash && s[i] == '\\':
			i++
		}
	}
	return len(s)
}

// comment gives the end of a block comment; they nest.
func comment(s string, i int) int {
	for depth := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "/*"):
			depth++
			i++
		case strings.HasPrefix(s[i:], "*/"):
			i++
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

// dollar gives the end of a string between $tag$s, or of the sign alone.
func dollar(s string, i int) int {
	j := i + 1
	for j < len(s) && inName(s[j], j == i+1) {
		j++
	}
	if j >= len(s) || s[j] != '$' {
		return i + 1
	}
	tag := s[i : j+1]
	if n := strings.Index(s[j+1:], tag); n >= 0 {
		return j + 1 + n + len(tag)
	}
	return len(s)
}

// arrange puts parameters in the order of names.
func arrange(names []string, params []parameter) ([]bound, error) {
	byName := make(map[string]parameter, len(params))
	for _, p := range params {
		byName[p.Name] = p
	}
	out := make([]bound, len(names))
	for i, n := range names {
		p, ok := byName[n]
		if !ok {
			return nil, bad("Cannot find parameter: %s", n)
		}
		var err error
		if out[i], err = p.bind(); err != nil {
			return nil, err
		}
	}
	return out, nil
}
