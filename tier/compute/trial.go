package compute

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"tenfold"
	"tenfold/internal/directory"
	"tenfold/tier/compute/judge"
)

const (
	// usualFor is how far back what is usual for a version is remembered, usualPace how often it is noted.
	usualFor  = time.Minute
	usualPace = 5 * time.Second
	// coldFor is how long slow answers of a new version are overlooked.
	coldFor = 3 * time.Second
	// allowance is how many requests a new task may fail between two looks.
	allowance = 10
	// showPace is how often numbers are told that nothing came of yet.
	showPace = 5 * time.Second
	// enoughUsual is how many answers of the last while say what is usual; with fewer, all that are known do.
	enoughUsual = 200
)

// trial is the comparison of a new version with the old one. A daemon that dies begins it anew.
type trial struct {
	key   string // of which deployment, or which watch
	judge *judge.Judge
	told  time.Time
}

// usual is what the tasks of a version answered around a moment.
type usual struct {
	at      time.Time
	version string
	count   judge.Count
}

func countOf(c directory.Count) (out judge.Count) {
	for _, n := range c.Class {
		out.Answers += n
	}
	out.Failed, out.Buckets = c.Class[0]+c.Class[5], c.Buckets
	return out
}

// count asks the door what tasks answered, when that is of interest now, renews the lease of those that are
// tried out, and compares.
func (s *service) count(ctx context.Context, r record, w *seen, now time.Time) {
	trying := r.Deploy != nil && !r.Deploy.Tried.IsZero() && r.Serving != nil
	pace := usualPace
	switch {
	case trying, r.Watch != nil && r.Deploy == nil:
		pace = 0
	case r.Serving == nil || !r.Serving.Spec.Routed || len(r.Tasks) == 0:
		s.trial = nil
		s.show("")
		return
	case r.Deploy != nil:
		pace = time.Second
	}
	if now.Sub(s.counted) < pace {
		return
	}
	var lease directory.Lease
	if trying {
		lease.Errors = allowance
		for _, t := range r.Tasks {
			if t.Version == r.Deploy.To.Version {
				lease.Tasks = append(lease.Tasks, taskID(s.id, t.N))
			}
		}
	}
	limited, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	counts, err := s.c.cfg.Traffic.Counts(limited, lease)
	if err != nil {
		return // nothing is renewed then, and the door lets the old tasks answer
	}
	s.counted, w.Calls = now, map[int]uint64{}
	fresh := map[string]judge.Count{}
	for _, t := range r.Tasks {
		c := countOf(counts[taskID(s.id, t.N)])
		w.Calls[t.N] = c.Answers
		v := fresh[t.Version]
		v.Add(c.Since(s.counts[t.N]))
		fresh[t.Version] = v
		s.counts[t.N] = c
	}
	s.compare(r, w, fresh, now)
	if v := fresh[r.Serving.Version]; v.Answers > 0 {
		s.usual = append(s.usual, usual{now, r.Serving.Version, v})
	}
	for n := range s.counts {
		if !slices.ContainsFunc(r.Tasks, func(t task) bool { return t.N == n }) {
			delete(s.counts, n)
		}
	}
	s.usual = slices.DeleteFunc(s.usual, func(u usual) bool { return now.Sub(u.at) > usualFor })
}

// before is what is usual for a version: what it answered in the last while, or all that is known of it.
func (s *service) before(r record, version string) (out judge.Count) {
	for _, u := range s.usual {
		if u.version == version {
			out.Add(u.count)
		}
	}
	if out.Answers >= enoughUsual {
		return out
	}
	out = judge.Count{}
	for _, t := range r.Tasks {
		if t.Version == version {
			out.Add(s.counts[t.N])
		}
	}
	return out
}

// compare takes what was answered since the last time.
func (s *service) compare(r record, w *seen, fresh map[string]judge.Count, now time.Time) {
	key, old, new, began := "", "", "", time.Time{}
	switch {
	case r.Deploy != nil && !r.Deploy.Tried.IsZero():
		key, old, new, began = fmt.Sprint("deployment ", r.Deploy.Number), r.Serving.Version, r.Deploy.To.Version, r.Deploy.Tried
	case r.Watch != nil && r.Deploy == nil:
		key, old, new, began = "watch of "+r.Serving.Version+r.Watch.Began.String(), r.Watch.Old.Version, r.Serving.Version, r.Watch.Began
	default:
		s.trial = nil
		s.show("")
		return
	}
	if s.trial == nil || s.trial.key != key {
		s.trial = &trial{key: key, judge: judge.New(directory.Bounds, s.before(r, old)), told: now}
	}
	j := s.trial.judge
	j.Cold = now.Sub(began) < coldFor
	if r.Deploy != nil {
		j.Add(fresh[old], fresh[new])
	} else {
		j.Against(fresh[new])
	}
	v := j.Verdict()
	s.verdict = v
	w.Verdict, w.Thin = v.Decision, v.Thin()
	line := trialName(r) + ": " + v.Numbers(directory.Bounds)
	s.show(line)
	if now.Sub(s.trial.told) >= showPace {
		s.trial.told = now
		s.emit(tenfold.SeverityProgress, 0, line)
	}
}

// show has status say how a comparison stands.
func (s *service) show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = line
}

