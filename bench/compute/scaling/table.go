package scaling

import (
	"math"
	"sync"
)

// Names are the controllers in the order in which they are shown; the last is ours.
var Names = []string{"ECS CPU 60 s", "ECS CPU 20 s", "ECS requests 60 s", "HPA CPU 70", "KPA", "law"}

// Row is how a controller did in a scenario, the mean of all seeds.
type Row struct {
	Name           string
	Requests, Bad  float64
	Cost           float64 // task-seconds
	OfIdeal        float64 // Cost to the ideal
	Recover        float64 // seconds
	ActionsPerHour float64
}

// BadShare is the part of requests that were bad.
func (r Row) BadShare() float64 { return r.Bad / max(r.Requests, 1) }

// Compare runs all controllers in a scenario, as many seeds as said, and gives their rows in the order of
// Names.
func (s Scenario) Compare(seeds int) []Row {
	rows := make([]Row, len(Names))
	var wg sync.WaitGroup
	for i, name := range Names {
		wg.Go(func() { rows[i] = s.row(name, seeds) })
	}
	wg.Wait()
	return rows
}

func (s Scenario) row(name string, seeds int) Row {
	row := Row{Name: name}
	ideal := 0.0
	for seed := range seeds {
		c, ok := Peers(uint64(seed))[name]
		if !ok {
			c = &Law{Boot: s.Boot}
		}
		w := Usual(s.Boot, uint64(seed))
		w.First = s.First
		r := Run(w, s.Load, s.Seconds, s.From, s.Until, c)
		row.Requests += float64(r.Requests)
		row.Bad += float64(r.Bad)
		row.Cost += r.TaskSeconds
		row.Recover += r.Recover
		row.ActionsPerHour += float64(r.Actions) * 3600 / r.Seconds
		ideal += r.Ideal
	}
	n := float64(seeds)
	row.OfIdeal = row.Cost / ideal
	row.Requests, row.Bad, row.Cost, row.Recover, row.ActionsPerHour = row.Requests/n, row.Bad/n, row.Cost/n, row.Recover/n, row.ActionsPerHour/n
	return row
}

// Best is the peer with the fewest bad requests; of equal ones the cheaper.
func Best(rows []Row) Row {
	best := Row{Bad: math.Inf(1)}
	for _, r := range rows[:len(rows)-1] {
		if r.Bad < best.Bad || r.Bad == best.Bad && r.Cost < best.Cost {
			best = r
		}
	}
	return best
}
