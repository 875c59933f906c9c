package manifest

import (
	"slices"
	"sync"

	"tenfold"
)

// The vocabulary. Parser, schema (docs/tenfold.schema.json) and documentation (docs/manifest.md)
// are made of this table or tested against it: a key that is not here does not exist.

// A form says what may stand under a key.
type form string

const (
	fText     form = "text"
	fWord     form = "word" // one of words
	fBool     form = "true or false"
	fCount    form = "count"
	fCPU      form = "cores"
	fDuration form = "duration"
	fSize     form = "size"
	fRate     form = "rate"
	fShare    form = "share"
	fStatus   form = "status range"
	fCommand  form = "command"
	fRoutes   form = "routes" // a route or a list
	fRoute    form = "route"
	fHosts    form = "host names"
	fWords    form = "list"
	fSchedule form = "schedule"
	fMap      form = "map"      // of keys
	fNamed    form = "names"    // a map by the user's names; each is a map of keys
	fURLs     form = "by route" // a map by route; each is a map of keys
	fEnv      form = "variables"
	fTexts    form = "map of text"
	fUses     form = "uses"
	fAny      form = "pattern"           // whatever YAML can say
	fKeeps    form = "true or durations" // a map of durations by the user's names
)

// A key is a word of the language.
type key struct {
	name  string
	form  form
	words []string // of fWord
	main  string   // what a scalar sets
	off   bool     // false has a meaning of its own
	deflt string   // for people
	doc   string
	keys  []key
	later string // not run by this version: what it would be
}

func (k key) find(name string) (key, bool) {
	for _, c := range k.keys {
		if c.name == name {
			return c, true
		}
	}
	return key{}, false
}

// alive are the names of the keys that run.
func (k key) alive() []string {
	var out []string
	for _, c := range k.keys {
		if c.later == "" {
			out = append(out, c.name)
		}
	}
	return out
}

func later(what string, names ...string) []key {
	out := make([]key, len(names))
	for i, n := range names {
		out[i] = key{name: n, later: what}
	}
	return out
}

