package manifest

import (
	"slices"
	"time"

	"tenfold"
)

// maxEnvironments bounds how many environments a function may have on one machine.
const maxEnvironments = 1000

func functionKeys() []key {
	return keys(codeKeys(), []key{
		{name: "build", form: fMap, main: "command", off: true, deflt: "detected", doc: "How the package is made; false: not at all.", keys: append(buildKeys(false), dockerfileKey())},
		imageKey(),
		{name: "handler", form: fText, deflt: "detected", doc: "What is called, for Node and Python: file.function."},
		{name: "command", form: fCommand, deflt: "detected; bootstrap; the image's own", doc: "The program of another language: it speaks Lambda's Runtime API, as those do that are built with AWS' libraries."},
		{name: "routes", form: fRoutes, off: true, deflt: "none", doc: "URLs that call it, with API Gateway's payload 2.0."},
		{name: "event", form: fWord, words: []string{"http", "alb"}, deflt: "http", doc: "Form of the events of its routes: API Gateway's payload 2.0, or that of a load balancer's target."},
		{name: "schedule", form: fSchedule, off: true, deflt: "none", doc: "When it is called with EventBridge's scheduled event: cron, rate(1 hour), cron(…), at(2026-12-24T08:00)."},
		{name: "timezone", form: fText, deflt: "UTC", doc: "Zone of cron and at, for example Europe/Rome."},
		{name: "from", form: fNamed, off: true, deflt: "nothing", doc: "Queues and tables whose records it is called with, in batches. docs/functions.md.", keys: sourceKeys()},
		{name: "to", form: fText, deflt: "nobody", doc: "A function, queue or bus that is told what came of each asynchronous event."},
		{name: "dead", form: fText, deflt: "nobody", doc: "A queue, function or bus that is told of events that were given up on; a queue is made where it does not stand here."},
		{name: "retries", form: fCount, deflt: "2", doc: "After an asynchronous event failed."},
		{name: "age", form: fDuration, deflt: "6h", doc: "No try of an older asynchronous event."},
		{name: "timeout", form: fDuration, deflt: "30s", doc: "Of one call; 15m at most."},
		{name: "size", form: fMap, main: "memory", deflt: "256mb", doc: "Limits of one environment.", keys: []key{
			{name: "memory", form: fSize, deflt: "256mb", doc: "Memory."},
			{name: "cpu", form: fCPU, deflt: "no limit", doc: "Cores, for example 0.5."},
		}},
		{name: "scale", form: fMap, main: rangeKey, deflt: "0-50", doc: "Number of environments: the lower bound is kept warm.", keys: []key{
			{name: "min", form: fCount, deflt: "0", doc: "Environments that are kept warm."},
			{name: "max", form: fCount, deflt: "50", doc: "Most environments: calls beyond are answered 429."},
			{name: "concurrency", form: fCount, deflt: "1", doc: "Calls in one process at once (AWS_LAMBDA_MAX_CONCURRENCY)."},
		}},
		{name: "env", form: fEnv, doc: "Variables, as text."},
		{name: "uses", form: fUses, doc: "Databases, caches, queues, tables, buses, buckets, series, services, functions and secrets that it may use."},
		logsKey(),
		isolationKey(),
	})
}

// sourceKeys are those of one entry of from.
func sourceKeys() []key {
	return []key{
		{name: "match", form: fAny, deflt: "all", doc: "Which records it is called with, in EventBridge's pattern language: {body: {kind: [order]}} of a queue, {eventName: [INSERT]} of a table. The others are passed over, and are gone from a queue."},
		{name: "batch", form: fCount, deflt: "10; of a table 100", doc: "Most records of one call, up to 10000; of a queue in order 10."},
		{name: "wait", form: fDuration, deflt: "0s; 1s where batch is above 10", doc: "How long it is waited for a full batch; 5m at most."},
		{name: "parallel", form: fCount, deflt: "what scale allows; of a table 1", doc: "Most calls at once; of a table in each shard, up to 10, and those of one key are never side by side."},
		{name: "start", form: fWord, words: starts, deflt: "latest", doc: "Of a table: whether it begins with what comes, or with what is there."},
		{name: "bisect", form: fBool, deflt: "false", doc: "Of a table: a batch that fails is halved, so that one bad record does not stop the others."},
		{name: "retries", form: fCount, deflt: "until age", doc: "Of a table: how often a batch is tried again. A queue has its own."},
		{name: "age", form: fDuration, deflt: "as long as the table keeps them: 24h", doc: "Of a table: records that are older are given up on."},
	}
}

