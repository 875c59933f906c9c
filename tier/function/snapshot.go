package function

import (
	"strings"
	"time"

	"tenfold"
	"tenfold/internal/isolate"
	"tenfold/tier/function/source"
)

// Snapshot is everything the invoke process serves by. It has secrets in it, so it is handed over on a
// socket and never written down: a process that starts waits for its first.
type Snapshot struct {
	Functions []Goal `json:"functions"`
	// Kept are functions that stay as they are, if they are there.
	Kept []tenfold.ID `json:"kept,omitempty"`
	Keys []Key        `json:"keys,omitempty"`
}

// Goal is a function as it is to be served.
type Goal struct {
	ID tenfold.ID `json:"id"`
	// Version tells what runs apart: environments of another are replaced.
	Version string `json:"version"`
	// Image is what each environment runs in a container of; "": it runs as a process. Without Argv it says
	// itself what runs.
	Image string `json:"image,omitempty"`
	// Argv, Dir and Env are the process; Env has no variables of the Runtime API.
	Argv    []string `json:"argv"`
	Dir     string   `json:"dir"`
	Env     []string `json:"env,omitempty"`
	Handler string   `json:"handler,omitempty"`
	// Extensions are programs that are started beside each environment.
	Extensions []string      `json:"extensions,omitempty"`
	Timeout    time.Duration `json:"timeout"`
	Size       tenfold.Size  `json:"size,omitzero"`
	// Min environments are kept warm, Max is how many there may be; Concurrency is how many invocations
	// may be in one process at once.
	Min         int `json:"min,omitempty"`
	Max         int `json:"max"`
	Concurrency int `json:"concurrency"`
	// Retries and Age are of asynchronous events: how often again, and how old one may become.
	Retries int           `json:"retries"`
	Age     time.Duration `json:"age"`
	// Sources are what it is called with by itself.
	Sources []Source `json:"sources,omitempty"`
	// To is told what came of an event, Dead of one that was given up on; nil: nobody.
	To   *tenfold.ID `json:"to,omitempty"`
	Dead *tenfold.ID `json:"dead,omitempty"`
	// Routes lead here from the front door; Form is the form of their events (package event).
	// Pass is what the door shows: from others nothing is taken by route.
	Routes  []string     `json:"routes,omitempty"`
	Pass    string       `json:"pass,omitempty"`
	Form    string       `json:"form,omitempty"`
	Account string       `json:"account"` // of the environment
	LogDir  string       `json:"logDir"`
	Logs    tenfold.Logs `json:"logs,omitzero"`
	// Box and Strict are as a unit of the keeper has them.
	Box    *isolate.Box `json:"box,omitempty"`
	Strict bool         `json:"strict,omitempty"`
}

// ARN names a function as AWS does.
func (g *Goal) ARN() string { return arn(g.Account, string(g.ID.Name)) }

func arn(account, name string) string {
	return "arn:aws:lambda:" + region + ":" + account + ":function:" + name
}

// Key lets a client of the Invoke API in.
type Key struct {
	Access string `json:"access"`
	Secret string `json:"secret"`
	// Of is who has it, for messages: "service api".
	Of      string     `json:"of"`
	Account string     `json:"account"`
	Scope   tenfold.ID `json:"scope"` // Kind and Name of it do not matter
	// Functions are those that its owner uses; Line is where the owner stands in the manifest.
	Functions []tenfold.Name `json:"functions,omitempty"`
	Line      int            `json:"line,omitempty"`
}

// Report is how functions are used.
type Report struct {
	Functions map[string]Use `json:"functions"` // by ID
}

// Use is what a function did since the process began, and does now.
type Use struct {
	Invocations uint64        `json:"invocations"`
	Errors      uint64        `json:"errors"`
	Throttles   uint64        `json:"throttles"`
	Cold        uint64        `json:"cold"`    // environments that were started for somebody who waited
	Busy        int           `json:"busy"`    // invocations now
	Warm        int           `json:"warm"`    // environments that are ready
	Waiting     int           `json:"waiting"` // for an environment
	Queued      int           `json:"queued"`  // asynchronous events
	Dropped     uint64        `json:"dropped"` // asynchronous events that were given up on
	Duration    time.Duration `json:"duration"`
	P95         time.Duration `json:"p95"`  // of the last invocations
	Init        time.Duration `json:"init"` // of the last environment
	// Sources are what event sources gave, by name.
	Sources map[string]source.Use `json:"sources,omitempty"`
	// Last is the last failure of an environment to start.
	Last string `json:"last,omitempty"`
	// Unenforced says which limit does not hold, and why.
	Unenforced string `json:"unenforced,omitempty"`
}

// nameOf reads a function's name out of what a client calls it: a name, an ARN, or the account and a name.
// ok is false for what is none, or another account's, or another version than $LATEST.
func nameOf(said, account, qualifier string) (name string, ok bool) {
	parts := strings.Split(said, ":")
	switch {
	case len(parts) >= 7 && parts[0] == "arn" && parts[2] == "lambda" && parts[5] == "function":
		if parts[4] != account || len(parts) > 8 {
			return "", false
		}
		parts = parts[6:]
	case len(parts) >= 3 && parts[1] == "function":
		if parts[0] != account || len(parts) > 4 {
			return "", false
		}
		parts = parts[2:]
	}
	if len(parts) > 2 {
		return "", false
	}
	if len(parts) == 2 {
		qualifier = parts[1]
	}
	return parts[0], qualifier == "" || qualifier == "$LATEST"
}
