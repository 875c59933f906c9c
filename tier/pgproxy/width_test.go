package pgproxy

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/pgwire"
)

func TestNextWidth(t *testing.T) {
	least := leastWidth
	leastWidth = 3
	t.Cleanup(func() { leastWidth = least })
	for _, x := range []struct {
		name            string
		n, want         int
		runnable, share float64
	}{
		{"all of them wait for a processor", 0, 15, 17, 0.7},
		{"one too many", 4, 3, 3.8, 0.6},
		{"never fewer than there are processors", 3, 3, 9, 0.8},
		{"as many as are wanted", 3, 3, 2.8, 0.45},
		{"there is room for more", 8, 10, 2, 0.6},
		{"they wait for something else", 3, 4, 0.4, 0.1},
		{"other programs have the processors", 8, 10, 17, 0.3},
		{"and before it began", 0, 0, 17, 0.3},
		{"about half is theirs", 5, 5, 5, 0.45},
		{"for all again", 17, 0, 0, 0},
		{"nothing is counted", 0, 0, 0, 0},
	} {
		if got := nextWidth(x.n, 20, x.runnable, x.share); got != x.want {
			t.Errorf("%s: %d after %d, want %d", x.name, got, x.n, x.want)
		}
	}
	for n, looks := 0, 1; ; looks++ { // a machine that is overrun has them few at once soon
		if n = nextWidth(n, 100, 40, 0.9); n == 3 {
			if looks > 20 {
				t.Errorf("after %d looks", looks)
			}
			break
		} else if looks > 100 {
			t.Fatal("it stays wide")
		}
	}
}

// One at a time: who comes second waits though a server is at rest, until the first is answered or works for long.
func TestAWidthGivesWorkToFewer(t *testing.T) {
	l, c, s, _, engine := bare(t, unopened(t))
	p := c.pool
	second := &server{pool: p, addr: s.addr, epoch: 1, primary: true, tx: 'I', statements: map[*prepared]*kept{}, since: time.Now()}
	var far int
	second.fd, far = sockets(t)
	l.add(second.fd, nil, second)
	p.all[second] = struct{}{}
	p.idle = append([]*server{second}, p.idle...)
	t.Cleanup(func() { unix.Close(second.fd); unix.Close(far) })
	other, _ := another(t, l, c)
	l.now = time.Now()
	p.n, p.looked = 1, l.now
	asks := func(c *client, sql string) { l.use(c, pgwire.AppendQuery(nil, sql)) }
	answers := func(fd int, status byte) {
		unix.Write(fd, pgwire.AppendReady(pgwire.Append(nil, 'C', "SELECT 1\x00"), status))
		of := s
		if fd == far {
			of = second
		}
		l.serverEvent(of, unix.EPOLLIN, &heard{})
	}

	asks(c, "select 1")
	asks(other, "select 2")
	if c.server != s || other.server != nil || p.waiting.size != 1 || len(p.idle) != 1 {
		t.Fatalf("%d wait, %d are at rest", p.waiting.size, len(p.idle))
	}
	if due := p.width.due(); !due.Equal(l.now.Add(youngFor)) {
		t.Errorf("due in %s", due.Sub(l.now))
	}
	answers(engine, 'I')
	if other.server != s || p.waiting.size != 0 {
		t.Fatal("the second was not given what the first had")
	}
	asks(c, "select 3")
	l.now = l.now.Add(youngFor - 1)
	l.timers()
	if c.server != nil {
		t.Fatal("it was given a server too soon")
	}
	l.now = l.now.Add(1)
	l.timers()
	if c.server != second || len(p.young) != 1 {
		t.Fatalf("a long query holds up others: %d are young", len(p.young))
	}
	// Within a transaction a server at rest does not count, and what its client says next does not wait.
	answers(engine, 'I')
	answers(far, 'T')
	if len(p.young) != 0 || c.server != second || !c.urgent {
		t.Fatalf("%d are young; urgent %t", len(p.young), c.urgent)
	}
	asks(other, "select 4")
	asks(c, "select 5")
	if other.server != s || len(p.young) != 2 || p.waiting.size != 0 {
		t.Errorf("%d are young, %d wait", len(p.young), p.waiting.size)
	}
	// And one that breaks counts no more.
	l.lose(s, nil)
	l.lose(second, nil)
	if len(p.young) != 0 {
		t.Errorf("%d are young without a server", len(p.young))
	}
}