func (b *builder) functions() {
	b.each("functions", func(n tenfold.Name, t *tree) {
		size, scale := t.get("size"), t.get("scale")
		f := tenfold.Function{
			Source: tenfold.Source{Path: b.path(t, "path")}, Build: b.build(t), Image: b.image(t), Command: b.command(t, "command"), Env: b.env(t), Line: t.line(),
			Event: b.word(t, "event", "http", []string{"http", "alb"}), Retries: b.count(t, "retries", 2, 0, 100), Age: b.duration(t, "age", 6*time.Hour),
			Timeout: b.duration(t, "timeout", 30*time.Second), Size: tenfold.Size{Memory: b.size(size, "memory", 256<<20)},
			Concurrency: b.count(scale, "concurrency", 1, 1, 1000),
			Logs:        b.logs(t),
			Isolation:   b.word(t, "isolation", "", isolations),
		}
		if v, ok := value(size, "cpu"); ok {
			f.Size.CPU, _ = readCPU(b.reporter, v.node, v.path)
		}
		if v, ok := value(t, "handler"); ok {
			f.Handler = v.node.Value
			if f.Contained() {
				b.reporter.at(v.node, "remove it; write CMD into the Dockerfile, or command", "%s: an image says itself what is called", v.path)
			}
		}
		if v, ok := value(t, "timeout"); ok && (f.Timeout > 15*time.Minute || f.Timeout < time.Second) {
			b.reporter.at(v.node, "write 1s to 15m; longer work is a job's", "%s: a call takes 1s to 15m, not %s", v.path, f.Timeout)
		}
		f.Scale = tenfold.Bounds{Min: b.count(scale, "min", 0, 0, maxEnvironments)}
		f.Scale.Max = b.count(scale, "max", max(f.Scale.Min, 50), 1, maxEnvironments)
		if f.Scale.Min > f.Scale.Max {
			b.reporter.at(scale.place(), "write the smaller number first", "%s: min %d is above max %d", scale.path, f.Scale.Min, f.Scale.Max)
		}
		if r, ok := value(t, "routes"); ok {
			f.Routes = b.claim("function "+string(n), r)
		}
		f.Schedule = b.schedule(t)
		if f.Schedule.FirstDeploy {
			v, _ := value(t, "schedule")
			b.reporter.at(v.node, "make it a job: jobs: {"+string(n)+": {schedule: first-deploy}}", "%s: a function is not called by a deploy", v.path)
		}
		f.To, f.Dead = b.another(t, "to", n), b.another(t, "dead", n)
		f.Bindings, f.Uses = b.uses(t, f.Env, tenfold.KindFunction, n)
		if b.app.Functions == nil {
			b.app.Functions = map[tenfold.Name]tenfold.Function{}
		}
		b.app.Functions[n] = f
	})
}

