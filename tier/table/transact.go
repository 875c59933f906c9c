package table

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
	"tenfold/tier/table/attr"
	"tenfold/tier/table/request"
)

const (
	// maxTransaction is how many bytes of items a transaction may have.
	maxTransaction = 4 << 20
	// tokenFor is how long an answered transaction is known by its ClientRequestToken.
	tokenFor = 10 * time.Minute
)

// reason is why one step of a transaction had it cancelled; its zero value is that it did not.
type reason struct {
	code, message string
	item          attr.Item
}

// cancelled is a TransactionCanceledException.
func cancelled(rs []reason) error {
	codes := make([]string, len(rs))
	list := make([]member, len(rs))
	for i, r := range rs {
		m := member{"Code": "None"}
		codes[i] = "None"
		if r.code != "" {
			codes[i] = r.code
			m = member{"Code": r.code, "Message": r.message}
			if r.item != nil {
				m["Item"] = raw(r.item)
			}
		}
		list[i] = m
	}
	f := fault("TransactionCanceledException", "Transaction cancelled, please refer cancellation reasons for specific reasons [%s]", strings.Join(codes, ", "))
	// Its model has the message with a capital.
	f.Fields = map[string]any{"CancellationReasons": list, "Message": f.Message}
	return f
}

// reasonOf is how a step's error stands among the reasons; ok is false for one that is no step's.
func reasonOf(err error) (r reason, ok bool) {
	var failed errCondition
	var f *awsapi.Fault
	switch err := told(err); {
	case errors.As(err, &failed):
		return reason{"ConditionalCheckFailed", failed.Error(), failed.item}, true
	case errors.As(err, &f) && f.Code == "ProvisionedThroughputExceededException":
		return reason{"ProvisionedThroughputExceeded", f.Message, nil}, true
	case errors.As(err, &f) && f.Code == "DuplicateItemException":
		return reason{"DuplicateItem", f.Message, nil}, true
	case errors.As(err, &f) && f.Code == "ValidationException":
		return reason{"ValidationError", f.Message, nil}, true
	}
	return reason{}, false
}

// cancelledBy is what a transaction of n steps answers when the error of one had it cancelled.
func cancelledBy(err error, i, n int) error {
	r, ok := reasonOf(err)
	if !ok {
		return err
	}
	rs := make([]reason, n)
	rs[i] = r
	return cancelled(rs)
}

// step is one of a transaction's writes, and what it does when all are read.
type step struct {
	*change
	how func() error
}

func (s *Store) transactWrite(c awsapi.Caller, in *request.Input, body []byte) (any, error) {
	steps := make([]step, len(in.TransactWrite))
	for i, w := range in.TransactWrite {
		t, d, err := s.use(c, w.TableName, w.Account, "TransactWriteItems")
		if err != nil {
			return nil, err
		}
		k := w.Key
		if w.Kind == request.Put {
			k = w.Item
			err = d.checkItem(w.Item)
		} else if err = d.checkKey(w.Key); err == nil && w.Kind == request.Update {
			err = d.checkUpdate(w.Update)
		}
		if err == nil {
			err = d.scalarsOnly(&request.Input{Condition: w.Condition, Update: w.Update})
		}
		if err == nil && w.Kind == request.Put && w.Item.Size() > maxItem {
			err = invalid("Item size has exceeded the maximum allowed size")
		}
		if err != nil {
			return nil, cancelledBy(err, i, len(steps))
		}
		ch := &change{t: t, d: d, primary: d.primary(k), only: w.Kind == request.ConditionCheck}
		steps[i] = step{ch, func() error {
			if err := ch.condition(w.Condition, w.ReturnValuesOnConditionCheckFailure); err != nil {
				return err
			}
			switch w.Kind {
			case request.Put:
				ch.after = w.Item
			case request.Update:
				_, err := ch.update(w.Key, w.Update)
				return err
			case request.ConditionCheck:
				ch.after = ch.before
			}
			return nil
		}}
	}
	capacity, again, err := s.transact(c, steps, in.ClientRequestToken, body)
	if err != nil {
		return nil, err
	}
	out := member{}
	kind := "Write"
	if again {
		kind = "Read"
	}
	if list := describeAll(capacity, in.ReturnConsumedCapacity, kind); list != nil {
		out["ConsumedCapacity"] = list
	}
	if in.ReturnItemCollectionMetrics == "SIZE" {
		metrics := map[string][]member{}
		for i, st := range steps {
			w := in.TransactWrite[i]
			k := w.Key
			if k == nil {
				k = w.Item
			}
			if m := st.d.collection(k); m != nil && !st.only {
				metrics[st.d.Name] = append(metrics[st.d.Name], m)
			}
		}
		if len(metrics) > 0 {
			out["ItemCollectionMetrics"] = metrics
		}
	}
	return out, nil
}

