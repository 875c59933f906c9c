package tenfold

import (
	"slices"
	"strings"
	"time"
)

// App is one validated, immutable revision of one environment. Package manifest makes it: every
// default is filled in, every reference resolved, every duration and size a plain number.
type App struct {
	Name     AppName     `json:"name"`
	Env      Environment `json:"env"`
	Revision Revision    `json:"revision"`
	// Domains are host names of the user's own; the first is canonical, the others redirect to it.
	Domains []string `json:"domains,omitempty"`

	Frontends map[Name]Frontend `json:"frontends,omitempty"`
	Services  map[Name]Workload `json:"services,omitempty"`
	Functions map[Name]Function `json:"functions,omitempty"`
	Jobs      map[Name]Job      `json:"jobs,omitempty"`
	Databases map[Name]Database `json:"databases,omitempty"`
	Caches    map[Name]Cache    `json:"caches,omitempty"`
	Queues    map[Name]Queue    `json:"queues,omitempty"`
	Tables    map[Name]Table    `json:"tables,omitempty"`
	Events    map[Name]Bus      `json:"events,omitempty"`
	Buckets   map[Name]Bucket   `json:"buckets,omitempty"`
	Series    map[Name]Series   `json:"series,omitempty"`
	Secrets   map[Name]Secret   `json:"secrets,omitempty"`
	// Rules are edge.routes, by route as written.
	Rules map[Route]Rule `json:"rules,omitempty"`
	// Log is the front door's access log, Door what else edge says of the whole app.
	Log  AccessLog `json:"log,omitzero"`
	Door Door      `json:"door,omitzero"`
	// Contact is the e-mail address that authorities of certificates are given.
	Contact string `json:"contact,omitempty"`
}

// ID makes the identity of one of the app's things.
func (a App) ID(kind Kind, name Name) ID {
	return ID{App: a.Name, Env: a.Env, Kind: kind, Name: name}
}

// Source says where an entry's files are and which bytes they are.
type Source struct {
	// Root is the project's folder on this machine, absolute; Context the folder below it that is
	// copied for the build ("." for all of it), Path the entry's own folder below Root.
	// Where a folder lies does not change what is built, so only Digest enters fingerprints.
	Root    string `json:"root,omitempty"`
	Context string `json:"context,omitempty"`
	Path    string `json:"path"`
	// Only names the files and folders of the context that the entry is made of ("packages/ui",
	// "package-lock.json"), sorted; empty: all. Others of a monorepo may change without a new build.
	// Also are copied beside them and not looked at: what a package manager wants to see.
	Only []string `json:"only,omitempty"`
	Also []string `json:"also,omitempty"`
	// Digest is the SHA-256 of the context's files, set when the App was deployed.
	Digest string `json:"digest,omitempty"`
}

// Build says how sources become something that runs. Empty commands are skipped.
type Build struct {
	// Language is "node", "go", "python", "static", ...; Version what the project asks for ("22").
	Language string `json:"language,omitempty"`
	Version  string `json:"version,omitempty"`
	// Dockerfile, below the entry's path, says how an image is built that runs in a container; then there
	// is no Install and no Command.
	Dockerfile string `json:"dockerfile,omitempty"`
	// Install fetches dependencies, Command builds, Test proves; each runs in the entry's folder.
	Install Command `json:"install,omitzero"`
	Command Command `json:"command,omitzero"`
	Test    Command `json:"test,omitzero"`
	// Output is the folder with a frontend's files, below the entry's path. Assets are further ones,
	// of a build that yields a server.
	Output string  `json:"output,omitempty"`
	Assets []Asset `json:"assets,omitempty"`
	// Private is the folder with the server's half of such a build, below the entry's path.
	Private string        `json:"private,omitempty"`
	Size    int64         `json:"size,omitempty"`    // bytes of memory; 0: no limit
	Timeout time.Duration `json:"timeout,omitempty"` // 0: 15 minutes
}

