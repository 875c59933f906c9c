package table

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
	"tenfold/tier/table/attr"
	"tenfold/tier/table/expr"
	"tenfold/tier/table/request"
)

// pageBytes is how many bytes of items are read for one page of Query or Scan.
const pageBytes = 1 << 20

// span is what is read for a page: keys of the log from low up to, not including, high.
type span struct {
	t         *table
	d         *definition
	x         *index // nil: the table itself
	low, high []byte
	backward  bool
	fetch     bool    // an index has its items in part: they are had from the table
	stripe    *stripe // whose changes it has to wait for; nil: all of them
	partition []byte  // of the table, when it is one
}

// page reads a page of Query or Scan and writes the answer.
func (s *Store) page(in *request.Input, p *span) ([]byte, error) {
	if err := s.admit(p.t, p.d, p.x, false); err != nil {
		return nil, err
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: p.low, UpperBound: p.high})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	step, ok := it.Next, it.First()
	if p.backward {
		step, ok = it.Prev, it.Last()
	}
	out := append(make([]byte, 0, 1024), `{"Items":[`...)
	if in.Select == "COUNT" {
		out = append(out[:0], '{')
	}
	got := &consumed{t: p.t, d: p.d, partition: p.partition}
	// An item that is neither asked anything nor cut goes to the answer as it is.
	plain := in.Filter == nil && in.Projection == nil && !p.fetch
	bytes, page, fetched, count, scanned := 0, 0, 0, 0, 0
	var last attr.Item // where the page was cut; nil: nowhere
	for ; ok; ok = step() {
		item, err := unpack(it.Value())
		if err != nil {
			return nil, fmt.Errorf("read an item of table %s: %w", p.d.Name, err)
		}
		scanned++
		bytes += item.size
		page += item.stored
		var whole attr.Item
		holds := plain
		if !plain {
			if whole, err = attr.ParseBinary(item.item); err != nil {
				return nil, fmt.Errorf("read an item of table %s: %w", p.d.Name, err)
			}
			if p.fetch {
				if whole, err = s.fetch(p.d, whole); err != nil {
					return nil, err
				}
				fetched += whole.Size()
			}
			if whole != nil {
				if holds, err = in.Filter.Holds(whole); err != nil {
					return nil, err
				}
			}
		}
		if holds {
			if count++; in.Select != "COUNT" {
				if count > 1 {
					out = append(out, ',')
				}
				switch {
				case plain:
					if out, err = attr.BinaryToJSON(out, item.item); err != nil {
						return nil, err
					}
				case in.Projection != nil:
					out = in.Projection.Apply(whole).AppendJSON(out)
				default:
					out = whole.AppendJSON(out)
				}
			}
		}
		if in.Limit > 0 && scanned >= in.Limit || page >= pageBytes {
			if last, err = attr.ParseBinary(item.item); err != nil {
				return nil, err
			}
			break
		}
	}
	if err := it.Error(); err != nil {
		return nil, err
	}
	if p.stripe != nil {
		err = p.stripe.settle()
	} else {
		err = s.settle()
	}
	if err != nil {
		return nil, err
	}
	if in.Select != "COUNT" {
		out = append(out, `],`...)
	}
	out = append(out, `"Count":`...)
	out = strconv.AppendInt(out, int64(count), 10)
	out = append(out, `,"ScannedCount":`...)
	out = strconv.AppendInt(out, int64(scanned), 10)
	if last != nil {
		out = append(out, `,"LastEvaluatedKey":`...)
		out = p.d.keyOf(p.x, last).AppendJSON(out)
	}
	if p.x == nil {
		got.read = readUnits(bytes, in.ConsistentRead)
	} else {
		got.index(p.x, readUnits(bytes, in.ConsistentRead), 0)
		if p.fetch && fetched > 0 {
			got.read = readUnits(fetched, in.ConsistentRead)
		}
	}
	s.book(got)
	p.t.returned(count)
	return append(appendMember(out, "ConsumedCapacity", got.describe(in.ReturnConsumedCapacity, "")), '}'), nil
}

// fetches says whether items are to be had from the table because a local index does not have them whole.
func (p *span) fetches(in *request.Input) (bool, error) {
	if p.x == nil || p.x.Projection == all {
		return false, nil
	}
	has := p.d.projected(p.x)
	if in.Select == "ALL_ATTRIBUTES" {
		if !p.x.Local {
			return false, invalid("One or more parameter values were invalid: Select type ALL_ATTRIBUTES is not supported for global secondary index %s because its projection type is not ALL", p.x.Name)
		}
		return true, nil
	}
	var missing []string
	for _, n := range slices.Concat(in.Projection.Names(), in.Filter.Names()) {
		if !slices.Contains(has, n) {
			missing = append(missing, n)
		}
	}
	if missing == nil {
		return false, nil
	}
	if !p.x.Local {
		slices.Sort(missing)
		return false, invalid("One or more parameter values were invalid: Global secondary index %s does not project %v", p.x.Name, slices.Compact(missing))
	}
	return true, nil
}

