package control

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tenfold"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 1 << 20

// Handler serves api under /v1/. Local says that the caller has the data directory's own rights
// (the unix socket): only then Environ, which hands out secrets, is answered.
func Handler(api API, local bool) http.Handler {
	mux := http.NewServeMux()
	s := server{api, local}
	mux.HandleFunc("GET /v1/house", s.house)
	mux.HandleFunc("POST /v1/house/shutdown", s.shutdown)
	mux.HandleFunc("POST /v1/house/upgrade", s.upgrade)
	mux.HandleFunc("POST /v1/deploys", s.deploy)
	mux.HandleFunc("POST /v1/sources", s.upload)
	mux.HandleFunc("GET /v1/kept", s.kept)
	mux.HandleFunc("GET /v1/events", s.events)
	mux.HandleFunc("GET /v1/audit", s.audit)
	mux.HandleFunc("GET /v1/metrics", s.metrics)
	mux.HandleFunc("POST /v1/run", s.run)
	mux.HandleFunc("GET /v1/secrets/{app}", s.secrets)
	mux.HandleFunc("PUT /v1/secrets/{app}/{name}", s.setSecret)
	mux.HandleFunc("DELETE /v1/secrets/{app}/{name}", s.removeSecret)
	const env = "/v1/apps/{app}/{env}"
	mux.HandleFunc("GET "+env, s.status)
	mux.HandleFunc("GET "+env+"/revisions", s.revisions)
	mux.HandleFunc("GET "+env+"/revisions/{revision}/outcome", s.wait)
	mux.HandleFunc("POST "+env+"/rollback", s.rollback)
	mux.HandleFunc("POST "+env+"/decide", s.decide)
	mux.HandleFunc("POST "+env+"/down", s.down)
	mux.HandleFunc("DELETE "+env+"/data/{kind}/{name}", s.removeData)
	mux.HandleFunc("PUT "+env+"/scale/{name}", s.scale)
	mux.HandleFunc("POST "+env+"/purge", s.purge)
	mux.HandleFunc("POST "+env+"/explain", s.explain)
	s.gitRoutes(mux)
	s.dbRoutes(mux)
	s.cacheRoutes(mux)
	s.functionRoutes(mux)
	s.storeRoutes(mux)
	s.bucketRoutes(mux)
	mux.HandleFunc("GET "+env+"/releases/{name}", s.releases)
	mux.HandleFunc("PUT "+env+"/releases/{name}", s.switchRelease)
	mux.HandleFunc("GET "+env+"/logs", s.logs)
	mux.HandleFunc("GET "+env+"/runs", s.runs)
	mux.HandleFunc("GET "+env+"/environ/{kind}/{name}", s.environ)
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, tenfold.Errorf(tenfold.CodeNotFound, "no such call: %s %s", r.Method, r.URL.Path).WithHint("compare the versions: tenfold version"))
	})
	return mux
}

// RequireToken lets only requests with "Authorization: Bearer <token>" pass to h.
func RequireToken(token string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || subtle.ConstantTimeCompare([]byte(got), []byte(token)) != 1 {
			fail(w, tenfold.Errorf(tenfold.CodeDenied, "the token is missing or wrong").WithHint("set TENFOLD_TOKEN to the content of the file token in the server's data directory"))
			return
		}
		h.ServeHTTP(w, r)
	})
}

type server struct {
	api   API
	local bool
}

func envOf(r *http.Request) Env {
	return Env{App: tenfold.AppName(r.PathValue("app")), Env: tenfold.Environment(r.PathValue("env"))}
}

func nameOf(r *http.Request) tenfold.Name { return tenfold.Name(r.PathValue("name")) }

func idOf(r *http.Request) tenfold.ID {
	e := envOf(r)
	return tenfold.ID{App: e.App, Env: e.Env, Kind: tenfold.Kind(r.PathValue("kind")), Name: nameOf(r)}
}

func (s server) house(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.House(r.Context())) }
func (s server) kept(w http.ResponseWriter, r *http.Request)  { reply(w)(s.api.Kept(r.Context())) }
func (s server) status(w http.ResponseWriter, r *http.Request) {
	reply(w)(s.api.Status(r.Context(), envOf(r)))
}

func (s server) revisions(w http.ResponseWriter, r *http.Request) {
	reply(w)(s.api.Revisions(r.Context(), envOf(r)))
}