// Asset is a folder of a build whose files are released below a path of their own.
type Asset struct {
	From string `json:"from"` // below the entry's path; one that is not there has no files
	To   string `json:"to"`   // "" for the root, "_next/static"
}

// Command is a shell line (run by sh -c) or an argument list, never both. Zero means none.
type Command struct {
	Shell string   `json:"shell,omitempty"`
	Args  []string `json:"args,omitempty"`
}

// IsZero says that there is no command.
func (c Command) IsZero() bool { return c.Shell == "" && len(c.Args) == 0 }

// Argv is what to execute.
func (c Command) Argv() []string {
	if c.Shell != "" {
		return []string{"/bin/sh", "-c", c.Shell}
	}
	return c.Args
}

// String is what people read.
func (c Command) String() string {
	if c.Shell != "" {
		return c.Shell
	}
	return strings.Join(c.Args, " ")
}

// Frontend is a site that is built into files.
type Frontend struct {
	Source   Source            `json:"source"`
	Build    Build             `json:"build"`
	Env      map[string]string `json:"env,omitempty"`
	Bindings []Binding         `json:"bindings,omitempty"` // for the build only
	Routes   []Route           `json:"routes"`
	// Fallback is the file for paths without one ("index.html" of a single-page app); "" means 404.
	Fallback string `json:"fallback,omitempty"`
	// Images is how pictures are made to fit; nil: the app's own, by the defaults.
	Images *Images       `json:"images,omitempty"`
	Keep   time.Duration `json:"keep"`
	// Pin is which calls reach the deployment that made the page; nil: none.
	Pin *Pin `json:"pin,omitempty"`
	// Server answers what has no file, from the same build: server-side rendering. It is a service by
	// the frontend's name, without routes, sources and a build of its own; nil: files are all there is.
	Server *Workload `json:"server,omitempty"`
	// E2E runs against the new release before users get it.
	E2E  Command `json:"e2e,omitzero"`
	Line int     `json:"line,omitempty"` // in the manifest; for hints
}

// Pin has calls of a frontend's pages answered by the deployment that made them.
type Pin struct {
	Routes []Route `json:"routes"`
	// Services are those that answer along them, sorted.
	Services []Name `json:"services"`
	// ID names a version of each service that is called along them, joined by "-"; set when the App was
	// deployed.
	ID string `json:"id,omitempty"`
}

// Images says which pictures the front door makes to fit who looks at them.
type Images struct {
	Off     bool     `json:"off,omitempty"`
	Widths  []int    `json:"widths,omitempty"`  // in pixels; none: those of Next.js
	Formats []string `json:"formats,omitempty"` // webp, avif, the preferred first; none: webp
	From    []string `json:"from,omitempty"`    // other hosts that pictures may come from
}

