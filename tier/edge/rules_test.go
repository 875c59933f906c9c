package edge

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/cloudfront/sign"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"tenfold"
	"tenfold/internal/directory"
	"tenfold/internal/release"
	"tenfold/internal/siterules"
)

// ruled is a house with an echoing service at /api/* and rules; secrets are by name.
func ruled(t *testing.T, rules map[tenfold.Route]tenfold.Rule, secrets map[string]string, more func(*tenfold.App)) *house {
	t.Helper()
	h := open(t)
	h.Edge.cfg.Resolve = func(_ context.Context, b tenfold.Binding) (string, error) {
		v, ok := secrets[string(b.From.Name)]
		if !ok {
			return "", errors.New("no such secret")
		}
		return v, nil
	}
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Partner-Seen", r.Header.Get("X-Partner"))
		w.Header().Set("X-Cookie-Seen", r.Header.Get("Cookie"))
		w.Header().Set("X-Auth-Seen", r.Header.Get("Authorization"))
		w.Header().Set("X-Country-Seen", r.Header.Get("CloudFront-Viewer-Country"))
		w.Header().Set("X-Subject-Seen", r.Header.Get("X-Amzn-Mtls-Clientcert-Subject"))
		w.Header().Set("X-Forwarded-Seen", r.Header.Get("X-Forwarded-For"))
		w.Header().Set("Cache-Control", r.URL.Query().Get("cc"))
		w.Header().Set("Vary", "CloudFront-Viewer-Country")
		if d, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil {
			select {
			case <-time.After(d):
			case <-r.Context().Done():
			}
		}
		fmt.Fprintf(w, "%s %s", r.Method, r.URL.RequestURI())
	})
	h.publish(t, ep)
	got := h.route(t, "shop", func(a *tenfold.App) {
		a.Rules = rules
		if more != nil {
			more(a)
		}
	})
	if got.Failed == got.Goal {
		t.Fatalf("failed: %s", got.Reason)
	}
	return h
}

func secret(name string) *tenfold.Binding {
	return &tenfold.Binding{From: tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindSecret, Name: tenfold.Name(name)}, Field: tenfold.FieldValue, Version: 1}
}

func TestRewritesPassOnAnotherPath(t *testing.T) {
	h := ruled(t, map[tenfold.Route]tenfold.Rule{
		"/v1/*":             {Rewrite: "/api/*", Line: 3},
		"/u/:id/orders/:no": {Rewrite: "/api/orders/:no?user=1"},
		"/old/*":            {Redirect: &tenfold.Redirect{To: "/new/*", Status: 308}},
		"/old/kept/*":       {Rewrite: "/api/kept/*"},
		"/go/:what":         {Redirect: &tenfold.Redirect{To: "/to/:what/x", Status: 302}},
	}, nil, nil)
	for _, c := range []struct{ ask, want string }{
		{"/v1/a%20b?x=1", "GET /api/a%20b?x=1"},
		{"/v1/", "GET /api/"},
		{"/v1//evil.example.com/x", "GET /api//evil.example.com/x"},
		{"/u/7/orders/9?x=1", "GET /api/orders/9?user=1&x=1"},
		{"/old/kept/a", "GET /api/kept/a"},
	} {
		if res, body := h.ask(t, "GET", c.ask, ""); res.StatusCode != 200 || body != c.want {
			t.Errorf("%s: %d %q, want %q", c.ask, res.StatusCode, body, c.want)
		}
	}
	for ask, want := range map[string]string{"/old/a?b=1": "/new/a?b=1", "/go/there": "/to/there/x", "/old//evil.example.com": "/new//evil.example.com", "/old/%0d%0aX-Evil:%201": "/new/%0D%0AX-Evil:%201"} {
		if res, _ := h.ask(t, "GET", ask, ""); res.Header.Get("Location") != want || res.Header.Get("X-Evil") != "" {
			t.Errorf("%s: to %q, want %q", ask, res.Header.Get("Location"), want)
		}
	}
}

