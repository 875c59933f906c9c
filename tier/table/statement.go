package table

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
	"tenfold/tier/table/attr"
	"tenfold/tier/table/expr"
	"tenfold/tier/table/partiql"
	"tenfold/tier/table/request"
)

// Statements of PartiQL become the same reads and changes that the other operations make.

// statement is one that was read, with its table.
type statement struct {
	*partiql.Statement
	t *table
	d *definition
}

func (s *Store) statement(c awsapi.Caller, x request.Statement, operation string) (st statement, err error) {
	st.Statement, err = partiql.Parse(x.Statement, x.Parameters)
	if err != nil {
		return st, err
	}
	st.t, st.d, err = s.use(c, st.Table, "", operation)
	return st, err
}

// change makes a step of an INSERT, UPDATE, DELETE or EXISTS. back gives what RETURNING asks for once it is
// made.
func (st statement) change() (x step, back func() attr.Item, err error) {
	d := st.d
	ch := &change{t: st.t, d: d}
	x.change = ch
	back = func() attr.Item { return nil }
	if st.Verb == partiql.Insert {
		if err := d.checkItem(st.Item); err != nil {
			return x, back, err
		}
		if st.Item.Size() > maxItem {
			return x, back, invalid("Item size has exceeded the maximum allowed size")
		}
		ch.primary = d.primary(st.Item)
		x.how = func() error {
			if ch.before != nil {
				return fault("DuplicateItemException", "Duplicate primary key exists in table")
			}
			ch.after = st.Item
			return nil
		}
		return x, back, nil
	}
	k, rest, ok := st.Key(d.keyNames()...)
	if !ok {
		return x, back, invalid("%s", partiql.NoKey)
	}
	if err := d.checkKey(k); err != nil {
		return x, back, err
	}
	if err := d.checkUpdate(st.Update); err != nil {
		return x, back, err
	}
	ch.primary = d.primary(k)
	var touched *expr.Projection
	x.how = func() (err error) {
		switch {
		case ch.before == nil && st.Verb == partiql.Update:
			return errCondition{}
		case ch.before == nil && st.Verb == partiql.Delete: // whatever else it asks
			return nil
		}
		if err := ch.condition(rest, "NONE"); err != nil {
			return err
		}
		switch {
		case st.Exists:
			ch.only, ch.after = true, ch.before
			if ch.before == nil {
				return errCondition{}
			}
		case st.Verb == partiql.Update:
			touched, err = ch.update(k, st.Update)
		}
		return err
	}
	back = func() attr.Item {
		switch st.Returning {
		case "ALL OLD *":
			return ch.before
		case "ALL NEW *":
			return ch.after
		case "MODIFIED OLD *":
			if touched != nil {
				return touched.Apply(ch.before)
			}
		case "MODIFIED NEW *":
			if touched != nil {
				return touched.Apply(ch.after)
			}
		}
		return nil
	}
	return x, back, nil
}

func (s *Store) executeStatement(c awsapi.Caller, in *request.Input) (any, error) {
	x := in.Statements[0]
	st, err := s.statement(c, x, "PartiQL")
	if err != nil {
		return nil, err
	}
	if st.Exists {
		return nil, invalid("EXISTS is only supported in ExecuteTransaction")
	}
	if st.Verb == partiql.Select {
		return s.selectPage(st, in)
	}
	step, back, err := st.change()
	if err != nil {
		return nil, err
	}
	got, err := s.alone(step)
	if err != nil {
		return nil, refused(err)
	}
	items := []json.RawMessage{}
	if item := back(); len(item) > 0 {
		items = append(items, raw(item))
	}
	out := member{"Items": items}
	if m := got.describe(in.ReturnConsumedCapacity, ""); m != nil {
		out["ConsumedCapacity"] = m
	}
	return out, nil
}

