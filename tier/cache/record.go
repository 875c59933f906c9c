package cache

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"tenfold"
)

// spec is what a cache is; it enters the fingerprint. What is absent is left out of it: a cache that says
// nothing of readers has the fingerprint that it had before there were any.
type spec struct {
	Engine  string           `json:"engine,omitempty"`
	Major   int              `json:"major,omitempty"`
	Size    int64            `json:"size"`
	Evict   string           `json:"evict"`
	Persist bool             `json:"persist,omitempty"`
	Readers tenfold.Bounds   `json:"readers,omitzero"`
	TLS     bool             `json:"tls,omitempty"`
	Backups *tenfold.Backups `json:"backups,omitempty"`
}

func specOf(d tenfold.Cache) spec {
	return spec{Engine: d.Engine, Major: d.Major, Size: d.Size, Evict: d.Evict, Persist: d.Persist, Readers: d.Readers, TLS: d.TLS, Backups: d.Backups}
}

// basis is what a server has to be started anew for. Everything else is changed while it runs.
func (s spec) basis() string {
	out := s.Engine
	if s.Major > 0 {
		out += "-" + strconv.Itoa(s.Major)
	}
	if s.TLS {
		out += " tls"
	}
	if s.memcached() && s.Evict == "noeviction" { // an argument of its
		out += " full"
	}
	return strings.TrimSpace(out)
}

// spoken says whether a server of that basis speaks TLS.
func spoken(basis string) bool { return basis == "tls" || strings.HasSuffix(basis, " tls") }

// record is a goal with what was made for it.
type record struct {
	ID      tenfold.ID `json:"id"`
	Spec    spec       `json:"spec"`
	Goal    string     `json:"goal"`
	Serving string     `json:"serving,omitempty"`
	Failed  string     `json:"failed,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Hint    string     `json:"hint,omitempty"`
	Stopped bool       `json:"stopped,omitempty"`

	Port     int    `json:"port,omitempty"`
	Password string `json:"password,omitempty"` // of the user "app", who is whoever names no service
	// Admin is the password of our own user. A server that an earlier Tenfold started knows none: it is left
	// as it is until it starts again.
	Admin   string    `json:"admin,omitempty"`
	Version string    `json:"version,omitempty"` // "Redis 7.0.15"
	Begun   time.Time `json:"begun,omitzero"`
	// Users are the passwords of services by their names. Never changed: replaced.
	Users map[tenfold.Name]string `json:"users,omitempty"`
	// Old are passwords that a rotation replaced and that are taken still, by user, until what had them was
	// restarted. Never changed: replaced.
	Old map[string]string `json:"old,omitempty"`
	// OldUntil is until when.
	OldUntil time.Time `json:"oldUntil,omitzero"`
	// Of is the cache that this one was restored from: no manifest names it, and it stops with that.
	Of string `json:"of,omitempty"`

	cluster
}

// cluster is the part of a record that failover decides by. It is on disk before what it says is done.
type cluster struct {
	Nodes   []node `json:"nodes,omitempty"` // empty: node 1 alone
	Primary int    `json:"primary,omitempty"`
	// Epoch counts primaries.
	Epoch uint64 `json:"epoch,omitempty"`
	// Readers is how many there should be now, within the bounds of the spec.
	Readers int `json:"readers,omitempty"`
	// Switch is the reader that a switchover makes the primary; 0: none is under way.
	Switch int `json:"switch,omitempty"`
}

// node is one server of a cache.
type node struct {
	N int `json:"n"` // from 1
	// Leaving is a reader that there is one too many of.
	Leaving bool `json:"leaving,omitempty"`
}

// whole gives records of earlier versions, which knew one server, the cluster that this was.
func (r record) whole() record {
	if len(r.Nodes) == 0 {
		r.Nodes, r.Primary, r.Epoch = []node{{N: 1}}, 1, 1
	}
	return r
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

func (c cluster) has(n int) bool {
	return slices.ContainsFunc(c.Nodes, func(x node) bool { return x.N == n })
}

// free is the lowest number that no node has.
func (c cluster) free() int {
	n := 1
	for c.has(n) {
		n++
	}
	return n
}

// Every server of a cache has the same port, each at addresses of its own: all of 127.0.0.0/8 is this
// machine. The primary has primaryHost beside its own, readers those of readHost; which server has which is
// changed while they run (CONFIG SET bind), so that whoever takes over takes the address too, and no client
// is told of another.
const primaryHost = "127.0.0.1"

// ownHost is where a node is always reached, for us and for nobody else.
func ownHost(n int) string { return "127.0.1." + strconv.Itoa(n) }

// readHost is the i-th address for reads, from 0.
func readHost(i int) string { return "127.0.0." + strconv.Itoa(2+i) }

// unitOf is the keeper's name for a node's server. Node 1 has the name it had when it was alone.
func unitOf(key string, n int) string {
	if n == 1 {
		return unitPrefix + key
	}
	return unitPrefix + key + "/" + strconv.Itoa(n)
}

// parseUnit is the reverse. A key ends with the cache's name, which begins with a letter; how many parts it
// has depends on the environment: preview/fix-cart is two.
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

// password is a new one. It is hexadecimal: nothing in it needs quoting.
func password() string {
	var b [18]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func sizeOf(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KB", n>>10)
	}
	return fmt.Sprintf("%d MB", n>>20)
}
