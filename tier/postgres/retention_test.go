package postgres

import (
	"testing"
	"time"
)

func TestWhatIsTooOldGoesButNeverTheLast(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	var all []base
	for _, age := range []time.Duration{100, 80, 60, 40, 20} {
		all = append(all, base{Name: age.String(), Ended: now.Add(-age * time.Hour)})
	}
	for keep, want := range map[time.Duration]int{200: 0, 90: 0, 70: 1, 50: 2, 30: 3, 10: 4, 0: 4} {
		if got := expired(all, keep*time.Hour, now); len(got) != want {
			t.Errorf("keep %d h: %d go, want %d", keep, len(got), want)
		}
	}
}
