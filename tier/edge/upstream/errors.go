package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
)

// Down says that a service has no task that could take a request, and none came while it was held.
type Down struct {
	Service string
	Why     string // what Update was told, or why no more requests are held
}

func (e *Down) Error() string {
	if e.Why == "" {
		return "service " + e.Service + " has no healthy task"
	}
	return "service " + e.Service + " has no healthy task: " + e.Why
}

// Broken says that a task broke off, or answered what cannot be passed on.
type Broken struct {
	Service  string
	Endpoint string // the task's id
	Err      error
}

func (e *Broken) Error() string { return "service " + e.Service + " broke off: " + e.Err.Error() }
func (e *Broken) Unwrap() error { return e.Err }

// BadBody is a request body that the client did not send whole. It wraps *http.MaxBytesError where
// the body was too large.
type BadBody struct{ Err error }

func (e *BadBody) Error() string { return "read request body: " + e.Err.Error() }
func (e *BadBody) Unwrap() error { return e.Err }

// BadRequest is a request that cannot be written to a task without changing its meaning.
type BadRequest struct{ Reason string }

func (e *BadRequest) Error() string { return "pass request on: " + e.Reason }

var (
	// ErrSlow says that the first byte of a response did not come within Policy.Timeout.
	ErrSlow = errors.New("no response in time")
	// ErrSilent says that a response or an upgraded connection carried nothing for Policy.Idle.
	ErrSilent = errors.New("nothing came for too long")
	// ErrClientGone says that the client went away before its answer was complete.
	ErrClientGone = errors.New("the client went away")
)

// errMalformed is a response that is refused: its framing or its fields can be read in two ways.
type errMalformed string

func (e errMalformed) Error() string { return "malformed response: " + string(e) }

// Status gives the status that an error of this package is answered with: 503 while a service is
// down, 504 for a slow one, 502 for one that broke off, 413 and 400 for requests at fault, and 499
// (nginx's, never seen by anybody) when the client is gone.
func Status(err error) int {
	var down *Down
	var large *http.MaxBytesError
	var bad *BadBody
	var request *BadRequest
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &down):
		return http.StatusServiceUnavailable
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrClientGone), errors.Is(err, context.Canceled):
		return 499
	case errors.As(err, &bad), errors.As(err, &request):
		return http.StatusBadRequest
	case errors.Is(err, ErrSlow), errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

// fail is what answers an error when Config.Fail is nil.
func fail(w http.ResponseWriter, _ *http.Request, err error) {
	status := Status(err)
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "2")
	}
	w.WriteHeader(status)
	io.WriteString(w, err.Error()+"\n")
}
