package postgres

import (
	"context"
	"time"

	"tenfold/internal/keeper"
)

// What a server may take of the machine follows its capacity, where the manifest gives it one.
//
// Memory and cores are bounded by the most that the manifest allows; what it has of them while others want them too
// follows the capacity of the moment: its weight, and the memory beyond which the kernel takes back first. A hard
// bound at the capacity of the moment lost: memory that was touched is not given back when it goes down, so the
// kernel would kill a server for a change of ours; and a server that is held at its capacity never shows that it
// needs more.

// settledFor is how long a server runs before its cores are bounded: to start, to recover and to answer the client that
// woke it should take no longer for that.
const settledFor = 5 * time.Second

// confinement is what a server's process was limited to.
type confinement struct {
	pid    int
	limits keeper.Limits
}

// limitsOf are those of each server of a database; zero without a capacity.
func limitsOf(r record) keeper.Limits {
	c := r.Spec.Capacity
	if c.Max == 0 {
		return keeper.Limits{}
	}
	most, _ := clamped(c.Max)
	now := max(r.ACU, c.Min, acuStep)
	return keeper.Limits{
		Memory: int64(max(most, acuStep) * acuMemory), High: int64(now * acuMemory),
		CPU: max(most, acuStep) * acuCores, Weight: now,
	}
}

// confine has a running server's limits follow its capacity. What cannot be enforced is said once.
func (p *Postgres) confine(ctx context.Context, key string, r record, n, pid int, started time.Time) {
	if pid == 0 || time.Since(started) < settledFor {
		return
	}
	at, want := place{key, n}, confinement{pid, limitsOf(r)}
	p.mu.Lock()
	have, known := p.confined[at]
	p.confined[at] = want
	p.mu.Unlock()
	if known && have == want || !known && want.limits == (keeper.Limits{}) {
		return
	}
	unenforced, err := p.cfg.Units.Limit(ctx, unitOf(key, n), want.limits)
	if err != nil { // a keeper from before there were limits, or the server has ended
		unenforced = err.Error()
	}
	if want.limits == (keeper.Limits{}) || ctx.Err() != nil {
		return
	}
	text := ""
	if unenforced != "" {
		text = "its capacity bounds what PostgreSQL plans with, not what it takes: " + unenforced
	}
	p.mu.Lock()
	p.unheld[key] = text
	p.mu.Unlock()
	p.say(key+"#limits", r.ID, text)
}

// held is what status says of limits that do not hold.
func (p *Postgres) held(key string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unheld[key] == "" {
		return ""
	}
	return ", limits of its capacity not enforced here"
}

// clampedNote warns once of a capacity beyond the machine.
func (p *Postgres) clampedNote(key string, r record) {
	if _, warning := clamped(r.Spec.Capacity.Max); r.Spec.Capacity.Max > 0 {
		p.say(key+"#capacity", r.ID, warning)
	}
}
