package manifest

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"tenfold"
)

func busKeys() []key {
	return []key{
		{name: "archive", form: fDuration, off: true, deflt: "none", doc: "For how long events are kept, so that they can be played again; whole days."},
		{name: "rules", form: fNamed, doc: "Which events go where, or when the bus has one by itself.", keys: []key{
			{name: "match", form: fAny, doc: "EventBridge's pattern: {detail-type: [order.paid], detail: {total: [{numeric: [\">\", 100]}]}}."},
			{name: "schedule", form: fSchedule, doc: "When an event comes by itself, in place of match."},
			{name: "timezone", form: fText, deflt: "UTC", doc: "Zone that the schedule is meant in."},
			{name: "window", form: fDuration, deflt: "0s", doc: "The scheduled event comes at a random moment of it; 24h at most."},
			{name: "to", form: fNamed, doc: "Queues, functions, jobs, other buses and addresses https://… that get the event.", keys: []key{
				{name: "secret", form: fText, deflt: "none", doc: "Of an address: a secret that it is told, as Authorization: Bearer."},
				{name: "header", form: fText, deflt: "Authorization", doc: "The header that has the secret, as it is."},
				{name: "basic", form: fText, deflt: "none", doc: "A user's name: the secret is its password."},
				{name: "rate", form: fRate, deflt: "300/s", doc: "How often the address is called at most."},
			}},
			{name: "input", form: fMap, main: "template", deflt: "the event", doc: "What targets get.", keys: []key{
				{name: "template", form: fText, doc: "Text with <name> where what stands at a path comes."},
				{name: "paths", form: fTexts, doc: "Paths by name: {id: $.detail.id}."},
			}},
			{name: "retries", form: fCount, deflt: "185", doc: "How often a delivery is tried again."},
			{name: "age", form: fDuration, deflt: "1d", doc: "For how long it is tried; 1m to 1d."},
			{name: "dead", form: fText, deflt: "none", doc: "Queue of what was given up on; it is made where it does not stand here."},
		}},
		{name: "from", form: fNamed, deflt: "none", doc: "Databases with a table whose new rows become events, in the order of their commits: an outbox.", keys: []key{
			{name: "table", form: fText, doc: "The table: outbox, or app.outbox in a schema."},
		}},
	}
}

// deadEvents declares the queues that rules and functions give up to and that stand nowhere.
func (b *builder) deadEvents() {
	b.eachRule(func(_ tenfold.Name, _ string, t *tree) {
		if f, ok := value(t, "dead"); ok {
			if kind, known := b.kinds[f.node.Value]; known && kind != tenfold.KindQueue {
				b.reporter.at(f.node, "name a queue", "%s: a %s takes no messages", f.path, kind)
			}
			b.makeDead(f)
		}
	})
	b.each("functions", func(_ tenfold.Name, t *tree) {
		if f, ok := value(t, "dead"); ok {
			b.makeDead(f)
		}
	})
}

// makeDead declares a queue of what was given up on, unless something is called so.
func (b *builder) makeDead(f *tree) {
	n := f.node.Value
	switch _, known := b.kinds[n]; {
	case known:
	case !kebabCase.MatchString(n) || len(n) > maxName:
		b.reporter.at(f.node, "write a queue's name, kebab-case with at most "+itoa(maxName)+" characters", "%s: %q is no name", f.path, cut(n, 60))
	default:
		b.kinds[n], b.at[n] = tenfold.KindQueue, f.place()
		b.deadMade = append(b.deadMade, tenfold.Name(n))
	}
}

func (b *builder) eachRule(f func(bus tenfold.Name, rule string, t *tree)) {
	b.each("events", func(n tenfold.Name, t *tree) {
		rules, ok := value(t, "rules")
		if !ok {
			return
		}
		for _, name := range rules.order {
			if e := rules.fields[name]; !e.off {
				f(n, name, e)
			}
		}
	})
}

func (b *builder) events() {
	for _, n := range b.deadMade {
		if b.app.Queues == nil {
			b.app.Queues = map[tenfold.Name]tenfold.Queue{}
		}
		b.app.Queues[n] = tenfold.Queue{Timeout: 30 * time.Second, Keep: 14 * day, Line: b.at[string(n)].Line}
	}
	b.each("events", func(n tenfold.Name, t *tree) {
		x := tenfold.Bus{Line: t.line()}
		if f, ok := value(t, "archive"); ok {
			if x.Archive = b.duration(t, "archive", 0); x.Archive%day != 0 || x.Archive < day {
				b.reporter.at(f.node, "write 30d", "%s: events are kept for whole days", f.path)
			}
		}
		b.outboxes(t, &x)
		if b.app.Events == nil {
			b.app.Events = map[tenfold.Name]tenfold.Bus{}
		}
		b.app.Events[n] = x
	})
	b.eachRule(func(n tenfold.Name, name string, t *tree) {
		x := b.app.Events[n]
		if x.Rules == nil {
			x.Rules = map[tenfold.Name]tenfold.BusRule{}
		}
		x.Rules[tenfold.Name(name)] = b.busRule(n, t)
		b.app.Events[n] = x
	})
}

