package function

import (
	"context"
	"crypto/subtle"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"tenfold"
	"tenfold/internal/httproute"
	"tenfold/tier/function/event"
	"tenfold/tier/function/runtimeapi"
)

// FieldFunction is the field by which the front door says which function a request is for, and FieldPass shows that it
// is the door who says so. The door sets both itself: what a client says there does not arrive.
const (
	FieldFunction = "Tenfold-Function"
	FieldPass     = "Tenfold-Pass"
)

// Gateway answers requests by functions: as API Gateway and function URLs do, or a load balancer.
func (v *Invoker) gateway(w http.ResponseWriter, r *http.Request) {
	id, err := tenfold.ParseID(r.Header.Get(FieldFunction))
	if err != nil {
		http.Error(w, "no function is named", http.StatusNotFound)
		return
	}
	f, err := v.find(r.Context(), id)
	if err != nil {
		message(w, http.StatusNotFound, "Not Found")
		return
	}
	f.mu.Lock()
	g := f.goal
	f.mu.Unlock()
	if g.Pass == "" || subtle.ConstantTimeCompare([]byte(r.Header.Get(FieldPass)), []byte(g.Pass)) != 1 {
		message(w, http.StatusForbidden, "Forbidden")
		return
	}
	route, params, ok := matched(g.Routes, r)
	if !ok {
		message(w, http.StatusNotFound, "Not Found")
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, runtimeapi.MaxEvent+1))
	if err != nil {
		message(w, http.StatusBadRequest, "Bad Request")
		return
	}
	if len(body) > runtimeapi.MaxEvent {
		message(w, http.StatusRequestEntityTooLarge, "Request Too Long")
		return
	}
	r.Header.Del(FieldFunction)
	r.Header.Del(FieldPass)
	request := uuid.NewString()
	payload, err := event.Request(r, body, event.Source{Form: g.Form, ID: request, Account: g.Account, API: string(id.App) + "-" + strings.ReplaceAll(string(id.Env), "/", "-"), Route: route, Params: params, Client: clientOf(r), At: time.Now()})
	if err != nil {
		message(w, http.StatusBadRequest, "Bad Request")
		return
	}
	s := &httpSink{w: w, form: g.Form}
	_, err = f.invoke(r.Context(), runtimeapi.Invocation{ID: request, Payload: payload, Trace: traceOf(r)}, false, s)
	var busy *Throttled
	switch {
	case s.began && err != nil, s.err != nil && s.began:
		panic(http.ErrAbortHandler) // half a response must not look like a whole one
	case errors.As(err, &busy):
		w.Header().Set("Retry-After", "1")
		message(w, http.StatusTooManyRequests, "Too Many Requests")
	case errors.Is(err, context.Canceled):
	case err != nil:
		message(w, http.StatusBadGateway, "Internal Server Error")
	case s.streamed:
		s.finish()
	default:
		s.answer()
	}
}

// message is an answer in the words of API Gateway.
func message(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	io.WriteString(w, `{"message":"`+text+`"}`)
}

// matched is the route that a request came by, with what its segments stand for.
func matched(routes []string, r *http.Request) (route string, params map[string]string, ok bool) {
	var t httproute.Table[struct{}]
	for _, s := range routes {
		if t.Add(s, struct{}{}) != nil {
			return "", nil, false
		}
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	t.All(r.Method, strings.ToLower(host), r.URL.Path, func(pattern, rest string, _ struct{}) bool {
		route, ok = pattern, true
		if rest != "" {
			params = map[string]string{"proxy": rest}
		}
		return false
	})
	if !ok {
		return "", nil, false
	}
	_, path, _ := strings.Cut(route, "/")
	given := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	for i, seg := range strings.Split(path, "/") {
		if strings.HasPrefix(seg, ":") && i < len(given) {
			if params == nil {
				params = map[string]string{}
			}
			params[seg[1:]] = given[i]
		}
	}
	if len(routes) == 1 && strings.HasSuffix(route, "/*") && strings.Count(route, "/") == 1 {
		route = "" // it takes everything: $default
		params = nil
	}
	return route, params, true
}

// clientOf is the client's address, as the front door says it.
func clientOf(r *http.Request) string {
	if f := r.Header.Get("X-Forwarded-For"); f != "" {
		first, _, _ := strings.Cut(f, ",")
		return strings.TrimSpace(first)
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// traceOf gives a request's trace in X-Ray's form.
func traceOf(r *http.Request) string {
	p := strings.Split(r.Header.Get("Traceparent"), "-")
	if len(p) != 4 || len(p[1]) != 32 || len(p[2]) != 16 {
		return ""
	}
	sampled := "0"
	if strings.HasSuffix(p[3], "1") {
		sampled = "1"
	}
	return "Root=1-" + p[1][:8] + "-" + p[1][8:] + ";Parent=" + p[2] + ";Sampled=" + sampled
}

// httpSink turns what a function says into an HTTP response.
type httpSink struct {
	w        http.ResponseWriter
	form     string
	streamed bool
	prelude  bool // metadata comes first
	began    bool // the head was sent
	body     []byte
	err      error
}

// Begin implements runtimeapi.Sink.
func (s *httpSink) Begin(contentType string, streamed bool) {
	s.streamed = streamed
	if !streamed {
		return
	}
	if s.prelude = strings.HasPrefix(contentType, event.Prelude); !s.prelude {
		if contentType == "" {
			contentType = "application/octet-stream"
		}
		s.w.Header().Set("Content-Type", contentType)
	}
}

// Write implements io.Writer.
func (s *httpSink) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	switch {
	case !s.streamed:
		s.body = append(s.body, p...)
		return len(p), nil
	case s.prelude:
		s.body = append(s.body, p...)
		a, rest, ok, err := event.CutPrelude(s.body)
		if s.err = err; err != nil || !ok {
			return len(p), err
		}
		s.prelude, s.body = false, nil
		s.head(a)
		s.send(rest)
	default:
		s.send(p)
	}
	return len(p), s.err
}

func (s *httpSink) head(a event.Answer) {
	for name, values := range a.Header {
		s.w.Header()[name] = values
	}
	s.began = true
	s.w.WriteHeader(a.Status)
}

func (s *httpSink) send(p []byte) {
	s.began = true
	if len(p) > 0 {
		if _, s.err = s.w.Write(p); s.err != nil {
			return
		}
	}
	s.err = http.NewResponseController(s.w).Flush()
}

// finish ends a streamed response.
func (s *httpSink) finish() {
	if s.prelude { // it ended within its metadata
		message(s.w, http.StatusBadGateway, "Internal Server Error")
	}
}

// answer sends a whole response.
func (s *httpSink) answer() {
	a, err := event.Response(s.body, s.form)
	if err != nil {
		message(s.w, http.StatusBadGateway, "Internal Server Error")
		return
	}
	s.head(a)
	s.w.Write(a.Body)
}
