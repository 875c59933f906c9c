package autoscale

import (
	"strings"
	"testing"
	"time"
)

// shop is a queue with tasks that work at it: each does so many messages a second, ten at a time.
type shop struct {
	*drive
	each    float64
	waiting int
	rest    float64
}

func newShop(t Targets, tasks int, each float64) *shop {
	return &shop{drive: newDrive(t, tasks), each: each}
}

// seconds lets so many messages a second come.
func (s *shop) seconds(n, come int) (peak int) {
	for range n {
		s.waiting += come
		could := s.each*float64(s.tasks) + s.rest
		did := min(s.waiting, int(could))
		s.rest = could - float64(int(could))
		s.waiting -= did
		working := min(s.waiting, 10*s.tasks)
		s.run(1, 0, func(x *Sample) {
			x.Piles = []Pile{{Known: true, Waiting: s.waiting - working, Working: working, Sent: come, Done: did}}
		})
		peak = max(peak, s.tasks)
	}
	return peak
}

func TestBacklogOfMessages(t *testing.T) {
	s := newShop(Targets{Min: 0, Max: 8, Backlogs: []Backlog{{Queue: "emails", Messages: 20}}}, 1, 2)
	s.seconds(5, 0)
	if peak := s.seconds(1, 100); peak != 5 || s.last.Reason != "emails: 88 waiting, 10 at work, 20 per task" {
		t.Errorf("100 messages: %d tasks, %q", peak, s.last.Reason)
	}
	s.seconds(20, 0)
	if s.waiting > 0 {
		t.Errorf("%d wait after 20 s", s.waiting)
	}
	if s.seconds(45, 0); s.tasks == 0 {
		t.Error("asleep before a minute without a message")
	}
	if s.seconds(240, 0); s.tasks != 0 || !strings.Contains(s.last.Reason, "nothing came") {
		t.Errorf("%d tasks, %q", s.tasks, s.last.Reason)
	}
	if s.seconds(1, 1); s.tasks != 1 || !strings.HasPrefix(s.last.Reason, "emails: 1 waiting") {
		t.Errorf("one message: %d tasks, %q", s.tasks, s.last.Reason)
	}
	if peak := s.seconds(1, 1000); peak != 8 || !strings.Contains(s.last.Reason, "bounds 0-8") {
		t.Errorf("%d tasks, %q", peak, s.last.Reason)
	}
}

// Quick messages need fewer tasks than slow ones, by what was measured; a steady load comes to rest.
func TestBacklogOfAge(t *testing.T) {
	for _, c := range []struct {
		each        float64
		come        int
		least, most int
	}{{10, 20, 2, 4}, {2, 20, 10, 14}, {0.5, 4, 8, 12}} {
		s := newShop(Targets{Min: 0, Max: 50, Backlogs: []Backlog{{Queue: "films", Messages: 1_000_000, Age: time.Minute}}}, 1, c.each)
		s.seconds(600, c.come)
		changes, before := 0, s.tasks
		for range 300 {
			s.seconds(1, c.come)
			if s.tasks != before {
				changes, before = changes+1, s.tasks
			}
		}
		if s.tasks < c.least || s.tasks > c.most || float64(s.waiting) > 60*float64(c.come) || changes > 6 {
			t.Errorf("%g/s a task, %d/s come: %d tasks, %d wait, %d changes: %q", c.each, c.come, s.tasks, s.waiting, changes, s.last.Reason)
		}
	}
}

// While nobody says what waits, the count stays.
func TestBacklogThatNobodyKnows(t *testing.T) {
	s := newShop(Targets{Min: 0, Max: 8, Backlogs: []Backlog{{Queue: "emails", Messages: 20}}}, 1, 2)
	s.seconds(3, 40)
	n := s.tasks
	for range 600 {
		s.run(1, 0, func(x *Sample) { x.Piles = []Pile{{}} })
	}
	if s.tasks != n {
		t.Errorf("%d tasks, %d before: %q", s.tasks, n, s.last.Reason)
	}
}

// Requests and messages: the one that asks for most tasks wins.
func TestBacklogBesideRequests(t *testing.T) {
	d := newDrive(Targets{Min: 1, Max: 50, RPS: 20, Backlogs: []Backlog{{Queue: "emails", Messages: 10}}}, 1)
	d.run(30, 100, func(x *Sample) { x.Piles = []Pile{{Known: true, Waiting: 5}} })
	if d.tasks != 5 {
		t.Errorf("%d tasks: %q", d.tasks, d.last.Reason)
	}
	if d.run(1, 100, func(x *Sample) { x.Piles = []Pile{{Known: true, Waiting: 95}} }); d.tasks != 10 {
		t.Errorf("%d tasks: %q", d.tasks, d.last.Reason)
	}
}
