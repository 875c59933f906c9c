// Package keeper holds processes so that nothing is orphaned and nothing else has to stay alive.
//
// The keeper is a small parent beneath everything: it starts and stops units on request, holds
// listening sockets, log pipes and exit statuses, restarts what should stay up and upgrades itself
// by exec in place. Above it stands the warden, which clears away what a dead keeper leaves.
// It never decides what should run: the daemon does, over the keeper's socket (Client).
// Begin at Unit, then Client, then Run.
package keeper

import (
	"syscall"
	"time"

	"tenfold/internal/isolate"
)

// Restart says what the keeper does when a unit's process ends by itself.
type Restart string

// The policies.
const (
	RestartNever  Restart = ""       // keep the exit status until Remove
	RestartAlways Restart = "always" // start again with backoff: at once, then 100 ms doubling to 10 s; reset after 10 s up
)

// Unit is a process tree to hold. It is plain data; Start is idempotent by ID.
type Unit struct {
	// ID is unique in the house: "task/shop/production/api/12-1". Path-like, no "..".
	ID string `json:"id"`
	// Label is the starter's own note, handed back by List: how a new daemon adopts the unit.
	Label string `json:"label,omitempty"`
	// Argv[0] is an absolute path, or looked up in the PATH of Env.
	Argv []string `json:"argv"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir,omitempty"`
	// UID and GID drop privileges when the keeper is root and UID > 0.
	UID int `json:"uid,omitempty"`
	GID int `json:"gid,omitempty"`
	// Listeners names listening sockets of the keeper (see Client.Listen) passed as descriptors 3, 4, …
	// with LISTEN_FDS and LISTEN_FDNAMES as systemd passes them. LISTEN_PID is left out: it cannot be
	// known before the fork, so a unit that asks for it (sd_listen_fds) must be given the numbers.
	Listeners []string `json:"listeners,omitempty"`
	Restart   Restart  `json:"restart,omitempty"`
	// StopSignal asks the process to end (0: SIGTERM); after StopGrace (0: 10 s) the whole tree is killed.
	StopSignal syscall.Signal `json:"stopSignal,omitempty"`
	StopGrace  time.Duration  `json:"stopGrace,omitempty"`
	// StopTree sends StopSignal to every process of the tree, as systemd does: a shell or npm between
	// the keeper and the server would not pass it on.
	StopTree bool `json:"stopTree,omitempty"`
	// DeathSignal is sent to the process when the keeper dies (0: SIGKILL). PostgreSQL wants SIGINT.
	DeathSignal syscall.Signal `json:"deathSignal,omitempty"`
	// Log is the file that takes standard output and error, line by line (see internal/tasklog for
	// the format). Empty: discarded. Rotated at LogMax bytes (0: 16 MiB), LogKeep old files (0: 3).
	Log     string `json:"log,omitempty"`
	LogMax  int64  `json:"logMax,omitempty"`
	LogKeep int    `json:"logKeep,omitempty"`
	// Hide names variables of Env whose values are kept out of Log.
	Hide []string `json:"hide,omitempty"`
	// Memory (bytes) and CPU (cores) are limits, enforced by cgroups where they can be written; 0: none.
	Memory int64   `json:"memory,omitempty"`
	CPU    float64 `json:"cpu,omitempty"`
	// PIDs bounds processes and threads where a cgroup can; 0: no bound, or 4096 with a Box. It is no limit that was asked for:
	// where it does not hold, Unenforced does not tell of it.
	PIDs int `json:"pids,omitempty"`
	// Box shuts the process in, as far as this machine can; nil: it may do what the keeper may. UID, GID and
	// Listeners are not for a unit with a box, which has a user of its own.
	Box *isolate.Box `json:"box,omitempty"`
	// Strict keeps a process from running of which a limit cannot be enforced: it ends as one that could not
	// be started.
	Strict bool `json:"strict,omitempty"`
	// OOMScore adjusts the kernel's choice of whom to kill, -1000 to 1000; an app's is AppOOMScore.
	OOMScore int `json:"oomScore,omitempty"`
}

// Phase is where a unit is.
type Phase string

// The phases.
const (
	Running  Phase = "running"
	Stopping Phase = "stopping" // asked to end; may have living descendants
	Waiting  Phase = "waiting"  // ended, will be restarted
	Exited   Phase = "exited"   // ended and fenced: no descendant lives; kept until Remove
)

// Status is what the keeper knows of a unit.
type Status struct {
	Unit     Unit      `json:"unit"`
	Phase    Phase     `json:"phase"`
	PID      int       `json:"pid,omitempty"`
	Started  time.Time `json:"started,omitzero"` // of the current or last process
	Restarts int       `json:"restarts,omitempty"`
	// LastExit is the most recent end of the process; nil before the first.
	LastExit *Exit `json:"lastExit,omitempty"`
	// Limits are those that Limit set; nil: the unit's own.
	Limits *Limits `json:"limits,omitempty"`
	// Unenforced says which limit could not be set, and why; empty when all hold.
	Unenforced string `json:"unenforced,omitempty"`
	// Rungs are what shuts the current or last process of a unit with a box in, and what does not, with the reason.
	Rungs []isolate.Rung `json:"rungs,omitempty"`
}

// Exit is how a process ended.
type Exit struct {
	Code   int            `json:"code"`             // exit status, -1 when a signal ended it
	Signal syscall.Signal `json:"signal,omitempty"` // 0: it exited by itself
	OOM    bool           `json:"oom,omitempty"`    // the kernel killed it for memory
	At     time.Time      `json:"at"`
	// Refused says why there was no process at all, then with the status 127; "" when there was one.
	Refused string `json:"refused,omitempty"`
	// Asked says that Stop caused it.
	Asked bool `json:"asked,omitempty"`
}

// Event is a change of a unit's phase, as Subscribe sends it. The first events after Subscribe
// describe every unit as it is.
type Event struct {
	Status  Status `json:"status"`
	Removed bool   `json:"removed,omitempty"`
}
