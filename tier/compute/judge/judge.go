// Package judge says whether a new version of a service is worse than the old one, request by request.
//
// It is a sequential test: it may be asked after every answer, as often as one likes, and the chance
// that it ever takes a version for worse that is not stays below Alpha. Such a test can be stopped as
// soon as it is sure, which a comparison of two averages at a fixed time cannot: 14 failures in a row
// are enough, and nobody waits for a window to end.
//
// What is compared is two proportions in the same moment: of answers that failed, and of answers that
// took longer than nearly all of the old version's. For each block of requests the evidence is the
// likelihood of what was seen if the versions differ, by the likelihood if they do not, where the common
// rate is the mean of both weighted by their requests; the product over blocks is an e-value for "they do
// not differ" whatever the common rate is, and may be another in each block (Turner, Ly, Grünwald,
// "Generic E-variables for exact sequential k-sample tests", 2024). So a database that fails both
// versions for a while is held against neither. By Ville's inequality the product passes 1/Alpha with
// probability Alpha at most. By how much the new version is worse is not known, so the mean over several
// differences is taken; the smallest of them is what is worth going back for.
//
// The package is pure: counts come in, a Verdict comes out. Begin at Judge.
package judge

import (
	"math"
	"time"
)

// Alpha bounds the chance that one of the comparisons calls an equal version worse.
const Alpha = 1.0 / 2000

// Certain bounds the chance that a version is called as good that is worse by a margin: of Margin in
// failures, of SlowMargin in slow answers.
const (
	Certain    = 1.0 / 200
	Margin     = 0.02
	SlowMargin = 0.1
)

const (
	// sideLeast is how many of the old version's answers it takes to know what it usually does.
	sideLeast = 50
	// warmUp is how many of a new version's first answers may be slow: caches are empty, code is cold.
	warmUp = 30
	// slowLeast is the time below which an answer is never slow: nobody would go back for it. Against what
	// was before, more is asked: the machine may be busier now for other reasons.
	slowLeast      = 50 * time.Millisecond
	slowLeastAfter = 100 * time.Millisecond
	// aloneAfter is how many answers of the new version, while the old one gave none, are judged by
	// themselves: it is worse if most of them fail.
	aloneAfter = 20
	// failedLeast is how many answers must fail for a version to be worse, however sure the numbers are: one
	// client that sends what nobody can answer, and sends it again, is no sample.
	failedLeast = 3
	// EnoughFor is how many answers a verdict by time can rest on; below, traffic was too thin.
	EnoughFor = 50
)

// effects are by how much a new version may be worse: the part of the answers that were good until now.
var (
	effects          = []float64{0.03, 0.1, 0.3, 0.6, 0.95}
	slowEffects      = []float64{0.1, 0.25, 0.5, 0.9}
	slowEffectsAfter = []float64{0.25, 0.5, 0.9}
)

// Count is what some tasks answered in some time.
type Count struct {
	Answers uint64 // with those that never came
	Failed  uint64 // 5xx, or no answer
	// Buckets are by latency, one more than bounds: the last is everything above.
	Buckets []uint64
}

// Add adds what o counts.
func (c *Count) Add(o Count) {
	c.Answers, c.Failed = c.Answers+o.Answers, c.Failed+o.Failed
	if len(c.Buckets) < len(o.Buckets) {
		c.Buckets = append(c.Buckets, make([]uint64, len(o.Buckets)-len(c.Buckets))...)
	}
	for i, n := range o.Buckets {
		c.Buckets[i] += n
	}
}

// Since is what was counted after before; a counter that began anew counts from zero.
func (c Count) Since(before Count) Count {
	if c.Answers < before.Answers || c.Failed < before.Failed || len(c.Buckets) != len(before.Buckets) {
		return c.clone()
	}
	out := Count{Answers: c.Answers - before.Answers, Failed: c.Failed - before.Failed, Buckets: make([]uint64, len(c.Buckets))}
	for i, n := range c.Buckets {
		if n < before.Buckets[i] {
			return c.clone()
		}
		out.Buckets[i] = n - before.Buckets[i]
	}
	return out
}

func (c Count) clone() Count {
	c.Buckets = append([]uint64(nil), c.Buckets...)
	return c
}

// above counts answers slower than the i-th bound, and all whose latency is known.
func (c Count) above(i int) (slow, all float64) {
	for j, n := range c.Buckets {
		all += float64(n)
		if j > i {
			slow += float64(n)
		}
	}
	return slow, all
}

