package postgres

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestCapacityFollowsTheLoadAndNeverFlaps(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		least, most := float64(rng.IntN(4))/2, 0.5+float64(rng.IntN(16))/2
		most = max(least, most)
		s := scaling{}
		now := time.Unix(0, 0)
		mean := rng.Float64() * most * acuCores
		changes := 0
		for second := range 4 * 3600 { // steady load with noise
			now = now.Add(time.Second)
			before := s.ACU
			s = s.next(now, mean*(0.9+0.2*rng.Float64()), least, most)
			if s.ACU < max(least, acuStep) || s.ACU > max(most, acuStep) {
				t.Fatalf("%g is not within %g-%g", s.ACU, least, most)
			}
			if second > 3600 && s.ACU != before {
				changes++
			}
		}
		if changes > 12 {
			t.Errorf("%d changes in 3 hours of steady load of %.2f cores, %g-%g", changes, mean, least, most)
		}
		// What is needed is there with the next look.
		if up := s.next(now.Add(time.Second), most*acuCores, least, most); up.ACU != max(most, acuStep) {
			t.Errorf("at full load %g of %g", up.ACU, most)
		}
	}
}

func TestReadersComeWhenTheyAreCrowdedAndGoWhenOneLessWouldDo(t *testing.T) {
	now := time.Unix(0, 0)
	var c crowd
	have := 0
	run := func(span time.Duration, busy func() int) (changes int) {
		for end := now.Add(span); now.Before(end); now = now.Add(time.Second) {
			before := have
			if have, c = c.next(now, have, busy(), 20, 0, 3); have != before {
				changes++
			}
			if have < 0 || have > 3 {
				t.Fatalf("%d readers", have)
			}
		}
		return changes
	}
	if run(time.Hour, func() int { return 3 }); have != 0 {
		t.Errorf("%d readers for 3 busy connections", have)
	}
	if run(20*time.Second, func() int { return 20 }); have != 0 {
		t.Error("a burst makes a reader")
	}
	if run(time.Hour, func() int { return 35 }); have != 3 {
		t.Errorf("%d readers for 35 busy connections of 20 each", have)
	}
	if n := run(3*time.Hour, func() int { return 15 }); have != 2 || n != 1 {
		t.Errorf("%d readers for 15 busy connections, %d changes", have, n)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	if n := run(6*time.Hour, func() int { return 10 + rng.IntN(12) }); n > 2 {
		t.Errorf("%d changes at steady load", n)
	}
	if run(2*time.Hour, func() int { return 0 }); have != 0 {
		t.Errorf("%d readers for nobody", have)
	}
}
