// Command compute measures what becomes of deploys (releases that are broken in every way under every
// strategy, and canaries that are not broken at all), of upgrades of the house, of services that sleep, that a load
// falls on and whose neighbours are noisy, and functions, beside AWS' own emulator.
//
// It runs bin/tenfold as a user would, with apps whose tasks are this very program (task.go), under
// traffic of its own that counts what each version answered.
//
//	go run ./bench/compute [-only broken,equal,functions,wakes,step,deploys,upgrades,neighbours] [-canaries 100] [-wakes 1000] [-deploys 100] [-upgrades 100]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"tenfold/internal/measure"
)

// bench is one run of the program.
type bench struct {
	ctx                                    context.Context
	self                                   string // this program, which is the tasks too
	house                                  *house
	report                                 *measure.Report
	canaries, wake, deployments, handOvers int
}

// groups are what -only chooses from, in the order they run.
var groups = []struct {
	name string
	run  func(*bench) error
}{
	{"broken", (*bench).broken},
	{"equal", (*bench).equal},
	{"functions", (*bench).functions},
	{"wakes", (*bench).wakes},
	{"step", (*bench).step},
	{"deploys", (*bench).deploys},
	{"upgrades", (*bench).upgrades},
	{"autoscale", (*bench).autoscale},
	{"neighbours", (*bench).neighbours},
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "task" {
		task(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "lambda" {
		handle()
		return
	}
	only := flag.String("only", "", "groups to run, by comma; all if empty")
	canaries := flag.Int("canaries", 100, "how many equal canaries")
	wakes := flag.Int("wakes", 1000, "how many cold wakes")
	deploys := flag.Int("deploys", 100, "how many deploys under traffic")
	upgrades := flag.Int("upgrades", 100, "how many upgrades of the house under traffic")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	short, err := run(ctx, *only, bench{canaries: *canaries, wake: *wakes, deployments: *deploys, handOvers: *upgrades})
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench compute:", err)
		os.Exit(1)
	case short > 0:
		os.Exit(3)
	}
}

func run(ctx context.Context, only string, b bench) (short int, err error) {
	chosen := strings.Split(only, ",")
	for _, name := range chosen {
		known := name == ""
		for _, g := range groups {
			known = known || g.name == name
		}
		if !known {
			return 0, fmt.Errorf("no group %q", name)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	measure.Favour(os.Getpid())
	h, err := newHouse()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	b.ctx, b.self, b.house, b.report = ctx, self, h, measure.NewReport(os.Stdout)
	for _, g := range groups {
		if only != "" && !strings.Contains(","+only+",", ","+g.name+",") {
			continue
		}
		if err := g.run(&b); err != nil {
			return 0, fmt.Errorf("%s: %w", g.name, err)
		}
	}
	return b.report.End(), nil
}

// count adds a figure that is one number.
func (b *bench) count(name, unit string, value, most float64) {
	b.report.Add(figure(name, unit, []float64{value}, most))
}

func figure(name, unit string, ours []float64, most float64) measure.Figure {
	return measure.Figure{Name: name, Unit: unit, Ours: ours, Asked: measure.AtMost(most)}
}
