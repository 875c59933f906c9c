package run

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, s)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

type service struct {
	name     string
	j        *journal
	start    time.Duration // until ready
	live     time.Duration // until it dies by itself; 0: never
	stubborn bool          // ignores its context for an hour
}

func (s service) Name() string { return s.name }

func (s service) Run(ctx context.Context, ready func()) error {
	time.Sleep(s.start)
	s.j.add("+" + s.name)
	ready()
	defer func() { s.j.add("-" + s.name) }()
	if s.live > 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(s.live):
			return errors.New("boom")
		}
	}
	<-ctx.Done()
	if s.stubborn {
		time.Sleep(time.Hour)
	}
	return nil
}

func TestStartsUpwardAndStopsDownward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := All(ctx, time.Second, service{name: "a", j: j, start: 3 * time.Second}, service{name: "b", j: j}, service{name: "c", j: j})
		if err != nil || !slices.Equal(j.lines, []string{"+a", "+b", "+c", "-c", "-b", "-a"}) {
			t.Fatal(j.lines, err)
		}
	})
}

func TestFirstDeathEndsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		err := All(t.Context(), time.Second, service{name: "a", j: j}, service{name: "b", j: j, live: time.Second}, service{name: "c", j: j})
		if err == nil || err.Error() != "b: boom" || !slices.Equal(j.lines, []string{"+a", "+b", "+c", "-b", "-c", "-a"}) {
			t.Fatal(j.lines, err)
		}
	})
}

func TestSaysWhoWouldNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := All(ctx, time.Second, service{name: "a", j: j}, service{name: "b", j: j, stubborn: true})
		if err == nil || !strings.Contains(err.Error(), "b: did not stop within 1s") || !slices.Contains(j.all(), "-a") {
			t.Fatal(j.lines, err)
		}
		time.Sleep(2 * time.Hour) // lets it end
	})
}
