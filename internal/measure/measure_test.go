package measure

import (
	"os"
	"strings"
	"testing"
)

func TestVerdictFollowsTheRatioOfRounds(t *testing.T) {
	var b strings.Builder
	r := NewReport(&b)
	// Ours doubles in the noisy round, and so does the peer: the ratio of the rounds stays.
	r.Add(Figure{Name: "start", Unit: "ms", Ours: []float64{10, 20, 10}, Peer: []float64{8, 16, 8}, Asked: AtMost(2)})
	r.Add(Figure{Name: "rate", Unit: "req/s", Ours: []float64{100}, Peer: []float64{100}, Asked: AtLeast(1.25)})
	r.Add(Figure{Name: "memory", Unit: "MB", Ours: []float64{90}, Asked: AtMost(80)})
	r.Add(Figure{Name: "beside", Unit: "op/s", Ours: []float64{104}, Peer: []float64{100}, Asked: Within(0.97, 1.03)})
	r.Add(Figure{Name: "beside", Unit: "op/s", Ours: []float64{98}, Peer: []float64{100}, Asked: Within(0.97, 1.03)})
	if short := r.End(); short != 3 {
		t.Errorf("%d are short", short)
	}
	lines := strings.Split(b.String(), "\n")
	for i, want := range [][]string{{"1.25", "≤2.00", "ok"}, {"1.00", "≥1.25", "short"}, {"90.00 MB", "–", "short"}, {"0.97–1.03", "short"}, {"0.97–1.03", "ok"}} {
		for _, w := range want {
			if !strings.Contains(lines[i+1], w) {
				t.Errorf("no %q in %q", w, lines[i+1])
			}
		}
	}
	if !strings.Contains(b.String(), "machine: ") || !strings.Contains(b.String(), "noise: ") {
		t.Error(b.String())
	}
}

func TestMemoryOfThisProcess(t *testing.T) {
	me := Processes(func(args []string) bool { return len(args) > 0 && args[0] == os.Args[0] })
	if len(me) == 0 {
		t.Fatal("this process is not found")
	}
	if n, err := PSS(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := PSS(1 << 30); err == nil {
		t.Error("memory of no process")
	}
}

func TestTimesOfAProcessWithBracketsInItsName(t *testing.T) {
	if own, reaped, err := times("12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 3 4 20 0 1 0"); err != nil || own != 2 || reaped != 0.07 {
		t.Errorf("%v, %v, %v", own, reaped, err)
	}
	for _, bad := range []string{"", "12 (a", "12 (a) S 1", "12 (a) S 1 2 3 4 5 6 7 8 9 10 x 50 0 0 20"} {
		if _, _, err := times(bad); err == nil {
			t.Errorf("%q has times", bad)
		}
	}
	before, err := Ran(os.Getpid())
	if err != nil || before <= 0 {
		t.Error(before, err)
	}
	if _, err := Ran(1 << 30); err == nil {
		t.Error("time of no process")
	}
	if _, _, err := CPU(1 << 30); err == nil {
		t.Error("time of no process")
	}
}