// Workload is a service: tasks that run a command.
type Workload struct {
	Source Source `json:"source"`
	Build  Build  `json:"build"`
	// Image is what runs, in a container, in place of Source and Build: "ghcr.io/shop/search:4".
	Image string `json:"image,omitempty"`
	// Command may be none where an image has one.
	Command  Command           `json:"command"`
	Migrate  Command           `json:"migrate,omitzero"`
	Env      map[string]string `json:"env,omitempty"`
	Bindings []Binding         `json:"bindings,omitempty"`
	// Uses are the resources that must serve before a task starts.
	Uses   []ID    `json:"uses,omitempty"`
	Routes []Route `json:"routes,omitempty"`
	Health Health  `json:"health"`
	Size   Size    `json:"size"`
	Scale  Bounds  `json:"scale"`
	// Scaling is by what the count moves within Scale; nil: by measured concurrency.
	Scaling *Scaling `json:"scaling,omitempty"`
	// Deadline bounds a Deployment, without the time that it is tried out in.
	Deadline time.Duration `json:"deadline"`
	// Strategy is StrategyRolling, StrategyBlueGreen or StrategyCanary; "" is StrategyRolling. Share is the
	// part of the requests that a canary gets, (0, 1). Bake is how long a canary is tried out, at most, and of
	// the others how long the old tasks stay warm while the new ones are watched.
	Strategy string        `json:"strategy,omitempty"`
	Share    float64       `json:"share,omitempty"`
	Bake     time.Duration `json:"bake,omitempty"`
	// Pinned is how long tasks of an earlier version may stay for the pages that were made with it; 0: no
	// frontend pins its calls to this service.
	Pinned time.Duration `json:"pinned,omitempty"`
	// Drain is how long what is in flight may go on when a task stops.
	Drain   time.Duration `json:"drain"`
	Timeout Timeout       `json:"timeout"`
	// Sticky keeps a client at its task by a cookie of that age; 0: any task will do.
	Sticky time.Duration `json:"sticky,omitempty"`
	// Isolation is IsolationStrict or IsolationBestEffort; "": what the house does.
	Isolation string `json:"isolation,omitempty"`
	Logs      Logs   `json:"logs"`
	Line      int    `json:"line,omitempty"`
}

// Contained says that its tasks run in containers.
func (w Workload) Contained() bool { return w.Image != "" || w.Build.Dockerfile != "" }

// Contained says that it runs in containers.
func (f Function) Contained() bool { return f.Image != "" || f.Build.Dockerfile != "" }

// How a service's tasks are replaced. Rolling: new tasks take the places of old ones, one after the other.
// Blue-green: all at once, when all are healthy. Canary: a few get a share of the requests first.
const (
	StrategyRolling   = "rolling"
	StrategyBlueGreen = "blue-green"
	StrategyCanary    = "canary"
)

// What becomes of a process of which a limit cannot be enforced. Strict: it is not started. Best effort: it is, and
// that is said.
const (
	IsolationStrict     = "strict"
	IsolationBestEffort = "best-effort"
)

// Scaling are the targets of a service, for one task; the one that asks for most tasks wins. 0: no target.
type Scaling struct {
	Concurrency float64       `json:"concurrency,omitempty"` // requests at once
	RPS         float64       `json:"rps,omitempty"`         // requests a second
	CPU         float64       `json:"cpu,omitempty"`         // share of its cores, (0, 1]
	Latency     time.Duration `json:"latency,omitempty"`     // of Quantile of the answers
	Quantile    float64       `json:"quantile,omitempty"`
	Predict     bool          `json:"predict,omitempty"` // a forecast acts once it has proved itself
	Backlog     []Backlog     `json:"backlog,omitempty"`
	Schedule    []Timed       `json:"schedule,omitempty"`
}

// Backlog is a target by what is in a queue.
type Backlog struct {
	Queue ID `json:"queue"`
	// Messages is how many there may be for each task, waiting or being worked at. Age is within what time those that
	// wait should be done; 0: no target.
	Messages int           `json:"messages"`
	Age      time.Duration `json:"age,omitempty"`
}

// Sleeps says that there may be no task at all.
func (w Workload) Sleeps() bool {
	if w.Scale.Max > 0 && w.Scale.Min == 0 {
		return true
	}
	return w.Scaling != nil && slices.ContainsFunc(w.Scaling.Schedule, func(t Timed) bool { return t.Bounds.Min == 0 && t.Bounds.Max > 0 })
}

// Health says when a task is well. Route "" means: TCP accepts and GET / answers below 500.
type Health struct {
	Route   string        `json:"route,omitempty"`
	Low     int           `json:"low"` // accepted statuses, inclusive
	High    int           `json:"high"`
	Every   time.Duration `json:"every"`
	Timeout time.Duration `json:"timeout"`
	Grace   time.Duration `json:"grace"` // time to the first good answer
}

