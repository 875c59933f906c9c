package series

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tenfold"
)

// played is an engine that says what it was asked.
func played(t *testing.T) (port int) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s as %s:%s %q", r.Method, r.URL.RequestURI(), user, password, b)
	}))
	t.Cleanup(s.Close)
	_, p, _ := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	port, _ = strconv.Atoi(p)
	return port
}

func TestWhoMayAskForWhat(t *testing.T) {
	f := newFront(t)
	port := played(t)
	temps, rain := id, id
	temps.Name, rain.Name = "temps", "rain"
	snap := Snapshot{Entries: []Entry{
		{ID: id, Port: port, Password: "engine", OTLP: true, Line: 7},
		{ID: temps, Port: port, Password: "engine", Accept: []string{tenfold.SeriesInflux}, OTLP: true, Line: 8},
		{ID: rain, Port: port, Password: "engine", Engine: "VictoriaMetrics 1.79.5", Line: 9},
	}}
	for _, x := range []tenfold.ID{id, temps, rain} {
		snap.Keys = append(snap.Keys, keysOf(x)...)
	}
	f.Front.Put(snap)
	at := "http://" + f.addr
	const api, in = "api", "let-api-in-prices"
	for _, x := range []struct {
		method, path, user, secret, body string
		fields                           []string
		status                           int
		want                             string
	}{
		{"POST", "/prices/write?db=x", api, in, "a b=1", nil, 200, `POST /write?db=x as tenfold:engine "a b=1"`},
		{"POST", "/write?db=x", api, in, "", nil, 200, `POST /write?db=x as tenfold:engine`},
		{"POST", "/prices/api/v2/write?bucket=y", "", "", "", []string{"Authorization", "Token " + in}, 200, "POST /api/v2/write?bucket=y"},
		{"POST", "/prices/api/v2/write", "", "", "", []string{"Authorization", "Token api:" + in}, 200, "POST /api/v2/write"},
		{"POST", "/api/v1/write", "", "", "", []string{"Authorization", "Bearer " + in}, 200, "POST /api/v1/write"},
		{"POST", "/prices/write?u=api&p=" + in + "&precision=s&authKey=x", "", "", "", nil, 200, "POST /write?precision=s as"},
		{"POST", "/prices/v1/metrics", api, in, "x", nil, 200, "POST /opentelemetry/v1/metrics as"},
		{"POST", "/prices/api/v1/otlp/v1/metrics", api, in, "x", nil, 200, "POST /opentelemetry/v1/metrics as"},
		{"GET", "/prices/api/v1/query?query=up", api, in, "", nil, 200, "GET /api/v1/query?query=up"},
		{"POST", "/prices/api/v1/query_range", api, in, "query=up", nil, 200, `POST /api/v1/query_range as tenfold:engine "query=up"`},
		{"GET", "/prices/api/v1/label/host/values?match[]=up", api, in, "", nil, 200, "GET /api/v1/label/host/values?match[]=up"},
		{"GET", "/prices/ping", api, in, "", nil, 204, ""},
		{"GET", "/ping", "", "", "", nil, 204, ""},
		{"GET", "/prices/query?q=SHOW+DATABASES", api, in, "", nil, 200, "GET /query?q=SHOW+DATABASES"},
		{"POST", "/prices/query", api, in, "q=CREATE+DATABASE+x", []string{"Content-Type", "application/x-www-form-urlencoded"}, 200, "GET /query?q=SHOW+DATABASES"},
		{"GET", "/prices/query?q=SELECT+1", api, in, "", nil, 501, "InfluxQL is not served"},
		{"POST", "/prices/api/v2/query", api, in, "x", nil, 404, "Flux is not served"},
		{"POST", "/temps/write", api, in, "", nil, 200, "POST /write"}, // the service uses both
		{"POST", "/temps/api/v1/write", api, in, "x", nil, 403, "series.temps.accept has no remote-write: add it (tenfold.yaml:8)"},
		{"GET", "/temps/api/v1/query?query=up", api, in, "", nil, 200, "GET /api/v1/query"},
		{"POST", "/prices/api/v1/write", api, in, "x", []string{"Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"}, 415, "version 1.0"},
		{"POST", "/rain/v1/metrics", api, in, "x", nil, 501, "VictoriaMetrics 1.79.5 has no OTLP"},
		{"GET", "/prices/api/v1/query?query=up", "", "", "", nil, 401, "SERIES_URL"},
		{"GET", "/prices/api/v1/query?query=up", api, "wrong", "", nil, 401, "nobody's"},
		{"GET", "/prices/api/v1/query?query=up", "other", in, "", nil, 401, "nobody's"},
		{"GET", "/prices/api/v1/query?query=up", "", "", "", []string{"Authorization", "AWS4-HMAC-SHA256 Credential=x"}, 401, "say who you are"},
		{"GET", "/prices/api/v1/query?query=up", "other", "let-other-in-prices", "", nil, 403, "add `uses: [prices]` to service other (tenfold.yaml:4)"},
		{"POST", "/api/v1/admin/tsdb/delete_series", api, in, "", nil, 404, "nothing is deleted"},
		{"GET", "/prices/metrics", api, in, "", nil, 404, "there is nothing here"},
		{"GET", "/prices/api/v1/label/..%2F..%2Fadmin/values", api, in, "", nil, 404, ""},
		{"GET", "/prices/\n\x01", api, in, "", nil, 0, ""},
		{"GET", "/prices/%0a%01", api, in, "", nil, 404, "there is nothing here"},
		{"DELETE", "/prices/api/v1/series", api, in, "", nil, 405, "is asked by GET or HEAD or POST"},
		{"GET", "/prices/write", api, in, "", nil, 405, "is asked by POST"},
		{"POST", "/prices/api/v1/query", api, in, strings.Repeat("x", mostQuestion+1), nil, 413, "longer than 1 MB"},
	} {
		code, out := send(x.method, at+x.path, x.user, x.secret, x.body, x.fields...)
		if code != x.status || !strings.Contains(out, x.want) {
			t.Errorf("%s %q as %s: %d %s, want %d %s", x.method, x.path, x.user, code, out, x.status, x.want)
		}
	}
	if c := f.Report().Counts[id.String()][tenfold.SeriesInflux]; c.Requests == 0 || c.Bytes < 5 || c.Errors == 0 {
		t.Errorf("%+v", c)
	}
	// What was taken from a service is taken at once.
	for i := range snap.Keys {
		snap.Keys[i].Uses = false
	}
	f.Front.Put(snap)
	if code, out := send("POST", at+"/prices/write", api, in, "a b=1"); code != 403 {
		t.Error(code, out)
	}
}

