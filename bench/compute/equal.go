package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// abreast is how many apps try a canary at the same time.
const abreast = 10

// equal deploys canaries that are what serves already, under traffic, and counts those that are rolled back.
func (b *bench) equal() error {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var fault error
	var took []float64
	wrong, done := 0, 0
	app := func(i int) release {
		return release{app: fmt.Sprintf("equal-%d", i), version: "1", mood: "0", deploy: "{strategy: canary, share: 20%, bake: 30s}", tasks: 1}
	}
	for i := range abreast {
		if out, err := b.house.deploy(b.self, app(i)); err != nil {
			return fmt.Errorf("deploy: %w: %s", err, out)
		}
	}
	for i := range abreast {
		wg.Go(func() {
			r := app(i)
			l := b.house.load(r.app, 2, 10*time.Millisecond)
			defer l.end()
			time.Sleep(3 * time.Second)
			for n := i; n < b.canaries && b.ctx.Err() == nil; n += abreast {
				r.more = fmt.Sprintf("    env: {ROUND: %d}\n", n)
				begun := time.Now()
				out, err := b.house.deploy(b.self, r)
				mu.Lock()
				done++
				took = append(took, time.Since(begun).Seconds())
				switch {
				case err == nil:
				case strings.Contains(out, "rolled back"):
					wrong++
					fmt.Fprintln(os.Stderr, out)
				default:
					fault = errors.Join(fault, fmt.Errorf("deploy: %w: %s", err, out))
				}
				mu.Unlock()
			}
			if bad := l.bad(); bad > 0 {
				mu.Lock()
				fault = errors.Join(fault, fmt.Errorf("%s: %d requests failed", r.app, bad))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := errors.Join(fault, b.ctx.Err()); err != nil {
		return err
	}
	b.count(fmt.Sprintf("%d equal canaries, rolled back", done), "", float64(wrong), float64(max(1, done/100)))
	b.report.Add(figure("equal canary, deploy in all", "s", took, 45))
	return nil
}
