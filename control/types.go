// Package control is the daemon's API: its types, its HTTP server over an interface that the daemon
// implements, and a typed client. CLI and console use nothing else.
//
// It is JSON over HTTP on a unix socket (mode 0600), and on TCP behind a bearer token when asked.
// Streams are NDJSON: one object a line, ending when the caller goes away or the thing is over.
// Begin at API.
package control

import (
	"context"
	"io"
	"time"

	"tenfold"
	"tenfold/internal/directory"
)

// API is everything that can be asked of a house. The daemon implements it, Client calls it over
// HTTP. Errors are *tenfold.Error.
type API interface {
	Databases
	Caches
	Functions
	Stores
	Buckets
	House(ctx context.Context) (House, error)
	// Upload takes a project's files (a tar stream of source.Pack) when the daemon cannot read them
	// where they are, and returns the folder to deploy from. Origin names where they came from: the
	// same origin again replaces its files.
	Upload(ctx context.Context, origin string, files io.Reader) (dir string, err error)
	// Deploy makes a revision from a project's folder and sets it as the goal; the outcome comes as events.
	Deploy(ctx context.Context, r DeployRequest) (Deployed, error)
	// Wait returns when the revision serves or was given up on.
	Wait(ctx context.Context, env Env, revision tenfold.Revision) (Revision, error)
	Status(ctx context.Context, env Env) (Status, error)
	Revisions(ctx context.Context, env Env) ([]Revision, error)
	// Rollback makes an earlier revision (0: the last good one before what serves) the goal, as a new revision.
	Rollback(ctx context.Context, env Env, to tenfold.Revision) (Deployed, error)
	// Decide ends the time in which new versions are tried out or watched: with promote they stay, else the
	// deployment is given up and the one before serves. It returns what was done, in words.
	Decide(ctx context.Context, env Env, promote bool, actor string) (string, error)
	// Down stops everything of an environment. Data is kept.
	Down(ctx context.Context, env Env) error
	// RemoveData destroys a kept database or cache for good. It refuses what the manifest still names.
	RemoveData(ctx context.Context, id tenfold.ID) error
	Kept(ctx context.Context) ([]Kept, error)
	Scale(ctx context.Context, env Env, service tenfold.Name, b tenfold.Bounds) error
	// GitConnect has pushes and pull requests of a repository deployed.
	GitConnect(ctx context.Context, r GitConnect) (GitConnected, error)
	// GitDisconnect takes no more deliveries for an app; what was deployed stays.
	GitDisconnect(ctx context.Context, app tenfold.AppName) error
	// GitKeys are who may push over SSH.
	GitKeys(ctx context.Context) ([]GitKey, error)
	AddGitKey(ctx context.Context, name, line string) (GitKey, error)
	RemoveGitKey(ctx context.Context, which string) error
	// Previews are those of an app, or of all.
	Previews(ctx context.Context, app tenfold.AppName) ([]Preview, error)
	// RemovePreview takes one away with its data, ApprovePreview has the waiting commit of a fork deployed.
	// name is its environment, its branch or the number of its pull request; commit, or the beginning of
	// it, is the one that was read, and another is refused. Empty: whichever waits.
	RemovePreview(ctx context.Context, app tenfold.AppName, name string) error
	ApprovePreview(ctx context.Context, app tenfold.AppName, name, commit string) (Preview, error)
	// Explain says what the front door would do with a request, and why, without sending it on.
	Explain(ctx context.Context, env Env, q Question) (Explanation, error)
	// Purge has the front door forget stored responses and returns how many.
	Purge(ctx context.Context, env Env, p Purge) (int, error)
	Releases(ctx context.Context, env Env, frontend tenfold.Name) ([]Release, error)
	SwitchRelease(ctx context.Context, env Env, frontend tenfold.Name, id tenfold.ReleaseID) error
	Secrets(ctx context.Context, app tenfold.AppName) ([]Secret, error)
	SetSecret(ctx context.Context, app tenfold.AppName, name tenfold.Name, value string) (int64, error)
	RemoveSecret(ctx context.Context, app tenfold.AppName, name tenfold.Name) error
	// Events calls yield for each stored event and, with Follow, for each that comes, until ctx ends.
	Events(ctx context.Context, q EventQuery, yield func(tenfold.Event) error) error
	Audit(ctx context.Context, app tenfold.AppName, limit int) ([]Entry, error)
	Logs(ctx context.Context, q LogQuery, yield func(LogLine) error) error
	// Runs are the remembered runs of the app's jobs, of one or, without a name, of all; newest first.
	Runs(ctx context.Context, env Env, job tenfold.Name) ([]JobRun, error)
	// Run starts a job or a one-off command of a service and streams its output; the last line has Exit.
	Run(ctx context.Context, r RunRequest, yield func(LogLine) error) error
	// Environ is what a process of the service or a tool for a database is started with: it holds
	// secrets and is answered on the unix socket only.
	Environ(ctx context.Context, id tenfold.ID, tool string) (Process, error)
	Metrics(ctx context.Context, w io.Writer) error
	// Upgrade hands the house over to a binary, an absolute path on its machine. Answered on the unix
	// socket only.
	// linger is how long open connections may stay with the old front door; 0: an hour.
	Upgrade(ctx context.Context, binary string, linger time.Duration) error
	// Shutdown ends the house: every app goes down in order, then daemon, door and keeper.
	Shutdown(ctx context.Context) error
}

