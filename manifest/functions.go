package manifest

import (
	"time"

	"tenfold"
)

// maxEnvironments bounds how many environments a function may have on one machine.
const maxEnvironments = 1000

func functionKeys() []key {
	return keys(codeKeys(), []key{
		{name: "build", form: fMap, main: "command", off: true, deflt: "detected", doc: "How the package is made; false: not at all.", keys: append(buildKeys(false), later("container images", "dockerfile")...)},
		{name: "handler", form: fText, deflt: "detected", doc: "What is called, for Node and Python: file.function."},
		{name: "command", form: fCommand, deflt: "detected; bootstrap", doc: "The program of another language: it speaks Lambda's Runtime API, as those do that are built with AWS' libraries."},
		{name: "routes", form: fRoutes, off: true, deflt: "none", doc: "URLs that call it, with API Gateway's payload 2.0."},
		{name: "event", form: fWord, words: []string{"http", "alb"}, deflt: "http", doc: "Form of the events of its routes: API Gateway's payload 2.0, or that of a load balancer's target."},
		{name: "schedule", form: fSchedule, off: true, deflt: "none", doc: "When it is called with EventBridge's scheduled event: cron, rate(1 hour), cron(…), at(2026-12-24T08:00)."},
		{name: "timezone", form: fText, deflt: "UTC", doc: "Zone of cron and at, for example Europe/Rome."},
		{name: "to", form: fText, deflt: "nobody", doc: "A function that is told what came of each asynchronous event."},
		{name: "dead", form: fText, deflt: "nobody", doc: "A function that gets events that were given up on."},
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
		{name: "uses", form: fUses, doc: "Databases, caches, queues, services, functions and secrets that it may use."},
		logsKey(),
		isolationKey(),
	}, later("container images", "image"), later("event sources", "from"))
}

func (b *builder) functions() {
	b.each("functions", func(n tenfold.Name, t *tree) {
		size, scale := t.get("size"), t.get("scale")
		f := tenfold.Function{
			Source: tenfold.Source{Path: b.path(t, "path")}, Build: b.build(t), Command: b.command(t, "command"), Env: b.env(t), Line: t.line(),
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

// another is the function that a key names.
func (b *builder) another(t *tree, name string, self tenfold.Name) *tenfold.ID {
	v, ok := value(t, name)
	if !ok {
		return nil
	}
	kind, known := b.kinds[v.node.Value]
	switch {
	case !known:
		b.reporter.at(v.node, didYouMean(v.node.Value, sortedKeys(b.kinds)), "%s: nothing is called %q", v.path, cut(v.node.Value, 60))
	case kind != tenfold.KindFunction:
		b.reporter.at(v.node, "name a function", "%s: a %s takes no events", v.path, kind)
	case v.node.Value == string(self):
		b.reporter.at(v.node, "name another function", "%s: %s would be told of itself, without end", v.path, self)
	default:
		id := b.app.ID(kind, tenfold.Name(v.node.Value))
		return &id
	}
	return nil
}
