package manifest

import (
	"time"

	"tenfold"
)

const deadSuffix = "-dead"

func queueKeys() []key {
	return []key{
		{name: "timeout", form: fDuration, deflt: "30s", doc: "How long a message that was given out is invisible to others; 12h at most."},
		{name: "keep", form: fDuration, deflt: "4d", doc: "How long a message waits before it ends; 1m to 14d."},
		{name: "delay", form: fDuration, deflt: "0s", doc: "How long a new message is invisible; 15m at most."},
		{name: "retries", form: fCount, deflt: "3", doc: "How often a message is given out again before it goes to dead."},
		{name: "dead", form: fText, off: true, deflt: "<name>-dead", doc: "Queue of the messages that were given up on; it is made where it does not stand here. false: none."},
		{name: "fifo", form: fMap, main: "dedupe", off: true, deflt: "false", doc: "In order, and none twice within 5 minutes.", keys: []key{
			{name: "dedupe", form: fWord, words: []string{"id", "content"}, deflt: "id", doc: "What makes two messages one: the MessageDeduplicationId, or the content where there is none."},
			{name: "scope", form: fWord, words: []string{"queue", "group"}, deflt: "queue", doc: "Where they are looked for: in the whole queue, or in each message group, which is faster."},
		}},
	}
}

// dead is the name of a queue's dead-letter queue, "" for none.
func dead(n tenfold.Name, t *tree) tenfold.Name {
	f := t.get("dead")
	switch {
	case f != nil && f.off:
		return ""
	case f != nil && !isNull(f.node):
		return tenfold.Name(f.node.Value)
	}
	return n + deadSuffix
}

// deadLetters declares the queues that are made beside those of the file.
func (b *builder) deadLetters() {
	own := map[string]bool{}
	b.each("queues", func(n tenfold.Name, _ *tree) { own[string(n)] = true })
	given := map[tenfold.Name]bool{} // those that get what others gave up on
	b.each("queues", func(n tenfold.Name, t *tree) {
		if d := dead(n, t); t.get("dead") != nil && d != "" {
			given[d] = true
		}
	})
	b.each("queues", func(n tenfold.Name, t *tree) {
		d := dead(n, t)
		if t.get("dead") == nil && given[n] { // itself for what was given up on
			d = ""
		}
		b.deadOf[n] = d
		switch kind, known := b.kinds[string(d)]; {
		case d == "":
		case d == n:
			b.reporter.at(t.get("dead").place(), "name another queue, or write dead: false", "%s: %s would get its own messages back, without end", t.get("dead").path, n)
		case known && kind != tenfold.KindQueue:
			at := t.place()
			if f := t.get("dead"); f != nil {
				at = f.place()
			}
			b.reporter.at(at, "name a queue: dead: "+string(n)+"-failed", "%s: a %s takes no messages", string(d), kind)
		case !known && (!kebabCase.MatchString(string(d)) || len(d) > maxName):
			at := t.place()
			if f := t.get("dead"); f != nil {
				at = f.place()
			}
			b.reporter.at(at, "write a queue's name, kebab-case with at most "+itoa(maxName)+" characters", "%s.dead: %q is no name", t.path, cut(string(d), 60))
		case !known:
			b.kinds[string(d)], b.at[string(d)] = tenfold.KindQueue, t.place()
		}
	})
}

func (b *builder) queues() {
	put := func(n tenfold.Name, q tenfold.Queue) {
		if b.app.Queues == nil {
			b.app.Queues = map[tenfold.Name]tenfold.Queue{}
		}
		b.app.Queues[n] = q
	}
	bounded := func(t *tree, name string, deflt, low, high time.Duration) time.Duration {
		f, ok := value(t, name)
		if !ok {
			return deflt
		}
		d := b.span(t, name, deflt)
		if d < low || d > high {
			b.reporter.at(f.node, "from "+short(low)+" to "+short(high), "%s: %s is out of bounds", f.path, f.node.Value)
		}
		return d
	}
	b.each("queues", func(n tenfold.Name, t *tree) {
		q := tenfold.Queue{Timeout: bounded(t, "timeout", 30*time.Second, 0, 12*time.Hour), Keep: bounded(t, "keep", 4*day, time.Minute, 14*day), Delay: bounded(t, "delay", 0, 0, 15*time.Minute),
			Retries: b.count(t, "retries", 3, 0, 999), Dead: b.deadOf[n], Line: t.line()}
		if f, ok := value(t, "retries"); ok && q.Dead == "" {
			b.reporter.at(f.key, "remove it, or dead: false", "%s: without a queue for what was given up on, messages are given out until keep ends", f.path)
		}
		if f := t.get("fifo"); f != nil && !f.off {
			q.FIFO = &tenfold.FIFO{Content: b.word(f, "dedupe", "id", []string{"id", "content"}) == "content", Group: b.word(f, "scope", "queue", []string{"queue", "group"}) == "group"}
		}
		put(n, q)
	})
	for _, n := range sortedKeys(b.app.Queues) {
		q := b.app.Queues[n]
		if q.Dead == "" {
			continue
		}
		d, stands := b.app.Queues[q.Dead]
		switch {
		case !stands && b.kinds[string(q.Dead)] == tenfold.KindQueue:
			d = tenfold.Queue{Timeout: 30 * time.Second, Keep: 14 * day, Line: q.Line}
			if q.FIFO != nil {
				d.FIFO = &tenfold.FIFO{Group: q.FIFO.Group}
			}
			put(q.Dead, d)
		case stands && (d.FIFO != nil) != (q.FIFO != nil):
			b.reporter.at(b.at[string(n)], "give both fifo, or neither", "queues.%s: what is given up on by a queue in order goes to one in order, and %s is not alike", n, q.Dead)
		}
	}
}
