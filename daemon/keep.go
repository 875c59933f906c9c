package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"tenfold/internal/keeper"
)

// Mode names a process of the house: the subcommand that the binary is started with.
type Mode string

// The modes.
const (
	ModeWarden Mode = "warden"
	ModeKeeper Mode = "keeper"
	ModeDaemon Mode = "daemon"
	ModeDoor   Mode = "door"
	ModePool   Mode = "pool"
	ModeInvoke Mode = "invoke"
	ModeData   Mode = "data"
	ModeFiles  Mode = "files"
	ModeSeries Mode = "series"
	// ModeContainer is not the house's own: it holds the container of a task.
	ModeContainer Mode = "container"
)

// Command is the command line that starts a mode for a data directory.
func Command(binary string, m Mode, data string) []string {
	return []string{binary, "house", string(m), "--data", data}
}

// RunWarden starts a keeper for the data directory and clears away what it leaves when it dies.
func RunWarden(ctx context.Context, data string) error {
	l, binary, err := ground(data)
	if err != nil {
		return err
	}
	return keeper.Warden(ctx, Command(binary, ModeKeeper, l.Dir), l.Socket("keeper"))
}

// RunKeeper is the keeper's process: it holds the daemon, which asks it for all else.
func RunKeeper(ctx context.Context, data string) error {
	l, binary, err := ground(data)
	if err != nil {
		return err
	}
	return keeper.Run(ctx, keeper.Config{
		Dir:    l.Tier("keeper"),
		Socket: l.Socket("keeper"),
		Units: []keeper.Unit{{
			ID:       "house/daemon",
			Argv:     Command(binary, ModeDaemon, l.Dir),
			Env:      os.Environ(),
			Dir:      "/",
			Restart:  keeper.RestartAlways,
			Log:      l.Log("daemon"),
			OOMScore: -500,
		}},
	})
}

// ground makes a data directory's path absolute, its folders, and finds this binary.
func ground(data string) (Layout, string, error) {
	dir, err := filepath.Abs(data)
	if err != nil {
		return Layout{}, "", fmt.Errorf("find data directory: %w", err)
	}
	l := Layout{dir}
	if err := l.prepare(); err != nil {
		return l, "", fmt.Errorf("make data directory: %w", err)
	}
	binary, err := os.Executable()
	if err != nil {
		return l, "", fmt.Errorf("find own binary: %w", err)
	}
	return l, binary, nil
}
