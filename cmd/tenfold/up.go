package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
	"tenfold/daemon"
	"tenfold/internal/keeper"
	"tenfold/internal/source"
)

func (c *cli) upCommand() *cobra.Command {
	var listen, secure, ssh, controlAddr, file string
	var detach bool
	cmd := &cobra.Command{
		Use:   "up [DIR]",
		Short: "Run the app of a folder: start the house if there is none, deploy, follow; Ctrl-C stops the app and keeps its data",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.up(cmd.Context(), dirOf(args), file, daemon.Settings{Listen: listen, TLS: secure, SSH: ssh, Control: controlAddr}, detach)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address of the front door (default "+daemon.DefaultListen+")")
	cmd.Flags().StringVar(&secure, "tls", "", "address for TLS: certificates by ACME for public names, by an authority of the house for others (tenfold trust)")
	cmd.Flags().StringVar(&ssh, "ssh", "", "address of the git remote over SSH, for the keys of tenfold git keys")
	cmd.Flags().StringVar(&controlAddr, "control", "", "TCP address for the control API, behind the token of the data directory")
	cmd.Flags().StringVarP(&file, "file", "f", "", "manifest, instead of tenfold.yaml")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "return when the app serves, and leave it running")
	return cmd
}

func dirOf(args []string) string {
	dir := "."
	if len(args) > 0 {
		dir = args[0]
	}
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

func (c *cli) up(ctx context.Context, dir, file string, want daemon.Settings, detach bool) error {
	begun := time.Now()
	api, started, err := c.house(ctx, want)
	if err != nil {
		return err
	}
	defer api.Close()
	env, err := c.deploy(ctx, api, control.DeployRequest{Dir: dir, File: file, Env: tenfold.Environment(c.env), App: tenfold.AppName(c.app), Actor: actor()}, begun)
	leave := func() error { return c.takeDown(api, env, started) }
	if err != nil {
		if detach {
			return err
		}
		if ctx.Err() != nil { // the user's own doing needs no error
			return cmp.Or[error](leave(), exitStatus(tenfold.CodeCanceled.ExitStatus()))
		}
		return errors.Join(err, leave())
	}
	if detach {
		return nil
	}
	fmt.Fprintln(c.err, "Ctrl-C stops everything; data is kept.")
	err = c.watch(ctx, api, env)
	if ctx.Err() == nil {
		return err
	}
	return leave()
}

// watch prints what happens to the app until ctx ends or somebody else takes it down.
func (c *cli) watch(ctx context.Context, api control.API, env control.Env) error {
	last := int64(0)
	if err := api.Events(ctx, control.EventQuery{Env: env, Tail: 1}, func(e tenfold.Event) error { last = e.Seq; return nil }); err != nil {
		return err
	}
	p := newProgress(c.err)
	for ctx.Err() == nil {
		err := api.Events(ctx, control.EventQuery{Env: env, After: last, Follow: true}, func(e tenfold.Event) error {
			last = e.Seq
			c.show(p, e)
			return nil
		})
		if ctx.Err() != nil {
			return nil
		}
		// The daemon was replaced: the app runs on meanwhile, so ask again for a while.
		again, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, ready := c.client().Ready(again)
		cancel()
		if ready != nil {
			return errors.Join(err, ready)
		}
	}
	return nil
}

// takeDown stops the app, and with the last app the house that this command started.
func (c *cli) takeDown(api control.API, env control.Env, started bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if env.App != "" {
		fmt.Fprintf(c.err, "\nstopping %s\n", env.App)
		if err := api.Down(ctx, env); err != nil && tenfold.CodeOf(err) != tenfold.CodeNotFound {
			return err
		}
		fmt.Fprintf(c.err, "%s is stopped; its data is kept in %s\n", env.App, c.layout().Dir)
	}
	h, err := api.House(ctx)
	if err != nil || !started {
		return err
	}
	for _, a := range h.Apps {
		if a.State != "stopped" {
			return nil
		}
	}
	return c.endHouse(ctx, api)
}

// endHouse ends the house and returns when it is gone: who says up next starts another.
func (c *cli) endHouse(ctx context.Context, api control.API) error {
	if err := api.Shutdown(ctx); err != nil || os.Getenv("TENFOLD_HOST") != "" {
		return err
	}
	for c.kept(ctx) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(houseAgain):
		}
	}
	return nil
}

// houseAgain is between two looks at whether a house has come or gone.
const houseAgain = 20 * time.Millisecond

// anotherWait is how long it may take another's keeper that has the data directory to listen.
const anotherWait = 3 * time.Second

// kept says that a house's keeper lives.
func (c *cli) kept(ctx context.Context) bool {
	limit, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := keeper.Dial(limit, c.layout().Socket("keeper"))
	return err == nil
}

func actor() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}

