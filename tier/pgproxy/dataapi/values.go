package dataapi

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// kind is how values of a type are written.
type kind uint8

const (
	asString kind = iota
	asLong
	asDouble
	asDecimal
	asBool
	asBlob
	asZoned // a time with a zone, which is UTC here: the zone is not written
)

var kinds = map[uint32]kind{
	pgtype.BoolOID: asBool, pgtype.Int2OID: asLong, pgtype.Int4OID: asLong, pgtype.Int8OID: asLong, pgtype.OIDOID: asLong,
	pgtype.Float4OID: asDouble, pgtype.Float8OID: asDouble, pgtype.NumericOID: asDecimal, pgtype.ByteaOID: asBlob,
	pgtype.TimestamptzOID: asZoned, pgtype.TimetzOID: asZoned,
}

// types is read only, and made when the first value is read: few processes have any.
var types = sync.OnceValue(pgtype.NewMap)

// elementOf is the type of an array's elements; 0 for what is no array.
func elementOf(oid uint32) uint32 {
	if t, ok := types().TypeForOID(oid); ok {
		if a, ok := t.Codec.(*pgtype.ArrayCodec); ok {
			return a.ElementType.OID
		}
	}
	return 0
}

// decoder makes records of rows in text.
type decoder struct {
	options resultOptions
	fields  []pgconn.FieldDescription // nil: not known yet
	rows    [][]field
}

func (d *decoder) describe(fields []pgconn.FieldDescription) {
	if d.fields == nil && len(fields) > 0 {
		d.fields = append(d.fields, fields...)
	}
}

func (d *decoder) row(values [][]byte) error {
	out := make([]field, len(values))
	for i, v := range values {
		var err error
		if out[i], err = d.value(d.fields[i].DataTypeOID, v); err != nil {
			return fmt.Errorf("read column %s: %w", d.fields[i].Name, err)
		}
	}
	d.rows = append(d.rows, out)
	return nil
}

func yes() *bool { b := true; return &b }

// value makes a Field of a value in text; nil is NULL.
func (d *decoder) value(oid uint32, v []byte) (field, error) {
	if v == nil {
		return field{Null: yes()}, nil
	}
	if of := elementOf(oid); of != 0 {
		a, err := d.array(of, string(v))
		return field{Array: a}, err
	}
	s := string(v)
	switch kinds[oid] {
	case asBool:
		b := s == "t"
		return field{Bool: &b}, nil
	case asLong:
		n, err := strconv.ParseInt(s, 10, 64)
		if d.options.Long == "STRING" {
			return field{String: &s}, nil
		}
		return field{Long: &n}, err
	case asDouble:
		f, err := strconv.ParseFloat(s, 64)
		return field{Double: (*double)(&f)}, err
	case asDecimal:
		return d.decimal(s)
	case asBlob:
		b, err := hex.DecodeString(strings.TrimPrefix(s, `\x`))
		return field{Blob: &b}, err
	case asZoned:
		s = strings.TrimSuffix(s, "+00")
	}
	return field{String: &s}, nil
}

