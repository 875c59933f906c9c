package pgproxy

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/pgwire"
	"tenfold/internal/pooldir"
)

// bare is a loop with a client that is logged in and has a server, both at the end of socket pairs.
func bare(t testing.TB, p *Proxy) (l *loop, c *client, s *server, app, engine int) {
	var err error
	if l, err = newLoop(p); err != nil {
		t.Fatal(err)
	}
	l.apply(pooldir.Database{ID: "d", Name: "d", Users: []pooldir.User{{Name: "u"}}, Primary: "127.0.0.1:1"}, 1, map[string]*pgwire.Keys{"u": p.nobody})
	a := l.accounts["u"]
	a.pools[0].retryAt = time.Now().Add(time.Hour) // no server but the one below
	c = &client{phase: phaseReady, account: a, pool: a.pools[0], pid: 1, secret: []byte("key")}
	s = &server{pool: a.pools[0], addr: "127.0.0.1:1", epoch: 1, primary: true, tx: 'I', statements: map[*prepared]*kept{}}
	c.fd, app = sockets(t)
	s.fd, engine = sockets(t)
	l.clients, a.clients = 1, 1
	l.byPID[1] = c
	l.add(c.fd, c, nil)
	l.add(s.fd, nil, s)
	a.pools[0].all[s] = struct{}{}
	a.pools[0].idle = append(a.pools[0].idle, s)
	t.Cleanup(func() {
		if !c.closed {
			unix.Close(c.fd)
		}
		if !s.closing {
			unix.Close(s.fd)
		}
		unix.Close(app)
		unix.Close(engine)
		unix.Close(l.poll)
		unix.Close(l.urgent)
		unix.Close(l.bell)
		p.helpers.Wait()
	})
	return l, c, s, app, engine
}

// another is a client beside c, with the far end of its connection.
func another(t testing.TB, l *loop, c *client) (other *client, far int) {
	other = &client{phase: phaseReady, account: c.account, pool: c.pool, pid: 2}
	other.fd, far = sockets(t)
	l.add(other.fd, other, nil)
	t.Cleanup(func() {
		if !other.closed {
			l.leave(other)
		}
		unix.Close(far)
	})
	return other, far
}

// sockets are the two ends of a connection; whoever asks closes them.
func sockets(t testing.TB) (int, int) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

// FuzzWire sends arbitrary bytes from both sides, in turns. The loop must stand, and an observer that
// never asked for anything must never be told anything.
func FuzzWire(f *testing.F) {
	seq := func(parts ...[]byte) (out []byte) {
		for _, p := range parts {
			out = append(binary.BigEndian.AppendUint16(out, uint16(len(p))), p...)
		}
		return out
	}
	q := pgwire.AppendQuery(nil, "select 1")
	done := pgwire.AppendReady(pgwire.Append(nil, 'C', "SELECT 1\x00"), 'I')
	prepare := append(pgwire.Append(nil, 'P', "s\x00select 1\x00\x00\x00"), pgwire.Append(pgwire.Append(pgwire.Append(nil, 'B', "\x00s\x00\x00\x00\x00\x00\x00\x00"), 'E', "\x00\x00\x00\x00\x00"), 'S')...)
	parsed := append([]byte("1\x00\x00\x00\x042\x00\x00\x00\x04"), done...)
	f.Add(seq(q, done, q, done))
	reads := func(in []byte) []byte { in[0] |= 0x80; return in }
	f.Add(reads(seq(append(append([]byte(nil), q...), q...), done, q, done)))
	f.Add(reads(seq(q, pgwire.AppendError(nil, &pgwire.Error{Severity: "ERROR", Code: "25006"}), nil, pgwire.AppendReady(nil, 'I'))))
	f.Add(reads(seq(pgwire.AppendQuery(nil, "begin read only"), pgwire.AppendReady(pgwire.Append(nil, 'C', "BEGIN\x00"), 'T'), pgwire.AppendQuery(nil, "set a = 1; commit"), pgwire.AppendReady(pgwire.Append(nil, 'C', "COMMIT\x00"), 'I'))))
	f.Add(seq(prepare, parsed, prepare, parsed))
	f.Add(seq(pgwire.AppendQuery(nil, "set a = 1"), pgwire.AppendReady(pgwire.Append(nil, 'C', "SET\x00"), 'I'), nil, pgwire.AppendReady(nil, 'I')))
	f.Add(seq(q, pgwire.AppendError(nil, &pgwire.Error{Severity: "ERROR", Code: "0A000", Message: outdated})))
	f.Add(seq(append(prepare, prepare...), pgwire.AppendError(nil, &pgwire.Error{Severity: "FATAL", Code: "57P01"})))
	f.Add(seq(pgwire.AppendQuery(nil, "copy t from stdin"), pgwire.Append(nil, 'G', "\x00\x00\x00"), pgwire.Append(nil, 'd', "x"), nil, pgwire.Append(nil, 'c')))
	p := unopened(f) // once: it derives keys
	f.Fuzz(func(t *testing.T, in []byte) {
		l, c, s, app, engine := bare(t, p)
		if len(in) > 0 && in[0] >= 0x80 { // the server is a reader, and reads go to it
			in = append([]byte{in[0] & 0x7f}, in[1:]...)
			l.db.Split, l.db.Readers = true, []pooldir.Reader{{Addr: s.addr}}
			ps := c.account.pools
			ps[1].retryAt = ps[0].retryAt
			delete(ps[0].all, s)
			ps[0].idle, ps[1].idle = nil, ps[0].idle
			ps[1].all[s] = struct{}{}
			s.pool, s.primary = ps[1], false
		}
		observer, far := another(t, l, c)
		beside, answered := another(t, l, c) // whose query is sent ahead where it may be
		l.seen.look([]byte("select 1"), false, l.now).seen.Calls = 8
		if len(in)%2 == 0 { // as where the kernel has io_uring
			l.openPack()
			defer l.closePack()
		}
		drained := make([]byte, readSize)
		for turn := 0; len(in) >= 2; turn++ {
			n := min(int(binary.BigEndian.Uint16(in)), len(in)-2)
			part := in[2 : 2+n]
			in = in[2+n:]
			if turn%2 == 0 && !c.closed {
				unix.Write(app, part)
			} else if !s.closing {
				unix.Write(engine, part)
			}
			l.now = time.Now()
			if !beside.closed && !beside.blocked && turn%3 == 1 {
				unix.Write(answered, q)
			}
			events := []unix.EpollEvent{eventOf(l, c.fd), eventOf(l, s.fd), eventOf(l, observer.fd), eventOf(l, beside.fd)}
			if turn%4 > 1 {
				slices.Reverse(events)
			}
			l.round(events)
			l.timers()
			l.deliver()
			unix.Read(app, drained)
			unix.Read(engine, drained)
			unix.Read(answered, drained)
		}
		if n, _ := unix.Read(far, drained); n > 0 {
			t.Errorf("one who asked nothing was told %q", drained[:n])
		}
	})
}

// FuzzToken guesses tokens. None holds that was not made here.
func FuzzToken(f *testing.F) {
	u := pooldir.User{Name: "u", Password: "secret"}
	now := time.Unix(1_700_000_000, 0)
	good := NewToken("d", u, now.Add(time.Minute))
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add("tft1..")
	f.Add("tft1.e30.AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		if TokenHolds(token, "d", u, now) != (token == good) {
			t.Errorf("%q", token)
		}
	})
}
