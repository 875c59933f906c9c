package compute

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tenfold"
	"tenfold/internal/container"
	"tenfold/internal/keeper"
	"tenfold/internal/lazy"
)

// lookPace is how often a task that does not answer is asked which ports it listens on, and
// wrongAfter how long it may take to open its own.
const (
	lookPace   = 500 * time.Millisecond
	wrongAfter = 2500 * time.Millisecond
)

// index is a task's place among those of its version, from 1: people count so.
func (s *service) index(r record, n int) int {
	i := 0
	for _, t := range r.Tasks {
		if t.N == n {
			return i + 1
		}
		if j := slices.IndexFunc(r.Tasks, func(o task) bool { return o.N == n }); j >= 0 && r.Tasks[j].Version == t.Version && (t.Phase == starting || t.Phase == serving) {
			i++
		}
	}
	return max(i, 1)
}

func (s *service) find(r record, n int) (task, bool) {
	i := slices.IndexFunc(r.Tasks, func(t task) bool { return t.N == n })
	if i < 0 {
		return task{}, false
	}
	return r.Tasks[i], true
}

func (s *service) probed(n int) (answer string, tries int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.probes[n]; h != nil {
		return h.answer, h.tries
	}
	return "", 0
}

func (s *service) sayUp(n int) {
	r := s.snapshot()
	t, ok := s.find(r, n)
	v, known := versionOf(r, t)
	if !ok || !known {
		return
	}
	answer, _ := s.probed(n)
	emit := s.emit
	if !s.followed {
		emit = s.emitSoon // requests may wait for the task
	}
	since := t.Since
	if u, ok := s.listed[n]; ok {
		since = u.Started
	}
	emit(tenfold.SeverityInfo, time.Since(since), fmt.Sprintf("task %d of %d healthy: %s", s.index(r, n), max(r.count(v.Spec), s.index(r, n)), answer))
}

func (s *service) sayDown(ctx context.Context, n int) {
	r := s.snapshot()
	t, _ := s.find(r, n)
	how := "stopped answering"
	if u, ok := s.status(ctx, s.unitID(n)); ok && u.LastExit != nil {
		how = exitText(u)
	}
	e := tenfold.Event{
		At: time.Now(), ID: s.id, Severity: tenfold.SeverityWarning,
		Text:   fmt.Sprintf("task %d %s while serving; started again", s.index(r, n), how),
		Detail: outputDetail(lastOutput(s.logPath(n), 5, time.Time{})),
	}
	if t.Restarts > 3 {
		if time.Since(s.told) < time.Minute {
			return // a crash loop is told once a minute
		}
		s.told = time.Now()
		e.Text = fmt.Sprintf("task %d %s, restarted %d times; again in %s", s.index(r, n), how, t.Restarts, time.Until(t.Again).Round(100*time.Millisecond))
		e.Hint = fmt.Sprintf("see what it says: tenfold logs %s", s.id.Name)
	}
	s.c.cfg.Emit(e)
}

func (s *service) switched() {
	r := s.snapshot()
	if r.Deployments > 1 {
		s.emit(tenfold.SeverityInfo, 0, fmt.Sprintf("version %s serves: %s", short(r.Serving.Version), plural(r.count(r.Serving.Spec), "task")))
	}
	s.wg.Go(func() {
		var others map[string]bool
		if s.c.cfg.KeepBuilds != nil {
			others = s.c.cfg.KeepBuilds()
		}
		if err := s.c.PruneBuilds(others); err != nil {
			s.emit(tenfold.SeverityWarning, 0, err.Error())
		}
	})
}

func short(s string) string { return s[:min(6, len(s))] }

func (s *service) migrate(ctx context.Context) {
	r := s.snapshot()
	d := r.Deploy
	if d == nil {
		return
	}
	s.emit(tenfold.SeverityProgress, 0, "migrating: "+d.To.Spec.Migrate.String())
	b, err := s.c.cfg.Builder.Find(d.To.Spec.Build)
	if err != nil {
		s.fail(ctx, "migrate: its build is gone", "build it again: tenfold deploy")
		return
	}
	env, err := s.c.environment(ctx, s.id, d.To, nil, b)
	if err != nil {
		if code := tenfold.CodeOf(err); code == tenfold.CodeInvalid || code == tenfold.CodeNotFound {
			s.fail(ctx, "migrate: "+err.Error(), tenfold.HintOf(err))
		}
		return // tried again until the deadline
	}
	u, err := s.c.confine(ctx, keeper.Unit{
		ID: s.migrateID(*d), Argv: d.To.Spec.Migrate.Argv(), Env: env, Dir: b.Dir, Log: s.migrateLog(*d), StopGrace: 30 * time.Second, StopTree: true,
	}, s.id, d.To.Spec, b)
	if err == nil {
		_, err = s.c.cfg.Units.Start(ctx, u)
	}
	if err != nil && ctx.Err() == nil {
		s.fail(ctx, "migrate: "+err.Error(), tenfold.HintOf(err))
	}
}

