package compute

import (
	"time"

	"tenfold"
	"tenfold/internal/schedule"
)

// following is the first time after t at which a schedule asks for a run; zero when there is none.
func following(s tenfold.Schedule, began, t time.Time) (time.Time, error) {
	return of(s).Next(began, t)
}

func of(s tenfold.Schedule) schedule.Schedule {
	return schedule.Schedule{Cron: s.Cron, Rate: s.Rate, At: s.At, Timezone: s.Timezone}
}

// due says which run a schedule asks for at now, given the last time that was answered. Of several
// missed times one run is made, for the latest; with missed "skip" none, unless it is less than a
// minute late.
func due(s jobSpec, began, last, now time.Time) (tick time.Time, run bool, err error) {
	tick, err = of(s.Schedule).Due(began, last, now)
	if err != nil || tick.IsZero() {
		return tick, false, err
	}
	return tick, s.Missed != "skip" || now.Sub(tick) < time.Minute, nil
}
