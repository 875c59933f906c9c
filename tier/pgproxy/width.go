package pgproxy

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A database whose every processor computes answers no sooner for being asked by more connections at once: its
// servers take turns, and lose their caches by it. On two processors twenty of them answered 6,900 queries a second
// that two answered 10,900 of (docs/bench/database.md). So while clients wait, the pool sees how many of its servers
// could run at a time, as the kernel counts how long each had a processor or waited for one, and gives work to fewer
// or to more of them at once: this is a pool's width. Servers that wait for the disk or for a lock cannot run, so
// others are asked meanwhile. Where other programs have most of the processors, all servers are: the kernel shares
// by head, and fewer of them would get less.
//
// A server counts only in the first moment of what it was asked. What takes longer has others asked beside it, so
// no client waits for another's long query because of this, and nothing that a query waits for can hold the pool.

const (
	// youngFor is how long a server that works counts: a short query is over by then.
	youngFor = 2 * time.Millisecond
	// turnsEvery is how often it is looked at how servers get on, while clients wait.
	turnsEvery = 50 * time.Millisecond
	// forgetAfter nobody had to wait, a width is no more.
	forgetAfter = time.Second
)

// width is how many servers of a pool are given work at once.
type width struct {
	n      int       // 0: all of them
	young  []*server // that have worked for less than youngFor, the longest first
	looked time.Time // when it was last looked at how they get on
}

var processors = runtime.NumCPU()

// leastWidth keeps every processor busy, with one more for when a query waits.
var leastWidth = processors + 1

// wide says that one more server may be given work now.
func (w *width) wide(now time.Time) bool {
	for len(w.young) > 0 && now.Sub(w.young[0].began) >= youngFor {
		w.rested(w.young[0])
	}
	return w.n == 0 || len(w.young) < w.n
}

// works notes that a server at rest was asked something.
func (w *width) works(s *server, now time.Time) {
	s.began = now
	w.young = append(w.young, s)
}

// rested notes that a server has answered, or no longer counts.
func (w *width) rested(s *server) {
	if i := slices.Index(w.young, s); i >= 0 {
		w.young = slices.Delete(w.young, i, i+1)
	}
}

// due is when one more server may be given work without another's having answered; zero: now, or nobody knows.
func (w *width) due() time.Time {
	if w.n == 0 || len(w.young) < w.n {
		return time.Time{}
	}
	return w.young[0].began.Add(youngFor)
}

// employ gives work to as many servers at rest as may have it.
func (l *loop) employ(p *pool) {
	for p.waiting.size > 0 && len(p.idle) > 0 && l.mayBegin(p) && p.wide(l.now) {
		s := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		l.ready(s)
	}
	if p.waiting.size > 0 {
		l.grow(p)
	}
}

// While enough clients wait for every server, nothing is gained by hearing what others ask at once: they are heard
// together some moments later, and the pool is woken for half as many messages. Not so who has a server: it is idle
// until its client says more.

// unheardFor is how long at most a client is not heard because others wait.
const unheardFor = 2 * time.Millisecond

// patience is how the kernel treats the loop's thread. One that has slept is let on at once in place of one that
// computes, so that the pool is woken for each answer, and every time takes the processor from a server that would
// have answered next. A batch thread (SCHED_BATCH, sched(7)) waits until the processor is given up, some 70 µs under
// load, finds more to do, and costs two thirds. A client that comes alone would pay for it beside a program that
// computes, so it is for as long as enough clients wait.
type patience struct {
	on, unable bool
	enough     time.Time // when enough waited last
	since      time.Time // and since when they have, but for moments
}

// Enough have waited, but for moments, for patientAfter before the loop is patient.
const (
	patientAfter = 10 * time.Millisecond
	moment       = 5 * time.Millisecond
)

// patience makes the loop patient or impatient, as clients wait.
func (l *loop) patience(enough bool) {
	p := &l.patient
	if enough {
		if l.now.Sub(p.enough) > moment {
			p.since = l.now
		}
		p.enough = l.now
	}
	l.bePatient(l.now.Sub(p.enough) <= moment && l.now.Sub(p.since) >= patientAfter)
}

func (l *loop) bePatient(on bool) {
	p := &l.patient
	if on == p.on || p.unable {
		return
	}
	p.on = on
	policy := uintptr(schedOther)
	if on {
		policy = schedBatch
	}
	var priority int32
	if _, _, errno := syscall.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, policy, uintptr(unsafe.Pointer(&priority))); errno != 0 {
		p.unable = true // something forbids it
	}
}

// From linux/sched.h.
const schedOther, schedBatch = 0, 3

// forgetOpen is how long after a statement of a transaction that goes on all are heard at once again: it holds locks
// that others wait for.
const forgetOpen = 10 * time.Millisecond

