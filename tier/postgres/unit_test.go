package postgres

import (
	"testing"

	"tenfold"
)

func TestUnitsAreToldApart(t *testing.T) {
	for _, env := range []tenfold.Environment{"production", "preview/fix-cart"} {
		for _, n := range []int{1, 2, 13} {
			key := tenfold.ID{App: "shop", Env: env, Kind: tenfold.KindDatabase, Name: "db"}.String()
			if k, m, ok := parseUnit(unitOf(key, n)); !ok || k != key || m != n {
				t.Errorf("%s of %s: %s %d %v", unitOf(key, n), key, k, m, ok)
			}
		}
	}
	for _, id := range []string{"task/shop/production/api/1", unitPrefix + "shop/production/database", unitPrefix + "shop/production/database/1", unitPrefix + "shop/production/database/db/1"} {
		if _, _, ok := parseUnit(id); ok {
			t.Errorf("%s is taken for a node", id)
		}
	}
}
