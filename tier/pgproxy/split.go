package pgproxy

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"tenfold/internal/pgwire"
	"tenfold/internal/pooldir"
)

const (
	// splitWait is how long a read waits for a reader that has its client's last write; then the primary
	// answers.
	splitWait = 50 * time.Millisecond
	// hopelessFor is how long nobody waits after one waited in vain.
	hopelessFor = 250 * time.Millisecond
	// lookEvery is between two looks at how far readers are, while a read waits for one.
	lookEvery = time.Millisecond
	// looksKept is how many positions of the primary are remembered, for readers that are behind.
	looksKept = 256
)

// split is what is known of which reader has which commits. Owned by the loop.
//
// Positions in the WAL are asked for only while a read waits, and never on a client's way: each
// transaction at the primary that may have written is given a number when the client is told of its end.
// A look takes the last number, then the primary's position, then the readers'. So the primary's position
// is at or past all commits with these numbers, and a reader that is there has them all. A client compares
// two numbers. Asking for the position with each commit lost: it costs every writer what only those who
// read pay here.
type split struct {
	last    uint64 // number of the last transaction that may have written
	defined uint64 // and of the last one with DDL: what a text means must be the same everywhere
	// positions are the primary's, by the number that they cover, oldest first.
	positions []position
	applied   map[string]uint64 // by address: the last number that a reader is known to have
	reset     map[string]uint64 // grows when a reader may have begun again, and so may know less
	behind    queue             // reads that wait for a reader
	hopeless  time.Time         // when one last waited in vain
	looking   bool
	eyes      *eyes
}

type position struct{ number, lsn uint64 }

// splits says that a client's message goes to a reader: it is all of what a single statement that is proven
// to write nothing needs, or begins a transaction that is READ ONLY.
func (l *loop) splits(c *client, typ byte, msg []byte) bool {
	if !l.db.Split || c.fill != nil || c.reader || c.direct || c.retried || c.pins != 0 || c.suspect&^mayFree != 0 || !l.hasReader() || l.tuned(c) {
		return false
	}
	if p := c.account.pools[1]; p.failing != nil && l.now.Before(p.retryAt) {
		return false
	}
	if typ == 'Q' {
		return c.class != nil && c.class.reads()
	}
	return (typ == 'P' || typ == 'B') && l.batchReads(c)
}

// reads says that a text is one statement that a reader can answer.
func (k *class) reads() bool {
	return k.statements == 1 && (k.selects == 1 && k.traits == 0 || k.readOnly && k.traits == controls)
}

func (l *loop) hasReader() bool {
	return slices.ContainsFunc(l.db.Readers, func(r pooldir.Reader) bool { return !r.Draining && r.Addr != "" })
}

// tuned says that a client's session has what a reader does not take.
func (l *loop) tuned(c *client) bool {
	return slices.ContainsFunc(c.settings.all(), func(x setting) bool {
		return strings.HasPrefix(x.name, "default_transaction_") || strings.HasPrefix(x.name, "transaction_")
	})
}

// batchReads looks at all that a client sent up to Sync: nothing but statements that read.
func (l *loop) batchReads(c *client) bool {
	parsed := map[string]bool{}
	for b := l.rest; ; {
		typ, size, ok, err := pgwire.Header(b)
		if !ok || err != nil || size > len(b) {
			return false // the rest is not here yet
		}
		body := b[pgwire.HeaderSize:size]
		switch typ {
		case 'S':
			return true
		case 'P':
			name, rest, ok := pgwire.CString(body)
			if !ok {
				return false
			}
			k := l.seen.look(sqlOf(rest), c.backslash, l.now)
			if !k.reads() {
				return false
			}
			parsed[string(name)] = true
		case 'B':
			_, rest, _ := pgwire.CString(body)
			name := sqlOf(rest)
			switch p := c.statements[string(name)]; {
			case parsed[string(name)]:
			case len(name) == 0 && c.unnamed != nil && c.unnamed.valid && c.unnamed.class.reads():
			case p != nil && p.class.reads():
			default:
				return false
			}
		case 'D', 'E':
		default:
			return false
		}
		b = b[size:]
	}
}

