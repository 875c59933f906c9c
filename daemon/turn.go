package daemon

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"tenfold/internal/keeper"
)

// Processes of the house that hand over to the next while they still have work: doors with open connections, pools
// with open transactions. Each start is a unit of its own, "<prefix><version>~<turn>", and the one of the latest turn
// serves. A version alone would not do: who goes back to the version before finds its process on its way out.

// turn finds the unit of a version that has its turn, or the id that the next one is to have. Others are all that
// are there besides.
func turn(ctx context.Context, k *keeper.Client, prefix, version string) (id string, others []keeper.Status, err error) {
	units, err := k.List(ctx, prefix)
	if err != nil {
		return "", nil, err
	}
	id, others = turnOf(units, prefix, version)
	return id, others, nil
}

// turnOf is turn among units, which it takes.
func turnOf(units []keeper.Status, prefix, version string) (id string, others []keeper.Status) {
	last, holder, several := -1, -1, false
	for i, u := range units {
		switch _, n := versionOf(strings.TrimPrefix(u.Unit.ID, prefix)); {
		case n > last:
			last, holder, several = n, i, false
		case n == last:
			several = true // earlier releases gave out no turns: nobody knows which was the latest
		}
	}
	if holder >= 0 && !several {
		u := units[holder]
		if v, _ := versionOf(strings.TrimPrefix(u.Unit.ID, prefix)); v == version && (u.Phase == keeper.Running || u.Phase == keeper.Waiting) {
			return u.Unit.ID, slices.Delete(units, holder, holder+1)
		}
	}
	return prefix + version + "~" + strconv.Itoa(last+1), units
}

// versionOf takes the name of a unit apart; 0 is the turn of one that has none.
func versionOf(name string) (version string, turn int) {
	if i := strings.LastIndexByte(name, '~'); i >= 0 {
		if n, err := strconv.Atoi(name[i+1:]); err == nil && n >= 0 {
			return name[:i], n
		}
	}
	return name, 0
}