// Size limits one task. 0 means no limit.
type Size struct {
	Memory int64   `json:"memory,omitempty"` // bytes
	CPU    float64 `json:"cpu,omitempty"`    // cores
}

// Timeout bounds what the front door waits for.
type Timeout struct {
	Request time.Duration `json:"request"`
	Idle    time.Duration `json:"idle"` // silence of WebSocket and SSE
}

// Logs says how much output is kept.
type Logs struct {
	Keep time.Duration `json:"keep"`
	Max  int64         `json:"max"` // bytes
}

// Function is code that is called with an event and answers: a function of AWS Lambda.
type Function struct {
	Source Source `json:"source"`
	Build  Build  `json:"build"`
	// Image is as in Workload; what is in it speaks the Runtime API, and Command may be none.
	Image string `json:"image,omitempty"`
	// Handler is what a runtime of a language calls ("index.handler"). Command is the program of the runtime
	// "provided": it speaks the Runtime API by itself. One of them is set.
	Handler string  `json:"handler,omitempty"`
	Command Command `json:"command,omitzero"`

	Env      map[string]string `json:"env,omitempty"`
	Bindings []Binding         `json:"bindings,omitempty"`
	Uses     []ID              `json:"uses,omitempty"` // must serve before it is called
	Routes   []Route           `json:"routes,omitempty"`
	// Event is the form of the events of its routes: "http" (API Gateway's payload 2.0), or "alb".
	Event    string   `json:"event,omitempty"`
	Schedule Schedule `json:"schedule,omitzero"`
	// To is told what came of an asynchronous event, Dead of one that was given up on: a function, a queue or a bus; nil:
	// nobody.
	To   *ID `json:"to,omitempty"`
	Dead *ID `json:"dead,omitempty"`
	// Retries and Age are of asynchronous events: how often again, and until what age.
	Retries int           `json:"retries"`
	Age     time.Duration `json:"age"`
	// From are queues and tables whose events it gets by themselves.
	From    []EventSource `json:"from,omitempty"`
	Timeout time.Duration `json:"timeout"`
	Size    Size          `json:"size"`
	// Isolation is as in Workload.
	Isolation string `json:"isolation,omitempty"`
	// Scale: Min environments are kept warm, there are never more than Max. Concurrency is how many calls
	// may be in one process at once.
	Scale       Bounds `json:"scale"`
	Concurrency int    `json:"concurrency"`
	Logs        Logs   `json:"logs"`
	Line        int    `json:"line,omitempty"`
}

// EventSource is a queue or a table's stream that a function is called with, in batches.
type EventSource struct {
	From ID `json:"from"`
	// Batch is how many records one call gets at most; Wait how long it is waited for so many, 0: not at all.
	// Parallel is how many calls may be under way: of a queue in all, of a stream in each shard.
	Batch    int           `json:"batch"`
	Wait     time.Duration `json:"wait,omitempty"`
	Parallel int           `json:"parallel"`
	// Match is a pattern of EventBridge (JSON): records that it does not take are passed over; "": all are taken.
	Match string `json:"match,omitempty"`
	// Of a stream. Start is where it is read from at first: "latest" or "oldest". Bisect halves a batch that failed,
	// Retries is how often again (negative: any number), Age how old a record may get (0: any age).
	Start   string        `json:"start,omitempty"`
	Bisect  bool          `json:"bisect,omitempty"`
	Retries int           `json:"retries,omitempty"`
	Age     time.Duration `json:"age,omitempty"`
}

// Job is a command of a service, run by schedule or by hand.
type Job struct {
	Service  Name              `json:"service"`
	Command  Command           `json:"command"`
	Schedule Schedule          `json:"schedule,omitzero"`
	Env      map[string]string `json:"env,omitempty"`
	Overlap  string            `json:"overlap"` // forbid | allow | replace
	Missed   string            `json:"missed"`  // once | skip
	Retries  int               `json:"retries"`
	Timeout  time.Duration     `json:"timeout"`
	Line     int               `json:"line,omitempty"`
}

