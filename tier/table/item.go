package table

import (
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
	"tenfold/tier/table/attr"
	"tenfold/tier/table/expr"
	"tenfold/tier/table/request"
)

const (
	// maxItem is how large an item may be, in bytes as DynamoDB counts them.
	maxItem = 400 << 10
	maxHash = 2048
	maxSort = 1024
)

func emptyKey(name string, k attr.Kind) *awsapi.Fault {
	return invalid("One or more parameter values were invalid: The AttributeValue for a key attribute cannot contain an empty %s value. Key: %s", textWord(k), name)
}

// textWord is what refusals call text and binary.
func textWord(k attr.Kind) string {
	if k == attr.B {
		return "binary"
	}
	return "string"
}

// keyPiece says what is wrong with one attribute of a key.
func (d *definition) keyPiece(name string, v attr.Value, hash bool) *awsapi.Fault {
	if v.Kind != d.Types[name] {
		return invalid("The provided key element does not match the schema")
	}
	n := len(v.Text) + len(v.Bytes)
	switch {
	case v.Kind == attr.N:
	case n == 0:
		return emptyKey(name, v.Kind)
	case hash && n > maxHash:
		return invalid("One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of2048 bytes")
	case !hash && n > maxSort:
		return invalid("One or more parameter values were invalid: Aggregated size of all range keys has exceeded the size limit of 1024 bytes")
	}
	return nil
}

// checkKey says what is wrong with a key that names an item.
func (d *definition) checkKey(k attr.Item) error {
	names := d.keyNames()
	if len(k) != len(names) {
		return invalid("The provided key element does not match the schema")
	}
	for _, n := range names {
		v, ok := k[n]
		if !ok {
			return invalid("The provided key element does not match the schema")
		}
		if f := d.keyPiece(n, v, n == d.Hash); f != nil {
			return f
		}
	}
	return nil
}

// checkItem says what is wrong with an item that is to be put.
func (d *definition) checkItem(item attr.Item) error {
	for _, n := range d.keyNames() {
		v, ok := item[n]
		switch {
		case !ok:
			return invalid("One or more parameter values were invalid: Missing the key %s in the item", n)
		case v.Kind != d.Types[n]:
			return invalid("One or more parameter values were invalid: Type mismatch for key %s expected: %s actual: %s", n, d.Types[n], v.Kind)
		case v.Kind != attr.N && len(v.Text)+len(v.Bytes) == 0:
			return invalid("One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty %s value. Key: %s", textWord(v.Kind), n)
		}
		if f := d.keyPiece(n, v, n == d.Hash); f != nil {
			return f
		}
	}
	return d.checkIndexed(item)
}

// checkIndexed says what is wrong with the attributes of an item that indexes go by: global ones first.
func (d *definition) checkIndexed(item attr.Item) error {
	for _, local := range []bool{false, true} {
		for i := range d.Indexes {
			x := &d.Indexes[i]
			if x.Local != local || x.Leaving {
				continue
			}
			for _, n := range slices.Concat(x.Hash, x.Sort) {
				v, ok := item[n]
				switch {
				case !ok || n == d.Hash || n == d.Sort:
				case v.Kind != d.Types[n]:
					return invalid("One or more parameter values were invalid: Type mismatch for Index Key %s Expected: %s Actual: %s IndexName: %s", n, d.Types[n], v.Kind, x.Name)
				case v.Kind != attr.N && len(v.Text)+len(v.Bytes) == 0:
					return invalid("One or more parameter values are not valid. A value specified for a secondary index key is not supported. The AttributeValue for a key attribute cannot contain an empty %s value. IndexName: %s, IndexKey: %s", textWord(v.Kind), x.Name, n)
				case v.Kind != attr.N && slices.Contains(x.Hash, n) && len(v.Text)+len(v.Bytes) > maxHash:
					return invalid("One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of2048 bytes")
				case v.Kind != attr.N && slices.Contains(x.Sort, n) && len(v.Text)+len(v.Bytes) > maxSort:
					return invalid("One or more parameter values were invalid: Aggregated size of all range keys has exceeded the size limit of 1024 bytes")
				}
			}
		}
	}
	return nil
}

// errCondition is a condition that does not hold. item is what the client asked to see of it.
type errCondition struct{ item attr.Item }

func (errCondition) Error() string { return "The conditional request failed" }

// condition tries a condition on what the item is.
func (c *change) condition(cond *expr.Condition, show string) error {
	if cond == nil {
		return nil
	}
	holds, err := cond.Holds(c.before)
	switch {
	case err != nil:
		return err
	case holds:
		return nil
	case show == "ALL_OLD":
		return errCondition{c.before}
	}
	return errCondition{}
}

