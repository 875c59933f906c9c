package pgproxy

import (
	"maps"
	"math/bits"
	"time"

	"tenfold/internal/pooldir"
)

// Stats are what a database's clients did, counted since the process began.
type Stats struct {
	Queries      uint64 `json:"queries"` // simple queries, and Binds
	Transactions uint64 `json:"transactions"`
	Errors       uint64 `json:"errors"`    // ErrorResponses of servers
	Refused      uint64 `json:"refused"`   // wrong passwords
	Unshaken     uint64 `json:"unshaken"`  // TLS that failed
	TimedOut     uint64 `json:"timedOut"`  // waited in vain
	Cancelled    uint64 `json:"cancelled"` // requests to cancel passed on
	Retried      uint64 `json:"retried"`   // batches sent again
	Ahead        uint64 `json:"ahead"`     // batches sent to a server before it had answered another client
	TakenBack    uint64 `json:"takenBack"` // those of them whose clients had to wait again
	Split        uint64 `json:"split"`     // reads that went to a reader
	Unsplit      uint64 `json:"unsplit"`   // and those that would have, but for no reader was there or far enough
	CacheHits    uint64 `json:"cacheHits"`
	CacheMisses  uint64 `json:"cacheMisses"`
	Replayed     uint64 `json:"replayed"` // sessions made a client's
	Cleaned      uint64 `json:"cleaned"`  // DISCARD ALL
	Parsed       uint64 `json:"parsed"`   // statements prepared at servers
	Opened       uint64 `json:"opened"`   // connections to servers
	Closed       uint64 `json:"closed"`
	// Waits counts borrowed connections by how long the client waited: Waits[i] those of less than 2^i µs,
	// the last all others.
	Waits [24]uint64 `json:"waits"`
	// Waited is the sum of them. Execs counts what servers answered by how long it took, as pooldir.TimeBounds
	// has it; Executed is the sum.
	Waited   time.Duration                       `json:"waited"`
	Execs    [len(pooldir.TimeBounds) + 1]uint64 `json:"execs"`
	Executed time.Duration                       `json:"executed"`
	// Pins counts why clients kept their server.
	Pins               map[string]uint64 `json:"pins"`
	CacheInvalidations uint64            `json:"cacheInvalidations"`
	// Now.
	CacheBytes                              int64
	Clients, Waiting, Servers, Busy, Pinned int
}

func (s *Stats) waited(d time.Duration) {
	s.Waited += d
	s.Waits[min(bits.Len64(uint64(d/time.Microsecond)), len(s.Waits)-1)]++
}

// quiet says that nothing is under way at any server.
func (l *loop) quiet() bool {
	for p := range l.pools() {
		if p.dialing > 0 {
			return false
		}
		for s := range p.all {
			if !s.idle() {
				return false
			}
		}
	}
	return true
}

// announce reports a pause that holds, or the wish for a wake: once for each directory.
func (l *loop) announce() {
	if !l.db.Paused && !l.db.Suspended || l.announced {
		return
	}
	if l.db.Paused && l.quiet() || l.db.Suspended && l.waiting() > 0 {
		l.announced = true
		l.p.helpers.Go(l.p.tell)
	}
}

func (l *loop) waiting() (n int) {
	for p := range l.pools() {
		n += p.waiting.size + p.held.size
	}
	n += l.split.behind.size
	return n
}

// Report is how each database is used.
func (p *Proxy) Report() pooldir.Report {
	p.mu.Lock()
	r := pooldir.Report{Version: p.snapshot.Version, Databases: map[string]pooldir.State{}}
	p.mu.Unlock()
	p.each(func(id string, l *loop) {
		r.Version = min(r.Version, l.version)
		st := pooldir.State{Clients: l.clients, Waiting: l.waiting(), Busy: map[string]int{}, Last: l.lastAsked}
		for p := range l.pools() {
			for s := range p.all {
				if s.client != nil || !s.idle() {
					st.Busy[s.addr]++
				}
			}
		}
		st.Quiet = (l.db.Paused || l.db.Suspended || l.db.Primary == "") && l.quiet()
		st.Wake = l.db.Suspended && st.Waiting > 0
		for addr, f := range l.sick {
			if l.now.Sub(f.at) > time.Second {
				delete(l.sick, addr)
				continue
			}
			if st.Sick == nil {
				st.Sick = map[string]string{}
			}
			st.Sick[addr] = f.err
		}
		r.Databases[id] = st
	})
	return r
}

// Stats are the counts of each database, by ID.
func (p *Proxy) Stats() map[string]Stats {
	out := map[string]Stats{}
	p.each(func(id string, l *loop) {
		st := l.stats
		st.Pins = maps.Clone(st.Pins)
		if l.cache != nil {
			n := l.cache.Counts()
			st.CacheHits, st.CacheMisses, st.CacheBytes, st.CacheInvalidations = n.Hits, n.Misses, n.Bytes, n.Invalidations
		}
		st.Clients, st.Waiting = l.clients, l.waiting()
		for p := range l.pools() {
			st.Servers += len(p.all)
			for s := range p.all {
				if s.client != nil {
					st.Busy++
					if s.client.pins != 0 {
						st.Pinned++
					}
				}
			}
		}
		out[id] = st
	})
	return out
}
