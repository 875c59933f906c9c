package cache

import (
	"container/list"
	"math"
	"math/rand/v2"
	"testing"
)

// lru runs requests, some each second, through a cache of a number of keys, and gives its hit ratio in the
// second half and the ages of its keys.
func lru(seed uint64, size int, skew float64) (hit float64, ages []float64) {
	const requests, each, keys = 400_000, 250, 200_000
	rng := rand.New(rand.NewPCG(seed, 2))
	zipf := rand.NewZipf(rng, skew, 20, keys-1)
	order, at := list.New(), map[uint64]*list.Element{}
	type entry struct {
		key  uint64
		when int
	}
	hits := 0
	for i := range requests {
		k := zipf.Uint64()
		if e, ok := at[k]; ok {
			if i >= requests/2 {
				hits++
			}
			e.Value = entry{k, i / each}
			order.MoveToFront(e)
			continue
		}
		at[k] = order.PushFront(entry{k, i / each})
		if order.Len() > size {
			last := order.Back()
			delete(at, last.Value.(entry).key)
			order.Remove(last)
		}
	}
	for e := order.Front(); e != nil; e = e.Next() {
		ages = append(ages, float64(requests/each-1-e.Value.(entry).when))
	}
	rng.Shuffle(len(ages), func(i, j int) { ages[i], ages[j] = ages[j], ages[i] })
	return float64(hits) / (requests / 2), ages[:min(len(ages), 4000)]
}

// The guess is held to what a cache of that size does hit.
func TestWhatMoreMemoryBuys(t *testing.T) {
	for _, skew := range []float64{1.05, 1.2, 1.5} {
		const size = 5000
		hit, ages := lru(1, size, skew)
		for _, times := range []float64{0.5, 1, 1.5, 2} {
			want, _ := lru(1, int(size*times), skew)
			got := curve(ages, size, hit, []float64{size * times})
			if len(got) != 1 {
				t.Fatalf("skew %g: nothing is known of %g", skew, times)
			}
			t.Logf("skew %g, now %.3f, %g times the size: %.3f, guessed %.3f", skew, hit, times, want, got[0].Hit)
			if math.Abs(got[0].Hit-want) > 0.04 {
				t.Errorf("skew %g, now %.3f, %g times the size hits %.3f, not %.3f", skew, hit, times, want, got[0].Hit)
			}
		}
	}
}

func TestWhereAgesSayNothing(t *testing.T) {
	same := make([]float64, 1000)
	for what, got := range map[string][]worth{
		"few":         curve([]float64{1, 2, 3}, 100, 0.5, []float64{200}),
		"all alike":   curve(same, 100, 0.5, []float64{200}),
		"never a hit": curve(same, 100, 0, []float64{200}),
		"no miss":     curve(same, 100, 1, []float64{200}),
	} {
		if got != nil {
			t.Errorf("%s: %v", what, got)
		}
	}
}
