// Command stores measures tables beside dynalite on LevelDB, queues beside NATS JetStream that syncs every message,
// and caches beside the bare engine with the same settings.
//
// It runs bin/tenfold as a user would, with an app that uses tables, a queue and caches, and sends requests that were
// signed before, over connections of its own. Peers are those in PATH: dynalite (npm), nats-server (go install);
// without one its figures have no peer.
//
//	go run ./bench/stores [-only tables,large,queues,cache] [-items 10000000] [-messages 1000000]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tenfold/internal/measure"
)

// bench is one run of the program.
type bench struct {
	ctx             context.Context
	dir             string
	env             map[string]string // what a service that uses the stores is given
	report          *measure.Report
	items, messages int
	rounds          int
	each            time.Duration // how long a round loads one side
	favour          bool
}

// groups are what -only chooses from, in the order they run.
var groups = []struct {
	name string
	run  func(*bench) error
}{
	{"tables", (*bench).tables},
	{"large", (*bench).large},
	{"queues", (*bench).queues},
	{"cache", (*bench).caches},
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "task" { // the app: it is there to be given what it uses
		fmt.Fprintln(os.Stderr, http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.NotFoundHandler()))
		os.Exit(1)
	}
	b := &bench{}
	only := flag.String("only", "tables,queues,cache", "groups to run, by comma")
	flag.IntVar(&b.items, "items", 10_000_000, "how many items a large table has")
	flag.IntVar(&b.messages, "messages", 1_000_000, "how long a backlog is")
	flag.IntVar(&b.rounds, "rounds", 5, "how often each side is loaded in turn")
	flag.DurationVar(&b.each, "for", 2*time.Second, "for how long")
	flag.BoolVar(&b.favour, "favour", true, "have the scheduler prefer what is measured; false for long runs beside the work of others")
	flag.Parse()
	var stop context.CancelFunc
	b.ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	short, err := b.run(strings.Split(*only, ","))
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench stores:", err)
		os.Exit(1)
	case short > 0:
		os.Exit(3)
	}
}

func (b *bench) run(only []string) (short int, err error) {
	if b.dir, err = os.MkdirTemp("", "tfb"); err != nil {
		return 0, err
	}
	defer func() {
		if out, e := b.tenfold("down", "--house"); e != nil {
			err = errors.Join(err, fmt.Errorf("end the house: %w: %s", e, out))
		}
		err = errors.Join(err, os.RemoveAll(b.dir))
	}()
	if err := os.Chmod(b.dir, 0o755); err != nil { // servers of caches do not run as root
		return 0, err
	}
	if err := os.Mkdir(filepath.Join(b.dir, "app"), 0o755); err != nil {
		return 0, err
	}
	if err := b.up(withCaches); err != nil {
		return 0, err
	}
	out, err := b.tenfold("exec", "api", "--", "env")
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	b.env = map[string]string{}
	for line := range strings.Lines(out) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			b.env[k] = v
		}
	}
	if only[0] != "large" { // which takes its time to fill a table first
		b.prefer()
	}
	b.report = measure.NewReport(os.Stdout)
	for _, g := range groups {
		for _, name := range only {
			if g.name == name {
				if err := g.run(b); err != nil {
					return 0, fmt.Errorf("%s: %w", name, err)
				}
			}
		}
	}
	return b.report.End(), nil
}

const (
	withCaches    = true
	withoutCaches = false
)

// up deploys the app.
func (b *bench) up(caches bool) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	uses, more := "", ""
	if caches {
		uses = ", plain, safe, ha"
		more = "caches:\n  plain: {size: 64mb}\n  safe: {size: 64mb, tls: true, persist: true}\n  ha: {size: 64mb, readers: 1}\n"
	}
	text := "app: storesbench\nservices:\n  api: {path: ., runtime: go, build: false, command: exec " + self + " task, uses: [bench, large, jobs" + uses + "]}\n" +
		"tables:\n  bench: {key: id, sort: n, types: {n: number}, backups: false}\n  large: {key: id, sort: n, types: {n: number}, backups: false}\nqueues: [jobs]\n" + more
	if err := os.WriteFile(filepath.Join(b.dir, "app", "tenfold.yaml"), []byte(text), 0o644); err != nil {
		return err
	}
	args := []string{"up", "--detach"}
	if b.env == nil { // the house listens already when it is deployed again
		args = append(args, "--listen", "127.0.0.1:0")
	}
	if out, err := b.tenfold(args...); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (b *bench) tenfold(args ...string) (string, error) {
	bin, err := filepath.Abs("bin/tenfold")
	if err != nil {
		return "", err
	}
	cmd := exec.Command(bin, append([]string{"--data", filepath.Join(b.dir, "data")}, args...)...)
	cmd.Dir = filepath.Join(b.dir, "app")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// prefer has the scheduler prefer this program and the house's processes to the machine's other work.
func (b *bench) prefer() {
	if !b.favour {
		return
	}
	measure.Favour(os.Getpid())
	for _, pid := range measure.Processes(func(args []string) bool {
		return len(args) > 2 && args[1] == "house" && strings.Contains(strings.Join(args, " "), b.dir)
	}) {
		measure.Favour(pid)
	}
}

// store is the process that holds our stores.
func (b *bench) store() int {
	for _, pid := range measure.Processes(func(args []string) bool {
		return len(args) > 2 && args[1] == "house" && args[2] == "data" && strings.Contains(strings.Join(args, " "), b.dir)
	}) {
		return pid
	}
	return 0
}
