package pgproxy

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"tenfold/internal/pgwire"
	"tenfold/internal/pooldir"
)

// line is a loop with one server, whose far end is engine, and clients that ask for select 1, 2, 3. The first was
// answered; now the second's is with the server, and the third's was sent ahead.
type line struct {
	*loop
	t       *testing.T
	s       *server
	engine  int
	clients [3]*client
	far     [3]int
}

func asks(n int) []byte { return pgwire.AppendQuery(nil, fmt.Sprint("select ", n)) }

func answers(n int) []byte {
	return pgwire.AppendReady(pgwire.Append(pgwire.Append(nil, 'D', fmt.Sprint("\x00\x01\x00\x00\x00\x01", n)), 'C', "SELECT 1\x00"), 'I')
}

func parses(name, sql string) []byte {
	return append(pgwire.Append(nil, 'P', name+"\x00"+sql+"\x00\x00\x00"), pgwire.Append(nil, 'S')...)
}

func runs(name string) []byte {
	return append(pgwire.Append(pgwire.Append(nil, 'B', "\x00"+name+"\x00\x00\x00\x00\x00\x00\x00"), 'E', "\x00\x00\x00\x00\x00"), pgwire.Append(nil, 'S')...)
}

func parsed() []byte { return pgwire.AppendReady(pgwire.Append(nil, '1'), 'I') }

func inLine(t *testing.T) *line {
	l, c, s, app, engine := bare(t, unopened(t))
	x := &line{loop: l, t: t, s: s, engine: engine}
	x.clients[0], x.far[0] = c, app
	for i := 1; i < 3; i++ {
		x.clients[i], x.far[i] = another(t, l, c)
		x.clients[i].pid, x.clients[i].secret = uint32(i+1), []byte("key")
		l.byPID[uint32(i+1)] = x.clients[i]
	}
	l.now = time.Now()
	k := l.seen.look([]byte("select 1"), false, l.now)
	k.seen.Calls = 8
	for i, c := range x.clients {
		l.use(c, asks(i+1))
	}
	x.gets(asks(1))
	x.says(answers(1))
	x.told(0, answers(1))
	x.gets(asks(2), asks(3))
	if x.clients[2].ahead != s || c.pool.waiting.size != 0 {
		t.Fatal("nobody was sent ahead")
	}
	return x
}

func (x *line) read(fd int) string {
	b := make([]byte, readSize)
	n, _ := unix.Read(fd, b)
	return string(b[:max(n, 0)])
}

// gets says what the server must have been sent.
func (x *line) gets(want ...[]byte) {
	x.t.Helper()
	x.deliver()
	var all string
	for _, w := range want {
		all += string(w)
	}
	if got := x.read(x.engine); got != all {
		x.t.Fatalf("the server got %q, want %q", got, all)
	}
}

// told says what a client must have been.
func (x *line) told(i int, want []byte) {
	x.t.Helper()
	x.deliver()
	if got := x.read(x.far[i]); got != string(want) {
		x.t.Fatalf("client %d was told %q, want %q", i, got, want)
	}
}

// says has the server answer.
func (x *line) says(b ...[]byte) {
	for _, b := range b {
		unix.Write(x.engine, b)
	}
	x.now = time.Now()
	x.serverEvent(x.s, unix.EPOLLIN, &heard{})
	x.timers()
}

// rests says that all is over, and was the servers'.
func (x *line) rests() {
	x.t.Helper()
	for i := range x.far {
		if !x.clients[i].closed {
			x.told(i, nil)
		}
	}
	p := x.clients[0].pool
	if len(p.idle) != 1 || p.waiting.size != 0 || len(x.s.ahead) != 0 || x.s.early != nil || x.s.pending() != 0 {
		x.t.Fatalf("%d idle, %d wait, %d ahead, %d under way", len(p.idle), p.waiting.size, len(x.s.ahead), x.s.pending())
	}
}

// answersAll has the server answer the second client and the third in one piece.
func (x *line) answersAll() {
	x.t.Helper()
	x.says(answers(2), answers(3))
	x.told(1, answers(2))
	x.told(2, answers(3))
}

// prepares has a client prepare select 1 as mine.
func (x *line) prepares(i int) {
	x.t.Helper()
	x.use(x.clients[i], parses("mine", "select 1"))
	x.deliver()
	if x.read(x.engine) != "" { // it has not got it yet
		x.says(parsed())
	}
	x.told(i, parsed())
}

func TestAheadAreAnsweredInOrder(t *testing.T) {
	x := inLine(t)
	x.answersAll()
	x.rests()
}

// An error ends what failed and nothing behind it.
func TestAheadOfOneThatFails(t *testing.T) {
	x := inLine(t)
	failure := pgwire.AppendReady(pgwire.AppendError(nil, &pgwire.Error{Severity: "ERROR", Code: "22012"}), 'I')
	x.says(failure)
	x.told(1, failure)
	x.says(answers(3))
	x.told(2, answers(3))
	x.rests()
}

