//go:build !race

package pgproxy

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/pgwire"
)

// Eight clients before servers that are played: each asks for a value of its own, in every way there is, and must get
// that value. Meanwhile clients leave and cancel, servers break, retire and change plans, time passes, and there are
// pauses. SEED repeats one run; RUNS has more of them. All is one goroutine, so make unit runs it without the race detector.
func TestClientsOfPlayedServers(t *testing.T) {
	first, runs := uint64(1), uint64(60)
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		first, runs = n, 1
	}
	if n, err := strconv.ParseUint(os.Getenv("RUNS"), 10, 64); err == nil {
		runs = n
	}
	p := unopened(t)
	var all Stats
	for seed := first; seed < first+runs; seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			st := simulate(t, p, seed)
			all.Ahead += st.Ahead
			all.TakenBack += st.TakenBack
		})
	}
	t.Logf("%d sent ahead, %d taken back", all.Ahead, all.TakenBack)
	if all.Ahead == 0 || all.TakenBack == 0 {
		t.Errorf("%d sent ahead, %d taken back", all.Ahead, all.TakenBack)
	}
}

type simulation struct {
	*loop
	t       *testing.T
	rng     *rand.Rand
	pool    *pool
	plan    int // grows with each change of plans
	servers []*playedServer
	most    int // servers
	clients []*playedClient
	log     []string
}

// playedServer is PostgreSQL as far as the clients below need it: select gives its argument.
type playedServer struct {
	s       *server
	fd      int
	in, out []byte
	named   map[string]string
	plans   map[string]int
	portal  string
	skip    bool // all up to Sync, after an error
	tx      byte
}

type playedClient struct {
	*client
	id, asked int
	far       int
	in        []byte
	awaited   []awaited
	got       string
	prepared  bool
	unnamed   string // the value that its unnamed statement gives; "": it has none
	inTx      bool
	gone      bool // it was told so
}

// awaited is what must answer something that a client asked.
type awaited struct {
	want   string
	unsure bool // something before it failed, which it may need
}

func simulate(t *testing.T, p *Proxy, seed uint64) Stats {
	l, c, s, _, _ := bare(t, p)
	x := &simulation{loop: l, t: t, rng: rand.New(rand.NewPCG(seed, 0)), pool: c.pool}
	l.db.Pool, l.db.Wait, l.db.Hold = 1, time.Hour, time.Hour // no servers but those that are played
	l.now = time.Now()
	if x.one(2) {
		l.openPack()
		defer l.closePack()
	}
	l.cut(s) // the fixture's own
	l.seen.look([]byte("select 1"), false, l.now).seen.Calls = 8
	x.most = 1 + x.rng.IntN(3)
	for range x.most {
		x.begin()
	}
	for id := range 8 {
		x.clients = append(x.clients, x.enter(id))
	}
	defer x.end()
	trouble := !x.one(4)
	for range 300 {
		for i, c := range x.clients {
			x.hear(c)
			switch {
			case c.gone || c.closed:
				l.leave(c.client)
				unix.Close(c.far)
				x.clients[i] = x.enter(c.id)
				x.clients[i].asked = c.asked
			case len(c.awaited) == 0 && !x.one(3), trouble && len(c.awaited) < 4 && !c.inTx && x.one(100):
				x.ask(c)
			}
		}
		for _, f := range x.servers {
			if !x.one(3) {
				x.play(f, x.rng.IntN(20))
			}
		}
		if trouble {
			x.trouble()
		}
		x.turn()
	}
	x.goOn()
	for range 200 {
		for _, f := range x.servers {
			x.play(f, 100)
		}
		p.helpers.Wait()
		x.turn()
		for _, c := range x.clients {
			if x.hear(c); c.inTx && len(c.awaited) == 0 && !c.gone && !c.closed {
				x.ask(c) // until it commits
			}
		}
	}
	for _, c := range x.clients {
		if len(c.awaited) > 0 && !c.gone && !c.closed {
			x.fail("client %d is not answered: blocked %v, it has a server %v, is ahead %v, waits %v", c.id, c.blocked, c.server != nil, c.ahead != nil, c.inQueue != nil)
		}
	}
	for _, f := range x.servers {
		if !f.s.closing && !f.s.idle() {
			x.fail("a server is not idle: %v", f.s.ops[f.s.head:])
		}
	}
	return l.stats
}

// one says yes once in n times.
func (x *simulation) one(n int) bool { return x.rng.IntN(n) == 0 }

func (x *simulation) note(format string, a ...any) { x.log = append(x.log, fmt.Sprintf(format, a...)) }

func (x *simulation) fail(format string, a ...any) {
	x.t.Helper()
	x.t.Fatalf("%s\n%s", fmt.Sprintf(format, a...), strings.Join(x.log[max(0, len(x.log)-100):], "\n"))
}

