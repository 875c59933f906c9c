package pgrepl

import (
	"encoding/binary"
	"testing"
	"time"
)

// pgoutput writes its messages.
type pgoutput []byte

func (p pgoutput) u16(v uint16) pgoutput  { return binary.BigEndian.AppendUint16(p, v) }
func (p pgoutput) u32(v uint32) pgoutput  { return binary.BigEndian.AppendUint32(p, v) }
func (p pgoutput) u64(v uint64) pgoutput  { return binary.BigEndian.AppendUint64(p, v) }
func (p pgoutput) text(s string) pgoutput { return append(append(p, s...), 0) }

// value is a value of a row, in text.
func (p pgoutput) value(s string) pgoutput { return append(append(p, 't').u32(uint32(len(s))), s...) }

var (
	opens  = pgoutput{'B'}.u64(100).u64(uint64(time.Hour / time.Microsecond)).u32(7)
	table  = append(append(append(pgoutput{'R'}.u32(42).text("public").text("outbox"), 'd').u16(2), 1).text("id").u32(20).u32(0), 0).text("detail").u32(3802).u32(0)
	insert = append(append(pgoutput{'I'}.u32(42), 'N').u16(2).value("1"), 'n')
	closes = append(pgoutput{'C'}, 0).u64(100).u64(200).u64(0)
)

func TestRowsOfATransaction(t *testing.T) {
	var c changes
	for i, p := range []pgoutput{opens, table, insert, append(pgoutput{'D'}.u32(42), 'K'), insert, closes} {
		done, err := c.take(p)
		if err != nil || done != (i == 5) {
			t.Fatal(i, done, err)
		}
	}
	if c.now.End != 200 || !c.now.At.Equal(epoch.Add(time.Hour)) || len(c.now.Rows) != 2 {
		t.Fatalf("%+v", c.now)
	}
	r := c.now.Rows[0]
	if r.Of.Schema != "public" || r.Of.Name != "outbox" || !r.Of.Columns[0].Key || r.Of.Columns[1] != (Column{"detail", 3802, false}) || string(r.Values[0]) != "1" || r.Values[1] != nil {
		t.Errorf("%+v", r)
	}
	if _, err := c.take(closes); err == nil {
		t.Error("the end of nothing")
	}
	for _, whole := range []pgoutput{opens, table, insert, closes} {
		for n := range whole {
			c := changes{relations: map[uint32]*Relation{42: r.Of}, inside: true}
			if _, err := c.take(whole[:n]); err == nil {
				t.Errorf("%c cut off after %d bytes", whole[0], n)
			}
		}
	}
}

func FuzzRows(f *testing.F) {
	for _, p := range []pgoutput{opens, table, insert, closes} {
		f.Add([]byte(p), []byte(insert))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var c changes
		for _, p := range [][]byte{opens, first, second, closes} {
			if _, err := c.take(p); err != nil {
				return
			}
		}
		for _, r := range c.now.Rows {
			if len(r.Values) != len(r.Of.Columns) {
				t.Errorf("%d values of %d columns", len(r.Values), len(r.Of.Columns))
			}
		}
	})
}