// Schedule says when. Exactly one field beside Timezone is set; zero means by hand.
type Schedule struct {
	Cron        string        `json:"cron,omitempty"` // five fields
	Rate        time.Duration `json:"rate,omitempty"`
	At          time.Time     `json:"at,omitzero"`
	FirstDeploy bool          `json:"firstDeploy,omitempty"`
	Timezone    string        `json:"timezone,omitempty"`
}

// IsZero says: only by hand.
func (s Schedule) IsZero() bool {
	return s.Cron == "" && s.Rate == 0 && s.At.IsZero() && !s.FirstDeploy
}

// Database is a PostgreSQL database.
type Database struct {
	Major      int               `json:"major"` // 0: whichever is installed, newest first
	Extensions []string          `json:"extensions,omitempty"`
	Settings   map[string]string `json:"settings,omitempty"`
	// Readers bounds the count of standbys that serve reads.
	Readers Bounds `json:"readers,omitzero"`
	// ReadersAt are bounds by time: each holds from the times of its cron line, in UTC, until another begins. Readers
	// are then the widest of them.
	ReadersAt []Timed `json:"readersAt,omitempty"`
	// Window is when it may be restarted unasked; nil: newer releases on Sunday, settings at once.
	Window *Window `json:"window,omitempty"`
	// Sync says which commits are acknowledged: SyncOn, SyncOff, SyncStrict; "" is SyncOn from two readers on.
	Sync string `json:"sync,omitempty"`
	// Backups are taken when it is not nil.
	Backups *Backups `json:"backups,omitempty"`
	Proxy   Proxy    `json:"proxy,omitzero"`
	// Capacity is in ACUs. From 0 it may sleep after Suspend without a question (0: never).
	Capacity Capacity      `json:"capacity,omitzero"`
	Suspend  time.Duration `json:"suspend,omitempty"`
	// Clone is the environment of whose database of the same name this one begins as a copy; "": empty.
	Clone Environment `json:"clone,omitempty"`
	API   bool        `json:"api,omitempty"` // the RDS Data API is served
	Line  int         `json:"line,omitempty"`
}

// Timed are bounds that hold from the times of a cron line on.
type Timed struct {
	Cron   string `json:"cron"`
	Bounds Bounds `json:"bounds"`
}

// Daily is the day of a window that is open every day.
const Daily = 7

// Window is a time of the week, in UTC.
type Window struct {
	Day  int           `json:"day"` // 0: Sunday, to 6; Daily
	From time.Duration `json:"from"`
	To   time.Duration `json:"to"` // since midnight, as From; one before From is on the next day
}

// String is how the manifest writes it.
func (w Window) String() string {
	day := "daily"
	if w.Day != Daily {
		day = time.Weekday(w.Day).String()[:3]
	}
	clock := func(d time.Duration) string {
		m := int(d / time.Minute)
		return string([]byte{byte('0' + m/600), byte('0' + m/60%10), ':', byte('0' + m%60/10), byte('0' + m%10)})
	}
	return day + " " + clock(w.From) + "-" + clock(w.To) + " UTC"
}

// Capacity bounds a database's ACUs: one is 2 GB of memory and a quarter of a core. Zero: as PostgreSQL
// comes.
type Capacity struct {
	Min float64 `json:"min"`
	Max float64 `json:"max"`
}