// Quantile is the latency that a share q of the answers stayed below, interpolated in its bucket.
func (c Count) Quantile(q float64, bounds []time.Duration) time.Duration {
	_, all := c.above(-1)
	if all == 0 {
		return 0
	}
	below, low := 0.0, time.Duration(0)
	for i, n := range c.Buckets {
		if i >= len(bounds) {
			return low // beyond the last bound nothing more is known
		}
		if below+float64(n) >= q*all && n > 0 {
			part := (q*all - below) / float64(n)
			return low + time.Duration(part*float64(bounds[i]-low))
		}
		below += float64(n)
		low = bounds[i]
	}
	return low
}

// Decision is what a comparison came to.
type Decision int

// The decisions. Undecided may become either as more is seen.
const (
	Undecided Decision = iota
	Worse
	AsGood
)

// Verdict is a decision with what it rests on.
type Verdict struct {
	Decision Decision
	// Slow says, of Worse, that answers are too slow; else too many fail.
	Slow  bool
	Limit time.Duration // of Slow: what counts as slow
	// Odds are, of Worse, 1 to how many that equal versions look so different: 1/Alpha and above.
	Odds float64
	// Old and New are all answers that were compared. Alone says that there were none of the old version.
	Old, New Count
	OldSlow  float64 // share of slow answers, with Slow
	NewSlow  float64
	Alone    bool
}

// Thin says that too little was seen to rest anything on.
func (v Verdict) Thin() bool { return v.New.Answers < EnoughFor }

// Judge compares. The zero value is not usable; see New.
type Judge struct {
	bounds   []time.Duration
	known    Count // of the old version, before the comparison too
	old, new Count // compared
	waiting  [2]Count

	// Cold has slow answers overlooked: the new version has only begun.
	Cold bool

	failures, slow test
	alone          float64 // logarithm of the evidence of what was judged by itself
	aloneCount     Count
	limit          int // index into bounds of what slow means now; -1: not known
	slowOld        [2]float64
	slowNew        [2]float64 // slow ones, all
}

// New makes a Judge for latencies in buckets by bounds. before is what the old version did before the
// comparison began: what is usual for it.
func New(bounds []time.Duration, before Count) *Judge {
	return &Judge{bounds: bounds, known: before.clone(), failures: newTest(effects), slow: newTest(slowEffects), limit: -1}
}

// test is one e-value: the logarithm of the evidence for each effect, and of the evidence that the new
// version is not worse by a margin.
type test struct {
	effects []float64
	worse   []float64
	good    float64
}

func newTest(effects []float64) test {
	return test{effects: effects, worse: make([]float64, len(effects))}
}

// add takes a block: kb of nb answers of the new version were bad, and ka of na of the old one. usual is
// the old version's rate by what was seen before the block.
func (t *test) add(ka, na, kb, nb, usual, margin float64) {
	for i, effect := range t.effects {
		b := usual + (1-usual)*effect
		common := (na*usual + nb*b) / (na + nb)
		t.worse[i] += ka*math.Log(usual/common) + (na-ka)*math.Log((1-usual)/(1-common)) +
			kb*math.Log(b/common) + (nb-kb)*math.Log((1-b)/(1-common))
	}
	worse := min(usual+margin, 0.999)
	t.good += kb*math.Log(usual/worse) + (nb-kb)*math.Log((1-usual)/(1-worse))
}

// evidence is the e-value: the mean over all effects.
func (t *test) evidence() float64 {
	sum := 0.0
	for _, l := range t.worse {
		sum += math.Exp(min(l, 600))
	}
	return sum / float64(len(t.worse))
}

// rate is an estimate that is never 0 or 1: as if sideLeast answers had been seen before, as few of them
// bad as prior says.
func rate(bad, all, prior float64) float64 {
	return min(max((bad+prior*sideLeast/2)/(all+sideLeast/2), 1e-4), 0.99)
}

// Add takes what both versions answered since the last time. Blocks that have only one side wait for
// the other; of what it waits for a block knows the counts only, so that waiting favours nobody.
func (j *Judge) Add(old, new Count) {
	j.waiting[0].Add(old)
	j.waiting[1].Add(new)
	a, b := j.waiting[0], j.waiting[1]
	switch {
	case b.Answers == 0:
		// Nothing of the new version: the old one teaches what is usual, once the block is whole.
		return
	case a.Answers > 0:
		j.compare(a, b)
	case b.Answers >= aloneAfter:
		ok, bad := float64(b.Answers-b.Failed), float64(b.Failed)
		j.alone += bad*math.Log(0.95/0.5) + ok*math.Log(0.05/0.5)
		j.aloneCount.Add(b)
		j.new.Add(b)
	default:
		return
	}
	j.waiting = [2]Count{}
}

