package postgres

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"tenfold"
)

// Capacity, in ACUs: one is 2 GB of memory and a quarter of a core.
//
// What takes a restart (shared_buffers, connections) is sized for the most that the manifest allows:
// PostgreSQL touches that memory as it needs it. What does not follows the load within a second. So no
// change of capacity restarts anything; the obvious design, to resize shared_buffers with every step,
// costs each time what a restart does, and a cold cache.
const (
	acuMemory = 2 << 30
	acuCores  = 0.25
	// How the capacity moves: up at once when the load needs more than is there, down by steps after a
	// while in which it needed less than half.
	loadShare = 0.7 // of the cores is what a load may take
	acuStep   = 0.5
	downAfter = 5 * time.Minute
	downPause = 15 * time.Minute // at least, between two steps down: at most four an hour
)

// sizing is what the settings are at a capacity of now, of at most most.
func sizing(now, most float64, connections int) [][2]string {
	memory := func(share, acu float64) string {
		return strconv.FormatInt(max(int64(share*acu*acuMemory)>>20, 1), 10) + "MB"
	}
	now = max(now, acuStep) // one that sleeps at 0 wakes at this
	work := 0.25 * now * acuMemory / float64(max(connections, 1))
	return [][2]string{
		{"shared_buffers", memory(0.25, max(most, acuStep))},
		{"effective_cache_size", memory(0.75, now)},
		{"work_mem", strconv.FormatInt(min(max(int64(work)>>10, 4096), 1<<20), 10) + "kB"},
		{"maintenance_work_mem", memory(0.0625, now)},
		{"autovacuum_vacuum_cost_limit", strconv.Itoa(min(200+int(200*now), 4000))},
		{"max_parallel_workers_per_gather", strconv.Itoa(min(max(int(now*acuCores), 0), 4))},
	}
}

// scaling is what a capacity is moved by. Zero at first.
type scaling struct {
	ACU  float64
	low  time.Time // since when less than half was needed; zero: it is not so
	down time.Time // the last step down
}

// next is the capacity after a look at the load, in cores.
func (s scaling) next(now time.Time, cores, least, most float64) scaling {
	need := math.Ceil(cores/loadShare/acuCores/acuStep) * acuStep
	need = min(max(need, least, acuStep), max(most, acuStep))
	switch {
	case s.ACU == 0:
		s.ACU = min(max(least, acuStep), max(most, acuStep))
	case s.ACU > most:
		s.ACU = max(most, acuStep)
	case need > s.ACU:
		s.ACU, s.low = need, time.Time{}
	case need > s.ACU/2 && s.ACU > acuStep || need == s.ACU:
		s.low = time.Time{}
	case s.low.IsZero():
		s.low = now
	case now.Sub(s.low) >= downAfter && now.Sub(s.down) >= downPause:
		s.ACU = max(math.Ceil(s.ACU/2/acuStep)*acuStep, need)
		s.low, s.down = time.Time{}, now
	}
	return s
}

// clamped is the most ACUs that this machine has: half of its memory at most goes to buffers and caches
// of one database, and its cores are what they are.
func clamped(most float64) (acu float64, warning string) {
	have := float64(runtime.NumCPU()) / acuCores
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb int64
		if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kb); err == nil {
			have = min(have, float64(kb<<10)/acuMemory)
		}
	}
	have = max(math.Floor(have/acuStep)*acuStep, acuStep)
	if most > have {
		return have, fmt.Sprintf("capacity: %g ACU are asked for, this machine has %g (2 GB and a quarter of a core each)", most, have)
	}
	return most, ""
}

// cpuTime is what a server's processes have used: those of its backends that ended are in the
// postmaster's own count.
func cpuTime(postmaster int) time.Duration {
	const tick = time.Second / 100 // USER_HZ, the same on every Linux that Go runs on
	var ticks uint64
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		s := string(b)
		f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
		if len(f) < 15 {
			continue
		}
		own := strings.HasPrefix(s, strconv.Itoa(postmaster)+" ")
		if !own && f[1] != strconv.Itoa(postmaster) {
			continue
		}
		last := 13 // utime and stime; of the postmaster cutime and cstime too
		if own {
			last = 15
		}
		for _, x := range f[11:last] {
			n, _ := strconv.ParseUint(x, 10, 64)
			ticks += n
		}
	}
	return time.Duration(ticks) * tick
}

// load is a look at what a primary uses.
type load struct {
	at  time.Time
	pid int
	cpu time.Duration
}

// scale moves a database's capacity by what its primary used since the last look.
func (p *Postgres) scale(key string, r record, pid int) {
	if r.Spec.Capacity.Max == 0 || pid == 0 {
		return
	}
	now := load{time.Now(), pid, cpuTime(pid)}
	p.mu.Lock()
	before, s := p.loads[key], p.scalings[key]
	p.loads[key] = now
	if s.ACU == 0 {
		s.ACU = r.ACU
	}
	p.mu.Unlock()
	span := now.at.Sub(before.at)
	if before.pid != pid || span < watchPace/2 {
		return
	}
	cores := float64(now.cpu-before.cpu) / float64(span)
	most, _ := clamped(r.Spec.Capacity.Max)
	next := s.next(now.at, cores, r.Spec.Capacity.Min, most)
	p.mu.Lock()
	p.scalings[key] = next
	p.mu.Unlock()
	if next.ACU == r.ACU {
		return
	}
	if err := p.records.Change(key, func(x *record) { x.ACU = next.ACU }); err != nil {
		return // tried again at the next look
	}
	if r.ACU != 0 {
		p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("capacity %g → %g ACU: it used %.2f cores", r.ACU, next.ACU, cores)})
	}
}
