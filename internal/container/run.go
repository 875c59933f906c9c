package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// stopSlack is how much longer than a container's own grace the keeper waits for the program that holds it.
	stopSlack = 10 * time.Second
	// drainFor bounds how long the last output of a container that has ended may take to come.
	drainFor = 5 * time.Second
	// awayFor is how long an engine may be gone, being restarted, before its container is given up.
	awayFor, awayPace = 60 * time.Second, 200 * time.Millisecond
	// orphanGrace is that of a container whose keeper died: the warden does not wait longer for what holds it.
	orphanGrace = 2 * time.Second
	// nameTries is how often a name is asked for that an earlier container still has.
	nameTries = 10
	// cleanFor bounds what is done after the end.
	cleanFor = 20 * time.Second
)

// keptCapabilities are what an image needs that starts as root and goes on as a user of its own. Nothing
// of them reaches beyond its own files and processes: no raw sockets, no low ports, no devices.
var keptCapabilities = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"}

// hostConfig is what the container may do and have of the machine.
type hostConfig struct {
	// The network is the machine's: what listens on 127.0.0.1 is reached, and the front door reaches it.
	NetworkMode string
	// None of the engine's own logs: the output is read here, and bounded by the keeper.
	LogConfig      struct{ Type string }
	Memory         int64 `json:",omitempty"`
	MemorySwap     int64 `json:",omitempty"`
	NanoCpus       int64 `json:",omitempty"`
	PidsLimit      int64 `json:",omitempty"`
	OomScoreAdj    int   `json:",omitempty"`
	CapDrop        []string
	CapAdd         []string
	SecurityOpt    []string
	Ulimits        []ulimit
	Init           bool `json:",omitempty"`
	ReadonlyRootfs bool
}

type ulimit struct {
	Name       string
	Soft, Hard int64
}

// files is how many descriptors a container may have, as a process may.
const files = 65536

// processes is how many a user may have on the machine where Podman is told; a container has its own bound.
const processes = 32768

// ulimits bound descriptors, and leave no core files, which hold secrets. Where this process may not have
// so many, on a machine that is a container itself, the engine may neither.
func ulimits(info Info) []ulimit {
	n := uint64(files)
	var own unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &own) == nil {
		n = min(n, own.Max)
	}
	out := []ulimit{{"nofile", int64(n), int64(n)}, {"core", 0, 0}}
	// Podman raises the number of processes to what root may have, which not every root may set.
	if unix.Getrlimit(unix.RLIMIT_NPROC, &own) == nil && own.Max < unix.RLIM_INFINITY && info.Name == "Podman" {
		n := int64(min(own.Max, processes))
		out = append(out, ulimit{"nproc", n, n})
	}
	return out
}

// config is the body of a creation.
type config struct {
	Image        string
	Entrypoint   []string `json:",omitempty"`
	Cmd          []string `json:",omitempty"`
	Env          []string
	Labels       map[string]string
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	HostConfig   hostConfig
}

// runner is one container from its creation to its end. Its methods belong to one goroutine.
type runner struct {
	*Engine
	order
	spec      Spec
	env       []string
	in        io.Reader // nil: none
	out, errw io.Writer
	// noInit says that what the engine puts first found no program to start; the goroutine that passes
	// output on writes it, until its stream is done.
	noInit atomic.Bool
	asked  atomic.Bool // it was told to stop
	engine Info
	parent int // who started us; another later: the keeper died

	say func(format string, args ...any)
}

// run gives the status with which the container ended, or with which it did not begin.
func (r *runner) run(ctx context.Context) Exit {
	r.parent = os.Getppid()
	if err := r.clear(ctx); err != nil {
		return r.fail("make room for the container: %w", err)
	}
	id, code := r.create(ctx)
	if code != 0 {
		return code
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanFor)
		defer cancel()
		if err := r.remove(clean, id); err != nil {
			r.say("remove the container: %v", err) // the next start or the daemon does
		}
	}()
	return r.hold(ctx, id)
}

func (r *runner) fail(format string, args ...any) Exit {
	r.say("%v", fmt.Errorf(format, args...))
	return ExitEngine
}

// clear removes what an earlier process of this unit left when it was killed.
func (r *runner) clear(ctx context.Context) error {
	if r.Unit == "" { // to Podman a label without a value is one with any
		return errors.New("its unit has no name")
	}
	left, err := r.list(ctx, labelHouse+"="+r.House, labelUnit+"="+r.Unit)
	if err != nil {
		return err
	}
	for _, c := range left {
		if err := r.remove(ctx, c.ID); err != nil {
			return err
		}
	}
	return nil
}

