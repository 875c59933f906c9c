package siterules

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// ask reads a file and gives what it says of requests: "301 /to", "-" for nothing.
func rules(t *testing.T, name, text string, d Dialect) (*Rules, []Note) {
	t.Helper()
	set, notes, err := Read(name, []byte(text), d)
	if err != nil {
		t.Fatal(err)
	}
	r, err := set.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return r, notes
}

func move(r *Rules, target string, file bool, header ...string) string {
	u, err := url.Parse(target)
	if err != nil {
		panic(err)
	}
	q := &Request{Host: "shop.example.com", Path: u.Path, Query: u.Query(), Header: http.Header{}}
	if u.Host != "" {
		q.Host = u.Host
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Country" {
			q.Country = header[i+1]
		} else {
			q.Header.Set(header[i], header[i+1])
		}
	}
	m, ok := r.Move(q, file)
	if !ok {
		return "-"
	}
	return fmt.Sprint(m.Status, " ", m.To)
}

func TestNetlifyRedirects(t *testing.T) {
	r, notes := rules(t, "_redirects", `
# old things
/old           /new
/blog/*        /posts/:splat  302   # moved
/news/:year/:slug  /archive/:year-:slug 308
/shadow        /x 301
/forced        /x 301!
/store id=:id  /products/:id  301
/exact a=b     /c
/              /de/ 302! Language=de,de-at
/              /it/ 302! Country=IT
/beta/*        /new/:splat 200! Cookie=is_beta
/admin/*       /login 302! Role=admin
/api/*         https://api.example.com/:splat 200
http://old.example.com/*  https://shop.example.com/:splat 301!
/out/*         https://other.example.com/:splat
/*             /index.html 200
`, Netlify)
	for _, c := range []struct{ target, want string }{
		{"/old", "301 /new"}, {"/blog/a/b", "302 /posts/a/b"}, {"/blog", "302 /posts/"}, {"/news/2026/cart", "308 /archive/2026-cart"},
		{"/store?id=7", "301 /products/7"}, {"/store", "200 /index.html"}, {"/exact?a=b", "301 /c"}, {"/exact?a=x", "200 /index.html"},
		{"/admin/x", "200 /index.html"}, {"/api/x", "200 /index.html"}, {"/out/a", "301 https://other.example.com/a"},
		{"/out//evil.example.com", "301 https://other.example.com//evil.example.com"}, {"/blog//evil.example.com", "302 /posts//evil.example.com"},
		{"//old.example.com/a?x", "301 https://shop.example.com/a"},
	} {
		if got := move(r, c.target, false); got != c.want {
			t.Errorf("%s: %s, want %s", c.target, got, c.want)
		}
	}
	if got := move(r, "/shadow", true); got != "-" {
		t.Errorf("a file comes first: %s", got)
	}
	if got := move(r, "/forced", true); got != "301 /x" {
		t.Errorf("a rule with ! comes first: %s", got)
	}
	for header, want := range map[string]string{"Accept-Language=de-AT,de;q=0.9": "302 /de/", "Accept-Language=fr": "200 /index.html", "Country=IT": "302 /it/"} {
		k, v, _ := strings.Cut(header, "=")
		if got := move(r, "/", false, k, v); got != want {
			t.Errorf("%s: %s, want %s", header, got, want)
		}
	}
	if got := move(r, "/beta/x", true, "Cookie", "is_beta=1"); got != "200 /new/x" {
		t.Errorf("a cookie: %s", got)
	}
	if s := fmt.Sprint(notes); len(notes) != 2 || !strings.Contains(s, "_redirects:13: the condition Role") || !strings.Contains(s, "_redirects:14: another host") {
		t.Errorf("notes: %s", s)
	}
}

