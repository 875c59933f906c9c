package event

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	when "tenfold/internal/schedule"
)

// timer says when something is due. It does not change.
type timer struct {
	text, zone string
	began      int64 // Unix milliseconds
	next       func(after time.Time) time.Time
	rate       time.Duration // 0: it is none
}

// expressionError says what is wrong with an expression of a schedule.
type expressionError struct{ reason string }

func (e *expressionError) Error() string { return e.reason }

func badExpression(format string, args ...string) error {
	for _, a := range args {
		format = strings.Replace(format, "%", strconv.Quote(cut(a, 60)), 1)
	}
	return &expressionError{format}
}

var expressionForm = regexp.MustCompile(`^(rate|cron|at)\((\S.*)\)$`)

// newTimer reads rate(5 minutes), cron(0 8 ? * MON-FRI *), at(2026-12-24T08:00:00), or the five fields of
// cron that a manifest may have. zone is a name of the time zone database; "": UTC. A rate counts from began.
func newTimer(text, zone string, began int64) (*timer, error) {
	t := &timer{text: text, zone: zone, began: began}
	place := time.UTC
	if zone != "" {
		z, err := time.LoadLocation(zone)
		if err != nil || zone == "Local" {
			return nil, badExpression("there is no time zone %", zone)
		}
		place = z
	}
	m := expressionForm.FindStringSubmatch(text)
	if m == nil {
		s := when.Schedule{Cron: text, Timezone: zone}
		if len(strings.Fields(text)) != 5 {
			return nil, badExpression("% is neither rate(…), cron(…) nor at(…)", text)
		}
		if _, err := s.Next(time.UnixMilli(began), time.UnixMilli(began)); err != nil {
			return nil, badExpression("% is no schedule", text)
		}
		t.next = func(after time.Time) time.Time {
			n, err := s.Next(time.UnixMilli(began), after)
			if err != nil {
				return time.Time{}
			}
			return n
		}
		return t, nil
	}
	switch m[1] {
	case "rate":
		count, unit, _ := strings.Cut(m[2], " ")
		n, err := strconv.Atoi(count)
		each, ok := map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}[strings.TrimSuffix(strings.TrimSpace(unit), "s")]
		if err != nil || !ok || n < 1 || n > 1_000_000 || (n == 1) == strings.HasSuffix(unit, "s") {
			return nil, badExpression("% is no rate: rate(1 hour), rate(5 minutes)", text)
		}
		t.rate = time.Duration(n) * each
		if t.rate/each != time.Duration(n) {
			return nil, badExpression("% is too long", text)
		}
		s := when.Schedule{Rate: t.rate}
		t.next = func(after time.Time) time.Time {
			n, _ := s.Next(time.UnixMilli(began), after)
			return n
		}
	case "at":
		var at time.Time
		var err error
		for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04"} {
			if at, err = time.ParseInLocation(layout, m[2], place); err == nil {
				break
			}
		}
		if err != nil {
			return nil, badExpression("% is no moment: at(2026-12-24T08:00:00)", text)
		}
		t.next = func(after time.Time) time.Time {
			if at.After(after) {
				return at
			}
			return time.Time{}
		}
	case "cron":
		c, err := readCron(m[2])
		if err != nil {
			return nil, err
		}
		t.next = func(after time.Time) time.Time { return c.next(after, place) }
	}
	return t, nil
}

// due is the latest moment by now at which the timer asked, after last; zero: it did not.
func (t *timer) due(last, now time.Time) (tick time.Time) {
	if t.rate > 0 {
		began := time.UnixMilli(t.began)
		if tick = began.Add(now.Sub(began) / t.rate * t.rate); !tick.After(last) || tick.After(now) || !tick.After(began) {
			return time.Time{}
		}
		return tick
	}
	for range 100_000 {
		n := t.next(last)
		if n.IsZero() || n.After(now) {
			break
		}
		tick, last = n, n
	}
	return tick
}

// cron is EventBridge's: minute, hour, day of month, month, day of week and year.
type cron struct {
	minutes, hours, months, years []int // sorted
	days                          func(year int, month time.Month, day int) bool
}

const firstYear, lastYear = 1970, 2199