// GitConnect is an app's repository on a Git host.
type GitConnect struct {
	App tenfold.AppName `json:"app"`
	URL string          `json:"url"`
	// Kind is github, gitlab, gitea or bitbucket; "": by the host's name. API is where its API begins.
	Kind string `json:"kind,omitempty"`
	API  string `json:"api,omitempty"`
	// Token names a secret of the app with which the repository is fetched and statuses are posted.
	Token tenfold.Name `json:"token,omitempty"`
	// Rotate makes a new secret for the webhook; else that of the same repository stays.
	Rotate bool `json:"rotate,omitempty"`
}

// GitConnected is what the Git host has to be told.
type GitConnected struct {
	Kind    string `json:"kind"`
	Webhook string `json:"webhook"`
	Secret  string `json:"secret"`
	Posts   bool   `json:"posts"` // statuses and comments are posted
}

// GitKey is a public key that may push over SSH.
type GitKey struct {
	Name        string    `json:"name"`
	Fingerprint string    `json:"fingerprint"`
	Added       time.Time `json:"added"`
}

// Preview is an environment that a branch or a pull request has for itself.
type Preview struct {
	Env
	Branch   string    `json:"branch"`
	Pull     int       `json:"pull,omitempty"`
	Fork     bool      `json:"fork,omitempty"`
	Commit   string    `json:"commit"`
	Title    string    `json:"title,omitempty"`
	Author   string    `json:"author,omitempty"`
	State    string    `json:"state"` // deploying, serving, stopped, failed, waiting for approval
	Reason   string    `json:"reason,omitempty"`
	URL      string    `json:"url"`
	Password string    `json:"password,omitempty"` // "": none is asked; the user's name is free
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires,omitzero"`
}

// Question is a request that is not sent. URL is an address or a path of the app.
type Question = directory.Question

// Explanation is what would become of it.
type Explanation = directory.Explanation

// Purge says what the HTTP cache is to forget: an URL or a path of the app, all below one that ends in
// "*", or all responses of a tag.
type Purge struct {
	URL string `json:"url,omitempty"`
	Tag string `json:"tag,omitempty"`
}

// Env names an environment of an app.
type Env struct {
	App tenfold.AppName     `json:"app"`
	Env tenfold.Environment `json:"env"`
}

// House is what runs and where.
type House struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	UID     int       `json:"uid"` // whom it runs as: another one may not be able to read the caller's files
	Started time.Time `json:"started"`
	// SSH is the address of the git remote over SSH; "": none.
	SSH     string    `json:"ssh,omitempty"`
	Data    string    `json:"data"`
	Listen  []string  `json:"listen"` // addresses of the front door
	Console string    `json:"console,omitempty"`
	Apps    []Summary `json:"apps"`
	// Root is the certificate, in PEM, of the authority that signs local names; empty without TLS.
	Root string `json:"root,omitempty"`
}