// alone makes one step.
func (s *Store) alone(x step) (*consumed, error) {
	if err := s.db.Writable(); err != nil {
		return nil, err
	}
	if err := s.admit(x.t, x.d, nil, true); err != nil {
		return nil, err
	}
	err := s.write([]*change{x.change}, nil, x.how)
	got := &consumed{t: x.t, d: x.d, partition: x.d.partitionOf(x.primary)}
	got.changed(x.change, 1)
	s.book(got)
	if err != nil {
		x.t.failed(err)
	}
	return got, err
}

// token is a NextToken: which range of the statement a page ended in, and at which key.
type token struct {
	Range int    `json:"r"`
	Key   []byte `json:"k"` // of the log
	Sum   []byte `json:"s"` // of the statement
}

func sumOfStatement(x request.Statement) []byte {
	h := sha256.New()
	h.Write([]byte(x.Statement))
	for _, p := range x.Parameters {
		h.Write(p.AppendJSON([]byte{0}))
	}
	return h.Sum(nil)[:12]
}

// selectPage answers a SELECT.
func (s *Store) selectPage(st statement, in *request.Input) (any, error) {
	x := in.Statements[0]
	d := st.d
	in.IndexName = st.Index
	index, err := d.useIndex(in)
	if err != nil {
		return nil, err
	}
	hash, sort := d.Hash, d.Sort
	if index != nil {
		if len(index.Hash) > 1 || len(index.Sort) > 1 {
			return nil, invalid("PartiQL statements cannot be executed on tables with multi-attribute HASH keys or multi-attribute RANGE keys.")
		}
		hash, sort = index.Hash[0], ""
		if len(index.Sort) > 0 {
			sort = index.Sort[0]
		}
	}
	ranges, all, err := st.Ranges(hash, sort)
	if err != nil {
		return nil, err
	}
	base := key(keyItem, d.ID)
	if index != nil {
		base = d.indexPrefix(index)
	}
	if all {
		ranges = []partiql.Range{{}}
	}
	backward := false
	for _, o := range st.OrderBy {
		switch {
		case all:
			return nil, invalid("Must have WHERE clause in the statement when using ORDER BY clause.")
		case o.Name == sort && sort != "":
			backward = o.Descending
		case o.Name != hash:
			return nil, invalid("Variable reference %s in ORDER BY clause must be part of the primary key", o.Name)
		}
	}
	var at token
	if in.NextToken != "" {
		raw, err := base64.StdEncoding.DecodeString(in.NextToken)
		if err != nil || json.Unmarshal(raw, &at) != nil || at.Range < 0 || at.Range >= len(ranges) || !bytes.HasPrefix(at.Key, base) {
			return nil, invalid("Given NextToken is invalid")
		}
		if !bytes.Equal(at.Sum, sumOfStatement(x)) {
			return nil, invalid("NextToken does not match request")
		}
	}
	if err := s.admit(st.t, d, index, false); err != nil {
		return nil, err
	}
	p := &selection{s: s, st: st, index: index, limit: in.Limit}
	for i := at.Range; i < len(ranges) && p.more == nil; i++ {
		low, high := base, after(base)
		if !all {
			b := appendHash(slices.Clone(base), ranges[i].Hash)
			low, high = limits(attr.AppendKey(b, ranges[i].Hash), ranges[i].Sort)
		}
		if i == at.Range && at.Key != nil {
			if backward {
				high = at.Key
			} else {
				low = append(slices.Clone(at.Key), 0)
			}
		}
		if err := p.read(i, low, high, backward); err != nil {
			return nil, err
		}
	}
	if err := s.settle(); err != nil {
		return nil, err
	}
	got := &consumed{t: st.t, d: d}
	if index == nil {
		got.read = readUnits(p.bytes, in.ConsistentRead)
	} else {
		got.index(index, readUnits(p.bytes, in.ConsistentRead), 0)
	}
	s.book(got)
	st.t.returned(p.count)
	out := append(make([]byte, 0, len(p.out)+64), `{"Items":[`...)
	out = append(append(out, p.out...), ']')
	if p.more != nil {
		p.more.Sum = sumOfStatement(x)
		raw, err := json.Marshal(p.more)
		if err != nil {
			return nil, err
		}
		out = append(out, `,"NextToken":"`...)
		out = append(out, base64.StdEncoding.EncodeToString(raw)...)
		out = append(out, `","LastEvaluatedKey":`...)
		out = d.keyOf(index, p.last).AppendJSON(out)
	}
	return append(appendMember(out, "ConsumedCapacity", got.describe(in.ReturnConsumedCapacity, "")), '}'), nil
}

