// Command database measures the pooling proxy beside PgBouncer: processor time for each transaction of
// the proxy and of PostgreSQL behind it, transactions a second, and the memory of idle clients.
//
// Both pool 20 connections to one PostgreSQL, log clients in by SCRAM-SHA-256 and are loaded by pgbench
// in turns, whose order changes from round to round.
package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"tenfold/internal/measure"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "serve:", err)
			os.Exit(1)
		}
		return
	}
	var b bench
	flag.IntVar(&b.rounds, "rounds", 6, "of each figure")
	flag.IntVar(&b.seconds, "seconds", 6, "of load in each turn")
	flag.StringVar(&b.bouncer, "pgbouncer", "pgbouncer", "the peer's `program`; below a root, its path there")
	flag.StringVar(&b.root, "root", "", "a `folder` with another system's root that has the peer, such as a debootstrap of Debian 13")
	flag.BoolVar(&b.tcp, "tcp", false, "the peer asks the server over loopback, as its example's configuration does; ours uses a Unix socket in any case")
	flag.StringVar(&b.only, "only", "", "figures whose name contains this")
	flag.IntVar(&b.idle, "idle", 10000, "clients held at rest")
	flag.Parse()
	short, err := b.run(os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench database:", err)
		os.Exit(1)
	}
	if short > 0 {
		os.Exit(3)
	}
}

type bench struct {
	rounds, seconds, idle int
	bouncer, root, only   string

	dir    string
	tcp    bool   // the peer comes over loopback
	inRoot string // where PostgreSQL has a socket for a peer in another root; "": it has one in dir alone
	server *postgres
	// proxies are we and the peer, in this order; the peer may be missing.
	proxies []*proxy
}

// A load is how pgbench is run, and what was asked of its figures.
type load struct {
	name     string
	args     []string
	cpu, tps measure.Bound
}

var loads = []load{
	{"simple", []string{"-S", "-c", "64", "-j", "2", "-M", "simple"}, measure.AtMost(1.1), measure.AtLeast(1)},
	{"prepared", []string{"-S", "-c", "64", "-j", "2", "-M", "prepared"}, measure.AtMost(0.8), measure.AtLeast(1.3)},
	{"extended", []string{"-S", "-c", "64", "-j", "2", "-M", "extended"}, measure.AtMost(1.1), measure.AtLeast(1)},
	// A count for each client, not a time: logging in takes them longer than a turn.
	{"1000 clients", []string{"-S", "-c", "1000", "-j", "2", "-M", "simple", "-t", "40"}, measure.AtMost(1.1), measure.AtLeast(1)},
	{"a connection each", []string{"-S", "-c", "16", "-j", "2", "-M", "simple", "-C"}, measure.AtMost(1.2), measure.AtLeast(0.9)},
	// Not prepared: pgbench waits for each PREPARE, and its other clients with it, in their transactions.
	{"TPC-B", []string{"-c", "64", "-j", "2", "-M", "simple"}, measure.AtMost(1), measure.AtLeast(0.9)},
}

// bounded are the arguments with a time in seconds, unless they have a bound.
func (l load) bounded(seconds int) []string {
	if slices.Contains(l.args, "-t") {
		return l.args
	}
	return append(slices.Clone(l.args), "-T", fmt.Sprint(seconds))
}

func (b *bench) run(out io.Writer) (short int, err error) {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if b.dir, err = os.MkdirTemp("", "tfdb"); err != nil {
		return 0, err
	}
	os.Chmod(b.dir, 0o755)
	defer os.RemoveAll(b.dir)
	var sockets []string
	if b.root != "" {
		if b.inRoot, err = os.MkdirTemp(filepath.Join(b.root, "tmp"), "pg"); err != nil {
			return 0, err
		}
		os.Chmod(b.inRoot, 0o777)
		defer os.RemoveAll(b.inRoot)
		sockets = append(sockets, b.inRoot)
	}
	if b.server, err = startPostgres(b.dir, sockets...); err != nil {
		return 0, err
	}
	defer b.server.stop()
	if err := b.start(); err != nil {
		return 0, err
	}
	defer b.stop()
	go func() { // ends with the program
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
		<-stop
		b.stop()
		b.server.stop()
		os.RemoveAll(b.dir)
		os.Exit(1)
	}()
	report := measure.NewReport(out)
	for _, l := range loads {
		if strings.Contains(l.name, b.only) {
			if err := b.measure(report, l); err != nil {
				return 0, fmt.Errorf("%s: %w", l.name, err)
			}
		}
	}
	if strings.Contains("query cache: hit", b.only) {
		if err := b.queryCache(report); err != nil {
			return 0, fmt.Errorf("query cache: %w", err)
		}
	}
	if strings.Contains("idle", b.only) {
		if err := b.idleClients(report); err != nil {
			return 0, fmt.Errorf("idle clients: %w", err)
		}
	}
	for _, p := range b.proxies {
		fmt.Fprintln(out, p.version)
	}
	fmt.Fprintln(out, b.server.version)
	return report.End(), nil
}

