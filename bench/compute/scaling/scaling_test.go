package scaling

import (
	"math"
	"testing"
)

func scenario(t *testing.T, name string, boot float64) Scenario {
	t.Helper()
	for _, s := range Scenarios() {
		if s.Name == name && s.Boot == boot {
			return s
		}
	}
	t.Fatalf("no scenario %s at %g s", name, boot)
	return Scenario{}
}

// What is asked of the law beside the best peer of each scenario.
func TestLawBesidePeers(t *testing.T) {
	if raced {
		t.Skip("make unit runs it without the race detector")
	}
	for _, s := range Scenarios() {
		seeds := 5
		if s.Seconds > 10_000 {
			seeds = 1
		}
		rows := s.Compare(seeds)
		law, best := rows[len(rows)-1], Best(rows)
		t.Logf("%-13s boot %4.1f  law %6.0f bad (%.3f%%) ×%.2f %3.0f/h  best %s %6.0f bad (%.3f%%) ×%.2f %3.0f/h", s.Name, s.Boot,
			law.Bad, 100*law.BadShare(), law.OfIdeal, law.ActionsPerHour, best.Name, best.Bad, 100*best.BadShare(), best.OfIdeal, best.ActionsPerHour)
		if law.Bad > 1.05*best.Bad+0.0005*law.Requests {
			t.Errorf("%s, boot %g s: %.0f bad, %s has %.0f", s.Name, s.Boot, law.Bad, best.Name, best.Bad)
		}
		// A peer that fails a quarter of the requests is no measure of what serving them takes.
		if law.Cost > 1.10*best.Cost && best.BadShare() < 0.25 {
			t.Errorf("%s, boot %g s: %.0f task-seconds, %s takes %.0f", s.Name, s.Boot, law.Cost, best.Name, best.Cost)
		}
		switch s.Name {
		case "steady":
			if kpa := rows[4]; law.ActionsPerHour > kpa.ActionsPerHour/10 {
				t.Errorf("steady, boot %g s: %.1f actions an hour, KPA %.1f", s.Boot, law.ActionsPerHour, kpa.ActionsPerHour)
			}
		case "spikes", "spikes 1 min":
			if s.Boot <= 3 && (law.BadShare() > 0.0025 || law.OfIdeal > 3) {
				t.Errorf("%s, boot %g s: %.3f%% bad at %.2f of the ideal task-seconds", s.Name, s.Boot, 100*law.BadShare(), law.OfIdeal)
			}
		}
	}
}

// The models give what others measured or what earlier models gave (docs/scaling.md), within a tenth.
func TestModelsAreThePeers(t *testing.T) {
	if raced {
		t.Skip("make unit runs it without the race detector")
	}
	near := func(what string, got, want, by float64) {
		t.Helper()
		if math.Abs(got-want) > by*want {
			t.Errorf("%s: %.4g, anchor %.4g", what, got, want)
		}
	}
	step, ramp, steady := scenario(t, "step", 3).Compare(5), scenario(t, "ramp", 3).Compare(2), scenario(t, "steady", 3).Compare(1)
	inStep := 300_000.0 // requests of the ten minutes
	for i, want := range []struct{ recover, bad, ramp float64 }{{565, 0.87, 208_390}, {406, 0.63, 138_130}, {265, 0.41, 78_695}, {111, 0.17, 0}, {6, 0.0094, 0}} {
		near(Names[i]+" recovers", step[i].Recover, want.recover, 0.10)
		near(Names[i]+" bad", step[i].Bad/inStep, want.bad, 0.13)
		if want.ramp > 0 {
			near(Names[i]+" bad in the ramp", ramp[i].Bad, want.ramp, 0.10)
		}
	}
	near("KPA actions an hour", steady[4].ActionsPerHour, 136, 0.10)
}

// A run is the same each time, and every request is counted once.
func TestRunsRepeat(t *testing.T) {
	run := func() Result {
		w := Usual(3, 1)
		return Run(w, step, 400, 300, 400, &Law{Boot: 3})
	}
	a, b := run(), run()
	if a != b {
		t.Errorf("two runs differ: %+v, %+v", a, b)
	}
	if a.Bad == 0 || a.Bad > a.Requests/10 || a.Recover > 10 {
		t.Errorf("the step went wrong: %+v", a)
	}
}