func (s server) wait(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.PathValue("revision"), 10, 64)
	if err != nil {
		fail(w, tenfold.Errorf(tenfold.CodeInvalid, "revision %q is no number", r.PathValue("revision")))
		return
	}
	reply(w)(s.api.Wait(r.Context(), envOf(r), tenfold.Revision(n)))
}

func (s server) shutdown(w http.ResponseWriter, r *http.Request) {
	done(w, s.api.Shutdown(r.Context()))
}
func (s server) down(w http.ResponseWriter, r *http.Request) {
	done(w, s.api.Down(r.Context(), envOf(r)))
}

func (s server) upgrade(w http.ResponseWriter, r *http.Request) {
	if !s.local {
		fail(w, tenfold.Errorf(tenfold.CodeDenied, "an upgrade is asked for on the machine itself").WithHint("run tenfold upgrade on the server"))
		return
	}
	var req upgrade
	if read(w, r, &req) {
		done(w, s.api.Upgrade(r.Context(), req.Binary, req.Linger))
	}
}

func (s server) removeData(w http.ResponseWriter, r *http.Request) {
	done(w, s.api.RemoveData(r.Context(), idOf(r)))
}

func (s server) deploy(w http.ResponseWriter, r *http.Request) {
	var req DeployRequest
	if read(w, r, &req) {
		reply(w)(s.api.Deploy(r.Context(), req))
	}
}

func (s server) upload(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Time{})
	rc.SetWriteDeadline(time.Time{})
	dir, err := s.api.Upload(r.Context(), r.FormValue("origin"), r.Body)
	reply(w)(map[string]string{"dir": dir}, err)
}

func (s server) rollback(w http.ResponseWriter, r *http.Request) {
	var req struct{ To tenfold.Revision }
	if read(w, r, &req) {
		reply(w)(s.api.Rollback(r.Context(), envOf(r), req.To))
	}
}

func (s server) decide(w http.ResponseWriter, r *http.Request) {
	var req decision
	if read(w, r, &req) {
		text, err := s.api.Decide(r.Context(), envOf(r), req.Promote, req.Actor)
		reply(w)(decided{text}, err)
	}
}

// decision and decided are what Decide asks and answers.
type decision struct {
	Promote bool   `json:"promote"`
	Actor   string `json:"actor,omitempty"`
}

type decided struct {
	Text string `json:"text"`
}

func (s server) scale(w http.ResponseWriter, r *http.Request) {
	var b tenfold.Bounds
	if read(w, r, &b) {
		done(w, s.api.Scale(r.Context(), envOf(r), nameOf(r), b))
	}
}

func (s server) purge(w http.ResponseWriter, r *http.Request) {
	var p Purge
	if read(w, r, &p) {
		n, err := s.api.Purge(r.Context(), envOf(r), p)
		reply(w)(map[string]int{"count": n}, err)
	}
}

func (s server) explain(w http.ResponseWriter, r *http.Request) {
	var q Question
	if read(w, r, &q) {
		reply(w)(s.api.Explain(r.Context(), envOf(r), q))
	}
}

func (s server) releases(w http.ResponseWriter, r *http.Request) {
	reply(w)(s.api.Releases(r.Context(), envOf(r), nameOf(r)))
}

func (s server) switchRelease(w http.ResponseWriter, r *http.Request) {
	var req struct{ ID tenfold.ReleaseID }
	if read(w, r, &req) {
		done(w, s.api.SwitchRelease(r.Context(), envOf(r), nameOf(r), req.ID))
	}
}

func (s server) secrets(w http.ResponseWriter, r *http.Request) {
	reply(w)(s.api.Secrets(r.Context(), tenfold.AppName(r.PathValue("app"))))
}

func (s server) setSecret(w http.ResponseWriter, r *http.Request) {
	var req struct{ Value string }
	if read(w, r, &req) {
		v, err := s.api.SetSecret(r.Context(), tenfold.AppName(r.PathValue("app")), nameOf(r), req.Value)
		reply(w)(map[string]int64{"version": v}, err)
	}
}

func (s server) removeSecret(w http.ResponseWriter, r *http.Request) {
	done(w, s.api.RemoveSecret(r.Context(), tenfold.AppName(r.PathValue("app")), nameOf(r)))
}

func (s server) audit(w http.ResponseWriter, r *http.Request) {
	limit, _ := strconv.Atoi(r.FormValue("limit"))
	reply(w)(s.api.Audit(r.Context(), tenfold.AppName(r.FormValue("app")), limit))
}