func TestCloudflareRedirects(t *testing.T) {
	r, _ := rules(t, "_redirects", "/home / \n/movies/:title /film/:title 301\n/a/* /b/:splat\n", Cloudflare)
	for target, want := range map[string]string{"/home": "302 /", "/movies/x": "301 /film/x", "/a/b/c": "302 /b/b/c"} {
		if got := move(r, target, true); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}

func TestHeadersFiles(t *testing.T) {
	r, notes := rules(t, "_headers", `
/*
  X-Frame-Options: DENY
  Cache-Control: public, max-age=0
/static/*
  ! Cache-Control
  Access-Control-Allow-Origin: *
  Set-Cookie: a=b
/secret/*
  Basic-Auth: a:b
https://preview.example.com/*
  X-Robots-Tag: noindex
`, Cloudflare)
	fields := func(host, path string) string {
		set, remove := r.Fields(&Request{Host: host, Path: path})
		return fmt.Sprint(set, remove)
	}
	for _, c := range [][3]string{
		{"a", "/x", "map[Cache-Control:public, max-age=0 X-Frame-Options:DENY][]"},
		{"a", "/static/x", "map[Access-Control-Allow-Origin:* X-Frame-Options:DENY][Cache-Control]"},
		{"preview.example.com", "/x", "map[Cache-Control:public, max-age=0 X-Frame-Options:DENY X-Robots-Tag:noindex][]"},
	} {
		if got := strings.Replace(fields(c[0], c[1]), "] [", "][", 1); got != c[2] {
			t.Errorf("%s%s: %s, want %s", c[0], c[1], got, c[2])
		}
	}
	if s := fmt.Sprint(notes); len(notes) != 2 || !strings.Contains(s, "_headers:8: Set-Cookie") || !strings.Contains(s, "_headers:10: Basic-Auth protects nothing") {
		t.Errorf("notes: %s", s)
	}
}

func TestVercel(t *testing.T) {
	r, notes := rules(t, "vercel.json", `{
  "$schema": "https://openapi.vercel.sh/vercel.json",
  "cleanUrls": true,
  "trailingSlash": false,
  "crons": [],
  "redirects": [
    {"source": "/me", "destination": "/profile"},
    {"source": "/temp", "destination": "/x", "permanent": false},
    {"source": "/see", "destination": "/x", "statusCode": 303},
    {"source": "/docs/:path*", "destination": "/guide/:path*"},
    {"source": "/post/:id(\\d+)", "destination": "/news/:id"},
    {"source": "/lang", "destination": "/de", "has": [{"type": "header", "key": "Accept-Language", "value": "de.*"}]}
  ],
  "rewrites": [
    {"source": "/api/:path*", "destination": "https://api.example.com/:path*"},
    {"source": "/((?!assets|api/).*)", "destination": "/index.html"},
    {"source": "/x/(?<=y)", "destination": "/index.html"}
  ],
  "headers": [
    {"source": "/(.*)", "headers": [{"key": "X-Content-Type-Options", "value": "nosniff"}, {"key": "Date", "value": "x"}]}
  ]
}`, Netlify)
	for _, c := range []struct {
		target, want string
		file         bool
	}{
		{"/me", "308 /profile", true}, {"/temp", "307 /x", false}, {"/see", "303 /x", false}, {"/docs/a/b", "308 /guide/a/b", false}, {"/docs", "308 /guide/", false},
		{"/post/12", "308 /news/12", false}, {"/about.html", "308 /about", true}, {"/blog/index.html", "308 /blog/", true}, {"/about/", "308 /about", true},
		{"/anything/else", "200 /index.html", false}, {"/anything/else", "-", true}, {"/assets/x.js", "-", false}, {"/", "200 /index.html", false},
	} {
		if got := move(r, c.target, c.file); got != c.want {
			t.Errorf("%s: %s, want %s", c.target, got, c.want)
		}
	}
	if got := move(r, "/lang", false, "Accept-Language", "de-DE"); got != "308 /de" {
		t.Errorf("has: %s", got)
	}
	if set, _ := r.Fields(&Request{Path: "/x"}); set["X-Content-Type-Options"] != "nosniff" || len(set) != 1 {
		t.Errorf("headers: %v", set)
	}
	s := fmt.Sprint(notes)
	for _, want := range []string{`vercel.json:5: "crons" is not honoured`, "vercel.json:15: another host", "vercel.json:17: a look around", "Date is the front door's own"} {
		if !strings.Contains(s, want) {
			t.Errorf("no note %q in %s", want, s)
		}
	}
}

func TestAmplify(t *testing.T) {
	r, notes := rules(t, "amplify-redirects.json", `[
  {"source": "/docs/<section>/<page>", "target": "/d/<page>?s=<section>", "status": "301"},
  {"source": "/it", "target": "/it/", "status": "302", "condition": "<IT>"},
  {"source": "/proxy/<*>", "target": "https://api.example.com/<*>", "status": "200"},
  {"source": "</^[^.]+$|\\.(?!(css|gif|ico|jpg|js|png|txt|svg|woff|ttf)$)([^.]+$)/>", "target": "/index.html", "status": "200"},
  {"source": "/<*>", "target": "/404.html", "status": "404"}
]`, Netlify)
	for _, c := range []struct{ target, want string }{
		{"/docs/a/b", "301 /d/b?s=a"}, {"/deep/link", "200 /index.html"}, {"/it", "200 /index.html"},
	} {
		if got := move(r, c.target, false); got != c.want {
			t.Errorf("%s: %s, want %s", c.target, got, c.want)
		}
	}
	if got := move(r, "/it", false, "Country", "IT"); got != "302 /it/" {
		t.Errorf("a condition: %s", got)
	}
	if s := fmt.Sprint(notes); len(notes) != 1 || !strings.Contains(s, "another host") {
		t.Errorf("notes: %s", s)
	}
	h, _ := rules(t, "customHttp.yml", "customHeaders:\n  - pattern: '*.json'\n    headers:\n      - key: X-Kind\n        value: data\n  - pattern: '**/*'\n    headers:\n      - {key: X-All, value: 'yes'}\n", Netlify)
	if set, _ := h.Fields(&Request{Path: "/a/b.json"}); set["X-Kind"] != "data" || set["X-All"] != "yes" {
		t.Errorf("globs: %v", set)
	}
	if set, _ := h.Fields(&Request{Path: "/b.html"}); set["X-Kind"] != "" || set["X-All"] != "yes" {
		t.Errorf("globs: %v", set)
	}
}

func TestErrorsSayWhere(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"_redirects", "/a /b\nfoo /bar\n", "_redirects:2: "}, {"_redirects", "/a\n", "_redirects:1: the rule for"}, {"_headers", "  X: y\n", "_headers:1: "},
		{"_headers", "/a\n  rubbish\n", "_headers:2: "}, {"vercel.json", "{\n\"redirects\": 5}", "vercel.json:2: "}, {"vercel.json", "{\n\n  x", "vercel.json:3: "},
		{"customHttp.yml", "customHeaders:\n  - pattern: [\n", "customHttp.yml:"}, {"amplify-redirects.json", "{}", "amplify-redirects.json:1: "}, {"_redirects", "/a\x00b /c", "it is not text"},
	} {
		_, _, err := Read(c.name, []byte(c.text), Netlify)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v, want %s", c.name, c.text, err, c.want)
		}
	}
}

