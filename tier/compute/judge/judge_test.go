package judge

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var bounds = []time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
}

// version answers at random: a share of it fails, a share is slower than the rest.
type version struct {
	failing, slow float64
}

func (v version) answer(c *Count, rnd *rand.Rand) { v.answers(c, 1, rnd) }

// answers answers n requests.
func (v version) answers(c *Count, n int, rnd *rand.Rand) {
	if c.Buckets == nil {
		c.Buckets = make([]uint64, len(bounds)+1)
	}
	slow := binomial(rnd, n, v.slow)
	c.Answers += uint64(n)
	c.Failed += uint64(binomial(rnd, n, v.failing))
	c.Buckets[8] += uint64(slow) // half a second
	c.Buckets[rnd.IntN(4)] += uint64(n - slow)
}

// binomial draws how many of n happen, from one that happens to the next.
func binomial(rnd *rand.Rand, n int, p float64) (k int) {
	switch {
	case p <= 0:
		return 0
	case p >= 1:
		return n
	}
	for i := 0; ; k++ {
		if i += 1 + int(math.Log(1-rnd.Float64())/math.Log(1-p)); i > n {
			return k
		}
	}
}

// play sends requests, of which share goes to the new version, perLook between two looks, until there is a
// verdict or the new version had most of them.
func play(rnd *rand.Rand, old, new version, share float64, perLook, most int) (Verdict, int) {
	var before Count
	old.answers(&before, 500, rnd)
	j := New(bounds, before)
	sent := 0
	for sent < most {
		var a, b Count
		n := binomial(rnd, perLook, share)
		new.answers(&b, n, rnd)
		old.answers(&a, perLook-n, rnd)
		sent += n
		j.Add(a, b)
		if v := j.Verdict(); v.Decision != Undecided {
			return v, sent
		}
	}
	return j.Verdict(), sent
}

// Ten thousand equal pairs, asked after every look: hardly one is taken for worse, whatever the rate of
// failures that both have.
func TestEqualVersionsAreHardlyEverTakenForWorse(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	wrong, good := 0, 0
	rates := []version{{0, 0.01}, {0.001, 0.02}, {0.01, 0.04}, {0.05, 0}, {0.3, 0.02}}
	const runs = 10_000
	for n := range runs {
		v := rates[n%len(rates)]
		switch got, _ := play(rnd, v, v, 0.05, 100, 250); got.Decision {
		case Worse:
			wrong++
		case AsGood:
			good++
		}
	}
	t.Logf("%d of %d equal canaries were taken for worse, %d for as good within 250 requests", wrong, runs, good)
	if wrong > runs/500 {
		t.Errorf("%d of %d: more than 2 in 1,000", wrong, runs)
	}
}

func TestWorseVersionsAreFoundSoon(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		name     string
		old, new version
		share    float64
		perLook  int
		median   int
		all      int // but one in a hundred
	}{
		{"all fail", version{0.001, 0}, version{1, 0}, 0.05, 10, 8, 12},
		{"all fail, half of the traffic", version{0.001, 0}, version{1, 0}, 0.5, 4, 18, 24},
		{"all fail, and so do some of the old one's", version{0.02, 0}, version{1, 0}, 0.05, 10, 12, 18},
		{"one in ten fails", version{0.001, 0}, version{0.1, 0}, 0.05, 10, 90, 200},
		{"one in four fails", version{0.01, 0}, version{0.25, 0}, 0.05, 10, 60, 150},
		{"half are slow", version{0.001, 0.01}, version{0.001, 0.5}, 0.05, 10, 60, 110},
		{"one in five is slow", version{0.001, 0.01}, version{0.001, 0.2}, 0.05, 10, 120, 350},
	} {
		var sent []int
		missed := 0
		for range 400 {
			v, n := play(rnd, c.old, c.new, c.share, c.perLook, 2000)
			if v.Decision != Worse {
				missed++
			}
			sent = append(sent, n)
		}
		slices.Sort(sent)
		t.Logf("%s: known after %d requests, of 99 in 100 after %d; %d of 400 never", c.name, sent[200], sent[396], missed)
		if sent[200] > c.median || sent[396] > c.all || missed > 1 {
			t.Errorf("%s: asked %d, and %d for 99 in 100", c.name, c.median, c.all)
		}
	}
}

func TestAnEqualVersionIsFoundAsGood(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	v, n := play(rnd, version{0.002, 0.02}, version{0.002, 0.02}, 0.05, 100, 2000)
	if v.Decision != AsGood || n > 1500 {
		t.Errorf("%v after %d requests: %s", v.Decision, n, v.Numbers(bounds))
	}
	// One that is a little worse than the margin is not.
	wrong := 0
	for range 500 {
		if v, _ := play(rnd, version{0.002, 0.02}, version{0.05, 0.02}, 0.05, 100, 2000); v.Decision == AsGood {
			wrong++
		}
	}
	if wrong > 5 {
		t.Errorf("%d of 500 versions of which 5 %% fail were taken for as good", wrong)
	}
}

