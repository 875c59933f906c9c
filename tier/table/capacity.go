package table

import (
	"math"
	"time"

	"tenfold/internal/awsapi"
)

// Capacity. A write unit is 1 KB of the larger of what an item was and is; a read unit is 4 KB read
// consistently, and half of one otherwise; in transactions both count twice. Source: "Capacity unit
// consumption" of the developer guide.

func writeUnits(size int) float64 { return math.Max(1, math.Ceil(float64(size)/1024)) }

func readUnits(size int, consistent bool) float64 {
	n := math.Max(1, math.Ceil(float64(size)/4096))
	if !consistent {
		n /= 2
	}
	return n
}

// bucket holds the capacity that may be consumed now: it fills at the provisioned rate and holds that of Burst.
type bucket struct {
	read, write level
}

type level struct {
	units float64
	at    time.Time
}

// fill is the level now at a rate in units a second.
func (l *level) fill(now time.Time, rate int64, burst time.Duration) {
	most := float64(rate) * burst.Seconds()
	if l.at.IsZero() {
		l.units = most
	} else {
		l.units = math.Min(most, l.units+now.Sub(l.at).Seconds()*float64(rate))
	}
	l.at = now
}

// consumed is what an operation took of one table, for the answer and for the books.
type consumed struct {
	t           *table
	d           *definition
	read, write float64 // of the table itself
	partition   []byte  // that took it, where it was one
	// of indexes, by name
	reads, writes map[string]float64
}

func (c *consumed) index(x *index, read, write float64) {
	if read > 0 {
		if c.reads == nil {
			c.reads = map[string]float64{}
		}
		c.reads[x.Name] += read
	}
	if write > 0 {
		if c.writes == nil {
			c.writes = map[string]float64{}
		}
		c.writes[x.Name] += write
	}
}

// changed adds what a change takes, times factor.
func (c *consumed) changed(ch *change, factor float64) {
	c.write += writeUnits(max(ch.was, ch.is)) * factor
	for _, ic := range ch.indexed {
		for i := range c.d.Indexes {
			if x := &c.d.Indexes[i]; x.No == ic.no && ic.units > 0 {
				c.index(x, 0, ic.units*factor)
			}
		}
	}
}

// admit says whether a table has capacity left for a read or a write; what it takes is known only afterwards,
// so one that is empty refuses and one that is not may go below zero.
func (s *Store) admit(t *table, d *definition, x *index, write bool) error {
	if !d.Provisioned {
		return nil
	}
	now := s.cfg.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if x != nil && !x.Local {
		if !t.bucket(x.Name).has(now, x.Capacity, s.cfg.Burst, write) {
			t.use.throttle(write)
			return errThrottled("index")
		}
		return nil
	}
	ok := t.bucket("").has(now, d.Capacity, s.cfg.Burst, write)
	if write {
		for i := range d.Indexes { // what an index cannot take, the table cannot
			if y := &d.Indexes[i]; !y.Local && !y.Leaving {
				ok = ok && t.bucket(y.Name).has(now, y.Capacity, s.cfg.Burst, true)
			}
		}
	}
	if !ok {
		t.use.throttle(write)
		return errThrottled("table")
	}
	return nil
}

func (t *table) bucket(index string) *bucket {
	b := t.buckets[index]
	if b == nil {
		b = &bucket{}
		t.buckets[index] = b
	}
	return b
}

func (b *bucket) has(now time.Time, c throughput, burst time.Duration, write bool) bool {
	if write {
		b.write.fill(now, c.Write, burst)
		return b.write.units > 0
	}
	b.read.fill(now, c.Read, burst)
	return b.read.units > 0
}

func errThrottled(of string) *awsapi.Fault {
	return &awsapi.Fault{Code: "ProvisionedThroughputExceededException", Message: "The level of configured provisioned throughput for the " + of + " was exceeded. Consider increasing your provisioning level with the UpdateTable API."}
}

// book takes what was consumed out of the buckets and enters it in the table's use.
func (s *Store) book(c *consumed) {
	t := c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	t.use.book(c, s.cfg.Now())
	if !c.d.Provisioned {
		return
	}
	b := t.bucket("")
	b.read.units -= c.read
	b.write.units -= c.write
	for i := range c.d.Indexes {
		x := &c.d.Indexes[i]
		if x.Local { // they live on the table's
			b.read.units -= c.reads[x.Name]
			b.write.units -= c.writes[x.Name]
			continue
		}
		y := t.bucket(x.Name)
		y.read.units -= c.reads[x.Name]
		y.write.units -= c.writes[x.Name]
	}
}

// describe is a ConsumedCapacity, or nil when none was asked for. kind is "Read" or "Write" in transactions,
// whose answers tell the two apart, and "" otherwise.
func (c *consumed) describe(want, kind string) member {
	if want != "TOTAL" && want != "INDEXES" {
		return nil
	}
	total := c.read + c.write
	local, global := member{}, member{}
	one := func(units float64) member {
		m := member{"CapacityUnits": units}
		if kind != "" {
			m[kind+"CapacityUnits"] = units
		}
		return m
	}
	for i := range c.d.Indexes {
		x := &c.d.Indexes[i]
		units := c.reads[x.Name] + c.writes[x.Name]
		if units == 0 {
			if _, touched := c.reads[x.Name]; !touched {
				continue
			}
		}
		total += units
		if x.Local {
			local[x.Name] = one(units)
		} else {
			global[x.Name] = one(units)
		}
	}
	m := one(total)
	m["TableName"] = c.d.Name
	if want == "INDEXES" {
		m["Table"] = one(c.read + c.write)
		if len(local) > 0 {
			m["LocalSecondaryIndexes"] = local
		}
		if len(global) > 0 {
			m["GlobalSecondaryIndexes"] = global
		}
	}
	return m
}