func (j *Judge) compare(a, b Count) {
	usual := rate(float64(j.known.Failed), float64(j.known.Answers), 0.005)
	j.failures.add(float64(a.Failed), float64(a.Answers), float64(b.Failed), float64(b.Answers), usual, Margin)
	if j.findLimit(0, slowLeast); j.limit >= 0 && j.new.Answers >= warmUp && !j.Cold {
		slowA, allA := a.above(j.limit)
		slowB, allB := b.above(j.limit)
		if allA > 0 && allB > 0 {
			slow, all := j.known.above(j.limit)
			j.slow.add(slowA, allA, slowB, allB, rate(slow, all, 0.02), SlowMargin)
			j.slowOld = [2]float64{j.slowOld[0] + slowA, j.slowOld[1] + allA}
			j.slowNew = [2]float64{j.slowNew[0] + slowB, j.slowNew[1] + allB}
		}
	}
	j.known.Add(a)
	j.old.Add(a)
	j.new.Add(b)
}

// Against takes what the new version answered while the old one was not asked. It is compared with what
// the old one did before, of which the rate is not known exactly: it is taken for as high as it may well be.
// That the world was another then is held against the new version, so Add is better where there is a choice.
func (j *Judge) Against(new Count) {
	if new.Answers == 0 {
		return
	}
	if j.known.Answers < sideLeast {
		j.Add(Count{}, new)
		return
	}
	j.old = j.known
	failed, all := float64(j.known.Failed), float64(j.known.Answers)
	j.failures.against(float64(new.Failed), float64(new.Answers), rate(failed, all, 0.005), highest(failed, all), Margin)
	if j.limit < 0 {
		j.slow = newTest(slowEffectsAfter)
		j.findLimit(1, slowLeastAfter)
	}
	if j.limit >= 0 && j.new.Answers >= warmUp && !j.Cold {
		slow, n := new.above(j.limit)
		was, all := j.known.above(j.limit)
		j.slow.against(slow, n, rate(was, all, 0.02), highest(was, all), SlowMargin)
		j.slowOld = [2]float64{was, all}
		j.slowNew = [2]float64{j.slowNew[0] + slow, j.slowNew[1] + n}
	}
	j.new.Add(new)
}

// against takes k bad ones of n, where usual is the rate to be expected and most the highest it may be.
func (t *test) against(k, n, usual, most, margin float64) {
	for i, effect := range t.effects {
		b := most + (1-most)*effect
		t.worse[i] += k*math.Log(b/most) + (n-k)*math.Log((1-b)/(1-most))
	}
	worse := min(most+margin, 0.999)
	t.good += k*math.Log(usual/worse) + (n-k)*math.Log((1-usual)/(1-worse))
}

// highest is the upper end of Wilson's interval, three standard deviations wide.
func highest(k, n float64) float64 {
	const z = 3
	return min((k+z*z/2+z*math.Sqrt(k*(1-k/n)+z*z/4))/(n+z*z), 0.9)
}

// findLimit decides once what is slow: above the bound after the one that 95 of 100 of the old version's
// answers keep, so at least twice as long as nearly all of them take, and not below least. Less is not worth
// going back for, and within a bucket nothing is known.
func (j *Judge) findLimit(further int, least time.Duration) {
	if j.limit >= 0 {
		return
	}
	for i := range j.bounds {
		slow, all := j.known.above(i)
		if all < sideLeast {
			return
		}
		if slow <= 0.05*all {
			for i += 1 + further; i < len(j.bounds) && j.bounds[i] < least; i++ {
			}
			j.limit = min(i, len(j.bounds)-1)
			return
		}
	}
}

// Verdict says where the comparison stands.
func (j *Judge) Verdict() Verdict {
	v := Verdict{Old: j.old.clone(), New: j.new.clone()}
	failing, slow, alone := j.failures.evidence(), j.slow.evidence(), math.Exp(min(j.alone, 600))
	switch {
	case failing >= 1/Alpha && j.new.Failed >= failedLeast:
		v.Decision, v.Odds = Worse, failing
	case alone >= 1/Alpha:
		v.Decision, v.Odds, v.Alone = Worse, alone, true
		v.New = j.aloneCount.clone()
	case slow >= 1/Alpha:
		v.Decision, v.Odds, v.Slow, v.Limit = Worse, slow, true, j.bounds[j.limit]
		v.OldSlow, v.NewSlow = j.slowOld[0]/j.slowOld[1], j.slowNew[0]/j.slowNew[1]
	case j.old.Answers >= sideLeast && j.new.Answers >= EnoughFor && j.failures.good >= -math.Log(Certain) && j.slow.good >= -math.Log(Certain):
		v.Decision = AsGood
	}
	return v
}
