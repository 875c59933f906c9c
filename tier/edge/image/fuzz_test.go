package image

import (
	"encoding/binary"
	"net/url"
	"strings"
	"testing"
)

func FuzzQuery(f *testing.F) {
	for _, s := range []string{"url=%2Fa.jpg&w=640&q=75", "url=http://x/a&w=1&dpr=2", "url=//x&w=640", "url=/a&w=99999999999", "url=/a&w=640&q=0", "w=640", "url=/%2e%2e/a&w=640&dpr=NaN", "url=https://cdn.example.com:443/x&w=640", "%zz"} {
		f.Add(s)
	}
	h := newHandler(f, &site{}, func(c *Config) { c.From = []string{"cdn.example.com"} })
	f.Fuzz(func(t *testing.T, query string) {
		w, err := h.parse(query)
		if err != nil {
			return
		}
		u, err := url.Parse(w.url)
		if err != nil || w.own != (u.Host == "") || !w.own && u.Hostname() != "cdn.example.com" && u.Hostname() != "cdn.example.com." || strings.HasPrefix(w.url, "//") {
			t.Errorf("%q gives %q (own %v), %v", query, w.url, w.own, err)
		}
		if w.width < 16 || w.width > 3840 || w.quality < 5 || w.quality > 100 || w.quality%5 != 0 {
			t.Errorf("%q gives %+v", query, w)
		}
	})
}

func FuzzTransform(f *testing.F) {
	f.Add(jpegOf(f, 20, 10))
	f.Add(withOrientation(jpegOf(f, 20, 10), 6, binary.LittleEndian, "II"))
	f.Add(pngOf(f, photo(20, 10)))
	f.Add(bomb(1, 1))
	f.Add(webpBomb())
	f.Add([]byte("GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"))
	f.Fuzz(func(t *testing.T, data []byte) {
		out, k, err := transform(data, 16, 75, "", 10_000)
		if err == nil && (len(out) == 0 || sniff(out) != k) {
			t.Errorf("made %d bytes of %q", len(out), k)
		}
	})
}

func BenchmarkTransform(b *testing.B) {
	src := jpegOf(b, 4000, 3000)
	for _, format := range []string{"", "webp", "avif"} {
		b.Run("to-640-"+format, func(b *testing.B) {
			for b.Loop() {
				out, _, err := transform(src, 640, 75, format, 32_000_000)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(out)), "bytes")
			}
		})
	}
}
