package pooldir

import "time"

// TimeBounds are those of Statement.Times.
var TimeBounds = [...]time.Duration{
	64 * time.Microsecond, 256 * time.Microsecond, time.Millisecond, 4 * time.Millisecond, 16 * time.Millisecond, 64 * time.Millisecond,
	256 * time.Millisecond, time.Second, 4 * time.Second, 16 * time.Second, 64 * time.Second,
}

// Slow is one statement that took long, with what it was for.
type Slow struct {
	At          time.Time     `json:"at"` // its end
	Fingerprint string        `json:"fingerprint"`
	Query       string        `json:"query"`
	Waited      time.Duration `json:"waited"` // for a connection
	Took        time.Duration `json:"took"`   // execution
	Rows        uint64        `json:"rows"`
	Code        string        `json:"code,omitempty"` // SQLSTATE of its error
	User        string        `json:"user"`
	Application string        `json:"application,omitempty"`
	Trace       string        `json:"trace,omitempty"` // traceparent of the request that it was for
}

// Statement is what became of all statements with one fingerprint, since the pool began.
type Statement struct {
	// Fingerprint is the same for texts that differ in literals, white space and comments only. "other"
	// is those that came when there were too many different ones.
	Fingerprint string `json:"fingerprint"`
	Query       string `json:"query"`
	Calls       uint64 `json:"calls"`
	// Errors are by class of SQLSTATE: "23", "40".
	Errors   map[string]uint64 `json:"errors,omitempty"`
	Rows     uint64            `json:"rows"`
	Received uint64            `json:"received"` // bytes of the clients: text, parameters, data of COPY
	Sent     uint64            `json:"sent"`     // bytes to the clients
	Waited   time.Duration     `json:"waited"`   // for a connection
	Executed time.Duration     `json:"executed"` // by the server, answers included
	Longest  time.Duration     `json:"longest"`  // execution
	// Times counts executions by how long they took: Times[i] those of less than TimeBounds[i], the last all
	// others.
	Times [len(TimeBounds) + 1]uint64 `json:"times"`
	// Pins are how often it made its client keep the connection, by reason.
	Pins map[string]uint64 `json:"pins,omitempty"`
	// Hits and Misses are of the query cache, for those that may be kept; Uncached is why the last one may not.
	Hits     uint64 `json:"hits,omitempty"`
	Misses   uint64 `json:"misses,omitempty"`
	Uncached string `json:"uncached,omitempty"`
	// Trace is the traceparent that the last one carried in its comment.
	Trace string `json:"trace,omitempty"`
}

// Failed is the count of its errors.
func (s Statement) Failed() (n uint64) {
	for _, k := range s.Errors {
		n += k
	}
	return n
}

// Pin is why clients kept, or keep, their connection, and which statement made them.
type Pin struct {
	Reason      string `json:"reason"`
	Fingerprint string `json:"fingerprint"`
	Query       string `json:"query"`
	Now         int    `json:"now"`
	Total       uint64 `json:"total"`
}

// Group is the connections of one user to the primary, or to readers.
type Group struct {
	User    string `json:"user"`
	Readers bool   `json:"readers"`
	Clients int    `json:"clients"`
	Servers int    `json:"servers"`
	Busy    int    `json:"busy"`
	Pinned  int    `json:"pinned"`
	// AtOnce is how many servers are given work at the same time, because more would wait for a processor; 0: all.
	AtOnce  int           `json:"atOnce,omitempty"`
	Waiting int           `json:"waiting"`
	Oldest  time.Duration `json:"oldest"` // waits for so long
}

// Token lets somebody log in at a database's pool for a while.
type Token struct {
	Token string    `json:"token"` // the password
	User  string    `json:"user"`
	URL   string    `json:"url"` // with both
	Until time.Time `json:"until"`
}

// Authority is what clients verify the pool's certificate by.
type Authority struct {
	PEM  string `json:"pem"`
	File string `json:"file"` // where it lies on the house's machine, for sslrootcert
}

// Cache is the answers that a pool keeps.
type Cache struct {
	State         string        `json:"state"` // "on", or why nothing is answered from it now
	Hits          uint64        `json:"hits"`
	Misses        uint64        `json:"misses"`
	Stored        uint64        `json:"stored"`
	Invalidations uint64        `json:"invalidations"` // answers thrown out because rows changed
	Evicted       uint64        `json:"evicted"`       // and for lack of room
	Drops         uint64        `json:"drops"`         // of everything, because the catalogs changed
	Entries       int           `json:"entries"`
	Bytes         int64         `json:"bytes"`
	Limit         int64         `json:"limit"`
	Behind        time.Duration `json:"behind"` // how old what is known of the server is
}

// View is what a pool has seen and has now.
type View struct {
	Groups     []Group     `json:"groups"`
	Statements []Statement `json:"statements"` // most time first
	Pins       []Pin       `json:"pins"`
	Slow       []Slow      `json:"slow"` // the last ones, the newest first
	Retried    uint64      `json:"retried"`
	TimedOut   uint64      `json:"timedOut"`
	Cache      *Cache      `json:"cache,omitempty"` // nil: it is off
}