func (d *decoder) decimal(s string) (field, error) {
	if d.options.Decimal != "DOUBLE_OR_LONG" {
		return field{String: &s}, nil
	}
	if !strings.Contains(s, ".") {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return field{Long: &n}, nil
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	return field{Double: (*double)(&f)}, err
}

// array makes an ArrayValue of an array in PostgreSQL's text: {1,NULL,"a b",{2}}.
func (d *decoder) array(of uint32, s string) (json.RawMessage, error) {
	if i := strings.Index(s, "]={"); i >= 0 && strings.HasPrefix(s, "[") {
		s = s[i+2:] // bounds that do not begin at 1
	}
	r := arrayReader{s: s}
	v, err := r.read(d, of)
	if err == nil && r.at != len(s) {
		err = errArray
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

var errArray = fmt.Errorf("not an array of PostgreSQL")

type arrayReader struct {
	s  string
	at int
}

// memberOf is where elements of a type stand in an ArrayValue.
func (d *decoder) memberOf(of uint32) string {
	switch k := kinds[of]; {
	case k == asBool:
		return "booleanValues"
	case k == asLong && d.options.Long != "STRING":
		return "longValues"
	case k == asDouble, k == asDecimal && d.options.Decimal == "DOUBLE_OR_LONG":
		return "doubleValues"
	}
	return "stringValues"
}

func (r *arrayReader) read(d *decoder, of uint32) (any, error) {
	if !r.next('{') {
		return nil, errArray
	}
	if r.next('}') {
		return map[string]any{d.memberOf(of): []any{}}, nil
	}
	name := d.memberOf(of)
	var out []any
	for {
		if r.at < len(r.s) && r.s[r.at] == '{' {
			inner, err := r.read(d, of)
			if err != nil {
				return nil, err
			}
			name, out = "arrayValues", append(out, inner)
		} else {
			e, null, ok := r.element()
			if !ok {
				return nil, errArray
			}
			v, err := d.element(of, e, null)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		if r.next('}') {
			return map[string]any{name: out}, nil
		}
		if !r.next(',') {
			return nil, errArray
		}
	}
}

func (r *arrayReader) next(c byte) bool {
	if r.at < len(r.s) && r.s[r.at] == c {
		r.at++
		return true
	}
	return false
}

// element reads one element, which is no array.
func (r *arrayReader) element() (text string, null, ok bool) {
	if !r.next('"') {
		begin := r.at
		for r.at < len(r.s) && r.s[r.at] != ',' && r.s[r.at] != '}' {
			r.at++
		}
		text = r.s[begin:r.at]
		return text, text == "NULL", text != ""
	}
	var b strings.Builder
	for r.at < len(r.s) {
		c := r.s[r.at]
		r.at++
		switch {
		case c == '"':
			return b.String(), false, true
		case c == '\\' && r.at < len(r.s):
			b.WriteByte(r.s[r.at])
			r.at++
		default:
			b.WriteByte(c)
		}
	}
	return "", false, false
}

// element is a value without a Field around it.
func (d *decoder) element(of uint32, text string, null bool) (any, error) {
	if null {
		return nil, nil
	}
	if kinds[of] == asBlob {
		return text, nil // an ArrayValue has no blobs
	}
	f, err := d.value(of, []byte(text))
	switch {
	case err != nil:
		return nil, err
	case f.Bool != nil:
		return *f.Bool, nil
	case f.Long != nil && d.memberOf(of) == "doubleValues":
		return double(*f.Long), nil
	case f.Long != nil:
		return *f.Long, nil
	case f.Double != nil:
		return *f.Double, nil
	case f.Blob != nil:
		return *f.Blob, nil
	}
	return *f.String, nil
}

// format is the records as one text of JSON: an array of objects by column, in the order of columns.
func (d *decoder) format() (string, error) {
	var b bytes.Buffer
	b.WriteByte('[')
	for i, row := range d.rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('{')
		for j, f := range row {
			if j > 0 {
				b.WriteByte(',')
			}
			name, err := json.Marshal(d.fields[j].Name)
			if err != nil {
				return "", err
			}
			v, err := json.Marshal(f.plain())
			if err != nil {
				return "", err
			}
			b.Write(name)
			b.WriteByte(':')
			b.Write(v)
		}
		b.WriteByte('}')
	}
	b.WriteByte(']')
	return b.String(), nil
}

// plain is a Field's value.
func (f field) plain() any {
	switch {
	case f.Bool != nil:
		return *f.Bool
	case f.Long != nil:
		return *f.Long
	case f.Double != nil:
		return *f.Double
	case f.String != nil:
		return *f.String
	case f.Blob != nil:
		return *f.Blob
	case f.Array != nil:
		return plainArray(f.Array)
	}
	return nil
}

// plainArray is an ArrayValue without the names of its members.
func plainArray(b json.RawMessage) any {
	var m map[string]json.RawMessage
	if json.Unmarshal(b, &m) != nil {
		return nil
	}
	for name, v := range m {
		if name != "arrayValues" {
			return v
		}
		var inner []json.RawMessage
		if json.Unmarshal(v, &inner) != nil {
			return nil
		}
		out := make([]any, len(inner))
		for i, x := range inner {
			out[i] = plainArray(x)
		}
		return out
	}
	return nil
}

// column is a ColumnMetadata, with what JDBC says of the same column: AWS's numbers are its.
type column struct {
	Name          string `json:"name"`
	Label         string `json:"label"`
	Type          int    `json:"type"` // of java.sql.Types
	TypeName      string `json:"typeName"`
	Schema        string `json:"schemaName"`
	Table         string `json:"tableName"`
	AutoIncrement bool   `json:"isAutoIncrement"`
	Signed        bool   `json:"isSigned"`
	Currency      bool   `json:"isCurrency"`
	CaseSensitive bool   `json:"isCaseSensitive"`
	Nullable      int    `json:"nullable"` // 0: no, 1: yes, 2: not known
	Precision     int    `json:"precision"`
	Scale         int    `json:"scale"`
	ArrayBase     int    `json:"arrayBaseColumnType"`
}

const other, array = 1111, 2003

// jdbc is what JDBC says of a type.
var jdbc = map[uint32]struct{ number, precision, scale int }{
	pgtype.BoolOID: {-7, 1, 0}, pgtype.Int2OID: {5, 5, 0}, pgtype.Int4OID: {4, 10, 0}, pgtype.Int8OID: {-5, 19, 0}, pgtype.OIDOID: {-5, 10, 0},
	pgtype.Float4OID: {7, 8, 8}, pgtype.Float8OID: {8, 17, 17}, pgtype.NumericOID: {2, 0, 0}, pgtype.BPCharOID: {1, 2147483647, 0},
	pgtype.VarcharOID: {12, 2147483647, 0}, pgtype.TextOID: {12, 2147483647, 0}, pgtype.NameOID: {12, 63, 0}, pgtype.ByteaOID: {-2, 2147483647, 0},
	pgtype.DateOID: {91, 13, 0}, pgtype.TimeOID: {92, 15, 6}, pgtype.TimetzOID: {92, 21, 6}, pgtype.TimestampOID: {93, 29, 6}, pgtype.TimestamptzOID: {93, 35, 6},
	pgtype.XMLOID: {2009, 2147483647, 0}, pgtype.UUIDOID: {other, 2147483647, 0}, pgtype.JSONOID: {other, 2147483647, 0}, pgtype.JSONBOID: {other, 2147483647, 0},
}

// describe looks up what a result's own description does not say.
func describe(ctx context.Context, c *pgconn.PgConn, fields []pgconn.FieldDescription) ([]column, error) {
	var tables, numbers, oids []string
	for _, f := range fields {
		tables, numbers = append(tables, strconv.FormatUint(uint64(f.TableOID), 10)), append(numbers, strconv.Itoa(int(f.TableAttributeNumber)))
		oids = append(oids, strconv.FormatUint(uint64(f.DataTypeOID), 10))
	}
	list := func(s []string) []byte { return []byte("{" + strings.Join(s, ",") + "}") }
	rr := c.ExecParams(ctx, `select t.typname, coalesce(n.nspname, ''), coalesce(r.relname, ''), coalesce(a.attname, ''),
		a.attnotnull, coalesce(a.attidentity <> '' or pg_catalog.pg_get_expr(d.adbin, d.adrelid) like 'nextval(%', false)
	from unnest($1::oid[], $2::int2[], $3::oid[]) with ordinality as q(rel, num, typ, at)
	join pg_catalog.pg_type t on t.oid = q.typ
	left join pg_catalog.pg_attribute a on a.attrelid = q.rel and a.attnum = q.num and q.num > 0
	left join pg_catalog.pg_class r on r.oid = a.attrelid
	left join pg_catalog.pg_namespace n on n.oid = r.relnamespace
	left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
	order by q.at`, [][]byte{list(tables), list(numbers), list(oids)}, nil, nil, nil).Read()
	if rr.Err != nil {
		return nil, rr.Err
	}
	if len(rr.Rows) != len(fields) {
		return nil, fmt.Errorf("describe a result: %d columns of %d", len(rr.Rows), len(fields))
	}
	out := make([]column, len(fields))
	for i, f := range fields {
		row := rr.Rows[i]
		t, ok := jdbc[f.DataTypeOID]
		if !ok {
			t.number, t.precision = other, 2147483647
		}
		col := column{
			Name: f.Name, Label: f.Name, Type: t.number, TypeName: string(row[0]), Schema: string(row[1]), Table: string(row[2]),
			Nullable: 2, Precision: t.precision, Scale: t.scale, AutoIncrement: string(row[5]) == "t",
		}
		switch string(row[4]) {
		case "t":
			col.Nullable = 0
		case "f":
			col.Nullable = 1
		}
		k := kinds[f.DataTypeOID]
		col.Signed = k == asLong && f.DataTypeOID != pgtype.OIDOID || k == asDouble || k == asDecimal
		col.CaseSensitive = !(k == asLong || k == asDouble || k == asDecimal || k == asBool || t.number >= 91 && t.number <= 93)
		if m := int(f.TypeModifier); m > 4 {
			switch f.DataTypeOID {
			case pgtype.NumericOID:
				col.Precision, col.Scale = (m-4)>>16&0xffff, (m-4)&0xffff
			case pgtype.VarcharOID, pgtype.BPCharOID:
				col.Precision = m - 4
			}
		}
		if col.AutoIncrement { // as JDBC has it
			col.TypeName = map[string]string{"int2": "smallserial", "int4": "serial", "int8": "bigserial"}[col.TypeName]
		}
		if of := elementOf(f.DataTypeOID); of != 0 {
			col.Type, col.ArrayBase = array, other
			if b, ok := jdbc[of]; ok {
				col.ArrayBase = b.number
			}
		}
		out[i] = col
	}
	return out, nil
}