// Proxy says how connections to a database are pooled. Zero fields: the defaults.
type Proxy struct {
	Off   bool          `json:"off,omitempty"`   // apps connect to the primary itself
	Pool  int           `json:"pool,omitempty"`  // server connections to one server, at most; 0: 20
	Wait  time.Duration `json:"wait,omitempty"`  // of a client for one of them; 0: 5 s
	Hold  time.Duration `json:"hold,omitempty"`  // of a client while there is no primary; 0: 30 s
	Split bool          `json:"split,omitempty"` // reads go to readers, one's own writes are seen
	// Cache says that answers are kept: of statements that say so in a comment, and by fingerprint of those
	// in CacheFor, so long.
	Cache    bool                     `json:"cache,omitempty"`
	CacheFor map[string]time.Duration `json:"cacheFor,omitempty"`
	MD5      bool                     `json:"md5,omitempty"` // clients log in by MD5: for those that know no SCRAM
	// UserLimit and ServiceLimit are how many connections of clients there may be at once, of all that have
	// the app's role and of those that name one application; 0: no limit.
	UserLimit    int `json:"userLimit,omitempty"`
	ServiceLimit int `json:"serviceLimit,omitempty"`
}

// Backups of a database: its WAL as it is written, and base backups to begin from.
type Backups struct {
	Keep  time.Duration `json:"keep"`            // how far back a restore can go
	Every time.Duration `json:"every"`           // a base backup
	Drill time.Duration `json:"drill,omitempty"` // a restore that proves them; 0: never
	// To is a folder, absolute, or "s3://endpoint/bucket/prefix"; "": beside the data, or in Bucket.
	To string `json:"to,omitempty"`
	// Bucket is one of the same App, whose address and keys are known; "": To says where.
	Bucket Name `json:"bucket,omitempty"`
	// Key is a secret that seals them; nil: they are not sealed.
	Key *Binding `json:"key,omitempty"`
}

// What a commit waits for. On and strict: until a reader has it too, so that none is lost with the
// primary. With every such reader gone for 10 s SyncOn goes on without, SyncStrict waits.
const (
	SyncOff    = "off"
	SyncOn     = "on"
	SyncStrict = "strict"
)

// Cache is a primary of Valkey or Redis, and replicas of it that serve reads and take over.
type Cache struct {
	Engine  string `json:"engine,omitempty"` // "valkey", "redis", "memcached", "" for whichever is installed of the first two
	Major   int    `json:"major,omitempty"`  // 0: any
	Size    int64  `json:"size"`             // bytes
	Evict   string `json:"evict"`
	Persist bool   `json:"persist,omitempty"`
	Readers Bounds `json:"readers,omitzero"`
	// TLS says that servers speak TLS, and nothing else.
	TLS bool `json:"tls,omitempty"`
	// Backups are of all data at a time; there is none between two of them. Drill is not for caches.
	Backups *Backups `json:"backups,omitempty"`
	Line    int      `json:"line,omitempty"`
}

// Secret is declared here; its value never stands in an App.
type Secret struct {
	Generate int   `json:"generate,omitempty"` // random bytes made once; 0: set by hand
	Version  int64 `json:"version,omitempty"`  // in force when the App was deployed
	Line     int   `json:"line,omitempty"`
}

// Binding is a variable that a process gets. Its value is looked up when the process starts.
type Binding struct {
	Var   string `json:"var"`
	From  ID     `json:"from"`
	Field Field  `json:"field"`
	// Version pins a secret, so that rotating it changes the fingerprint of those who use it.
	Version int64 `json:"version,omitempty"`
	// By is the service or function that asks, when it is looked up: a cache has a user for each.
	By Name `json:"-"`
}

// Field says which fact of a resource a Binding wants.
type Field string

// The fields: of a database all from FieldURL to FieldDatabase, of a cache FieldURL to FieldPassword, of a service
// FieldURL (its private address), of a secret FieldValue; of a queue FieldURL, FieldName and FieldARN, of a
// table FieldName and FieldARN; of a series FieldURL. FieldAPI is the address of a database's Data API,
// FieldARN and FieldSecretARN what it is called there; of an identity FieldKeyID to FieldName.
const (
	FieldURL      Field = "url"
	FieldReadURL  Field = "readurl" // of a database or cache: a reader's, or the primary's where none follows
	FieldHost     Field = "host"
	FieldPort     Field = "port"
	FieldUser     Field = "user"
	FieldPassword Field = "password"
	FieldDatabase Field = "database"
	FieldValue    Field = "value"

	FieldAPI       Field = "api"
	FieldARN       Field = "arn"
	FieldSecretARN Field = "secretarn"
	FieldKeyID     Field = "keyid"
	FieldKeySecret Field = "keysecret"
	FieldRegion    Field = "region"
	FieldName      Field = "name"
)

