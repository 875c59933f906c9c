// Package timetable says which entry of a timetable holds: each begins at the times of a cron line and lasts until
// another begins. It asks no clock. Begin at Current.
package timetable

import (
	"fmt"
	"time"

	"github.com/adhocore/gronx"
)

// Current is the index of the cron line whose last time, in UTC, is nearest before now or now; -1 when none had one
// in the last years. Of two that begin at once the later in the list holds.
func Current(crons []string, now time.Time) (int, error) {
	at, began := -1, time.Time{}
	for i, c := range crons {
		last, err := gronx.PrevTickBefore(c, now.UTC(), true)
		if err != nil {
			if !gronx.IsValid(c) {
				return -1, fmt.Errorf("read timetable %q: %w", c, err)
			}
			continue // no such day in years
		}
		if !last.Before(began) {
			at, began = i, last
		}
	}
	return at, nil
}