// What fails both versions at the same time is held against neither.
func TestAFaultOfBothIsNoFaultOfTheNew(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	wrong := 0
	for range 300 {
		j := New(bounds, Count{Answers: 10_000})
		for look := range 100 {
			v := version{0.001, 0.01}
			if look >= 20 && look < 40 {
				v.failing = 0.7
			}
			var a, b Count
			v.answers(&a, 95, rnd)
			v.answers(&b, 5, rnd)
			j.Add(a, b)
		}
		if j.Verdict().Decision == Worse {
			wrong++
		}
	}
	if wrong > 1 {
		t.Errorf("%d of 300", wrong)
	}
}

func TestWithoutAnOldVersionMostMustFail(t *testing.T) {
	j := New(bounds, Count{})
	j.Add(Count{}, Count{Answers: 30, Failed: 3})
	j.Add(Count{}, Count{Answers: 30, Failed: 10})
	if v := j.Verdict(); v.Decision != Undecided {
		t.Errorf("a third failed: %v", v.Decision)
	}
	j = New(bounds, Count{})
	for range 20 {
		j.Add(Count{}, Count{Answers: 1, Failed: 1})
	}
	if v := j.Verdict(); v.Decision != Worse || !v.Alone || v.New.Answers != 20 {
		t.Errorf("all failed: %+v", v)
	}
}

// After a switch there is only what was before.
func TestAgainstWhatWasBefore(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	run := func(old, new version, before, most int) (Verdict, int) {
		var was Count
		old.answers(&was, before, rnd)
		j := New(bounds, was)
		for n := range most {
			var b Count
			new.answer(&b, rnd)
			j.Against(b)
			if v := j.Verdict(); v.Decision == Worse {
				return v, n + 1
			}
		}
		return j.Verdict(), most
	}
	for _, c := range []struct {
		name   string
		new    version
		before int
		most   int
	}{
		{"all fail", version{1, 0}, 300, 6}, {"all fail, little is known", version{1, 0}, 60, 10}, {"one in ten fails", version{0.1, 0}, 2000, 150},
		{"one in four fails", version{0.25, 0}, 300, 150}, {"all slow", version{0, 1}, 300, 60},
	} {
		var sent []int
		for range 300 {
			_, n := run(version{0.001, 0.01}, c.new, c.before, 1000)
			sent = append(sent, n)
		}
		slices.Sort(sent)
		t.Logf("%s: known after %d requests, of 99 in 100 after %d", c.name, sent[150], sent[296])
		if sent[296] > c.most {
			t.Errorf("%s: more than %d", c.name, c.most)
		}
	}
	wrong := 0
	for n := range 500 {
		v := []version{{0, 0.01}, {0.001, 0.02}, {0.02, 0.04}, {0.2, 0}}[n%4]
		if got, _ := run(v, v, 60+4*n, 400); got.Decision == Worse {
			wrong++
		}
	}
	t.Logf("%d of 500 equal versions were taken for worse", wrong)
	if wrong > 2 {
		t.Fail()
	}
}

// The first answers of a cold program may be slow.
func TestAColdStartIsForgiven(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 10))
	old := version{0, 0.01}
	var before Count
	for range 500 {
		old.answer(&before, rnd)
	}
	j := New(bounds, before)
	for n := range 200 {
		var a, b Count
		for range 19 {
			old.answer(&a, rnd)
		}
		new := old
		if n < 15 {
			new.slow = 1
		}
		new.answer(&b, rnd)
		j.Add(a, b)
	}
	if v := j.Verdict(); v.Decision == Worse {
		t.Errorf("worse: %s", v.Evidence())
	}
}

func TestWords(t *testing.T) {
	v := Verdict{Old: Count{Answers: 1380, Failed: 2, Buckets: []uint64{0, 0, 0, 1000, 380, 0, 0, 0, 0, 0, 0}}, New: Count{Answers: 72, Failed: 14, Buckets: []uint64{0, 0, 0, 40, 32, 0, 0, 0, 0, 0, 0}}, Odds: 2310}
	if got, want := v.Numbers(bounds), "72 requests, 14 errors, p95 23 ms against 22 ms"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := v.Evidence(), "14 of 72 answers failed, of the old version's 1,380 2; by chance: 1 in 2,310"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	v.Slow, v.Limit, v.NewSlow, v.OldSlow, v.Odds = true, 100*time.Millisecond, 0.4, 0.012, 1e9
	if got := v.Evidence(); !strings.Contains(got, "40 % of 72 answers took longer than 100 ms") || !strings.Contains(got, "less than 1 in a million") {
		t.Error(got)
	}
}

func FuzzCounts(f *testing.F) {
	f.Add(uint64(3), uint64(1), uint64(10), uint64(10))
	f.Fuzz(func(t *testing.T, an, ak, bn, bk uint64) {
		an, bn = an%1e9, bn%1e9
		j := New(bounds, Count{})
		for range 3 {
			j.Add(Count{Answers: an, Failed: min(ak, an)}, Count{Answers: bn, Failed: min(bk, bn)})
			v := j.Verdict()
			if v.Odds != v.Odds || v.Decision == Worse && v.Odds < 1/Alpha {
				t.Errorf("%+v", v)
			}
			v.Numbers(bounds)
			v.Evidence()
		}
	})
}