func TestWhoWasAheadOfAServerThatIsCancelled(t *testing.T) {
	x := inLine(t)
	x.cancelAt(x.s, nil)
	if x.clients[2].inQueue == nil {
		t.Fatal("who was sent ahead does not wait again")
	}
	failure := pgwire.AppendReady(pgwire.AppendError(nil, &pgwire.Error{Severity: "ERROR", Code: "57014"}), 'I')
	x.says(failure, failure) // the request may come late
	x.told(1, failure)
	x.told(2, nil)
	x.p.helpers.Wait()
	x.readMail()
	x.gets(asks(3))
	x.says(answers(3))
	x.told(2, answers(3))
	x.rests()
}

func TestWhoWasSentAheadCancels(t *testing.T) {
	x := inLine(t)
	from, _ := another(t, x.loop, x.clients[0])
	x.cancel(from, x.clients[2].pid, x.clients[2].secret)
	x.deliver()
	if got := x.read(x.far[2]); !strings.Contains(got, "57014") {
		t.Fatalf("%q", got)
	}
	x.says(answers(2), answers(3))
	x.told(1, answers(2))
	x.rests()
}

func TestWhoWasSentAheadLeaves(t *testing.T) {
	x := inLine(t)
	x.leave(x.clients[2])
	x.says(answers(2))
	x.told(1, answers(2))
	x.says(answers(3))
	x.rests()
}

// A client whose server was sent another's waits with what it asks next, as if it had no server.
func TestWhoSaysMoreBeforeItsAnswer(t *testing.T) {
	x := inLine(t)
	x.use(x.clients[1], asks(4))
	x.gets()
	x.says(answers(2))
	x.told(1, answers(2))
	x.gets()
	x.says(answers(3))
	x.told(2, answers(3))
	x.gets(asks(4))
	x.says(answers(4))
	x.told(1, answers(4))
	x.rests()
}

func TestWhoWasAheadOfAServerThatBreaks(t *testing.T) {
	x := inLine(t)
	x.lose(x.s, fmt.Errorf("broke"))
	p := x.clients[0].pool
	if first, second := p.waiting.pop(), p.waiting.pop(); first != x.clients[1] || second != x.clients[2] || p.waiting.size != 0 {
		t.Fatal("not both of them wait again, in their order")
	}
}

func TestWhoIsAheadForTooLongWaitsAgain(t *testing.T) {
	x := inLine(t)
	x.s.aheadSince = time.Now().Add(-aheadFor)
	x.now = time.Now().Add(aheadFor)
	x.timers()
	if x.clients[2].inQueue == nil || x.clients[2].pool.waiting.size != 1 {
		t.Fatal("it does not")
	}
	x.says(answers(2), answers(3))
	x.told(1, answers(2))
	x.gets(asks(3))
	x.says(answers(3))
	x.told(2, answers(3))
	x.rests()
}

// In a pause a server finishes what it does, and nobody else begins.
func TestAheadInAPause(t *testing.T) {
	x := inLine(t)
	x.db.Paused = true
	x.says(answers(2))
	x.told(1, answers(2))
	if x.quiet() {
		t.Error("quiet, with an answer to come")
	}
	x.says(answers(3))
	x.told(2, nil)
	if !x.quiet() || x.clients[2].inQueue == nil {
		t.Error("not quiet")
	}
	x.db.Paused = false
	x.begin()
	x.gets(asks(3))
	x.says(answers(3))
	x.told(2, answers(3))
	x.rests()
}

// What was sent ahead of a statement's new plan is not what its client asks any more.
func TestAheadOfAnOutdatedPlan(t *testing.T) {
	x := inLine(t)
	x.answersAll()
	for i := range x.clients {
		x.prepares(i)
	}
	p := x.clients[0].statements["mine"]
	answer := append(pgwire.Append(nil, '2'), answers(1)...)
	for _, c := range x.clients {
		x.use(c, runs("mine"))
	}
	x.says(answer)
	x.told(0, answer)
	x.gets(runs(p.name), runs(p.name), runs(p.name))
	p.gen++
	x.says(answer)
	x.told(1, answer)
	x.gets(appendClose(nil, p.name), appendParse(nil, p), runs(p.name))
	x.says(answer) // of what was sent ahead
	x.told(2, nil)
	x.says(pgwire.Append(nil, '3'), pgwire.Append(nil, '1'), answer)
	x.told(2, answer)
	x.rests()
}

// What was sent ahead and is dropped made the server's unnamed statement another's all the same.
func TestAnUnnamedStatementBehindADroppedOne(t *testing.T) {
	x := inLine(t)
	x.answersAll()
	x.prepares(1)
	p := x.clients[1].statements["mine"]
	first := parses("", "select 41") // as some drivers do: it is run later
	unsynced := func(sql string) []byte { return bytes.TrimSuffix(parses("", sql), pgwire.Append(nil, 'S')) }
	other := append(unsynced("select 99"), runs("")...)
	x.use(x.clients[0], first)
	x.use(x.clients[1], runs("mine"))
	x.use(x.clients[2], other)
	x.gets(first)
	x.says(parsed())
	x.told(0, parsed())
	x.gets(runs(p.name), other)
	x.leave(x.clients[2])
	answer := append(pgwire.Append(nil, '2'), answers(1)...)
	x.says(answer, pgwire.Append(nil, '1'), answer)
	x.told(1, answer)
	x.use(x.clients[0], runs(""))
	x.gets(unsynced("select 41"), runs(""))
}

