package compute

import (
	"reflect"
	"slices"
	"time"

	"tenfold"
)

// change replaces the record, durably first.
func (s *service) change(f func(record) record) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	old := s.snapshot()
	rec := f(old)
	if reflect.DeepEqual(rec, old) {
		return nil
	}
	return s.keep(rec)
}

// changeSoon is change that returns before the record is on disk where a crash may forget it: a write takes as long as
// a task needs to come to life. It belongs to run's goroutine.
func (s *service) changeSoon(f func(record) record) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	old, lost := s.rec, s.lost
	s.mu.Unlock()
	rec := f(old)
	switch {
	case lost != nil:
		return s.keep(rec) // the disk may take it now
	case reflect.DeepEqual(rec, old):
		return nil
	case !forgettable(old, rec):
		return s.keep(rec)
	}
	s.mu.Lock()
	s.rec, s.behind = rec, true
	s.mu.Unlock()
	s.wg.Go(s.catchUp)
	return nil
}

// keep writes a record and puts it in place. Under s.changing.
func (s *service) keep(rec record) error {
	s.disk.Lock()
	defer s.disk.Unlock()
	if err := s.c.save(s.id, rec); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rec, s.behind, s.lost = rec, false, nil
	return nil
}

// catchUp writes the record when the disk has an older one.
func (s *service) catchUp() {
	s.disk.Lock()
	defer s.disk.Unlock()
	s.mu.Lock()
	rec, behind := s.rec, s.behind
	s.behind = false
	s.mu.Unlock()
	if !behind {
		return
	}
	err := s.c.save(s.id, rec)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = err
}

// forgettable says that whoever has old instead of now comes to the same: tasks were added or became healthy, or the
// count moved. A new task's unit knows its port; one that the record does not know is ended.
func forgettable(old, now record) bool {
	a, b := old, now
	a.Tasks, b.Tasks = nil, nil
	a.Scaled, a.Boot, a.Quickest, a.Work, a.LastTask = b.Scaled, b.Boot, b.Quickest, b.Work, b.LastTask
	if !reflect.DeepEqual(a, b) {
		return false
	}
	left := slices.Clone(now.Tasks)
	for _, t := range old.Tasks {
		i := slices.IndexFunc(left, func(x task) bool { return x.N == t.N })
		if i < 0 {
			return false
		}
		x := left[i]
		left = slices.Delete(left, i, i+1)
		if x.Phase == serving && t.Phase == starting && !t.Down {
			t.Phase, t.Since = x.Phase, x.Since
		}
		if t.Port == 0 {
			t.Port = x.Port
		}
		if t.Healthy = x.Healthy; t != x {
			return false
		}
	}
	return !slices.ContainsFunc(left, func(t task) bool { return t.Phase != starting })
}

// emitSoon tells of something when the look is over: an event waits for the disk.
func (s *service) emitSoon(severity tenfold.Severity, took time.Duration, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsaid = append(s.unsaid, tenfold.Event{At: time.Now(), ID: s.id, Severity: severity, Text: text, Took: took})
}

// tell begins to tell of what was put off, beside the loop.
func (s *service) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unsaid) == 0 || s.telling {
		return
	}
	s.telling = true
	s.wg.Go(func() {
		for {
			s.mu.Lock()
			said := s.unsaid
			s.unsaid = nil
			s.telling = len(said) > 0
			s.mu.Unlock()
			if len(said) == 0 {
				return
			}
			for _, e := range said {
				s.c.cfg.Emit(e)
			}
		}
	})
}
