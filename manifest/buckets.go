package manifest

import (
	"strings"
	"time"

	"tenfold"
)

// bodyMost is what S3 takes in one request.
const bodyMost = 5 << 30

func bucketKeys() []key {
	return []key{
		{name: "routes", form: fRoutes, deflt: "none, private", doc: "Where the front door leads to it, so that browsers can use presigned URLs: /<name>/*. Who has no such URL gets nothing."},
		{name: "versions", form: fBool, deflt: "false", doc: "Objects that are replaced or removed can be had back."},
		{name: "keep", form: fTexts, deflt: "for ever", doc: "How long objects stay, by key with one *: {tmp/*: 1d}. At least 1m."},
		{name: "cors", form: fWords, deflt: "none", doc: "Origins whose pages may use presigned URLs from scripts, or *."},
		{name: "limit", form: fMap, main: "body", doc: "What is refused.", keys: []key{
			{name: "body", form: fSize, deflt: "5gb", doc: "How long an object, or a part of one, may be that comes in one request; 5gb at most."},
		}},
		{name: "events", form: fNamed, doc: "What is told of objects, as S3 tells it; at least once.", keys: []key{
			{name: "on", form: fWords, deflt: "created", doc: "created, removed, or both in a list."},
			{name: "prefix", form: fText, deflt: "all", doc: "Only of keys that begin so: raw/."},
			{name: "suffix", form: fText, deflt: "all", doc: "Only of keys that end so: .jpg."},
			{name: "to", form: fText, doc: "Whom: a queue, a function or an event bus."},
		}},
	}
}

func (b *builder) buckets() {
	b.each("buckets", func(n tenfold.Name, t *tree) {
		x := tenfold.Bucket{Body: bodyMost, Line: t.line()}
		if len(n) < 3 {
			b.reporter.at(t.place(), "call it "+string(n)+"-files", "%s: a bucket's name has at least 3 characters, as on AWS", t.path)
		}
		if f, ok := value(t, "versions"); ok {
			x.Versions, _ = readBool(b.reporter, f.node, f.path)
		}
		if f, ok := value(t, "cors"); ok {
			x.CORS = b.origins(f)
		}
		if f, ok := value(t, "limit"); ok {
			x.Body = b.size(f, "body", bodyMost)
			if x.Body < 1 || x.Body > bodyMost {
				b.reporter.at(f.place(), "write 5gb or less; larger objects come in parts", "%s.body: out of bounds", f.path)
			}
		}
		b.bucketRoutes(n, t, &x)
		b.bucketKeep(t, &x)
		b.bucketEvents(t, &x)
		if b.app.Buckets == nil {
			b.app.Buckets = map[tenfold.Name]tenfold.Bucket{}
		}
		b.app.Buckets[n] = x
	})
}

// bucketRoutes reads routes. A presigned URL signs its path, so the path at the front door has to be the one that
// the bucket has.
func (b *builder) bucketRoutes(n tenfold.Name, t *tree, x *tenfold.Bucket) {
	f, ok := value(t, "routes")
	if !ok {
		return
	}
	x.Routes = b.claim("bucket "+string(n), f)
	for _, r := range x.Routes {
		path := string(r)
		if j := strings.Index(path, "/"); j >= 0 {
			path = path[j:]
		}
		if path != "/"+string(n) && !strings.HasPrefix(path, "/"+string(n)+"/") {
			b.reporter.at(f.node, "write /"+string(n)+"/*", "%s: %s does not begin with the bucket's name, and presigned URLs sign the path", f.path, cut(string(r), 60))
		}
	}
}

func (b *builder) bucketKeep(t *tree, x *tenfold.Bucket) {
	f, ok := value(t, "keep")
	if !ok {
		return
	}
	for _, pattern := range f.order {
		e := f.fields[pattern]
		if e.off {
			continue
		}
		d, ok := readDuration(b.reporter, e.node, e.path)
		switch {
		case !ok:
			continue
		case strings.Count(pattern, "*") != 1:
			b.reporter.at(e.place(), "write tmp/*", "%s: %q has not one * in it", f.path, cut(pattern, 60))
			continue
		case d < time.Minute:
			b.reporter.at(e.place(), "write 1m or more", "%s: out of bounds", e.path)
		}
		if x.Keep == nil {
			x.Keep = map[string]time.Duration{}
		}
		x.Keep[pattern] = d
	}
}

func (b *builder) bucketEvents(t *tree, x *tenfold.Bucket) {
	all, ok := value(t, "events")
	if !ok {
		return
	}
	for _, name := range all.order {
		t := all.fields[name]
		if t.off {
			continue
		}
		e := tenfold.BucketEvent{}
		on := b.words(t, "on")
		if len(on) == 0 {
			on = []string{"created"}
		}
		for _, w := range on {
			switch w {
			case "created":
				e.Created = true
			case "removed":
				e.Removed = true
			default:
				b.reporter.at(t.get("on").place(), "one of: created, removed", "%s.on: nothing is told on %q", t.path, cut(w, 60))
			}
		}
		if f, ok := value(t, "prefix"); ok {
			e.Prefix = f.node.Value
		}
		if f, ok := value(t, "suffix"); ok {
			e.Suffix = f.node.Value
		}
		e.To = b.bucketTarget(t)
		if x.Events == nil {
			x.Events = map[tenfold.Name]tenfold.BucketEvent{}
		}
		x.Events[tenfold.Name(name)] = e
	}
}

// bucketTarget is whom events of a bucket go to.
func (b *builder) bucketTarget(t *tree) tenfold.ID {
	f, ok := value(t, "to")
	if !ok {
		b.reporter.at(t.place(), "write to: <a queue, a function or a bus>", "%s goes nowhere", t.path)
		return tenfold.ID{}
	}
	name := tenfold.Name(f.node.Value)
	kind, known := b.kinds[string(name)]
	switch {
	case !known:
		b.reporter.at(f.node, "name a queue, a function or a bus", "%s: nothing is called %q", f.path, cut(string(name), 60))
	case kind == tenfold.KindQueue && b.app.Queues[name].FIFO != nil:
		b.reporter.at(f.node, "name one without fifo", "%s: events of a bucket are in no order, and %s is a queue in order", f.path, name)
	case kind != tenfold.KindQueue && kind != tenfold.KindFunction && kind != tenfold.KindBus:
		b.reporter.at(f.node, "name a queue, a function or a bus", "%s: a %s takes no events", f.path, kind)
	}
	return b.app.ID(kind, name)
}