// needs is the number that a reader must have for a client.
func (l *loop) needs(c *client) uint64 { return max(c.wrote, l.split.defined) }

// fresh says that a server has what a client's read must see.
func (l *loop) fresh(s *server, c *client) bool {
	return s.primary || !c.split || l.split.applied[s.addr] >= l.needs(c)
}

// someFresh says that there is a reader for a client.
func (l *loop) someFresh(c *client) bool {
	return slices.ContainsFunc(l.db.Readers, func(r pooldir.Reader) bool {
		return !r.Draining && r.Addr != "" && l.split.applied[r.Addr] >= l.needs(c)
	})
}

// route chooses a client's pool for what it asks now. false: it waits for a reader.
func (l *loop) route(c *client, typ byte, msg []byte) bool {
	if c.reader {
		return true
	}
	c.split = false
	c.pool = c.account.pools[0]
	if !l.splits(c, typ, msg) {
		c.direct = false
		return true
	}
	if l.someFresh(c) {
		c.split = true
		c.pool = c.account.pools[1]
		l.stats.Split++
		return true
	}
	if l.now.Sub(l.split.hopeless) < hopelessFor {
		l.stats.Unsplit++
		return true
	}
	c.blocked, c.since = true, l.now
	l.split.behind.push(c)
	l.lookAround()
	return false
}

// toPrimary has a client that waits for a reader ask the primary instead.
func (l *loop) toPrimary(c *client) {
	if c.inQueue != nil {
		c.inQueue.remove(c)
	}
	c.direct, c.split, c.pool = true, false, c.account.pools[0]
	l.stats.Unsplit++
	l.resume(c)
}

// wrote gives a transaction that may have written its number.
func (l *loop) wrote(c *client, ddl bool) {
	l.split.last++
	c.wrote = l.split.last
	if ddl {
		l.redefined()
		l.split.defined = l.split.last
	}
}

// begunAgain notes that a reader may know less than it did.
func (l *loop) begunAgain(addr string) {
	l.split.reset[addr]++
	delete(l.split.applied, addr)
}

// newPrimary forgets positions: they were another's.
func (l *loop) newPrimary() {
	l.split.positions = nil
	for addr := range l.split.applied {
		l.begunAgain(addr)
	}
}

// lookAround has somebody look how far the readers are.
func (l *loop) lookAround() {
	s := &l.split
	if s.looking || l.db.Primary == "" || l.db.Paused || l.db.Suspended || len(l.db.Users) == 0 {
		return
	}
	s.looking = true
	if s.eyes == nil {
		s.eyes = &eyes{p: l.p, conns: map[string]net.Conn{}}
	}
	e, epoch, number, resets := s.eyes, l.db.Epoch, s.last, maps.Clone(s.reset)
	e.database, e.user, e.password = l.db.Name, l.db.Users[0].Name, l.db.Users[0].Password
	primary := l.db.Primary
	var readers []string
	for _, r := range l.db.Readers {
		if !r.Draining && r.Addr != "" {
			readers = append(readers, r.Addr)
		}
	}
	l.p.helpers.Go(func() {
		at, where := e.look(primary, readers)
		l.do(func() {
			s.looking = false
			if epoch == l.db.Epoch && primary == l.db.Primary {
				l.looked(number, at, where, resets)
			}
			if s.behind.size > 0 {
				l.p.helpers.Go(func() { // not at once: a reader that is behind is not helped by being asked
					select {
					case <-l.p.life.Done():
					case <-time.After(lookEvery):
					}
					l.do(l.lookAround)
				})
			}
		})
		if l.p.life.Err() != nil {
			e.close()
		}
	})
}