// Summary is one line on an environment.
type Summary struct {
	Env
	State    string           `json:"state"` // deploying, healthy, degraded, failed, stopped
	Revision tenfold.Revision `json:"revision"`
	URLs     []string         `json:"urls"`
	Changed  time.Time        `json:"changed"`
}

// DeployRequest asks for a revision. Dir is absolute, on the daemon's machine.
type DeployRequest struct {
	Dir  string              `json:"dir"`
	File string              `json:"file,omitempty"` // manifest below Dir; "": tenfold.yaml, or inferred
	Env  tenfold.Environment `json:"env,omitempty"`  // "": production
	App  tenfold.AppName     `json:"app,omitempty"`  // "": as the manifest says
	Plan bool                `json:"plan,omitempty"` // change nothing, only say the steps
	// Text is the manifest itself, from a caller whose files were uploaded; File then only names it.
	Text string `json:"text,omitempty"`
	// Label says what is deployed, "a41f9c2 checkout: totals"; "": asked of git in Dir.
	Label string `json:"label,omitempty"`
	// Actor is who asks, for the audit log.
	Actor string `json:"actor,omitempty"`
}

// Deployed answers Deploy and Rollback.
type Deployed struct {
	Env
	Revision tenfold.Revision `json:"revision,omitempty"`
	// After is the last event before this deploy: follow from here.
	After    int64    `json:"after"`
	Inferred string   `json:"inferred,omitempty"` // the manifest, when there was none
	Warnings []string `json:"warnings,omitempty"`
	Steps    []string `json:"steps,omitempty"` // with Plan
	URLs     []string `json:"urls,omitempty"`
	// Unchanged says that the revision wants exactly what runs.
	Unchanged bool `json:"unchanged,omitempty"`
}

// Revision is one deployed state.
type Revision struct {
	Revision tenfold.Revision `json:"revision"`
	Created  time.Time        `json:"created"`
	State    string           `json:"state"` // pending, serving, failed, superseded
	Reason   string           `json:"reason,omitempty"`
	Hint     string           `json:"hint,omitempty"`
	Actor    string           `json:"actor,omitempty"`
	Label    string           `json:"label,omitempty"`
	// Kept lists data that no longer belongs to the manifest once this revision serves.
	Kept []Kept `json:"kept,omitempty"`
}

// Status is an environment as it is now.
type Status struct {
	Summary
	Label     string     `json:"label,omitempty"`
	Resources []Resource `json:"resources"`
	Tasks     []Task     `json:"tasks"`
	Kept      []Kept     `json:"kept,omitempty"`
	// Certificates are those of public names.
	Certificates []Certificate `json:"certificates,omitempty"`
	Warnings     []string      `json:"warnings,omitempty"`
	Traffic      Traffic       `json:"traffic"`
}

// Resource is one named thing.
type Resource struct {
	Kind     tenfold.Kind  `json:"kind"`
	Name     tenfold.Name  `json:"name"`
	State    tenfold.State `json:"state"`
	Now      string        `json:"now,omitempty"`
	Reason   string        `json:"reason,omitempty"`
	Endpoint string        `json:"endpoint,omitempty"`
	// Trial says, of a service, that a new version is tried out: canary, or watched after the switch.
	Trial string `json:"trial,omitempty"`
}

// Task is a running copy of a service.
type Task struct {
	ID       tenfold.TaskID `json:"id"`
	Service  tenfold.Name   `json:"service"`
	State    string         `json:"state"`
	PID      int            `json:"pid,omitempty"`
	Port     int            `json:"port,omitempty"`
	Started  time.Time      `json:"started,omitzero"`
	Restarts int            `json:"restarts"`
	Memory   int64          `json:"memory"` // bytes resident
	CPU      float64        `json:"cpu"`    // seconds since start
	InFlight int64          `json:"inFlight"`
	Requests uint64         `json:"requests"`
	// Isolation is what shuts it in, and what does not; Unenforced which of its limits does not hold, and why.
	Isolation  []Rung `json:"isolation,omitempty"`
	Unenforced string `json:"unenforced,omitempty"`
}

// Rung is a way to shut a process in: "own user", "cgroup", "landlock".
type Rung struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Found is what holds, or why it does not.
	Found string `json:"found,omitempty"`
}