func TestRequestHeadersAndCORS(t *testing.T) {
	h := ruled(t, map[tenfold.Route]tenfold.Rule{
		"/api/*":        {Request: map[string]string{"X-Partner": "yes", "Cookie": ""}, CORS: []string{"https://partner.example.com"}},
		"/api/open/*":   {CORS: []string{"*"}},
		"/api/closed/*": {CORS: []string{}},
	}, nil, nil)
	res, _ := h.ask(t, "GET", "/api/x?cc=max-age%3D60", "", "Cookie", "a=b", "Origin", "https://partner.example.com")
	if res.Header.Get("X-Partner-Seen") != "yes" || res.Header.Get("X-Cookie-Seen") != "" {
		t.Errorf("the service saw %v", res.Header)
	}
	if res.Header.Get("Access-Control-Allow-Origin") != "https://partner.example.com" || res.Header.Get("Access-Control-Allow-Credentials") != "true" || !strings.Contains(strings.Join(res.Header.Values("Vary"), ","), "Origin") {
		t.Errorf("an origin that is listed: %v", res.Header)
	}
	// The same answer is stored by now, and must not carry the first one's origin.
	if res, _ = h.ask(t, "GET", "/api/x?cc=max-age%3D60", "", "Origin", "https://evil.example.com"); res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another origin: %v", res.Header)
	}
	res, body := h.ask(t, "OPTIONS", "/api/x", "", "Origin", "https://partner.example.com", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-a, x-b")
	if res.StatusCode != 204 || body != "" || res.Header.Get("Access-Control-Allow-Methods") != "PUT" || res.Header.Get("Access-Control-Allow-Headers") != "x-a, x-b" {
		t.Errorf("preflight: %d %v", res.StatusCode, res.Header)
	}
	if res, _ = h.ask(t, "OPTIONS", "/api/x", "", "Origin", "https://evil.example.com", "Access-Control-Request-Method", "PUT"); res.StatusCode != 204 || res.Header.Get("Access-Control-Allow-Methods") != "" {
		t.Errorf("preflight of another origin: %d %v", res.StatusCode, res.Header)
	}
	if res, _ = h.ask(t, "GET", "/api/open/x", "", "Origin", "https://any.example.com"); res.Header.Get("Access-Control-Allow-Origin") != "*" || res.Header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("all origins: %v", res.Header)
	}
	if res, body = h.ask(t, "OPTIONS", "/api/closed/x", "", "Origin", "https://partner.example.com", "Access-Control-Request-Method", "PUT"); body != "OPTIONS /api/closed/x" {
		t.Errorf("cors: false: %d %q, want the service's own answer", res.StatusCode, body)
	}
}

func TestPasswords(t *testing.T) {
	hash := cheap(t, "hashed") // so that guesses come faster than they are forgiven
	h := ruled(t, map[tenfold.Route]tenfold.Rule{
		"/api/admin/*":      {Auth: &tenfold.Auth{Basic: secret("ADMIN_USERS")}},
		"/api/admin/open/*": {Auth: &tenfold.Auth{Off: true}},
	}, map[string]string{"ADMIN_USERS": "# who may\nann:plain\nbob:" + hash + "\n"}, nil)
	ask := func(path, user, password string) *http.Response {
		t.Helper()
		r := httptest.NewRequest("GET", path, nil)
		r.SetBasicAuth(user, password)
		res, _ := h.ask(t, "GET", path, "", "Authorization", r.Header.Get("Authorization"))
		return res
	}
	if res, _ := h.ask(t, "GET", "/api/admin/x?cc=public,max-age=60", ""); res.StatusCode != 401 || !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Basic realm=") {
		t.Fatalf("nobody: %d %v", res.StatusCode, res.Header)
	}
	for _, c := range []struct {
		user, password string
		want           int
	}{{"ann", "plain", 200}, {"bob", "hashed", 200}, {"ann", "hashed", 401}, {"eve", "plain", 401}, {"ann", "", 401}} {
		res := ask("/api/admin/x?cc=public,max-age=60", c.user, c.password)
		if res.StatusCode != c.want {
			t.Errorf("%s %s: %d, want %d", c.user, c.password, res.StatusCode, c.want)
		}
		if c.want == 200 && (res.Header.Get("Cache-Control") != "private, max-age=60" || res.Header.Get("X-Auth-Seen") != "") {
			t.Errorf("%s: Cache-Control %q, the service saw %q", c.user, res.Header.Get("Cache-Control"), res.Header.Get("X-Auth-Seen"))
		}
	}
	// What is stored is for nobody who does not know a password.
	if res, _ := h.ask(t, "GET", "/api/admin/x?cc=public,max-age=60", ""); res.StatusCode != 401 {
		t.Errorf("nobody, now that it is stored: %d", res.StatusCode)
	}
	if res, _ := h.ask(t, "GET", "/api/admin/open/x", ""); res.StatusCode != 200 {
		t.Errorf("auth: false: %d", res.StatusCode)
	}
	guesses := 0
	for range 40 {
		if res := ask("/api/admin/x", "bob", "guess"); res.StatusCode == 429 && res.Header.Get("Retry-After") != "" {
			guesses++
		}
	}
	if guesses == 0 {
		t.Error("whoever guesses is not slowed down")
	}
	if res := ask("/api/admin/x", "ann", "plain"); res.StatusCode != 200 {
		t.Errorf("one who was right before: %d", res.StatusCode)
	}
}