// fetch reads the whole item of which an index has a part; nil: it is gone since.
func (s *Store) fetch(d *definition, part attr.Item) (attr.Item, error) {
	return itemAt(s.db, d.itemKey(d.primary(part)))
}

// useIndex finds the index that a read names.
func (d *definition) useIndex(in *request.Input) (*index, error) {
	if in.IndexName == "" {
		return nil, nil
	}
	x := d.index(in.IndexName)
	if x == nil || x.Leaving {
		return nil, invalid("The table does not have the specified index: %s", in.IndexName)
	}
	if x.Filling {
		return nil, invalid("Cannot read from backfilling global secondary index: %s", x.Name)
	}
	if in.ConsistentRead && !x.Local {
		return nil, invalid("Consistent reads are not supported on global secondary indexes")
	}
	return x, nil
}

// query is Query.
func (s *Store) query(c awsapi.Caller, in *request.Input) ([]byte, error) {
	t, d, err := s.use(c, in.TableName, in.Account, "Query")
	if err != nil {
		return nil, err
	}
	x, err := d.useIndex(in)
	if err != nil {
		return nil, err
	}
	hash, sort := []string{d.Hash}, d.keyNames()[1:]
	if x != nil {
		hash, sort = x.Hash, x.Sort
	}
	p := &span{t: t, d: d, x: x, backward: in.ScanIndexForward != nil && !*in.ScanIndexForward}
	if in.ExclusiveStartKey != nil && len(in.ExclusiveStartKey) != len(d.startNames(x)) {
		return nil, invalid("The provided starting key is invalid")
	}
	equal, between, err := d.conditions(in.KeyCondition, hash, sort, in.ExclusiveStartKey)
	if err != nil {
		return nil, err
	}
	var start []byte
	if in.ExclusiveStartKey != nil {
		if start, err = d.startAt(x, in.ExclusiveStartKey); err != nil {
			return nil, err
		}
		if err := d.within(in.ExclusiveStartKey, hash, sort, equal, between); err != nil {
			return nil, err
		}
	}
	if err := d.scalarsOnly(&request.Input{Projection: in.Projection}); err != nil {
		return nil, err
	}
	if err := d.filterWithoutKeys(in, hash, sort); err != nil {
		return nil, err
	}
	if p.fetch, err = p.fetches(in); err != nil {
		return nil, err
	}
	if err := d.scalarsOnly(in); err != nil {
		return nil, err
	}
	b := key(keyItem, d.ID)
	if x != nil {
		b = d.indexPrefix(x)
	}
	b = appendHash(b, equal[:len(hash)]...)
	if x == nil || x.Local {
		p.stripe = s.stripeOf(d, b[len(b)-hashLen:])
	}
	for i, v := range equal {
		b = attr.AppendKey(b, v)
		if x == nil && i == 0 {
			p.partition = slices.Clone(b[len(key(keyItem, d.ID)):])
		}
	}
	p.low, p.high = limits(b, between)
	if start != nil {
		if string(start) < string(p.low) || string(start) >= string(p.high) {
			return nil, invalid("The provided starting key is outside query boundaries based on provided conditions")
		}
		p.from(start)
	}
	return s.page(in, p)
}

// from goes on after a key.
func (p *span) from(start []byte) {
	if p.backward {
		p.high = start
	} else {
		p.low = append(start, 0)
	}
}

// limits are the keys between which a range of the last sort key lies.
func limits(b []byte, r *expr.KeyTerm) (low, high []byte) {
	if r == nil {
		return b, after(b)
	}
	at := func(i int) []byte { return attr.AppendKey(slices.Clone(b), r.Values[i]) }
	switch r.Op {
	case "=":
		return at(0), after(at(0))
	case "<":
		return b, at(0)
	case "<=":
		return b, after(at(0))
	case ">":
		return after(at(0)), after(b)
	case ">=":
		return at(0), after(b)
	case "BETWEEN":
		return at(0), after(at(1))
	default: // begins_with
		low = attr.AppendKeyPrefix(slices.Clone(b), r.Values[0])
		return low, after(low)
	}
}

