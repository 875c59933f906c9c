package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tenfold/internal/measure"
)

// restart keeps 16 connections busy while the two tasks of a service are ended in turn, by each signal,
// while the service is deployed, and while none of its tasks lives; then one of four tasks is slow.
func (b *bench) restart() error {
	for _, s := range []struct {
		name string
		sig  syscall.Signal
	}{{"SIGTERM", syscall.SIGTERM}, {"SIGKILL", syscall.SIGKILL}} {
		bad, extra, err := b.endTasks(s.sig)
		if err != nil {
			return err
		}
		b.report.Add(measure.Figure{Name: "tasks restart by " + s.name + ": bad GETs", Ours: []float64{bad}, Asked: measure.AtMost(0)})
		b.report.Add(measure.Figure{Name: "tasks restart by " + s.name + ": extra load", Unit: "%", Ours: []float64{extra}, Asked: measure.AtMost(20)})
	}
	bad, err := b.deployUnderPosts()
	if err != nil {
		return err
	}
	b.report.Add(measure.Figure{Name: "three deploys: bad POSTs", Ours: []float64{bad}, Asked: measure.AtMost(0)})
	var back []float64
	for range b.rounds {
		ms, err := b.allGone()
		if err != nil {
			return err
		}
		back = append(back, ms)
	}
	b.report.Add(measure.Figure{Name: "all tasks gone: back after the first starts", Unit: "ms", Ours: back, Asked: measure.AtMost(1000)})
	return b.oneSlow()
}

// underLoad runs do while 16 workers send requests to the rolling service: answers and what was bad.
func (b *bench) underLoad(method string, do func() error) (answers int, wrong []string, err error) {
	c := drillClient()
	defer c.CloseIdleConnections()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		err := do()
		close(stop)
		done <- err
	}()
	answers, wrong = stream(16, stop, func(int) answer {
		if method == http.MethodPost {
			return send(b.ctx, c, method, b.house.base+"/roll/x", strings.NewReader("posted"))
		}
		return send(b.ctx, c, method, b.house.base+"/roll/x", nil)
	})
	return answers, wrong, <-done
}

// endTasks ends the tasks in turn, six times in all: bad answers, and what the tasks were asked more
// than the clients asked, in percent.
func (b *bench) endTasks(sig syscall.Signal) (bad, extra float64, err error) {
	if err := b.house.settled("roll", 2); err != nil {
		return 0, 0, err
	}
	before, err := b.rolled()
	if err != nil {
		return 0, 0, err
	}
	answers, wrong, err := b.underLoad(http.MethodGet, func() error {
		for n := range 6 {
			pids, _, err := b.house.tasks("roll")
			if err != nil {
				return err
			}
			if len(pids) != 2 {
				return fmt.Errorf("the service has %d tasks", len(pids))
			}
			if err := syscall.Kill(pids[n%2], sig); err != nil {
				return err
			}
			time.Sleep(300 * time.Millisecond)
			if err := b.house.settled("roll", 2); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	b.explain(wrong)
	after, err := b.rolled()
	return float64(len(wrong)), 100 * (float64(after-before)/float64(answers) - 1), err
}

// rolled is how many requests reached the tasks of the rolling service, those killed included.
func (b *bench) rolled() (int64, error) {
	st, err := os.Stat(b.house.left(requestsFile))
	if err != nil {
		return 0, fmt.Errorf("count the requests of the tasks: %w", err)
	}
	return st.Size(), nil
}

func (b *bench) explain(wrong []string) {
	for i, w := range wrong {
		if i == 3 {
			b.note("", fmt.Sprintf("and %d more", len(wrong)-i))
			break
		}
		b.note("", w)
	}
}

// deployUnderPosts deploys a new version of the service three times.
func (b *bench) deployUnderPosts() (bad float64, err error) {
	_, wrong, err := b.underLoad(http.MethodPost, func() error {
		for n := range 3 {
			file := filepath.Join(b.house.app, "roll", "version")
			if err := os.WriteFile(file, []byte(strconv.Itoa(n)), 0o644); err != nil {
				return err
			}
			if _, err := b.house.tenfold("deploy", b.house.app); err != nil {
				return err
			}
		}
		return nil
	})
	b.explain(wrong)
	return float64(len(wrong)), err
}

// allGone kills both tasks and asks until an answer comes: ms since the first new task began to listen.
func (b *bench) allGone() (float64, error) {
	if err := b.house.settled("roll", 2); err != nil {
		return 0, err
	}
	pids, _, err := b.house.tasks("roll")
	if err != nil {
		return 0, err
	}
	killed := time.Now()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return 0, err
		}
	}
	c := drillClient()
	defer c.CloseIdleConnections()
	for time.Since(killed) < 30*time.Second {
		if get(b.ctx, c, b.house.base+"/roll/x").bad() == "" {
			back := time.Now()
			started, err := b.firstStart(killed)
			if err != nil || !started.IsZero() {
				return float64(back.Sub(started).Microseconds()) / 1000, err
			}
			// A task that was already killed has answered: a kill takes its time.
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0, errors.New("nothing answers 30 s after all tasks were killed")
}

// firstStart is when the first task after a moment began to listen; zero if none has.
func (b *bench) firstStart(after time.Time) (time.Time, error) {
	raw, err := os.ReadFile(b.house.left(startsFile))
	if err != nil {
		return time.Time{}, err
	}
	for _, line := range strings.Fields(string(raw)) {
		ns, err := strconv.ParseInt(line, 10, 64)
		if err != nil {
			return time.Time{}, err
		}
		if at := time.Unix(0, ns); at.After(after) {
			return at, nil
		}
	}
	return time.Time{}, nil
}

// oneSlow compares the tail with HAProxy's over four tasks of which one takes ten times as long.
func (b *bench) oneSlow() error {
	const name = "one of four tasks 10× slower"
	ours, peer := b.house.side(), b.proxy.side("haproxy", "four")
	if peer.base == "" {
		b.note(name, "no peer")
		return nil
	}
	const perSecond = 1000
	tails, err := b.contest(func(s side) (load, error) {
		return b.openLoop(s.base+"/four/x", connections, perSecond, b.each)
	}, ours, peer)
	if err != nil {
		return err
	}
	b.report.Add(measure.Figure{Name: fmt.Sprintf("%s, p99 at %d/s", name, perSecond), Unit: "ms", Ours: each(tails["tenfold"], p99), Peer: each(tails[peer.name], p99), Asked: measure.AtMost(1.5)})
	return nil
}
