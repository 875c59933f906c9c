// Package pooldir is what the pooling proxy routes by, as plain data: the daemon writes it from what the
// databases' tier knows, the pool's process keeps the last one on disk and serves by it while the daemon
// is away. What goes up again is a Report. Nothing here does anything.
package pooldir

import "time"

// Snapshot is the whole directory. A reader takes one only if its Version is above what it has.
type Snapshot struct {
	Version   uint64     `json:"version"`
	Databases []Database `json:"databases"`
}

// Database is one database of an app, with the servers that hold it.
type Database struct {
	ID   string `json:"id"`   // tenfold.ID as text
	Name string `json:"name"` // what clients ask for; Name+"-ro" are its readers
	// Port is the clients' own, on loopback, the same for the life of the database.
	Port int `json:"port"`
	// Epoch grows with each primary. A connection to an older epoch's primary is closed before anything
	// more is sent on it.
	Epoch uint64 `json:"epoch"`
	// Primary is the address of the writer. Empty: there is none now, and clients are held.
	Primary string   `json:"primary,omitempty"`
	Readers []Reader `json:"readers,omitempty"`
	// Sockets are where servers of this machine listen beside their addresses: paths of Unix sockets, by address.
	// They are tried first, and are the cheaper way.
	Sockets map[string]string `json:"sockets,omitempty"`
	// Paused asks that nothing more is begun on a server: what is under way ends, and Report says when it
	// has (Quiet). Clients are held, no longer than Hold.
	Paused bool `json:"paused,omitempty"`
	// Suspended says that there is no server because nobody asked: the first client makes the report
	// that wakes it (Wake).
	Suspended bool `json:"suspended,omitempty"`

	Pool  int           `json:"pool"` // server connections of a service to one server, at most
	Wait  time.Duration `json:"wait"` // of a client for a connection
	Hold  time.Duration `json:"hold"` // of a client while there is no primary, a pause or a wake
	Split bool          `json:"split,omitempty"`
	// Cache says that answers may be kept: of statements that ask for it in a comment, and by fingerprint
	// of those in CacheFor, so long.
	Cache    bool                     `json:"cache,omitempty"`
	CacheFor map[string]time.Duration `json:"cacheFor,omitempty"`
	MD5      bool                     `json:"md5,omitempty"` // clients prove their password by MD5, for those that know no SCRAM
	Users    []User                   `json:"users"`
	// ServiceLimit is how many clients of a user may name the same application; 0: any number.
	ServiceLimit int `json:"serviceLimit,omitempty"`
	// API is the RDS Data API at the same port; nil: there is none.
	API *API `json:"api,omitempty"`
}

// API says who may ask a database over HTTP, and what it is called there.
type API struct {
	Resource string `json:"resource"` // ARN of the cluster
	Secret   string `json:"secret"`   // ARN of what the SDK takes for the password
	Database string `json:"database"` // that may be named
	Keys     []Key  `json:"keys"`
	// Peers are the ports of the app's other databases with an API, by Resource: an SDK has one endpoint.
	Peers map[string]int `json:"peers,omitempty"`
}

// Key is what a service signs its requests with.
type Key struct {
	ID      string `json:"id"`
	Secret  string `json:"secret"`
	Service string `json:"service"`
}

// Reader is a standby that serves reads.
type Reader struct {
	Addr string `json:"addr"`
	// Draining gets nothing new; it may go when Report counts nothing on it.
	Draining bool `json:"draining,omitempty"`
}

// User may log in, and as whom the pool does at the server: the same name and password.
type User struct {
	Name     string `json:"name"`
	Password string `json:"password"`
	Service  string `json:"service,omitempty"` // whose user it is, in statistics
	Limit    int    `json:"limit,omitempty"`   // of client connections; 0: none
}

// Report is what the pool tells the daemon, each second and at once for a wake or a finished pause.
type Report struct {
	Version   uint64           `json:"version"`
	Databases map[string]State `json:"databases"` // by ID
}

// State is how one database is used.
type State struct {
	Clients int `json:"clients"` // connected
	Waiting int `json:"waiting"` // for a server connection, held ones among them
	// Quiet says that nothing is under way on any server and nothing will begin: the pause holds.
	Quiet bool `json:"quiet"`
	// Wake says that a client waits for a suspended database.
	Wake bool `json:"wake"`
	// Busy is how many server connections are in use by address: a draining reader at 0 may go.
	Busy map[string]int `json:"busy"`
	// Last is when a client last asked for anything.
	Last time.Time `json:"last"`
	// Sick lists servers that refused or broke a connection within the last second, with the error.
	Sick map[string]string `json:"sick,omitempty"`
}