// another is what a key names that is told of events.
func (b *builder) another(t *tree, name string, self tenfold.Name) *tenfold.ID {
	v, ok := value(t, name)
	if !ok {
		return nil
	}
	kind, known := b.kinds[v.node.Value]
	switch {
	case !known:
		b.reporter.at(v.node, didYouMean(v.node.Value, sortedKeys(b.kinds)), "%s: nothing is called %q", v.path, cut(v.node.Value, 60))
	case kind != tenfold.KindFunction && kind != tenfold.KindQueue && kind != tenfold.KindBus:
		b.reporter.at(v.node, "name a queue, a function or a bus", "%s: a %s takes no events", v.path, kind)
	case v.node.Value == string(self):
		b.reporter.at(v.node, "name another function", "%s: %s would be told of itself, without end", v.path, self)
	default:
		id := b.app.ID(kind, tenfold.Name(v.node.Value))
		return &id
	}
	return nil
}

// maxBatch and maxWindow are Lambda's bounds of an event source; a queue in order gives batches of ten.
const (
	maxBatch, maxOrderedBatch = 10_000, 10
	maxWindow                 = 5 * time.Minute
	// maxLanes is how many calls of one shard may be under way.
	maxLanes = 10
)

// starts are where the reading of a stream may begin.
var starts = []string{"latest", "oldest"}

// sources reads where functions get their events from, once it is known what queues are like.
func (b *builder) sources() {
	b.each("functions", func(n tenfold.Name, t *tree) {
		f := b.app.Functions[n]
		for name, id := range map[string]*tenfold.ID{"to": f.To, "dead": f.Dead} {
			if id != nil && id.Kind == tenfold.KindQueue && b.app.Queues[id.Name].FIFO != nil {
				v, _ := value(t, name)
				b.reporter.at(v.node, "name one without fifo", "%s: what comes of events is in no order, and %s is a queue in order", v.path, id.Name)
			}
		}
		from := t.get("from")
		if from == nil || from.off {
			return
		}
		for _, name := range sortedKeys(from.fields) {
			e := from.fields[name]
			if e.off {
				continue
			}
			kind, known := b.kinds[name]
			switch {
			case !known:
				b.reporter.at(e.place(), didYouMean(name, sortedKeys(b.kinds)), "%s: nothing is called %q", from.path, cut(name, 60))
			case kind == tenfold.KindQueue:
				f.From = append(f.From, b.fromQueue(n, f, e, name))
			case kind == tenfold.KindTable:
				f.From = append(f.From, b.fromTable(e, name))
			default:
				b.reporter.at(e.place(), "name a queue or a table", "%s: a %s gives no events", from.path, kind)
			}
		}
		b.app.Functions[n] = f
	})
}

// fromQueue reads a queue as an event source.
func (b *builder) fromQueue(n tenfold.Name, f tenfold.Function, e *tree, name string) tenfold.EventSource {
	q, most := b.app.Queues[tenfold.Name(name)], maxBatch
	if q.FIFO != nil {
		most = maxOrderedBatch
	}
	room := min(f.Scale.Max*f.Concurrency, maxEnvironments)
	out := tenfold.EventSource{From: b.app.ID(tenfold.KindQueue, tenfold.Name(name)), Batch: b.count(e, "batch", 10, 1, most), Parallel: b.count(e, "parallel", room, 1, maxEnvironments)}
	out.Match = sourceMatch(e)
	if out.Batch > 10 {
		out.Wait = time.Second
	}
	if w, ok := b.batchWindow(e); ok {
		v, _ := value(e, "wait")
		switch {
		case q.FIFO != nil:
			b.reporter.at(v.node, "remove it", "%s: a queue in order gives what is there at once", v.path)
		case out.Batch > 10 && w < time.Second:
			b.reporter.at(v.node, "write 1s or more", "%s: more than 10 records come together in 1s at least", v.path)
		}
		out.Wait = w
	}
	if v, ok := value(e, "parallel"); ok && out.Parallel > room {
		b.reporter.at(v.node, "raise functions."+string(n)+".scale, or write at most "+itoa(room), "%s: %d calls at once are more than the %d that scale allows", v.path, out.Parallel, room)
	}
	for _, k := range []string{"start", "bisect", "retries", "age"} {
		if v := e.get(k); v != nil && !isNull(v.node) {
			hint := "remove it"
			if k == "retries" {
				hint = "write it at the queue: queues: {" + name + ": {retries: 3}}"
			}
			b.reporter.at(v.key, hint, "%s: that is for tables; %s is a queue", v.path, name)
		}
	}
	if q.Timeout < f.Timeout {
		b.reporter.at(e.place(), "write queues: {"+name+": {timeout: "+short(f.Timeout)+"}} or more, or a shorter timeout of the function", "%s: %s may work for %s, and after %s the queue gives its messages to another call", e.path, n, short(f.Timeout), short(q.Timeout))
	}
	return out
}