// config is what is asked of the engine.
func (r *runner) config(info Info) config {
	h := hostConfig{
		NetworkMode: "host", Memory: r.spec.Memory, MemorySwap: r.spec.Memory, NanoCpus: int64(r.spec.CPU * 1e9), PidsLimit: r.spec.PIDs, OomScoreAdj: r.spec.OOMScore,
		CapDrop: []string{"ALL"}, CapAdd: keptCapabilities, SecurityOpt: []string{"no-new-privileges"},
		Ulimits: ulimits(info), Init: info.Init,
	}
	h.LogConfig.Type = "none"
	c := config{
		Image: r.spec.Image, Env: r.env, Labels: map[string]string{labelHouse: r.House, labelUnit: r.Unit},
		AttachStdout: true, AttachStderr: true, HostConfig: h,
	}
	if len(r.spec.Argv) > 0 {
		c.Entrypoint, c.Cmd = r.spec.Argv[:1], r.spec.Argv[1:]
	}
	if r.spec.Terminal {
		c.OpenStdin, c.StdinOnce, c.AttachStdin, c.Tty = true, true, true, isTerminal(r.in)
	}
	return c
}

// create makes the container, which does not run yet.
func (r *runner) create(ctx context.Context) (id string, code Exit) {
	info, err := r.Info(ctx)
	if err != nil {
		return "", r.fail("%w", err)
	}
	r.engine = info
	var made struct {
		ID       string `json:"Id"`
		Warnings []string
	}
	name := containerName(r.House, r.Unit)
	for try := 1; ; try++ {
		err = r.call(ctx, http.MethodPost, "/containers/create?name="+name, r.config(info), &made)
		if !refused(err, http.StatusConflict) || try == nameTries {
			break
		}
		// What has the name is on its way out.
		if err := r.remove(ctx, name); err != nil {
			return "", r.fail("make room for the container: %w", err)
		}
		select {
		case <-ctx.Done():
			return "", ExitEngine
		case <-time.After(awayPace):
		}
	}
	switch {
	case refused(err, http.StatusNotFound):
		return "", r.fail("its image is gone: %w", err)
	case err != nil:
		return "", r.fail("create the container: %w", err)
	}
	limits := slices.DeleteFunc(made.Warnings, func(w string) bool { return !unenforced(w) })
	if len(limits) == 0 {
		return made.ID, 0
	}
	r.say("%s cannot enforce a limit: %s", info, strings.Join(limits, "; "))
	if !r.spec.Strict {
		return made.ID, 0
	}
	r.say("not started, since isolation is strict: isolation: best-effort starts it without the limit")
	if err := r.remove(ctx, made.ID); err != nil {
		r.say("remove the container: %v", err)
	}
	return "", ExitEngine
}

// unenforced says that a warning of the engine is about a limit that was asked for.
func unenforced(warning string) bool {
	return strings.Contains(warning, "Limitation discarded") || strings.Contains(warning, "limit capabilities") || strings.Contains(warning, "does not support")
}

// containerName is what the container of a unit is called. Names of apps and their things hold no dots.
func containerName(house, unit string) string {
	return "tenfold-" + house + "-" + strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			return c
		}
		return '.'
	}, unit)
}

// hold starts the container and sees it to its end.
func (r *runner) hold(ctx context.Context, id string) Exit {
	// Attached before it starts, so that nothing of what it says is lost.
	whole := context.WithoutCancel(ctx)
	out, err := r.attach(whole, id)
	if err != nil {
		return r.notStarted(err) // Podman prepares all but the program by now
	}
	defer func() { out.close() }()
	// Told to end meanwhile, it is stopped as one that runs: half a start would be killed.
	if err := r.call(whole, http.MethodPost, "/containers/"+id+"/start", nil, nil); err != nil {
		return r.notStarted(err)
	}
	if r.spec.Terminal {
		restore := r.terminal(ctx, id, out)
		defer restore()
	}
	over := make(chan struct{})
	defer close(over)
	go r.stopWhen(ctx, over, id)
	for {
		code, err := r.wait(whole, id)
		if err == nil {
			out.drain(drainFor)
			return r.ended(whole, id, code)
		}
		// The engine went away: it is being restarted, perhaps with the container alive.
		again, err := r.back(ctx, id)
		if err != nil {
			return r.fail("the container engine went away: %w", err)
		}
		if !again.State.Running {
			return r.ended(whole, id, again.State.ExitCode)
		}
		out.close()
		if out, err = r.attach(whole, id); err != nil {
			return r.fail("attach to the container again: %w", err)
		}
	}
}

