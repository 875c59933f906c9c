// Package container runs processes of the house in containers of an engine that the machine has, Docker
// or Podman, and has it make the images that they run from.
//
// A container is a unit of the keeper as any process is: the unit's own program is this binary, which
// creates the container, passes its output on, stops it when it is told to end, and ends as it ended
// (Main, run.go). So whatever is done with units is done with containers: deployments, scaling, logs,
// limits of time. An image is made by such a unit, too (image.go): its output is that of a build.
//
// It speaks the Docker Engine API, which Podman serves as well, over the engine's unix socket, without
// the version in the path: engines drop old ones, and what is used here has not changed since 1.25.
// It never keeps state of its own: what belongs to whom is written on the container, as labels.
// Begin at Driver.Unit, then Main.
package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tenfold/internal/keeper"
)

// The labels of a container: whose it is.
const (
	labelHouse = "tenfold.house"
	labelUnit  = "tenfold.unit"
)

// orderVar is the variable that tells Main what to do. All else in its environment is the container's.
const orderVar = "TENFOLD_CONTAINER"

// Spec is what runs in a container.
type Spec struct {
	// Image is what it runs from; Argv what it runs, in place of what the image says. Empty: the image's own.
	Image string   `json:"image"`
	Argv  []string `json:"argv,omitempty"`
	// Memory (bytes), CPU (cores) and PIDs bound it; 0: no bound.
	Memory int64   `json:"memory,omitempty"`
	CPU    float64 `json:"cpu,omitempty"`
	PIDs   int64   `json:"pids,omitempty"`
	// OOMScore is as a unit of the keeper has it.
	OOMScore int `json:"oomScore,omitempty"`
	// Grace is how long it may take to stop before it is killed.
	Grace time.Duration `json:"grace"`
	// Strict keeps it from running when the engine cannot enforce a bound.
	Strict bool `json:"strict,omitempty"`
	// Terminal says that somebody sits before it: it gets the input, and a terminal if that is one.
	Terminal bool `json:"-"`
}

// maxPIDs bounds processes and threads of a container, as the keeper bounds those of a process.
const maxPIDs = 4096

// Of is what runs of an image where u would run a process: its program, if any, and its limits.
func Of(u keeper.Unit, image string) Spec {
	return Spec{Image: image, Argv: u.Argv, Memory: u.Memory, CPU: u.CPU, PIDs: maxPIDs, OOMScore: u.OOMScore, Strict: u.Strict}
}

// Image is what an image is made of: a reference to pull, or a folder with a Dockerfile.
type Image struct {
	Tag        string `json:"tag"` // what it is called then
	Ref        string `json:"ref,omitempty"`
	Dir        string `json:"dir,omitempty"`
	Dockerfile string `json:"dockerfile,omitempty"` // below Dir
}

// order is what Main does.
type order struct {
	Socket string `json:"socket"`
	House  string `json:"house"`
	Unit   string `json:"unit"`
	Run    *Spec  `json:"run,omitempty"`
	Make   *Image `json:"make,omitempty"`
}

// Driver makes units that run in containers, for one house.
type Driver struct {
	// Command is the command line that becomes Main.
	Command []string
	// Data is the house's data directory: it tells its containers and images from another house's.
	Data string
}

// house names the data directory where a path is too long.
func (d Driver) house() string {
	sum := sha256.Sum256([]byte(d.Data))
	return hex.EncodeToString(sum[:6])
}

// Tag names the image of a build. "localhost" is nobody's registry: it is never pulled, and Podman takes
// the name as it stands.
func (d Driver) Tag(key string) string { return d.repository() + ":" + key }

func (d Driver) repository() string { return "localhost/tenfold-" + d.house() }

// Unit has u run in a container instead: its environment becomes the container's, its limits the
// engine's to enforce. Errors: those of Find.
func (d Driver) Unit(ctx context.Context, u keeper.Unit, s Spec) (keeper.Unit, error) {
	s.Grace = u.StopGrace
	u, err := d.unit(ctx, u, order{Run: &s})
	u.StopGrace += stopSlack
	return u, err
}

// Maker is the unit u, which makes an image instead of what it did. Errors: those of Find.
func (d Driver) Maker(ctx context.Context, u keeper.Unit, i Image) (keeper.Unit, error) {
	return d.unit(ctx, u, order{Make: &i})
}

