package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/measure"
)

// house is a house of bin/tenfold in a folder of its own.
type house struct {
	dir, bin string
	api      *control.Client
	addr     string // of the front door, once an app is up
}

func newHouse() (*house, error) {
	dir, err := os.MkdirTemp("", "tfb")
	if err != nil {
		return nil, err
	}
	bin, err := filepath.Abs("bin/tenfold")
	if err != nil {
		return nil, err
	}
	return &house{dir: dir, bin: bin, api: control.Unix(filepath.Join(dir, "data", "control.sock"))}, nil
}

// close ends the house. What did not end can be looked at: its folder stays.
func (h *house) close() error {
	h.api.Close()
	if h.addr == "" && len(h.processes()) == 0 { // nothing was brought up
		return os.RemoveAll(h.dir)
	}
	if out, err := h.run("", "down", "--house"); err != nil {
		return fmt.Errorf("end the house in %s: %w: %s", h.dir, err, out)
	}
	return os.RemoveAll(h.dir)
}

// commandFor bounds a command: one that hangs is a finding.
const commandFor = 5 * time.Minute

func (h *house) run(dir string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandFor)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.bin, append([]string{"--data", filepath.Join(h.dir, "data")}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("tenfold %s: no end within %s", args[0], commandFor)
	}
	return string(out), err
}

// up brings up or deploys an app of one file, and says where the front door is.
func (h *house) up(app, manifest string) error {
	dir := filepath.Join(h.dir, "apps", app)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "tenfold.yaml"), []byte(manifest), 0o644); err != nil {
		return err
	}
	out, err := h.begin(dir)
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// begin deploys the app of a folder; the first one brings the house up.
func (h *house) begin(dir string) (string, error) {
	if h.addr != "" {
		return h.run(dir, "deploy")
	}
	out, err := h.run(dir, "up", "--detach", "--listen", "127.0.0.1:0")
	if err != nil {
		return out, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), askFor)
	defer cancel()
	info, err := h.api.House(ctx)
	if err != nil {
		return out, err
	}
	h.addr = info.Listen[0]
	for _, pid := range h.processes() {
		measure.Favour(pid)
	}
	return out, nil
}

// processes are the house's own.
func (h *house) processes() []int {
	return measure.Processes(func(args []string) bool {
		return slices.Contains(args, "house") && slices.Contains(args, filepath.Join(h.dir, "data"))
	})
}

// askFor bounds a question to the house.
const askFor = 30 * time.Second

// status is that of an app's production.
func (h *house) status(app string) (control.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askFor)
	defer cancel()
	return h.api.Status(ctx, control.Env{App: tenfold.AppName(app), Env: "production"})
}

// release is what is deployed of an app.
type release struct {
	app, version string
	mood         string // what task is told
	deploy       string // of the manifest
	more         string // lines of the service
	tasks        int
}

// deploy deploys a release, and brings its app up the first time. What the command says comes back with the
// error that it ended with.
func (h *house) deploy(self string, r release) (string, error) {
	dir := filepath.Join(h.dir, "apps", r.app)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	build := "false" // no build
	if r.mood == "build" {
		build = `"echo does not compile; exit 1"`
	}
	text := fmt.Sprintf("app: %s\nservices:\n  api:\n    path: .\n    runtime: go\n    build: %s\n    command: exec %s task %s %s\n    routes: [/*]\n    health: {route: /healthz, grace: 2s}\n    scale: %d\n    deploy: %s\n%s",
		r.app, build, self, r.version, r.mood, r.tasks, r.deploy, r.more)
	if err := os.WriteFile(filepath.Join(dir, "tenfold.yaml"), []byte(text), 0o644); err != nil {
		return "", err
	}
	return h.begin(dir)
}

// last is the newest deployment of an app.
func (h *house) last(app string) (control.Revision, error) {
	revs, err := h.api.Revisions(context.Background(), control.Env{App: tenfold.AppName(app), Env: "production"})
	if err != nil || len(revs) == 0 {
		return control.Revision{}, errors.Join(err, errors.New("no deployment"))
	}
	return revs[0], nil
}

// settled waits until an app is as healthy as it was, with nothing tried out.
func (h *house) settled(app string) error {
	for begun := time.Now(); time.Since(begun) < 60*time.Second; time.Sleep(50 * time.Millisecond) {
		st, err := h.status(app)
		if err != nil {
			return err
		}
		if st.State == "healthy" {
			return nil
		}
	}
	events, _ := h.run("", "events", "--app", app)
	status, _ := h.run("", "status", "--app", app)
	return fmt.Errorf("%s does not come to rest:\n%s%s", app, events, status)
}