// begin opens a server's connection.
func (x *simulation) begin() {
	f := &playedServer{named: map[string]string{}, plans: map[string]int{}, tx: 'I'}
	f.s = &server{pool: x.pool, addr: "127.0.0.1:1", epoch: 1, primary: true, tx: 'I', statements: map[*prepared]*kept{}, since: x.now}
	f.s.fd, f.fd = sockets(x.t)
	x.add(f.s.fd, nil, f.s)
	x.pool.all[f.s] = struct{}{}
	x.servers = append(x.servers, f)
	x.ready(f.s)
}

func (x *simulation) enter(id int) *playedClient {
	c := &playedClient{id: id, client: &client{phase: phaseReady, account: x.pool.account, pool: x.pool, pid: 1000 + uint32(x.rng.IntN(1<<30)), secret: []byte("key"), app: fmt.Sprint("app", id%2)}}
	c.fd, c.far = sockets(x.t)
	x.loop.clients++
	c.account.clients++
	x.byPID[c.pid] = c.client
	x.add(c.fd, c.client, nil)
	return c
}

func (x *simulation) end() {
	for _, c := range x.clients {
		x.leave(c.client)
		unix.Close(c.far)
	}
	for _, f := range x.servers {
		x.cut(f.s)
		unix.Close(f.fd)
	}
}

// ask has a client ask for something.
func (x *simulation) ask(c *playedClient) {
	value := fmt.Sprintf("%d%05d", c.id+1, c.asked)
	c.asked++
	sync := pgwire.Append(nil, 'S')
	parse := func(name, value string) []byte {
		return pgwire.Append(nil, 'P', name+"\x00select "+value+"\x00\x00\x00")
	}
	run := func(name string) []byte {
		b := pgwire.Append(nil, 'B', "\x00"+name+"\x00\x00\x00\x00\x00\x00\x00")
		if x.one(2) {
			b = pgwire.Append(b, 'D', "P\x00")
		}
		return append(pgwire.Append(b, 'E', "\x00\x00\x00\x00\x00"), sync...)
	}
	var out []byte
	say := func(want string, parts ...[]byte) {
		out = append(out, slices.Concat(parts...)...)
		c.awaited = append(c.awaited, awaited{want: want})
	}
	simple := func(sql, want string) {
		say(want, pgwire.AppendQuery(nil, sql))
		c.unnamed = ""
	}
	k := x.rng.IntN(20)
	switch {
	case c.inTx && k < 7:
		simple("commit", "COMMIT")
		c.inTx = false
	case c.inTx && k < 14, k < 6:
		simple("select "+value, value+"SELECT 1")
	case c.inTx, k == 17:
		simple("insert "+value, "INSERT 0 1")
	case k < 9:
		say(value+"SELECT 1", parse("", value), run(""))
		c.unnamed = value
	case k < 11:
		say("", parse("", value), pgwire.Append(nil, 'D', "S\x00"), sync)
		c.unnamed = value
	case k < 14:
		if c.unnamed != "" {
			say(c.unnamed+"SELECT 1", run(""))
		}
	case k < 17 && !c.prepared:
		for _, n := range []string{"7", "8", "9"} {
			say("", parse("s"+n, n), sync)
		}
		c.prepared = true
	case k < 17:
		n := []string{"7", "8", "9"}[x.rng.IntN(3)]
		say(n+"SELECT 1", run("s"+n))
	case k == 18:
		simple("begin", "BEGIN")
		c.inTx = true
	default:
		simple("select "+value, value+"SELECT 1")
		simple("select x", "xSELECT 1")
	}
	if len(out) == 0 {
		return
	}
	x.note("client %d asks %q", c.id, out)
	if cut := x.rng.IntN(len(out)); x.one(10) { // in two pieces
		unix.Write(c.far, out[:cut])
		x.turn()
		out = out[cut:]
	}
	unix.Write(c.far, out)
}

// hear looks at what a client was told.
func (x *simulation) hear(c *playedClient) {
	b := make([]byte, readSize)
	for {
		n, err := unix.Read(c.far, b)
		if c.gone = c.gone || n == 0 && err == nil; n <= 0 || err != nil {
			break
		}
		c.in = append(c.in, b[:n]...)
	}
	for {
		typ, size, ok, err := pgwire.Header(c.in)
		if err != nil {
			x.fail("client %d: %v", c.id, err)
		}
		if !ok || size > len(c.in) {
			return
		}
		body := c.in[pgwire.HeaderSize:size]
		c.in = c.in[size:]
		switch typ {
		case 'D':
			c.got += string(body)
		case 'C':
			c.got += cstring(body)
		case 'E':
			e := pgwire.ParseError(body)
			if c.got += "!" + e.Code + " " + e.Message; e.Fatal() {
				c.gone = true
				return
			}
		case 'Z':
			x.told(c, body[0])
		}
	}
}

