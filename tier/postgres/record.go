package postgres

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"tenfold"
)

// spec is what a database is; it enters the fingerprint. What is absent is left out of it: a database
// that says nothing of readers has the fingerprint that it had before there were any.
type spec struct {
	Major      int               `json:"major"`
	Extensions []string          `json:"extensions,omitempty"`
	Settings   map[string]string `json:"settings,omitempty"`
	Readers    tenfold.Bounds    `json:"readers,omitzero"`
	ReadersAt  []tenfold.Timed   `json:"readersAt,omitempty"`
	Window     *tenfold.Window   `json:"window,omitempty"`
	Sync       string            `json:"sync,omitempty"` // "", SyncOn, SyncStrict: the default is settled here
	Backups    *tenfold.Backups  `json:"backups,omitempty"`
	Proxy      tenfold.Proxy     `json:"proxy,omitzero"`
	Capacity   tenfold.Capacity  `json:"capacity,omitzero"`
	Suspend    time.Duration     `json:"suspend,omitempty"`
	// Clone is where its data is copied from when it has none yet.
	Clone tenfold.Environment `json:"clone,omitempty"`
	API   bool                `json:"api,omitempty"`
	// Outboxes are tables whose rows become events, by bus.
	Outboxes map[tenfold.Name]string `json:"outboxes,omitempty"`
}

func specOf(d tenfold.Database) spec {
	s := spec{Major: d.Major, Extensions: d.Extensions, Settings: d.Settings, Readers: d.Readers, ReadersAt: d.ReadersAt, Window: d.Window, Sync: d.Sync, Backups: d.Backups, Proxy: d.Proxy, Capacity: d.Capacity, Suspend: d.Suspend, Clone: d.Clone, API: d.API}
	if s.Sync == "" && s.Readers.Min >= 2 {
		s.Sync = tenfold.SyncOn
	}
	if s.Sync == tenfold.SyncOff {
		s.Sync = ""
	}
	return s
}

