package httproute

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestMostSpecificWinsInAnyOrder(t *testing.T) {
	patterns := []string{"/*", "/api/*", "POST /api/*", "/api/:id", "/api/users", "/api/users/*", "api.shop.example.com/*", "/a/:x/c", "/a/b/*"}
	cases := map[string]string{
		"GET shop /": "/*", "GET shop /api": "/api/*", "GET shop /api/": "/api/*", "POST shop /api/x/y": "POST /api/*",
		"GET shop /api/7": "/api/:id", "GET shop /api/users": "/api/users", "GET shop /api/users/": "/api/users/*", "GET shop /api/users/1/x": "/api/users/*",
		"GET api.shop.example.com /anything": "api.shop.example.com/*", "GET shop /apix": "/*",
		"GET shop /a/b/c": "/a/b/*", "GET shop /a/z/c": "/a/:x/c", "GET shop /a/z/d": "/*",
	}
	for seed := range uint64(20) {
		var table Table[int]
		for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(len(patterns)) {
			if err := table.Add(patterns[i], i); err != nil {
				t.Fatal(err)
			}
		}
		for request, want := range cases {
			f := strings.Fields(request)
			if _, got, _ := table.Find(f[0], f[1], f[2]); got != want {
				t.Errorf("seed %d: %s: %q, want %q", seed, request, got, want)
			}
		}
	}
}

func TestRestOfAStar(t *testing.T) {
	p, err := Parse("/old/*")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/old/a/b": "a/b", "/old/": "", "/old": ""} {
		if rest, ok := p.Match("GET", "", path); !ok || rest != want {
			t.Errorf("%s: %q %v", path, rest, ok)
		}
	}
}

func TestBadPatterns(t *testing.T) {
	for _, s := range []string{"", "api", "get /x", "/a/*/b", "/a*"} {
		if _, err := Parse(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("GET h/a/:x/*", "GET", "h", "/a/b/c")
	f.Fuzz(func(t *testing.T, pattern, method, host, path string) {
		p, err := Parse(pattern)
		if err != nil {
			return
		}
		rest, ok := p.Match(method, host, path)
		if ok && !strings.HasSuffix(path, rest) {
			t.Fatalf("rest %q is no end of %q", rest, path)
		}
	})
}