// told looks at a whole answer.
func (x *simulation) told(c *playedClient, tx byte) {
	got := c.got
	c.got = ""
	x.note("client %d is told %q", c.id, got)
	if len(c.awaited) == 0 {
		x.fail("client %d asked nothing and is told %q", c.id, got)
	}
	a := c.awaited[0]
	c.awaited = c.awaited[1:]
	c.inTx = tx != 'I'
	i := strings.IndexByte(got, '!')
	if i < 0 {
		if got != a.want && a.want != "COMMIT" && !a.unsure {
			x.fail("client %d: %q, want %q", c.id, got, a.want)
		}
		return
	}
	switch code := got[i+1 : i+6]; code {
	case "22012", "25P02", "0A000", "08006", "08007", "57014":
	case "26000":
		if !a.unsure && !strings.Contains(got, "no statement s") {
			x.fail("client %d: %q, want %q", c.id, got, a.want)
		}
	default:
		x.fail("client %d: %q, want %q", c.id, got, a.want)
	}
	for i := range c.awaited {
		c.awaited[i].unsure = true
	}
	c.unnamed = ""
}

// play has a server take some messages, and send some of what it has to say.
func (x *simulation) play(f *playedServer, messages int) {
	b := make([]byte, readSize)
	for {
		n, err := unix.Read(f.fd, b)
		if n <= 0 || err != nil {
			break
		}
		f.in = append(f.in, b[:n]...)
	}
	for range messages {
		typ, size, ok, err := pgwire.Header(f.in)
		if err != nil {
			x.fail("a server gets %q", f.in)
		}
		if !ok || size > len(f.in) {
			break
		}
		body := f.in[pgwire.HeaderSize:size]
		x.note("  server %d takes %c %q", f.fd, typ, body)
		if !f.skip || typ == 'S' {
			f.take(x, typ, body)
		}
		f.in = f.in[size:]
	}
	if n := len(f.out); n > 0 {
		if x.one(4) {
			n = 1 + x.rng.IntN(n)
		}
		if m, _ := unix.Write(f.fd, f.out[:n]); m > 0 {
			f.out = f.out[m:]
		}
	}
}

func (f *playedServer) take(x *simulation, typ byte, body []byte) {
	fails := func(code, message string) {
		f.out = pgwire.AppendError(f.out, &pgwire.Error{Severity: "ERROR", Code: code, Message: message})
		if f.tx == 'T' {
			f.tx = 'E'
		}
		f.skip = typ != 'Q'
	}
	switch typ {
	case 'Q':
		delete(f.named, "")
		sql := cstring(body)
		ends := sql == "commit" || sql == "ROLLBACK" || sql == "DISCARD ALL"
		switch {
		case f.tx == 'E' && !ends:
			fails("25P02", "aborted")
		case !ends && sql != "begin" && x.one(40):
			fails("22012", "division by zero")
		default:
			f.execute(x, sql)
		}
		f.out = pgwire.AppendReady(f.out, f.tx)
	case 'P':
		name, rest, _ := pgwire.CString(body)
		if len(name) > 0 && f.named[string(name)] != "" {
			fails("42P05", "there is "+string(name))
			return
		}
		f.named[string(name)], f.plans[string(name)] = cstring(rest), x.plan
		f.out = pgwire.Append(f.out, '1')
	case 'B':
		_, rest, _ := pgwire.CString(body)
		name := cstring(rest)
		sql, ok := f.named[name]
		switch {
		case !ok:
			fails("26000", "no statement "+name)
		case name != "" && f.plans[name] != x.plan:
			fails("0A000", outdated)
		case f.tx == 'E':
			fails("25P02", "aborted")
		default:
			f.portal = sql
			f.out = pgwire.Append(f.out, '2')
		}
	case 'D':
		if name := cstring(body[1:]); body[0] == 'S' && f.named[name] == "" {
			fails("26000", "no statement "+name)
			return
		}
		f.out = pgwire.Append(f.out, 'n')
	case 'E':
		if x.one(40) {
			fails("22012", "division by zero")
			return
		}
		f.execute(x, f.portal)
	case 'C':
		delete(f.named, cstring(body[1:]))
		f.out = pgwire.Append(f.out, '3')
	case 'S':
		f.skip = false
		f.out = pgwire.AppendReady(f.out, f.tx)
	default:
		x.fail("a server gets a message of type %c", typ)
	}
}