// Has says that the engine has an image. Errors: those of Find.
func (d Driver) Has(ctx context.Context, image string) (bool, error) {
	e, err := Find(ctx)
	if err != nil {
		return false, err
	}
	return e.Has(ctx, image)
}

// Holds says that a unit's process is one that holds a container.
func Holds(u keeper.Unit) bool {
	return slices.ContainsFunc(u.Env, func(kv string) bool { return strings.HasPrefix(kv, orderVar+"=") })
}

func (d Driver) unit(ctx context.Context, u keeper.Unit, o order) (keeper.Unit, error) {
	e, err := Find(ctx)
	if err != nil {
		return u, err
	}
	o.Socket, o.House, o.Unit = e.Socket, d.house(), u.ID
	b, err := json.Marshal(o)
	if err != nil {
		return u, fmt.Errorf("write down what %s does: %w", u.ID, err)
	}
	u.Argv = d.Command
	u.Env = append(u.Env, orderVar+"="+string(b))
	u.Dir = "/"
	// The program between has no limits, no box and no use of a signal to what it runs: it asks the engine.
	u.Memory, u.CPU, u.PIDs, u.Box, u.Strict, u.StopTree = 0, 0, 0, nil, false, false
	u.DeathSignal = syscall.SIGTERM // so that what it holds ends with the keeper
	return u, nil
}

// takeOrder splits what Main is told from what the container is.
func takeOrder(environ []string) (o order, env []string, err error) {
	found := false
	for _, kv := range environ {
		text, is := strings.CutPrefix(kv, orderVar+"=")
		if !is {
			env = append(env, kv)
			continue
		}
		found = true
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			return o, nil, fmt.Errorf("read %s: %w", orderVar, err)
		}
	}
	// A command is made before it has its number, and named then: the keeper knows.
	if unit := keeper.UnitOf(env); unit != "" {
		o.Unit = unit
	}
	if !found || o.Run == nil && o.Make == nil {
		return o, nil, errors.New("nothing is to be run in a container: this is a process that the keeper starts")
	}
	return o, env, nil
}

// Exit is how a container ended that did not end with status 0.
type Exit int

// Error is for who does not look at the number.
func (e Exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// The statuses of what could not be started, as shells and Docker have them.
const (
	// ExitEngine: the engine refused, or went away.
	ExitEngine Exit = 125
	// ExitNotExecutable and ExitNotFound are of the program within the image.
	ExitNotExecutable Exit = 126
	ExitNotFound      Exit = 127
)

// Main is the process of such a unit. It returns nil, or an Exit with the status to end with; what went
// wrong was written to standard error by then. It ends when ctx does, after the container.
func Main(ctx context.Context) error {
	o, env, err := takeOrder(os.Environ())
	if err != nil {
		say("%v", err)
		return ExitEngine
	}
	e := &Engine{Socket: o.Socket}
	if o.Make != nil {
		if err := e.Make(ctx, *o.Make, os.Stdout); err != nil {
			say("%v", err)
			return Exit(1)
		}
		return nil
	}
	r := runner{Engine: e, order: o, spec: *o.Run, env: env, out: os.Stdout, errw: os.Stderr, say: say}
	if code := r.run(ctx); code != 0 {
		return code
	}
	return nil
}

// terminalUnit begins the names of containers that a person's process holds, of which its number follows.
const terminalUnit = "terminal/"

// Terminal runs a command in a container as a unit with this environment would, but before whoever sits
// at the terminal, until it ends. held is false for the environment of a unit without a container.
func Terminal(ctx context.Context, env, argv []string) (held bool, err error) {
	if !Holds(keeper.Unit{Env: env}) {
		return false, nil
	}
	o, env, err := takeOrder(env)
	if err != nil || o.Run == nil {
		return true, err
	}
	o.Unit = terminalUnit + strconv.Itoa(os.Getpid())
	s := *o.Run
	s.Argv, s.Terminal = argv, true
	r := runner{Engine: &Engine{Socket: o.Socket}, order: o, spec: s, env: env, in: os.Stdin, out: os.Stdout, errw: os.Stderr, say: say}
	if v := os.Getenv("TERM"); v != "" && isTerminal(r.in) {
		r.env = append(r.env, "TERM="+v)
	}
	if code := r.run(ctx); code != 0 {
		return true, code
	}
	return true, nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "tenfold: "+format+"\n", args...) }
