// Package dbinfo is what is told of a database, as plain data: the databases' tier fills it in, control
// hands it on. Nothing here does anything. Begin at Database.
package dbinfo

import "time"

// Database is a database with the servers that hold it.
type Database struct {
	Name    string `json:"name"`
	Version string `json:"version"` // of PostgreSQL: "17.6"
	Epoch   uint64 `json:"epoch"`   // grows with each primary
	// Sync says what commits wait for: "off", "on", "strict". Safe: every acknowledged commit is on a
	// reader too, so that none is lost with the primary.
	Sync  string `json:"sync"`
	Safe  bool   `json:"safe"`
	Nodes []Node `json:"nodes"`
	// Alarms are those that are on.
	Alarms []string `json:"alarms,omitempty"`
	// Upgrade is the last to another major, or the one that is under way; nil: there was none.
	Upgrade *Upgrade `json:"upgrade,omitempty"`
}

// Upgrade is a move to another major of PostgreSQL, or its rehearsal.
type Upgrade struct {
	Database  string    `json:"database"`
	From      string    `json:"from"` // versions: "15.18"
	To        string    `json:"to"`
	Rehearsed bool      `json:"rehearsed,omitempty"` // on a clone: nothing was switched
	Begun     time.Time `json:"begun"`
	// Step is what is done now, or was last.
	Step   string `json:"step"`
	Tables int    `json:"tables"`
	Bytes  int64  `json:"bytes"`
	// Skipped is what logical replication does not have: copied while writes wait.
	Skipped []UpgradeTable `json:"skipped,omitempty"`
	Notes   []string       `json:"notes,omitempty"`
	Steps   []UpgradeStep  `json:"steps,omitempty"`
	Rows    int64          `json:"rows,omitempty"`  // compared on both sides, in a rehearsal
	Pause   time.Duration  `json:"pause"`           // the longest time that clients were held, or would be
	Total   time.Duration  `json:"total,omitempty"` // 0: it goes on
	// Until is when the way back ends; zero: there is none.
	Until time.Time `json:"until,omitzero"`
	Fault string    `json:"fault,omitempty"`
	Hint  string    `json:"hint,omitempty"`
}

// UpgradeTable is one that was not published, and why.
type UpgradeTable struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	Why   string `json:"why"`
}

// UpgradeStep is a part of an upgrade and how long it took.
type UpgradeStep struct {
	What string        `json:"what"`
	Took time.Duration `json:"took"`
}

// Node is one server.
type Node struct {
	N     int    `json:"n"`
	Role  string `json:"role"`  // primary, reader
	State string `json:"state"` // serving, following, starting, cloning, rejoining, leaving, down
	Addr  string `json:"addr"`
	PID   int    `json:"pid,omitempty"`
	// Lag is the WAL that a reader has not replayed yet, in bytes; -1: not known.
	Lag int64 `json:"lag"`
	// Sync says that commits wait for this reader or another.
	Sync bool `json:"sync,omitempty"`
}

// Session is a connection to a primary.
type Session struct {
	PID   int           `json:"pid"`
	User  string        `json:"user"`
	App   string        `json:"app,omitempty"`   // application_name
	State string        `json:"state"`           // active, idle, idle in transaction, …
	Wait  string        `json:"wait,omitempty"`  // "Lock: transactionid"; "" when it waits for nothing
	Age   time.Duration `json:"age"`             // of its transaction, else of its state
	Query string        `json:"query,omitempty"` // the current or the last
}

// Lock is a session that waits for others.
type Lock struct {
	PID     int           `json:"pid"`
	User    string        `json:"user"`
	Waits   time.Duration `json:"waits"`
	Lock    string        `json:"lock"` // what it waits for: "relation orders, AccessExclusiveLock"
	Query   string        `json:"query"`
	Holders []Session     `json:"holders"` // whom it waits for
}

// Statement is all calls of one statement, with constants taken out.
type Statement struct {
	Query string        `json:"query"`
	Calls int64         `json:"calls"`
	Total time.Duration `json:"total"` // execution time
	Mean  time.Duration `json:"mean"`
	Rows  int64         `json:"rows"`
	// Hit is the share of blocks found in memory, 0 to 1; -1: it read none.
	Hit float64 `json:"hit"`
}

// Plan is how PostgreSQL runs a statement, or would.
type Plan struct {
	Text string `json:"text"`
	Ran  bool   `json:"ran"` // with what it took; else as estimated
}

// Waits is how many sessions were active, by what they waited for, in samples of a second.
type Waits struct {
	Since   time.Time `json:"since,omitzero"` // the oldest sample, of ten minutes at most
	Samples int       `json:"samples"`
	Active  []Wait    `json:"active"` // the most first; none: nobody was
}

// Wait is how many sessions were active with one wait, on average.
type Wait struct {
	On     string  `json:"on"`     // "Lock: transactionid"; "CPU": for nothing
	Minute float64 `json:"minute"` // in the last minute
	All    float64 `json:"all"`    // in all samples
}

// Rotation is a password that was changed.
type Rotation struct {
	// Restarted are the services that are given it, by new tasks beside the old.
	Restarted []string `json:"restarted"`
}

// Advice is what could be better in a database.
type Advice struct {
	// Since is when its statistics began; zero: when it was made, or crashed last.
	Since    time.Time `json:"since,omitzero"`
	Findings []Finding `json:"findings"`
	Notes    []string  `json:"notes,omitempty"` // what could not be looked at, and why
}

// What a Finding is about.
const (
	MissingIndex = "missing index"
	WholeReads   = "whole reads" // of a large table, and no index is known to spare them
	UnusedIndex  = "unused index"
	InvalidIndex = "invalid index"
	Bloat        = "bloat"
	Vacuum       = "vacuum"
	Analyze      = "analyze"
)

// Finding is one of them.
type Finding struct {
	Kind  string `json:"kind"`
	On    string `json:"on"`              // table or index, as SQL names it
	Bytes int64  `json:"bytes,omitempty"` // of it; of Bloat: that hold nothing
	Why   string `json:"why"`
	Do    string `json:"do"`              // SQL
	Query string `json:"query,omitempty"` // the statement that it is for
}

// Backup is a base backup that can be restored from, with the WAL that was archived since.
type Backup struct {
	Name  string    `json:"name"` // of the time it began: "20261124T101500Z"
	Begun time.Time `json:"begun"`
	Ended time.Time `json:"ended"`
	Bytes int64     `json:"bytes"` // as stored
	// Until is the latest time that can be restored from it.
	Until     time.Time `json:"until"`
	Encrypted bool      `json:"encrypted,omitempty"`
	// Fault says why it cannot be used; "" when nothing is known against it.
	Fault string `json:"fault,omitempty"`
	// Proven is when a restore of it was last started and answered.
	Proven time.Time `json:"proven,omitzero"`
}