func readCron(text string) (*cron, error) {
	f := strings.Fields(strings.ToUpper(text))
	if len(f) != 6 {
		return nil, badExpression("cron(%) has not six fields: minutes hours day-of-month month day-of-week year", text)
	}
	if (f[2] == "?") == (f[4] == "?") {
		return nil, badExpression("cron(%): exactly one of day-of-month and day-of-week is ?", text)
	}
	c := &cron{}
	var err error
	read := func(s string, low, high int, names []string) []int {
		out, e := cronField(s, low, high, names)
		if e != nil {
			err = badExpression("cron(%): % is not from "+strconv.Itoa(low)+" to "+strconv.Itoa(high), text, s)
		}
		return out
	}
	c.minutes, c.hours = read(f[0], 0, 59, nil), read(f[1], 0, 23, nil)
	c.months = read(f[3], 1, 12, []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"})
	c.years = read(f[5], firstYear, lastYear, nil)
	weekdays := []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}
	lastDay := func(y int, m time.Month) int { return time.Date(y, m+1, 0, 0, 0, 0, 0, time.UTC).Day() }
	weekday := func(y int, m time.Month, d int) int {
		return int(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Weekday()) + 1
	}
	nearest := func(y int, m time.Month, d int) int { // the weekday by a day, in its month
		last := lastDay(y, m)
		if d > last {
			return 0
		}
		switch weekday(y, m, d) {
		case 7:
			if d == 1 {
				return 3
			}
			return d - 1
		case 1:
			if d == last {
				return d - 2
			}
			return d + 1
		}
		return d
	}
	switch dom, dow := f[2], f[4]; {
	case dow == "?" && dom == "L":
		c.days = func(y int, m time.Month, d int) bool { return d == lastDay(y, m) }
	case dow == "?" && dom == "LW":
		c.days = func(y int, m time.Month, d int) bool { return d == nearest(y, m, lastDay(y, m)) }
	case dow == "?" && strings.HasSuffix(dom, "W"):
		n := read(strings.TrimSuffix(dom, "W"), 1, 31, nil)
		if err == nil && len(n) != 1 {
			err = badExpression("cron(%): W stands after one day", text)
		}
		c.days = func(y int, m time.Month, d int) bool { return d == nearest(y, m, n[0]) }
	case dow == "?":
		n := read(dom, 1, 31, nil)
		c.days = func(_ int, _ time.Month, d int) bool { return slices.Contains(n, d) }
	case dow == "L":
		c.days = func(y int, m time.Month, d int) bool { return weekday(y, m, d) == 7 }
	case strings.HasSuffix(dow, "L"):
		n := read(strings.TrimSuffix(dow, "L"), 1, 7, weekdays)
		c.days = func(y int, m time.Month, d int) bool {
			return slices.Contains(n, weekday(y, m, d)) && d+7 > lastDay(y, m)
		}
	case strings.Contains(dow, "#"):
		day, nth, _ := strings.Cut(dow, "#")
		n, k := read(day, 1, 7, weekdays), read(nth, 1, 5, nil)
		c.days = func(y int, m time.Month, d int) bool {
			return slices.Contains(n, weekday(y, m, d)) && slices.Contains(k, (d-1)/7+1)
		}
	default:
		n := read(dow, 1, 7, weekdays)
		c.days = func(y int, m time.Month, d int) bool { return slices.Contains(n, weekday(y, m, d)) }
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// cronField reads lists, ranges and steps.
func cronField(s string, low, high int, names []string) ([]int, error) {
	value := func(s string) (int, error) {
		if i := slices.Index(names, s); i >= 0 {
			return i + low, nil
		}
		n, err := strconv.Atoi(s)
		if err == nil && (n < low || n > high) {
			err = strconv.ErrRange
		}
		return n, err
	}
	var out []int
	for part := range strings.SplitSeq(s, ",") {
		body, by, stepped := strings.Cut(part, "/")
		from, to, ranged := strings.Cut(body, "-")
		first, last, step := low, high, 1
		var err error
		if body != "*" {
			if first, err = value(from); err != nil {
				return nil, err
			}
			if last = first; ranged {
				if last, err = value(to); err != nil {
					return nil, err
				}
			} else if stepped {
				last = high
			}
		}
		if stepped {
			if step, err = strconv.Atoi(by); err != nil || step < 1 || step > high {
				return nil, strconv.ErrRange
			}
		}
		if last < first && names != nil { // FRI-MON
			last += high - low + 1
		}
		if last < first {
			return nil, strconv.ErrRange
		}
		for n := first; n <= last; n += step {
			out = append(out, (n-low)%(high-low+1)+low)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// next is the first moment after t, zero when there is none. Times that the zone's clocks skip are skipped;
// of one that comes twice it is the first.
func (c *cron) next(t time.Time, zone *time.Location) time.Time {
	local := t.In(zone)
	day := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC)
	for day.Year() <= lastYear {
		y, m, d := day.Date()
		switch {
		case !slices.Contains(c.years, y):
			i, _ := slices.BinarySearch(c.years, y)
			if i == len(c.years) {
				return time.Time{}
			}
			day = time.Date(c.years[i], 1, 1, 0, 0, 0, 0, time.UTC)
			continue
		case !slices.Contains(c.months, int(m)):
			day = time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC)
			continue
		case c.days(y, m, d):
			for _, h := range c.hours {
				for _, minute := range c.minutes {
					at := time.Date(y, m, d, h, minute, 0, 0, zone)
					if at.Hour() != h || at.Minute() != minute {
						continue
					}
					for _, shift := range []time.Duration{time.Hour, 30 * time.Minute} {
						if first := at.Add(-shift); first.Hour() == h && first.Minute() == minute {
							at = first
						}
					}
					if at.After(t) {
						return at
					}
				}
			}
		}
		day = day.AddDate(0, 0, 1)
		if day.Year() > t.Year()+40 && len(c.years) > 100 { // the 30th of February
			return time.Time{}
		}
	}
	return time.Time{}
}
