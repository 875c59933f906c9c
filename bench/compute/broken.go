package main

import (
	"fmt"
	"strings"
	"time"
)

// early are the ways in which a release is broken before it gets a request, late those that show only then.
var (
	early = []string{"build", "migrate", "crash", "sick"}
	late  = []string{"100", "10"} // percent of the answers that fail
)

const (
	earlyTimes = 3 // 12 and 8: 20 releases a strategy
	lateTimes  = 4
)

// broken deploys 20 broken releases under each strategy, with traffic, and counts what users saw of them.
func (b *bench) broken() error {
	for _, strategy := range []string{"rolling", "blue-green", "canary"} {
		if err := b.brokenUnder(strategy); err != nil {
			return fmt.Errorf("%s: %w", strategy, err)
		}
	}
	return nil
}

func (b *bench) brokenUnder(strategy string) error {
	app := "broken-" + strategy
	deploy := strategy
	if strategy == "canary" {
		deploy = "{strategy: canary, share: 10%}"
	}
	good := release{app: app, version: "good", mood: "0", deploy: deploy, tasks: 2}
	if out, err := b.house.deploy(b.self, good); err != nil {
		return fmt.Errorf("deploy: %w: %s", err, out)
	}
	l := b.house.load(app, 8, 10*time.Millisecond)
	defer l.end()
	time.Sleep(5 * time.Second) // what is usual must be known
	n := 0
	each := func(moods []string, times int, check func(version, mood string) error) error {
		for range times {
			for _, mood := range moods {
				r := good
				n++
				r.version, r.mood = fmt.Sprintf("bad-%d", n), mood
				if mood == "migrate" {
					r.mood, r.more = "0", "    migrate: echo no such table; exit 1\n"
				}
				out, err := b.house.deploy(b.self, r)
				if err == nil && (mood == "100" || mood == "10") {
					err = b.failed(app) // its watch finds it
				} else if err != nil {
					err = nil
				} else {
					err = fmt.Errorf("a release with a broken %s serves: %s", mood, out)
				}
				if err != nil {
					return err
				}
				if err := b.house.settled(app); err != nil {
					return err
				}
				if err := check(r.version, mood); err != nil {
					return err
				}
				if err := b.ctx.Err(); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := each(early, earlyTimes, func(version, mood string) error { return nil }); err != nil {
		return err
	}
	b.count(fmt.Sprintf("%s: %d broken at start, user errors", strategy, earlyTimes*len(early)), "", float64(l.bad()), 0)

	worst := map[string]answers{}
	longest := time.Duration(0)
	if err := each(late, lateTimes, func(version, mood string) error {
		a := l.of(version)
		if a.all == 0 {
			return fmt.Errorf("nobody met the version of which %s %% fail", mood)
		}
		w := worst[mood]
		worst[mood] = answers{all: max(w.all, a.all), bad: max(w.bad, a.bad)}
		longest = max(longest, a.last.Sub(a.first))
		return nil
	}); err != nil {
		return err
	}
	if strategy == "canary" {
		b.count("canary: all answers fail, bad answers", "", float64(worst["100"].bad), 20)
		b.count("canary: one in ten fails, requests to it", "", float64(worst["10"].all), 200)
	} else {
		b.count(strategy+": fails under traffic, back after", "s", longest.Seconds(), 10)
		b.count(strategy+": all answers fail, bad answers", "", float64(worst["100"].bad), 1000)
	}
	if a := l.of(""); a.bad > 0 {
		return fmt.Errorf("%d requests got no answer", a.bad)
	}
	return nil
}

// failed waits until the watch of the newest deployment has taken it back.
func (b *bench) failed(app string) error {
	for begun := time.Now(); time.Since(begun) < 40*time.Second; time.Sleep(50 * time.Millisecond) {
		r, err := b.house.last(app)
		if err != nil {
			return err
		}
		if r.State == "failed" && strings.Contains(r.Reason, "rolled back") {
			return nil
		}
	}
	out, _ := b.house.run("", "events", "--app", app)
	return fmt.Errorf("nobody noticed that %s fails:\n%s", app, out)
}
