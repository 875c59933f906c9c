package edge

import (
	"strings"
	"testing"

	"tenfold/internal/release"
	"tenfold/internal/siterules"
)

// A site that lets browsers keep its pages is switched all the same.
func TestKeptPagesDoNotOutliveTheirRelease(t *testing.T) {
	h := open(t)
	h.route(t, "shop", nil)
	rules, _, err := siterules.Read("_headers", []byte("/*\n  Cache-Control: public, max-age=3600\n"), siterules.Netlify)
	if err != nil {
		t.Fatal(err)
	}
	site := release.Site{Dir: h.cfg.SiteDir(shop)}
	for _, text := range []string{"first", "second"} {
		r := h.releaseOf(t, map[string]string{"index.html": text}, release.Meta{Rules: map[string]siterules.Set{"_headers": rules}})
		if err := site.Switch(r.ID); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if res, body := h.ask(t, "GET", "/", ""); body != text || res.Header.Get("Cache-Control") != "public, max-age=3600" {
				t.Errorf("%q %v, want %q", body, res.Header, text)
			}
		}
	}
}

func TestFilesInTheBestCoding(t *testing.T) {
	h := open(t)
	text := strings.Repeat("body { color: red }\n", 400)
	h.route(t, "shop", nil)
	h.release(t, map[string]string{"index.html": "x", "site.css": text})
	for accept, want := range map[string]string{
		"": "", "gzip": "gzip", "br": "br", "gzip, deflate, br, zstd": "any", "br;q=0, gzip;q=0.5": "gzip", "gzip;q=0": "", "*": "any",
		"identity;q=1, br;q=0.5": "", "deflate": "", "gzip;q=0.9, br;q=0.1": "gzip",
	} {
		var header []string
		if accept != "" {
			header = []string{"Accept-Encoding", accept}
		} else {
			header = []string{"Accept-Encoding", "identity"}
		}
		res, body := h.ask(t, "GET", "/site.css", "", header...)
		got := res.Header.Get("Content-Encoding")
		if got != want && !(want == "any" && (got == "br" || got == "zstd")) || res.StatusCode != 200 {
			t.Errorf("%q: %d %q, want %q", accept, res.StatusCode, got, want)
		}
		if got == "" && body != text || got != "" && len(body) > 500 {
			t.Errorf("%q: %d bytes", accept, len(body))
		}
		if !strings.Contains(strings.Join(res.Header.Values("Vary"), ","), "Accept-Encoding") {
			t.Errorf("%q: Vary %v", accept, res.Header.Values("Vary"))
		}
		// Its own tag validates it, and no other's does.
		tag := res.Header.Get("Etag")
		if res, _ := h.ask(t, "GET", "/site.css", "", append(header, "If-None-Match", tag)...); res.StatusCode != 304 {
			t.Errorf("%q: %d with its own tag %s", accept, res.StatusCode, tag)
		}
	}
	if res, body := h.ask(t, "GET", "/site.css", "", "Accept-Encoding", "identity", "Range", "bytes=0-3"); res.StatusCode != 206 || body != "body" {
		t.Errorf("a range is of the file as it is: %d %q", res.StatusCode, body)
	}
}