func TestASiteBehindAPassword(t *testing.T) {
	h := ruled(t, nil, nil, nil)
	hash, _ := HashPassword("open sesame")
	s := h.Edge.snapshot(t.Context())
	s.Version = 1 << 40
	s.Sites[0].Password = hash
	if err := h.door.apply(s); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/api/x", "/", "/nothing"} {
		if res, _ := h.ask(t, "GET", path, ""); res.StatusCode != 401 {
			t.Errorf("%s: %d without the password", path, res.StatusCode)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.SetBasicAuth("whoever", "open sesame")
	if res, _ := h.ask(t, "GET", "/api/x", "", "Authorization", r.Header.Get("Authorization")); res.StatusCode != 200 {
		t.Errorf("%d with the password", res.StatusCode)
	}
}

// Behind a proxy that ends TLS a browser learns of HSTS as at the door itself, on whatever way it is answered.
// A redirect, a refusal and a page of the door's own have what rules set, and HSTS, as answers of the app do; how
// long to keep an answer is said of good ones alone.
func TestFieldsOfRulesAreOnEveryAnswer(t *testing.T) {
	h := ruled(t, map[tenfold.Route]tenfold.Rule{
		"/*":          {Headers: map[string]string{"X-Frame-Options": "DENY", "Cache-Control": "public, max-age=31536000"}},
		"/old/*":      {Redirect: &tenfold.Redirect{To: "/new/*", Status: 301}},
		"/api/in/*":   {Auth: &tenfold.Auth{Allow: []string{"192.0.2.0/24"}}},
		"/api/adm/*":  {Auth: &tenfold.Auth{Basic: secret("USERS")}},
		"/api/few/*":  {Limit: &tenfold.Limiting{Rate: 1, Per: time.Hour, By: "route"}},
		"/api/slim/*": {Limit: &tenfold.Limiting{Body: 10}},
		"/soon/*":     {Maintenance: &tenfold.Page{Body: "<h1>soon</h1>"}},
	}, map[string]string{"USERS": "ann:" + cheap(t, "wonderland")}, func(a *tenfold.App) {
		a.Domains = []string{"shop.example", "www.shop.example"}
		a.Door.Trust, a.Door.HSTS = []string{"127.0.0.0/8"}, time.Hour
	})
	rules, _, err := siterules.Read("_headers", []byte("/assets/*\n  Cache-Control: public, max-age=31536000, immutable\n  ! X-Powered-By\n"), siterules.Netlify)
	if err != nil {
		t.Fatal(err)
	}
	r := h.releaseOf(t, map[string]string{"index.html": "home", "assets/a-0123456789.js": "a"}, release.Meta{Rules: map[string]siterules.Set{"_headers": rules}})
	if err := (release.Site{Dir: h.cfg.SiteDir(shop)}).Switch(r.ID); err != nil {
		t.Fatal(err)
	}
	h.ask(t, "GET", "/api/few/x", "")
	for _, c := range []struct {
		method, path, body string
		status             int
		control            string
	}{
		{"GET", "/", "", 200, "public, max-age=31536000"},
		{"GET", "/old/x", "", 301, "public, max-age=31536000"},
		{"GET", "/api/in/x", "", 403, "no-store"},
		{"GET", "/api/adm/x", "", 401, "no-store"},
		{"GET", "/api/few/x", "", 429, "no-store"},
		{"POST", "/api/slim/x", "more than ten", 413, "no-store"},
		{"GET", "/soon/x", "", 503, "no-store"},
		{"GET", "/assets/a-0123456789.js", "", 200, "public, max-age=31536000"},
		{"GET", "/assets/gone-0123456789.js", "", 404, "no-store"},
	} {
		res, _ := h.ask(t, c.method, c.path, c.body, "X-Forwarded-Proto", "https")
		if got := res.Header; res.StatusCode != c.status || got.Get("X-Frame-Options") != "DENY" || got.Get("Strict-Transport-Security") != "max-age=3600" || got.Get("Cache-Control") != c.control {
			t.Errorf("%s %s: %d, want %d with Cache-Control %q; %v", c.method, c.path, res.StatusCode, c.status, c.control, got)
		}
	}
	for proto, want := range map[string]string{"https": "max-age=3600", "http": ""} {
		if res, _ := h.ask(t, "GET", "/x", "", "Host", "www.shop.example", "X-Forwarded-Proto", proto); res.StatusCode != 301 || res.Header.Get("Strict-Transport-Security") != want {
			t.Errorf("another name of the app, over %s: %d %v", proto, res.StatusCode, res.Header)
		}
	}
}

func TestHSTSBehindAProxy(t *testing.T) {
	h := ruled(t, nil, nil, func(a *tenfold.App) { a.Door.Trust, a.Door.HSTS = []string{"127.0.0.0/8"}, time.Hour })
	for proto, want := range map[string]string{"https": "max-age=3600", "http": ""} {
		for range 3 { // the route is known to be one whose answers are not stored after the first
			if res, _ := h.ask(t, "GET", "/api/x?cc=no-store", "", "X-Forwarded-Proto", proto); res.Header.Get("Strict-Transport-Security") != want {
				t.Errorf("%s: %q, want %q", proto, res.Header.Get("Strict-Transport-Security"), want)
			}
		}
	}
}

// An app that sends browsers to https is not answered for them by what it said to http.
func TestSchemesAreKeptApartBehindAProxy(t *testing.T) {
	h := open(t)
	h.route(t, "shop", func(a *tenfold.App) { a.Door.Trust = []string{"127.0.0.0/8"} })
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if r.Header.Get("X-Forwarded-Proto") != "https" {
			http.Redirect(w, r, "https://shop.localhost"+r.URL.Path, http.StatusMovedPermanently)
		}
	})
	h.publish(t, ep)
	for range 3 {
		for proto, want := range map[string]int{"http": 301, "https": 200} {
			if res, _ := h.ask(t, "GET", "/api/x", "", "X-Forwarded-Proto", proto); res.StatusCode != want {
				t.Errorf("%s: %d, want %d", proto, res.StatusCode, want)
			}
		}
	}
	x, err := h.Explain(t.Context(), directory.Question{Method: "GET", URL: "http://shop.localhost/api/x", Client: "127.0.0.1:1", Header: map[string]string{"X-Forwarded-Proto": "https"}})
	if err != nil || !strings.Contains(fmt.Sprint(x.Lines), "https://shop.localhost/api/x") {
		t.Errorf("%v %v", x, err)
	}
}

