package tenfold

import (
	"errors"
	"fmt"
	"strings"
)

// Code is a closed list: what kind of thing went wrong. Boundaries map it to statuses.
type Code string

// The codes.
const (
	CodeInvalid     Code = "invalid"     // the input is wrong: fix it
	CodeNotFound    Code = "not-found"   // nothing of that name
	CodeConflict    Code = "conflict"    // it exists, or is in use, or changed meanwhile
	CodeDenied      Code = "denied"      // not allowed
	CodeMissing     Code = "missing"     // the machine lacks something
	CodeFailed      Code = "failed"      // the user's own command, build or task failed
	CodeUnavailable Code = "unavailable" // not reachable now
	CodeCanceled    Code = "canceled"    // someone stopped it
	CodeInternal    Code = "internal"    // a fault of Tenfold
)

// ExitStatus is the process exit status for a code. 0 is success and 1 a fault of Tenfold.
func (c Code) ExitStatus() int {
	switch c {
	case CodeInvalid:
		return 2
	case CodeNotFound:
		return 3
	case CodeConflict:
		return 4
	case CodeDenied:
		return 5
	case CodeMissing:
		return 6
	case CodeFailed:
		return 7
	case CodeUnavailable:
		return 8
	case CodeCanceled:
		return 130
	}
	return 1
}

// HTTPStatus is the status of the control API for a code.
func (c Code) HTTPStatus() int {
	switch c {
	case CodeInvalid:
		return 400
	case CodeNotFound:
		return 404
	case CodeConflict:
		return 409
	case CodeDenied:
		return 403
	case CodeMissing, CodeFailed:
		return 422
	case CodeUnavailable:
		return 503
	case CodeCanceled:
		return 499
	}
	return 500
}

// Error is what crosses a boundary: to a user, an API client, another process.
type Error struct {
	Code     Code   `json:"code"`
	Op       string `json:"op,omitempty"`       // "start task"
	Resource string `json:"resource,omitempty"` // "service api"
	Detail   string `json:"detail,omitempty"`   // further lines: last output, last probe
	Hint     string `json:"hint,omitempty"`     // what to do next
	Err      error  `json:"-"`
}

// Errorf makes an Error whose message is formatted; %w wraps.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// WithHint sets the hint and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Error reads from the outside in: "service api: start task: …".
func (e *Error) Error() string {
	var b strings.Builder
	for _, s := range []string{e.Resource, e.Op} {
		if s != "" {
			b.WriteString(s + ": ")
		}
	}
	if e.Err != nil {
		b.WriteString(e.Err.Error())
	} else {
		b.WriteString(string(e.Code))
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf is the code of the first Error in err's chain, CodeInternal without one, "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// HintOf is the hint of the first Error in err's chain that has one.
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
