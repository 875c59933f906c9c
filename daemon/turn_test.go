package daemon

import (
	"testing"

	"tenfold/internal/keeper"
)

func TestTurns(t *testing.T) {
	unit := func(name string, p keeper.Phase) keeper.Status {
		return keeper.Status{Unit: keeper.Unit{ID: "house/door/" + name}, Phase: p}
	}
	for _, c := range []struct {
		why    string
		units  []keeper.Status
		want   string
		others int
	}{
		{"the first", nil, "v1~0", 0},
		{"a daemon that starts again", []keeper.Status{unit("v1~0", keeper.Running)}, "v1~0", 0},
		{"one that crashed is started again by the keeper", []keeper.Status{unit("v1~3", keeper.Waiting)}, "v1~3", 0},
		{"after another version", []keeper.Status{unit("v0~4", keeper.Running)}, "v1~5", 1},
		{"back to the version before, whose own goes on", []keeper.Status{unit("v0~5", keeper.Running), unit("v1~4", keeper.Running)}, "v1~6", 2},
		{"the latest of several", []keeper.Status{unit("v0~5", keeper.Running), unit("v1~10", keeper.Running), unit("v1~4", keeper.Running)}, "v1~10", 2},
		{"its own is on its way out", []keeper.Status{unit("v1~4", keeper.Stopping)}, "v1~5", 1},
		{"an earlier release's", []keeper.Status{unit("v1", keeper.Running)}, "v1", 0},
		{"two of an earlier release", []keeper.Status{unit("v0", keeper.Running), unit("v1", keeper.Running)}, "v1~1", 2},
		{"a version with the mark in it", []keeper.Status{unit("v1~rc", keeper.Running)}, "v1~1", 1},
	} {
		id, others := turnOf(c.units, "house/door/", "v1")
		if id != "house/door/"+c.want || len(others) != c.others {
			t.Errorf("%s: %s beside %d, want %s beside %d", c.why, id, len(others), c.want, c.others)
		}
	}
}
