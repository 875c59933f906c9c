package manifest

import (
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones are the same on a machine without zone files

	"github.com/adhocore/gronx"
	"go.yaml.in/yaml/v3"

	"tenfold"
	"tenfold/internal/lazy"
)

var (
	rateText = lazy.Regexp(`^rate\(\s*([0-9]{1,6})\s+(minute|minutes|hour|hours|day|days)\s*\)$`)
	atText   = lazy.Regexp(`^at\(\s*([0-9T:-]+)\s*\)$`)
	call     = lazy.Regexp(`^([a-z]+)\((.*)\)$`)
)

const scheduleHint = `write "0 6 * * *", rate(5 minutes), "cron(0 6 * * ? *)", at(2026-12-24T08:00) or first-deploy`

// readSchedule reads any of the schedule's spellings; zone is what at() is meant in.
func readSchedule(r *reporter, n *yaml.Node, path string, zone *time.Location) (tenfold.Schedule, bool) {
	s := strings.TrimSpace(n.Value)
	bad := func(hint, format string, args ...any) (tenfold.Schedule, bool) {
		r.at(n, hint, path+": "+format, args...)
		return tenfold.Schedule{}, false
	}
	if s == "first-deploy" {
		return tenfold.Schedule{FirstDeploy: true}, true
	}
	if m := call.FindStringSubmatch(s); m != nil {
		switch m[1] {
		case "rate":
			v := rateText.FindStringSubmatch(s)
			if v == nil {
				return bad("write rate(5 minutes), rate(1 hour) or rate(1 day)", "%q is not a rate", cut(s, 60))
			}
			i, _ := strconv.Atoi(v[1])
			d := time.Duration(i) * map[string]time.Duration{"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[v[2][:1]]
			if d < time.Minute || d > maxDuration {
				return bad("from rate(1 minute) to rate(3650 days)", "%q is out of bounds", cut(s, 60))
			}
			return tenfold.Schedule{Rate: d}, true
		case "at":
			v := atText.FindStringSubmatch(s)
			if v != nil {
				for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04"} {
					if t, err := time.ParseInLocation(layout, v[1], zone); err == nil {
						return tenfold.Schedule{At: t.UTC()}, true
					}
				}
			}
			return bad("write at(2026-12-24T08:00)", "%q is not a date and time", cut(s, 60))
		case "cron":
			return readEventBridge(r, n, path, m[2])
		}
		return bad(scheduleHint, "%q is not a schedule", cut(s, 60))
	}
	if msg, hint := checkCron(s); msg != "" {
		return bad(hint, "%s", msg)
	}
	return tenfold.Schedule{Cron: strings.Join(strings.Fields(s), " ")}, true
}

// A cronField is one of five; its bounds are inclusive. Names count from low.
type cronField struct {
	name      string
	low, high int
	names     []string
}

var cronFields = []cronField{
	{"minute", 0, 59, nil},
	{"hour", 0, 23, nil},
	{"day of month", 1, 31, nil},
	{"month", 1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{"day of week", 0, 7, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
}

// checkCron says what is wrong with a cron line of five fields, "" when nothing is. Fields are
// checked here first because gronx says only that a line is bad, not where.
func checkCron(s string) (msg, hint string) {
	if strings.HasPrefix(s, "@") {
		return "\"" + cut(s, 40) + "\" is not a schedule", "write \"0 0 * * *\" for daily, \"0 * * * *\" for hourly"
	}
	f := strings.Fields(s)
	if len(f) != len(cronFields) {
		return "\"" + cut(s, 60) + "\" is not a schedule: cron has 5 fields, this has " + itoa(len(f)), scheduleHint
	}
	for i, c := range cronFields {
		if why := c.check(f[i]); why != "" {
			return "\"" + cut(s, 60) + "\": " + c.name + " \"" + cut(f[i], 20) + "\": " + why, c.name + " takes * or " + itoa(c.low) + "-" + itoa(c.high) + ", lists and steps: */5, 1-3, 1,15"
		}
	}
	if !gronx.IsValid(strings.Join(f, " ")) {
		return "\"" + cut(s, 60) + "\" is not a schedule", scheduleHint
	}
	return "", ""
}

func (c cronField) check(s string) string {
	for part := range strings.SplitSeq(s, ",") {
		body, step, stepped := strings.Cut(part, "/")
		if stepped {
			if n, err := strconv.Atoi(step); err != nil || n < 1 || n > c.high {
				return "the step is not a number in bounds"
			}
		}
		if body == "*" {
			continue
		}
		from, to, ranged := strings.Cut(body, "-")
		low, ok := c.value(from)
		high := low
		if ok && ranged {
			high, ok = c.value(to)
		}
		switch {
		case !ok:
			return "not a number in bounds"
		case low > high:
			return "the range runs backwards"
		}
	}
	return ""
}

func (c cronField) value(s string) (int, bool) {
	if i := slices.Index(c.names, strings.ToLower(s)); i >= 0 {
		return i + c.low, true
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && len(s) <= 2 && n >= c.low && n <= c.high
}

// readEventBridge converts cron(minute hour day month weekday year) to five fields. EventBridge
// counts weekdays from Sunday = 1 and has L, W and # which five fields cannot say.
func readEventBridge(r *reporter, n *yaml.Node, path, body string) (tenfold.Schedule, bool) {
	bad := func(hint, format string, args ...any) (tenfold.Schedule, bool) {
		r.at(n, hint, path+": "+format, args...)
		return tenfold.Schedule{}, false
	}
	f := strings.Fields(body)
	if len(f) != 6 {
		return bad(`write "cron(0 6 * * ? *)"`, "cron(…) of EventBridge has 6 fields, this has %d", len(f))
	}
	switch {
	case f[5] != "*":
		return bad("write * for the year, or at(…) for one moment", "cron(…): a year is not carried")
	case strings.ContainsAny(strings.ToUpper(f[2]), "LW") || strings.ContainsAny(f[4], "#") || strings.HasSuffix(strings.ToUpper(f[4]), "L"):
		return bad("write days as numbers or names", "cron(…): L, W and # are not carried")
	case (f[2] == "?") == (f[4] == "?"):
		return bad(`write "cron(0 6 * * ? *)"`, "cron(…): exactly one of day of month and day of week is ?")
	}
	for _, i := range []int{2, 4} {
		if f[i] == "?" {
			f[i] = "*"
		}
	}
	days, ok := weekdays(f[4])
	if !ok {
		return bad("days are 1-7 (Sunday is 1) or SUN-SAT", "cron(…): day of week %q is not known", cut(f[4], 20))
	}
	f[4] = days
	if msg, hint := checkCron(strings.Join(f[:5], " ")); msg != "" {
		return bad(hint, "%s", msg)
	}
	return tenfold.Schedule{Cron: strings.Join(f[:5], " ")}, true
}

// weekdays turns 1-7 from Sunday into 0-6.
func weekdays(s string) (string, bool) {
	parts := strings.Split(s, ",")
	for i, p := range parts {
		body, step, stepped := strings.Cut(p, "/")
		ends := strings.Split(body, "-")
		for j, e := range ends {
			if n, err := strconv.Atoi(e); err == nil {
				if n < 1 || n > 7 {
					return "", false
				}
				ends[j] = itoa(n - 1)
			}
		}
		parts[i] = strings.Join(ends, "-")
		if stepped {
			parts[i] += "/" + step
		}
	}
	return strings.Join(parts, ","), true
}
