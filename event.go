package tenfold

import (
	"context"
	"time"
)

// Severity orders events; an alarm is an event of SeverityAlarm until alarms have a tier of their own.
type Severity string

// The severities.
const (
	SeverityProgress Severity = "progress" // still going on: replaces the last progress of its resource on a terminal
	SeverityInfo     Severity = "info"     // done: one line with ✓
	SeverityWarning  Severity = "warning"
	SeverityError    Severity = "error" // one line with ✗, Detail and Hint below
	SeverityAlarm    Severity = "alarm"
)

// Event is something that happened to a resource, in words for people: what deploy output, console
// and audit log print. It never holds a secret.
type Event struct {
	Seq      int64         `json:"seq,omitempty"` // set by the store, grows
	At       time.Time     `json:"at"`
	ID       ID            `json:"id"`
	Severity Severity      `json:"severity"`
	Text     string        `json:"text"`             // "task 1 of 2 healthy: GET /healthz answered 200"
	Took     time.Duration `json:"took,omitempty"`   // of what Text says
	Detail   string        `json:"detail,omitempty"` // lines such as "last output  …"
	Hint     string        `json:"hint,omitempty"`
}

// Emit records an event. It never blocks for long and is safe for concurrent use.
type Emit func(Event)

// Resolve looks up the value of a binding when a process starts. The values are secret: they go
// into an environment, never into a log, a spec or an argument.
type Resolve func(context.Context, Binding) (string, error)