func describeAll(all []*consumed, want, kind string) []member {
	var list []member
	for _, got := range all {
		if m := got.describe(want, kind); m != nil {
			list = append(list, m)
		}
	}
	return list
}

// transact makes all steps or none. again says that a transaction of this token was answered before and that
// nothing was done.
func (s *Store) transact(c awsapi.Caller, steps []step, token string, body []byte) (capacity []*consumed, again bool, err error) {
	if err := s.db.Writable(); err != nil {
		return nil, false, err
	}
	seen := map[string]bool{}
	cs := make([]*change, len(steps))
	for i, st := range steps {
		k := string(st.d.itemKey(st.primary))
		if seen[k] {
			return nil, false, invalid("Transaction request cannot include multiple operations on one item")
		}
		seen[k] = true
		cs[i] = st.change
	}
	var tk []byte
	var sum [sha256.Size]byte
	if token != "" {
		if sum, err = sumOf(body); err != nil {
			return nil, false, err
		}
		tk = named(keyToken, c.Account, token)
		if !s.begin(string(tk)) {
			return nil, false, fault("TransactionInProgressException", "A transaction with this ClientRequestToken is still in progress.")
		}
		defer s.ended(string(tk))
		if again, err = s.known(tk, sum[:]); err != nil || again {
			if again {
				capacity, err = s.retold(cs)
			}
			return capacity, again, err
		}
	}
	rs := make([]reason, len(steps))
	stopped := false
	for i, ch := range cs {
		if err := s.admit(ch.t, ch.d, nil, true); err != nil {
			rs[i], _ = reasonOf(err)
			stopped = true
		}
	}
	if stopped {
		return nil, false, cancelled(rs)
	}
	err = s.write(cs, func(b *pebble.Batch) {
		if tk != nil {
			b.Set(tk, append(binary.BigEndian.AppendUint64(nil, uint64(s.cfg.Now().UnixMilli())), sum[:]...), nil)
		}
	}, func() error {
		failed, size := false, 0
		for i, st := range steps {
			if err := st.how(); err != nil {
				var ok bool
				if rs[i], ok = reasonOf(err); !ok {
					return err
				}
				failed = true
			}
			size += st.after.Size()
		}
		if failed {
			return cancelled(rs)
		}
		if size > maxTransaction {
			return invalid("Transaction request size exceeds 4MB limit")
		}
		return nil
	})
	capacity = s.bookAll(cs)
	if err != nil {
		return nil, false, err
	}
	return capacity, false, nil
}

// sumOf tells requests apart by what they say: clients write the members of maps in any order.
func sumOf(body []byte) (sum [sha256.Size]byte, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return sum, err
	}
	ordered, err := json.Marshal(v)
	return sha256.Sum256(ordered), err
}

// ofTable is what was consumed of one table among several, which is entered when there is nothing yet.
func ofTable(all *[]*consumed, t *table, d *definition) *consumed {
	for _, x := range *all {
		if x.t == t {
			return x
		}
	}
	got := &consumed{t: t, d: d}
	*all = append(*all, got)
	return got
}

