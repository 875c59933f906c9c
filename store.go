package tenfold

import "time"

// Queue is a queue of messages, as SQS has it.
type Queue struct {
	Timeout time.Duration `json:"timeout"` // invisible while worked on
	Keep    time.Duration `json:"keep"`
	Delay   time.Duration `json:"delay,omitempty"`
	// Retries is how often a message is given out again before it goes to Dead, the name of another queue.
	Retries int   `json:"retries"`
	Dead    Name  `json:"dead,omitempty"` // "": none, it is given out until Keep ends
	FIFO    *FIFO `json:"fifo,omitempty"`
	Line    int   `json:"line,omitempty"`
}

// FIFO says how an ordered queue works.
type FIFO struct {
	Content bool `json:"content,omitempty"` // two messages of the same content within 5 minutes are one
	Group   bool `json:"group,omitempty"`   // deduplication and throughput are by message group
}

// Table is a table of items, as DynamoDB has it.
type Table struct {
	Key  string `json:"key"` // attribute that names the partition
	Sort string `json:"sort,omitempty"`
	// Types are those of keys' attributes that are no strings: N or B, or S.
	Types   map[string]string   `json:"types,omitempty"`
	Indexes map[Name]TableIndex `json:"indexes,omitempty"`
	TTL     string              `json:"ttl,omitempty"`
	Stream  string              `json:"stream,omitempty"` // "", keys-only, new-image, old-image, new-and-old-images
	// Read and Write are provisioned units a second; 0: on demand.
	Read  int64 `json:"read,omitempty"`
	Write int64 `json:"write,omitempty"`
	// Backups is for how long it can be had back as it was; 0: it cannot.
	Backups time.Duration `json:"backups,omitempty"`
	Line    int           `json:"line,omitempty"`
}

// TableIndex has the items of a table by another key.
type TableIndex struct {
	Key     []string `json:"key"`
	Sort    []string `json:"sort,omitempty"`
	Project string   `json:"project,omitempty"` // all, keys, or "": Attributes
	// Attributes are what is in it beside the keys.
	Attributes []string `json:"attributes,omitempty"`
	Local      bool     `json:"local,omitempty"`
}

// Bus is an event bus, as EventBridge has it.
type Bus struct {
	// Archive is for how long its events are kept and can be played again; 0: not at all.
	Archive time.Duration `json:"archive,omitempty"`
	// From are tables whose rows become its events, by database: [schema.]table.
	From  map[Name]string  `json:"from,omitempty"`
	Rules map[Name]BusRule `json:"rules,omitempty"`
	Line  int              `json:"line,omitempty"`
}

// BusRule says which events of a bus go where, or when the bus has one by itself.
type BusRule struct {
	Match string `json:"match,omitempty"` // EventBridge's pattern, in JSON; "": by Schedule
	// Schedule is rate(…), at(…) or the five fields of cron, in Timezone ("": UTC). What it makes comes
	// within Window after its time.
	Schedule string        `json:"schedule,omitempty"`
	Timezone string        `json:"timezone,omitempty"`
	Window   time.Duration `json:"window,omitempty"`
	// Retries and Age bound how long a delivery is tried; then it goes to the queue Dead ("": nowhere).
	Retries int           `json:"retries"`
	Age     time.Duration `json:"age"`
	Dead    Name          `json:"dead,omitempty"`
	// Template is what targets get, with what stands at Paths in place of <name>; "": the event.
	Template string            `json:"template,omitempty"`
	Paths    map[string]string `json:"paths,omitempty"`
	To       []BusTarget       `json:"to"`
}

// BusTarget is where a rule's events go: To, or URL.
type BusTarget struct {
	To  ID     `json:"to,omitzero"` // a queue, a function, a job or another bus
	URL string `json:"url,omitempty"`
	// Secret is what the URL is told: as a bearer token, in Header, or as User's password.
	Secret ID     `json:"secret,omitzero"`
	Header string `json:"header,omitempty"`
	User   string `json:"user,omitempty"`
	// Every is the time between two calls; 0: as they come.
	Every time.Duration `json:"every,omitempty"`
}

// Bucket is a bucket of objects, as S3 has it.
type Bucket struct {
	Routes   []Route `json:"routes,omitempty"`
	Versions bool    `json:"versions,omitempty"`
	// Keep is for how long objects stay, by their key: one * in it stands for anything.
	Keep map[string]time.Duration `json:"keep,omitempty"`
	CORS []string                 `json:"cors,omitempty"` // origins
	// Body is the most that one request may bring, in bytes.
	Body   int64                `json:"body"`
	Events map[Name]BucketEvent `json:"events,omitempty"`
	Line   int                  `json:"line,omitempty"`
}

// BucketEvent says what is told to To of the objects whose keys begin with Prefix and end with Suffix.
type BucketEvent struct {
	Created bool   `json:"created,omitempty"`
	Removed bool   `json:"removed,omitempty"`
	Prefix  string `json:"prefix,omitempty"`
	Suffix  string `json:"suffix,omitempty"`
	To      ID     `json:"to"` // a queue, a function or a bus
}

// Series is a store of time series: values by name and labels, each at a moment.
type Series struct {
	// Keep is how long a value stays, in whole days, 24 hours or more.
	Keep time.Duration `json:"keep"`
	// Every is the interval of which one value of each series is kept, the last; 1 ms or more.
	Every time.Duration `json:"every"`
	// Accept names the protocols that are written by, of SeriesProtocols, in their order; empty: all that the engine has.
	Accept []string `json:"accept,omitempty"`
	Line   int      `json:"line,omitempty"`
}

// The protocols that series are written by: OTLP's metrics over HTTP, Prometheus' remote write, InfluxDB's line
// protocol.
const (
	SeriesOTLP        = "otlp"
	SeriesRemoteWrite = "remote-write"
	SeriesInflux      = "influx"
)

// SeriesProtocols are the known ones.
var SeriesProtocols = []string{SeriesOTLP, SeriesRemoteWrite, SeriesInflux}