// migration sees how the migration of the deployment on its way stands; nil: it has not begun. One of
// an earlier deployment that was superseded is let finish first, since a migration cut short helps
// nobody; only when the service is to stop it is ended.
func (s *service) migration(ctx context.Context, r record) (*unitSeen, error) {
	if r.Deploy == nil && s.clean {
		return nil, nil
	}
	units, err := s.c.cfg.Units.List(ctx, "migrate/"+entry(s.id)+"/")
	if err != nil {
		return nil, fmt.Errorf("list migrations: %w", err)
	}
	s.clean = r.Deploy == nil
	var own, other *unitSeen
	for _, m := range units {
		u := unitOf(m)
		switch {
		case r.Deploy != nil && m.Unit.ID == s.migrateID(*r.Deploy):
			own = &u
		case u.Phase == keeper.Exited || r.Goal == nil:
			if err := s.c.cfg.Units.Remove(ctx, m.Unit.ID); err != nil {
				return nil, fmt.Errorf("remove migration: %w", err)
			}
		default:
			other, s.clean = &u, false
		}
	}
	if own == nil {
		return other, nil
	}
	return own, nil
}

func (s *service) migrateLog(d deployment) string {
	return filepath.Join(s.c.logDir(s.id), "migrate-"+strconv.FormatInt(int64(d.Number), 10)+".log")
}

func (s *service) migrated(ctx context.Context) {
	r := s.snapshot()
	d := r.Deploy
	if d == nil {
		return
	}
	took := time.Since(d.Began)
	if u, ok := s.status(ctx, s.migrateID(*d)); ok && u.LastExit != nil {
		took = u.LastExit.At.Sub(u.Started)
	}
	s.emit(tenfold.SeverityInfo, took, "migrated: "+d.To.Spec.Migrate.String())
	_ = s.c.cfg.Units.Remove(ctx, s.migrateID(*d)) // what is left of it goes with the next deployment
}

func (s *service) status(ctx context.Context, id string) (keeper.Status, bool) {
	units, err := s.c.cfg.Units.List(ctx, id)
	if err != nil {
		return keeper.Status{}, false
	}
	i := slices.IndexFunc(units, func(u keeper.Status) bool { return u.Unit.ID == id })
	if i < 0 {
		return keeper.Status{}, false
	}
	return units[i], true
}

// fail records that the deployment on its way was given up.
func (s *service) fail(ctx context.Context, reason, hint string) {
	var d *deployment
	var watched *watch
	if err := s.change(func(r record) record {
		d, watched = r.Deploy, r.Watch
		return r.fail(reason, hint, time.Now())
	}); err != nil {
		s.emit(tenfold.SeverityWarning, 0, err.Error())
		return
	}
	if d == nil && watched == nil {
		return
	}
	s.trial = nil
	if d == nil {
		d = &deployment{Began: watched.Began}
	}
	first, _, _ := strings.Cut(reason, "\n")
	s.emit(tenfold.SeverityError, time.Since(d.Began), first)
	if d.Number > 0 {
		_ = s.c.cfg.Units.Remove(ctx, s.migrateID(*d))
	}
	s.prod()
}

