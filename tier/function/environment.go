package function

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"tenfold/internal/keeper"
	"tenfold/internal/shell"
	"tenfold/internal/tasklog"
	"tenfold/tier/function/runtimeapi"
)

// environment is an execution environment: a process, its extensions, and the API that they speak.
type environment struct {
	f       *function
	n       int
	version string
	api     *runtimeapi.Environment
	log     string
	born    time.Time
	unit    string // of the runtime
	awake   bool   // it never stands still
	frost   frost
	gone    chan struct{} // closed when nothing of it is left
	still   chan struct{} // closed when it is leaving and nothing is in it

	// Under function.mu.
	ready   bool
	leaving bool
	reason  string        // why it leaves, as extensions are told
	init    time.Duration // until it was ready
	pid     int
	used    int // MiB of memory, at usedAt
	usedAt  time.Time
	busy    int
	idle    time.Time
}

// start begins an environment. Under f.mu.
func (f *function) start() {
	n := int(f.v.seq.Add(1))
	g := f.goal
	var names []string
	for _, p := range g.Extensions {
		names = append(names, filepath.Base(p))
	}
	e := &environment{
		f: f, n: n, unit: unitPrefix + g.ID.String() + "/" + strconv.Itoa(n), awake: len(names) > 0 || g.Image != "", version: g.Version, born: time.Now(), gone: make(chan struct{}), still: make(chan struct{}),
		log: filepath.Join(g.LogDir, strconv.Itoa(n)+".log"),
		api: runtimeapi.New(runtimeapi.Config{Function: string(g.ID.Name), Handler: g.Handler, Account: g.Account, Concurrency: g.Concurrency, Extensions: names}),
	}
	f.envs = append(f.envs, e)
	f.v.wg.Go(func() { e.run(f.v.life, g) })
}

// retire has an environment end once nothing is in it. Under f.mu.
func (f *function) retire(e *environment, reason string) {
	if e.leaving {
		return
	}
	e.leaving, e.reason = true, reason
	if e.busy == 0 {
		close(e.still)
	}
}

// run is an environment's life.
func (e *environment) run(ctx context.Context, g Goal) {
	var beside sync.WaitGroup
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	id := e.unit
	defer close(e.gone)
	defer beside.Wait()
	defer cancel()
	defer e.forget()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.failed(&runtimeapi.Failure{Type: runtimeapi.ErrorSandbox, Message: err.Error()})
		return
	}
	server := &http.Server{Handler: e.api}
	beside.Go(func() { server.Serve(l) })
	defer server.Close()
	units, err := e.units(own, g, id, l.Addr().String())
	if err != nil {
		e.failed(&runtimeapi.Failure{Type: runtimeapi.ErrorEntry, Message: err.Error()})
		return
	}
	defer func() {
		for _, u := range units {
			if err := e.f.v.cfg.Units.Remove(own, u.ID); err != nil {
				e.f.v.cfg.Log.Warn("end an environment", "unit", u.ID, "err", err)
			}
		}
	}()
	for i, u := range units {
		st, err := e.f.v.cfg.Units.Start(own, u) // its process may be yet to come
		if err != nil {
			e.failed(&runtimeapi.Failure{Type: runtimeapi.ErrorEntry, Message: fmt.Sprintf("fork/exec %s: %v", u.Argv[0], err)})
			return
		}
		beside.Go(func() { e.follow(own, u.ID, i == len(units)-1) })
		e.f.mu.Lock()
		e.f.tally.Unenforced = st.Unenforced
		e.f.mu.Unlock()
	}
	limit := time.NewTimer(max(initLimit, g.Timeout))
	defer limit.Stop()
	select {
	case <-e.api.Ready():
	case <-limit.C:
		e.api.End(&runtimeapi.Failure{Type: runtimeapi.ErrorTimeout, Message: fmt.Sprintf("the runtime asked for no event within %s", max(initLimit, g.Timeout))})
	case <-e.still: // it left before it was there
	}
	if f := e.api.Failed(); f != nil {
		e.failed(f)
		return
	}
	e.become()
	if st, err := e.f.v.cfg.Units.List(own, id); err == nil {
		for _, u := range st {
			if u.Unit.ID == id {
				e.f.mu.Lock()
				e.pid, e.f.tally.Unenforced = u.PID, u.Unenforced
				e.f.mu.Unlock()
			}
		}
	}
	if e.api.Watched("function") {
		beside.Go(func() { e.pass(own) })
	}
	select {
	case <-e.api.Over():
		e.f.mu.Lock()
		e.f.retire(e, "failure")
		e.f.mu.Unlock()
	case <-e.still:
		e.thaw()
		if grace := e.api.Shutdown(e.reason); grace > 0 {
			e.goodbye(own, units, grace)
		}
		e.api.End(&runtimeapi.Failure{Type: runtimeapi.ErrorSandbox, Message: "the environment was ended"})
	}
}