// record is a goal with what was made for it.
type record struct {
	ID      tenfold.ID `json:"id"`
	Spec    spec       `json:"spec"`
	Goal    string     `json:"goal"` // "" when stopped
	Serving string     `json:"serving,omitempty"`
	Failed  string     `json:"failed,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Hint    string     `json:"hint,omitempty"`
	Stopped bool       `json:"stopped,omitempty"`

	Port     int       `json:"port,omitempty"`     // of node 1; all there was before there were readers
	Super    string    `json:"super,omitempty"`    // password of the superuser
	Password string    `json:"password,omitempty"` // of the app's role
	Next     string    `json:"next,omitempty"`     // password that a rotation is about to set
	Version  string    `json:"version,omitempty"`
	Begun    time.Time `json:"begun,omitzero"` // when the goal was set, for the event
	// Counts says that its servers are started with pg_stat_statements. One that ran before there was
	// that gets it with its next start, not by a restart of its own.
	Counts bool `json:"counts,omitempty"`
	// Pool is the port of the pooling proxy, the same for the life of the database.
	Pool int `json:"pool,omitempty"`
	// ACU is the capacity now, within that of the spec; 0: the spec has none, or it has not begun.
	ACU float64 `json:"acu,omitempty"`
	// Suspended says that no server runs because nobody asked for long.
	Suspended bool `json:"suspended,omitempty"`
	// Of is the database that this one was restored from: no manifest names it, and it stops with that.
	Of string `json:"of,omitempty"`
	// Pending are the settings that wait for a restart, which waits for the window.
	Pending string `json:"pending,omitempty"`
	// Now are the bounds of readers that hold by their timetable.
	Now *tenfold.Bounds `json:"now,omitempty"`
	// Upgrade is the last to another major, until it is finished.
	Upgrade *upgrade `json:"upgrade,omitempty"`
	// Was is the major that the manifest may still name after an upgrade, or after going back.
	Was int `json:"was,omitempty"`
	// Logical says that its servers are started with what logical replication needs.
	Logical bool `json:"logical,omitempty"`
	// Outboxed says that it may have slots of outboxes: with them a server does not start without wal_level = logical.
	Outboxed bool `json:"outboxed,omitempty"`
	// Lineage is the part of the depot that its backups lie in since it was upgraded, Lineages are those before:
	// the WAL of another server is another's, and has the same names.
	Lineage  string   `json:"lineage,omitempty"`
	Lineages []string `json:"lineages,omitempty"`
	// Alarms are those that are on, by what each is about. Never changed: replaced.
	Alarms map[string]string `json:"alarms,omitempty"`

	cluster
}

// cluster is the part of a record that failover decides by. It is on disk before what it says is done.
type cluster struct {
	Nodes   []node `json:"nodes,omitempty"` // empty: node 1 alone
	Primary int    `json:"primary,omitempty"`
	// Epoch counts primaries. One of an older epoch never starts as a primary again.
	Epoch uint64 `json:"epoch,omitempty"`
	// Readers is how many there should be now, within the bounds of the spec.
	Readers int `json:"readers,omitempty"`
	// Sync are all nodes that may have acknowledged a commit in the primary's stead. The record holds a
	// node before the primary is told of it, and for as long as it may hold what no other reader does.
	Sync []int `json:"sync,omitempty"`
	// Armed says that every acknowledged commit is on one of Sync. Only then may one of them be promoted
	// without loss.
	Armed bool `json:"armed,omitempty"`
	// Switch is the reader that a switchover makes the primary; 0: none is under way.
	Switch int `json:"switch,omitempty"`
}

// stage says what a node's data is good for.
type stage string

const (
	stageReady  stage = ""       // it follows the primary, or is it
	stageNew    stage = "new"    // none that can be used: to be cloned
	stageRejoin stage = "rejoin" // of an older epoch's primary: to be rewound
)

// node is one server of a database.
type node struct {
	N     int   `json:"n"` // from 1, never used twice while its folder is there
	Port  int   `json:"port"`
	Stage stage `json:"stage,omitempty"`
	// Leaving is a reader that there is one too many of.
	Leaving bool `json:"leaving,omitempty"`
	// Loose is the boot of the machine in which its data was copied, as long as that may not be on disk: it
	// serves, but nobody relies on it, and after a loss of power it is copied again.
	Loose string `json:"loose,omitempty"`
}

// sound says that a node's data can be relied on.
func (n node) sound() bool { return n.Stage == stageReady && n.Loose == "" }

// whole gives old records, which knew one server, the cluster that this was.
func (r record) whole() record {
	if len(r.Nodes) == 0 && r.Port != 0 {
		r.Nodes, r.Primary, r.Epoch = []node{{N: 1, Port: r.Port}}, 1, 1
	}
	return r
}

func (c cluster) node(n int) (node, bool) {
	i := slices.IndexFunc(c.Nodes, func(x node) bool { return x.N == n })
	if i < 0 {
		return node{}, false
	}
	return c.Nodes[i], true
}

// edit changes a node in a copy of the list: records are shared.
func (c *cluster) edit(n int, f func(*node)) {
	c.Nodes = slices.Clone(c.Nodes)
	for i := range c.Nodes {
		if c.Nodes[i].N == n {
			f(&c.Nodes[i])
		}
	}
}

// readers are the nodes that are not the primary.
func (c cluster) readers() []node {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(x node) bool { return x.N == c.Primary })
}

// staying are the readers that do not leave.
func (c cluster) staying() []node {
	return slices.DeleteFunc(c.readers(), func(x node) bool { return x.Leaving })
}

func (r record) port() int {
	n, _ := r.node(r.Primary)
	return n.Port
}

// standby is a node's name where servers speak of each other: its slot, and in synchronous_standby_names.
func standby(n int) string { return "node_" + strconv.Itoa(n) }

// unitOf is the keeper's name for a node's server. Node 1 has the name it had when it was alone.
func unitOf(key string, n int) string {
	if n == 1 {
		return unitPrefix + key
	}
	return unitPrefix + key + "/" + strconv.Itoa(n)
}

// parseUnit is the reverse. A key ends with the database's name, which begins with a letter; how many
// parts it has depends on the environment: preview/fix-cart is two.
func parseUnit(id string) (key string, n int, ok bool) {
	rest, ok := strings.CutPrefix(id, unitPrefix)
	if !ok || strings.Count(rest, "/") < 3 {
		return "", 0, false
	}
	last := strings.LastIndexByte(rest, '/')
	if n, err := strconv.Atoi(rest[last+1:]); err == nil {
		return rest[:last], n, n > 1 && strings.Count(rest, "/") > 3
	}
	return rest, 1, true
}