// notStarted says why, with the status that a shell would give.
func (r *runner) notStarted(err error) Exit {
	text := err.Error()
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "exec: ") && strings.Contains(text, "no such file or directory"):
		r.say("the image has no program %q: %v", r.program(), err)
		return ExitNotFound
	case strings.Contains(text, "permission denied"):
		r.say("%q of the image may not be executed: %v", r.program(), err)
		return ExitNotExecutable
	}
	return r.fail("start the container: %w", err)
}

func (r *runner) program() string {
	if len(r.spec.Argv) == 0 {
		return "that its Dockerfile names"
	}
	return r.spec.Argv[0]
}

// stopWhen asks the container to end when ctx does, with the signal that its image wants, and has it
// killed after its grace. It returns when it is over.
func (r *runner) stopWhen(ctx context.Context, over <-chan struct{}, id string) {
	select {
	case <-over:
		return
	case <-ctx.Done():
	}
	r.asked.Store(true)
	grace := max(r.spec.Grace, time.Second)
	if r.parent != os.Getppid() {
		grace = min(grace, orphanGrace)
	}
	seconds := strconv.Itoa(int(grace / time.Second))
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.spec.Grace+stopSlack)
	defer cancel()
	err := r.call(limit, http.MethodPost, "/containers/"+id+"/stop?t="+seconds, nil, nil)
	if err != nil && !refused(err, http.StatusNotModified, http.StatusNotFound) {
		r.say("stop the container: %v", err)
	}
}

// wait returns with its status once the container does not run.
func (r *runner) wait(ctx context.Context, id string) (int, error) {
	var end struct{ StatusCode int }
	err := r.call(ctx, http.MethodPost, "/containers/"+id+"/wait", nil, &end)
	return end.StatusCode, err
}

// ended says what killed the container, if anything did, and gives its status.
func (r *runner) ended(ctx context.Context, id string, code int) Exit {
	limit, cancel := context.WithTimeout(ctx, drainFor)
	defer cancel()
	if d, err := r.inspect(limit, id); err == nil && d.State.OOMKilled && code != 0 {
		of := ""
		if r.spec.Memory > 0 {
			of = fmt.Sprintf(" of its %d MB", r.spec.Memory>>20)
		}
		r.say("killed: out of memory%s", of)
		return 137
	}
	if code == 137 && r.spec.Memory > 0 && r.engine.Name == "Podman" && !r.asked.Load() {
		r.say("killed: out of memory of its %d MB, or by somebody; Podman does not always say", r.spec.Memory>>20)
	}
	if r.noInit.Load() && code == int(ExitNotFound) {
		r.say("the image has no program %q", r.program())
	}
	return Exit(code & 0xff)
}

// back waits until the engine answers again for the container.
func (r *runner) back(ctx context.Context, id string) (details, error) {
	limit, cancel := context.WithTimeout(ctx, awayFor)
	defer cancel()
	for {
		d, err := r.inspect(limit, id)
		var said *refusal
		if err == nil || errors.As(err, &said) && said.status == http.StatusNotFound {
			return d, err
		}
		select {
		case <-limit.Done():
			return d, err
		case <-time.After(awayPace):
		}
	}
}

// details are what is asked of a container.
type details struct {
	State struct {
		Running   bool
		OOMKilled bool
		ExitCode  int
		Pid       int
	}
}

func (e *Engine) inspect(ctx context.Context, id string) (d details, err error) {
	return d, e.call(ctx, http.MethodGet, "/containers/"+url.PathEscape(id)+"/json", nil, &d)
}

// listed is a container of a list.
type listed struct {
	ID     string `json:"Id"`
	Labels map[string]string
}

// list gives the containers that have all of these labels, running or not.
func (e *Engine) list(ctx context.Context, labels ...string) (out []listed, err error) {
	return out, e.call(ctx, http.MethodGet, "/containers/json?all=1&filters="+filters(labels...), nil, &out)
}

// remove kills a container, if it runs, and forgets it.
func (e *Engine) remove(ctx context.Context, id string) error {
	err := e.call(ctx, http.MethodDelete, "/containers/"+id+"?force=1&v=1", nil, nil)
	if refused(err, http.StatusNotFound) {
		return nil
	}
	if refused(err, http.StatusConflict) && strings.Contains(err.Error(), "already in progress") {
		return nil
	}
	return err
}
