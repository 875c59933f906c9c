package pooldir

import "time"

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
	// Pins are how often it made its client keep the connection, by reason.
	Pins map[string]uint64 `json:"pins,omitempty"`
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
	User    string        `json:"user"`
	Readers bool          `json:"readers"`
	Clients int           `json:"clients"`
	Servers int           `json:"servers"`
	Busy    int           `json:"busy"`
	Pinned  int           `json:"pinned"`
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

// View is what a pool has seen and has now.
type View struct {
	Groups     []Group     `json:"groups"`
	Statements []Statement `json:"statements"` // most time first
	Pins       []Pin       `json:"pins"`
	Retried    uint64      `json:"retried"`
	TimedOut   uint64      `json:"timedOut"`
}
