package manifest

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"tenfold"
	"tenfold/internal/lazy"
)

// plainEnv is an environment that stands for itself, not one of many previews.
var plainEnv = lazy.Regexp(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

func (b *builder) databases() {
	b.each("databases", func(n tenfold.Name, t *tree) {
		d := tenfold.Database{Line: t.line()}
		if f, ok := value(t, "engine"); ok {
			d.Major = b.postgres(f)
		}
		if f, ok := value(t, "extensions"); ok {
			parts, _ := readList(b.reporter, f.node, f.path, "name")
			for _, p := range parts {
				switch {
				case !extensionOK.MatchString(p.Value):
					b.reporter.at(p, "write it as PostgreSQL calls it: vector", "%s: %q is not an extension's name", f.path, cut(p.Value, 60))
				case slices.Contains(d.Extensions, p.Value):
					b.reporter.at(p, "keep one of them", "%s: %q stands twice", f.path, p.Value)
				default:
					d.Extensions = append(d.Extensions, p.Value)
				}
			}
		}
		if f, ok := value(t, "settings"); ok {
			for _, name := range f.order {
				if v := f.fields[name]; !isNull(v.node) {
					if d.Settings == nil {
						d.Settings = map[string]string{}
					}
					d.Settings[name] = v.node.Value
				}
			}
		}
		d.Readers, d.ReadersAt = b.readers(t, maxReaders)
		d.Sync, d.Backups, d.Window = b.sync(t), b.backups(t), b.window(t)
		d.Capacity, d.Suspend = b.capacity(t)
		if f := t.get("proxy"); f != nil && f.off {
			d.Proxy.Off = true
		} else if f, ok := value(t, "proxy"); ok {
			d.Proxy = tenfold.Proxy{Pool: b.count(f, "pool", 0, 1, 1000), Wait: b.duration(f, "wait", 0), Hold: b.duration(f, "hold", 0)}
			d.Proxy.Cache, d.Proxy.CacheFor = b.cache(f)
			if s, ok := value(f, "split"); ok {
				d.Proxy.Split, _ = readBool(b.reporter, s.node, s.path)
			}
			if s, ok := value(f, "md5"); ok {
				d.Proxy.MD5, _ = readBool(b.reporter, s.node, s.path)
			}
			if l, ok := value(f, "limit"); ok {
				d.Proxy.UserLimit, d.Proxy.ServiceLimit = b.count(l, "user", 0, 1, 100000), b.count(l, "service", 0, 1, 100000)
			}
		}
		if f, ok := value(t, "api"); ok {
			if d.API, _ = readBool(b.reporter, f.node, f.path); d.API && d.Proxy.Off {
				b.reporter.at(f.place(), "remove proxy: false", "%s: the Data API is served by the pool, and there is none", f.path)
			}
		}
		if f, ok := value(t, "clone"); ok {
			of, _, _ := strings.Cut(string(b.app.Env), "/")
			switch d.Clone = tenfold.Environment(f.node.Value); {
			case !plainEnv.MatchString(f.node.Value):
				b.reporter.at(f.node, "write an environment: clone: production", "%s: %q is not an environment", f.path, cut(f.node.Value, 60))
			case d.Clone == tenfold.Environment(of):
				b.reporter.at(f.node, "write it below another environment: environments: {preview: {databases: {"+string(n)+": {clone: "+of+"}}}}", "%s: a database cannot begin as a copy of itself", f.path)
			}
		}
		if b.app.Databases == nil {
			b.app.Databases = map[tenfold.Name]tenfold.Database{}
		}
		b.app.Databases[n] = d
	})
}

var fingerprintOK = lazy.Regexp(`^[0-9a-f]{16}$`)

// cache reads which answers of a database are kept.
func (b *builder) cache(t *tree) (on bool, times map[string]time.Duration) {
	f, ok := value(t, "cache")
	if !ok {
		return false, nil
	}
	for _, name := range f.order {
		v := f.fields[name]
		if v.off || isNull(v.node) {
			continue
		}
		if !fingerprintOK.MatchString(name) {
			b.reporter.at(v.key, "see the fingerprints of statements: tenfold db pool", "%s: %q is not a fingerprint", f.path, cut(name, 60))
			continue
		}
		if d, ok := readDuration(b.reporter, v.node, v.path); ok {
			if times == nil {
				times = map[string]time.Duration{}
			}
			times[name] = d
		}
	}
	return true, times
}

// capacity reads ACUs, and how long nobody asks anything before it sleeps.
func (b *builder) capacity(t *tree) (out tenfold.Capacity, suspend time.Duration) {
	f, ok := value(t, "capacity")
	if !ok {
		if s, said := value(t, "suspend"); said {
			b.reporter.at(s.key, "add capacity: 0-4", "%s: only a capacity from 0 sleeps", s.path)
		}
		return out, 0
	}
	out.Min = b.acu(f, "min", 0.5)
	out.Max = b.acu(f, "max", max(out.Min, 0.5))
	if out.Min > out.Max {
		b.reporter.at(f.place(), "write the smaller number first", "%s: min %g is above max %g", f.path, out.Min, out.Max)
	}
	if s := t.get("suspend"); out.Min == 0 && (s == nil || !s.off) {
		suspend = b.duration(t, "suspend", 10*time.Minute)
	}
	return out, suspend
}

func (b *builder) acu(t *tree, name string, deflt float64) float64 {
	f, ok := value(t, name)
	if !ok {
		return deflt
	}
	n, err := strconv.ParseFloat(f.node.Value, 64)
	if err != nil || n < 0 || n > 256 || n != math.Trunc(n*2)/2 || name == "max" && n == 0 {
		b.reporter.at(f.node, "write halves up to 256: 0.5-8", "%s: %q is no capacity", f.path, cut(f.node.Value, 40))
	}
	return n
}

// maxReaders is what a server has slots and senders for, with some to spare.
const maxReaders = 8

func (b *builder) readers(t *tree, most int) (tenfold.Bounds, []tenfold.Timed) {
	f, ok := value(t, "readers")
	if !ok {
		return tenfold.Bounds{}, nil
	}
	out := tenfold.Bounds{Min: b.count(f, "min", 0, 0, most)}
	out.Max = b.count(f, "max", out.Min, 0, most)
	if out.Min > out.Max {
		b.reporter.at(f.place(), "write the smaller number first", "%s: min %d is above max %d", f.path, out.Min, out.Max)
	}
	times := b.timed(f, most)
	if _, said := value(f, "min"); !said && len(times) > 0 { // what stands in the schedule is all there is
		out.Min = times[0].Bounds.Min
	}
	for _, x := range times {
		out.Min, out.Max = min(out.Min, x.Bounds.Min), max(out.Max, x.Bounds.Max)
	}
	return out, times
}

// timed reads a schedule of bounds, in order of the file.
func (b *builder) timed(t *tree, most int) (out []tenfold.Timed) {
	f, ok := value(t, "schedule")
	if !ok {
		return nil
	}
	for _, name := range f.order {
		x := f.fields[name]
		if msg, _ := checkCron(name); msg != "" {
			b.reporter.at(x.key, "write a cron line, in UTC: \"0 8 * * 1-5\"", "%s: %s", f.path, msg)
			continue
		}
		low, high, found := strings.Cut(x.node.Value, "-")
		if !found {
			high = low
		}
		least, err := strconv.Atoi(low)
		greatest, err2 := strconv.Atoi(high)
		if err != nil || err2 != nil || least < 0 || least > greatest || greatest > most {
			b.reporter.at(x.node, "write a number or a range up to "+itoa(most)+": 1-4", "%s: %q are no bounds", x.path, cut(x.node.Value, 40))
			continue
		}
		out = append(out, tenfold.Timed{Cron: strings.Join(strings.Fields(name), " "), Bounds: tenfold.Bounds{Min: least, Max: greatest}})
	}
	return out
}

var windowText = lazy.Regexp(`^(?i)(sun|mon|tue|wed|thu|fri|sat|daily) ([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$`)

// window reads when a database may be restarted.
func (b *builder) window(t *tree) *tenfold.Window {
	f, ok := value(t, "window")
	if !ok {
		return nil
	}
	m := windowText.FindStringSubmatch(f.node.Value)
	clock := func(h, m string) time.Duration {
		hours, _ := strconv.Atoi(h)
		minutes, _ := strconv.Atoi(m)
		return time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	}
	if m == nil || clock(m[2], m[3]) == clock(m[4], m[5]) {
		b.reporter.at(f.node, "write a day and two times, in UTC: Sun 03:00-05:00, or daily 03:00-04:00", "%s: %q is no window", f.path, cut(f.node.Value, 40))
		return nil
	}
	day := slices.Index([]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat", "daily"}, strings.ToLower(m[1]))
	return &tenfold.Window{Day: day, From: clock(m[2], m[3]), To: clock(m[4], m[5])}
}

func (b *builder) sync(t *tree) string {
	f := t.get("sync")
	if f != nil && f.off {
		return tenfold.SyncOff
	}
	word := map[string]string{"true": tenfold.SyncOn, "strict": tenfold.SyncStrict}[b.word(t, "sync", "", []string{"true", "strict"})]
	if word != "" && b.count(t.get("readers"), "max", b.count(t.get("readers"), "min", 0, 0, maxReaders), 0, maxReaders) == 0 && !b.failed() {
		b.reporter.at(f.place(), "add readers: 1, or 2 so that one may be away", "%s: a commit cannot wait for a reader where there is none", f.path)
	}
	return word
}

// backupPlace is a folder, or a bucket with its endpoint.
var backupPlace = lazy.Regexp(`^(/|s3(\+http)?://[a-z0-9.-]+(:[0-9]+)?/[a-z0-9.-]+)`)

func (b *builder) backups(t *tree) *tenfold.Backups {
	f := t.get("backups")
	if f == nil || f.off {
		return nil
	}
	out := &tenfold.Backups{Keep: b.duration(f, "keep", 7*day), Every: b.duration(f, "every", day), Drill: b.duration(f, "drill", 7*day), Key: b.secretOf(f, "key")}
	if d := f.get("drill"); d != nil && d.off {
		out.Drill = 0
	}
	if out.Every > out.Keep {
		b.reporter.at(f.place(), "take them at least as often as the time kept", "%s: a base backup every %s and kept for %s", f.path, short(out.Every), short(out.Keep))
	}
	to, ok := value(f, "to")
	switch {
	case ok && kebabCase.MatchString(to.node.Value):
		if out.Bucket = tenfold.Name(to.node.Value); b.kinds[to.node.Value] != tenfold.KindBucket {
			b.reporter.at(to.node, "declare it: buckets: ["+string(out.Bucket)+"]; or write an absolute path: /mnt/backups", "%s: no bucket is called %q", to.path, cut(to.node.Value, 60))
		}
		b.archives = append(b.archives, archive{t, to, out.Bucket})
	case ok:
		out.To = to.node.Value
		if !backupPlace.MatchString(out.To) || strings.Contains(out.To, "/..") {
			b.reporter.at(to.node, "write an absolute path, best on another disk: /mnt/backups, s3://endpoint/bucket/prefix, or the name of a bucket of this manifest", "%s: %q is no place for backups", to.path, cut(out.To, 60))
		}
	case !b.failed():
		b.reporter.warn(f.place(), "set "+f.path+".to to a folder on another disk", "%s's backups lie on the disk they protect", t.key.Value)
	}
	return out
}

// archive is a bucket of the manifest that takes backups.
type archive struct {
	of, to *tree
	bucket tenfold.Name
}

// keptBackups looks at the buckets that take backups, once they are read.
func (b *builder) keptBackups() {
	for _, a := range b.archives {
		if b.failed() {
			return
		}
		x, keys := b.app.Buckets[a.bucket], string(b.app.Name)+"/"
		for pattern, d := range x.Keep {
			if prefix, _, _ := strings.Cut(pattern, "*"); strings.HasPrefix(keys, prefix) || strings.HasPrefix(prefix, keys) {
				b.reporter.at(a.to.node, "take "+pattern+" out of buckets."+string(a.bucket)+".keep, or name another bucket", "%s: %s keeps %s for %s, and backups lie below %s", a.to.path, a.bucket, pattern, short(d), keys)
			}
		}
		if x.Versions {
			b.reporter.warn(a.to.node, "leave out buckets."+string(a.bucket)+".versions, or name another bucket", "backups of %s that are too old stay in %s as versions, for ever", a.of.key.Value, a.bucket)
		}
		b.reporter.warn(a.to.node, "good against mistakes; against the loss of the disk set "+a.to.path+" to a folder on another disk, or s3://endpoint/bucket/prefix", "%s's backups lie in %s, on this house's own disk", a.of.key.Value, a.bucket)
	}
}

// postgres reads "postgres" or "postgres-17".
func (b *builder) postgres(f *tree) int {
	s := strings.Replace(f.node.Value, "postgresql", "postgres", 1)
	if s == "postgres" {
		return 0
	}
	for v := 14; v <= 18; v++ {
		if s == "postgres-"+itoa(v) {
			return v
		}
	}
	b.reporter.at(f.node, "write postgres, or postgres-14 to postgres-18", "%s: engine %q does not exist here: databases are PostgreSQL", f.path, cut(f.node.Value, 40))
	return 0
}

func (b *builder) caches() {
	b.each("caches", func(n tenfold.Name, t *tree) {
		c := tenfold.Cache{Size: b.size(t, "size", 256<<20), Evict: b.word(t, "evict", "allkeys-lru", evictions), Line: t.line()}
		if f, ok := value(t, "engine"); ok {
			c.Engine, c.Major = b.cacheEngine(f)
		}
		if f, ok := value(t, "persist"); ok {
			c.Persist, _ = readBool(b.reporter, f.node, f.path)
		}
		if f, ok := value(t, "tls"); ok {
			c.TLS, _ = readBool(b.reporter, f.node, f.path)
		}
		c.Readers, _ = b.readers(t, maxCacheReaders)
		if c.Backups = b.backups(t); c.Backups != nil {
			c.Backups.Drill = 0
		}
		b.memcached(t, c)
		if b.app.Caches == nil {
			b.app.Caches = map[tenfold.Name]tenfold.Cache{}
		}
		b.app.Caches[n] = c
	})
}

// maxCacheReaders is what ElastiCache has.
const maxCacheReaders = 5

// memcached refuses what a cache of memcached has not.
func (b *builder) memcached(t *tree, c tenfold.Cache) {
	if c.Engine != "memcached" {
		return
	}
	for _, k := range []struct {
		name string
		has  bool
	}{{"readers", c.Readers.Max > 0}, {"persist", c.Persist}, {"tls", c.TLS}, {"backups", c.Backups != nil}, {"evict", c.Evict != "allkeys-lru" && c.Evict != "noeviction"}} {
		if f, ok := value(t, k.name); ok && k.has {
			hint := "leave it out, or write engine: valkey (or redis)"
			if k.name == "evict" {
				hint = "write allkeys-lru or noeviction, or engine: valkey (or redis)"
			}
			b.reporter.at(f.node, hint, "%s: memcached has no such thing", f.path)
		}
	}
	if f, ok := value(t, "size"); ok && c.Size < memcachedLeast {
		b.reporter.at(f.node, "write 8mb or more", "%s: memcached cannot do with less than 8mb", f.path)
	}
}

// memcachedLeast is below what it refuses to change its size to.
const memcachedLeast = 8 << 20

// cacheEngine reads "valkey", or of a major: "redis-7"; "memcached" has but one.
func (b *builder) cacheEngine(f *tree) (name string, major int) {
	if f.node.Value == "memcached" {
		return f.node.Value, 0
	}
	name, version, versioned := strings.Cut(f.node.Value, "-")
	if name != "valkey" && name != "redis" {
		b.reporter.at(f.node, "write valkey, redis or memcached", "%s: engine %q does not exist here", f.path, cut(f.node.Value, 40))
		return "", 0
	}
	if !versioned {
		return name, 0
	}
	major, err := strconv.Atoi(version)
	if err != nil || major < 7 || major > 99 {
		b.reporter.at(f.node, "write "+name+", or a major from 7 on: "+name+"-8", "%s: %q is no version of a cache that is run here", f.path, cut(f.node.Value, 40))
		return "", 0
	}
	return name, major
}

func (b *builder) secrets() {
	b.each("secrets", func(n tenfold.Name, t *tree) {
		if b.app.Secrets == nil {
			b.app.Secrets = map[tenfold.Name]tenfold.Secret{}
		}
		b.app.Secrets[n] = tenfold.Secret{Generate: b.count(t, "generate", 0, 8, 1024), Line: t.line()}
	})
}
