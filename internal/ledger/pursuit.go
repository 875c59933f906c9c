package ledger

import (
	"context"
	"sync"
	"time"
)

// Pursuit calls work for every key, each key in one goroutine at a time: when woken, and again
// after pace. It is the Run of a tier.
type Pursuit struct {
	Keys func() []string
	// Work brings one record nearer to its goal. It says after how long it wants to be called
	// again (0: after Pace) when nothing wakes it.
	Work func(ctx context.Context, key string) (again time.Duration)
	Pace time.Duration

	once sync.Once
	wake chan struct{}
}

func (p *Pursuit) channel() chan struct{} {
	p.once.Do(func() { p.wake = make(chan struct{}, 1) })
	return p.wake
}

// Wake makes Run look again now.
func (p *Pursuit) Wake() {
	select {
	case p.channel() <- struct{}{}:
	default:
	}
}

// Run works until ctx ends, and returns when no work is under way.
func (p *Pursuit) Run(ctx context.Context, ready func()) error {
	type result struct {
		key   string
		again time.Duration
	}
	busy, due := map[string]bool{}, map[string]time.Time{}
	woken := map[string]bool{} // while busy: work is due again at once
	results := make(chan result)
	ready()
	for {
		now := time.Now()
		next := p.Pace
		if ctx.Err() == nil {
			for _, k := range p.Keys() {
				if busy[k] {
					continue
				}
				if d, ok := due[k]; ok && d.After(now) {
					next = min(next, d.Sub(now))
					continue
				}
				busy[k] = true
				go func() { results <- result{k, p.Work(ctx, k)} }()
			}
		} else if len(busy) == 0 {
			return nil
		}
		timer := time.NewTimer(next)
		select {
		case r := <-results:
			delete(busy, r.key)
			if r.again == 0 {
				r.again = p.Pace
			}
			if woken[r.key] {
				delete(woken, r.key)
				r.again = 0
			}
			due[r.key] = time.Now().Add(r.again)
		case <-p.channel():
			clear(due)
			for k := range busy {
				woken[k] = true
			}
		case <-timer.C:
		case <-done(ctx, len(busy)):
		}
		timer.Stop()
	}
}

// done is ctx's channel until it has been seen; after that only results matter.
func done(ctx context.Context, busy int) <-chan struct{} {
	if ctx.Err() != nil && busy > 0 {
		return nil
	}
	return ctx.Done()
}
