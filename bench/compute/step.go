package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"tenfold/bench/compute/scaling"
	"tenfold/internal/measure"
)

// The live step is the virtual one, cut short: what comes after the recovery is alike.
const (
	stepBoot   = 3 // seconds, one of those that are simulated
	stepBefore = 30 * time.Second
	stepAfter  = 60 * time.Second
	slowFrom   = 250 * time.Millisecond
	giveUp     = 8 * time.Second
)

// step lets the rate at a service go from 10 to 500 requests a second at once, with processes that boot as long, do as
// many at once and take as long as those of the simulation, and compares when the last request was bad.
func (b *bench) step() error {
	virtual := -1.0
	for _, s := range scaling.Scenarios() {
		if s.Name == "step" && s.Boot == stepBoot {
			rows := s.Compare(3)
			virtual = rows[len(rows)-1].Recover
		}
	}
	if virtual <= 0 {
		return errors.New("the step is not simulated any more")
	}
	w := scaling.Usual(stepBoot, 0)
	if err := b.house.up("step", fmt.Sprintf("app: step\nservices:\n  api: {path: ., runtime: go, build: false, command: exec %s task 1 0, routes: [/*], health: {route: /healthz}, scale: {min: 1, max: %d, concurrency: %d}, env: {BOOT: %ds, TAKES: %gs, SLOTS: %d}}\n",
		b.self, w.Most, w.Slots, stepBoot, w.Service, w.Slots)); err != nil {
		return err
	}
	var s steps
	client := &http.Client{Timeout: giveUp, Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	defer client.CloseIdleConnections()
	if err := b.rate(client, &s, 10, stepBefore); err != nil {
		return err
	}
	s.forget()
	if err := b.rate(client, &s, 500, stepAfter); err != nil {
		return err
	}
	s.wg.Wait()
	recovers := s.recovered().Seconds()
	fmt.Printf("%-45s %d of %d requests, %d without an answer\n", "step, live: bad", s.bad, s.all, s.lost)
	fmt.Println("bad second by second:", s.each)
	if s.lost > 0 {
		fmt.Fprintln(os.Stderr, "the first without an answer:", s.first)
	}
	if recovers > 1.5*virtual {
		events, _ := b.house.run("", "events", "--app", "step")
		fmt.Fprintln(os.Stderr, events)
	}
	b.report.Add(measure.Figure{Name: "step 10 to 500 rps, recovers, virtual beside", Unit: "s", Ours: []float64{recovers}, Peer: []float64{virtual}, Asked: measure.AtMost(1.5)})
	return nil
}

// steps counts what became of requests.
type steps struct {
	wg             sync.WaitGroup
	mu             sync.Mutex
	all, bad, lost int
	first          string
	each           [int(stepAfter / time.Second)]int // the bad ones, by the second in which they came
}

func (s *steps) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all, s.bad, s.lost, s.first, s.each = 0, 0, 0, "", [len(s.each)]int{}
}

// recovered is when the last second was over in which more than a hundredth was bad: on a machine that others use too, one
// answer in hundreds is late for reasons of theirs.
func (s *steps) recovered() time.Duration {
	for n := len(s.each) - 1; n >= 0; n-- {
		if s.each[n] > 500/100 {
			return time.Duration(n+1) * time.Second
		}
	}
	return 0
}

// rate sends requests at a rate, whether or not earlier ones are answered.
func (b *bench) rate(client *http.Client, s *steps, perSecond int, during time.Duration) error {
	begun := time.Now()
	for n := 0; ; n++ {
		at := begun.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
		if at.Sub(begun) > during {
			return nil
		}
		select {
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(time.Until(at)):
		}
		s.wg.Go(func() {
			came := time.Now()
			err := b.askStep(client)
			took := time.Since(came)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.all++
			if err != nil {
				s.lost++
				if s.first == "" {
					s.first = err.Error()
				}
			}
			if err != nil || took > slowFrom {
				s.bad++
				if n := int(came.Sub(begun).Seconds()); n < len(s.each) {
					s.each[n]++
				}
			}
		})
	}
}

func (b *bench) askStep(client *http.Client) error {
	ctx, cancel := context.WithTimeout(b.ctx, giveUp)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.house.addr+"/", nil)
	if err != nil {
		return err
	}
	req.Host = "step.localhost"
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}