// fromTable reads a table's stream as an event source.
func (b *builder) fromTable(e *tree, name string) tenfold.EventSource {
	out := tenfold.EventSource{
		From: b.app.ID(tenfold.KindTable, tenfold.Name(name)), Batch: b.count(e, "batch", 100, 1, maxBatch), Parallel: b.count(e, "parallel", 1, 1, maxLanes),
		Start: b.word(e, "start", "latest", starts), Retries: b.count(e, "retries", -1, 0, 10_000), Age: b.duration(e, "age", 0),
	}
	out.Wait, _ = b.batchWindow(e)
	out.Match = sourceMatch(e)
	if f, ok := value(e, "bisect"); ok {
		out.Bisect, _ = readBool(b.reporter, f.node, f.path)
	}
	if b.app.Tables[tenfold.Name(name)].Stream == "" {
		b.reporter.at(e.place(), "write tables: {"+name+": {stream: new-and-old-images}}", "%s: the table %s has no stream", e.path, name)
	}
	return out
}

// sourceMatch reads which records of a source are taken.
func sourceMatch(e *tree) string {
	if f, ok := value(e, "match"); ok {
		return jsonOf(f.node)
	}
	return ""
}

// batchWindow reads how long it is waited for a batch.
func (b *builder) batchWindow(e *tree) (time.Duration, bool) {
	v, ok := value(e, "wait")
	if !ok {
		return 0, false
	}
	w := b.span(e, "wait", 0)
	if w > maxWindow {
		b.reporter.at(v.node, "write 5m or less", "%s: %s is longer than a batch is waited for", v.path, v.node.Value)
	}
	return w, true
}

// short writes a duration as the manifest does.
func short(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	for _, u := range []struct {
		d time.Duration
		s string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d >= u.d && d%u.d == 0 {
			return itoa(int(d/u.d)) + u.s
		}
	}
	return itoa(int(d/time.Millisecond)) + "ms"
}

// rings refuses functions that would tell each other what came of an event without end.
func (b *builder) rings() {
	next := func(n tenfold.Name) (out []tenfold.Name) {
		f := b.app.Functions[n]
		for _, id := range []*tenfold.ID{f.To, f.Dead} {
			if id != nil && id.Kind == tenfold.KindFunction {
				out = append(out, id.Name)
			}
		}
		return out
	}
	done := map[tenfold.Name]bool{}
	var trail []tenfold.Name
	var visit func(n tenfold.Name)
	visit = func(n tenfold.Name) {
		if i := slices.Index(trail, n); i >= 0 {
			last, words := trail[len(trail)-1], ""
			for _, x := range append(slices.Clone(trail[i:]), n) {
				words += " → " + string(x)
			}
			t := b.top.get("functions").get(string(last))
			at := t.get("to")
			if at == nil || at.node == nil || at.node.Value != string(n) {
				at = t.get("dead")
			}
			b.reporter.at(at.place(), "remove one of these to or dead", "functions tell each other in a circle, without end: %s", words[len(" → "):])
			return
		}
		if done[n] {
			return
		}
		trail = append(trail, n)
		for _, m := range next(n) {
			visit(m)
		}
		trail = trail[:len(trail)-1]
		done[n] = true
	}
	for _, n := range sortedKeys(b.app.Functions) {
		visit(n)
	}
}