func TestBadSecretsFailTheDeployWithAHint(t *testing.T) {
	for value, want := range map[string]string{"": "no line user:password", "ann": "line 1 is not user:password", "ann:$apr1$x$y": "a hash other than bcrypt"} {
		h := open(t)
		h.Edge.cfg.Resolve = func(context.Context, tenfold.Binding) (string, error) { return value, nil }
		got := h.route(t, "shop", func(a *tenfold.App) {
			a.Rules = map[tenfold.Route]tenfold.Rule{"/x": {Auth: &tenfold.Auth{Basic: secret("USERS")}}}
		})
		if got.Failed != got.Goal || !strings.Contains(got.Reason, want) || !strings.Contains(got.Hint, "tenfold secrets set USERS") {
			t.Errorf("%q: %+v", value, got)
		}
	}
}

// What stands in a secret may be another one, put there by mistake: no error repeats it.
func TestErrorsOfKeysDoNotRepeatTheSecret(t *testing.T) {
	for value, want := range map[string]string{
		"hunter2":                                "no public key in PEM",
		`{"K1": "-----BEGIN hunter2"}`:           "what begins on line 1 is not PEM",
		"K1\nhunter2 -----BEGIN\n":               "what begins on line 2 is not PEM",
		"hunter2 x\n" + string(somePublicKey(t)): "before each key stands a line with its id",
		"K1\n" + string(somePublicKey(t)) + "K1\n" + string(somePublicKey(t)): "stands twice",
	} {
		_, err := readKeys(value)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.40q: %v, want %q", value, err, want)
		}
	}
	if keys, err := readKeys("K1:\n" + string(somePublicKey(t))); err != nil || keys["K1"] == "" {
		t.Errorf("a key: %v %v", keys, err)
	}
}

// somePublicKey is one in PEM.
func somePublicKey(t *testing.T) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func TestAddressesAndTrust(t *testing.T) {
	h := ruled(t, map[tenfold.Route]tenfold.Rule{
		"/api/in/*":  {Auth: &tenfold.Auth{Allow: []string{"192.0.2.0/24"}, Deny: []string{"192.0.2.66/32"}}},
		"/api/one/*": {Limit: &tenfold.Limiting{Rate: 1, Per: time.Hour, By: "client"}},
	}, nil, func(a *tenfold.App) { a.Door.Trust = []string{"127.0.0.0/8"} })
	for forwarded, want := range map[string]int{
		"": 403, "192.0.2.7": 200, "192.0.2.66": 403, "198.51.100.1": 403,
		"192.0.2.7, 198.51.100.1": 403, // what stands before an untrusted one may be invented
		"192.0.2.7, 127.0.0.9":    200, "192.0.2.7:4711": 200, "rubbish": 403,
	} {
		var headers []string
		if forwarded != "" {
			headers = []string{"X-Forwarded-For", forwarded}
		}
		if res, _ := h.ask(t, "GET", "/api/in/x", "", headers...); res.StatusCode != want {
			t.Errorf("%q: %d, want %d", forwarded, res.StatusCode, want)
		}
	}
	for _, client := range []string{"192.0.2.1", "192.0.2.2"} {
		if res, _ := h.ask(t, "GET", "/api/one/x", "", "X-Forwarded-For", client); res.StatusCode != 200 {
			t.Errorf("the first of %s: %d", client, res.StatusCode)
		}
		if res, _ := h.ask(t, "GET", "/api/one/x", "", "X-Forwarded-For", client); res.StatusCode != 429 {
			t.Errorf("the second of %s: %d", client, res.StatusCode)
		}
	}
	// The PROXY protocol, from a trusted address.
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "PROXY TCP4 192.0.2.9 192.0.2.1 4711 80\r\nGET /api/in/x HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n")
	answer, _ := io.ReadAll(c)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 200") || !strings.Contains(string(answer), "X-Forwarded-Seen: 192.0.2.9\r\n") {
		t.Errorf("PROXY: %.300s", answer)
	}
}