// selection is what a SELECT has found so far.
type selection struct {
	s     *Store
	st    statement
	index *index
	limit int

	out                         []byte
	count, scanned, bytes, page int
	last                        attr.Item
	more                        *token // where it goes on; nil: nowhere
}

// read reads one range.
func (p *selection) read(i int, low, high []byte, backward bool) error {
	d := p.st.d
	it, err := p.s.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return err
	}
	defer it.Close()
	next, ok := it.Next, it.First()
	if backward {
		next, ok = it.Prev, it.Last()
	}
	for ; ok; ok = next() {
		in, err := unpack(it.Value())
		if err != nil {
			return err
		}
		item, err := attr.ParseBinary(in.item)
		if err != nil {
			return err
		}
		p.scanned++
		p.bytes += in.size
		p.page += in.stored
		p.last = item
		whole := item
		if p.index != nil && p.index.Local && p.index.Projection != all {
			if whole, err = p.s.fetch(d, item); err != nil {
				return err
			}
		}
		if whole != nil {
			holds, err := p.st.Where.Holds(whole)
			if err != nil {
				return err
			}
			if holds {
				if p.count++; p.count > 1 {
					p.out = append(p.out, ',')
				}
				p.out = p.st.Project(whole).AppendJSON(p.out)
			}
		}
		if p.limit > 0 && p.scanned >= p.limit || p.page >= pageBytes {
			p.more = &token{Range: i, Key: slices.Clone(it.Key())}
			return nil
		}
	}
	return it.Error()
}

// one reads the single item that a SELECT names, for batches and transactions.
func (st statement) one(s *Store, from pebble.Reader) (item attr.Item, size int, err error) {
	k, rest, ok := st.Key(st.d.keyNames()...)
	if !ok || st.Index != "" {
		return nil, 0, invalid("Select statements within ExecuteTransaction must specify the primary key in the where clause.")
	}
	if err := st.d.checkKey(k); err != nil {
		return nil, 0, err
	}
	if item, err = s.get(from, st.d, k); err != nil || item == nil {
		return nil, 0, err
	}
	size = item.Size()
	holds, err := rest.Holds(item)
	if err != nil || !holds {
		return nil, size, err
	}
	return st.Project(item), size, nil
}

// reads says whether statements read or write; they may not do both.
func reads(all []statement) (bool, error) {
	n := 0
	for _, st := range all {
		if st.Verb == partiql.Select && !st.Exists {
			n++
		}
	}
	if n != 0 && n != len(all) {
		return false, invalid("Cannot mix read and write operations in one request")
	}
	return n > 0, nil
}

func (s *Store) batchExecute(c awsapi.Caller, in *request.Input) (any, error) {
	all := make([]statement, len(in.Statements))
	errs := make([]error, len(in.Statements))
	for i, x := range in.Statements {
		all[i], errs[i] = s.statement(c, x, "PartiQL")
	}
	valid := all[:0:0]
	for i := range all {
		if errs[i] == nil {
			valid = append(valid, all[i])
		}
	}
	if _, err := reads(valid); err != nil {
		return nil, err
	}
	responses := make([]member, len(all))
	var capacity []*consumed
	for i, st := range all {
		m := member{}
		if errs[i] == nil {
			m["TableName"] = st.Table
			var item attr.Item
			var got *consumed
			item, got, errs[i] = s.batchOne(st, in.Statements[i])
			if got != nil {
				capacity = append(capacity, got)
			}
			if len(item) > 0 {
				m["Item"] = raw(item)
			}
		}
		if errs[i] != nil {
			e, ok := batchError(errs[i])
			if !ok {
				return nil, errs[i]
			}
			m["Error"] = e
		}
		responses[i] = m
	}
	out := member{"Responses": responses}
	if list := describeAll(capacity, in.ReturnConsumedCapacity, ""); list != nil {
		out["ConsumedCapacity"] = list
	}
	return out, nil
}