// A part of a message waits as a whole one does: behind it nobody could tell what is whose.
func TestAPartOfAMessageBeforeTheAnswer(t *testing.T) {
	x := inLine(t)
	x.use(x.clients[1], []byte("d\x00\x00\x01\x00part"))
	x.gets()
	x.answersAll()
}

// What nobody waits for is not left to run.
func TestWhatIsDroppedIsEnded(t *testing.T) {
	x := inLine(t)
	x.leave(x.clients[2])
	x.says(answers(2))
	x.told(1, answers(2))
	x.now = time.Now().Add(aheadFor)
	x.timers()
	if x.stats.Cancelled != 1 {
		t.Fatalf("%d cancelled", x.stats.Cancelled)
	}
	x.says(answers(3))
	x.p.helpers.Wait()
	x.readMail()
	x.rests()
}

func TestNothingGoesAheadOfWhatMayWriteOrLast(t *testing.T) {
	for _, sql := range []string{"insert into t values (1)", "begin", "select f()", "select 1 for update", "select a", "select 1; select 1", "set a = 1", "select pg_advisory_xact_lock(1)"} {
		for _, first := range []bool{true, false} {
			l, c, s, _, engine := bare(t, unopened(t))
			x := &line{loop: l, t: t, s: s, engine: engine}
			second, _ := another(t, l, c)
			third, _ := another(t, l, c)
			l.now = time.Now()
			k := l.seen.look([]byte("select 1"), false, l.now)
			k.seen.Calls = 8
			if sql != "select a" { // nobody knows how long that takes
				l.seen.look([]byte(sql), false, l.now).seen.Calls = 8
			}
			if first && strings.Contains(sql, ";") {
				continue // it is more than one, but may be followed
			}
			a, b := pgwire.AppendQuery(nil, sql), asks(1)
			if !first {
				a, b = b, a
			}
			l.use(c, asks(1))
			l.use(second, a)
			l.use(third, b)
			x.gets(asks(1))
			x.says(answers(1))
			x.gets(a)
			if third.ahead != nil || third.inQueue == nil {
				t.Errorf("%q then %q: sent ahead", a, b)
			}
		}
	}
}

// Short reads of many clients over few servers, some of which become slow, are cancelled or cut: all get the answers
// to what they asked.
func TestAheadUnderLoad(t *testing.T) {
	f, r := relayed(t, func(d *pooldir.Database) { d.Pool, d.Wait, d.Users[0].Limit = 2, time.Minute, 100 })
	setup := f.connect()
	f.exec(setup, "create table numbers (n int primary key, twice int); insert into numbers select n, 2 * n from generate_series(1, 1000) n; create table slow (n int); insert into slow values (7)")
	modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec}
	stop := make(chan struct{})
	var load sync.WaitGroup
	for i := range 16 {
		c := f.connect()
		load.Go(func() {
			for n := i; ; n += 17 {
				select {
				case <-stop:
					return
				default:
				}
				want := 1 + n%1000
				asked := make(chan struct{})
				go func() {
					defer close(asked)
					if i < 2 && n%5 == 0 {
						c.PgConn().CancelRequest(bg)
					}
				}()
				var got, of int
				err := c.QueryRow(bg, "select n, twice from numbers where n = $1", modes[i%3], want).Scan(&of, &got)
				<-asked
				if code(err) == "57014" && i < 2 || code(err) == "08006" { // it was cut twice
					continue
				}
				if err != nil || of != want || got != 2*want {
					t.Errorf("client %d asked for %d and got %d, %d, %v", i, want, of, got, err)
					return
				}
			}
		})
	}
	for i := range 2 { // reads that usually are short, and then wait for a lock
		c := f.connect()
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				n := 0
				if err := c.QueryRow(bg, "select n from slow", modes[i]).Scan(&n); code(err) != "08006" && (err != nil || n != 7) {
					t.Errorf("the slow one got %d, %v", n, err)
					return
				}
			}
		})
	}
	direct := f.direct()
	for range 10 {
		before := f.stats()
		f.await("some ahead", func(st Stats, _ pooldir.State) bool { return st.Ahead > before.Ahead+50 })
		f.exec(direct, "begin; lock table slow in access exclusive mode")
		f.await("both servers held up", func(st Stats, _ pooldir.State) bool { return st.Busy == 2 && st.Waiting == 16 }) // or taken back
		f.exec(direct, "commit")
		r.cut()
	}
	close(stop)
	load.Wait()
	t.Logf("%+v", f.stats())
}
