package cache

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"
)

// When a server that runs and does not answer is taken for one that hangs. A death needs none of this: the
// keeper reaps the process and tells at once. A silence proves little, on a machine that has too much to do
// least of all: the server may wait for a processor, and so may we, who did not see its answer in time. So it
// is not counted how long nothing was heard, but what the kernel says that the server's main thread, which
// answers, did meanwhile:
//
//   - it is stopped: somebody did that, and it will not go on by itself;
//   - it sleeps, and did not run at all: a server that is well wakes ten times a second by itself, and when it
//     is asked;
//   - it runs, or waits for a disk: a long script, a large key. That is counted by the processor time that it
//     had: on a machine where it gets a tenth of one, ten seconds of work take a hundred. Another server of this
//     machine would have no more.
//
// A question that we ourselves were late with tells nothing and is not counted.
const (
	stopTries  = 2 // questions without an answer
	sleepLimit = time.Second
	busyLimit  = 10 * time.Second
	// young is until when a server may be silent because it starts.
	young = startLimit
)

// pulse is what the kernel says of a server's main thread.
type pulse struct {
	state byte          // as in /proc: R, S, D, T; 0: not known
	ran   time.Duration // the processor time that it has had
}

// silence is what is known of a server since it answered last.
type silence struct {
	missed int           // questions in a row
	at     time.Time     // of the last
	last   pulse         // then
	still  time.Duration // asleep, and it did not run at all
	spent  time.Duration // on what may be its work
}

// heard notes a question that was asked and had no answer by now, though there was to be one within limit. Not
// counted, false: one that we were late with.
func (s *silence) heard(asked, now time.Time, limit time.Duration, p pulse) bool {
	was, since := s.last, now.Sub(s.at)
	first := s.missed == 0 || was.state == 0
	s.at = now
	if p.state != 0 {
		s.last = p
	}
	if now.Sub(asked) > limit+pingLimit {
		return false
	}
	s.missed++
	if first || p.state == 0 {
		return true
	}
	ran := p.ran - was.ran
	switch {
	case p.state == 'R' || was.state == 'R':
		s.spent += min(ran, since)
	case ran > 0, p.state != 'S':
		s.spent += since
	default:
		s.spent += since
		s.still += since
		return true
	}
	s.still = 0
	return true
}

// hung says that a server of that age will not answer any more.
func (s *silence) hung(age time.Duration) bool {
	switch {
	case s.missed < stopTries, age < time.Second:
		return false
	case s.last.state == 'T', s.last.state == 't':
		return true
	case age < young:
		return false
	}
	return s.still > sleepLimit || s.spent > busyLimit
}

// pulseOf feels the main thread of a process.
func pulseOf(pid int) pulse {
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return pulse{}
	}
	p, ok := parseStat(b)
	if !ok {
		return pulse{}
	}
	// To the nanosecond, where the kernel counts so: an answer takes less than a tick.
	if b, err := os.ReadFile(dir + "/schedstat"); err == nil {
		if ran, ok := parseSchedstat(b); ok {
			p.ran = ran
		}
	}
	return p
}

// tick is the unit of /proc/PID/stat, a hundredth of a second on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// parseStat reads /proc/PID/stat. The name in brackets may hold spaces and brackets.
func parseStat(b []byte) (pulse, bool) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return pulse{}, false
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 13 || len(f[0]) != 1 {
		return pulse{}, false
	}
	user, err1 := strconv.ParseUint(f[11], 10, 48)
	system, err2 := strconv.ParseUint(f[12], 10, 48)
	return pulse{f[0][0], time.Duration(user+system) * tick}, err1 == nil && err2 == nil
}

// parseSchedstat reads the first of /proc/PID/schedstat: nanoseconds that the main thread ran.
func parseSchedstat(b []byte) (time.Duration, bool) {
	ran, _, _ := strings.Cut(string(b), " ")
	n, err := strconv.ParseInt(ran, 10, 64)
	return time.Duration(n), err == nil && n >= 0
}