// A line with an error takes no other along, in files that are made of lines.
func TestOtherLinesAreRead(t *testing.T) {
	set, _, err := Read("_redirects", []byte("/a /b\nnonsense\n/c /d\n/e\n"), Netlify)
	var all Errors
	if !errors.As(err, &all) || len(all) != 2 || all[0].Error() != `_redirects:2: "nonsense" does not begin with /` || len(set.Redirects) != 2 || set.Redirects[1].To != "/d" {
		t.Errorf("%+v %v", set, err)
	}
	set, _, err = Read("_headers", []byte("nowhere\n  X: lost\n/a\n  rubbish\n  Y: b\n"), Netlify)
	if !errors.As(err, &all) || len(all) != 2 || len(set.Headers) != 1 || len(set.Headers[0].Set) != 1 || set.Headers[0].Set[0].Name != "Y" {
		t.Errorf("%+v %v", set, err)
	}
	if set, _, err = Read("vercel.json", []byte(`{"redirects":[{"source":"/a","destination":"/b"},{"destination":"/x"}]}`), Netlify); err == nil || !set.Empty() {
		t.Errorf("%+v %v", set, err)
	}
}

// FuzzRead: no file panics; what is read compiles, and no request makes a target of it leave its host.
func FuzzRead(f *testing.F) {
	f.Add(uint8(0), "/a/* /b/:splat 301!", "/a//evil", false)
	f.Add(uint8(1), "/*\n  A: b", "/x", true)
	f.Add(uint8(2), `{"redirects":[{"source":"/:a(\\d+)*","destination":"/:a*"}]}`, "/1", false)
	f.Add(uint8(5), `[{"source":"/<*>","target":"/x/<*>","status":"301"}]`, "/\\evil", false)
	f.Fuzz(func(t *testing.T, which uint8, text, path string, cloudflare bool) {
		d := Netlify
		if cloudflare {
			d = Cloudflare
		}
		set, _, _ := Read(Names[int(which)%len(Names)], []byte(text), d)
		r, err := set.Compile()
		if err != nil {
			t.Fatalf("what was read does not compile: %v", err)
		}
		q := &Request{Host: "h", Path: "/" + path, Query: url.Values{}, Header: http.Header{}}
		if m, ok := r.Move(q, false); ok {
			if strings.HasPrefix(m.Rule.To, "/") && (strings.HasPrefix(m.To, "//") || strings.HasPrefix(m.To, "/\\")) {
				t.Fatalf("%q leads to another host: %q", m.Rule.From, m.To)
			}
			if strings.ContainsAny(m.To, "\r\n") && m.Status >= 300 && m.Status < 400 {
				t.Fatalf("%q splits the answer: %q", m.Rule.From, m.To)
			}
		}
		for _, v := range func() map[string]string { s, _ := r.Fields(q); return s }() {
			if strings.ContainsAny(v, "\r\n\x00") {
				t.Fatalf("a field splits the answer: %q", v)
			}
		}
	})
}
