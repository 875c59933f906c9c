package compute

import (
	"time"

	"tenfold"
)

// version is a service spec as it was applied.
type version struct {
	Spec        serviceSpec  `json:"spec"`
	Needs       []tenfold.ID `json:"needs,omitempty"`
	Fingerprint string       `json:"fingerprint"`
	Version     string       `json:"version"`
}

// deployment is one attempt to bring a version to users.
type deployment struct {
	Number   tenfold.DeploymentID `json:"number"`
	To       version              `json:"to"`
	Began    time.Time            `json:"began"`
	Migrated bool                 `json:"migrated,omitempty"`
	// Tried is when its first tasks got requests beside the old ones. Passed says, of a canary, what ended
	// that: one of passedGood and so on; Tested how long it took.
	Tried  time.Time     `json:"tried,omitzero"`
	Passed string        `json:"passed,omitempty"`
	Tested time.Duration `json:"tested,omitempty"`
}

// The phases of a task. A task that was started by hand of the record exists only while it is in it.
const (
	starting = "starting" // not yet healthy, or not again after a crash; gets no traffic
	serving  = "serving"
	draining = "draining" // gets no new request
	stopping = "stopping"
)

// task is what the record knows of a running copy.
type task struct {
	N        int       `json:"n"`
	Version  string    `json:"version"`
	Port     int       `json:"port,omitempty"` // 0: picked when it starts
	Phase    string    `json:"phase"`
	Since    time.Time `json:"since"` // of Phase
	Healthy  bool      `json:"healthy,omitempty"`
	Restarts int       `json:"restarts,omitempty"`
	// Down says that the process ended and is to be started again at Again.
	Down  bool      `json:"down,omitempty"`
	Again time.Time `json:"again,omitzero"`
	// Apart says that it gets no requests but those that are pinned to its version: it stays warm.
	Apart bool `json:"apart,omitempty"`
}

// record is the durable state of a service: where a daemon that died goes on.
type record struct {
	ID      tenfold.ID `json:"id"`
	Goal    *version   `json:"goal,omitempty"` // nil: nothing should run
	Serving *version   `json:"serving,omitempty"`
	// Before is, of a frontend's server, the version that users have until the frontend is switched.
	Before *version    `json:"before,omitempty"`
	Deploy *deployment `json:"deploy,omitempty"`
	// Watch is the time after a switch in which the old tasks stay warm.
	Watch *watch `json:"watch,omitempty"`
	// Kept are earlier versions with tasks for the pages that were made with them, oldest first.
	Kept []kept `json:"kept,omitempty"`
	// Proven are versions that served well, newest last: they are not tried out again.
	Proven []proven `json:"proven,omitempty"`
	// Scaled is the count that autoscaling came to, and Boot how long a task takes to its first good answer.
	// They are no part of a version: a deployment changes neither.
	Scaled *int          `json:"scaled,omitempty"`
	Boot   time.Duration `json:"boot,omitempty"`
	// Quickest is the shortest of those times since the last deployment began, and Work what a task uses of processors
	// in it: how many may start at once.
	Quickest    time.Duration        `json:"quickest,omitempty"`
	Work        time.Duration        `json:"work,omitempty"`
	Tasks       []task               `json:"tasks,omitempty"`
	LastTask    int                  `json:"lastTask"` // numbers are never used again
	Deployments tenfold.DeploymentID `json:"deployments"`
	Failed      string               `json:"failed,omitempty"` // fingerprint
	Reason      string               `json:"reason,omitempty"`
	Hint        string               `json:"hint,omitempty"`
	// Gone: removed by the loop. The record stays for its numbers.
	Gone bool `json:"gone,omitempty"`
}
