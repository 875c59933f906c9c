package manifest

import (
	"slices"
	"strconv"

	"tenfold"
	"tenfold/internal/lazy"
)

var latencyText = lazy.Regexp(`^p([0-9]{1,2}(?:\.[0-9]+)?)\s*<\s*([0-9.]+[a-z]+)$`)

// scale reads how many tasks a service has, and by what that moves.
func (b *builder) scale(t *tree) (tenfold.Bounds, *tenfold.Scaling) {
	s := t.get("scale")
	out := tenfold.Bounds{Min: b.count(s, "min", 1, 0, maxTasks)}
	out.Max = b.count(s, "max", max(out.Min, 1), 0, maxTasks)
	if out.Min > out.Max {
		b.reporter.at(s.place(), "write the smaller number first", "%s: min %d is above max %d", s.path, out.Min, out.Max)
	}
	if out.Max == 0 {
		b.reporter.at(s.place(), "write scale: 1, or 0-1 to let it sleep while nothing comes", "%s: a service of no tasks never answers", s.path)
	}
	if s == nil {
		return out, nil
	}
	g := tenfold.Scaling{
		Concurrency: float64(b.count(s, "concurrency", 0, 1, 100_000)), RPS: float64(b.count(s, "rps", 0, 1, 10_000_000)),
		Schedule: b.timed(s, maxTasks),
	}
	if f, ok := value(s, "cpu"); ok {
		g.CPU, _ = readShare(b.reporter, f.node, f.path)
	}
	if f, ok := value(s, "predict"); ok {
		g.Predict, _ = readBool(b.reporter, f.node, f.path)
	}
	b.latency(s, &g)
	g.Backlog = b.backlog(s)
	if out.Min == out.Max && len(g.Schedule) == 0 && (g.Concurrency > 0 || g.RPS > 0 || g.CPU > 0 || g.Latency > 0 || g.Predict || len(g.Backlog) > 0) {
		b.reporter.at(s.place(), "write max: "+itoa(max(2, 4*out.Max))+" beside it", "%s: targets move the number of tasks, but min and max are both %d", s.path, out.Min)
	}
	if g.Concurrency == 0 && g.RPS == 0 && g.CPU == 0 && g.Latency == 0 && !g.Predict && len(g.Schedule) == 0 && len(g.Backlog) == 0 {
		return out, nil
	}
	if _, said := value(s, "min"); !said && len(g.Schedule) > 0 { // what stands in the schedule is all there is
		if _, said := value(s, "max"); !said {
			out = g.Schedule[0].Bounds
		}
	}
	return out, &g
}

// latency reads "p95<250ms".
func (b *builder) latency(s *tree, g *tenfold.Scaling) {
	f, ok := value(s, "latency")
	if !ok {
		return
	}
	m := latencyText.FindStringSubmatch(f.node.Value)
	if m == nil {
		b.reporter.at(f.node, "write a percentile and a time: p95<250ms", "%s: %q is no target", f.path, cut(f.node.Value, 40))
		return
	}
	node := *f.node
	node.Value = m[2]
	percent, err := strconv.ParseFloat(m[1], 64)
	if d, ok := readDuration(b.reporter, &node, f.path); ok && err == nil {
		g.Latency, g.Quantile = d, percent/100
	}
	if percent < 50 || g.Latency == 0 {
		b.reporter.at(f.node, "write p50 to p99.9 and a time: p95<250ms", "%s: %q is no target", f.path, cut(f.node.Value, 40))
	}
}

// backlog reads which queues a service is scaled by.
func (b *builder) backlog(s *tree) (out []tenfold.Backlog) {
	from := s.get("backlog")
	if from == nil || from.off {
		return nil
	}
	for _, name := range sortedKeys(from.fields) {
		e := from.fields[name]
		if e.off {
			continue
		}
		switch kind, known := b.kinds[name]; {
		case !known:
			b.reporter.at(e.place(), didYouMean(name, sortedKeys(b.kinds)), "%s: nothing is called %q", from.path, cut(name, 60))
		case kind != tenfold.KindQueue:
			b.reporter.at(e.place(), "name a queue", "%s: nothing waits in a %s", from.path, kind)
		default:
			out = append(out, tenfold.Backlog{Queue: b.app.ID(kind, tenfold.Name(name)), Messages: b.count(e, "messages", 10, 1, 1_000_000), Age: b.duration(e, "age", 0)})
		}
	}
	return out
}

// canWake refuses a service that may sleep and that no request reaches: nobody would wake it.
func (b *builder) canWake() {
	for name, w := range b.app.Services {
		if !w.Sleeps() || len(w.Routes) > 0 || b.called(name) || w.Scaling != nil && len(w.Scaling.Backlog) > 0 {
			continue
		}
		t := b.top.get("services").get(string(name))
		b.reporter.at(t.get("scale").place(), "write scale: 1-"+itoa(max(2, w.Scale.Max))+", or give it routes, or a queue that wakes it: scale: {backlog: emails}", "%s: nobody would wake it: no route leads to it and nothing uses it", t.get("scale").path)
	}
}

func (b *builder) called(name tenfold.Name) bool {
	uses := func(bs []tenfold.Binding) bool {
		return slices.ContainsFunc(bs, func(x tenfold.Binding) bool { return x.From.Kind == tenfold.KindService && x.From.Name == name })
	}
	for _, w := range b.app.Services {
		if uses(w.Bindings) {
			return true
		}
	}
	for _, f := range b.app.Functions {
		if uses(f.Bindings) {
			return true
		}
	}
	for _, f := range b.app.Frontends {
		if f.Server != nil && uses(f.Server.Bindings) {
			return true
		}
	}
	return false
}