// refused is a failed condition as the operations on one item tell it.
func refused(err error) error {
	var failed errCondition
	if !errors.As(err, &failed) {
		return err
	}
	f := fault("ConditionalCheckFailedException", "%s", failed.Error())
	if failed.item != nil {
		f.Fields = map[string]any{"Item": raw(failed.item)}
	}
	return f
}

func (s *Store) putItem(c awsapi.Caller, in *request.Input) ([]byte, error) {
	t, d, err := s.use(c, in.TableName, in.Account, "PutItem")
	if err != nil {
		return nil, err
	}
	if err := d.checkItem(in.Item); err != nil {
		return nil, err
	}
	if err := d.scalarsOnly(in); err != nil {
		return nil, err
	}
	if in.Item.Size() > maxItem {
		return nil, invalid("Item size has exceeded the maximum allowed size")
	}
	ch := &change{t: t, d: d, primary: d.primary(in.Item)}
	return s.one(ch, in, func() error {
		if err := ch.condition(in.Condition, in.ReturnValuesOnConditionCheckFailure); err != nil {
			return err
		}
		ch.after = in.Item
		return nil
	}, nil)
}

// keyed finds the table of an operation on the item of a key, and says what is wrong with what it asks,
// whatever the item is.
func (s *Store) keyed(c awsapi.Caller, in *request.Input, operation string) (*table, *definition, error) {
	t, d, err := s.use(c, in.TableName, in.Account, operation)
	if err == nil {
		err = d.checkKey(in.Key)
	}
	if err == nil {
		err = d.checkUpdate(in.Update)
	}
	if err == nil {
		err = d.scalarsOnly(in)
	}
	return t, d, err
}

func (s *Store) deleteItem(c awsapi.Caller, in *request.Input) ([]byte, error) {
	t, d, err := s.keyed(c, in, "DeleteItem")
	if err != nil {
		return nil, err
	}
	ch := &change{t: t, d: d, primary: d.primary(in.Key)}
	return s.one(ch, in, func() error {
		return ch.condition(in.Condition, in.ReturnValuesOnConditionCheckFailure)
	}, nil)
}

func (s *Store) updateItem(c awsapi.Caller, in *request.Input) ([]byte, error) {
	t, d, err := s.keyed(c, in, "UpdateItem")
	if err != nil {
		return nil, err
	}
	ch := &change{t: t, d: d, primary: d.primary(in.Key), legacy: in.Legacy}
	var touched *expr.Projection
	return s.one(ch, in, func() error {
		if err := ch.condition(in.Condition, in.ReturnValuesOnConditionCheckFailure); err != nil {
			return err
		}
		touched, err = ch.update(in.Key, in.Update)
		return err
	}, func(which string) attr.Item {
		switch {
		case touched == nil:
			return nil
		case which == "UPDATED_OLD":
			return touched.Apply(ch.before)
		}
		return touched.Apply(ch.after)
	})
}

// update makes the item what an update has of it.
func (c *change) update(k attr.Item, u *expr.Update) (touched *expr.Projection, err error) {
	if c.before == nil && u.OnlyRemoves() {
		return nil, nil // there is nothing to remove from, and nothing is made
	}
	from := c.before
	if from == nil {
		from = k
	}
	after := from
	if u != nil {
		if after, touched, err = u.Apply(from); err != nil {
			return touched, err
		}
	}
	if err := c.d.checkIndexed(after); err != nil {
		if !c.legacy { // what the expression says of types was looked at before
			err = invalid("The update expression attempted to update the secondary index key to unsupported type")
		}
		return touched, err
	}
	if after.Size() > maxItem {
		return touched, invalid("Item size to update has exceeded the maximum allowed size")
	}
	if err := after.TooDeep(); err != nil {
		return touched, err
	}
	c.after = after
	return touched, nil
}

// checkUpdate says what is wrong with an update whatever the item is.
func (d *definition) checkUpdate(u *expr.Update) error {
	for _, n := range d.keyNames() {
		if slices.Contains(u.Touches(), n) {
			return invalid("One or more parameter values were invalid: Cannot update attribute %s. This attribute is part of the key", n)
		}
	}
	for _, local := range []bool{false, true} {
		for i := range d.Indexes {
			if x := &d.Indexes[i]; x.Local == local && !x.Leaving {
				for _, n := range slices.Concat(x.Hash, x.Sort) {
					if k, ok := sets(u, n); ok && k != d.Types[n] {
						return invalid("One or more parameter values were invalid: Type mismatch for Index Key %s Expected: %s Actual: %s IndexName: %s", n, d.Types[n], k, x.Name)
					}
				}
			}
		}
	}
	return nil
}

