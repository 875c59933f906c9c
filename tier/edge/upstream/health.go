package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// checkHealth asks every task every Health.Every, each in a goroutine that ends with its check.
func (s *Service) checkHealth(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	checks := map[*endpoint]*check{}
	for {
		p := s.policy.Load()
		if p.Health.Path != "" {
			s.startChecks(ctx, &p.Health, checks, &wg)
		} else {
			for e := range checks {
				e.sick.Store(false)
			}
			clear(checks)
		}
		timer := time.NewTimer(min(p.Health.Every, time.Second))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// check is what is known of a task's health. The loop of checkHealth owns due, the running check
// the counts.
type check struct {
	due      int64
	running  sync.Mutex
	up, down int // in a row
}

func (s *Service) startChecks(ctx context.Context, h *Health, checks map[*endpoint]*check, wg *sync.WaitGroup) {
	now := clock()
	set := s.set.Load()
	named := map[*endpoint]bool{}
	for _, e := range set.all {
		named[e] = true
		c := checks[e]
		if c == nil {
			c = &check{due: now}
			checks[e] = c
		}
		if now < c.due || e.draining.Load() || !c.running.TryLock() {
			continue
		}
		c.due = now + int64(h.Every)
		wg.Go(func() {
			defer c.running.Unlock()
			s.conclude(e, c, h, ask(ctx, e, h))
		})
	}
	for e := range checks {
		if !named[e] {
			delete(checks, e)
		}
	}
}

// conclude draws the consequences of one check.
func (s *Service) conclude(e *endpoint, c *check, h *Health, err error) {
	if err != nil {
		c.up = 0
		if c.down++; c.down >= h.Down {
			e.sick.Store(true)
		}
		return
	}
	c.down = 0
	if c.up++; c.up >= h.Up && e.sick.Swap(false) {
		e.since.Store(clock())
		s.mu.Lock()
		s.release()
		s.mu.Unlock()
	}
}

// ask makes one health check, on a connection of its own: a task that answers on old connections
// only is not healthy.
func ask(ctx context.Context, e *endpoint, h *Health) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	c, err := dial(ctx, e)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	defer c.discard()
	e.reached()
	stop := context.AfterFunc(ctx, c.kill)
	defer stop()
	host := h.Host
	if host == "" {
		host = e.addr
	}
	req := appendVisible([]byte("GET "), h.Path)
	req = append(req, " HTTP/1.1\r\nHost: "+host+"\r\nUser-Agent: tenfold-health\r\nConnection: close\r\n\r\n"...)
	if _, err := c.Write(req); err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	for {
		if err := c.readHead(); err != nil {
			return fmt.Errorf("check health: %w", err)
		}
		if c.head.status >= 200 {
			break
		}
	}
	if st := c.head.status; st < h.StatusLo || st > h.StatusHi {
		return fmt.Errorf("check health: status %d", st)
	}
	b := bodyOf(c, &c.head, http.MethodGet)
	for {
		if _, err := b.next(nil); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("check health: %w", err)
		}
	}
}