// A request waits for an engine that starts again, at whatever port, and not for one that was stopped.
func TestRequestsWaitForAnEngine(t *testing.T) {
	f := newFront(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	snap := Snapshot{Entries: []Entry{{ID: id, Port: port}}, Keys: keysOf(id)}
	f.Front.Put(snap)
	type answer struct {
		code int
		out  string
	}
	ask := func() chan answer {
		c := make(chan answer, 1)
		go func() {
			code, out := send("POST", "http://"+f.addr+"/prices/write", "api", "let-api-in-prices", "a b=1")
			c <- answer{code, out}
		}()
		for begun := time.Now(); len(f.held) == 0; <-time.After(time.Millisecond) {
			if time.Since(begun) > 10*time.Second {
				t.Fatal("it is not held")
			}
		}
		return c
	}
	c := ask()
	snap.Entries[0].Port = played(t)
	f.Front.Put(snap)
	if a := <-c; a.code != 200 || !strings.Contains(a.out, `"a b=1"`) {
		t.Error(a)
	}
	f.way.CloseIdleConnections()
	snap.Entries[0].Port = port
	f.Front.Put(snap)
	c = ask()
	snap.Entries[0].Down = "it is stopped"
	f.Front.Put(snap)
	if a := <-c; a.code != 503 || !strings.Contains(a.out, "was stopped") {
		t.Error(a)
	}
	if code, out := send("POST", "http://"+f.addr+"/prices/write", "api", "let-api-in-prices", "a b=1"); code != 503 || !strings.Contains(out, "series prices does not run: it is stopped") {
		t.Error(code, out)
	}
}

// What an engine says in text is told as clients of each protocol read it, without the engine's own words.
func TestErrorsOfAnEngine(t *testing.T) {
	f := newFront(t)
	said, packed := "", false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if packed {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(http.StatusServiceUnavailable)
			z := gzip.NewWriter(w)
			io.WriteString(z, said)
			z.Close()
			return
		}
		http.Error(w, said, http.StatusBadRequest)
	}))
	t.Cleanup(s.Close)
	f.Front.Put(Snapshot{Entries: []Entry{{ID: id, Port: s.Listener.Addr().(*net.TCPAddr).Port}}, Keys: keysOf(id)})
	for _, x := range []struct {
		said   string
		packed bool
		status int
		want   string
	}{
		{`remoteAddr: "127.0.0.1:1"; requestURI: /write; cannot parse the lines`, false, 400, `"message":"cannot parse the lines"`},
		{"cannot parse", false, 400, `"error":"cannot parse"`},
		{`remoteAddr: "127.0.0.1:1"; requestURI: /write; cannot store metrics: the storage is in read-only mode; check -storage.x`, true, 503, `"message":"series prices is read only: less than 256 MB are free on its disk; make room, and it takes values again"`},
	} {
		said, packed = x.said, x.packed
		if code, out := send("POST", "http://"+f.addr+"/prices/write", "api", "let-api-in-prices", "a b=1"); code != x.status || !strings.Contains(out, x.want) {
			t.Errorf("%q: %d %s", x.said, code, out)
		}
	}
	if c := f.Report().Counts[id.String()][tenfold.SeriesInflux]; c.Errors != 3 || c.Requests != 3 {
		t.Errorf("%+v", c)
	}
}