func keys(parts ...[]key) []key {
	var out []key
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// topKeys is made once, when it is asked for: the table is read, never changed.
var topKeys = sync.OnceValue(makeVocabulary)

func makeVocabulary() key {
	things := thingKeys()
	envs := key{name: "environments", form: fNamed, doc: "What differs by place: any key of this file but app, merged key by key over the rest.",
		keys: keys(things, []key{
			{name: "branch", form: fWords, deflt: "production: main and master; preview: pull-requests", doc: "Branches that are deployed here, * for any letters, or pull-requests: a preview for each."},
			{name: "keep", form: fDuration, deflt: "72h", doc: "How long a preview stays after its last push."},
			{name: "auth", form: fBool, deflt: "true", doc: "A password before each preview; false: none. Those of forks always have one."},
		}, later("other targets than this machine", "target"))}
	app := key{name: "app", form: fText, deflt: "the folder's name", doc: "Name of the app: kebab-case, unique on the machine; its host is <app>.localhost."}
	return key{form: fMap, keys: keys([]key{app}, things, []key{envs})}
}

func thingKeys() []key {
	return keys([]key{
		{name: "domain", form: fHosts, off: true, doc: "Host names of your own; the others redirect to the first."},
		{name: "contact", form: fText, off: true, deflt: "none", doc: "E-mail address that the authority of certificates is given. An address https://… or a secret is for alarms, which do not run yet."},
		{name: "frontends", form: fNamed, doc: "Sites that are built into files.", keys: frontendKeys()},
		{name: "services", form: fNamed, doc: "Processes that answer requests on $PORT.", keys: serviceKeys()},
		{name: "functions", form: fNamed, doc: "Code that is called with an event, as AWS Lambda has it.", keys: functionKeys()},
		{name: "jobs", form: fNamed, doc: "Commands of a service, by schedule or by hand.", keys: jobKeys()},
		{name: "databases", form: fNamed, doc: "PostgreSQL databases.", keys: databaseKeys()},
		{name: "caches", form: fNamed, doc: "Valkey or Redis instances.", keys: cacheKeys()},
		{name: "queues", form: fNamed, doc: "Queues of messages, as SQS has them.", keys: queueKeys()},
		{name: "tables", form: fNamed, doc: "Tables of items by key, as DynamoDB has them.", keys: tableKeys()},
		{name: "events", form: fNamed, doc: "Event buses, as EventBridge has them.", keys: busKeys()},
		{name: "buckets", form: fNamed, doc: "Buckets of objects, as S3 has them.", keys: bucketKeys()},
		{name: "series", form: fNamed, doc: "Time series: values over time, by name and labels.", keys: seriesKeys()},
		{name: "secrets", form: fNamed, doc: "Names of secret values; the values never stand in this file.", keys: []key{
			{name: "generate", form: fCount, deflt: "set by hand", doc: "Make this many random bytes once, instead of tenfold secrets set."},
		}},
		{name: "edge", form: fMap, doc: "The front door.", keys: []key{
			{name: "routes", form: fURLs, doc: "What happens to requests by their URL.", keys: ruleKeys()},
			{name: "log", form: fMap, main: "keep", off: true, deflt: "all requests", doc: "The access log, read by tenfold logs edge; false: none.", keys: []key{
				{name: "keep", form: fDuration, deflt: "14d", doc: "How long old files stay."},
				{name: "sample", form: fShare, deflt: "100%", doc: "Which share of requests is noted."},
				{name: "personal", form: fBool, deflt: "false", doc: "Clients' addresses and queries too."},
			}},
			{name: "tls", form: fMap, deflt: "automatic", doc: "Certificates come by themselves; this is what else can be said.", keys: []key{
				{name: "hsts", form: fDuration, off: true, deflt: "not sent", doc: "Age of Strict-Transport-Security: browsers come over TLS alone for so long."},
				{name: "dns", form: fTexts, deflt: "none", doc: "Who writes records for wildcard certificates, and for any where ports 80 and 443 are another's: a provider and the secret with its credentials, {route53: DNS_KEY}. docs/certificates.md has them all."},
			}},
			{name: "trust", form: fWords, off: true, deflt: "nobody", doc: "Proxies before the front door, as addresses or CIDR: X-Forwarded-* and the PROXY protocol are believed from these alone, for all apps of the house."},
			{name: "geo", form: fText, off: true, deflt: "none", doc: "A MaxMind file: services get CloudFront-Viewer-Country."},
			{name: "errors", form: fTexts, deflt: "built in", doc: "Pages of your own in place of the front door's, by status: {404: pages/404.html}."},
			{name: "store", form: fMap, main: "memory", deflt: "256mb and 5gb", doc: "Bounds of the HTTP cache, which all apps of the house share: the largest that any asks for.", keys: []key{
				{name: "memory", form: fSize, deflt: "256mb", doc: "In memory."},
				{name: "disk", form: fSize, deflt: "5gb", doc: "On disk."},
			}},
		}},
	},
		later("alarms", "alarms"))
}

func frontendKeys() []key {
	return keys(codeKeys(), []key{
		{name: "routes", form: fRoutes, deflt: "/* for the only frontend", doc: "URLs that this site answers."},
		{name: "build", form: fMap, main: "command", off: true, deflt: "detected", doc: "How files are made; false: they are in the folder already.", keys: buildKeys(true)},
		{name: "env", form: fEnv, doc: "Variables of the build. They are public: they end in the bundle."},
		{name: "uses", form: fUses, doc: "Secrets for the build only."},
		{name: "fallback", form: fText, off: true, deflt: "index.html if it is a single-page app", doc: "File for paths without one; false: 404."},
		{name: "keep", form: fDuration, deflt: "7d", doc: "How long earlier releases stay, for rollback and old hashed assets."},
		{name: "images", form: fMap, off: true, deflt: "the app's own", doc: "Pictures made to fit, at /_tenfold/image and /_next/image; false: none.", keys: []key{
			{name: "widths", form: fWords, deflt: "those of Next.js", doc: "Widths that may be asked for, in pixels."},
			{name: "formats", form: fWords, deflt: "webp", doc: "webp and avif, the preferred first, for browsers that take them."},
			{name: "from", form: fWords, deflt: "none", doc: "Other hosts that pictures may come from: cdn.example.com, *.example.com."},
		}},
		{name: "e2e", form: fCommand, off: true, deflt: "none", doc: "Runs against the new release, whose address is APP_URL, before anybody else gets it; failing stops the deploy."},
		{name: "server", form: fMap, main: "command", off: true, deflt: "detected", doc: "Server-side rendering: what answers paths without a file, from the same build; false: files are all there is.", keys: serverKeys()},
		{name: "pin", form: fRoutes, off: true, deflt: "none", doc: "Paths whose calls reach the deployment that made the page, as long as it is kept: [/api/*]. docs/deploys.md."},
	})
}

// serverKeys are those of a service that make sense where sources, build and routes are the frontend's.
func serverKeys() []key {
	return slices.DeleteFunc(serviceKeys(), func(k key) bool {
		return slices.Contains([]string{"path", "runtime", "test", "build", "routes", "image"}, k.name)
	})
}

func codeKeys() []key {
	return []key{
		{name: "path", form: fText, deflt: "the folder of that name, else .", doc: "Folder of the entry, below the manifest's."},
		{name: "runtime", form: fText, deflt: "detected", doc: "Language and version, for example node-22, go-1.25, python-3.13."},
		{name: "test", form: fCommand, off: true, deflt: "a frontend: its own test script; a service: none", doc: "Runs before the build; failing stops the deploy."},
	}
}

func buildKeys(output bool) []key {
	out := []key{
		{name: "command", form: fCommand, off: true, deflt: "detected", doc: "Builds, in the entry's folder."},
		{name: "size", form: fSize, deflt: "no limit", doc: "Memory that the build may use."},
		{name: "timeout", form: fDuration, deflt: "15m", doc: "When a build is given up."},
	}
	if output {
		out = append(out, key{name: "output", form: fText, deflt: "detected", doc: "Folder with the built files, below the entry's."})
	}
	return out
}

func serviceKeys() []key {
	return keys(codeKeys(), []key{
		{name: "build", form: fMap, main: "command", off: true, deflt: "detected", doc: "How the program is built; false: not at all.", keys: append(buildKeys(false), dockerfileKey())},
		imageKey(),
		{name: "command", form: fCommand, deflt: "detected; the image's own", doc: "Starts a task, which listens on $PORT."},
		{name: "migrate", form: fCommand, off: true, deflt: "none", doc: "Runs once before traffic; failure keeps the old version."},
		{name: "routes", form: fRoutes, off: true, deflt: "/* if alone and without frontend, else private", doc: "URLs that reach the service; none: reached by whoever uses it."},
		{name: "health", form: fMap, main: "route", deflt: "TCP accepts and / answers below 500", doc: "When a task is well.", keys: []key{
			{name: "route", form: fText, deflt: "/ below 500", doc: "Path that is asked."},
			{name: "status", form: fStatus, deflt: "200-399", doc: "Statuses that are well."},
			{name: "every", form: fDuration, deflt: "5s", doc: "Time between questions."},
			{name: "timeout", form: fDuration, deflt: "2s", doc: "When an answer is late."},
			{name: "grace", form: fDuration, deflt: "60s", doc: "Time to the first good answer."},
		}},
		{name: "size", form: fMap, main: "memory", off: true, deflt: "no limit", doc: "Limits of one task.", keys: []key{
			{name: "memory", form: fSize, deflt: "no limit", doc: "Memory."},
			{name: "cpu", form: fCPU, deflt: "no limit", doc: "Cores, for example 0.5."},
		}},
		{name: "scale", form: fMap, main: rangeKey, deflt: "1", doc: "Number of tasks: 3, 1-4, or {min, max} with targets, which are for one task: the one that asks for most tasks wins. A range alone goes by measured concurrency. From 0 it sleeps while nothing comes.", keys: []key{
			{name: "min", form: fCount, deflt: "1", doc: "Fewest tasks, and how many run at first. 0: none while nothing comes; requests wait while one starts."},
			{name: "max", form: fCount, deflt: "min", doc: "Most tasks."},
			{name: "concurrency", form: fCount, deflt: "measured", doc: "Requests that one task works on at once."},
			{name: "rps", form: fCount, deflt: "none", doc: "Requests a second."},
			{name: "cpu", form: fShare, deflt: "none", doc: "Use of a task's cores, as size has them (one if it has none): 70%."},
			{name: "latency", form: fText, deflt: "none", doc: "How fast answers should be: p95<250ms."},
			{name: "predict", form: fBool, deflt: "false", doc: "Start tasks before the load of this time of the week comes, once the forecast has been better for seven days."},
			{name: "schedule", form: fTexts, deflt: "none", doc: "Bounds by time: a cron line in UTC, and the bounds that hold from then on until another begins: {\"0 8 * * 1-5\": 4-20, \"0 20 * * *\": 1-20}."},
			{name: "backlog", form: fNamed, off: true, deflt: "none", doc: "Queues that the service works at: {emails: 20}, or {emails: {messages: 20, age: 1m}}. Messages wake one that sleeps.", keys: []key{
				{name: "messages", form: fCount, deflt: "10", doc: "Messages for each task, waiting or being worked at."},
				{name: "age", form: fDuration, deflt: "none", doc: "Within what time those that wait should be done, by what tasks were measured to do."},
			}},
		}},
		{name: "deploy", form: fMap, main: "strategy", deflt: "rolling", doc: "How tasks are replaced. docs/deploys.md.", keys: []key{
			{name: "strategy", form: fWord, words: strategies, deflt: "rolling", doc: "rolling: new tasks take the places of old ones, one after the other; blue-green: all at once; canary: a few get a share of the requests first, and are judged by it."},
			{name: "share", form: fShare, deflt: "5%", doc: "Which part of the requests a canary gets, up to 50%."},
			{name: "bake", form: fDuration, deflt: "5m; rolling: 30s", doc: "How long a canary is tried out at most; of the others, how long the old tasks stay warm while the new ones are watched."},
			{name: "deadline", form: fDuration, deflt: "10m", doc: "When a deployment is given up and rolled back; the time of a canary does not count."},
		}},
		{name: "timeout", form: fMap, main: "request", deflt: "60s", doc: "What the front door waits for.", keys: []key{
			{name: "request", form: fDuration, deflt: "60s", doc: "An answer."},
			{name: "idle", form: fDuration, deflt: "10m", doc: "Silence of a WebSocket or of server-sent events."},
		}},
		{name: "drain", form: fDuration, deflt: "30s", doc: "For what is in flight when a task stops."},
		{name: "env", form: fEnv, doc: "Variables, as text: false, 08 and 1.10 arrive so."},
		{name: "uses", form: fUses, doc: "Databases, caches, queues, tables, buses, buckets, series, services, functions and secrets that the service may use; each injects its variables."},
		logsKey(),
		{name: "sticky", form: fDuration, off: true, deflt: "false", doc: "Keep a client at its task, by a cookie of that age."},
		isolationKey(),
	}, later("tracing", "trace"))
}

// isolations are the words of isolation.
var isolations = []string{tenfold.IsolationStrict, tenfold.IsolationBestEffort}

// isolationKey is what services and functions say of limits that cannot be enforced.
func isolationKey() key {
	return key{name: "isolation", form: fWord, words: isolations, deflt: "strict as a system service, else best-effort",
		doc: "When a limit of size cannot be enforced on this machine. strict: no process is started; best-effort: it is, with a warning. docs/isolation.md."}
}

// logsKey is what services and functions say of their output.
func logsKey() key {
	return key{name: "logs", form: fMap, main: "keep", deflt: "30d", doc: "Output that is kept.", keys: []key{
		{name: "keep", form: fDuration, deflt: "30d", doc: "For how long."},
		{name: "max", form: fSize, deflt: "1gb", doc: "At most."},
	}}
}

func jobKeys() []key {
	return []key{
		{name: "service", form: fText, deflt: "the only service", doc: "Whose build, variables and uses the command runs with."},
		{name: "command", form: fCommand, doc: "What runs."},
		{name: "schedule", form: fSchedule, off: true, deflt: "by hand: tenfold run <job>", doc: "When: cron, rate(5 minutes), cron(…) of EventBridge, at(2026-12-24T08:00), first-deploy."},
		{name: "timezone", form: fText, deflt: "UTC", doc: "Zone of cron and at, for example Europe/Rome."},
		{name: "env", form: fEnv, doc: "Variables beside the service's."},
		{name: "overlap", form: fWord, words: []string{"forbid", "allow", "replace"}, deflt: "forbid", doc: "When the last run still goes on."},
		{name: "missed", form: fWord, words: []string{"once", "skip"}, deflt: "once", doc: "Runs that were missed while nothing ran."},
		{name: "retries", form: fCount, deflt: "0", doc: "After a failure."},
		{name: "timeout", form: fDuration, deflt: "1h", doc: "When a run is stopped."},
	}
}

func databaseKeys() []key {
	return keys([]key{
		{name: "engine", form: fText, deflt: "newest installed PostgreSQL", doc: "postgres, or postgres-14 to postgres-18."},
		{name: "extensions", form: fWords, doc: "Made in the database, for example vector."},
		{name: "settings", form: fTexts, doc: "PostgreSQL settings, for example statement_timeout: 30s."},
		{name: "readers", form: fMap, main: rangeKey, deflt: "0", doc: "Standbys that serve reads and take over when the primary dies: 2, 0-2 or {min, max}.", keys: keys([]key{
			{name: "min", form: fCount, deflt: "0", doc: "Fewest readers, and how many run at first."},
			{name: "max", form: fCount, deflt: "min", doc: "Most readers, up to 8."},
			{name: "schedule", form: fTexts, deflt: "none", doc: "Bounds by time: a cron line in UTC, and the bounds that hold from then on until another begins: {\"0 8 * * 1-5\": 2-4, \"0 20 * * *\": 0-1}."},
		})},
		{name: "sync", form: fWord, words: []string{"true", "strict"}, off: true, deflt: "true from readers: 2 on", doc: "A commit is acknowledged when a reader has it too: none is lost with the primary. With every reader gone for 10 s true goes on without them, strict waits."},
		{name: "backups", form: fMap, main: "keep", off: true, deflt: "none", doc: "Its WAL as it is written, and base backups: any moment of the time kept can be restored (tenfold db restore --to).", keys: []key{
			{name: "keep", form: fDuration, deflt: "7d", doc: "How far back a restore can go."},
			{name: "every", form: fDuration, deflt: "1d", doc: "A base backup."},
			{name: "to", form: fText, deflt: "beside the data, which protects from mistakes but not from a lost disk", doc: "A folder, as an absolute path; a bucket of this manifest, by its name; or s3://endpoint/bucket/prefix, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment that the house was started in."},
			{name: "key", form: fText, deflt: "not encrypted", doc: "A secret that encrypts them, as age does with a passphrase. Without it nothing can be restored: keep it elsewhere too."},
			{name: "drill", form: fDuration, off: true, deflt: "7d", doc: "How often a backup is restored aside, started and checked. false: never."},
		}},
		{name: "capacity", form: fMap, main: rangeKey, deflt: "as PostgreSQL comes", doc: "ACUs, 2 GB of memory and a quarter of a core each: 2, 0.5-8 or {min, max}. It follows the load; from 0 it may sleep.", keys: []key{
			{name: "min", form: fCPU, deflt: "0.5", doc: "Fewest ACUs; 0: it may sleep."},
			{name: "max", form: fCPU, deflt: "min", doc: "Most ACUs."},
		}},
		{name: "suspend", form: fDuration, off: true, deflt: "10m", doc: "Without a question for this long a capacity from 0 sleeps; the first connection wakes it. false: never."},
	},
		[]key{{name: "proxy", form: fMap, main: "pool", off: true, doc: "How connections are pooled; false: apps connect to the server itself, and are not held when it is replaced.", keys: keys([]key{
			{name: "pool", form: fCount, deflt: "20", doc: "Connections to one server, at most."},
			{name: "wait", form: fDuration, deflt: "5s", doc: "Of a client for one of them."},
			{name: "hold", form: fDuration, deflt: "30s", doc: "Of a client while there is no primary: through a failover, a restart, a wake."},
			{name: "cache", form: fKeeps, off: true, deflt: "false", doc: "Answers are kept and thrown out when their rows change: true for statements that say so (/* tenfold:cache=10s */), or a map of fingerprints (tenfold db pool) and how long."},
			{name: "split", form: fBool, deflt: "false", doc: "Reads go to readers by themselves: single queries that are known to write nothing, and transactions that are READ ONLY. Each session sees its own writes."},
			{name: "md5", form: fBool, deflt: "false", doc: "Clients log in by MD5, which SCRAM-SHA-256 replaced in 2017: for drivers that know nothing newer. Then no other way is offered."},
			{name: "limit", form: fMap, main: "service", deflt: "none", doc: "Connections of clients at once; more are refused (53300).", keys: []key{
				{name: "service", form: fCount, deflt: "none", doc: "Of those that name the same application (application_name). A service is given its name in PGAPPNAME then."},
				{name: "user", form: fCount, deflt: "none", doc: "Of all together."},
			}},
		})},
			{name: "api", form: fBool, deflt: "false", doc: "SQL over HTTP, as the RDS Data API has it; who uses the database is given AWS_ENDPOINT_URL_RDS_DATA, keys and names."}},
		[]key{{name: "window", form: fText, deflt: "Sun 03:00-05:00 for newer releases; restarts for settings at once", doc: "When it may be restarted unasked, in UTC: a weekday or daily, and two times. With it restarts for settings wait too (tenfold db restart: now)."}},
		[]key{{name: "clone", form: fText, deflt: "empty", doc: "An environment: this database begins as a copy of the one of its name there. For previews; never for those of forks."}})
}

func cacheKeys() []key {
	return keys([]key{
		{name: "engine", form: fText, deflt: "whichever is installed", doc: "valkey or redis, or of a major from 7 on: valkey-8, redis-7; or memcached, which has size and evict alone."},
		{name: "size", form: fSize, deflt: "256mb", doc: "Memory for data, at each server. It is changed while they run."},
		{name: "evict", form: fWord, words: evictions, deflt: "allkeys-lru", doc: "What goes when it is full; noeviction for job queues."},
		{name: "persist", form: fBool, deflt: "false", doc: "Keep the data over a restart."},
		{name: "readers", form: fMap, main: rangeKey, deflt: "0", doc: "Replicas that serve reads (REDIS_READ_URL) and take over the primary's address when it dies: 1, 0-2 or {min, max}.", keys: []key{
			{name: "min", form: fCount, deflt: "0", doc: "Fewest readers, and how many run at first."},
			{name: "max", form: fCount, deflt: "min", doc: "Most readers, up to 5. Between the two it goes by the load of the servers' processors."},
		}},
		{name: "tls", form: fBool, deflt: "false: the way is this machine's own", doc: "Servers speak TLS alone, with a certificate of the house's authority (tenfold db ca); the addresses are rediss://."},
		{name: "backups", form: fMap, main: "keep", off: true, deflt: "none", doc: "Of all data, to be restored to a cache beside it (tenfold cache restore).", keys: []key{
			{name: "keep", form: fDuration, deflt: "7d", doc: "How long each is kept."},
			{name: "every", form: fDuration, deflt: "1d", doc: "How often one is taken. What came since the last is lost."},
			{name: "to", form: fText, deflt: "beside the data, which protects from mistakes but not from a lost disk", doc: "A folder, as an absolute path; a bucket of this manifest, by its name; or s3://endpoint/bucket/prefix, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment that the house was started in."},
			{name: "key", form: fText, deflt: "not encrypted", doc: "A secret that encrypts them, as age does with a passphrase. Without it nothing can be restored: keep it elsewhere too."},
		}},
	})
}

var evictions = []string{"allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl", "noeviction"}

func ruleKeys() []key {
	return []key{
		{name: "redirect", form: fMap, main: "to", doc: "Answer with another URL.", keys: []key{
			{name: "to", form: fText, doc: "URL or path; a final * takes what the route's * matched."},
			{name: "status", form: fCount, deflt: "301", doc: "301, 302, 303, 307 or 308."},
		}},
		{name: "headers", form: fTexts, doc: "Set on responses, redirects and refusals; false removes one. Cache-Control and its like are left alone where the status is 400 or more."},
		{name: "cache", form: fMap, main: "fresh", off: true, deflt: "by the response's own headers", doc: "The HTTP cache; false: never.", keys: cachingKeys()},
		{name: "limit", form: fMap, main: "rate", doc: "Refuse what is too much: 429, 503, 413 or 431.", keys: []key{
			{name: "rate", form: fRate, deflt: "none", doc: "Requests in a time: 50/s, 300/m, 1000/h."},
			{name: "per", form: fWord, words: []string{"client", "route"}, deflt: "client", doc: "Whose rate it is: each client's address, or all together."},
			{name: "burst", form: fCount, deflt: "the rate's number", doc: "How many may come at once after a pause."},
			{name: "concurrency", form: fCount, deflt: "none", doc: "How many may be under way at once; the rest is refused early."},
			{name: "body", form: fSize, deflt: "10mb", doc: "Longest request body."},
			{name: "header", form: fSize, deflt: "32kb", doc: "Longest request head, at most 32kb: 431 beyond."},
		}},
		{name: "rewrite", form: fText, doc: "Path that is asked for instead, unseen by the client; a final * and :name take what the route's matched."},
		{name: "cors", form: fWords, off: true, deflt: "none", doc: "Origins whose pages may read the answers, credentials included; \"*\": all, without credentials."},
		{name: "timeout", form: fDuration, deflt: "the service's", doc: "What is waited for a service's first byte."},
		{name: "hedge", form: fShare, off: true, deflt: "off", doc: "A second task is asked when the first took longer than this share of requests does: 95%. GET and HEAD only."},
		{name: "request", form: fTexts, doc: "Set on what services get; false removes one."},
		{name: "auth", form: fMap, main: "basic", off: true, deflt: "none", doc: "Who may pass; false: everybody, whatever wider routes say.", keys: []key{
			{name: "basic", form: fText, deflt: "none", doc: "A secret with user:password lines; a password may be a bcrypt hash, as htpasswd -B makes it."},
			{name: "mtls", form: fText, deflt: "none", doc: "A secret with the authorities, in PEM, that sign client certificates."},
			{name: "signed", form: fText, deflt: "none", doc: "A secret with public keys, each a line with its id (Key-Pair-Id) and below it the key in PEM: CloudFront's signed URLs and cookies."},
			{name: "allow", form: fWords, deflt: "all", doc: "Addresses or CIDR that may pass; all others may not."},
			{name: "deny", form: fWords, deflt: "none", doc: "Addresses or CIDR that may not, allowed or not."},
		}},
		{name: "maintenance", form: fText, off: true, deflt: "none", doc: "The file of a page that is answered with 503; who is in auth.allow passes."},
	}
}

func cachingKeys() []key {
	return []key{
		{name: "fresh", form: fMap, main: "default", doc: "How long a response is fresh.", keys: []key{
			{name: "default", form: fDuration, deflt: "not kept", doc: "For responses that do not say."},
			{name: "min", form: fDuration, deflt: "0s", doc: "At least, whatever they say; private and no-store still hold."},
			{name: "max", form: fDuration, deflt: "no bound", doc: "At most, whatever they say."},
		}},
		{name: "stale", form: fMap, main: "revalidate", doc: "How long a response is served after that.", keys: []key{
			{name: "revalidate", form: fDuration, deflt: "0s", doc: "While a new one is fetched in the background."},
			{name: "error", form: fDuration, deflt: "as revalidate", doc: "While the service fails."},
		}},
		{name: "key", form: fMap, main: "query", doc: "What tells two responses of one path apart.", keys: []key{
			{name: "query", form: fWords, off: true, deflt: "the whole query", doc: "Parameters that count; false: none does."},
			{name: "headers", form: fWords, off: true, deflt: "none, besides Vary", doc: "Request headers that count."},
			{name: "cookies", form: fWords, off: true, deflt: "none", doc: "Cookies that count."},
		}},
		{name: "tags", form: fWords, doc: "Names for tenfold edge purge --tag."},
		{name: "override", form: fWords, doc: "private and no-store, in words: keep what says not to be kept."},
	}
}

// rangeKey holds a scale written as a scalar until it is split into min and max.
const rangeKey = "\x00range"

// entryMain is the main key of a section's entries: "cache: 256mb", "emails: 20".
func entryMain(section key) string {
	switch section.name {
	case "caches":
		return "size"
	case "series":
		return "keep"
	case "backlog":
		return "messages"
	case "tables", "indexes":
		return "key"
	case "from": // of a bus; a function's sources have none
		if _, ok := section.find("table"); ok {
			return "table"
		}
	}
	return ""
}
