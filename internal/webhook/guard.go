package webhook

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"tenfold/internal/atomicfile"
)

// guard remembers deliveries for a time, the newest of them up to a number.
type guard struct {
	file   string
	window time.Duration
	most   int

	mu   sync.Mutex
	seen []delivery // oldest first
}

type delivery struct {
	Key string    `json:"key"`
	At  time.Time `json:"at"`
}

func openGuard(file string, window time.Duration, most int) (*guard, error) {
	g := &guard{file: file, window: window, most: most}
	if file == "" {
		return g, nil
	}
	if err := atomicfile.ReadJSON(file, &g.seen); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open deliveries: %w", err)
	}
	return g, nil
}

// add remembers a delivery; false when it is remembered already.
func (g *guard) add(key string, now time.Time) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.index(key) >= 0 {
		return false, nil
	}
	next := slices.DeleteFunc(slices.Clone(g.seen), func(d delivery) bool { return now.Sub(d.At) > g.window })
	next = append(next, delivery{key, now.UTC()})
	return true, g.save(next[max(0, len(next)-g.most):])
}

func (g *guard) remove(key string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := g.index(key)
	if i < 0 {
		return nil
	}
	return g.save(slices.Delete(slices.Clone(g.seen), i, i+1))
}

func (g *guard) index(key string) int {
	return slices.IndexFunc(g.seen, func(d delivery) bool { return d.Key == key })
}

// save replaces what is remembered, on disk first: what could not be written was not received.
func (g *guard) save(next []delivery) error {
	if g.file != "" {
		if err := atomicfile.WriteJSON(g.file, next, 0o600); err != nil {
			return fmt.Errorf("remember delivery: %w", err)
		}
	}
	g.seen = next
	return nil
}
