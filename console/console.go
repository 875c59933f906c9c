// Package console is the web page that shows the house: apps, tiers, tasks, releases and events, with
// rollback. It is one file without a build step and has no way to data beside control.
//
// The front door leads to it under tenfold.localhost, for callers on this machine only. Begin at Handler.
package console

import (
	_ "embed"
	"net"
	"net/http"
	"strings"

	"tenfold/control"
)

//go:embed console.html
var page []byte

// Handler serves the page, and the control API below /v1/ for it.
func Handler(api control.API) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Write(page)
	})
	mux.Handle("/v1/", control.Handler(api, false))
	return guard(mux)
}

// guard lets in callers on this machine alone, and changes only from the page itself: another site
// that is open in the same browser cannot set the header without asking first, and is not answered.
func guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, hop := range strings.Split(r.Header.Get("X-Forwarded-For"), ",") {
			if ip := net.ParseIP(strings.TrimSpace(hop)); ip == nil || !ip.IsLoopback() {
				http.Error(w, "the console answers on the machine itself only: open a tunnel (ssh -L 8080:127.0.0.1:8080)", http.StatusForbidden)
				return
			}
		}
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if host != "tenfold.localhost" {
			http.Error(w, "open the console as tenfold.localhost", http.StatusForbidden)
			return
		}
		if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
			http.Error(w, "the console answers to its own page only", http.StatusForbidden)
			return
		}
		if r.Method != http.MethodGet && r.Header.Get("X-Tenfold") == "" {
			http.Error(w, "a change needs the header X-Tenfold", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
