package manifest

import (
	"slices"
	"strconv"
	"strings"

	"tenfold"
)

// images reads how pictures are made to fit.
func (b *builder) images(t *tree) *tenfold.Images {
	f := t.get("images")
	switch {
	case f == nil:
		return nil
	case f.off:
		return &tenfold.Images{Off: true}
	case f.fields == nil:
		return nil
	}
	out := &tenfold.Images{Formats: b.words(f, "formats"), From: b.words(f, "from")}
	for _, w := range b.words(f, "widths") {
		n, err := strconv.Atoi(w)
		if err != nil || n < 1 || n > 8192 {
			k, _ := value(f, "widths")
			b.reporter.at(k.node, "write pixels: [320, 640, 1280]", "%s: %q is no width from 1 to 8192", k.path, cut(w, 40))
			continue
		}
		out.Widths = append(out.Widths, n)
	}
	for _, w := range out.Formats {
		if w != "webp" && w != "avif" {
			k, _ := value(f, "formats")
			b.reporter.at(k.node, "one of: webp, avif", "%s: %q is not made", k.path, cut(w, 40))
		}
	}
	for _, h := range out.From {
		host := strings.TrimPrefix(strings.TrimPrefix(h, "https://"), "http://")
		name, port, ported := strings.Cut(host, ":")
		_, err := strconv.ParseUint(port, 10, 16)
		if !hostText.MatchString(name) || ported && err != nil {
			k, _ := value(f, "from")
			b.reporter.at(k.node, "write cdn.example.com or *.example.com", "%s: %q is not a host", k.path, cut(h, 60))
		}
	}
	slices.Sort(out.Widths)
	return out
}