func (s *Store) batchOne(st statement, x request.Statement) (attr.Item, *consumed, error) {
	if st.Verb == partiql.Select {
		if err := s.admit(st.t, st.d, nil, false); err != nil {
			return nil, nil, err
		}
		item, size, err := st.one(s, s.db)
		got := &consumed{t: st.t, d: st.d, read: readUnits(size, x.ConsistentRead)}
		s.book(got)
		return item, got, err
	}
	step, back, err := st.change()
	if err != nil {
		return nil, nil, err
	}
	got, err := s.alone(step)
	if err != nil {
		return nil, got, err
	}
	return back(), got, nil
}

// batchError is a BatchStatementError.
func batchError(err error) (member, bool) {
	if r, ok := reasonOf(err); ok {
		m := member{"Code": r.code, "Message": r.message}
		if r.item != nil {
			m["Item"] = raw(r.item)
		}
		return m, true
	}
	var f *awsapi.Fault
	if !errors.As(told(err), &f) {
		return nil, false
	}
	code := f.Code
	switch f.Code {
	case "DuplicateItemException":
		code = "DuplicateItem"
	case "ResourceNotFoundException":
		code = "ResourceNotFound"
	case "AccessDeniedException":
		code = "AccessDenied"
	}
	return member{"Code": code, "Message": f.Message}, true
}

func (s *Store) executeTransaction(c awsapi.Caller, in *request.Input, body []byte) (any, error) {
	all := make([]statement, len(in.Statements))
	for i, x := range in.Statements {
		var err error
		if all[i], err = s.statement(c, x, "PartiQL"); err != nil {
			return nil, cancelledBy(err, i, len(all))
		}
	}
	read, err := reads(all)
	if err != nil {
		return nil, err
	}
	if read {
		return s.readTransaction(all, in)
	}
	steps := make([]step, len(all))
	for i, st := range all {
		if steps[i], _, err = st.change(); err != nil {
			return nil, cancelledBy(err, i, len(all))
		}
	}
	capacity, again, err := s.transact(c, steps, in.ClientRequestToken, body)
	if err != nil {
		return nil, err
	}
	kind := "Write"
	if again {
		kind = "Read"
	}
	out := member{"Responses": []member{}} // writes answer nothing
	if list := describeAll(capacity, in.ReturnConsumedCapacity, kind); list != nil {
		out["ConsumedCapacity"] = list
	}
	return out, nil
}

// readTransaction reads items as they are at one moment.
func (s *Store) readTransaction(all []statement, in *request.Input) (any, error) {
	snap := s.db.NewSnapshot()
	defer snap.Close()
	responses := make([]member, len(all))
	var capacity []*consumed
	for i, st := range all {
		item, size, err := st.one(s, snap)
		if err != nil {
			return nil, cancelledBy(err, i, len(all))
		}
		got := &consumed{t: st.t, d: st.d, read: 2 * readUnits(size, true)}
		s.book(got)
		capacity = append(capacity, got)
		responses[i] = member{}
		if item != nil {
			responses[i]["Item"] = raw(item)
		}
	}
	out := member{"Responses": responses}
	if list := describeAll(capacity, in.ReturnConsumedCapacity, "Read"); list != nil {
		out["ConsumedCapacity"] = list
	}
	return out, nil
}