// An engine that dies over a question is asked once more, with the whole body.
func TestABodyIsSentAgain(t *testing.T) {
	f := newFront(t)
	var bodies []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if bodies = append(bodies, string(b)); len(bodies) < 3 {
			c, _, _ := http.NewResponseController(w).Hijack()
			c.Close()
		}
	}))
	t.Cleanup(s.Close)
	_, p, _ := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	port, _ := strconv.Atoi(p)
	f.Front.Put(Snapshot{Entries: []Entry{{ID: id, Port: port}}, Keys: keysOf(id)})
	if code, out := send("POST", "http://"+f.addr+"/prices/write", "api", "let-api-in-prices", "a b=1"); code != 200 || !slices.Equal(bodies, []string{"a b=1", "a b=1", "a b=1"}) {
		t.Error(code, out, bodies)
	}
}

// Whatever is asked, an engine is asked for one of a few paths.
func FuzzPaths(f *testing.F) {
	for path := range routes {
		f.Add("/prices"+path, "db=x")
	}
	f.Add("/api/v1/label/../values", "u=a&p=b&%75=c")
	f.Add("//prices//write", "authkey=1&&=")
	f.Fuzz(func(t *testing.T, path, raw string) {
		name, rest := splitPath(path, func(n tenfold.Name) bool { return n == "prices" })
		if name != "" && (name != "prices" || !strings.HasPrefix(rest, "/")) {
			t.Errorf("%q: %q %q", path, name, rest)
		}
		r, ok := routeOf(rest)
		label := strings.HasPrefix(r.to, "/api/v1/label/") && strings.HasSuffix(r.to, "/values") && strings.Count(r.to, "/") == 5 && !strings.Contains(r.to, "/../") && !strings.Contains(r.to, "/./")
		known := r.to == "" && r.protocol == ping || r.to == otlpPath || routes[r.to].to == r.to && r.to != ""
		if ok && !label && !known {
			t.Errorf("%q leads to %q", path, r.to)
		}
		unserved(rest)
		influxQL(raw)
		for part := range strings.SplitSeq(cleaned(raw), "&") {
			if strings.HasPrefix(part, "u=") || strings.HasPrefix(part, "p=") {
				t.Errorf("%q: %q", raw, part)
			}
		}
	})
}