func (f *playedServer) execute(x *simulation, sql string) {
	verb, value, _ := strings.Cut(sql, " ")
	tag := strings.ToUpper(verb)
	switch verb {
	case "select":
		f.out = pgwire.Append(f.out, 'D', value)
		tag = "SELECT 1"
	case "insert":
		tag = "INSERT 0 1"
	case "begin":
		f.tx = 'T'
	case "DISCARD":
		clear(f.named)
		f.tx = 'I'
	case "commit", "ROLLBACK":
		f.tx = 'I'
	default:
		x.fail("a server gets %q", sql)
	}
	f.out = pgwire.Append(f.out, 'C', tag+"\x00")
}

func (x *simulation) trouble() {
	c, f := x.clients[x.rng.IntN(len(x.clients))], x.servers[x.rng.IntN(len(x.servers))]
	switch x.rng.IntN(60) {
	case 0, 1, 17, 18:
		x.note("client %d leaves", c.id)
		unix.Shutdown(c.far, unix.SHUT_RDWR)
	case 2, 3, 4:
		x.note("client %d cancels", c.id)
		from, _ := another(x.t, x.loop, c.client)
		from.phase, from.account = phaseStartup, nil
		x.cancel(from, c.pid, c.secret)
	case 5:
		x.note("server %d breaks", f.fd)
		unix.Shutdown(f.fd, unix.SHUT_RDWR)
	case 6, 7, 8, 9:
		x.note("plans change")
		x.plan++
	case 10, 11, 12, 13, 14:
		x.note("time passes")
		x.now = x.now.Add(aheadFor)
	case 15:
		x.note("a pause")
		x.db.Paused = true
	case 16:
		x.note("server %d is to go", f.fd)
		f.s.retired = true
	}
	if x.db.Paused && x.one(10) {
		x.goOn()
	}
}

func (x *simulation) goOn() {
	x.note("no pause")
	x.db.Paused = false
	x.loop.begin()
	x.pool.retryAt = x.now.Add(time.Hour)
}

// turn is one of the loop's: what is ready is dealt with, in any order and parts. Then it must be in order.
func (x *simulation) turn() {
	x.now = x.now.Add(time.Duration(x.rng.IntN(100)) * time.Microsecond)
	var watched []unix.PollFd
	for fd, at := range x.conns {
		var e int16
		switch c, s := at.client, at.server; {
		case c != nil:
			e = wants(!c.silent, c.out)
		case s != nil:
			e = wants(!s.silent, s.wants)
		default:
			continue
		}
		watched = append(watched, unix.PollFd{Fd: int32(fd), Events: e})
	}
	unix.Poll(watched, 0)
	var events []unix.EpollEvent
	for _, w := range watched {
		if w.Revents != 0 { // the bits are epoll's
			events = append(events, unix.EpollEvent{Events: uint32(w.Revents), Fd: w.Fd, Pad: int32(x.conns[w.Fd].gen)})
		}
	}
	x.rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	for len(events) > 0 {
		n := min(len(events), 1+x.rng.IntN(8))
		x.round(events[:n])
		events = events[n:]
	}
	x.readMail()
	x.timers()
	x.deliver()
	x.servers = slices.DeleteFunc(x.servers, func(f *playedServer) bool {
		if f.s.closing {
			unix.Close(f.fd)
		}
		return f.s.closing
	})
	for len(x.servers) < x.most {
		x.begin()
	}
	x.inOrder()
}

func wants(in, out bool) (e int16) {
	if in {
		e |= unix.POLLIN
	}
	if out {
		e |= unix.POLLOUT
	}
	return e
}

// inOrder says that everybody is somewhere, once.
func (x *simulation) inOrder() {
	for _, f := range x.servers {
		if len(f.s.ahead) > 0 && f.s.pending() == 0 && f.s.cancelling == 0 {
			x.fail("a server with others ahead does nothing")
		}
	}
	waiting := 0
	for _, q := range x.pool.waiting.turn {
		for c := q.first; c != nil; c = c.next {
			if waiting++; c.ahead != nil || c.server != nil || !c.blocked {
				x.fail("one who waits is elsewhere, too")
			}
		}
	}
	if waiting != x.pool.waiting.size {
		x.fail("%d wait, %d are counted", waiting, x.pool.waiting.size)
	}
	for _, c := range x.clients {
		if !c.closed && c.blocked && c.inQueue == nil && c.ahead == nil && c.server == nil {
			x.fail("client %d waits for nothing", c.id)
		}
	}
	if !x.db.Paused && len(x.pool.idle) > 0 && waiting > 0 {
		x.fail("%d wait while a server is idle", waiting)
	}
	if len(x.pool.young) > len(x.pool.all) {
		x.fail("%d servers work of %d", len(x.pool.young), len(x.pool.all))
	}
}
