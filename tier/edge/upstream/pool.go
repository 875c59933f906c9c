package upstream

import (
	"sync"
	"time"
)

// How long idle connections are kept. Node closes after 5 s, so 4 s closes first; what a task closes
// earlier is learned from it.
const (
	idleMost    = 4 * time.Second
	idleCareful = time.Second
	idleLeast   = 250 * time.Millisecond // closes sooner than that are restarts, not a task's setting
	idleConns   = 256                    // per task
	// idleFresh is how lately a connection was used that is trusted without a look at its socket, which is
	// a system call: with what may be sent twice alone.
	idleFresh = 5 * time.Millisecond
	relearn   = time.Minute // what was learned is doubted after that
)

// pool keeps a task's idle connections, the last used first.
type pool struct {
	mu      sync.Mutex
	idle    []*conn
	closed  bool
	limit   int64 // nanoseconds a connection may idle, learned; 0: idleMost
	learned int64 // when
}

// keep is how long a connection may idle. Under p.mu.
func (p *pool) keep(now int64) int64 {
	if p.limit == 0 {
		return int64(idleMost)
	}
	if now-p.learned > int64(relearn) {
		p.learned = now
		if p.limit += p.limit / 2; p.limit >= int64(idleMost) {
			p.limit = 0
			return int64(idleMost)
		}
	}
	return p.limit
}

// get gives a connection that idled for a safe time and is still open, or nil. With careful, for
// what must not be sent twice, only one that idled for less than half of what the task allows, and
// less than idleCareful: where that has not been learned, no task in use closes sooner.
func (p *pool) get(now int64, careful bool) *conn {
	for {
		p.mu.Lock()
		n := len(p.idle) - 1
		if n < 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[n]
		age, keep := now-c.since, p.keep(now)
		if careful && age > min(keep/2, int64(idleCareful)) && age <= keep {
			p.mu.Unlock()
			return nil // older ones lie below
		}
		p.idle[n] = nil
		p.idle = p.idle[:n]
		p.mu.Unlock()
		if age > keep {
			c.discard()
			continue
		}
		if (careful || age > int64(idleFresh)) && !c.alive() {
			p.learn(now, age)
			c.discard()
			continue
		}
		return c
	}
}

// learn notes that the task closed a connection that idled for age: from now on they are closed
// well before.
func (p *pool) learn(now, age int64) {
	if age < int64(idleLeast) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if limit := age * 3 / 4; p.limit == 0 && limit < int64(idleMost) || limit < p.limit {
		p.limit, p.learned = limit, now
	}
}

// told notes what the task itself says of its limit.
func (p *pool) told(now int64, limit time.Duration) {
	limit = max(limit-time.Second, limit/2)
	p.mu.Lock()
	defer p.mu.Unlock()
	if limit < idleMost && (p.limit == 0 || int64(limit) < p.limit) {
		p.limit, p.learned = int64(limit), now
	}
}

// put takes a connection back.
func (p *pool) put(c *conn, now int64) {
	c.restore()
	c.since = now
	c.used++
	c.sent += c.out64
	c.out64 = 0
	p.mu.Lock()
	if p.closed || len(p.idle) >= idleConns {
		p.mu.Unlock()
		c.discard()
		return
	}
	p.idle = append(p.idle, c)
	p.mu.Unlock()
}

// sweep closes what idled too long.
func (p *pool) sweep(now int64) {
	p.mu.Lock()
	keep, n := p.keep(now), 0
	for n < len(p.idle) && now-p.idle[n].since > keep {
		n++
	}
	old := append([]*conn(nil), p.idle[:n]...)
	p.idle = append(p.idle[:0], p.idle[n:]...)
	p.mu.Unlock()
	for _, c := range old {
		c.discard()
	}
}

// open lets connections come back again.
func (p *pool) open() {
	p.mu.Lock()
	p.closed = false
	p.mu.Unlock()
}

// close closes what idles; with shut, what comes back later is closed too.
func (p *pool) close(shut bool) {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, shut
	p.mu.Unlock()
	for _, c := range idle {
		c.discard()
	}
}