// giveUp finds out why a deployment failed, while its tasks still run, and records it.
func (s *service) giveUp(ctx context.Context, e effect) {
	r := s.snapshot()
	if e.Cause == causeWorse {
		s.worse(ctx, r)
		return
	}
	if r.Deploy == nil {
		return
	}
	if e.Cause == "migrate" {
		u, _ := s.status(ctx, s.migrateID(*r.Deploy))
		out := lastOutput(s.migrateLog(*r.Deploy), 20, u.Started.Add(-time.Millisecond))
		reason := fmt.Sprintf("migrate: %s: %s", r.Deploy.To.Spec.Migrate, exitText(u))
		if d := outputDetail(out); d != "" {
			reason += "\n" + d
		}
		otherwise := "correct the migration, then deploy again"
		if r.Serving != nil {
			otherwise = "the old version serves on; " + otherwise
		}
		s.fail(ctx, reason, s.hint(r.Deploy.To, r.Deploy.To.Spec.Migrate, u, out, otherwise))
		return
	}
	t, ok := s.find(r, e.N)
	if !ok {
		s.fail(ctx, fmt.Sprintf("not done after %s", r.Deploy.To.Spec.Deadline), "give it longer: deploy: {deadline: 20m}")
		return
	}
	u, _ := s.status(ctx, s.unitID(t.N))
	out := lastOutput(s.logPath(t.N), 10, u.Started.Add(-time.Millisecond))
	what, hint := s.diagnose(ctx, r.Deploy.To, t, s.index(r, t.N), u, e.Cause)
	lines := []string{what}
	if d := outputDetail(out); d != "" {
		lines = append(lines, d)
	}
	if u.Phase == keeper.Exited {
		lines = append(lines, "  exit          "+exitText(u))
	} else {
		lines = append(lines, "  exit          none: it was running; stopped with SIGTERM")
	}
	if answer, tries := s.probed(t.N); tries > 0 && r.Deploy.To.Spec.Routed {
		lines = append(lines, fmt.Sprintf("  last probe    %s (%s)", answer, plural2(tries, "try", "tries")))
	}
	s.fail(ctx, strings.Join(lines, "\n"), s.hint(r.Deploy.To, r.Deploy.To.Spec.Command, u, out, hint))
}