// bookAll books the changes of a transaction, by table, at twice what they take.
func (s *Store) bookAll(cs []*change) []*consumed {
	var out []*consumed
	for _, ch := range cs {
		ofTable(&out, ch.t, ch.d).changed(ch, 2)
	}
	for _, got := range out {
		s.book(got)
	}
	return out
}

// retold is what an answered transaction takes when it is sent again: its items are read.
func (s *Store) retold(cs []*change) ([]*consumed, error) {
	var out []*consumed
	for _, ch := range cs {
		if err := s.read(ch); err != nil {
			return nil, err
		}
		ofTable(&out, ch.t, ch.d).read += 2 * readUnits(ch.was, true)
	}
	for _, got := range out {
		s.book(got)
	}
	return out, nil
}

// begin enters a token as one that is being worked on; false: it is already.
func (s *Store) begin(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tokens[token] {
		return false
	}
	s.tokens[token] = true
	return true
}

func (s *Store) ended(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, token)
}

// known says whether a transaction of this token was made.
func (s *Store) known(tk, sum []byte) (bool, error) {
	v, closer, err := s.db.Get(tk)
	if err == pebble.ErrNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer closer.Close()
	if len(v) < 8 || s.cfg.Now().Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(v)))) > tokenFor {
		return false, nil
	}
	if !bytes.Equal(v[8:], sum) {
		return false, fault("IdempotentParameterMismatchException", "Request parameters differ from those of an earlier request with the same ClientRequestToken.")
	}
	return true, nil
}

func (s *Store) transactGet(c awsapi.Caller, in *request.Input) ([]byte, error) {
	type part struct {
		t *table
		d *definition
	}
	parts := make([]part, len(in.TransactGets))
	rs := make([]reason, len(in.TransactGets))
	failed := false
	seen := map[string]bool{}
	for i, g := range in.TransactGets {
		t, d, err := s.use(c, g.TableName, g.Account, "TransactGetItems")
		if err != nil {
			return nil, err
		}
		parts[i] = part{t, d}
		if err = d.checkKey(g.Key); err == nil {
			err = d.scalarsOnly(&request.Input{Projection: g.Projection})
		}
		if err == nil {
			if k := string(d.itemKey(d.primary(g.Key))); seen[k] {
				return nil, invalid("Transaction request cannot include multiple operations on one item")
			} else {
				seen[k] = true
			}
			err = s.admit(t, d, nil, false)
		}
		if err != nil {
			rs[i], _ = reasonOf(err)
			failed = true
		}
	}
	if failed {
		return nil, cancelled(rs)
	}
	// A snapshot is of one moment, and a batch is in it whole or not at all.
	snap := s.db.NewSnapshot()
	defer snap.Close()
	out := append(make([]byte, 0, 1024), `{"Responses":[`...)
	var capacity []*consumed
	size := 0
	for i, g := range in.TransactGets {
		t, d := parts[i].t, parts[i].d
		item, err := s.get(snap, d, g.Key)
		if err != nil {
			return nil, err
		}
		if size += item.Size(); size > maxTransaction {
			return nil, invalid("Transaction request size exceeds 4MB limit")
		}
		ofTable(&capacity, t, d).read += 2 * readUnits(item.Size(), true)
		if i > 0 {
			out = append(out, ',')
		}
		if item == nil {
			out = append(out, `{}`...)
			continue
		}
		t.returned(1)
		if g.Projection != nil {
			item = g.Projection.Apply(item)
		}
		out = append(out, `{"Item":`...)
		out = append(item.AppendJSON(out), '}')
	}
	out = append(out, ']')
	for _, got := range capacity {
		s.book(got)
	}
	if list := describeAll(capacity, in.ReturnConsumedCapacity, "Read"); list != nil {
		raw, err := json.Marshal(list)
		if err != nil {
			return nil, err
		}
		out = append(append(out, `,"ConsumedCapacity":`...), raw...)
	}
	return append(out, '}'), nil
}