// measure takes rounds of one load, each through every proxy and, as a control, directly.
func (b *bench) measure(report *measure.Report, l load) error {
	n := len(b.proxies)
	cpu, tps, server := make([][]float64, n), make([][]float64, n), make([][]float64, n)
	var direct []float64
	for _, p := range b.proxies { // statements, caches, connections
		if _, err := b.pgbench(p.port, l.bounded(1)); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	for round := range b.rounds {
		for i := range n {
			at := (i + round) % n
			p := b.proxies[at]
			before, beforeServer, err := b.times(p)
			if err != nil {
				return err
			}
			got, err := b.pgbench(p.port, l.bounded(b.seconds))
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			after, afterServer, err := b.times(p)
			if err != nil {
				return err
			}
			cpu[at] = append(cpu[at], (after-before)/got.transactions*1e6)
			server[at] = append(server[at], (afterServer-beforeServer)/got.transactions*1e6)
			tps[at] = append(tps[at], got.tps)
		}
		if round == 0 && l.name != "1000 clients" {
			got, err := b.pgbench(b.server.port, l.bounded(b.seconds))
			if err != nil {
				return fmt.Errorf("direct: %w", err)
			}
			direct = append(direct, got.tps)
		}
	}
	add := func(what, unit string, of [][]float64, asked measure.Bound) {
		f := measure.Figure{Name: l.name + ": " + what, Unit: unit, Ours: of[0], Asked: asked}
		if n > 1 {
			f.Peer = of[1]
		}
		report.Add(f)
	}
	add("processor time of the proxy", "µs/tx", cpu, l.cpu)
	add("transactions", "tx/s", tps, l.tps)
	add("processor time of PostgreSQL (control)", "µs/tx", server, measure.AtMost(1.15))
	if len(direct) > 0 {
		report.Add(measure.Figure{Name: l.name + ": transactions directly (control)", Unit: "tx/s", Ours: direct, Asked: measure.AtLeast(0)})
	}
	return nil
}

// queryCache loads our proxy with one query that costs the server something, plain and with the comment that
// has its answer kept, in turns.
func (b *bench) queryCache(report *measure.Report) error {
	const query = "select count(*), sum(abalance) from pgbench_accounts where aid between 1 and 2000;\n"
	var scripts [2]string
	for i, text := range []string{"/* tenfold:cache=1m */ " + query, query} {
		scripts[i] = filepath.Join(b.dir, fmt.Sprintf("query%d.sql", i))
		if err := os.WriteFile(scripts[i], []byte(text), 0o644); err != nil {
			return err
		}
	}
	tps := make([][]float64, 2)
	for round := range b.rounds + 1 {
		for i := range scripts {
			at := (i + round) % 2
			// Simple: where it prepares, pgbench takes ":cache" for a variable.
			got, err := b.pgbench(b.proxies[0].port, []string{"-f", scripts[at], "-c", "16", "-j", "2", "-M", "simple", "-T", fmt.Sprint(b.seconds)})
			if err != nil {
				return err
			}
			if round > 0 { // the first fills the cache
				tps[at] = append(tps[at], got.tps)
			}
		}
	}
	report.Add(measure.Figure{Name: "query cache: hit, beside the same query uncached", Unit: "tx/s", Ours: tps[0], Peer: tps[1], Asked: measure.AtLeast(5)})
	return nil
}

// idleClients holds clients at rest and reads what they cost.
func (b *bench) idleClients(report *measure.Report) error {
	per := make([][]float64, len(b.proxies))
	for i, p := range b.proxies {
		before, err := measure.PSS(p.pid)
		if err != nil {
			return err
		}
		conns, err := logIn(p.port, b.idle)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		time.Sleep(5 * time.Second) // collectors of garbage had their turn
		after, err := measure.PSS(p.pid)
		for _, c := range conns {
			c.Close()
		}
		if err != nil {
			return err
		}
		per[i] = []float64{float64(after-before) / float64(b.idle) / 1024}
	}
	f := measure.Figure{Name: fmt.Sprintf("memory of an idle client, of %d", b.idle), Unit: "KB", Ours: per[0], Asked: measure.AtMost(8)}
	report.Add(f)
	if len(per) > 1 {
		f.Peer, f.Asked = per[1], measure.AtMost(4)
		f.Name = "the same, beside the peer"
		report.Add(f)
	}
	return nil
}
