package postgres

import (
	"testing"
	"time"

	"tenfold"
)

func TestAWindowIsOpenWhenItSays(t *testing.T) {
	night := tenfold.Window{Day: 6, From: 23*time.Hour + 30*time.Minute, To: time.Hour} // Sat 23:30-01:00
	for at, want := range map[string]bool{
		"2026-11-28T23:29:59Z": false, "2026-11-28T23:30:00Z": true, "2026-11-29T00:59:59Z": true, "2026-11-29T01:00:00Z": false,
		"2026-11-28T00:30:00Z":      false, // of Friday's
		"2026-11-29T01:30:00+02:00": true,
	} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := inside(night, now); got != want {
			t.Errorf("%s: %t", at, got)
		}
	}
	if sunday := time.Date(2026, 11, 29, 4, 0, 0, 0, time.UTC); !inside(defaultWindow, sunday) || inside(defaultWindow, sunday.Add(time.Hour)) {
		t.Error("the window that nobody wrote is another")
	}
	if s := night.String(); s != "Sat 23:30-01:00 UTC" {
		t.Error(s)
	}
}

func TestReadersFollowTheirTimetable(t *testing.T) {
	wide := tenfold.Bounds{Min: 0, Max: 4}
	r := record{Spec: spec{Readers: wide, ReadersAt: []tenfold.Timed{{Cron: "0 8 * * *", Bounds: tenfold.Bounds{Min: 2, Max: 4}}}}}
	if got := r.timed().Readers; got != wide {
		t.Errorf("before anybody looked: %+v", got)
	}
	r.Now = &tenfold.Bounds{Min: 2, Max: 4}
	c := cluster{Nodes: []node{{N: 1, Port: 1}}, Primary: 1, Epoch: 1}
	v := view{Nodes: map[int]sight{1: {Unit: "running", Answers: true}}}
	if st := c.next(r.timed(), false, v); st.Do != add {
		t.Errorf("by day: %+v", st)
	}
	r.Now = &tenfold.Bounds{}
	c.Nodes = append(c.Nodes, node{N: 2, Port: 2})
	if st := c.next(r.timed(), false, v); st.Do != dismiss {
		t.Errorf("by night: %+v", st)
	}
}
