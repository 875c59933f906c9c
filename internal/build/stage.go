package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tenfold/internal/keeper"
	"tenfold/internal/tasklog"
)

// tail is how many lines of output a failure shows.
const tail = 20

// StageError is a command of a build that failed.
type StageError struct {
	Stage   string   // "install", "test", "build"
	Command string   // as people wrote it
	Reason  string   // "exited with status 1"
	Output  []string // the last lines, at most 20
	Hint    string
}

// Error is one line; Detail has the rest.
func (e *StageError) Error() string {
	return fmt.Sprintf("%s: %s: %s", e.Stage, e.Command, e.Reason)
}

// Detail is the last output, ready to print; "" when there was none.
func (e *StageError) Detail() string {
	if len(e.Output) == 0 {
		return ""
	}
	return "last output   " + strings.Join(e.Output, "\n              ")
}

// MissingError is a tool that the machine lacks.
type MissingError struct {
	Tool string
	Hint string
}

func (e *MissingError) Error() string { return e.Tool + " is not installed" }

// text is what people read of an argv.
func text(argv []string) string {
	if len(argv) == 3 && argv[0] == "/bin/sh" && argv[1] == "-c" {
		return argv[2]
	}
	return strings.Join(argv, " ")
}

// stage runs one command to its end; an empty one is skipped. note, which may be nil, says what was
// reached.
func (m *making) stage(ctx context.Context, name string, argv []string, note func() string) error {
	if len(argv) == 0 {
		return nil
	}
	m.progress("%s: %s", name, text(argv))
	env := append([]string{}, m.env...)
	if name == "install" {
		// npm leaves out what builds need when NODE_ENV says production.
		env = without(env, "NODE_ENV")
	}
	began := time.Now()
	if err := m.run(ctx, name, argv, env, m.result.Dir); err != nil {
		return err
	}
	s := Stage{Name: name, Command: text(argv), Took: time.Since(began)}
	if note != nil {
		s.Note = note()
	}
	m.done(s)
	return nil
}

// Check runs one more command in the folder of a finished build, with the environment that the build's
// own commands had: a test that needs what was built. Errors are those of Build.
func (b *Builder) Check(ctx context.Context, key string, r Request, name string, argv []string) error {
	done, err := b.Find(key)
	if err != nil {
		return err
	}
	r.ID += "/" + name // its units are not those of a build on its way
	if err := b.Clear(ctx, r.ID); err != nil {
		return fmt.Errorf("check build %s: %w", key, err)
	}
	m := &making{Builder: b, Request: r, result: done}
	if m.Timeout == 0 {
		m.Timeout = DefaultTimeout
	}
	if err := m.prepare(ctx); err != nil {
		return err
	}
	return m.stage(ctx, name, argv, nil)
}

// run holds one command as a unit until it ended, and forgets it.
func (m *making) run(ctx context.Context, name string, argv, env []string, dir string) error {
	u := keeper.Unit{
		ID: unitPrefix(m.ID) + name, Argv: argv, Env: Dedupe(env), Dir: dir, Log: m.Log, LogKeep: 1,
		StopGrace: 5 * time.Second, Memory: m.Memory, OOMScore: 300,
	}
	for _, s := range m.Secret {
		name, _, _ := strings.Cut(s, "=")
		u.Hide = append(u.Hide, name)
	}
	return m.hold(ctx, u, name, text(argv))
}

// hold has the keeper run a unit to its end. command is what it is called when it fails.
func (m *making) hold(ctx context.Context, u keeper.Unit, name, command string) error {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, m.Timeout)
	defer cancel()
	status, err := m.Units.Start(limited, u)
	if err == nil {
		status, err = m.Units.Wait(limited, u.ID)
	}
	// Whatever happened, nothing of it may run on: also when ctx is done.
	clean, stop := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer stop()
	removed := m.Units.Remove(clean, u.ID)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	failed := &StageError{Stage: name, Command: command}
	switch {
	case limited.Err() != nil && errors.Is(err, limited.Err()):
		failed.Reason = fmt.Sprintf("not done after %s", m.Timeout)
		failed.Hint = "give it longer: build: {timeout: 30m}"
	case err != nil:
		return fmt.Errorf("run %s: %w", failed.Command, err)
	case removed != nil:
		return fmt.Errorf("run %s: %w", failed.Command, removed)
	case status.LastExit == nil:
		return fmt.Errorf("run %s: the keeper knows no exit of %s", failed.Command, u.ID)
	case status.LastExit.Code == 0 && status.LastExit.Signal == 0:
		return nil
	default:
		failed.Reason = exitText(*status.LastExit)
	}
	failed.Output = m.output(began)
	if failed.Hint == "" {
		failed.Hint = hint(m.Language, failed, status.LastExit)
	}
	return failed
}

