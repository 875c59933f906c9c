package series

import (
	"crypto/sha256"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"tenfold"
	"tenfold/internal/awsapi"
)

// asked is one request as it was understood.
type asked struct {
	entry Entry
	route route
	count *counter
}

// most is the longest body that a route takes.
func (r route) most() int64 {
	if r.protocol == query || r.to == "/query" {
		return mostQuestion
	}
	return mostBody
}

// greet answers those who ask whether somebody is there, as InfluxDB does.
func greet(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Influxdb-Version", "1.8.10")
	if strings.HasSuffix(r.URL.Path, "/ping") {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, `{"name":"series","message":"ready for queries and writes","status":"pass","checks":[]}`+"\n")
}

// admit finds what is asked of which series, and says whether it may be.
func (f *Front) admit(r *http.Request) (asked, error) {
	var a asked
	user, secret, err := credentials(r)
	if err != nil {
		return a, err
	}
	f.mu.RLock()
	k, known := f.keys[sha256.Sum256([]byte(secret))]
	f.mu.RUnlock()
	if !known || user != "" && user != k.User {
		return a, refuse(http.StatusUnauthorized, "unauthorized", "this password is nobody's; a service finds its own in SERIES_URL, which it is given by `uses` in tenfold.yaml")
	}
	name, rest := splitPath(r.URL.Path, func(n tenfold.Name) bool { return f.known(k, n) })
	id := k.Series
	if name != "" {
		id.Name = name
	}
	f.mu.Lock()
	entry, there := f.entries[id.String()]
	allowed := f.may[k.Of.String()][id.String()]
	route, ok := routeOf(rest)
	a = asked{entry: entry, route: route}
	if there && ok {
		a.count = f.counter(id.String(), route.protocol)
	}
	f.mu.Unlock()
	if !allowed.Uses {
		return a, denied(k, id, route)
	}
	if !there {
		return a, refuse(http.StatusServiceUnavailable, "unavailable", "%s is not there yet", id.Short())
	}
	if !ok {
		return a, refuse(http.StatusNotFound, "not found", "%q: %s", cut(rest), unserved(rest))
	}
	return a, f.check(r, a)
}

// known says whether a name is that of a series in the environment of a key.
func (f *Front) known(k Key, n tenfold.Name) bool {
	id := k.Series
	id.Name = n
	f.mu.RLock()
	defer f.mu.RUnlock()
	_, ok := f.entries[id.String()]
	return ok
}

// denied tells which line is missing.
func denied(k Key, id tenfold.ID, r route) error {
	operation := "Write"
	if r.protocol == query || r.protocol == ping {
		operation = "Query"
	}
	c := awsapi.Caller{Of: k.Of.Short(), Line: k.Line}
	return refuse(http.StatusForbidden, "forbidden", "%s", awsapi.Denied(c, "series:"+operation, string(id.Name), string(id.Name)).Message)
}

// check refuses what a series does not take.
func (f *Front) check(r *http.Request, a asked) error {
	e, p := a.entry, a.route.protocol
	switch {
	case !slices.Contains(a.route.methods, r.Method):
		return refuse(http.StatusMethodNotAllowed, "method not allowed", "%q is asked by %s", cut(r.URL.Path), strings.Join(a.route.methods, " or "))
	case p != query && p != ping && len(e.Accept) > 0 && !slices.Contains(e.Accept, p):
		return refuse(http.StatusForbidden, "forbidden", "series.%s.accept has no %s: add it%s", e.ID.Name, p, atLine(e.Line))
	case p == tenfold.SeriesOTLP && !e.OTLP:
		return refuse(http.StatusNotImplemented, "not implemented", "%s has no OTLP: install a newer one (Debian 13 has 1.112), then tenfold down and tenfold up; or write by remote write or by InfluxDB's line protocol", e.Engine)
	case p == tenfold.SeriesRemoteWrite && strings.Contains(r.Header.Get("Content-Type"), "io.prometheus.write.v2"):
		// The engine would take it for the first version and find nothing in it. A sender that is told so goes back to that.
		return refuse(http.StatusUnsupportedMediaType, "unsupported media type", "remote write is served in its version 1.0 (prometheus.WriteRequest)")
	case e.Down != "":
		return refuse(http.StatusServiceUnavailable, "unavailable", "%s does not run: %s", e.ID.Short(), e.Down)
	case r.ContentLength > a.route.most():
		return tooLong(a.route)
	case a.route.to == "/query" && r.Method != http.MethodPost && !influxQL(r.URL.Query().Get("q")):
		return errInfluxQL
	case a.route.to == "/query" && r.Method == http.MethodPost:
		return f.statement(r)
	}
	return nil
}

var errInfluxQL = refuse(http.StatusNotImplemented, "not implemented", "InfluxQL is not served, but for SHOW DATABASES and CREATE DATABASE: ask by PromQL, at /api/v1/query and /api/v1/query_range")

// statement reads InfluxQL that is in a form.
func (f *Front) statement(r *http.Request) error {
	r.Body = http.MaxBytesReader(nil, r.Body, mostQuestion)
	if err := r.ParseForm(); err != nil {
		return refuse(http.StatusBadRequest, "invalid", "read the form: %s", err)
	}
	if !influxQL(r.Form.Get("q")) {
		return errInfluxQL
	}
	r.Body, r.ContentLength = http.NoBody, 0 // the engine is asked by GET
	return nil
}

func tooLong(r route) error {
	return refuse(http.StatusRequestEntityTooLarge, "request too large", "the body is longer than %d MB: write fewer values at once", r.most()>>20)
}

func atLine(n int) string {
	if n == 0 {
		return " in tenfold.yaml"
	}
	return " (tenfold.yaml:" + strconv.Itoa(n) + ")"
}

func cut(s string) string {
	if len(s) > 300 {
		return strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

// credentials are who asks, in each way that clients have: Basic, InfluxDB's Token, Bearer, or u and p.
func credentials(r *http.Request) (user, secret string, err error) {
	h := r.Header.Get("Authorization")
	if user, secret, ok := r.BasicAuth(); ok {
		return user, secret, nil
	}
	scheme, value, _ := strings.Cut(h, " ")
	switch strings.ToLower(scheme) {
	case "token", "bearer":
		if user, secret, ok := strings.Cut(strings.TrimSpace(value), ":"); ok { // as InfluxDB 1.8 has it
			return user, secret, nil
		}
		return "", strings.TrimSpace(value), nil
	case "":
		if q := r.URL.Query(); q.Get("p") != "" {
			return q.Get("u"), q.Get("p"), nil
		}
	}
	return "", "", refuse(http.StatusUnauthorized, "unauthorized", "say who you are: with the user and the password of SERIES_URL, or with that password as a token")
}
