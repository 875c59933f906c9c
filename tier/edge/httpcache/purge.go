package httpcache

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Purge says what to take out of the cache; of several fields set, each by itself is enough.
type Purge struct {
	URL     string // "https://host/path?query", all its variants; a rule's selection of parameters applies
	Prefix  string // of URLs
	Tag     string // without case; of responses to rules with Scope
	Scope   string // of Tag
	Release string
}

// Purge takes stored responses away and returns how many. When it returns none of them is served any
// more, and none that was on its way when it was called will be stored.
func (c *Cache) Purge(p Purge) int {
	if p.Tag = strings.TrimSpace(p.Tag); p.Tag != "" {
		p.Tag = scoped(p.Scope, p.Tag)
	}
	p.Scope = ""
	p.URL, p.Prefix = canonicalURL(p.URL), canonicalURL(p.Prefix)
	if p == (Purge{}) {
		return 0
	}
	c.purges.add(p)
	var found []*entry
	c.memory.each(func(e *entry) {
		if p.covers(e.key, e.tags, e.release) {
			found = append(found, e)
		}
	})
	c.memory.drop(found)
	if c.disk == nil {
		return len(found)
	}
	files := c.disk.purge(p)
	n := len(found) + len(files)
	inMemory := make(map[string][]*entry, len(found))
	for _, e := range found {
		inMemory[e.key] = append(inMemory[e.key], e)
	}
	for _, f := range files { // what both tiers had counts once
		n -= b2i(slices.ContainsFunc(inMemory[f.Key], func(e *entry) bool { return e.variantOf(&entry{vary: f.Vary}) }))
	}
	return n
}

// canonicalURL lower-cases scheme and host, as keys have them.
func canonicalURL(s string) string {
	i := strings.Index(s, "://")
	if i < 0 {
		return s
	}
	j := strings.IndexByte(s[i+3:], '/')
	if j < 0 {
		return strings.ToLower(s)
	}
	return strings.ToLower(s[:i+3+j]) + s[i+3+j:]
}

func (p *Purge) covers(key string, tags []string, release string) bool {
	u := urlOf(key)
	if p.URL != "" && (u == p.URL || sameSelected(u, p.URL)) {
		return true
	}
	if p.Prefix != "" && strings.HasPrefix(u, p.Prefix) || p.Release != "" && release == p.Release {
		return true
	}
	if p.Tag != "" {
		for _, t := range tags {
			if t == p.Tag {
				return true
			}
		}
	}
	return false
}

// sameSelected says whether a key's URL, of whose query a rule may have kept a part, stands for u: the
// path is the same, and each parameter kept is one of u's.
func sameSelected(keyURL, u string) bool {
	path, kept, _ := strings.Cut(keyURL, "?")
	upath, query, has := strings.Cut(u, "?")
	if path != upath || !has {
		return false
	}
	for kept != "" {
		var param string
		param, kept, _ = strings.Cut(kept, "&")
		if !strings.Contains("&"+query+"&", "&"+param+"&") {
			return false
		}
	}
	return true
}

// purges is the log of purges and invalidations, for responses that are still on their way. Whoever stores
// holds the read lock over look and insertion, so that a purge sees either the log read after it or the
// entry in the tier.
type purges struct {
	sync.RWMutex
	seq   uint64
	log   []purgeRecord
	urls  map[string]uint64 // by URL, the last invalidation
	floor uint64            // what began before is too old to be judged by the log
}

type purgeRecord struct {
	seq uint64
	Purge
}

// maxPurges of the log, and maxURLs invalidated, are kept; who began before the oldest is not stored.
const (
	maxPurges = 1024
	maxURLs   = 1 << 16
)

func (l *purges) stamp() uint64 {
	l.RLock()
	defer l.RUnlock()
	return l.seq
}

func (l *purges) add(p Purge) {
	l.Lock()
	defer l.Unlock()
	l.seq++
	l.log = append(l.log, purgeRecord{l.seq, p})
	if len(l.log) > 2*maxPurges {
		l.log = append([]purgeRecord(nil), l.log[len(l.log)-maxPurges:]...)
		l.floor = l.log[0].seq - 1
	}
}

func (l *purges) addURL(u string) {
	l.Lock()
	defer l.Unlock()
	l.seq++
	if len(l.urls) >= maxURLs || l.urls == nil {
		if l.urls != nil {
			l.floor = l.seq
		}
		l.urls = map[string]uint64{}
	}
	l.urls[u] = l.seq
}

// since says whether a purge later than stamp covers e. Under the read lock.
func (l *purges) since(stamp uint64, e *entry) bool {
	if stamp == l.seq {
		return false
	}
	if stamp < l.floor || l.urls[urlOf(e.key)] > stamp {
		return true
	}
	for i := len(l.log) - 1; i >= 0 && l.log[i].seq > stamp; i-- {
		if l.log[i].covers(e.key, e.tags, e.release) {
			return true
		}
	}
	return false
}

// outdates says whether a purge has spoken, or may have, of what a fill that runs will bring: who asks
// after the purge does not wait for it.
func (l *purges) outdates(f *fill) bool {
	f.mu.Lock() // not under the log's lock: who stores takes the two the other way round
	probe := entry{key: f.q.key, release: f.q.rule.Release, tags: f.tags}
	known := f.header != nil
	f.mu.Unlock()
	l.RLock()
	defer l.RUnlock()
	if l.since(f.stamp, &probe) {
		return true
	}
	for i := len(l.log) - 1; !known && i >= 0 && l.log[i].seq > f.stamp; i-- {
		if l.log[i].Tag != "" {
			return true
		}
	}
	return false
}

// invalidate does what an unsafe request's success asks for (RFC 9111 §4.4): it takes away the target and
// what Location and Content-Location name on the same origin.
func (c *Cache) invalidate(q *request, h http.Header) {
	target := urlOf(q.key)
	base, err := url.Parse(target)
	c.invalidateURL(target)
	if err != nil {
		return
	}
	for _, name := range []string{"Location", "Content-Location"} {
		v := h.Get(name)
		if v == "" {
			continue
		}
		u, err := base.Parse(v)
		if err == nil && u.Scheme == base.Scheme && strings.EqualFold(u.Host, base.Host) {
			u.Fragment = ""
			if s := u.String(); s != target {
				c.invalidateURL(canonicalURL(s))
			}
		}
	}
}

// invalidateURL takes away all that is stored of one URL, as keys begin with it.
func (c *Cache) invalidateURL(u string) {
	c.purges.addURL(u)
	c.memory.drop(c.memory.ofURL(u))
	if c.disk != nil {
		c.disk.forgetURL(u)
	}
}