// outboxes reads the tables whose rows become a bus' events.
func (b *builder) outboxes(t *tree, x *tenfold.Bus) {
	from, ok := value(t, "from")
	if !ok {
		return
	}
	for _, name := range from.order {
		e := from.fields[name]
		table := ""
		if f, ok := value(e, "table"); ok {
			table = f.node.Value
		}
		switch d, known := b.app.Databases[tenfold.Name(name)]; {
		case e.off:
			continue
		case !known:
			b.reporter.at(e.place(), "name one of databases", "%s: there is no database %s", e.path, name)
		case table == "":
			b.reporter.at(e.place(), "write {"+name+": {table: outbox}}", "%s: which table?", e.path)
		case !tableName(table):
			b.reporter.at(e.place(), "write outbox or app.outbox, as SQL has it without quotes", "%s: %q is no name of a table", e.path, cut(table, 60))
		case d.Settings["wal_level"] != "":
			b.reporter.at(e.place(), "leave out settings.wal_level of "+name, "%s: rows are read from the WAL, whose level is logical then", e.path)
		default:
			if x.From == nil {
				x.From = map[tenfold.Name]string{}
			}
			x.From[tenfold.Name(name)] = table
		}
	}
}

// tableName says whether s is table or schema.table, in letters that SQL takes without quotes.
func tableName(s string) bool {
	schema, table, ok := strings.Cut(s, ".")
	if !ok {
		schema, table = "public", s
	}
	for _, part := range []string{schema, table} {
		for i, c := range part {
			if !(c >= 'a' && c <= 'z' || c == '_' || i > 0 && c >= '0' && c <= '9') {
				return false
			}
		}
		if part == "" || len(part) > 63 {
			return false
		}
	}
	return true
}

func (b *builder) busRule(bus tenfold.Name, t *tree) tenfold.BusRule {
	r := tenfold.BusRule{Retries: b.count(t, "retries", 185, 0, 185), Age: b.duration(t, "age", day)}
	if f, ok := value(t, "age"); ok && (r.Age < time.Minute || r.Age > day) {
		b.reporter.at(f.node, "from 1m to 1d", "%s: %s is out of bounds", f.path, f.node.Value)
	}
	if f, ok := value(t, "dead"); ok {
		r.Dead = tenfold.Name(f.node.Value)
		if b.app.Queues[r.Dead].FIFO != nil {
			b.reporter.at(f.node, "name one without fifo", "%s: what is given up on is in no order, and %s is a queue in order", f.path, r.Dead)
		}
	}
	match, matches := value(t, "match")
	_, timed := value(t, "schedule")
	switch {
	case matches && timed:
		b.reporter.at(match.place(), "make them two rules", "%s: a rule takes events by match or has its own by schedule", t.path)
	case matches:
		r.Match = jsonOf(match.node)
	case timed:
		b.busSchedule(t, &r)
	default:
		b.reporter.at(t.place(), "write match: {detail-type: [order.paid]} or schedule: rate(1 hour)", "%s takes no events", t.path)
	}
	b.busInput(t, &r)
	to, ok := value(t, "to")
	if !ok || len(to.order) == 0 {
		b.reporter.at(t.place(), "write to: <a queue, a function, a job, a bus or https://…>", "%s goes nowhere", t.path)
		return r
	}
	names := slices.Clone(to.order)
	slices.Sort(names) // their order means nothing
	for _, name := range names {
		if e := to.fields[name]; !e.off {
			r.To = append(r.To, b.busTarget(bus, e, name))
		}
	}
	if len(r.To) > 5 {
		b.reporter.at(to.place(), "make another rule with the same match", "%s: a rule has up to 5 targets, as on AWS", to.path)
	}
	return r
}

func (b *builder) busSchedule(t *tree, r *tenfold.BusRule) {
	f, _ := value(t, "schedule")
	s := b.schedule(t)
	r.Timezone = s.Timezone
	switch {
	case s.FirstDeploy:
		b.reporter.at(f.node, "make it a job: jobs: {seed: {schedule: first-deploy}}", "%s: a deploy is no event", f.path)
	case s.Cron != "":
		r.Schedule = s.Cron
	case s.Rate > 0:
		r.Schedule = rateOf(s.Rate)
	case !s.At.IsZero():
		r.Schedule, r.Timezone = "at("+s.At.UTC().Format("2006-01-02T15:04:05")+")", ""
	}
	if r.Window = b.span(t, "window", 0); r.Window > 24*time.Hour {
		w, _ := value(t, "window")
		b.reporter.at(w.node, "write 24h or less", "%s: %s is out of bounds", w.path, w.node.Value)
	}
}

// rateOf writes a rate as EventBridge does: in the largest unit.
func rateOf(d time.Duration) string {
	n, unit := int64(d/time.Minute), "minute"
	switch {
	case d%(24*time.Hour) == 0:
		n, unit = int64(d/(24*time.Hour)), "day"
	case d%time.Hour == 0:
		n, unit = int64(d/time.Hour), "hour"
	}
	if n != 1 {
		unit += "s"
	}
	return "rate(" + strconv.FormatInt(n, 10) + " " + unit + ")"
}

