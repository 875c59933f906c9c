// Package run is the lifecycle of what one process consists of: services start in order, each ready
// before the next, stop in reverse, and the first death ends the process in order. Begin at All.
package run

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Service runs until its context is done and leaves nothing behind.
type Service interface {
	Name() string
	Run(ctx context.Context, ready func()) error
}

// All runs services until ctx is done or one of them ends, stops them in reverse order and gives
// each at most grace to stop. Its error names the service that ended by itself, and any that
// would not stop.
func All(ctx context.Context, grace time.Duration, services ...Service) error {
	type running struct {
		name string
		stop context.CancelFunc
		done chan struct{}
	}
	var up []running
	died := make(chan error, len(services))
	var first error
	for _, s := range services {
		// Not a child of ctx: what is above must stop first.
		sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := running{s.Name(), cancel, make(chan struct{})}
		ready := make(chan struct{})
		go func() {
			defer close(r.done)
			err := s.Run(sctx, func() {
				select {
				case <-ready:
				default:
					close(ready)
				}
			})
			if sctx.Err() == nil {
				if err == nil {
					err = errors.New("ended by itself")
				}
				died <- fmt.Errorf("%s: %w", s.Name(), err)
			}
		}()
		up = append(up, r)
		select {
		case <-ready:
			continue
		case first = <-died:
		case <-ctx.Done():
		}
		break
	}
	if first == nil && ctx.Err() == nil {
		select {
		case first = <-died:
		case <-ctx.Done():
		}
	}
	for i := len(up) - 1; i >= 0; i-- {
		up[i].stop()
		select {
		case <-up[i].done:
		case <-time.After(grace):
			first = errors.Join(first, fmt.Errorf("%s: did not stop within %s", up[i].name, grace))
		}
	}
	return first
}
