package pgproxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"tenfold/internal/pgwire"
	"tenfold/internal/pooldir"
	"tenfold/tier/pgproxy/querycache"
)

const (
	// cacheLimit bounds the answers of a database, in bytes.
	cacheLimit = 64 << 20
	// lookPace is between two looks while the cache is asked, looksAtLeast when somebody waits for one.
	lookPace, looksAtLeast = 15 * time.Millisecond, 2 * time.Millisecond
	// cacheAwake is how long looks go on after the last question, cacheIdle how long the slot is held.
	cacheAwake, cacheIdle = time.Second, 30 * time.Second
	// followAgain and followLast are between attempts to follow a server.
	followAgain, followLast = time.Second, 30 * time.Second
	// maxCachedText is the longest text of a statement that is looked at.
	maxCachedText = 64 << 10
)

// caching is the query cache of a loop, which owns it: querycache knows what holds, here is what clients
// send and get. A follower is there while statements ask for it, and ends when none did for a while: a
// slot would keep WAL of a database that could sleep.
type caching struct {
	*querycache.Cache
	follower *querycache.Follower // nil: none
	stop     context.CancelFunc
	ready    bool   // it follows
	off      string // why it does not
	retryAt  time.Time
	backoff  time.Duration

	used    time.Time // when a statement last asked for the cache
	looking bool
	soon    bool // somebody waits for the look after this
	begun   time.Time
	lookAt  time.Time
	looked  time.Time

	key, shape, out []byte // scratch
	scopes          map[*settings]string
}

// applyCache follows the directory.
func (l *loop) applyCache(old pooldir.Database) {
	switch {
	case !l.db.Cache:
		if l.cache != nil {
			l.unfollow("")
			l.cache = nil
		}
	case l.cache == nil:
		l.cache = &caching{Cache: querycache.New(cacheLimit), scopes: map[*settings]string{}, off: "no statement has asked for it"}
	case l.db.Epoch != old.Epoch || l.db.Primary != old.Primary || l.db.Paused || l.db.Suspended || l.db.Primary == "":
		l.unfollow("the server is being replaced, or sleeps")
		l.cache.retryAt, l.cache.backoff = time.Time{}, 0
	}
}

// unfollow forgets everything and ends the follower.
func (l *loop) unfollow(why string) {
	k := l.cache
	if k.follower != nil {
		k.stop()
	}
	k.follower, k.ready, k.looking, k.soon, k.off = nil, false, false, false, why
	k.Reset()
}

// follow begins to follow the primary.
func (l *loop) follow() {
	k := l.cache
	if k.follower != nil || l.now.Before(k.retryAt) || l.closing || l.db.Primary == "" || l.db.Paused || l.db.Suspended || len(l.db.Users) == 0 {
		return
	}
	u := l.db.Users[0]
	var f *querycache.Follower
	mine := func(fn func()) func() {
		return func() {
			if l.cache == k && k.follower == f {
				fn()
			}
		}
	}
	f = querycache.NewFollower(querycache.Config{
		Addr: l.db.Primary, Database: l.db.Name, User: u.Name, Password: u.Password,
		Name:    fmt.Sprintf("%d_%d", os.Getpid(), l.now.UnixNano()),
		Ready:   func() { l.do(mine(func() { k.ready, k.off, k.backoff, k.lookAt = true, "", 0, l.now })) },
		Changed: func(changes []querycache.Change) { l.do(mine(func() { k.Changed(changes) })) },
	})
	ctx, cancel := context.WithCancel(l.p.life)
	k.follower, k.stop, k.ready, k.off = f, cancel, false, "it begins to follow the server"
	l.p.helpers.Go(func() {
		err := f.Run(ctx)
		cancel()
		l.do(mine(func() { l.unfollowed(err) }))
	})
}

// unfollowed takes the end of a follower that was not asked to end.
func (l *loop) unfollowed(err error) {
	k := l.cache
	l.unfollow(err.Error())
	k.backoff = min(max(2*k.backoff, followAgain), followLast)
	k.retryAt = l.now.Add(k.backoff)
	if !errors.Is(err, context.Canceled) {
		l.log.Warn("the query cache is off", "database", l.db.ID, "err", err, "hint", querycache.Hint(err))
	}
}