// house returns a client of the running house, or starts one in a session of its own.
func (c *cli) house(ctx context.Context, want daemon.Settings) (*control.Client, bool, error) {
	api := c.client()
	if h, err := api.House(ctx); err == nil {
		if want.Listen != "" && len(h.Listen) > 0 && !meets(want.Listen, h.Listen[0]) {
			return nil, false, tenfold.Errorf(tenfold.CodeConflict, "the house of %s listens on %s already", h.Data, strings.Join(h.Listen, ", ")).
				WithHint("leave --listen out, use another --data, or end it first: tenfold down --house")
		}
		if want.TLS != "" && !slices.Contains(h.Listen, want.TLS) {
			return nil, false, tenfold.Errorf(tenfold.CodeConflict, "the house of %s runs already, without TLS on %s", h.Data, want.TLS).
				WithHint("end it first: tenfold down --house")
		}
		if want.SSH != "" && h.SSH != want.SSH {
			return nil, false, tenfold.Errorf(tenfold.CodeConflict, "the house of %s runs already, without SSH on %s", h.Data, want.SSH).
				WithHint("end it first: tenfold down --house")
		}
		return api, false, nil
	}
	if os.Getenv("TENFOLD_HOST") != "" {
		_, err := api.House(ctx)
		return nil, false, err
	}
	l := c.layout()
	s, err := daemon.LoadSettings(l)
	if err != nil {
		return nil, false, err
	}
	if want.Listen != "" {
		s.Listen = want.Listen
	}
	if want.TLS != "" {
		s.TLS = want.TLS
	}
	if want.SSH != "" {
		s.SSH = want.SSH
	}
	if want.Control != "" {
		s.Control = want.Control
	}
	if err := s.Save(l); err != nil {
		return nil, false, tenfold.Errorf(tenfold.CodeDenied, "use data directory %s: %w", l.Dir, err).WithHint("choose one that is yours with --data, or set TENFOLD_DATA")
	}
	if err := c.startHouse(ctx, api, l); err != nil {
		return nil, false, err
	}
	return api, true, nil
}

// meets says that an address is the one that was asked for, where port 0 asks for any.
func meets(asked, has string) bool {
	host, port, err := net.SplitHostPort(asked)
	if err != nil || port != "0" {
		return asked == has
	}
	other, _, err := net.SplitHostPort(has)
	return err == nil && host == other
}

// startHouse starts the warden detached and waits until its daemon answers. Where a keeper lives there is a house,
// whose daemon is about to be back.
func (c *cli) startHouse(ctx context.Context, api *control.Client, l daemon.Layout) error {
	wait, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for c.kept(wait) { // or it is about to end
		if _, err := api.House(wait); err == nil {
			return nil
		}
		select {
		case <-wait.Done():
			return c.started(ctx, l, wait.Err())
		case <-time.After(houseAgain):
		}
	}
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	logPath := l.Log("warden")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("start house: %w", err)
	}
	defer log.Close()
	argv := daemon.Command(binary, daemon.ModeWarden, l.Dir)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start house: %w", err)
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }() // ends with the warden; this process usually ends first
	ready := make(chan error, 1)
	go func() { _, err := api.Ready(wait); ready <- err }()
	select {
	case err := <-ready:
		return c.started(ctx, l, err)
	case <-gone:
		// Another may have been faster, and about to listen.
		for begun := time.Now(); !c.kept(wait); <-time.After(houseAgain) {
			if time.Since(begun) > anotherWait {
				cancel()
				break
			}
		}
		return c.started(ctx, l, <-ready)
	}
}

// started says why a house did not start: err, of the wait for it.
func (c *cli) started(ctx context.Context, l daemon.Layout, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return tenfold.Errorf(tenfold.CodeUnavailable, "the house did not start:\n%s", indent(lastLines(l.Log("daemon"), l.Log("warden")))).
		WithHint("read %s; is the front door's address taken? choose another: tenfold up --listen 127.0.0.1:8081", l.Log("daemon"))
}

// lastLines are the last lines of the first of the files that has any.
func lastLines(paths ...string) string {
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil || len(b) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		return strings.Join(lines[max(0, len(lines)-6):], "\n")
	}
	return "it said nothing"
}

// upload sends the project to a house that runs as somebody else or elsewhere, since it may not be
// able to read it, and points the request to where the house put it.
func (c *cli) upload(ctx context.Context, api control.API, r *control.DeployRequest) error {
	h, err := api.House(ctx)
	if err != nil {
		return err
	}
	if h.UID == os.Getuid() && os.Getenv("TENFOLD_HOST") == "" {
		return nil
	}
	file := cmp.Or(r.File, "tenfold.yaml")
	if !filepath.IsAbs(file) {
		file = filepath.Join(r.Dir, file)
	}
	text, err := os.ReadFile(file)
	if err != nil && (r.File != "" || !errors.Is(err, fs.ErrNotExist)) {
		return tenfold.Errorf(tenfold.CodeNotFound, "read manifest: %w", err).WithHint("write one with tenfold init, or leave --file out")
	}
	r.Text, r.Label = string(text), source.Label(ctx, r.Dir)
	packed := source.Packed(ctx, r.Dir)
	dir, err := api.Upload(ctx, r.Dir, packed)
	packed.Close()
	if err != nil {
		return err
	}
	r.Dir = dir
	return nil
}

// show prints an event: a line for people, or JSON.
func (c *cli) show(p *progress, e tenfold.Event) {
	if c.json {
		c.encode(e)
		return
	}
	p.event(e)
}

func (c *cli) downCommand() *cobra.Command {
	var house bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the app; data is kept. With --house, stop every app and the house itself",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api := c.client()
			defer api.Close()
			if house {
				return c.endHouse(cmd.Context(), api)
			}
			env, err := c.target(cmd.Context(), api)
			if err != nil {
				return err
			}
			if err := api.Down(cmd.Context(), env); err != nil {
				return err
			}
			fmt.Fprintf(c.err, "%s is stopped; its data is kept\n", env.App)
			return nil
		},
	}
	cmd.Flags().BoolVar(&house, "house", false, "stop every app, the front door and the daemon")
	return cmd
}
