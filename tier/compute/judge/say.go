package judge

import (
	"fmt"
	"math"
	"time"
)

// Numbers is how a comparison stands, in a line: "412 requests, 0 errors, p95 41 ms against 39 ms".
func (v Verdict) Numbers(bounds []time.Duration) string {
	out := fmt.Sprintf("%s, %s", Plural(v.New.Answers, "request"), Plural(v.New.Failed, "error"))
	if p := v.New.Quantile(0.95, bounds); p > 0 {
		out += ", p95 " + Millis(p)
		if q := v.Old.Quantile(0.95, bounds); q > 0 {
			out += " against " + Millis(q)
		}
	}
	return out
}

// Evidence says why a version is worse.
func (v Verdict) Evidence() string {
	odds := "1 in " + thousands(min(v.Odds, 1e6))
	if v.Odds > 1e6 {
		odds = "less than 1 in a million"
	}
	switch {
	case v.Alone:
		return fmt.Sprintf("%d of %s failed, and the old version had none to compare with", v.New.Failed, Plural(v.New.Answers, "answer"))
	case v.Slow:
		return fmt.Sprintf("%.0f %% of %s took longer than %s, of the old version's %s %.1f %%; by chance: %s",
			100*v.NewSlow, Plural(v.New.Answers, "answer"), Millis(v.Limit), thousands(float64(v.Old.Answers)), 100*v.OldSlow, odds)
	}
	were := "none"
	if v.Old.Failed > 0 {
		were = thousands(float64(v.Old.Failed))
	}
	return fmt.Sprintf("%d of %s failed, of the old version's %s %s; by chance: %s",
		v.New.Failed, Plural(v.New.Answers, "answer"), thousands(float64(v.Old.Answers)), were, odds)
}

// Plural counts a thing in words.
func Plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Millis is a latency as people read it.
func Millis(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

func thousands(n float64) string {
	switch i := int64(math.Round(n)); {
	case i >= 1_000_000:
		return fmt.Sprintf("%d,%03d,%03d", i/1_000_000, i/1000%1000, i%1000)
	case i >= 1000:
		return fmt.Sprintf("%d,%03d", i/1000, i%1000)
	default:
		return fmt.Sprint(i)
	}
}
