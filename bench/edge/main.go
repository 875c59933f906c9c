// Command edge measures the front door against nginx and HAProxy: stored hits, proxying, TLS, and the
// drills of what must not go wrong (misses at once, restarts of tasks, switches of releases).
//
// It runs bin/tenfold as a user would, with an app whose tasks are this very program (app.go), and the
// peers beside it on the same tasks. Everything a figure compares is taken in the same rounds, in turn:
// the server alone on processor 0, the load and the tasks on processor 1, one thread of work each, all
// of them logging. Where a server left its processor idle for a tenth of the time or more, the load was
// the limit and the throughput says nothing: then CPU time per request decides, and the line says so.
//
//	go run ./bench/edge [-rounds 6] [-for 3s] [-only hits,proxy,tls,coalesce,restart,switch]
//
// As root it also asks the scheduler to favour what it measures over what else the machine does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tenfold/internal/measure"
)

// bench is one run of the program.
type bench struct {
	ctx    context.Context
	out    io.Writer
	dir    string // of this run; removed at the end
	rounds int
	each   time.Duration // how long one load runs
	kills  int
	files  int // how many this program, and each server, may hold open
	report *measure.Report
	house  *house
	nginx  *peer // nil when it is not installed
	proxy  *peer // HAProxy; nil when it is not installed
}

// groups are what -only chooses from, in the order they run.
var groups = []struct {
	name string
	run  func(*bench) error
}{
	{"hits", (*bench).hits},
	{"proxy", (*bench).proxying},
	{"tls", (*bench).tls},
	{"coalesce", (*bench).coalesce},
	{"restart", (*bench).restart},
	{"switch", (*bench).switches},
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "task" {
		if err := task(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench edge:", err)
			os.Exit(1)
		}
		return
	}
	b := &bench{out: os.Stdout}
	bin := flag.String("bin", "bin/tenfold", "the program to measure")
	only := flag.String("only", "", "groups to run, comma-separated: hits,proxy,tls,coalesce,restart,switch (default all)")
	flag.IntVar(&b.rounds, "rounds", 6, "how often each comparison is taken, in turn")
	flag.DurationVar(&b.each, "for", 3*time.Second, "how long each load runs")
	flag.IntVar(&b.kills, "kills", 100, "how many deploys of the switch drill are cut off by a kill -9 of the daemon")
	flag.Parse()
	var stop context.CancelFunc
	b.ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	short, err := b.run(*bin, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench edge:", err)
		os.Exit(1)
	}
	if short > 0 {
		os.Exit(3)
	}
}

func (b *bench) run(bin, only string) (short int, err error) {
	chosen := map[string]bool{}
	for name := range strings.SplitSeq(only, ",") {
		chosen[name] = name != ""
	}
	for _, g := range groups {
		if only == "" {
			chosen[g.name] = true
		}
		delete(chosen, "")
	}
	if err := tools("wrk", "h2load", "taskset"); err != nil {
		return 0, err
	}
	limit, err := openFiles()
	if err != nil {
		return 0, err
	}
	b.files = limit
	if b.dir, err = os.MkdirTemp("", "tfe"); err != nil {
		return 0, err
	}
	if err := os.Chmod(b.dir, 0o711); err != nil { // tasks are another user's when root runs this
		return 0, err
	}
	if b.house, err = openHouse(b.dir, bin); err != nil {
		return 0, err
	}
	defer func() {
		// The house's folder stays while the house does: it holds the way to stop it.
		if stop := b.house.close(); stop != nil {
			err = errors.Join(err, stop)
		} else {
			err = errors.Join(err, os.RemoveAll(b.dir))
		}
	}()
	defer func() { err = errors.Join(err, b.nginx.close(), b.proxy.close()) }()
	if err := b.openPeers(); err != nil {
		return 0, err
	}
	measure.Favour(os.Getpid())
	b.report = measure.NewReport(b.out)
	for _, g := range groups {
		if !chosen[g.name] {
			continue
		}
		delete(chosen, g.name)
		if err := g.run(b); err != nil {
			return 0, fmt.Errorf("%s: %w", g.name, err)
		}
	}
	for name := range chosen {
		return 0, fmt.Errorf("there is no group %q", name)
	}
	return b.report.End(), nil
}

// note prints a line in place of a figure that cannot be taken.
func (b *bench) note(name, why string) { fmt.Fprintf(b.out, "%-44s  %s\n", name, why) }

func executable() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(self)
}
