package main

import (
	"fmt"
	"os"

	"tenfold/bench/compute/scaling"
	"tenfold/internal/measure"
)

// autoscale runs every scenario in virtual time, us and the models of the peers, and compares us with the
// best peer of each: the one that failed fewest requests.
func (b *bench) autoscale() error {
	for _, s := range scaling.Scenarios() {
		if b.ctx.Err() != nil {
			return b.ctx.Err()
		}
		name := fmt.Sprintf("%s, boot %g s", s.Name, s.Boot)
		rows := s.Compare(3)
		for _, r := range rows {
			fmt.Fprintf(os.Stdout, "%-24s %-18s bad %8.0f (%.3f %%)  task-seconds ×%.2f of ideal  recovers %5.1f s  %4.0f actions/h\n", name, r.Name, r.Bad, 100*r.BadShare(), r.OfIdeal, r.Recover, r.ActionsPerHour)
		}
		law, best := rows[len(rows)-1], scaling.Best(rows)
		b.report.Add(measure.Figure{Name: name + ", bad requests", Unit: "req", Ours: []float64{law.Bad}, Asked: measure.AtMost(1.05*best.Bad + 0.0005*law.Requests)})
		if best.BadShare() < 0.25 { // a peer that fails a quarter of the requests is no measure of what serving them takes
			b.report.Add(measure.Figure{Name: name + ", task-seconds, beside " + best.Name, Unit: "s", Ours: []float64{law.Cost}, Peer: []float64{best.Cost}, Asked: measure.AtMost(1.10)})
		}
	}
	return nil
}
