package series

import (
	"net/http"
	"net/url"
	"strings"

	"tenfold"
)

// What is asked, by its path. The paths are those that clients of each protocol know; whose engine answers them is
// nobody's business but ours.

// query and ping are no protocols that are written by.
const (
	query = "query"
	ping  = "ping"
)

// route is what a path leads to.
type route struct {
	protocol string
	to       string // the engine's path
	methods  []string
}

var (
	writes  = []string{http.MethodPost}
	reads   = []string{http.MethodGet, http.MethodHead, http.MethodPost}
	looks   = []string{http.MethodGet, http.MethodHead}
	greeted = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions}
)

// otlpPath is the engine's.
const otlpPath = "/opentelemetry/v1/metrics"

var routes = map[string]route{
	"/write":                   {tenfold.SeriesInflux, "/write", writes},
	"/api/v2/write":            {tenfold.SeriesInflux, "/api/v2/write", writes},
	"/query":                   {tenfold.SeriesInflux, "/query", reads},
	"/ping":                    {ping, "", greeted},
	"/health":                  {ping, "", greeted},
	"/api/v1/write":            {tenfold.SeriesRemoteWrite, "/api/v1/write", writes},
	"/api/v1/otlp/v1/metrics":  {tenfold.SeriesOTLP, otlpPath, writes},
	"/v1/metrics":              {tenfold.SeriesOTLP, otlpPath, writes},
	"/api/v1/query":            {query, "/api/v1/query", reads},
	"/api/v1/query_range":      {query, "/api/v1/query_range", reads},
	"/api/v1/labels":           {query, "/api/v1/labels", reads},
	"/api/v1/series":           {query, "/api/v1/series", reads},
	"/api/v1/metadata":         {query, "/api/v1/metadata", looks},
	"/api/v1/status/buildinfo": {query, "/api/v1/status/buildinfo", looks},
}

// routeOf finds what a path leads to. The engine's path is one of a few, whatever the client's is.
func routeOf(path string) (route, bool) {
	if r, ok := routes[path]; ok {
		return r, true
	}
	rest, ok := strings.CutPrefix(path, "/api/v1/label/")
	name, ok2 := strings.CutSuffix(rest, "/values")
	if !ok || !ok2 || name == "" || len(name) > 1000 || strings.ContainsAny(name, "/\\%?#") || strings.Trim(name, ".") == "" || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return route{}, false
	}
	return route{query, "/api/v1/label/" + name + "/values", looks}, true
}

// splitPath takes the name of a series off a path: /prices/api/v1/query. Which names there are known says. Of a path
// that begins with none the name is "": the password says which series is meant, for clients that drop the path
// of an address.
func splitPath(path string, known func(tenfold.Name) bool) (name tenfold.Name, rest string) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if first == "" || !known(tenfold.Name(first)) {
		return "", path
	}
	return tenfold.Name(first), "/" + rest
}

// unserved says what to do instead about a path that leads nowhere.
func unserved(path string) string {
	switch {
	case strings.HasPrefix(path, "/api/v2/query"):
		return "Flux is not served: ask by PromQL, at /api/v1/query and /api/v1/query_range"
	case strings.Contains(path, "/admin/") || strings.Contains(path, "delete") || strings.HasPrefix(path, "/snapshot") || strings.HasPrefix(path, "/internal"):
		return "nothing is deleted or administered here: values go when keep of tenfold.yaml is over"
	case path == "/v1/traces" || path == "/v1/logs":
		return "of OTLP there are metrics alone, at /v1/metrics"
	}
	return "there is nothing here; values are written at /write, /api/v2/write, /api/v1/write or /v1/metrics, and asked for at /api/v1/query and /api/v1/query_range"
}

// influxQL says whether a statement of InfluxQL can be answered: clients make sure that their database is there before
// they write.
func influxQL(statement string) bool {
	words := strings.Fields(strings.ToLower(strings.TrimRight(strings.TrimSpace(statement), ";")))
	return len(words) == 2 && words[0] == "show" && words[1] == "databases" || len(words) >= 3 && words[0] == "create" && words[1] == "database"
}

// cleaned are the parameters of a request without who asks.
func cleaned(raw string) string {
	var out []string
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		if name, err := url.QueryUnescape(name); part == "" || err != nil || name == "u" || name == "p" || strings.EqualFold(name, "authKey") {
			continue
		}
		out = append(out, part)
	}
	return strings.Join(out, "&")
}
