package timetable

import (
	"testing"
	"time"
)

func TestTheEntryThatBeganLastHolds(t *testing.T) {
	crons := []string{"0 8 * * 1-5", "0 20 * * *"}
	for at, want := range map[string]int{
		"2026-11-27T07:59:59Z":      1, // Friday
		"2026-11-27T08:00:00Z":      0,
		"2026-11-27T19:59:00Z":      0,
		"2026-11-27T20:00:00Z":      1,
		"2026-11-28T12:00:00Z":      1, // Saturday
		"2026-11-30T09:00:00+01:00": 0,
		"2026-11-30T08:30:00+01:00": 1, // 07:30 UTC
	} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Current(crons, now); err != nil || got != want {
			t.Errorf("%s: entry %d, want %d, %v", at, got, want, err)
		}
	}
	if _, err := Current([]string{"not cron"}, time.Now()); err == nil {
		t.Error("nonsense is taken")
	}
	if i, err := Current(nil, time.Now()); i != -1 || err != nil {
		t.Error(i, err)
	}
}