// Route is "[METHOD ][host]/path" with a final "*" and ":name" segments, as the manifest writes it.
type Route string

// Split takes a route apart. method and host are empty when the route has none.
func (r Route) Split() (method, host, path string) {
	s := string(r)
	if i := strings.IndexByte(s, ' '); i >= 0 {
		method, s = s[:i], strings.TrimLeft(s[i:], " ")
	}
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return method, s[:i], s[i:]
	}
	return method, s, "/*"
}

// AccessLog says what the front door notes of requests. The zero value: all of them, for 14 days,
// nothing of persons.
type AccessLog struct {
	Off      bool          `json:"off,omitempty"`
	Keep     time.Duration `json:"keep,omitempty"`     // 0: 14 days
	Sample   float64       `json:"sample,omitempty"`   // share of requests, (0, 1]; 0: all
	Personal bool          `json:"personal,omitempty"` // clients' addresses and queries too
}

// Door is what edge says of an app as a whole.
type Door struct {
	// HSTS is the age of Strict-Transport-Security on answers over TLS; 0: none is sent.
	HSTS time.Duration `json:"hsts,omitempty"`
	// Trust are the addresses, as CIDR, of proxies before the front door: X-Forwarded-* and the PROXY
	// protocol are believed from here alone.
	Trust []string `json:"trust,omitempty"`
	// Errors take the place of the front door's own pages, by status.
	Errors map[int]Page `json:"errors,omitempty"`
	// Memory and Disk bound the HTTP cache, in bytes; 0: the default.
	Memory int64 `json:"memory,omitempty"`
	Disk   int64 `json:"disk,omitempty"`
	// Geo is a file in MaxMind's format, below the project's folder.
	Geo *Page `json:"geo,omitempty"`
	// DNS proves the app's names where no port can; nil: only ports do.
	DNS *DNS `json:"dns,omitempty"`
}

// DNS is who writes records into the zone of an app's names: how wildcard certificates are got, and any
// where ports 80 and 443 are not the front door's.
type DNS struct {
	Provider string `json:"provider"` // one of DNSProviders
	// Secret has the provider's credentials, in a form of its own.
	Secret Binding `json:"secret"`
	// Wildcards are those among the domains as written whose star this environment's name stands for:
	// one certificate serves all environments below.
	Wildcards []string `json:"wildcards,omitempty"`
}

// DNSProviders are the known ones.
var DNSProviders = []string{"cloudflare", "digitalocean", "gandiv5", "hetzner", "ovh", "rfc2136", "route53"}

// Page is a file of the project that the front door uses. Who deploys reads it.
type Page struct {
	File string `json:"file"` // below the project's folder
	// Body is what a page says, Copy the absolute path of a copy of a larger file.
	Body string `json:"body,omitempty"`
	Copy string `json:"copy,omitempty"`
	Line int    `json:"line,omitempty"`
}

