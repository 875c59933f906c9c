package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tenfold"
	"tenfold/internal/timetable"
)

// What waits for a window: restarts for settings where the manifest names one, and newer releases of the major. What
// a person asks for (tenfold db restart, db upgrade) is done at once.

// defaultWindow is when newer releases are taken where the manifest says nothing.
var defaultWindow = tenfold.Window{Day: int(time.Sunday), From: 3 * time.Hour, To: 5 * time.Hour}

func (s spec) window() tenfold.Window {
	if s.Window != nil {
		return *s.Window
	}
	return defaultWindow
}

// inside says whether a moment is in a window. One that ends before it begins ends on the next day.
func inside(w tenfold.Window, at time.Time) bool {
	at = at.UTC()
	since := time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute + time.Duration(at.Second())*time.Second
	on := func(day time.Weekday) bool { return w.Day == tenfold.Daily || w.Day == int(day) }
	if w.From < w.To {
		return on(at.Weekday()) && since >= w.From && since < w.To
	}
	return on(at.Weekday()) && since >= w.From || on((at.Weekday()+6)%7) && since < w.To
}

// due says why a database is to be restarted now, "" when it is not: what waits, in its window.
func (p *Postgres) due(ctx context.Context, r record, now time.Time) string {
	if !inside(r.Spec.window(), now) || r.Upgrade.copying() {
		return ""
	}
	if r.Pending != "" {
		return r.Pending
	}
	if to, err := p.outdated(ctx, r); err == nil && to != "" {
		return "PostgreSQL " + to
	}
	return ""
}

// waits says what of a database waits for its window, as status tells it.
func (p *Postgres) waits(r record) string {
	if r.Pending == "" {
		return ""
	}
	return fmt.Sprintf(", a restart for %s waits for %s (now: tenfold db restart)", r.Pending, r.Spec.window())
}

// maintain restarts what waits, when its window is open, and says once that something waits.
func (p *Postgres) maintain(ctx context.Context, key string, r record) error {
	if why := p.due(ctx, r, time.Now()); why != "" {
		var err error
		if strings.HasPrefix(why, "PostgreSQL ") {
			_, _, err = p.renew(ctx, key, why)
		} else {
			_, err = p.restart(ctx, key, why)
		}
		return err
	}
	to, err := p.outdated(ctx, r)
	if err != nil || to == "" {
		return nil // a missing engine is told elsewhere
	}
	if p.tries.News(key+"#release", to) {
		p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("PostgreSQL %s is installed, %s runs: it is taken in the window %s", to, r.Version, r.Spec.window()), Hint: "now: tenfold db upgrade"})
	}
	return nil
}

// Restart restarts a database's primary now, with clients of the pool held, and says for how long they were.
func (p *Postgres) Restart(ctx context.Context, id tenfold.ID) (time.Duration, error) {
	r, err := p.served(id)
	if err != nil {
		return 0, err
	}
	why := r.Pending
	if why == "" {
		why = "somebody who asked"
	}
	return p.restart(ctx, id.String(), why)
}

// timed is the spec with the bounds of readers that hold now.
func (r record) timed() spec {
	s := r.Spec
	if len(s.ReadersAt) > 0 && r.Now != nil {
		s.Readers = *r.Now
	}
	return s
}

// tick notes which bounds of the timetable of readers hold.
func (p *Postgres) tick(key string, r record, now time.Time) {
	if len(r.Spec.ReadersAt) == 0 {
		return
	}
	var crons []string
	for _, t := range r.Spec.ReadersAt {
		crons = append(crons, t.Cron)
	}
	bounds := r.Spec.Readers
	if i, err := timetable.Current(crons, now); err == nil && i >= 0 {
		bounds = r.Spec.ReadersAt[i].Bounds
	}
	if r.Now != nil && *r.Now == bounds {
		return
	}
	if p.records.Change(key, func(x *record) {
		x.Now = &bounds
		x.Readers = min(max(x.Readers, bounds.Min), bounds.Max)
	}) == nil {
		p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("readers %d-%d from now on, by their schedule", bounds.Min, bounds.Max)})
	}
}

// pendingRestart names the settings that take one.
const pendingRestart = "select coalesce(array_agg(name order by name), '{}') from pg_settings where pending_restart"

func join(names []string) string {
	if len(names) > 3 {
		return strings.Join(names[:3], ", ") + fmt.Sprintf(" and %d more", len(names)-3)
	}
	return strings.Join(slices.Clone(names), ", ")
}
