package table

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"tenfold/internal/awsapi"
	"tenfold/tier/table/attr"
)

// Use is how a table has been used since the process began, under the names of CloudWatch's metrics.
type Use struct {
	Items, Bytes int64
	// ConsumedReadCapacityUnits and …Write… are of the table and its indexes.
	ConsumedReadCapacityUnits, ConsumedWriteCapacityUnits float64
	ProvisionedReadCapacityUnits                          int64 `json:",omitempty"`
	ProvisionedWriteCapacityUnits                         int64 `json:",omitempty"`
	ReadThrottleEvents, WriteThrottleEvents               uint64
	ConditionalCheckFailedRequests                        uint64
	ReturnedItemCount                                     uint64
	TimeToLiveDeletedItemCount                            uint64
	// Amplification is how many write units indexes took for each one that the table took itself.
	Amplification float64
	// Hot are the partitions that took most, the hottest first.
	Hot []Partition `json:",omitempty"`
}

// Partition is how much of a table's capacity one partition key took.
type Partition struct {
	Key   string // as JSON: {"S":"user-1"}
	Units float64
	Share float64 // of all that was taken, 0 to 1
}

// use is what a table counts; table.mu is held.
type use struct {
	Read, Write, Indexed          float64
	ReadThrottled, WriteThrottled uint64
	Failed, Returned, Expired     uint64

	hot   []heat
	total float64

	history []Bin
}

// heat is a partition that may be hot.
type heat struct {
	key   string // as in the log
	units float64
}

// hotKeys is how many partitions are followed: a key that takes more than one part in so many of all is among
// them for sure (Metwally et al., "Efficient Computation of Frequent and Top-k Elements in Data Streams").
const hotKeys = 64

func (u *use) throttle(write bool) {
	if write {
		u.WriteThrottled++
	} else {
		u.ReadThrottled++
	}
}

func (u *use) book(c *consumed, now time.Time) {
	read, write := u.Read, u.Write+u.Indexed
	u.Read += c.read
	u.Write += c.write
	for _, n := range c.reads {
		u.Read += n
	}
	for _, n := range c.writes {
		u.Indexed += n
	}
	if c.partition != nil {
		u.touch(c.partition, c.read+c.write)
	}
	at := now.Truncate(binLength).Unix()
	if n := len(u.history); n == 0 || u.history[n-1].At != at {
		if n == historyBins {
			u.history = append(u.history[:0], u.history[1:]...)
		}
		u.history = append(u.history, Bin{At: at})
	}
	x := &u.history[len(u.history)-1]
	x.Read += u.Read - read
	x.Write += u.Write + u.Indexed - write
}

// touch enters what a partition took.
func (u *use) touch(key []byte, units float64) {
	u.total += units
	least := -1
	for i := range u.hot {
		if u.hot[i].key == string(key) {
			u.hot[i].units += units
			return
		}
		if least < 0 || u.hot[i].units < u.hot[least].units {
			least = i
		}
	}
	if len(u.hot) < hotKeys {
		u.hot = append(u.hot, heat{string(key), units})
		return
	}
	u.hot[least] = heat{string(key), u.hot[least].units + units}
}

func (t *table) returned(n int) {
	if n > 0 {
		t.mu.Lock()
		t.use.Returned += uint64(n)
		t.mu.Unlock()
	}
}

// failed counts a refusal by what it is.
func (t *table) failed(err error) {
	if errors.As(err, new(errCondition)) {
		t.mu.Lock()
		t.use.Failed++
		t.mu.Unlock()
	}
}

// Uses says how an account's tables have been used, by name.
func (s *Store) Uses(account string) map[string]Use {
	out := map[string]Use{}
	for _, t := range s.of(account) {
		d := t.def.Load()
		t.mu.Lock()
		u := t.use
		u.hot = slices.Clone(t.use.hot)
		t.mu.Unlock()
		x := Use{
			Items: max(0, t.count.items.Load()), Bytes: max(0, t.count.bytes.Load()),
			ConsumedReadCapacityUnits: u.Read, ConsumedWriteCapacityUnits: u.Write + u.Indexed,
			ReadThrottleEvents: u.ReadThrottled, WriteThrottleEvents: u.WriteThrottled, ConditionalCheckFailedRequests: u.Failed,
			ReturnedItemCount: u.Returned, TimeToLiveDeletedItemCount: u.Expired,
		}
		if d.Provisioned {
			x.ProvisionedReadCapacityUnits, x.ProvisionedWriteCapacityUnits = d.Capacity.Read, d.Capacity.Write
		}
		if u.Write > 0 {
			x.Amplification = u.Indexed / u.Write
		}
		slices.SortFunc(u.hot, func(a, b heat) int { return cmp.Compare(b.units, a.units) })
		for _, h := range u.hot[:min(10, len(u.hot))] {
			v, _, err := attr.ReadKey([]byte(h.key)[hashLen:], d.Types[d.Hash])
			if err != nil {
				continue
			}
			x.Hot = append(x.Hot, Partition{Key: string(v.AppendJSON(nil)), Units: h.units, Share: h.units / max(u.total, 1)})
		}
		out[d.Name] = x
	}
	return out
}

// partitionOf is the part of a primary key that names the partition.
func (d *definition) partitionOf(primary []byte) []byte {
	if d.Sort == "" {
		return primary
	}
	_, rest, err := attr.ReadKey(primary[hashLen:], d.Types[d.Hash])
	if err != nil {
		return nil
	}
	return primary[:len(primary)-len(rest)]
}

// Report is how a table has been used, with what that would cost on AWS.
type Report struct {
	Table string
	Use
	Indexes []IndexUse
	Bill    Bill
}

// IndexUse is how much is in an index.
type IndexUse struct {
	Name         string
	Items, Bytes int64
}

// useCall tells the owner of an environment how tables have been used, as if it were an operation.
func (s *Store) useCall(c awsapi.Caller, name string) (any, error) {
	if !c.May("dynamodb", awsapi.Every) {
		return nil, fault("UnknownOperationException", "")
	}
	uses := s.Uses(c.Account)
	out := []Report{}
	for _, t := range s.of(c.Account) {
		d := t.def.Load()
		if name != "" && name != d.Name {
			continue
		}
		t.mu.Lock()
		history := slices.Clone(t.use.history)
		t.mu.Unlock()
		r := Report{Table: d.Name, Use: uses[d.Name]}
		size := r.Bytes
		for i := range d.Indexes {
			n := t.indexCount(d.Indexes[i].No)
			x := IndexUse{d.Indexes[i].Name, max(0, n.items.Load()), max(0, n.bytes.Load())}
			size += x.Bytes
			r.Indexes = append(r.Indexes, x)
		}
		r.Bill = BillOf(history, s.cfg.Now(), size, d.Recover != 0)
		out = append(out, r)
	}
	if name != "" && len(out) == 0 {
		return nil, errNoTableNamed(name)
	}
	return member{"Tables": out}, nil
}
