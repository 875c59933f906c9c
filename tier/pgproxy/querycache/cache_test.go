package querycache

import (
	"encoding/binary"
	"testing"
	"time"
)

// looked is a cache that just looked at a server where transactions up to xid are seen.
func looked(c *Cache, at time.Time, number, min, max uint64, running ...uint32) {
	c.Looked(Look{Asked: at, Number: number, Snapshot: Snapshot{Min: min, Max: max, running: running}, Catalog: map[uint32]string{20000: "a"}})
}

func filled(t *testing.T, c *Cache, now time.Time) {
	t.Helper()
	v, _ := c.Judge([]byte("q"), now)
	f := c.Begin([]byte("key"), v, time.Minute, now)
	if f == nil {
		t.Fatal("it may not be filled")
	}
	f.Rows = append(f.Rows, "row"...)
	if !c.Put(f) {
		t.Fatal("it is not stored")
	}
}

func made(t *testing.T, now time.Time) *Cache {
	t.Helper()
	c := New(1 << 20)
	if _, ask := c.Judge([]byte("q"), now); !ask {
		t.Fatal("known before it was asked")
	}
	c.Judged("q", c.Drops(), Verdict{Tables: []uint32{20000}, Relations: map[uint32]string{20000: "a"}, Since: 90}, now)
	return c
}

func TestAnswerHoldsWhileLooksAreYoungAndNothingChanged(t *testing.T) {
	now := time.Unix(1000, 0)
	c := made(t, now)
	looked(c, now, 5, 100, 100)
	filled(t, c, now)
	if c.Get([]byte("key"), 5, now) == nil {
		t.Error("not there")
	}
	if c.Get([]byte("key"), 6, now) != nil {
		t.Error("a write that no look has seen")
	}
	if c.Get([]byte("key"), 5, now.Add(Bound)) != nil {
		t.Error("the look is too old")
	}
	c.Changed([]Change{{XID: 101, Tables: []uint32{20000}}})
	if c.Get([]byte("key"), 5, now) != nil {
		t.Error("it changed")
	}
}

// A commit is in the WAL before others see it: what is read then is old, and no later change would say so.
func TestNothingIsStoredWhileAChangeMayBeUnseen(t *testing.T) {
	now := time.Unix(1000, 0)
	c := made(t, now)
	looked(c, now, 0, 100, 100)
	v, _ := c.Judge([]byte("q"), now)
	c.Changed([]Change{{XID: 100, Tables: []uint32{20000}}})
	looked(c, now, 0, 100, 102, 100) // it is still waited for, by a standby say
	if c.Begin([]byte("key"), v, time.Minute, now) != nil {
		t.Error("filled from a state before the change")
	}
	looked(c, now, 0, 101, 102)
	f := c.Begin([]byte("key"), v, time.Minute, now)
	if f == nil {
		t.Fatal("the change is seen")
	}
	c.Changed([]Change{{XID: 101, Tables: []uint32{20000}}})
	if c.Put(f) {
		t.Error("stored what changed meanwhile")
	}
}

func TestTableIsFilledFromWhenAllThatWroteItUnpublishedEnded(t *testing.T) {
	now := time.Unix(1000, 0)
	c := made(t, now)
	looked(c, now, 0, 89, 95)
	v, _ := c.Judge([]byte("q"), now)
	if c.Begin([]byte("key"), v, time.Minute, now) != nil {
		t.Error("transaction 89 may have changed it unseen")
	}
	looked(c, now, 0, 90, 95)
	filled(t, c, now)
	c.Looked(Look{Asked: now, Snapshot: Snapshot{Min: 90, Max: 95}, Catalog: map[uint32]string{20000: "b"}})
	if c.Get([]byte("key"), 0, now) != nil {
		t.Error("the table was defined anew")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	c := made(t, now)
	looked(c, now, 0, 100, 100)
	v, _ := c.Judge([]byte("q"), now)
	for i := range 200 {
		f := c.Begin([]byte{byte(i)}, v, time.Minute, now)
		f.Rows = make([]byte, 20<<10)
		c.Put(f)
	}
	if n := c.Counts(); n.Bytes > 1<<20 || n.Evicted == 0 || n.Entries < 40 {
		t.Errorf("%+v", n)
	}
	f := c.Begin([]byte("large"), v, time.Minute, now)
	if f.Rows = make([]byte, 1<<17); c.Put(f) {
		t.Error("one answer takes an eighth of all")
	}
}

func TestSnapshotSees(t *testing.T) {
	s, err := ParseSnapshot("4294967300:4294967310:4294967300,4294967305")
	if err != nil {
		t.Fatal(err)
	}
	for xid, want := range map[uint32]bool{3: true, 4: false, 5: true, 9: false, 14: false, 4294967295: true} {
		if s.Sees(xid) != want {
			t.Errorf("%d: %v", xid, !want)
		}
	}
}

func FuzzChanges(f *testing.F) {
	f.Add(append([]byte("B"), make([]byte, 20)...))
	f.Add(append([]byte("C"), make([]byte, 25)...))
	f.Add(binary.BigEndian.AppendUint32([]byte("T"), 1<<31-1))
	f.Add([]byte("I\x00\x00\x40\x01N"))
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, inside := range []bool{false, true} {
			c := changes{inside: inside}
			c.take(p)
		}
	})
}

func FuzzTree(f *testing.F) {
	f.Add("(({QUERY :commandType 1 :rtable ({RANGETBLENTRY :relid 16391 :relkind r}) :opnos (o 97 x)}))")
	f.Fuzz(func(t *testing.T, s string) {
		readTree(s)
		ParseSnapshot(s)
		parseCatalog(s)
	})
}
