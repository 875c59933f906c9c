package manifest

import (
	"slices"
	"strings"
	"time"

	"tenfold"
)

func (b *builder) jobs() {
	var services []string
	b.each("services", func(n tenfold.Name, _ *tree) { services = append(services, string(n)) })
	b.each("jobs", func(n tenfold.Name, t *tree) {
		j := tenfold.Job{
			Command: b.command(t, "command"), Env: b.env(t), Line: t.line(),
			Overlap: b.word(t, "overlap", "forbid", []string{"forbid", "allow", "replace"}),
			Missed:  b.word(t, "missed", "once", []string{"once", "skip"}),
			Retries: b.count(t, "retries", 0, 0, 100), Timeout: b.duration(t, "timeout", time.Hour),
		}
		switch f, ok := value(t, "service"); {
		case ok && !slices.Contains(services, f.node.Value):
			b.reporter.at(f.node, didYouMean(f.node.Value, services), "%s: no service %q", f.path, cut(f.node.Value, 60))
		case ok:
			j.Service = tenfold.Name(f.node.Value)
		case len(services) == 1:
			j.Service = tenfold.Name(services[0])
		default:
			b.reporter.at(t.place(), "add service: <name>; services here: "+strings.Join(services, ", "), "%s names no service whose build and variables it runs with", t.path)
		}
		if j.Command.IsZero() {
			if _, ok := value(t, "command"); !ok {
				b.reporter.at(t.place(), "add command: ./api digest", "%s has no command", t.path)
			}
		}
		j.Schedule = b.schedule(t)
		if b.app.Jobs == nil {
			b.app.Jobs = map[tenfold.Name]tenfold.Job{}
		}
		b.app.Jobs[n] = j
	})
}

func (b *builder) schedule(t *tree) tenfold.Schedule {
	zone, name := time.UTC, ""
	if f, ok := value(t, "timezone"); ok {
		z, err := time.LoadLocation(f.node.Value)
		if err != nil || f.node.Value == "Local" {
			b.reporter.at(f.node, "write a zone such as Europe/Rome or UTC", "%s: no timezone %q", f.path, cut(f.node.Value, 60))
			return tenfold.Schedule{}
		}
		zone, name = z, f.node.Value
	}
	f, ok := value(t, "schedule")
	if !ok {
		return tenfold.Schedule{}
	}
	s, _ := readSchedule(b.reporter, f.node, f.path, zone)
	s.Timezone = name
	return s
}
