package control

import (
	"net/http"

	"tenfold"
)

// gitRoutes are those of repositories, keys and previews.
func (s server) gitRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/git/connect", func(w http.ResponseWriter, r *http.Request) {
		var q GitConnect
		if read(w, r, &q) {
			reply(w)(s.api.GitConnect(r.Context(), q))
		}
	})
	mux.HandleFunc("DELETE /v1/git/connect", func(w http.ResponseWriter, r *http.Request) {
		done(w, s.api.GitDisconnect(r.Context(), tenfold.AppName(r.FormValue("app"))))
	})
	mux.HandleFunc("GET /v1/git/keys", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.GitKeys(r.Context())) })
	mux.HandleFunc("POST /v1/git/keys", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Name, Line string }
		if read(w, r, &q) {
			reply(w)(s.api.AddGitKey(r.Context(), q.Name, q.Line))
		}
	})
	mux.HandleFunc("DELETE /v1/git/keys", func(w http.ResponseWriter, r *http.Request) {
		done(w, s.api.RemoveGitKey(r.Context(), r.FormValue("which")))
	})
	mux.HandleFunc("GET /v1/previews", func(w http.ResponseWriter, r *http.Request) {
		reply(w)(s.api.Previews(r.Context(), tenfold.AppName(r.FormValue("app"))))
	})
	mux.HandleFunc("POST /v1/previews/remove", func(w http.ResponseWriter, r *http.Request) {
		var q named
		if read(w, r, &q) {
			done(w, s.api.RemovePreview(r.Context(), q.App, q.Name))
		}
	})
	mux.HandleFunc("POST /v1/previews/approve", func(w http.ResponseWriter, r *http.Request) {
		var q approval
		if read(w, r, &q) {
			reply(w)(s.api.ApprovePreview(r.Context(), q.App, q.Name, q.Commit))
		}
	})
}