// Traffic is what the door saw of an environment since it started.
type Traffic struct {
	Requests uint64  `json:"requests"`
	Errors   uint64  `json:"errors"`
	Hits     uint64  `json:"hits"`  // answered from the front door's HTTP cache
	Rate     float64 `json:"rate"`  // requests per second, over the last 10 s
	P95      float64 `json:"p95ms"` // milliseconds, upper bound of its bucket
}

// Certificate is how one of a host stands.
type Certificate struct {
	Host     string    `json:"host"`
	Issuer   string    `json:"issuer,omitempty"` // "" while there is none
	NotAfter time.Time `json:"notAfter,omitzero"`
	Renewal  time.Time `json:"renewal,omitzero"`
	Error    string    `json:"error,omitempty"` // what is wrong, or why the last attempt failed
	Hint     string    `json:"hint,omitempty"`
}

// Kept is data that nothing in a manifest names any more.
type Kept struct {
	ID     tenfold.ID `json:"id"`
	Path   string     `json:"path"`
	Bytes  int64      `json:"bytes"`
	Remove string     `json:"remove"` // the command that destroys it
}

// Release is an immutable frontend build.
type Release struct {
	ID      tenfold.ReleaseID `json:"id"`
	Created time.Time         `json:"created"`
	Files   int               `json:"files"`
	Bytes   int64             `json:"bytes"`
	Current bool              `json:"current"`
}

// Secret is a secret without its value.
type Secret struct {
	Name    tenfold.Name `json:"name"`
	Version int64        `json:"version"`
	Changed time.Time    `json:"changed"`
	Used    bool         `json:"used"` // named by the manifest that serves
}

// EventQuery selects events.
type EventQuery struct {
	Env
	After  int64 `json:"after,omitempty"`
	Tail   int   `json:"tail,omitempty"`
	Follow bool  `json:"follow,omitempty"`
}

// Entry is a line of the audit log.
type Entry struct {
	At       time.Time        `json:"at"`
	Actor    string           `json:"actor"`
	App      string           `json:"app"`
	Env      string           `json:"env"`
	Revision tenfold.Revision `json:"revision"`
	Verb     string           `json:"verb"`
	Resource string           `json:"resource"`
	Reason   string           `json:"reason"`
}

// LogQuery selects lines of output. Name "" means everything of the environment.
type LogQuery struct {
	Env
	Name   tenfold.Name  `json:"name,omitempty"` // a service, job, …; of a job with "/" and the number, one run: "digest/7"
	Tail   int           `json:"tail,omitempty"` // per task; 0: 100
	Since  time.Duration `json:"since,omitempty"`
	Until  time.Duration `json:"until,omitempty"` // only lines that are older
	Follow bool          `json:"follow,omitempty"`
	// Grep is a regular expression (RE2); only lines that it matches, and Tail counts those.
	Grep string `json:"grep,omitempty"`
}

// LogLine is one line of output; the last one of Run has Exit.
type LogLine struct {
	At     time.Time `json:"at"`
	From   string    `json:"from"`             // task or job run
	Stream string    `json:"stream,omitempty"` // "stderr", else standard output
	Text   string    `json:"text"`
	Exit   *int      `json:"exit,omitempty"`
}

// JobRun is a run of a job, as it ended or goes on.
type JobRun struct {
	Job     tenfold.Name `json:"job"`
	N       int          `json:"n"`
	Trigger string       `json:"trigger"` // "schedule", "first-deploy", "retry", "hand"
	Attempt int          `json:"attempt"` // from 1
	// Due is when the schedule asked for it; zero: no schedule did.
	Due   time.Time `json:"due,omitzero"`
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`  // zero: it goes on
	Exit  int       `json:"exit"`            // -1: ended by a signal
	Error string    `json:"error,omitempty"` // why it did not end well
	Log   bool      `json:"log"`             // its output is still kept
}

// RunRequest starts a job by name, or Command in the environment of service Name.
type RunRequest struct {
	Env
	Name    tenfold.Name `json:"name"`
	Command []string     `json:"command,omitempty"`
	// Detach has it only be started: nothing is told of how it goes.
	Detach bool `json:"detach,omitempty"`
}

// Process is what to execute. Env holds secrets.
type Process struct {
	Argv []string `json:"argv,omitempty"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir,omitempty"`
}
