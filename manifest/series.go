package manifest

import (
	"slices"
	"strings"
	"time"

	"tenfold"
)

func seriesKeys() []key {
	return []key{
		{name: "keep", form: fDuration, deflt: "30d", doc: "How long a value stays, in whole days: 1d or more."},
		{name: "every", form: fDuration, deflt: "1s", doc: "Of each such interval one value of a series is kept, the last."},
		{name: "accept", form: fWords, deflt: "all that the engine has", doc: "Protocols that it is written by: otlp, remote-write, influx, or some of them in a list."},
	}
}

// day is what the engine keeps by.
const day = 24 * time.Hour

func (b *builder) series() {
	b.each("series", func(n tenfold.Name, t *tree) {
		x := tenfold.Series{Keep: b.duration(t, "keep", 30*day), Every: b.duration(t, "every", time.Second), Line: t.line()}
		if f, ok := value(t, "keep"); ok && (x.Keep < day || x.Keep%day != 0) {
			hint := "write " + itoa(int((x.Keep+day-1)/day)) + "d"
			b.reporter.at(f.place(), hint, "%s: values are kept for whole days, 1d or more", f.path)
		}
		if f, ok := value(t, "every"); ok && (x.Every%time.Millisecond != 0 || x.Every > day) {
			b.reporter.at(f.place(), "from 1ms to 1d, in whole milliseconds", "%s: out of bounds", f.path)
		}
		x.Accept = b.accept(t)
		if b.app.Series == nil {
			b.app.Series = map[tenfold.Name]tenfold.Series{}
		}
		b.app.Series[n] = x
	})
}

// accept reads protocols. All of them are what nobody has to say, and yet it is more: the engine must have them.
func (b *builder) accept(t *tree) (out []string) {
	f, ok := value(t, "accept")
	if !ok {
		return nil
	}
	parts, _ := readList(b.reporter, f.node, f.path, "protocol")
	said := map[string]bool{}
	for _, p := range parts {
		w, ok := readWord(b.reporter, p, f.path, tenfold.SeriesProtocols)
		if ok && said[w] {
			b.reporter.at(p, "keep one of them", "%s: %q stands twice", f.path, w)
		}
		said[w] = said[w] || ok
	}
	if len(parts) == 0 {
		b.reporter.at(f.place(), "one of: "+strings.Join(tenfold.SeriesProtocols, ", ")+"; or leave the line out", "%s: nothing could be written", f.path)
	}
	for _, w := range tenfold.SeriesProtocols {
		if said[w] {
			out = append(out, w)
		}
	}
	return slices.Clip(out)
}
