package pgproxy

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/pgwire"
	"tenfold/internal/uring"
)

// What came of a client in the same round in which its server was lost stands behind the batch that is begun
// again.
func TestWhatCameInTheRoundOfALossIsKept(t *testing.T) {
	p := unopened(t)
	for name, open := range map[string]func(testing.TB, *loop){"single": func(testing.TB, *loop) {}, "together": together} {
		t.Run(name, func(t *testing.T) {
			l, c, s, app, engine := bare(t, p)
			open(t, l)
			l.now = time.Now()
			first, second := pgwire.AppendQuery(nil, "select 1"), pgwire.AppendQuery(nil, "select 2")
			unix.Write(app, first)
			l.round([]unix.EpollEvent{eventOf(l, c.fd)})
			b := make([]byte, 64)
			if n, _ := unix.Read(engine, b); string(b[:n]) != string(first) {
				t.Fatalf("%q", b[:n])
			}
			unix.Shutdown(engine, unix.SHUT_RDWR)
			unix.Write(app, second)
			l.round([]unix.EpollEvent{eventOf(l, s.fd), eventOf(l, c.fd)})
			if got, want := string(c.in), string(first)+string(second); got != want || !c.blocked || c.closed {
				t.Errorf("%q is kept, want %q", got, want)
			}
		})
	}
}

// A round answers several, each with its own, and what one does not take yet comes later.
func TestARoundTellsEachItsOwn(t *testing.T) {
	l, c, s, app, engine := bare(t, unopened(t))
	together(t, l)
	l.now = time.Now()
	other, far := another(t, l, c)
	// It takes a little: its peer reads nothing.
	large := make([]byte, 32<<10)
	for len(other.outbuf) == 0 {
		l.put(c, []byte("for one;"))
		l.put(other, large)
		l.put(c, []byte("for one too;"))
		s.out = append(s.out, "for the server;"...)
		l.flush(s)
		l.deliver()
	}
	l.put(other, []byte("last"))
	l.deliver()
	read := func(fd int) (all []byte) {
		b := make([]byte, readSize)
		for n, _ := unix.Read(fd, b); n > 0; n, _ = unix.Read(fd, b) {
			all = append(all, b[:n]...)
		}
		return all
	}
	rounds := 0
	for got := read(app); len(got) > 0; rounds++ {
		const one = "for one;for one too;"
		if string(got[:len(one)]) != one {
			t.Fatalf("%q", got)
		}
		got = got[len(one):]
	}
	if got := read(engine); rounds == 0 || len(got) != rounds*len("for the server;") {
		t.Errorf("%d rounds, the server has %q", rounds, got)
	}
	var got []byte
	for len(other.outbuf) > 0 {
		got = append(got, read(far)...)
		l.flushClient(other)
	}
	got = append(got, read(far)...)
	if len(got) != rounds*len(large)+4 || string(got[len(got)-4:]) != "last" {
		t.Errorf("%d bytes came, of %d", len(got), rounds*len(large)+4)
	}
	// Who leaves has heard all before.
	l.put(c, []byte("goodbye"))
	l.leave(c)
	if got := read(app); string(got) != "goodbye" {
		t.Errorf("%q", got)
	}
}

// together has the loop use the kernel's ring. Where there is none, the test is skipped with the reason.
func together(t testing.TB, l *loop) {
	t.Helper()
	if l.openPack(); l.pack.ring == nil {
		_, err := uring.New(batchSize)
		t.Skip("skipped: ", err)
	}
	t.Cleanup(l.closePack)
}

// unopened is a proxy without a directory.
func unopened(t testing.TB) *Proxy {
	t.Helper()
	p, err := New(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func eventOf(l *loop, fd int) unix.EpollEvent {
	return unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd), Pad: int32(l.conns[fd].gen)}
}

// A socket that is the web's is no longer the loop's to hear of, or what comes to it would wake the loop for ever.
func TestWhoSpeaksHTTPIsNotHeard(t *testing.T) {
	l, c, _, app, _ := bare(t, unopened(t))
	l.surrender(c, []byte("POST / HTTP/1.1\r\n"))
	conn := <-l.p.web.conns
	defer conn.Close()
	unix.Write(app, []byte("Host: db\r\n\r\n"))
	if n := l.look(l.poll); n != 0 {
		t.Errorf("%d events", n)
	}
}