func TestNobodyIsTrustedUnlessTheManifestSaysSo(t *testing.T) {
	h := ruled(t, map[tenfold.Route]tenfold.Rule{"/api/in/*": {Auth: &tenfold.Auth{Allow: []string{"192.0.2.0/24"}}}}, nil, nil)
	if res, _ := h.ask(t, "GET", "/api/in/x", "", "X-Forwarded-For", "192.0.2.7"); res.StatusCode != 403 {
		t.Errorf("a client's own X-Forwarded-For is believed: %d", res.StatusCode)
	}
}

func publicPEM(t *testing.T, k crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// The signatures are made by AWS's own signer.
func TestCloudFrontSignatures(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := rsa.GenerateKey(rand.Reader, 2048)
	curve, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	h := ruled(t, map[tenfold.Route]tenfold.Rule{"/api/films/*": {Auth: &tenfold.Auth{Signed: secret("FILM_KEYS")}}},
		map[string]string{"FILM_KEYS": "KRSA:\n" + publicPEM(t, key.Public()) + "\nKEC:\n" + publicPEM(t, curve.Public())}, func(a *tenfold.App) { a.Door.Trust = []string{"127.0.0.0/8"} })
	base := "http://shop.localhost/api/films/"
	get := func(address string, cookies ...*http.Cookie) (*http.Response, string) {
		t.Helper()
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		var header []string
		var all []string
		for _, c := range cookies {
			all = append(all, c.Name+"="+c.Value)
		}
		if len(all) > 0 {
			header = []string{"Cookie", strings.Join(all, "; ") + "; mine=1"}
		}
		return h.ask(t, "GET", u.RequestURI(), "", header...)
	}
	expect := func(what string, want int, res *http.Response, body string) {
		t.Helper()
		if res.StatusCode != want {
			t.Errorf("%s: %d %s", what, res.StatusCode, body)
		}
		if want == 200 && (strings.Contains(body, "Signature") || strings.Contains(res.Header.Get("X-Cookie-Seen"), "CloudFront")) {
			t.Errorf("%s: the service sees what was meant for the door: %s, %s", what, body, res.Header.Get("X-Cookie-Seen"))
		}
	}
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	for _, s := range []struct {
		name   string
		signer *sign.URLSigner
	}{{"RSA", sign.NewURLSigner("KRSA", key)}, {"ECDSA", sign.NewURLSigner("KEC", curve)}} {
		signed := func(u string, until time.Time) string {
			out, err := s.signer.Sign(u, until)
			if err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			return out
		}
		canned := signed(base+"a.mp4?quality=hd", soon)
		res, body := get(canned)
		expect(s.name+" canned", 200, res, body)
		if body != "GET /api/films/a.mp4?quality=hd" {
			t.Errorf("passed on as %q", body)
		}
		res, body = get(strings.Replace(canned, "a.mp4", "b.mp4", 1))
		expect(s.name+" of another file", 403, res, body)
		res, body = get(signed(base+"a.mp4", past))
		expect(s.name+" expired", 403, res, body)
	}
	signer := sign.NewURLSigner("KRSA", key)
	custom := func(p *sign.Policy, u string) string {
		out, err := signer.SignWithPolicy(u, p)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	from := func(start time.Time, ip string) *sign.Policy {
		p := &sign.Policy{Statements: []sign.Statement{{Resource: "http*://shop.localhost/api/films/?.*", Condition: sign.Condition{DateLessThan: sign.NewAWSEpochTime(soon)}}}}
		if !start.IsZero() {
			p.Statements[0].Condition.DateGreaterThan = sign.NewAWSEpochTime(start)
		}
		if ip != "" {
			p.Statements[0].Condition.IPAddress = &sign.IPAddress{SourceIP: ip}
		}
		return p
	}
	for _, c := range []struct {
		what   string
		policy *sign.Policy
		file   string
		want   int
	}{
		{"custom", from(time.Time{}, ""), "a.mp4", 200},
		{"custom, another resource", from(time.Time{}, ""), "ab.mp4", 403},
		{"custom, from tomorrow", from(time.Now().Add(24*time.Hour), ""), "a.mp4", 403},
		{"custom, from here", from(past, "127.0.0.0/8"), "a.mp4", 200},
		{"custom, from elsewhere", from(past, "192.0.2.0/24"), "a.mp4", 403},
	} {
		res, body := get(custom(c.policy, base+c.file))
		expect(c.what, c.want, res, body)
	}
	// Before the door a trusted proxy may speak TLS: what is signed is the address that the client sees.
	outside, err := signer.Sign("https://shop.localhost/api/films/a.mp4", soon)
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(outside)
	res, body := h.ask(t, "GET", u.RequestURI(), "", "X-Forwarded-Proto", "https")
	expect("over TLS to a proxy", 200, res, body)
	res, body = get(outside)
	expect("of https, without TLS", 403, res, body)
	res, body = get(base + "a.mp4")
	expect("unsigned", 403, res, body)
	forged, _ := sign.NewURLSigner("KRSA", other).Sign(base+"a.mp4", soon)
	res, body = get(forged)
	expect("another key", 403, res, body)
	cookies, err := sign.NewCookieSigner("KRSA", key).SignWithPolicy(from(time.Time{}, ""))
	if err != nil {
		t.Fatal(err)
	}
	res, body = get(base+"a.mp4?x=1", cookies...)
	expect("cookies", 200, res, body)
	if res.Header.Get("X-Cookie-Seen") != "mine=1" {
		t.Errorf("the service's own cookie: %q", res.Header.Get("X-Cookie-Seen"))
	}
}

func FuzzSigned(f *testing.F) {
	f.Add("Expires=1&Signature=a&Key-Pair-Id=K", `{"Statement":[{"Resource":"*"}]}`, "http*://a/?", "http://a/b")
	f.Fuzz(func(t *testing.T, query, text, pattern, s string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.RawQuery = query
		if checkSigned(map[string]crypto.PublicKey{}, r, "127.0.0.1:1", false, time.Now()) == nil {
			t.Fatal("nothing that is signed by nobody may pass")
		}
		bare, _ := splitSigned(query)
		if again, left := splitSigned(bare); again != bare || len(left) > 0 {
			t.Fatalf("%q still has %v", bare, left)
		}
		if wild(pattern, s) && !strings.ContainsAny(pattern, "*?") && pattern != s {
			t.Fatalf("%q is not %q", pattern, s)
		}
		decodeSigned(text)
	})
}

func TestMaintenanceErrorsAndHeads(t *testing.T) {
	h := ruled(t, map[tenfold.Route]tenfold.Rule{
		"/soon/*":      {Maintenance: &tenfold.Page{Body: "<h1>soon</h1>"}},
		"/api/inner/*": {Maintenance: &tenfold.Page{Body: "<h1>soon</h1>"}, Auth: &tenfold.Auth{Allow: []string{"127.0.0.0/8"}}},
		"/api/slim/*":  {Limit: &tenfold.Limiting{Header: 200}},
		"/api/late/*":  {Timeout: 50 * time.Millisecond},
	}, nil, func(a *tenfold.App) { a.Door.Errors = map[int]tenfold.Page{404: {Body: "<h1>lost</h1>"}} })
	if res, body := h.ask(t, "GET", "/soon/x", "", "Accept", "text/html"); res.StatusCode != 503 || body != "<h1>soon</h1>" || res.Header.Get("Retry-After") == "" || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("maintenance: %d %q %v", res.StatusCode, body, res.Header)
	}
	if res, body := h.ask(t, "POST", "/soon/x", "a"); res.StatusCode != 503 || !strings.Contains(body, `"error"`) {
		t.Errorf("maintenance for a program: %d %q", res.StatusCode, body)
	}
	if res, _ := h.ask(t, "GET", "/api/inner/x", ""); res.StatusCode != 200 {
		t.Errorf("an address that is allowed in: %d", res.StatusCode)
	}
	h.release(t, map[string]string{"index.html": "<p>home</p>"})
	if res, body := h.ask(t, "GET", "/assets/gone-abcdef0123.js", ""); res.StatusCode != 404 || strings.Contains(body, "<") {
		t.Errorf("an asset: %d %q", res.StatusCode, body)
	}
	if res, _ := h.ask(t, "GET", "/api/slim/x", "", "X-Long", strings.Repeat("x", 300)); res.StatusCode != 431 {
		t.Errorf("a long head: %d", res.StatusCode)
	}
	if res, _ := h.ask(t, "GET", "/api/slim/x", ""); res.StatusCode != 200 {
		t.Errorf("a short head: %d", res.StatusCode)
	}
	if res, _ := h.ask(t, "GET", "/api/late/x?wait=20s", ""); res.StatusCode != 504 {
		t.Errorf("a slow answer: %d", res.StatusCode)
	}
	if res, _ := h.ask(t, "GET", "/api/x?wait=80ms", ""); res.StatusCode != 200 || !strings.Contains(res.Header.Get("Server-Timing"), "service;dur=") {
		t.Errorf("elsewhere: %d %v", res.StatusCode, res.Header)
	}
}

func TestThePageOfARouteThatIsNone(t *testing.T) {
	h := open(t)
	h.route(t, "shop", func(a *tenfold.App) {
		a.Frontends = nil
		a.Door.Errors = map[int]tenfold.Page{404: {Body: "<h1>lost</h1>"}}
	})
	if res, body := h.ask(t, "GET", "/nothing", "", "Accept", "text/html"); res.StatusCode != 404 || body != "<h1>lost</h1>" {
		t.Errorf("for a browser: %d %q", res.StatusCode, body)
	}
	if res, body := h.ask(t, "GET", "/nothing", ""); res.StatusCode != 404 || !strings.Contains(body, `"error"`) {
		t.Errorf("for a program: %d %q", res.StatusCode, body)
	}
}

func TestCountries(t *testing.T) {
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-Country", RecordSize: 24})
	if err != nil {
		t.Fatal(err)
	}
	_, network, _ := net.ParseCIDR("203.0.113.0/24")
	if err := tree.Insert(network, mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String("IT")}}); err != nil {
		// The writer refuses networks that are reserved; any other will do.
		_, network, _ = net.ParseCIDR("1.2.3.0/24")
		if err := tree.Insert(network, mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String("IT")}}); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "country.mmdb")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	h := ruled(t, nil, nil, func(a *tenfold.App) {
		a.Door.Trust, a.Door.Geo = []string{"127.0.0.0/8"}, &tenfold.Page{File: "country.mmdb", Copy: file}
	})
	there := network.IP.To4()
	there[3] = 9
	// An answer for one country is stored; who says that he is there does not get it.
	for from, want := range map[int]string{0: "IT", 1: ""} {
		client := []string{there.String(), "192.0.2.1"}[from]
		for range 2 {
			if res, _ := h.ask(t, "GET", "/api/vary?cc=max-age%3D60", "", "X-Forwarded-For", client, "CloudFront-Viewer-Country", "IT"); res.Header.Get("X-Country-Seen") != want {
				t.Errorf("%s is answered for %q", client, res.Header.Get("X-Country-Seen"))
			}
		}
	}
	// So is one for nobody knows where; who is known to be somewhere does not get that either. Each finds
	// its own again.
	for i, client := range []string{"192.0.2.1", there.String(), "192.0.2.1", there.String()} {
		res, _ := h.ask(t, "GET", "/api/unknown?cc=max-age%3D60", "", "X-Forwarded-For", client)
		if want := []string{"", "IT"}[i%2]; res.Header.Get("X-Country-Seen") != want {
			t.Errorf("%s is answered for %q", client, res.Header.Get("X-Country-Seen"))
		}
		if hit := strings.Contains(res.Header.Get("Cache-Status"), "hit"); hit != (i >= 2) {
			t.Errorf("answer %d: %s", i, res.Header.Get("Cache-Status"))
		}
	}
	for client, want := range map[string]string{there.String(): "{country IT", "192.0.2.1": "{country not known"} {
		x, err := h.Explain(t.Context(), directory.Question{Method: "GET", URL: "http://shop.localhost/api/x", Client: client + ":1", Header: map[string]string{"CloudFront-Viewer-Country": "XX"}})
		if err != nil || !strings.Contains(fmt.Sprint(x.Lines), want) {
			t.Errorf("explained for %s: %v %v, want %s", client, x.Lines, err, want)
		}
	}
	for forwarded, want := range map[string]string{there.String(): "IT", "192.0.2.1": ""} {
		if res, _ := h.ask(t, "GET", "/api/x", "", "X-Forwarded-For", forwarded, "CloudFront-Viewer-Country", "XX"); res.Header.Get("X-Country-Seen") != want {
			t.Errorf("%s is in %q, want %q", forwarded, res.Header.Get("X-Country-Seen"), want)
		}
	}
}

