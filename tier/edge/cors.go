package edge

import (
	"net/http"
	"slices"
	"strings"
)

// preflightAge is how long a browser may remember an answer to a preflight; longer, none does.
const preflightAge = "7200"

// isPreflight says that a request is the question that browsers ask before they send one of another
// origin (Fetch §4.8).
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// preflight answers it by the rule alone, since the service would be asked without credentials.
func preflight(w http.ResponseWriter, r *http.Request, origins []string) {
	h := w.Header()
	crossOrigin(h, origins, r.Header.Get("Origin"))
	h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	if h.Get("Access-Control-Allow-Origin") != "" {
		h.Set("Access-Control-Allow-Methods", r.Header.Get("Access-Control-Request-Method"))
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			h.Set("Access-Control-Allow-Headers", asked)
		}
		h.Set("Access-Control-Max-Age", preflightAge)
	}
	w.WriteHeader(http.StatusNoContent)
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