// sets is the kind of the value that an update gives an attribute, where that is known without the item.
func sets(u *expr.Update, name string) (attr.Kind, bool) {
	for _, a := range u.Actions() {
		if len(a.Path) != 1 || a.Path[0].Name != name || a.Value == nil || a.Verb == expr.Delete {
			continue
		}
		switch a.Value.Function {
		case "+", "-":
			return attr.N, true
		case "list_append":
			return attr.L, true
		case "":
			return a.Value.Value.Kind, a.Value.Value.Kind != 0
		}
	}
	return 0, false
}

// one makes one change and answers. touched gives what UPDATED_OLD and UPDATED_NEW ask for.
func (s *Store) one(ch *change, in *request.Input, how func() error, touched func(string) attr.Item) ([]byte, error) {
	if err := s.db.Writable(); err != nil {
		return nil, err
	}
	if err := s.admit(ch.t, ch.d, nil, true); err != nil {
		return nil, err
	}
	err := s.write([]*change{ch}, nil, how)
	got := &consumed{t: ch.t, d: ch.d, partition: ch.d.partitionOf(ch.primary)}
	got.changed(ch, 1)
	s.book(got)
	if err != nil {
		ch.t.failed(err)
		return nil, refused(err)
	}
	var back attr.Item
	switch in.ReturnValues {
	case "ALL_OLD":
		back = ch.before
	case "ALL_NEW":
		back = ch.after
	case "UPDATED_OLD", "UPDATED_NEW":
		back = touched(in.ReturnValues)
	}
	out := append(make([]byte, 0, 256), '{')
	if len(back) > 0 {
		out = append(out, `,"Attributes":`...)
		out = back.AppendJSON(out)
	}
	out = appendMember(out, "ConsumedCapacity", got.describe(in.ReturnConsumedCapacity, ""))
	if in.ReturnItemCollectionMetrics == "SIZE" {
		k := in.Key
		if k == nil {
			k = in.Item
		}
		out = appendMember(out, "ItemCollectionMetrics", ch.d.collection(k))
	}
	if len(out) > 1 {
		out = slices.Delete(out, 1, 2) // the first comma
	}
	return append(out, '}'), nil
}

// collection is an ItemCollectionMetrics: only tables with local indexes have them.
func (d *definition) collection(item attr.Item) member {
	for i := range d.Indexes {
		if d.Indexes[i].Local {
			return member{"ItemCollectionKey": raw(attr.Item{d.Hash: item[d.Hash]}), "SizeEstimateRangeGB": []int{0, 1}}
		}
	}
	return nil
}

func (s *Store) getItem(c awsapi.Caller, in *request.Input) ([]byte, error) {
	t, d, err := s.keyed(c, in, "GetItem")
	if err != nil {
		return nil, err
	}
	if err := s.admit(t, d, nil, false); err != nil {
		return nil, err
	}
	primary := d.primary(in.Key)
	out := append(make([]byte, 0, 512), '{')
	size := 0
	raw, closer, err := s.db.Get(d.itemKey(primary))
	if err == nil {
		out, size, err = appendItem(append(out, `,"Item":`...), raw, in.Projection)
		closer.Close()
		t.returned(1)
	} else if err == pebble.ErrNotFound {
		err = nil
	}
	if err == nil {
		err = s.stripeOf(d, primary).settle()
	}
	if err != nil {
		return nil, err
	}
	got := &consumed{t: t, d: d, partition: d.partitionOf(primary), read: readUnits(size, in.ConsistentRead)}
	s.book(got)
	out = appendMember(out, "ConsumedCapacity", got.describe(in.ReturnConsumedCapacity, ""))
	if len(out) > 1 {
		out = slices.Delete(out, 1, 2)
	}
	return append(out, '}'), nil
}

// appendItem appends an item of the log as JSON, or what a projection leaves of it.
func appendItem(out, raw []byte, projection *expr.Projection) ([]byte, int, error) {
	p, err := unpack(raw)
	if err != nil {
		return nil, 0, err
	}
	if projection == nil {
		out, err = attr.BinaryToJSON(out, p.item)
		return out, p.size, err
	}
	item, err := attr.ParseBinary(p.item)
	if err != nil {
		return nil, 0, err
	}
	return projection.Apply(item).AppendJSON(out), p.size, nil
}

// itemAt reads the item under a key of the log; nil: there is none.
func itemAt(from pebble.Reader, k []byte) (attr.Item, error) {
	raw, closer, err := from.Get(k)
	if err == pebble.ErrNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return decode(raw)
}

// get reads an item, and waits until it is on disk as it was read; nil: there is none.
func (s *Store) get(from pebble.Reader, d *definition, k attr.Item) (attr.Item, error) {
	primary := d.primary(k)
	item, err := itemAt(from, d.itemKey(primary))
	if err != nil {
		return nil, err
	}
	return item, s.stripeOf(d, primary).settle()
}