// Rule is what edge.routes says of a route.
type Rule struct {
	Redirect *Redirect `json:"redirect,omitempty"`
	// Rewrite is the path that is asked for instead, unseen by the client. A final "*" takes what the
	// route's "*" matched, ":name" what its segment did.
	Rewrite string `json:"rewrite,omitempty"`
	// Headers are set on responses, Request on what services get; an empty value removes the header.
	Headers map[string]string `json:"headers,omitempty"`
	Request map[string]string `json:"request,omitempty"`
	Cache   *Caching          `json:"cache,omitempty"`
	Limit   *Limiting         `json:"limit,omitempty"`
	// CORS are the origins whose pages may read the answers; "*": all, without credentials. An empty
	// list that is not nil lifts what wider routes say.
	CORS []string `json:"cors,omitzero"`
	// Timeout bounds the wait for a service's first byte; 0: the service's own.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Hedge sends a safe request to a second task when the first took longer than this share of the
	// service's requests, (0, 1); 0: never.
	Hedge       float64 `json:"hedge,omitempty"`
	Auth        *Auth   `json:"auth,omitempty"`
	Maintenance *Page   `json:"maintenance,omitempty"`
	Line        int     `json:"line,omitempty"`
}

// Auth says who may pass. All that is said must hold.
type Auth struct {
	Off bool `json:"off,omitempty"` // nothing is asked, whatever wider routes say
	// Basic is a secret with users and passwords, MTLS one with authorities of client certificates,
	// Signed one with public keys for CloudFront's signed URLs and cookies.
	Basic  *Binding `json:"basic,omitempty"`
	MTLS   *Binding `json:"mtls,omitempty"`
	Signed *Binding `json:"signed,omitempty"`
	// Allow and Deny are client addresses, as CIDR. Deny wins; a non-empty Allow denies all others.
	Allow []string `json:"allow,omitempty"`
	Deny  []string `json:"deny,omitempty"`
}

// Secrets are the bindings of an Auth, for who pins or resolves them.
func (a *Auth) Secrets() []*Binding {
	var out []*Binding
	if a == nil {
		return nil
	}
	for _, b := range []*Binding{a.Basic, a.MTLS, a.Signed} {
		if b != nil {
			out = append(out, b)
		}
	}
	return out
}

// Caching is what a route says of the front door's HTTP cache beside what responses say themselves.
type Caching struct {
	Off bool `json:"off,omitempty"`
	// Default is the freshness of responses that name none; Min and Max bound what they name (Max 0: no
	// bound). None of them makes a private or no-store response reusable.
	Default time.Duration `json:"default,omitempty"`
	Min     time.Duration `json:"min,omitempty"`
	Max     time.Duration `json:"max,omitempty"`
	// StaleRevalidate and StaleError are how long a stale response may be served while it is revalidated,
	// and while the service fails.
	StaleRevalidate time.Duration `json:"staleRevalidate,omitempty"`
	StaleError      time.Duration `json:"staleError,omitempty"`
	// Query names the parameters that are part of the key; NoQuery: none is; neither: all are.
	Query   []string `json:"query,omitempty"`
	NoQuery bool     `json:"noQuery,omitempty"`
	Headers []string `json:"headers,omitempty"` // request fields that are part of the key
	Cookies []string `json:"cookies,omitempty"`
	Tags    []string `json:"tags,omitempty"` // of every response, for purges
	// OverridePrivate and OverrideNoStore keep what says not to be kept.
	OverridePrivate bool `json:"overridePrivate,omitempty"`
	OverrideNoStore bool `json:"overrideNoStore,omitempty"`
}

// Limiting refuses requests before they cost anything. Zero fields limit nothing.
type Limiting struct {
	Rate        int           `json:"rate,omitempty"` // requests Per
	Per         time.Duration `json:"per,omitempty"`
	By          string        `json:"by,omitempty"`    // client or route: whose rate it is
	Burst       int           `json:"burst,omitempty"` // at once after a pause; 0: as Rate
	Concurrency int           `json:"concurrency,omitempty"`
	Body        int64         `json:"body,omitempty"`   // bytes
	Header      int64         `json:"header,omitempty"` // bytes of a request's fields
}

// Redirect answers with a Location. A final "*" in To takes what the route's "*" matched.
type Redirect struct {
	To     string `json:"to"`
	Status int    `json:"status"` // 301, 302, 303, 307, 308
}