func plural2(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// diagnose says in one line what is wrong with a new task.
func (s *service) diagnose(ctx context.Context, v version, t task, index int, u keeper.Status, cause string) (what, hint string) {
	route := v.Spec.Health.Route
	if route == "" {
		route = "/"
	}
	switch {
	case u.Phase == keeper.Exited:
		return fmt.Sprintf("task %d %s before it answered %s", index, exitText(u), route), fmt.Sprintf("see all it said: tenfold logs %s", s.id.Name)
	case cause == "port" || cause == "health" || cause == "deadline":
		if addr, ok := elsewhere(listeners(s.c.pids(ctx, u)), t.Port); ok {
			what = fmt.Sprintf("task %d listens on %s, not on PORT (%d)", index, addr, t.Port)
			hint = fmt.Sprintf("let it listen on the PORT it is given, for example in Node.js app.listen(process.env.PORT || %d), then tenfold up", addr.Port())
			if b, err := s.c.cfg.Builder.Find(v.Spec.Build); err == nil {
				if place, say, ok := whereListening(b.Dir, int(addr.Port())); ok {
					hint = fmt.Sprintf("%s: use %s, then tenfold up", path.Join(b.Entry, place), say)
				}
			}
			return what, hint
		}
	}
	limit := v.Spec.Health.Grace
	if cause == "deadline" {
		limit = v.Spec.Deadline
	}
	answer, _ := s.probed(t.N)
	if strings.Contains(answer, "answered") {
		return fmt.Sprintf("task %d is not healthy after %s: %s", index, limit, answer),
			fmt.Sprintf("answer %s with 200-399, or name a route that does: health: /healthz (services.%s%s)", route, s.id.Name, lineOf(v.Spec.Line))
	}
	return fmt.Sprintf("task %d does not answer after %s", index, limit),
		fmt.Sprintf("let it listen on the PORT it is given; if it only needs longer: health: {grace: 2m} (services.%s%s)", s.id.Name, lineOf(v.Spec.Line))
}

func lineOf(line int) string {
	if line == 0 {
		return ""
	}
	return fmt.Sprintf(", tenfold.yaml:%d", line)
}

// elsewhere finds a listening address when none of them is the task's own port.
func elsewhere(addrs []netip.AddrPort, port int) (netip.AddrPort, bool) {
	for _, a := range addrs {
		if int(a.Port()) == port {
			return netip.AddrPort{}, false
		}
	}
	if len(addrs) == 0 {
		return netip.AddrPort{}, false
	}
	return addrs[0], true
}

// lookAtPorts finds new tasks that listen, but not where they are asked.
func (s *service) lookAtPorts(ctx context.Context, r record, units map[int]keeper.Status, now time.Time) {
	if r.Deploy == nil || !r.Deploy.To.Spec.Routed {
		s.wrong = nil
		return
	}
	if now.Sub(s.looked) < lookPace {
		return
	}
	s.looked, s.wrong = now, map[int]bool{}
	for _, t := range r.Tasks {
		u, ok := units[t.N]
		if !ok || t.Phase != starting || t.Healthy || u.Phase != keeper.Running || now.Sub(u.Started) < wrongAfter {
			continue
		}
		if _, wrong := elsewhere(listeners(s.c.pids(ctx, u)), t.Port); wrong {
			s.wrong[t.N] = true
		}
	}
}

// clashed says that a task ended because somebody took its port between choosing and listening.
func (s *service) clashed(t task) bool {
	if t.Port == 0 {
		return false
	}
	for _, l := range lastOutput(s.logPath(t.N), 20, t.Since.Add(-time.Millisecond)) {
		if (strings.Contains(l, "EADDRINUSE") || strings.Contains(strings.ToLower(l), "address already in use")) && strings.Contains(l, strconv.Itoa(t.Port)) {
			return true
		}
	}
	return false
}

func exitText(u keeper.Status) string {
	e := u.LastExit
	switch {
	case e == nil:
		return "ended"
	case e.Refused != "":
		return "was not started: " + e.Refused
	case e.OOM:
		return "was killed: out of memory"
	case e.Signal != 0:
		return "was ended by " + signalName(e.Signal)
	}
	return fmt.Sprintf("exited with status %d", e.Code)
}

func signalName(s syscall.Signal) string {
	for name, sig := range map[string]syscall.Signal{"SIGKILL": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM, "SIGSEGV": syscall.SIGSEGV, "SIGABRT": syscall.SIGABRT, "SIGINT": syscall.SIGINT} {
		if s == sig {
			return name
		}
	}
	return s.String()
}

func outputDetail(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return "  last output   " + strings.Join(lines, "\n                ")
}

func indent(s string) string { return strings.ReplaceAll(s, "\n", "\n  ") }

var (
	unsetForm = lazy.Regexp(`(?i)\b([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\b["']?\)?:? (?:is not set|is not defined|not set|is required|must be set|is missing|is undefined|environment variable)|(?:environment variable(?: not found)?:?|missing|KeyError:|undefined) ["'` + "`" + `]?([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`)
	nodeUnset = lazy.Regexp(`Cannot find module '([^']+)'`)
)

// hint says what to do about a task or a migration that failed, by what it printed and how it ended.
func (s *service) hint(v version, command tenfold.Command, u keeper.Status, out []string, otherwise string) string {
	where := fmt.Sprintf("services.%s%s", s.id.Name, lineOf(v.Spec.Line))
	text := strings.Join(out, "\n")
	if e := u.LastExit; e != nil && u.Phase == keeper.Exited {
		switch {
		case e.Refused != "" && u.Unenforced != "":
			return fmt.Sprintf("tenfold doctor says what is missing; to start without the limit: isolation: best-effort (%s)", where)
		case e.Code == int(container.ExitEngine) && container.Holds(u.Unit):
			if strings.Contains(text, "isolation: best-effort") {
				return fmt.Sprintf("to start without the limit: isolation: best-effort (%s)", where)
			}
			return "tenfold doctor says whether the container engine answers; the last output is what it said"
		case e.Code == int(container.ExitNotFound) && strings.Contains(text, `has no program "/bin/sh"`):
			return fmt.Sprintf("the image has no shell: write the command as a list, command: [./api, serve] (%s)", where)
		case e.OOM || e.Code == 137:
			return fmt.Sprintf("give it more memory: size: 1gb (%s)", where)
		case e.Code == 127:
			return fmt.Sprintf("the command %q names a program that is not there: correct it (%s)", command, where)
		case e.Code == 126:
			return fmt.Sprintf("the command %q may not be executed: chmod +x it (%s)", command, where)
		}
	}
	if m := unsetForm.FindStringSubmatch(text); m != nil {
		name := m[1] + m[2]
		switch {
		case name == "DATABASE_URL" || strings.HasPrefix(name, "PG"):
			return fmt.Sprintf("add \"uses: [db]\", the name of a database, to %s", where)
		case name == "REDIS_URL" || name == "MEMCACHED_URL":
			return fmt.Sprintf("add \"uses: [cache]\", the name of a cache, to %s", where)
		}
		return fmt.Sprintf("set %s under env, or declare it as a secret and add it to uses (%s)", name, where)
	}
	if m := nodeUnset.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("%s is not there: add it to the project's dependencies, or build it before it is started (%s)", m[1], where)
	}
	return otherwise
}