func (b *builder) busInput(t *tree, r *tenfold.BusRule) {
	in, ok := value(t, "input")
	if !ok {
		return
	}
	if f, ok := value(in, "template"); ok {
		r.Template = f.node.Value
	} else {
		b.reporter.at(in.place(), "write {paths: {id: $.detail.id}, template: '{\"order\": <id>}'}", "%s has no template", in.path)
	}
	if f, ok := value(in, "paths"); ok {
		r.Paths = map[string]string{}
		for _, n := range f.order {
			p := f.fields[n]
			if !strings.HasPrefix(p.node.Value, "$") {
				b.reporter.at(p.node, "write $.detail.id", "%s: %q is no path", p.path, cut(p.node.Value, 60))
			}
			r.Paths[n] = p.node.Value
		}
	}
}

// busTarget reads where a rule's events go.
func (b *builder) busTarget(bus tenfold.Name, e *tree, name string) tenfold.BusTarget {
	if strings.Contains(name, "://") {
		return b.busURL(e, name)
	}
	for _, k := range []string{"secret", "header", "basic", "rate"} {
		if f, ok := value(e, k); ok {
			b.reporter.at(f.place(), "remove it", "%s: that is for an address; %s is none", f.path, name)
		}
	}
	kind, known := b.kinds[name]
	switch {
	case !known:
		b.reporter.at(e.place(), didYouMean(name, sortedKeys(b.kinds)), "%s: nothing is called %q", e.path, cut(name, 60))
	case kind == tenfold.KindBus && name == string(bus):
		b.reporter.at(e.place(), "name another", "%s: %s would have its own events back, without end", e.path, bus)
	case kind == tenfold.KindQueue, kind == tenfold.KindFunction, kind == tenfold.KindJob, kind == tenfold.KindBus:
	default:
		b.reporter.at(e.place(), "name a queue, a function, a job, a bus or an address", "%s: a %s takes no events", e.path, kind)
	}
	return tenfold.BusTarget{To: b.app.ID(kind, tenfold.Name(name))}
}

func (b *builder) busURL(e *tree, name string) tenfold.BusTarget {
	x := tenfold.BusTarget{URL: name}
	if u, err := url.Parse(name); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		b.reporter.at(e.place(), "write https://partner.example.com/hook", "%s: %q is no address", e.path, cut(name, 80))
	}
	if f, ok := value(e, "secret"); ok {
		x.Secret = b.app.ID(tenfold.KindSecret, tenfold.Name(f.node.Value))
		if b.kinds[f.node.Value] != tenfold.KindSecret {
			b.reporter.at(f.node, "add it under secrets: ["+upper(f.node.Value)+"]", "%s: no secret %q is declared", f.path, cut(f.node.Value, 60))
		}
	}
	if f, ok := value(e, "header"); ok {
		if x.Header = f.node.Value; !headerOK.MatchString(x.Header) {
			b.reporter.at(f.node, "a header's name has letters, digits and -", "%s: %q is not a header", f.path, cut(x.Header, 60))
		}
	}
	if f, ok := value(e, "basic"); ok {
		x.User = f.node.Value
	}
	switch {
	case x.Header != "" && x.User != "":
		b.reporter.at(e.place(), "leave out one", "%s: the secret goes into a header or is a password", e.path)
	case x.Secret.Name == "" && (x.Header != "" || x.User != ""):
		b.reporter.at(e.place(), "add secret: PARTNER_KEY", "%s has no secret", e.path)
	}
	if f, ok := value(e, "rate"); ok {
		if n, per := readRate(b.reporter, f.node, f.path); n > 0 {
			x.Every = per / time.Duration(n)
		}
	}
	return x
}

// jsonOf writes a value of YAML in JSON. Numbers stay as they are written.
func jsonOf(n *yaml.Node) string {
	var b bytes.Buffer
	writeJSON(&b, n, 0)
	return b.String()
}

func writeJSON(b *bytes.Buffer, n *yaml.Node, depth int) {
	text := func(s string) {
		e := json.NewEncoder(b)
		e.SetEscapeHTML(false)
		e.Encode(s)
		b.Truncate(b.Len() - 1)
	}
	switch {
	case depth > 100:
		b.WriteString("null")
	case n.Kind == yaml.MappingNode:
		b.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				b.WriteByte(',')
			}
			text(n.Content[i].Value)
			b.WriteByte(':')
			writeJSON(b, n.Content[i+1], depth+1)
		}
		b.WriteByte('}')
	case n.Kind == yaml.SequenceNode:
		b.WriteByte('[')
		for i, c := range n.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			writeJSON(b, c, depth+1)
		}
		b.WriteByte(']')
	case n.Tag == "!!null":
		b.WriteString("null")
	case n.Tag == "!!bool":
		b.WriteString(strconv.FormatBool(strings.EqualFold(n.Value, "true")))
	case (n.Tag == "!!int" || n.Tag == "!!float") && json.Valid([]byte(n.Value)):
		b.WriteString(n.Value)
	default:
		text(n.Value)
	}
}