// authority makes a CA and a client certificate of it.
func authority(t *testing.T, name string) (ca string, client tls.Certificate) {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	mine, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "client of " + name}, NotBefore: root.NotBefore, NotAfter: root.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	lder, err := x509.CreateCertificate(rand.Reader, leaf, root, mine.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), tls.Certificate{Certificate: [][]byte{lder}, PrivateKey: mine}
}

func TestClientCertificatesByRoute(t *testing.T) {
	one, client1 := authority(t, "one")
	two, client2 := authority(t, "two")
	dir := short(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDoor(DoorConfig{Dir: dir, Control: filepath.Join(dir, "door.sock"), TLSListeners: []net.Listener{l}, Certificates: filepath.Join(dir, "certs")})
	if err != nil {
		t.Fatal(err)
	}
	running(t, d.Run)
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		io.WriteString(w, r.Header.Get("X-Amzn-Mtls-Clientcert-Subject"))
	})
	err = d.apply(directory.Snapshot{Version: 1, Sites: []directory.Site{{
		App: "shop", Env: "production", Hosts: []string{"shop.localhost"}, HSTS: time.Hour,
		Routes:   []directory.Route{{Pattern: "/*", Service: "api"}},
		Rules:    []directory.Rule{{Pattern: "/one/*", Auth: &directory.Auth{MTLS: one}}, {Pattern: "/two/*", Auth: &directory.Auth{MTLS: two}}},
		Services: []directory.Service{{Name: "api", Endpoints: []directory.Endpoint{ep}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(d.keys.Root())
	forced := false
	get := func(path string, certs ...tls.Certificate) (*http.Response, string) {
		t.Helper()
		conf := &tls.Config{RootCAs: roots, ServerName: "shop.localhost", Certificates: certs}
		if forced {
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certs[0], nil }
		}
		tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		r, _ := http.NewRequest("GET", "https://"+l.Addr().String()+path, nil)
		r.Host = "shop.localhost"
		r.Header.Set("X-Amzn-Mtls-Clientcert-Subject", "forged")
		res, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res, string(b)
	}
	if res, body := get("/one/x", client1); res.StatusCode != 200 || body != "CN=client of one" || res.Header.Get("Strict-Transport-Security") != "max-age=3600" {
		t.Errorf("the right certificate: %d %q %v", res.StatusCode, body, res.Header)
	}
	for what, certs := range map[string][]tls.Certificate{"none": nil, "another authority's": {client2}} {
		if res, _ := get("/one/x", certs...); res.StatusCode != 403 { // it is stored by now
			t.Errorf("%s: %d", what, res.StatusCode)
		}
	}
	if res, _ := get("/free"); res.StatusCode != 200 {
		t.Errorf("a route that asks for none: %d", res.StatusCode)
	}
	// A certificate of an authority that nobody named keeps its client from what asks for one, and from nothing else.
	_, alien := authority(t, "three")
	forced = true
	if res, body := get("/one/x", alien); res.StatusCode != 403 || !strings.Contains(body, "another client certificate is needed") {
		t.Errorf("an unknown authority's: %d %s", res.StatusCode, body)
	}
	if res, _ := get("/free", alien); res.StatusCode != 200 {
		t.Errorf("a route that asks for none, of one with an unknown authority's: %d", res.StatusCode)
	}
}

func TestExplainSaysWhatServeDoes(t *testing.T) {
	var asked atomic.Int64
	h := ruled(t, map[tenfold.Route]tenfold.Rule{
		"/old/*":     {Redirect: &tenfold.Redirect{To: "/new/*", Status: 301}, Line: 7},
		"/v1/*":      {Rewrite: "/api/*", Line: 8},
		"/api/in/*":  {Auth: &tenfold.Auth{Allow: []string{"192.0.2.0/24"}}, Line: 9},
		"/api/kept":  {Cache: &tenfold.Caching{Default: time.Minute}, Line: 10},
		"/api/adm/*": {Auth: &tenfold.Auth{Basic: secret("USERS")}, Line: 11},
	}, map[string]string{"USERS": "a:b"}, nil)
	h.publish(t, func() directory.Endpoint {
		ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1) })
		return ep
	}())
	explain := func(method, path, client string) directory.Explanation {
		t.Helper()
		x, err := h.Explain(t.Context(), directory.Question{Method: method, URL: "http://shop.localhost" + path, Client: client})
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, c := range []struct{ method, path, client, answer, line string }{
		{"GET", "/old/a?b", "127.0.0.1:1", "301 to /new/a?b", "edge.routes./old/*, line 7"},
		{"GET", "/v1/a", "127.0.0.1:1", "service api", "/api/a"},
		{"GET", "/api/in/a", "127.0.0.1:1", "403: not allowed from here: 127.0.0.1 is none of the addresses of edge.routes.*.auth.allow", "line 9"},
		{"GET", "/api/in/a", "192.0.2.4:1", "service api", "the right address"},
		{"GET", "/api/adm/a", "127.0.0.1:1", "401", "line 11"},
		{"GET", "/api/kept", "127.0.0.1:1", "service api", "nothing stored"},
		{"POST", "/api/kept", "127.0.0.1:1", "service api", "its method is POST"},
		{"GET", "/page", "127.0.0.1:1", "503: frontend web has no release yet", "/* to frontend web"},
	} {
		x := explain(c.method, c.path, c.client)
		if !strings.HasPrefix(x.Answer, c.answer) || !strings.Contains(fmt.Sprint(x.Lines), c.line) {
			t.Errorf("%s %s: %q, want %q and %q in\n%v", c.method, c.path, x.Answer, c.answer, c.line, x.Lines)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	h.ask(t, "GET", "/api/kept", "")
	eventually(t, "stored", func() bool { return explain("GET", "/api/kept", "127.0.0.1:1").Answer == "the cache" })
}
