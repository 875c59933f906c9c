package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// api answers the RealWorld specification.
type api struct {
	db    *pgxpool.Pool
	cache *cache
	key   []byte

	sessions sessions
	telling  telling
	inbox    inbox
	pictures pictures
}

// failure is an answer that says no: a status and messages by field.
type failure struct {
	status int
	errors map[string][]string
}

func (f *failure) Error() string { return http.StatusText(f.status) }

func invalid(field, message string) error {
	return &failure{http.StatusUnprocessableEntity, map[string][]string{field: {message}}}
}

var (
	errUnauthorized = &failure{http.StatusUnauthorized, map[string][]string{"token": {"is missing or not valid"}}}
	errForbidden    = &failure{http.StatusForbidden, map[string][]string{"token": {"belongs to somebody else"}}}
	errNotFound     = &failure{http.StatusNotFound, map[string][]string{"resource": {"not found"}}}
)

// handler answers a request with a value to be written as JSON. viewer is the signed-in user's id, 0 for nobody.
type handler func(r *http.Request, viewer int64) (any, error)

func (a *api) routes() http.Handler {
	mux := http.NewServeMux()
	open := func(pattern string, h handler) { mux.HandleFunc(pattern, a.serve(h, false)) }
	signed := func(pattern string, h handler) { mux.HandleFunc(pattern, a.serve(h, true)) }

	mux.HandleFunc("GET /api/healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if err := a.db.Ping(ctx); err != nil {
			http.Error(w, "database: "+err.Error(), http.StatusServiceUnavailable)
		}
	})
	open("POST /api/users", a.register)
	open("POST /api/users/login", a.login)
	signed("GET /api/user", a.currentUser)
	signed("PUT /api/user", a.updateUser)
	signed("DELETE /api/user/session", a.logout)
	signed("GET /api/notices", a.notices)
	signed("POST /api/pictures", a.addPicture)
	mux.HandleFunc("GET /api/pictures/{key...}", a.picture)
	open("GET /api/profiles/{username}", a.profile)
	signed("POST /api/profiles/{username}/follow", a.follow)
	signed("DELETE /api/profiles/{username}/follow", a.unfollow)
	open("GET /api/articles", a.listArticles)
	signed("GET /api/articles/feed", a.feed)
	signed("POST /api/articles", a.createArticle)
	open("GET /api/articles/{slug}", a.article)
	signed("PUT /api/articles/{slug}", a.updateArticle)
	signed("DELETE /api/articles/{slug}", a.deleteArticle)
	signed("POST /api/articles/{slug}/favorite", a.favorite)
	signed("DELETE /api/articles/{slug}/favorite", a.unfavorite)
	open("GET /api/articles/{slug}/comments", a.comments)
	signed("POST /api/articles/{slug}/comments", a.addComment)
	signed("DELETE /api/articles/{slug}/comments/{id}", a.deleteComment)
	open("GET /api/tags", a.tags)
	return mux
}

func (a *api) serve(h handler, signed bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		viewer, session, err := a.viewer(r)
		if err != nil {
			log.Printf("%s %s: look up session: %v", r.Method, r.URL.Path, err)
			write(w, http.StatusServiceUnavailable, map[string]any{"errors": map[string][]string{"session": {"cannot be looked up now"}}})
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), sessionKey{}, session))
		if signed && viewer == 0 {
			write(w, http.StatusUnauthorized, map[string]any{"errors": errUnauthorized.errors})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
		v, err := h(r, viewer)
		var f *failure
		switch {
		case err == nil:
			write(w, http.StatusOK, v)
		case errors.As(err, &f):
			write(w, f.status, map[string]any{"errors": f.errors})
		case errors.Is(err, pgx.ErrNoRows):
			write(w, http.StatusNotFound, map[string]any{"errors": errNotFound.errors})
		case errors.Is(err, context.Canceled):
		default:
			log.Printf("%s %s: %v", r.Method, r.URL.Path, err)
			write(w, http.StatusInternalServerError, map[string]any{"errors": map[string][]string{"server": {"failed"}}})
		}
	}
}

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if raw, ok := v.(json.RawMessage); ok {
		w.WriteHeader(status)
		w.Write(raw)
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"errors":{"server":["failed"]}}`)
	}
	w.WriteHeader(status)
	w.Write(b)
}

// read decodes a body such as {"user": {…}} into v.
func read(r *http.Request, field string, v any) error {
	var body map[string]json.RawMessage
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return invalid("body", "is not valid JSON")
	}
	if err := json.Unmarshal(body[field], v); err != nil {
		return invalid(field, "is missing or malformed")
	}
	return nil
}

// sessionKey has, in a request's context, the id of its session.
type sessionKey struct{}

func sessionOf(r *http.Request) string {
	s, _ := r.Context().Value(sessionKey{}).(string)
	return s
}

// token is what a session of a user is proved by.
func (a *api) token(id int64, session string) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		ID:        session,
		Subject:   strconv.FormatInt(id, 10),
		ExpiresAt: jwt.NewNumericDate(time.Now().Add(signedInFor)),
	}).SignedString(a.key)
}

// viewer is the user of the request's token and the session, 0 without a valid one or when the session has ended.
func (a *api) viewer(r *http.Request) (id int64, session string, err error) {
	raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Token ")
	if !ok {
		if raw, ok = strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); !ok {
			return 0, "", nil
		}
	}
	var claims jwt.RegisteredClaims
	_, err = jwt.ParseWithClaims(raw, &claims, func(*jwt.Token) (any, error) { return a.key, nil }, jwt.WithValidMethods([]string{"HS256"}))
	if err != nil {
		return 0, "", nil
	}
	if id, err = strconv.ParseInt(claims.Subject, 10, 64); err != nil {
		return 0, "", nil
	}
	if holds, err := a.sessions.holds(r.Context(), claims.ID, id); err != nil || !holds {
		return 0, "", err
	}
	return id, claims.ID, nil
}

// unique turns a violated constraint into a message about its field.
func unique(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23505" {
		for _, field := range []string{"username", "email", "slug"} {
			if strings.Contains(pg.ConstraintName, field) {
				return invalid(field, "has already been taken")
			}
		}
	}
	return err
}

// stamp writes times as the specification does, with milliseconds.
type stamp time.Time

func (s stamp) MarshalJSON() ([]byte, error) {
	return []byte(time.Time(s).UTC().Format(`"2006-01-02T15:04:05.000Z"`)), nil
}
