package edge

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"tenfold"
	"tenfold/internal/directory"
	"tenfold/internal/release"
	"tenfold/internal/siterules"
)

// cheap is a hash that costs little to compare.
func cheap(t *testing.T, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

// Each question is answered twice: by explain, and by the door when it is asked indeed.
func TestExplainAgreesWithTheDoor(t *testing.T) {
	h := ruled(t, map[tenfold.Route]tenfold.Rule{
		"/old/*":       {Redirect: &tenfold.Redirect{To: "/new/*", Status: 301}},
		"/v1/*":        {Rewrite: "/api/*"},
		"/files/*":     {Rewrite: "/app/*"},
		"/api/soon/*":  {Maintenance: &tenfold.Page{Body: "<h1>soon</h1>"}, Auth: &tenfold.Auth{Allow: []string{"192.0.2.0/24"}, Basic: secret("USERS")}},
		"/api/inner/*": {Maintenance: &tenfold.Page{Body: "<h1>soon</h1>"}, Auth: &tenfold.Auth{Allow: []string{"127.0.0.0/8"}, Basic: secret("USERS")}},
		"/api/in/*":    {Auth: &tenfold.Auth{Allow: []string{"192.0.2.0/24"}}},
		"/api/adm/*":   {Auth: &tenfold.Auth{Basic: secret("USERS")}},
		"/api/slim/*":  {Limit: &tenfold.Limiting{Header: 200}},
		"/api/open/*":  {CORS: []string{"*"}},
	}, map[string]string{"USERS": "ann:" + cheap(t, "wonderland")}, func(a *tenfold.App) {
		a.Domains = []string{"shop.example", "www.shop.example"}
		a.Frontends["web"] = tenfold.Frontend{Routes: []tenfold.Route{"/*", "/app/*"}, Fallback: "index.html"}
	})
	rules, _, err := siterules.Read("_redirects", []byte("/gone/* /404.html 404\n/shop/* /cart.html 200\n/moved/:x /to/:x 302\n/app/moved/:x /to/:x 302\n/here /there?x=1 301\n"), siterules.Netlify)
	if err != nil {
		t.Fatal(err)
	}
	r := h.releaseOf(t, map[string]string{"index.html": "home", "cart.html": "cart", "404.html": "lost", "part/a.txt": "a"}, release.Meta{Rules: map[string]siterules.Set{"_redirects": rules}})
	if err := (release.Site{Dir: h.cfg.SiteDir(shop)}).Switch(r.ID); err != nil {
		t.Fatal(err)
	}
	basic := func(user, password string) string {
		r := httptest.NewRequest("GET", "/", nil)
		r.SetBasicAuth(user, password)
		return r.Header.Get("Authorization")
	}
	ann, eve := basic("ann", "wonderland"), basic("ann", "queen")
	for _, c := range []struct {
		method, path string
		header       []string
		answer       string // how it begins
	}{
		{"GET", "/old/a?b=c", nil, "301 to /new/a?b=c"},
		{"GET", "/v1/a%20b", nil, "service api"},
		{"GET", "/api/soon/x", nil, "503: closed for maintenance"},
		{"GET", "/api/inner/x", nil, "401: a password is needed: none was sent"},
		{"GET", "/api/inner/x", []string{"Authorization", ann}, "service api"},
		{"GET", "/api/in/x", nil, "403: not allowed from here: 127.0.0.1"},
		{"GET", "/api/adm/x", []string{"Authorization", eve}, "401: a password is needed: the one that was sent is wrong"},
		{"GET", "/api/adm/x", []string{"Authorization", ann}, "service api"},
		{"GET", "/api/slim/x", []string{"X-Long", strings.Repeat("x", 300)}, "431: the request's head is too large"},
		{"OPTIONS", "/api/open/x", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "PUT"}, "204 to a preflight"},
		{"OPTIONS", "/api/open/x", []string{"Access-Control-Request-Method", "PUT"}, "service api"},
		{"GET", "/a", []string{"Host", "www.shop.example"}, "301 to //shop.example/a"},
		{"GET", "/a", []string{"Host", "nobody.example"}, "404: nothing is served for nobody.example"},
		{"GET", "/", nil, "frontend web, index.html"},
		{"GET", "/anything", nil, "frontend web, index.html"},
		{"GET", "/none.js", nil, "404: no such file in any release that is kept"},
		{"POST", "/", nil, "405: frontend web takes GET and HEAD only"},
		{"GET", "/shop/1", nil, "frontend web, cart.html"},
		{"GET", "/gone/x", nil, "404 with frontend web, 404.html"},
		{"GET", "/moved/x?y=1", nil, "302 to /to/x?y=1"},
		{"GET", "/here", nil, "301 to /there?x=1"},
		{"GET", "/app/part/a.txt", nil, "frontend web, part/a.txt"},
		{"GET", "/app/moved/x", nil, "302 to /to/x"}, // rules are asked for the path below the route's prefix
		{"GET", "/files/moved/x", nil, "302 to /to/x"},
		{"GET", "/files/part/a.txt", nil, "frontend web, part/a.txt"},
	} {
		q := directory.Question{Method: c.method, URL: "http://shop.localhost" + c.path, Client: "127.0.0.1:1", Header: map[string]string{}}
		for i := 0; i < len(c.header); i += 2 {
			q.Header[c.header[i]] = c.header[i+1]
		}
		x, err := h.Explain(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		res, _ := h.ask(t, c.method, c.path, "", c.header...)
		says := 200
		fmt.Sscan(x.Answer, &says)
		if says != res.StatusCode || !strings.HasPrefix(x.Answer, c.answer) || !strings.HasSuffix(x.Answer, res.Header.Get("Location")) {
			t.Errorf("%s %s %v: explained as %q, want %q; answered %d %s", c.method, c.path, c.header, x.Answer, c.answer, res.StatusCode, res.Header.Get("Location"))
		}
	}
	x, err := h.Explain(t.Context(), directory.Question{Method: "POST", URL: "http://shop.localhost" + directory.HooksPath + "github", Client: "127.0.0.1:1"})
	if err != nil || x.Answer != "the console" {
		t.Errorf("a delivery of a Git host: %q %v", x.Answer, err)
	}
}

// What a request meets at a service: shares of a version that is tried out, the cookie, and a service that sleeps.
func TestExplainKnowsHowAServiceIsUsed(t *testing.T) {
	h := ruled(t, map[tenfold.Route]tenfold.Rule{"/*": {Limit: &tenfold.Limiting{Rate: 50, Per: time.Second, By: "client", Body: 1 << 20, Header: 1000}, Line: 3}}, nil, func(a *tenfold.App) {
		api := a.Services["api"]
		api.Sticky, api.Health.Grace, api.Scale = time.Hour, time.Minute, tenfold.Bounds{Min: 0, Max: 2}
		a.Services["api"] = api
	})
	explain := func() (string, string) {
		t.Helper()
		x, err := h.Explain(t.Context(), directory.Question{Method: "GET", URL: "http://shop.localhost/api/x", Client: "127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		return x.Answer, fmt.Sprint(x.Lines)
	}
	has := func(answer string, lines ...string) {
		t.Helper()
		a, all := explain()
		if a != answer {
			t.Errorf("answer %q, want %q", a, answer)
		}
		for _, l := range lines {
			if !strings.Contains(all, l) {
				t.Errorf("no %q in\n%s", l, all)
			}
		}
	}
	h.publish(t, directory.Endpoint{ID: "one", Addr: "127.0.0.1:1"})
	has("service api: one, the only task that may be asked", "50/s of a client, bodies to 1mb, heads to 1000 bytes", "services.api.sticky", "may be asked")
	h.publish(t, directory.Endpoint{ID: "one", Addr: "127.0.0.1:1", Release: "a", Weight: 9}, directory.Endpoint{ID: "two", Addr: "127.0.0.1:2", Release: "b"})
	has("service api: the less loaded of two of its tasks taken at random", "its version gets 90 % of requests", "its version gets 10 % of requests")
	h.publish(t)
	has("service api: sleeps, or none of its tasks is healthy: held for up to 1m0s while one starts, then 503")
}

func TestExplainIsWithoutEffect(t *testing.T) {
	h := ruled(t, map[tenfold.Route]tenfold.Rule{"/api/adm/*": {Auth: &tenfold.Auth{Basic: secret("USERS")}, Limit: &tenfold.Limiting{Rate: 1, Per: 1 << 40, By: "route"}}}, map[string]string{"USERS": "ann:" + cheap(t, "wonderland")}, nil)
	r := httptest.NewRequest("GET", "/", nil)
	explain := func(password string) string {
		t.Helper()
		r.SetBasicAuth("ann", password)
		x, err := h.Explain(t.Context(), directory.Question{Method: "GET", URL: "http://shop.localhost/api/adm/x", Client: "127.0.0.1:1", Header: map[string]string{"Authorization": r.Header.Get("Authorization")}})
		if err != nil {
			t.Fatal(err)
		}
		return x.Answer
	}
	for range 12 { // ten guesses are free
		if got := explain("queen"); !strings.HasPrefix(got, "401") {
			t.Fatal(got)
		}
	}
	if got := explain("wonderland"); !strings.HasPrefix(got, "service api") {
		t.Error(got)
	}
	if n := len(h.door.passwords.known); n > 0 {
		t.Errorf("%d passwords are remembered", n)
	}
	r.SetBasicAuth("ann", "queen")
	if res, _ := h.ask(t, "GET", "/api/adm/x", "", "Authorization", r.Header.Get("Authorization")); res.StatusCode != 401 {
		t.Errorf("the first guess: %d", res.StatusCode)
	}
	r.SetBasicAuth("ann", "wonderland")
	if res, _ := h.ask(t, "GET", "/api/adm/x", "", "Authorization", r.Header.Get("Authorization")); res.StatusCode != 200 {
		t.Errorf("the only request that the limit allows: %d", res.StatusCode)
	}
}

func TestExplainKnowsAPreviewsPassword(t *testing.T) {
	h := ruled(t, nil, nil, nil)
	hash := cheap(t, "open sesame")
	s := h.Edge.snapshot(t.Context())
	s.Version, s.Sites[0].Password = 1<<40, hash
	if err := h.door.apply(s); err != nil {
		t.Fatal(err)
	}
	for password, want := range map[string]string{"open sesame": "service api", "abracadabra": "401"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.SetBasicAuth("whoever", password)
		x, err := h.Explain(t.Context(), directory.Question{Method: "GET", URL: "http://shop.localhost/api/x", Client: "127.0.0.1:1", Header: map[string]string{"authorization": r.Header.Get("Authorization")}})
		if err != nil || !strings.HasPrefix(x.Answer, want) {
			t.Errorf("%s: %q %v, want %s", password, x.Answer, err, want)
		}
	}
}

// What no request can be is refused with a word on how to write it, and takes nothing down.
func TestExplainRefusesWhatIsNoRequest(t *testing.T) {
	h := ruled(t, nil, nil, nil)
	for _, q := range []directory.Question{
		{Method: "GET", URL: "http://shop.localhost/a b"},
		{Method: "GET", URL: "http://shop.localhost/a?b=c d"},
		{Method: "GET", URL: "http://shop localhost/"},
		{Method: "GET", URL: "http://shop.localhost/%zz"},
		{Method: "GET", URL: "http://shop.localhost/\x7f"},
		{Method: "GET", URL: "/a"},
		{Method: "G T", URL: "http://shop.localhost/"},
	} {
		if _, err := h.Explain(t.Context(), q); err == nil || !strings.Contains(tenfold.HintOf(err), "%20: https://shop.example.com/a%20b?c=d") {
			t.Errorf("%s %s: %v, hint %q", q.Method, q.URL, err, tenfold.HintOf(err))
		}
		if _, err := h.door.explain(t.Context(), q); err == nil {
			t.Errorf("%s %s: the door takes it", q.Method, q.URL)
		}
	}
	x, err := h.Explain(t.Context(), directory.Question{Method: "GET", URL: "http://shop.localhost/api/a%20b", Client: "127.0.0.1:1"})
	if err != nil || !strings.Contains(fmt.Sprint(x.Lines), "/api/a%20b") {
		t.Errorf("%v %v", x, err)
	}
}

// The files of a release that cannot be read are not told as none, neither by the door nor by explain.
func TestAReleaseThatCannotBeRead(t *testing.T) {
	h := open(t)
	for _, server := range []*tenfold.Workload{nil, {}} {
		h.route(t, "shop", func(a *tenfold.App) {
			a.Frontends["web"] = tenfold.Frontend{Routes: []tenfold.Route{"/*"}, Server: server}
		})
		r := h.release(t, map[string]string{"index.html": fmt.Sprint("home ", server != nil)})
		breakFile(t, filepath.Join(h.cfg.SiteDir(shop), "releases", r.ID, "release.json"))
		res, body := h.ask(t, "GET", "/", "")
		if res.StatusCode != http.StatusInternalServerError || !strings.Contains(body, "cannot be read") {
			t.Errorf("%d %s", res.StatusCode, body)
		}
		x, err := h.Explain(t.Context(), directory.Question{Method: "GET", URL: "http://shop.localhost/", Client: "127.0.0.1:1"})
		if err != nil || !strings.HasPrefix(x.Answer, "500: frontend web cannot be read") {
			t.Errorf("%q %v", x.Answer, err)
		}
	}
}