// conditions are the values that the first attributes of a key have to have, and the range of the one after.
// The starting key, unless it is nil, is looked at attribute by attribute in between: of several mistakes AWS
// tells of the first.
func (d *definition) conditions(k *expr.KeyCondition, hash, sort []string, start attr.Item) (equal []attr.Value, r *expr.KeyTerm, err error) {
	left := len(k.Terms)
	if left > len(hash)+len(sort) {
		return nil, nil, invalid("Query key condition not supported")
	}
	for i, n := range slices.Concat(hash, sort) {
		isHash := i < len(hash)
		if start != nil {
			v, ok := start[n]
			if !ok {
				return nil, nil, invalid("The provided starting key is invalid")
			}
			if f := d.keyPiece(n, v, isHash); f != nil {
				return nil, nil, f
			}
		}
		c, ok := k.Term(n)
		if !ok {
			if isHash || left > 0 {
				return nil, nil, invalid("Query condition missed key schema element: %s", n)
			}
			break
		}
		left--
		switch c.Op {
		case "<>", "IN", "NULL", "NOT_NULL", "CONTAINS", "NOT_CONTAINS":
			return nil, nil, invalid("Attempted conditional constraint is not an indexable operation")
		}
		for _, v := range c.Values {
			if v.Kind != d.Types[n] {
				return nil, nil, invalid("One or more parameter values were invalid: Condition parameter type does not match schema type")
			}
			if v.Kind == attr.S && v.Text == "" || v.Kind == attr.B && len(v.Bytes) == 0 {
				if isHash || c.Op != "begins_with" {
					return nil, nil, emptyKey(n, v.Kind)
				}
			}
		}
		switch {
		case isHash && c.Op != "=":
			return nil, nil, invalid("Query key condition not supported")
		case c.Op == "=":
			equal = append(equal, c.Values[0])
		default:
			r = &c
			if left > 0 { // a range is the last
				return nil, nil, invalid("Query key condition not supported")
			}
			return equal, r, nil
		}
	}
	if left > 0 {
		return nil, nil, invalid("Query key condition not supported")
	}
	return equal, nil, nil
}

// within sees to it that a starting key is among what is asked for.
func (d *definition) within(start attr.Item, hash, sort []string, equal []attr.Value, r *expr.KeyTerm) error {
	same := true
	for i, n := range hash {
		same = same && start[n].Equal(equal[i])
	}
	ranged := r != nil || len(equal) > len(hash)
	if !ranged {
		if !same {
			return invalid("The provided starting key is outside query boundaries based on provided conditions")
		}
		return nil
	}
	for i, v := range equal[len(hash):] {
		if !start[sort[i]].Equal(v) {
			return invalid("The provided starting key does not match the range key predicate")
		}
	}
	if r != nil && !r.Holds(start[r.Name]) {
		return invalid("The provided starting key does not match the range key predicate")
	}
	if !same {
		return invalid("The query can return at most one row and cannot be restarted")
	}
	return nil
}

// startAt is the key that a page goes on after.
func (d *definition) startAt(x *index, start attr.Item) ([]byte, error) {
	for _, n := range d.keyNames() {
		v, ok := start[n]
		if !ok {
			return nil, invalid("The provided starting key is invalid: The provided key element does not match the schema")
		}
		if err := d.keyPiece(n, v, n == d.Hash); err != nil {
			return nil, invalid("The provided starting key is invalid: %s", err.Message)
		}
	}
	primary := d.primary(start)
	if x == nil {
		return d.itemKey(primary), nil
	}
	k, _ := d.indexKey(x, start, primary)
	return k, nil
}

// filterWithoutKeys sees to it that Query's filter leaves the keys to the key condition.
func (d *definition) filterWithoutKeys(in *request.Input, hash, sort []string) error {
	for _, n := range in.Filter.Names() {
		if slices.Contains(hash, n) || slices.Contains(sort, n) {
			what := "Filter Expression can only contain non-primary key attributes: Primary key attribute: " + n
			if in.Legacy {
				what = "QueryFilter can only contain non-primary key attributes: Primary key attribute: " + n
			}
			return invalid("%s", what)
		}
	}
	return nil
}

