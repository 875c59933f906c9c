package pgproxy

import (
	"slices"
	"time"

	"tenfold/internal/pooldir"
)

const (
	// slowAt is from when a statement is remembered, with its wait for a connection.
	slowAt = 100 * time.Millisecond
	// slowKept is how many are.
	slowKept = 100
)

// request is what a statement is for, and how long it waited for its server.
type request struct {
	trace  string // traceparent
	waited time.Duration
}

// bear notes what the statement that a portal executes is for. Of named portals it is not remembered:
// they are cursors, and their rows are asked for by others.
func (s *server) bear(portal []byte, r request) {
	if len(portal) == 1 {
		s.bears = r
	}
}

// born gives it to the first Execute of the portal.
func (s *server) born(body []byte) (r request) {
	if len(body) > 0 && body[0] == 0 {
		r, s.bears = s.bears, request{}
	}
	return r
}

// bucket is where a time is counted in pooldir.Statement.Times.
func bucket(d time.Duration) int {
	for i, b := range pooldir.TimeBounds {
		if d < b {
			return i
		}
	}
	return len(pooldir.TimeBounds)
}

// slow are the last statements that took long, the oldest overwritten. Owned by the loop.
type slow struct {
	list []pooldir.Slow
	next int
}

func (s *slow) add(x pooldir.Slow) {
	if len(s.list) < slowKept {
		s.list = append(s.list, x)
		return
	}
	s.list[s.next] = x
	s.next = (s.next + 1) % slowKept
}

// all are copies, the newest first.
func (s *slow) all() []pooldir.Slow {
	out := append(slices.Clone(s.list[s.next:]), s.list[:s.next]...)
	slices.Reverse(out)
	return out
}

// finished notes the end of a statement: among the slow ones when it was, and as a span when its request is
// one that is traced.
func (l *loop) finished(s *server, x *counts, r request, begun time.Time, rows uint64, code string) {
	took := l.now.Sub(begun)
	isSlow := took+r.waited >= slowAt
	traced := l.p.spans != nil && isSampled(r.trace)
	if !isSlow && !traced {
		return
	}
	e := pooldir.Slow{At: l.now, Fingerprint: x.Fingerprint, Query: x.Query, Waited: r.waited, Took: took, Rows: rows, Code: code, User: s.pool.account.user.Name, Trace: r.trace}
	if s.client != nil {
		e.Application = s.client.app
	}
	if isSlow {
		l.slow.add(e)
	}
	if traced {
		l.p.spans.add(span{Slow: e, database: l.db.Name, id: l.db.ID, server: s.addr})
	}
}

// isSampled says that whoever began a trace wants to see all of it.
func isSampled(trace string) bool {
	if len(trace) != 55 {
		return false
	}
	c := trace[54]
	return c >= '0' && c <= '9' && (c-'0')&1 == 1 || c >= 'a' && c <= 'f' && (c-'a')&1 == 1
}