// looked takes what a look has found: the primary's position (0: it did not say), and the readers'.
func (l *loop) looked(number, at uint64, where map[string]uint64, resets map[string]uint64) {
	s := &l.split
	if n := len(s.positions); at > 0 && (n == 0 || s.positions[n-1].number < number) {
		if s.positions = append(s.positions, position{number, at}); len(s.positions) > looksKept {
			s.positions = slices.Delete(s.positions, 0, looksKept/2)
		}
	}
	for addr, lsn := range where {
		if resets[addr] != s.reset[addr] {
			continue // it began again meanwhile
		}
		for _, p := range slices.Backward(s.positions) {
			if p.lsn <= lsn {
				s.applied[addr] = max(s.applied[addr], p.number)
				break
			}
		}
	}
	for c := s.behind.first; c != nil; {
		next := c.next
		if l.someFresh(c) {
			s.behind.remove(c)
			c.waited += l.now.Sub(c.since)
			l.resume(c)
			next = s.behind.first // others may have gone too
		}
		c = next
	}
}

// splitTimers sends those who waited long enough for a reader to the primary.
func (l *loop) splitTimers() {
	if !l.db.Split {
		return
	}
	for c := l.split.behind.expired(l.now, splitWait, time.Time{}); c != nil; c = l.split.behind.expired(l.now, splitWait, time.Time{}) {
		c.waited += l.now.Sub(c.since)
		l.split.hopeless = l.now
		l.toPrimary(c)
	}
	for _, a := range l.accounts {
		if o := a.pools[1].waiting.oldest(); o == nil || l.now.Sub(o.since) < splitWait {
			continue
		}
		for c := range a.pools[1].waiting.all {
			if c.split && l.now.Sub(c.since) >= splitWait {
				c.waited += l.now.Sub(c.since)
				l.toPrimary(c)
			}
		}
	}
}

// eyes ask servers for their positions, over connections of their own. One look at a time uses them.
type eyes struct {
	p                        *Proxy
	conns                    map[string]net.Conn
	database, user, password string
}

// look gives the primary's position and those of readers; who does not answer is left out.
func (e *eyes) look(primary string, readers []string) (at uint64, where map[string]uint64) {
	for addr, conn := range e.conns {
		if addr != primary && !slices.Contains(readers, addr) {
			conn.Close()
			delete(e.conns, addr)
		}
	}
	where = map[string]uint64{}
	at, err := e.ask(primary, "SELECT pg_catalog.pg_current_wal_insert_lsn()")
	if err != nil {
		return 0, where
	}
	if off := at % 8192; off == 24 || off == 40 {
		at -= off // nothing is on this page yet but its header: the last record ends before it
	}
	for _, r := range readers {
		if lsn, err := e.ask(r, "SELECT pg_catalog.pg_last_wal_replay_lsn() WHERE pg_catalog.pg_is_in_recovery()"); err == nil {
			where[r] = lsn
		}
	}
	return at, where
}

// ask sends one query whose answer is one position.
func (e *eyes) ask(addr, sql string) (lsn uint64, err error) {
	conn := e.conns[addr]
	if conn == nil {
		if conn, _, err = e.p.login(e.p.life, addr, e.database, e.user, e.password); err != nil {
			return 0, err
		}
		e.conns[addr] = conn
	}
	defer func() {
		if err != nil {
			conn.Close()
			delete(e.conns, addr)
		}
	}()
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write(pgwire.AppendQuery(nil, sql)); err != nil {
		return 0, err
	}
	err = fmt.Errorf("%s gave no position", addr)
	for {
		typ, body, rerr := readMessage(conn)
		switch {
		case rerr != nil:
			return 0, rerr
		case typ == 'E':
			e := pgwire.ParseError(body)
			err = &e
		case typ == 'D':
			if cols, rerr := pgwire.Row(body); rerr == nil && len(cols) == 1 {
				lsn, err = parseLSN(string(cols[0]))
			}
		case typ == 'Z':
			return lsn, err
		}
	}
}

func (e *eyes) close() {
	for addr, conn := range e.conns {
		conn.Close()
		delete(e.conns, addr)
	}
}

// parseLSN reads a position as PostgreSQL writes it: 16/B374D848.
func parseLSN(s string) (uint64, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if ok {
		h, err1 := strconv.ParseUint(hi, 16, 32)
		l, err2 := strconv.ParseUint(lo, 16, 32)
		if err1 == nil && err2 == nil {
			return h<<32 | l, nil
		}
	}
	return 0, fmt.Errorf("%q is no position in the WAL", s)
}