// redefined notes DDL of a client: every answer may be another now.
func (l *loop) redefined() {
	if k := l.cache; k != nil && k.follower != nil {
		k.Drop()
		k.follower.Tidy()
	}
}

// cacheTimers looks when it is time, and lets the server go when nobody asks.
func (l *loop) cacheTimers() {
	k := l.cache
	if k == nil || !k.ready {
		return
	}
	switch idle := l.now.Sub(k.used); {
	case idle > cacheIdle:
		l.unfollow("no statement has asked for it lately")
	case idle < cacheAwake && !k.looking && !l.now.Before(k.lookAt):
		l.lookAtServer()
	}
}

// cacheDue is when cacheTimers has something to do.
func (l *loop) cacheDue() time.Time {
	k := l.cache
	switch {
	case k == nil || !k.ready:
		return time.Time{}
	case !k.looking && l.now.Sub(k.used) < cacheAwake:
		return k.lookAt
	}
	return k.used.Add(cacheIdle + time.Millisecond)
}

func (l *loop) lookAtServer() {
	k, f := l.cache, l.cache.follower
	asked := time.Now()
	k.looking, k.soon, k.begun = true, false, l.now
	f.Look(asked, l.split.last, k.Relations(), func(res querycache.Look) {
		l.do(func() {
			if l.cache != k || k.follower != f {
				return
			}
			k.looking, k.looked = false, asked
			if k.Looked(res) {
				f.Tidy()
			}
			if k.lookAt = k.begun.Add(lookPace); k.soon {
				k.lookAt = k.begun.Add(looksAtLeast)
			}
		})
	})
}

// lookSoon has a look begin as soon as it may.
func (k *caching) lookSoon() {
	k.soon = true
	if at := k.begun.Add(looksAtLeast); at.Before(k.lookAt) {
		k.lookAt = at
	}
}

// cached answers what a client asks from what is kept; true: it is answered. Else the answer to come is
// kept if it may be.
func (l *loop) cached(c *client, typ byte, msg []byte) bool {
	c.fill = nil
	if c.reader || c.lost != nil || c.retried || c.pins != 0 || c.suspect&^mayFree != 0 || l.db.Paused || l.db.Suspended || len(c.outbuf) > throttleAt {
		return false
	}
	q, keep, ok := l.cacheable(c, typ, msg)
	if !ok {
		return false
	}
	k, now := l.cache, time.Now()
	k.used = now
	k.key = l.cacheKey(k.key[:0], c, &q)
	if e := k.Get(k.key, c.wrote, now); e != nil && l.serve(c, &q, e) {
		return true
	}
	l.miss(c, &q, keep, now)
	return false
}

// miss prepares to keep the answer of a server.
func (l *loop) miss(c *client, q *wanted, keep time.Duration, now time.Time) {
	k, x := l.cache, l.seen.statement(q.class)
	l.follow()
	why := ""
	switch {
	case !k.ready:
		why = k.off
	case len(q.sql) > maxCachedText:
		why = "its text is longer than 64 KiB"
	case q.extended && timely(q.tail):
		why = "a parameter that means another time with each call ('now')"
	}
	var end int
	if why == "" {
		k.shape, end, why = shapeOf(k.shape[:0], q.sql, c.backslash)
	}
	if why != "" {
		x.Uncached = why
		return
	}
	k.shape = append(append(k.shape, 0), q.types...)
	k.shape = append(append(append(k.shape, c.account.user.Name...), 0), k.scope(c.settings)...)
	v, ask := k.Judge(k.shape, now)
	if ask {
		of, drops := string(k.shape), k.Drops()
		if !k.follower.Judge(querycache.Question{SQL: string(q.sql[:end]), Types: oids(q.types), Settings: replay(nil, c.settings)}, func(v querycache.Verdict) {
			l.do(func() {
				if l.cache == k {
					k.Judged(of, drops, v, l.now)
					k.lookSoon()
				}
			})
		}) {
			k.Unanswered(of)
		}
	}
	if x.Uncached = v.Why; v.Why != "" {
		return
	}
	x.Misses++
	k.Miss()
	if v.Pending() {
		return
	}
	if k.Has(k.key, now) {
		k.lookSoon() // it is good, but not known to be good enough for this session
		return
	}
	if c.fill = k.Begin(k.key, v, keep, now); c.fill == nil {
		k.lookSoon()
	}
}

