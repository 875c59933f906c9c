package daemon

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/tasklog"
	"tenfold/tier/edge"
)

// current is the manifest of an environment that is to serve, or that serves; false: none is deployed.
func (h *house) current(ctx context.Context, env control.Env) (app tenfold.App, there bool, err error) {
	e, err := h.environment(ctx, env)
	if err != nil {
		return app, false, err
	}
	revision := cmp.Or(e.Goal, e.Serving)
	if revision == 0 {
		return app, false, nil
	}
	app, err = h.app(ctx, e.App, e.Env, revision)
	return app, true, err
}

// logFiles finds the files of one thing of an environment, or of all, by the name that lines are
// printed under.
func (h *house) logFiles(ctx context.Context, q control.LogQuery) (map[string]string, error) {
	app, there, err := h.current(ctx, q.Env)
	if err != nil || !there {
		return map[string]string{}, err
	}
	files := map[string]string{}
	whole, part, _ := strings.Cut(string(q.Name), "/")
	found := false
	add := func(name tenfold.Name, paths []string) {
		if whole != "" && whole != string(name) {
			return
		}
		for _, p := range paths {
			base := strings.TrimSuffix(filepath.Base(p), ".log")
			if part == "" || part == base {
				files[string(name)+"/"+base], found = p, true
			}
		}
		found = found || part == ""
	}
	for n := range app.Services {
		add(n, append(h.compute.LogPaths(app.ID(tenfold.KindService, n)), h.compute.LogPaths(app.ID(tenfold.KindBuild, n))...))
	}
	for n := range app.Functions {
		add(n, append(h.function.LogPaths(app.ID(tenfold.KindFunction, n)), h.compute.LogPaths(app.ID(tenfold.KindBuild, n))...))
	}
	for n := range app.Jobs {
		add(n, h.compute.LogPaths(app.ID(tenfold.KindJob, n)))
	}
	for n := range app.Frontends {
		add(n, append(h.frontend.LogPaths(app.ID(tenfold.KindBuild, n)), h.compute.LogPaths(app.ID(tenfold.KindService, n))...))
	}
	for n := range app.Databases {
		add(n, []string{h.postgres.LogPath(app.ID(tenfold.KindDatabase, n))})
	}
	for n := range app.Caches {
		add(n, h.cache.LogPaths(app.ID(tenfold.KindCache, n)))
	}
	for n := range app.Series {
		add(n, []string{h.series.LogPath(app.ID(tenfold.KindSeries, n))})
	}
	if !found && q.Name == "edge" { // unless something of the app is called so
		add("edge", []string{edge.LogPath(h.layout.Tier("edge"), string(app.Name), string(app.Env))})
	}
	if !found && part != "" {
		return nil, tenfold.Errorf(tenfold.CodeNotFound, "no output of %s is kept", q.Name).WithHint("what there is: tenfold logs %s, of runs of jobs: tenfold jobs", whole)
	}
	if !found {
		return nil, tenfold.Errorf(tenfold.CodeNotFound, "%s has no %s", q.App, q.Name).WithHint("list what there is: tenfold status --app %s", q.App)
	}
	return files, nil
}

// Logs implements control.API.
func (h *house) Logs(ctx context.Context, q control.LogQuery, yield func(control.LogLine) error) error {
	files, err := h.logFiles(ctx, q)
	if err != nil {
		return err
	}
	o, err := selected(q, now())
	if err != nil {
		return err
	}
	var lines []control.LogLine
	for name, path := range files {
		stored, err := tasklog.Read(path, o)
		if err != nil {
			return err
		}
		for _, l := range stored {
			lines = append(lines, logLine(name, l))
		}
	}
	slices.SortStableFunc(lines, func(a, b control.LogLine) int { return a.At.Compare(b.At) })
	for _, l := range lines {
		if err := yield(l); err != nil {
			return err
		}
	}
	if !q.Follow {
		return nil
	}
	return h.followLogs(ctx, q, files, func(l control.LogLine) error {
		if o.Match != nil && !o.Match(l.Text) {
			return nil
		}
		return yield(l)
	})
}

// longestGrep bounds a pattern, in bytes.
const longestGrep = 1000

// selected says which lines a query wants.
func selected(q control.LogQuery, now time.Time) (tasklog.Options, error) {
	o := tasklog.Options{Tail: q.Tail}
	if q.Tail <= 0 {
		o.Tail = 100
	}
	if q.Since > 0 {
		o.Since = now.Add(-q.Since)
	}
	if q.Until > 0 {
		o.Until = now.Add(-q.Until)
		if q.Follow {
			return o, tenfold.Errorf(tenfold.CodeInvalid, "logs cannot both end and go on").WithHint("leave out --until or --follow")
		}
	}
	if q.Grep == "" {
		return o, nil
	}
	if len(q.Grep) > longestGrep {
		return o, tenfold.Errorf(tenfold.CodeInvalid, "the pattern has %d bytes, and %d at most", len(q.Grep), longestGrep).WithHint("search for less of it")
	}
	r, err := regexp.Compile(q.Grep)
	if err != nil {
		return o, tenfold.Errorf(tenfold.CodeInvalid, "%q is no regular expression: %w", q.Grep, err).WithHint(`write a backslash before what stands for itself: --grep 'f\(x\)'`)
	}
	o.Match = r.MatchString
	return o, nil
}

func logLine(from string, l tasklog.Line) control.LogLine {
	out := control.LogLine{At: l.At, From: from, Text: l.Text}
	if l.Stderr {
		out.Stream = "stderr"
	}
	return out
}

// followLogs follows each file, and those of tasks that come, until ctx ends.
func (h *house) followLogs(ctx context.Context, q control.LogQuery, files map[string]string, yield func(control.LogLine) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	var mu sync.Mutex
	following := map[string]bool{}
	start := func(name, path string) {
		following[path] = true
		wg.Go(func() {
			err := tasklog.Follow(ctx, path, func(l tasklog.Line) error {
				mu.Lock()
				defer mu.Unlock()
				return yield(logLine(name, l))
			})
			if err != nil {
				cancel(err)
			}
		})
	}
	for name, path := range files {
		start(name, path)
	}
	for {
		select {
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		case <-time.After(time.Second):
		}
		files, err := h.logFiles(ctx, q)
		if err != nil {
			continue
		}
		for name, path := range files {
			if !following[path] {
				start(name, path)
			}
		}
	}
}

// Runs implements control.API.
func (h *house) Runs(ctx context.Context, env control.Env, job tenfold.Name) ([]control.JobRun, error) {
	app, _, err := h.current(ctx, env)
	if err != nil {
		return nil, err
	}
	if _, known := app.Jobs[job]; job != "" && !known {
		return nil, tenfold.Errorf(tenfold.CodeNotFound, "%s has no job %s", env.App, job).WithHint("list what there is: tenfold jobs --app %s", env.App)
	}
	out := []control.JobRun{}
	for _, n := range slices.Sorted(maps.Keys(app.Jobs)) {
		if job != "" && job != n {
			continue
		}
		for _, r := range h.compute.Runs(app.ID(tenfold.KindJob, n)) {
			_, err := os.Stat(r.Log)
			out = append(out, control.JobRun{Job: n, N: r.N, Trigger: r.Trigger, Attempt: r.Attempt, Due: r.Tick, Began: r.Began, Ended: r.Ended, Exit: r.Exit, Error: r.Error, Log: err == nil})
		}
	}
	slices.SortStableFunc(out, func(a, b control.JobRun) int { return b.Began.Compare(a.Began) })
	return out, nil
}