func (s server) environ(w http.ResponseWriter, r *http.Request) {
	if !s.local {
		fail(w, tenfold.Errorf(tenfold.CodeDenied, "secrets are handed out on the machine itself only").WithHint("run this on the server, as the user that owns the data directory"))
		return
	}
	reply(w)(s.api.Environ(r.Context(), idOf(r), r.FormValue("tool")))
}

func (s server) metrics(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	if err := s.api.Metrics(r.Context(), w); err != nil {
		fail(w, err)
	}
}

func (s server) events(w http.ResponseWriter, r *http.Request) {
	q := EventQuery{Env: Env{tenfold.AppName(r.FormValue("app")), tenfold.Environment(r.FormValue("env"))}, Follow: r.FormValue("follow") == "true"}
	q.After, _ = strconv.ParseInt(r.FormValue("after"), 10, 64)
	q.Tail, _ = strconv.Atoi(r.FormValue("tail"))
	stream(w, r, func(ctx context.Context, yield func(tenfold.Event) error) error { return s.api.Events(ctx, q, yield) })
}

func (s server) logs(w http.ResponseWriter, r *http.Request) {
	q := LogQuery{Env: envOf(r), Name: tenfold.Name(r.FormValue("name")), Follow: r.FormValue("follow") == "true", Grep: r.FormValue("grep")}
	q.Tail, _ = strconv.Atoi(r.FormValue("tail"))
	q.Since, _ = time.ParseDuration(r.FormValue("since"))
	q.Until, _ = time.ParseDuration(r.FormValue("until"))
	stream(w, r, func(ctx context.Context, yield func(LogLine) error) error { return s.api.Logs(ctx, q, yield) })
}

func (s server) runs(w http.ResponseWriter, r *http.Request) {
	reply(w)(s.api.Runs(r.Context(), envOf(r), tenfold.Name(r.FormValue("job"))))
}

func (s server) run(w http.ResponseWriter, r *http.Request) {
	var req RunRequest
	if read(w, r, &req) {
		stream(w, r, func(ctx context.Context, yield func(LogLine) error) error { return s.api.Run(ctx, req, yield) })
	}
}

// stream writes what f yields, a JSON object a line. An error after the first line is a last line
// {"error": …}, since the status is out already.
func stream[T any](w http.ResponseWriter, r *http.Request, f func(context.Context, func(T) error) error) {
	rc := http.NewResponseController(w)
	rc.SetWriteDeadline(time.Time{})
	enc := json.NewEncoder(w)
	started := false
	begin := func() {
		if !started {
			started = true
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusOK)
			rc.Flush()
		}
	}
	if r.FormValue("follow") == "true" {
		begin()
	}
	err := f(r.Context(), func(v T) error {
		begin()
		if err := enc.Encode(v); err != nil {
			return err
		}
		return rc.Flush()
	})
	switch {
	case err == nil:
		begin()
	case !started:
		fail(w, err)
	case r.Context().Err() == nil:
		enc.Encode(wire(err))
	}
}

// failure is an error on the wire.
type failure struct {
	Error *wireError `json:"error"`
}

type wireError struct {
	tenfold.Error
	Message string `json:"message"`
}

func wire(err error) failure {
	e := &wireError{Message: err.Error()}
	var te *tenfold.Error
	if errors.As(err, &te) {
		e.Error = *te
		if e.Hint == "" {
			e.Hint = tenfold.HintOf(err)
		}
	} else {
		e.Code = tenfold.CodeOf(err)
		if errors.Is(err, context.Canceled) {
			e.Code = tenfold.CodeCanceled
		}
	}
	return failure{e}
}

func fail(w http.ResponseWriter, err error) {
	f := wire(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.Error.Code.HTTPStatus())
	json.NewEncoder(w).Encode(f)
}

func reply(w http.ResponseWriter) func(any, error) {
	return func(v any, err error) {
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		json.NewEncoder(w).Encode(v)
	}
}

func done(w http.ResponseWriter, err error) { reply(w)(struct{}{}, err) }

func read(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil && d.Decode(new(json.RawMessage)) != io.EOF {
		err = errors.New("something follows the object")
	}
	if err != nil {
		fail(w, tenfold.Errorf(tenfold.CodeInvalid, "read request: %w", err))
		return false
	}
	return true
}
