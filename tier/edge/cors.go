package edge

import (
	"net/http"
	"slices"
	"strings"
)

// preflightAge is how long a browser may remember an answer to a preflight; longer, none does.
const preflightAge = "7200"

// preflight answers the question that browsers ask before they send a request of another origin
// (Fetch §4.8): by the rule alone, since the service would be asked without credentials.
func preflight(w http.ResponseWriter, r *http.Request, origins []string) bool {
	origin, method := r.Header.Get("Origin"), r.Header.Get("Access-Control-Request-Method")
	if r.Method != http.MethodOptions || origin == "" || method == "" || len(origins) == 0 {
		return false
	}
	h := w.Header()
	crossOrigin(h, origins, origin)
	h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	if h.Get("Access-Control-Allow-Origin") != "" {
		h.Set("Access-Control-Allow-Methods", method)
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			h.Set("Access-Control-Allow-Headers", asked)
		}
		h.Set("Access-Control-Max-Age", preflightAge)
	}
	w.WriteHeader(http.StatusNoContent)
	return true
}

// crossOrigin sets what lets a page of another origin read an answer. What the service says of it gives way.
func crossOrigin(h http.Header, origins []string, origin string) {
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-Allow-") {
			delete(h, name)
		}
	}
	if slices.Contains(origins, "*") {
		h.Set("Access-Control-Allow-Origin", "*")
		return
	}
	h.Add("Vary", "Origin")
	if slices.Contains(origins, strings.ToLower(origin)) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
}