// scalarsOnly sees to it that no path goes into a key, which is no list and no map.
func (d *definition) scalarsOnly(in *request.Input) error {
	var updated []expr.Path
	for _, a := range in.Update.Actions() {
		updated = appendPaths(append(updated, a.Path), a.Value)
	}
	for _, paths := range [][]expr.Path{in.Projection.Paths(), in.Filter.Paths(), in.Condition.Paths(), updated} {
		var deep []string
		for _, p := range paths {
			if len(p) > 1 {
				deep = append(deep, p[0].Name)
			}
		}
		if deep == nil {
			continue
		}
		for _, n := range d.keyNames() {
			if slices.Contains(deep, n) {
				return invalid("Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: Key: %s", n)
			}
		}
		for i := range d.Indexes {
			for _, n := range slices.Concat(d.Indexes[i].Hash, d.Indexes[i].Sort) {
				if slices.Contains(deep, n) {
					return invalid("Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: IndexKey: %s", n)
				}
			}
		}
	}
	return nil
}

// appendPaths appends the paths that an operand reads.
func appendPaths(paths []expr.Path, o *expr.Operand) []expr.Path {
	if o == nil {
		return paths
	}
	if o.Path != nil {
		paths = append(paths, o.Path)
	}
	for _, a := range o.Args {
		paths = appendPaths(paths, a)
	}
	return paths
}

// scan is Scan.
func (s *Store) scan(c awsapi.Caller, in *request.Input) ([]byte, error) {
	t, d, err := s.use(c, in.TableName, in.Account, "Scan")
	if err != nil {
		return nil, err
	}
	x, err := d.useIndex(in)
	if err != nil {
		return nil, err
	}
	b := key(keyItem, d.ID)
	if x != nil {
		b = d.indexPrefix(x)
	}
	p := &span{t: t, d: d, x: x, low: b, high: after(b)}
	if in.TotalSegments > 1 {
		p.low, p.high = segment(b, in.Segment, in.TotalSegments)
	}
	if in.ExclusiveStartKey != nil && x != nil {
		if len(in.ExclusiveStartKey) != len(d.startNames(x)) {
			return nil, invalid("The provided starting key is invalid")
		}
		for i, n := range slices.Concat(x.Hash, x.Sort) {
			v, ok := in.ExclusiveStartKey[n]
			if !ok {
				return nil, invalid("The provided starting key is invalid")
			}
			if f := d.keyPiece(n, v, i < len(x.Hash)); f != nil {
				return nil, f
			}
		}
	}
	if p.fetch, err = p.fetches(in); err != nil {
		return nil, err
	}
	if in.ExclusiveStartKey != nil {
		if x == nil && len(in.ExclusiveStartKey) != len(d.keyNames()) {
			return nil, invalid("The provided starting key is invalid: The provided key element does not match the schema")
		}
		start, err := d.startAt(x, in.ExclusiveStartKey)
		if err != nil {
			return nil, err
		}
		if string(start) < string(p.low) || string(start) >= string(p.high) {
			return nil, invalid("The provided starting key is invalid: Invalid ExclusiveStartKey. Please use ExclusiveStartKey with correct Segment. TotalSegments: %d Segment: %d", in.TotalSegments, in.Segment)
		}
		p.from(start)
	}
	if err := d.scalarsOnly(in); err != nil {
		return nil, err
	}
	return s.page(in, p)
}

// segment cuts the order of Scan, of which the first twelve bits of a hash are told apart, into equal parts.
func segment(b []byte, n, of int) (low, high []byte) {
	at := func(i int) []byte {
		cut := (4096*i + of - 1) / of
		if cut >= 4096 {
			return after(b)
		}
		return append(slices.Clone(b), byte(cut>>4), byte(cut<<4))
	}
	return at(n), at(n + 1)
}

// stored is about how many bytes an item takes where DynamoDB keeps it, by which a page of Query or Scan is
// cut: names are a byte, texts have their length before them, and every three kilobytes have a head with the
// sort key. The tests of dynalite found this out by asking.
func stored(item attr.Item, sort string) int {
	size, key := 0, 0
	for n, v := range item {
		if n == sort {
			key = v.Size()
			continue
		}
		size += 1 + storedValue(v)
	}
	return 2 + size + (1+(1+size)/3072)*(18+key)
}

func storedValue(v attr.Value) int {
	switch v.Kind {
	case attr.S:
		switch n := len(v.Text); {
		case n < 128:
			return n + 1
		case n < 16384:
			return n + 2
		default:
			return n + 3
		}
	case attr.B, attr.N:
		return v.Size() + 1
	case attr.SS, attr.NS, attr.BS:
		return v.Size() + len(v.List) + 1
	case attr.Null:
		return 0
	case attr.L:
		size := 3
		for _, e := range v.List {
			size += 1 + storedValue(e)
		}
		return size
	case attr.M:
		size := 3 + len(v.Map)
		for _, e := range v.Map {
			size += 1 + storedValue(e)
		}
		return size
	}
	return 1
}
