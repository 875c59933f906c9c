package postgres

import (
	"testing"

	"tenfold"
	"tenfold/internal/keeper"
)

// A look that was begun before a switch ends after it: what it saw of the old primary does not hide the new one from
// the pool, which would hold its clients for one look more.
func TestALookAtAnOlderPrimaryHidesNoNewerOne(t *testing.T) {
	p, err := New(Config{Dir: t.TempDir(), Emit: func(tenfold.Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	key := id.String()
	old := record{ID: id, Serving: "x", cluster: cluster{Nodes: []node{{N: 1, Port: 5001}}, Primary: 1, Epoch: 1}}
	put := func(r record) {
		if err := p.records.Update(key, func(x *record) { *x = r }); err != nil {
			t.Fatal(err)
		}
	}
	put(old)
	answers := view{Nodes: map[int]sight{1: {Unit: keeper.Running, Answers: true}}}
	p.took(key, old, &answers)
	if d := p.Pool()[0]; d.Primary != "127.0.0.1:5001" {
		t.Fatalf("%+v", d)
	}
	now := old
	now.cluster = cluster{Nodes: []node{{N: 2, Port: 5002}}, Primary: 2, Epoch: 2}
	put(now)
	p.vouch(key, 2)
	late := view{Nodes: map[int]sight{1: {Unit: keeper.Running, Answers: true}}}
	p.took(key, old, &late)
	if d := p.Pool()[0]; d.Primary != "127.0.0.1:5002" || d.Epoch != 2 {
		t.Errorf("after a late look the pool is led to %q, epoch %d", d.Primary, d.Epoch)
	}
	// The next look counts again.
	dead := view{Nodes: map[int]sight{2: {Unit: keeper.Exited}}}
	p.took(key, now, &dead)
	if d := p.Pool()[0]; d.Primary != "" {
		t.Errorf("a dead primary is led to: %q", d.Primary)
	}
}