// units are what runs: extensions, then the runtime. An image brings its own folders, and says what its
// handler is.
func (e *environment) units(ctx context.Context, g Goal, id, api string) ([]keeper.Unit, error) {
	env := slices.Clone(g.Env)
	if g.Image == "" {
		env = append(env, "_HANDLER="+g.Handler, "LAMBDA_TASK_ROOT="+g.Dir, "LAMBDA_RUNTIME_DIR="+g.Dir)
	}
	env = append(env, "AWS_LAMBDA_RUNTIME_API="+api,
		"AWS_LAMBDA_FUNCTION_NAME="+string(g.ID.Name), "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE="+strconv.FormatInt(max(g.Size.Memory>>20, 1), 10),
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/"+string(g.ID.Name), "AWS_LAMBDA_LOG_STREAM_NAME="+strconv.Itoa(e.n),
		"AWS_LAMBDA_INITIALIZATION_TYPE=on-demand", "AWS_REGION="+region, "AWS_DEFAULT_REGION="+region, "TZ=:UTC")
	if g.Concurrency > 1 {
		env = append(env, "AWS_LAMBDA_MAX_CONCURRENCY="+strconv.Itoa(g.Concurrency))
	}
	u := keeper.Unit{ID: id, Argv: g.Argv, Env: env, Dir: g.Dir, StopGrace: 500 * time.Millisecond, StopTree: true,
		Log: e.log, LogMax: max(g.Logs.Max/8, 64<<10), LogKeep: 1, Memory: g.Size.Memory, CPU: g.Size.CPU, Box: g.Box, Strict: g.Strict, OOMScore: keeper.AppOOMScore}
	if g.Image != "" {
		if e.f.v.cfg.Contain == nil {
			return nil, errors.New("nobody runs containers here")
		}
		u, err := e.f.v.cfg.Contain(ctx, u, g.Image)
		return []keeper.Unit{u}, err
	}
	u.Argv, u.Env = shell.Spare(u.Argv, u.Env, u.Dir)
	var out []keeper.Unit
	for _, p := range g.Extensions {
		x := u
		x.ID, x.Argv = id+"/"+filepath.Base(p), []string{p}
		x.Log = filepath.Join(g.LogDir, strconv.Itoa(e.n)+"-"+filepath.Base(p)+".log")
		out = append(out, x)
	}
	return append(out, u), nil
}

// follow waits for the end of a process, which is the environment's.
func (e *environment) follow(ctx context.Context, unit string, runtime bool) {
	st, err := e.f.v.cfg.Units.Wait(ctx, unit)
	if err != nil || st.LastExit == nil {
		return
	}
	fail := &runtimeapi.Failure{Type: runtimeapi.ErrorExit, Message: "Runtime exited without providing a reason"}
	switch x := st.LastExit; {
	case x.Refused != "":
		fail.Type, fail.Message = runtimeapi.ErrorEntry, "Runtime could not be started: "+x.Refused
	case !runtime:
		fail.Type, fail.Message = runtimeapi.ErrorExtension, "an extension ended: "+x.Describe()
	case x.OOM:
		fail.Message = "Runtime exited with error: signal: killed (out of memory)"
	case x.Signal != 0:
		fail.Message = "Runtime exited with error: signal: " + x.Signal.String()
	case x.Code != 0:
		fail.Message = "Runtime exited with error: exit status " + strconv.Itoa(x.Code)
	}
	e.api.End(fail)
}

// goodbye gives extensions their time to end.
func (e *environment) goodbye(ctx context.Context, units []keeper.Unit, grace time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	for _, u := range units[:len(units)-1] {
		e.f.v.cfg.Units.Wait(ctx, u.ID)
	}
}

// become is called when the environment can take events.
func (e *environment) become() {
	f := e.f
	f.mu.Lock()
	defer f.mu.Unlock()
	e.ready, e.init, e.idle = true, time.Since(e.born), time.Now()
	f.tally.Init = e.init
	if e.version != f.goal.Version && !e.leaving {
		f.retire(e, "spindown")
		f.fill()
		return
	}
	f.serve(e)
	e.chill()
}

// failed is called when the environment could not start: who waits longest hears of it, so that as many
// are started as there are who ask.
func (e *environment) failed(fail *runtimeapi.Failure) {
	f := e.f
	e.api.End(fail)
	f.mu.Lock()
	defer f.mu.Unlock()
	left := e.leaving
	f.retire(e, "failure")
	if left {
		return
	}
	f.tally.Last = fail.Error()
	f.wait = time.Now().Add(time.Second) // those that are kept warm, not at once again
	if len(f.queue) > 0 {
		w := f.queue[0]
		f.queue = f.queue[1:]
		w.err = fail
		close(w.got)
	}
}

// forget takes the environment off its function's list.
func (e *environment) forget() {
	f := e.f
	f.mu.Lock()
	defer f.mu.Unlock()
	f.envs = slices.DeleteFunc(f.envs, func(o *environment) bool { return o == e })
	if e.frost.timer != nil {
		e.frost.timer.Stop()
	}
	f.fill()
}

// ended says that it takes nothing more.
func (e *environment) ended() bool { return e.api.Failed() != nil }

// forWhom is how long the environment took to start, for an invocation that began to wait before it was born.
func (e *environment) forWhom(began time.Time) time.Duration {
	e.f.mu.Lock()
	defer e.f.mu.Unlock()
	if e.born.Before(began) {
		return 0
	}
	return e.init
}

// told tells extensions of a platform event.
func (e *environment) told(kind string, record any) {
	e.api.Tell("platform", runtimeapi.Record{Time: time.Now(), Type: kind, Record: record})
}

// pass passes the function's output on to extensions.
func (e *environment) pass(ctx context.Context) {
	tasklog.Follow(ctx, e.log, func(l tasklog.Line) error {
		e.api.Tell("function", runtimeapi.Record{Time: l.At, Type: "function", Record: l.Text})
		return nil
	})
}

// memoryPace is how often a process' memory is looked up: that costs more than many a call.
const memoryPace = time.Second

// memory is the most that the process had in memory, in MiB; 0 when it is not known.
func (e *environment) memory(now time.Time) int {
	e.f.mu.Lock()
	pid, used, fresh := e.pid, e.used, now.Sub(e.usedAt) < memoryPace
	if !fresh {
		e.usedAt = now
	}
	e.f.mu.Unlock()
	if fresh || pid == 0 {
		return used
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return used
	}
	used = peak(b)
	e.f.mu.Lock()
	e.used = used
	e.f.mu.Unlock()
	return used
}