// While enough wait, only who has a server is heard, but for a moment.
func TestClientsAreHeardTogether(t *testing.T) {
	l, c, s, app, engine := bare(t, unopened(t))
	p := c.pool
	waits, _ := another(t, l, c)
	more, _ := another(t, l, c)
	late, says := another(t, l, c)
	l.now = time.Now()
	ask := pgwire.AppendQuery(nil, "select 1")
	l.use(c, ask)
	if l.enough() {
		t.Error("enough, with nobody")
	}
	l.use(waits, ask)
	l.use(more, ask)
	if !l.enough() {
		t.Fatalf("not enough, with %d", p.waiting.size)
	}
	turn := func() (events []unix.EpollEvent) {
		l.now = time.Now()
		return l.events[:l.wait()]
	}
	unix.Write(says, ask)
	unix.Write(engine, pgwire.AppendReady(pgwire.Append(nil, 'C', "BEGIN\x00"), 'T'))
	l.heard = time.Now().Add(time.Hour)
	if got := turn(); len(got) != 1 || int(got[0].Fd) != s.fd {
		t.Fatalf("%d events while enough wait", len(got))
	}
	l.serverEvent(s, unix.EPOLLIN, &heard{})
	unix.Write(app, ask)
	if l.enough() {
		t.Error("enough, while a transaction holds its locks")
	}
	l.opened = time.Time{}
	if got := turn(); len(got) != 1 || int(got[0].Fd) != c.fd {
		t.Fatalf("%d events of who has a server", len(got))
	}
	l.clientEvent(c, unix.EPOLLIN, &heard{})
	l.heard = time.Now().Add(-unheardFor)
	if got := turn(); len(got) != 1 || int(got[0].Fd) != late.fd {
		t.Fatalf("%d events after a moment", len(got))
	}
	l.db.Paused = true
	if l.enough() {
		t.Error("enough, in a pause")
	}
}

// The loop's thread is a batch thread for as long as enough wait.
func TestALoopIsPatientWhileEnoughWait(t *testing.T) {
	runtime.LockOSThread() // and never given back: the policy ends with it
	l, _, _, _, _ := bare(t, unopened(t))
	policy := func() int {
		a, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Skip("how the kernel treats a thread cannot be seen here: ", err)
		}
		return int(a.Policy)
	}
	before := policy()
	at := time.Now()
	for i, x := range []struct {
		after  time.Duration
		enough bool
		want   int
	}{
		{0, true, before}, {4 * time.Millisecond, true, before}, {2 * time.Millisecond, false, before}, {2 * time.Millisecond, true, before}, {2 * time.Millisecond, true, schedBatch},
		{4 * time.Millisecond, false, schedBatch}, {4 * time.Millisecond, false, schedOther}, {time.Second, true, schedOther}, {time.Second, true, schedOther},
	} {
		at = at.Add(x.after)
		l.now = at
		l.patience(x.enough)
		if l.patient.unable {
			t.Skip("the kernel does not let a thread be a batch thread")
		}
		if got := policy(); got != x.want {
			t.Errorf("step %d: policy %d, want %d", i, got, x.want)
		}
	}
}

func TestTurnsOfAProcess(t *testing.T) {
	own := openTurns(os.Getpid(), os.Getppid())
	if own == nil {
		if _, err := os.Stat("/proc/self/schedstat"); err != nil {
			t.Skip("the kernel does not count: ", err)
		}
		t.Fatal("nothing is known of this process")
	}
	defer own.close()
	if x := openTurns(os.Getpid(), os.Getpid()); x != nil {
		t.Error("a process that is not the parent's child is read")
	}
	if x := openTurns(1<<30, 1); x != nil {
		t.Error("a process that is not there is read")
	}
	// The number belongs to the main thread; what it had never falls.
	if run, ran := own.since(); run < 0 || ran < run {
		t.Error(run, ran)
	}
	for in, want := range map[string][2]uint64{"": {}, "12 34 5\n": {12, 34}, "x": {}, "7": {7, 0}} {
		r, rest := leadingNumber([]byte(in))
		d, _ := leadingNumber(rest)
		if r != want[0] || d != want[1] {
			t.Errorf("%q: %d %d", in, r, d)
		}
	}
}
