package freeport

import (
	"sync"
	"testing"
)

func TestNoPortIsGivenTwice(t *testing.T) {
	var mu sync.Mutex
	seen := map[int]bool{}
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			p, err := Pick()
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[p] {
				t.Errorf("port %d again, %v", p, err)
			}
			seen[p] = true
		})
	}
	wg.Wait()
}