func exitText(e keeper.Exit) string {
	switch {
	case e.OOM:
		return "killed: out of memory"
	case e.Signal != 0:
		return "ended by " + e.Signal.String()
	}
	return fmt.Sprintf("exited with status %d", e.Code)
}

// output is what the command printed last.
func (m *making) output(since time.Time) []string {
	lines, err := tasklog.Read(m.Log, tasklog.Options{Tail: 3 * tail, Since: since.Add(-time.Millisecond)})
	if err != nil {
		return nil
	}
	var out []string
	for _, l := range lines {
		if t := strings.TrimRight(clean(l.Text), " \t\r"); t != "" {
			out = append(out, t)
		}
	}
	return out[max(0, len(out)-tail):]
}

// clean takes terminal colours out of a line.
func clean(s string) string {
	if !strings.Contains(s, "\x1b[") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], "\x1b[") {
			for i += 2; i < len(s) && (s[i] < '@' || s[i] > '~'); i++ {
			}
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// hint says what helps against the commonest failures.
func hint(language string, e *StageError, exit *keeper.Exit) string {
	out := strings.Join(e.Output, "\n")
	if exit != nil && exit.OOM {
		return "give the build more memory: build: {size: 2gb}"
	}
	if exit != nil && exit.Code == 127 {
		return fmt.Sprintf("the %s command names a program that is not there: add it to the project's dependencies, or correct the command in tenfold.yaml", e.Stage)
	}
	if i := strings.LastIndex(out, "\nhint: "); i >= 0 && (e.Stage == "pull" || e.Stage == "image") {
		said, _, _ := strings.Cut(out[i+len("\nhint: "):], "\n")
		return said
	}
	switch {
	case strings.Contains(out, "npm ci") && strings.Contains(out, "in sync"):
		return "package-lock.json does not fit package.json: run npm install, and keep the new package-lock.json"
	case strings.Contains(out, "Missing script:"):
		return "package.json has no such script: add it under \"scripts\", or write the command in tenfold.yaml"
	case strings.Contains(out, "ENOTFOUND") || strings.Contains(out, "EAI_AGAIN") || strings.Contains(out, "Temporary failure in name resolution"):
		return "the machine could not reach the package registry: try again when it can"
	case strings.Contains(out, "ENOSPC") || strings.Contains(out, "No space left on device"):
		return "the disk is full: make room, then deploy again"
	case strings.Contains(out, "No module named venv") || strings.Contains(out, "ensurepip is not"):
		return "apt-get install python3-venv"
	case e.Stage == "e2e":
		return "make the test pass against APP_URL, or leave it out with e2e: false"
	case e.Stage == "test":
		return "make the test pass, or leave it out with test: false"
	}
	return fmt.Sprintf("run it yourself in the project: %s", e.Command)
}

// Environ is env for what runs from the build: its own runtimes come first in PATH, and of several values
// of a variable the last stands.
func (r Result) Environ(env []string) []string {
	if len(r.Bin) > 0 {
		path := ""
		for _, e := range env {
			if v, ok := strings.CutPrefix(e, "PATH="); ok {
				path = v
			}
		}
		env = append(env, "PATH="+strings.Join(append(slices.Clone(r.Bin), path), string(filepath.ListSeparator)))
	}
	return Dedupe(env)
}

// Dedupe keeps the last value of each variable of an environment: of two, programs disagree which holds.
func Dedupe(env []string) []string {
	last := make(map[string]int, len(env))
	for i, e := range env {
		name, _, _ := strings.Cut(e, "=")
		last[name] = i
	}
	out := make([]string, 0, len(last))
	for i, e := range env {
		if name, _, _ := strings.Cut(e, "="); last[name] == i {
			out = append(out, e)
		}
	}
	return out
}

func without(env []string, name string) []string {
	var out []string
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			out = append(out, e)
		}
	}
	return out
}

// lookup finds a program in the PATH of an environment.
func lookup(env []string, name string) (string, bool) {
	for _, dir := range filepath.SplitList(valueOf(env, "PATH")) {
		p := filepath.Join(dir, name)
		if executable(p) {
			return p, true
		}
	}
	return "", false
}

func valueOf(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], name+"="); ok {
			return v
		}
	}
	return ""
}