// trialName says what is compared: "canary 5 %".
func trialName(r record) string {
	switch {
	case r.Deploy == nil:
		return "watched"
	case r.Deploy.To.Spec.Strategy == tenfold.StrategyCanary:
		return "canary " + percent(r.Deploy.To.Spec.share())
	}
	return "new tasks"
}

func percent(share float64) string {
	p := math.Round(share*1000) / 10
	if p == math.Trunc(p) {
		return fmt.Sprintf("%.0f %%", p)
	}
	return fmt.Sprintf("%.1f %%", p)
}

// sayTrial tells that new tasks get requests beside the old.
func (s *service) sayTrial(n int) {
	r := s.snapshot()
	if r.Deploy == nil {
		return
	}
	spec := r.Deploy.To.Spec
	if spec.Strategy != tenfold.StrategyCanary {
		return // its tasks are told one by one
	}
	s.emit(tenfold.SeverityInfo, 0, fmt.Sprintf("canary: %s %s %s of the requests, for %s at most", plural(n, "task"), gets(n), percent(spec.share()), spec.bake()))
}

func gets(n int) string {
	if n == 1 {
		return "gets"
	}
	return "get"
}

// sayPassed tells what a canary passed by.
func (s *service) sayPassed(by string) {
	r := s.snapshot()
	if r.Deploy == nil {
		return
	}
	numbers := s.verdict.Numbers(directory.Bounds)
	text := "canary is as good as the old version: " + numbers
	severity := tenfold.SeverityInfo
	switch by {
	case passedTime:
		text = fmt.Sprintf("canary passed by time, %s: %s", r.Deploy.To.Spec.bake(), numbers)
	case passedThin:
		severity = tenfold.SeverityWarning
		text = fmt.Sprintf("traffic was too thin to judge the canary: %s; it passes by time, %s", numbers, r.Deploy.To.Spec.bake())
	case passedPerson:
		text = "canary promoted by hand: " + numbers
	}
	s.emit(severity, r.Deploy.Tested, text)
}

// sayProven tells that a watch is over.
func (s *service) sayProven() {
	if s.verdict.New.Answers == 0 {
		return
	}
	s.emit(tenfold.SeverityInfo, 0, "old tasks are let go: "+s.verdict.Numbers(directory.Bounds))
}

// worse gives the new version up by what was compared.
func (s *service) worse(ctx context.Context, r record) {
	v, after := s.verdict, ""
	version := r.Serving
	if r.Deploy != nil {
		version, after = &r.Deploy.To, fmt.Sprintf("%s rolled back after %s", trialName(r), judge.Plural(v.New.Answers, "request"))
	} else if r.Watch != nil {
		after = fmt.Sprintf("rolled back %s after the switch", time.Since(r.Watch.Began).Round(100*time.Millisecond))
	}
	lines := []string{after + ": " + v.Evidence(), "  compared      " + v.Numbers(directory.Bounds)}
	for _, t := range r.Tasks {
		if version == nil || t.Version != version.Version {
			continue
		}
		if d := outputDetail(lastOutput(s.logPath(t.N), 5, time.Time{})); d != "" {
			lines = append(lines, d)
			break
		}
	}
	s.fail(ctx, strings.Join(lines, "\n"), fmt.Sprintf("the old version answers; see what the new one said: tenfold logs %s", s.id.Name))
}

// Promote ends the time in which a service's new version is tried out or watched; false: it is neither.
func (c *Compute) Promote(id tenfold.ID) (bool, error) {
	s, err := c.find(id)
	if err != nil {
		return false, err
	}
	defer s.prod()
	done := false
	err = s.change(func(r record) record {
		switch {
		case r.Deploy != nil && !r.Deploy.Tried.IsZero() && r.Deploy.Passed == "" && r.Deploy.To.Spec.Strategy == tenfold.StrategyCanary:
			d := *r.Deploy
			d.Passed, d.Tested = passedPerson, time.Since(d.Tried)
			r.Deploy, done = &d, true
		case r.Deploy == nil && r.Watch != nil:
			w := *r.Watch
			w.Over = true
			r.Watch, done = &w, true
		}
		return r
	})
	return done, err
}

// What a service's new version is in; see Trial.
const (
	TrialCanary  = "canary"  // it gets a share of the requests
	TrialWatched = "watched" // it has all, and the tasks of the one before are warm
)

// Trial says how a service's new version is tried out; "" when it is not.
func (c *Compute) Trial(id tenfold.ID) string {
	s, err := c.find(id)
	if err != nil {
		return ""
	}
	switch r := s.snapshot(); {
	case r.Deploy != nil && !r.Deploy.Tried.IsZero() && r.Deploy.Passed == "" && r.Deploy.To.Spec.Strategy == tenfold.StrategyCanary:
		return TrialCanary
	case r.Deploy == nil && r.Watch != nil:
		return TrialWatched
	}
	return ""
}

// PinOf is the part of a deployment's id that names the version of a service of app.
func (c *Compute) PinOf(app tenfold.App, service tenfold.Name) (string, error) {
	want, err := c.Desired(app, nil)
	if err != nil {
		return "", err
	}
	for _, r := range want {
		if spec, ok := r.Spec.(serviceSpec); ok && r.ID.Name == service && r.ID.Kind == tenfold.KindService {
			v, err := spec.version()
			return directory.PinOf(v), err
		}
	}
	return "", fmt.Errorf("pin calls to service %s: there is none", service)
}