// enough says that so many clients wait that no server lacks work before more are heard. Where some may need no
// server, or another's, all are heard.
func (l *loop) enough() bool {
	if l.now.Sub(l.opened) < forgetOpen || l.cache != nil && l.now.Sub(l.cache.used) < forgetAfter || l.db.Paused || l.db.Suspended || l.closing {
		return false
	}
	some := false
	for p := range l.pools() {
		busy := len(p.all) - len(p.idle)
		if busy == 0 && p.waiting.size == 0 && (len(p.idle) == 0 || l.now.Sub(p.idle[len(p.idle)-1].since) > forgetAfter) {
			continue // nobody uses it
		}
		if busy == 0 || p.waiting.size <= busy {
			return false
		}
		some = true
	}
	return some
}

// hurry has a client heard even while enough others wait, from now on: who has kept a server between two messages
// will do so again.
func (l *loop) hurry(c *client) {
	if c.urgent || c.closed {
		return
	}
	c.urgent = true
	e := unix.EpollEvent{Fd: int32(c.fd), Pad: int32(l.conns[c.fd].gen)}
	unix.EpollCtl(l.urgent, unix.EPOLL_CTL_ADD, c.fd, &e)
	l.rewatch(c)
}

// expects says that a server waits for more of its client: within a transaction or a COPY, behind a Flush, for the
// rest of a message, or because it is pinned.
func (s *server) expects() bool {
	if s.closing {
		return false
	}
	if s.copyIn || s.pending() == 0 {
		return true
	}
	o := &s.ops[len(s.ops)-1]
	return o.kind != opQuery && o.kind != opSync && !o.internal()
}

// adjust looks at how a pool's servers get on, while clients wait for them.
func (l *loop) adjust(p *pool) {
	took := l.now.Sub(p.looked)
	if p.waiting.size == 0 || took < turnsEvery {
		return
	}
	var run, ran time.Duration
	for s := range p.all {
		if s.turns != nil && !(s.client == nil && s.since.Before(p.looked)) { // else it was at rest all the time
			a, b := s.turns.since()
			run, ran = run+a, ran+b
		}
	}
	p.looked = l.now
	if took > forgetAfter {
		p.n = 0 // what was read is of long ago
		return
	}
	p.n = nextWidth(p.n, l.db.Pool, float64(ran)/float64(took), float64(run)/float64(took)/float64(processors))
}

// nextWidth is the width after one of n, when so many servers could run on average (had a processor, or waited for
// one) and had so great a share of the processors. As many as leastWidth are wanted that could run. It is gone to in
// steps, and small differences are let be.
func nextWidth(n, most int, runnable, share float64) int {
	if n == 0 {
		n = most
	}
	switch want := float64(leastWidth); {
	case runnable < 0.8*want, share < 0.4:
		n += max(1, n/4)
	case runnable > 1.2*want && share > 0.5:
		n = max(leastWidth, n-max(1, n/4))
	}
	if n >= most {
		return 0
	}
	return n
}

// turns reads for how long a process of this machine could run.
//
// Source: Linux, Documentation/scheduler/sched-stats.rst: /proc/PID/schedstat.
type turns struct {
	file     int
	run, ran uint64 // ns with a processor, and with those of waiting for one, as last read
}

// openTurns is for the process pid, a child of parent; nil when it is not, or nothing is counted.
func openTurns(pid, parent int) *turns {
	dir := "/proc/" + strconv.Itoa(pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil || !bytes.Contains(status, fmt.Appendf(nil, "\nPPid:\t%d\n", parent)) {
		return nil // its number is another's here: it is of another PID namespace
	}
	file, err := unix.Open(dir+"/schedstat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	t := &turns{file: file}
	if run, _ := t.since(); run == 0 {
		t.close()
		return nil
	}
	return t
}

// since gives what was added since the last call; nothing when the process has ended.
func (t *turns) since() (run, ran time.Duration) {
	var buf [64]byte
	n, _, errno := syscall.RawSyscall6(unix.SYS_PREAD64, uintptr(t.file), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
	if errno != 0 {
		return 0, 0
	}
	had, rest := leadingNumber(buf[:n])
	late, _ := leadingNumber(rest)
	all := had + late
	if had < t.run || all < t.ran || all > math.MaxInt64 {
		return 0, 0
	}
	run, ran = time.Duration(had-t.run), time.Duration(all-t.ran)
	t.run, t.ran = had, all
	return run, ran
}

func (t *turns) close() {
	if t != nil {
		unix.Close(t.file)
	}
}

// leadingNumber reads a decimal number and the space behind it.
func leadingNumber(b []byte) (n uint64, rest []byte) {
	for len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
		n, b = n*10+uint64(b[0]-'0'), b[1:]
	}
	if len(b) > 0 {
		b = b[1:]
	}
	return n, b
}