// serve answers from an entry; false when the server has to.
func (l *loop) serve(c *client, q *wanted, e *querycache.Entry) bool {
	k := l.cache
	out := k.out[:0]
	if q.parse != nil {
		if !l.parsed(c, q) {
			return false
		}
		out = append(out, '1', 0, 0, 0, 4)
	}
	if q.extended {
		out = append(out, '2', 0, 0, 0, 4)
	} else if c.unnamed != nil {
		c.unnamed.valid = false // a simple query ends it
	}
	if q.describe || !q.extended {
		out = append(out, e.Describe...)
	}
	out = pgwire.AppendReady(append(out, e.Rows...), 'I')
	x := l.asked(c, q.class, q.size)
	x.Calls++
	x.Times[0]++ // the server took none
	x.Hits++
	x.Rows += e.Count
	x.Sent += uint64(len(out))
	x.Uncached = ""
	k.Hit()
	l.stats.Queries++
	l.stats.Transactions++
	l.lastAsked = l.now
	c.class, c.direct = nil, false
	l.more = q.size - l.first()
	l.reply(c, out)
	if k.out = out; cap(out) > throttleAt {
		k.out = nil
	}
	return true
}

// first is the size of the message that is looked at.
func (l *loop) first() int {
	_, size, _, _ := pgwire.Header(l.rest)
	return size
}

// parsed does what Parse does to a client, without a server; false when only a server can.
func (l *loop) parsed(c *client, q *wanted) bool {
	if q.name != "" {
		p := l.statements.find(q.parse, c.settings)
		if p == nil || !p.good || c.statements[q.name] != nil {
			return false
		}
		p.refs++
		if c.statements == nil {
			c.statements = map[string]*prepared{}
		}
		c.statements[q.name] = p
		return true
	}
	if c.unnamed == nil {
		c.unnamed = new(unnamed)
	}
	u := c.unnamed
	u.class, u.parse, u.valid = *q.class, append(u.parse[:0], q.parse...), true
	u.gen++
	return true
}

// collect takes a part of a server's answer; typ is 0 within a message.
func (l *loop) collect(s *server, typ byte, b []byte) {
	f := s.fill
	if f == nil {
		return
	}
	switch typ {
	case '1', '2':
	case 'T':
		f.Describe = append(f.Describe, b...)
	case 'D', 'C', 0:
		if !f.Fits(len(b)) {
			s.fill = nil
			return
		}
		if f.Rows = append(f.Rows, b...); typ == 'D' {
			f.Count++
		}
	default:
		s.fill = nil
	}
}

// collected keeps an answer that is whole.
func (l *loop) collected(s *server) {
	if f := s.fill; f != nil && l.cache != nil && s.primary && s.tx == 'I' && !s.again {
		l.cache.Put(f)
	}
	s.fill = nil
}

// cacheView is what is to be seen of the cache; nil: it is off.
func (l *loop) cacheView() *pooldir.Cache {
	k := l.cache
	if k == nil {
		return nil
	}
	n := k.Counts()
	v := &pooldir.Cache{
		State: "on", Hits: n.Hits, Misses: n.Misses, Stored: n.Stored, Invalidations: n.Invalidations, Evicted: n.Evicted, Drops: n.Drops,
		Entries: n.Entries, Bytes: n.Bytes, Limit: n.Limit,
	}
	if !k.ready {
		v.State = k.off
	} else if !k.looked.IsZero() {
		v.Behind = l.now.Sub(k.looked)
	}
	return v
}
