// Package measure is what the programs below bench/ share: figures taken in turn from us and a peer,
// a line for each, and what machine and how much noise they were taken in.
//
// It judges nothing by itself: a figure names what was asked of it. Begin at Report.
package measure

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// Figure is one comparison. Ratio is ours to the peer's; without a peer, Asked bounds Ours.
type Figure struct {
	Name  string
	Unit  string // "ms", "MB", "req/s", "µs/req"
	Ours  []float64
	Peer  []float64 // in the same order of rounds; empty when the figure is absolute
	Asked Bound
}

// Bound is what was asked: at most or at least so much, or between two, of the ratio or, without a peer, of the figure.
type Bound struct {
	Limit   float64
	AtLeast bool
	High    float64 // of one that is bounded on both sides
}

// AtMost is an upper bound.
func AtMost(v float64) Bound { return Bound{Limit: v} }

// AtLeast is a lower bound.
func AtLeast(v float64) Bound { return Bound{Limit: v, AtLeast: true} }

// Within is a bound on both sides.
func Within(low, high float64) Bound { return Bound{Limit: low, AtLeast: true, High: high} }

func (b Bound) String() string {
	if b.High > 0 {
		return number(b.Limit) + "–" + number(b.High)
	}
	if b.AtLeast {
		return "≥" + number(b.Limit)
	}
	return "≤" + number(b.Limit)
}

func (b Bound) holds(v float64) bool {
	if b.AtLeast {
		return v >= b.Limit && (b.High == 0 || v <= b.High)
	}
	return v <= b.Limit
}

// Report prints figures as they come and the machine at the end.
type Report struct {
	out   io.Writer
	noise []float64
	short int
}

// NewReport prints the heading.
func NewReport(out io.Writer) *Report {
	r := &Report{out: out}
	fmt.Fprintln(out, columns("name", "ours", "peer", "ratio", "asked", "ok"))
	r.Noise()
	return r
}

func columns(name, ours, peer, ratio, asked, ok string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 0, ' ', 0)
	fmt.Fprintf(w, "%-44s\t%14s\t%14s\t%8s\t%10s\t%6s", name, ours, peer, ratio, asked, ok)
	w.Flush()
	return b.String()
}

// Median of values; 0 of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// Add prints a figure: medians, the median of the rounds' ratios, and whether it is as asked.
func (r *Report) Add(f Figure) {
	r.Noise()
	ours := Median(f.Ours)
	judged, ratio, peer := ours, "–", "–"
	if len(f.Peer) > 0 {
		ratios := make([]float64, 0, len(f.Ours))
		for i := range min(len(f.Ours), len(f.Peer)) {
			if f.Peer[i] > 0 {
				ratios = append(ratios, f.Ours[i]/f.Peer[i])
			}
		}
		judged = Median(ratios)
		ratio, peer = strconv.FormatFloat(judged, 'f', 2, 64), number(Median(f.Peer))+" "+f.Unit
	}
	verdict := "ok"
	if !f.Asked.holds(judged) {
		verdict = "short"
		r.short++
	}
	fmt.Fprintln(r.out, columns(f.Name, number(ours)+" "+f.Unit, peer, ratio, f.Asked.String(), verdict))
}

func number(v float64) string {
	switch {
	case v >= 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// Noise times a fixed piece of arithmetic: its spread over a run tells how much the machine did beside.
func (r *Report) Noise() {
	begun := time.Now()
	x := uint64(1)
	for range 20_000_000 {
		x = x*6364136223846793005 + 1442695040888963407
	}
	runtime.KeepAlive(x)
	r.noise = append(r.noise, float64(time.Since(begun).Microseconds())/1000)
}

// End prints the machine and the noise and returns how many figures fell short.
func (r *Report) End() int {
	r.Noise()
	low, high := slices.Min(r.noise), slices.Max(r.noise)
	fmt.Fprintf(r.out, "machine: %s\n", Machine())
	fmt.Fprintf(r.out, "noise: a fixed loop took %.1f ms, from %.1f to %.1f (%.0f %%) over %d takes\n", Median(r.noise), low, high, 100*(high-low)/low, len(r.noise))
	return r.short
}

// Machine describes where this runs: processors, memory, kernel, Go.
func Machine() string {
	model := field("/proc/cpuinfo", "model name")
	kb, _ := strconv.Atoi(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"))
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%d × %s, %d GB, Linux %s, %s", runtime.NumCPU(), model, (kb+1<<19)>>20, strings.TrimSpace(string(kernel)), runtime.Version())
}

func field(path, name string) string {
	b, _ := os.ReadFile(path)
	for line := range strings.SplitSeq(string(b), "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// Processes lists the living processes whose command line satisfies want: arguments by pid.
func Processes(want func(args []string) bool) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var out []int
	for _, d := range dirs {
		b, err := os.ReadFile(d + "/cmdline")
		if err != nil || len(b) == 0 {
			continue
		}
		if want(strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(d))
			out = append(out, pid)
		}
	}
	return out
}

// PSS is the proportional set size of a process in bytes: shared pages are divided among their users.
func PSS(pid int) (int64, error) {
	v := field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss")
	kb, err := strconv.ParseInt(strings.TrimSuffix(v, " kB"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	return kb << 10, nil
}

// ticksPerSecond is USER_HZ, 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// CPU is the time that the threads of a process have run, in seconds, and that of its children that it has reaped.
func CPU(pid int) (own, reaped float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		own, reaped, err = times(string(b))
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read time of process %d: %w", pid, err)
	}
	return own, reaped, nil
}

// Ran is the time that the main thread of a process has run, in seconds and to the nanosecond: for takes that are
// too short for CPU, which counts hundredths of a second.
func Ran(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err == nil {
		ran, _, _ := strings.Cut(string(b), " ")
		var ns int64
		if ns, err = strconv.ParseInt(ran, 10, 64); err == nil {
			return float64(ns) / 1e9, nil
		}
	}
	return 0, fmt.Errorf("read time of process %d: %w", pid, err)
}

// times are those of /proc/PID/stat. The name in brackets may hold spaces and brackets.
func times(stat string) (own, reaped float64, err error) {
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) < 15 {
		return 0, 0, fmt.Errorf("unknown form %q", stat)
	}
	var ticks [4]float64
	for i := range ticks {
		if ticks[i], err = strconv.ParseFloat(fields[11+i], 64); err != nil {
			return 0, 0, err
		}
	}
	return (ticks[0] + ticks[1]) / ticksPerSecond, (ticks[2] + ticks[3]) / ticksPerSecond, nil
}

// Favour asks the scheduler to prefer the session of a process to the machine's other work. Only root may, and
// nothing depends on it: without it figures are noisier.
func Favour(pid int) {
	os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), []byte("-15"), 0)
}

// Pin puts every thread of a process on these processors, counted from 0. Threads made later inherit it.
func Pin(pid int, cpus ...int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	// Twice: a thread that is made during the first pass inherits the old set.
	for range 2 {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
		if len(threads) == 0 {
			return fmt.Errorf("pin process %d: it is gone", pid)
		}
		for _, t := range threads {
			tid, _ := strconv.Atoi(filepath.Base(t))
			if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("pin process %d: %w", pid, err)
			}
		}
	}
	return nil
}
