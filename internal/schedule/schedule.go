// Package schedule says when: cron, a rate or a moment, in a time zone. Pure but for the zones' table,
// which is in the binary. Begin at Schedule.Next.
package schedule

import (
	"fmt"
	"time"
	_ "time/tzdata" // time zones must not depend on the machine

	"github.com/adhocore/gronx"
)

// Schedule asks for runs. One of Cron, Rate and At is set; none: it never asks.
type Schedule struct {
	Cron     string // five fields
	Rate     time.Duration
	At       time.Time
	Timezone string // of Cron; "": UTC
}

// Next is the first time after t at which a schedule asks for a run; zero when there is none.
// began is when the schedule was applied: what a rate counts from.
//
// Cron times are wall-clock times of the schedule's zone. In the hour that summer time skips a run
// comes at the first moment after it; in the hour that comes twice it runs once.
func (s Schedule) Next(began, t time.Time) (time.Time, error) {
	switch {
	case s.Rate > 0:
		n := t.Sub(began)/s.Rate + 1
		if t.Before(began) {
			n = 1
		}
		return began.Add(n * s.Rate), nil
	case !s.At.IsZero():
		if s.At.After(t) {
			return s.At, nil
		}
		return time.Time{}, nil
	case s.Cron == "":
		return time.Time{}, nil
	}
	zone := time.UTC
	if s.Timezone != "" {
		z, err := time.LoadLocation(s.Timezone)
		if err != nil {
			return time.Time{}, fmt.Errorf("read schedule: %w", err)
		}
		zone = z
	}
	// The search runs over wall-clock times as if they were UTC, where no hour is missing or double,
	// and the answer is read back in the zone.
	local := t.In(zone)
	wall := time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), local.Second(), 0, time.UTC)
	for range 4 {
		next, err := gronx.NextTickAfter(s.Cron, wall, false)
		if err != nil {
			return time.Time{}, fmt.Errorf("read schedule %q: %w", s.Cron, err)
		}
		real := time.Date(next.Year(), next.Month(), next.Day(), next.Hour(), next.Minute(), next.Second(), 0, zone)
		if real.Hour() != next.Hour() || real.Minute() != next.Minute() {
			// No such moment: the clocks skip it. Date gave one on either side of the change.
			before, after := real.ZoneBounds()
			if real = before; real.IsZero() || time.Date(next.Year(), next.Month(), next.Day(), real.Hour(), real.Minute(), 0, 0, time.UTC).Before(next) || before.Day() != next.Day() {
				real = after
			}
		}
		for _, shift := range []time.Duration{time.Hour, 30 * time.Minute} {
			if first := real.Add(-shift); first.Hour() == real.Hour() && first.Minute() == real.Minute() {
				real = first // of the two moments of that name
			}
		}
		if real.After(t) {
			return real, nil
		}
		wall = next
	}
	return time.Time{}, nil
}

// Due is the latest time at which a schedule asked for a run by now, after last, the one that was answered;
// zero: it did not.
func (s Schedule) Due(began, last, now time.Time) (tick time.Time, err error) {
	for range 100_000 {
		next, err := s.Next(began, last)
		if err != nil {
			return tick, err
		}
		if next.IsZero() || next.After(now) {
			break
		}
		tick, last = next, next
		if s.Rate > 0 { // straight to the latest
			return began.Add(now.Sub(began) / s.Rate * s.Rate), nil
		}
	}
	return tick, nil
}
