package compute

import (
	"testing"

	"tenfold"
)

// What came to a queue is the difference of two samples, unless it was counted anew in between.
func TestPilesOfAService(t *testing.T) {
	var now *Backlog
	q := tenfold.ID{Kind: tenfold.KindQueue, Name: "emails"}
	s := &service{pursuit: pursuit{c: &Compute{cfg: Config{Backlog: func(id tenfold.ID) (Backlog, bool) {
		if id != q {
			t.Errorf("asked for %v", id)
		}
		if now == nil {
			return Backlog{}, false
		}
		return *now, true
	}}}}}
	r := record{Serving: &version{Spec: serviceSpec{Scaling: &tenfold.Scaling{Backlog: []tenfold.Backlog{{Queue: q, Messages: 20}}}}}}
	for i, c := range []struct {
		is         *Backlog
		known      bool
		sent, done int
	}{
		{&Backlog{Waiting: 5, Sent: 100, Done: 95}, true, 0, 0}, // what came before is nothing of ours
		{&Backlog{Waiting: 7, Working: 1, Sent: 110, Done: 102}, true, 10, 7},
		{&Backlog{Waiting: 8, Sent: 1}, true, 0, 0}, // another process counts
		{&Backlog{Waiting: 8, Sent: 3, Done: 2}, true, 2, 2},
		{nil, false, 0, 0},
		{&Backlog{Waiting: 1, Sent: 50, Done: 50}, true, 0, 0},
	} {
		now = c.is
		got := s.pile(r)[0]
		if got.Known != c.known || got.Sent != c.sent || got.Done != c.done || c.is != nil && (got.Waiting != c.is.Waiting || got.Working != c.is.Working) {
			t.Errorf("sample %d: %+v", i, got)
		}
	}
	r.Serving.Spec.Scaling = nil
	if got := s.pile(r); got != nil {
		t.Errorf("without a target: %+v", got)
	}
}
