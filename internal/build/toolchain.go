package build

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// tool is a program that the machine lacks and npm carries.
type tool struct {
	name, version string
	pack          string // as npm is asked for it: "node@22"
	bin           string // the folder that it is in then
	why           string // it is fetched
	missing       MissingError
	works         func(program string) error // nil: it does
}

func (m *making) toolchains() string { return filepath.Join(m.Builder.Dir, "toolchains") }

// fetch puts a tool first in PATH, from a folder that all builds share.
func (m *making) fetch(ctx context.Context, t tool) error {
	dir := filepath.Join(m.toolchains(), t.name+"-"+t.version)
	bin := filepath.Join(dir, t.bin)
	if !executable(filepath.Join(bin, t.name)) {
		if err := m.bring(ctx, t, dir); err != nil {
			return err
		}
	}
	m.result.Bin = append(m.result.Bin, bin)
	m.env = append(m.env, "PATH="+bin+string(filepath.ListSeparator)+valueOf(m.env, "PATH"))
	return nil
}

// bring has npm fetch a tool into dir. What lies there runs in every build after this one, so the project
// of this one has no say: npm is the machine's, with the machine's environment and a folder of its own.
func (m *making) bring(ctx context.Context, t tool, dir string) error {
	if _, ok := lookup(m.machine, "npm"); !ok {
		return &t.missing
	}
	lock := m.lock("toolchain")
	lock.Lock()
	defer lock.Unlock()
	if executable(filepath.Join(dir, t.bin, t.name)) {
		return nil // another build was first
	}
	m.progress("fetching %s %s: %s", t.name, t.version, t.why)
	tmp := filepath.Join(m.toolchains(), ".new-"+rand.Text())
	defer os.RemoveAll(tmp)
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return fmt.Errorf("fetch %s: %w", t.name, err)
	}
	began := time.Now()
	if err := m.run(ctx, "toolchain", []string{"npm", "install", "--no-save", "--prefix", tmp, t.pack}, m.machine, tmp); err != nil {
		return err
	}
	if t.works != nil {
		if err := t.works(filepath.Join(tmp, t.bin, t.name)); err != nil {
			return err
		}
	}
	if err := errors.Join(os.RemoveAll(dir), os.Rename(tmp, dir)); err != nil {
		return fmt.Errorf("fetch %s: %w", t.name, err)
	}
	what := t.name + " " + t.version
	m.done(Stage{Name: "toolchain", Command: what, Took: time.Since(began), Note: what + " fetched"})
	return nil
}
