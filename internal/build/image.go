package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tenfold/internal/container"
	"tenfold/internal/keeper"
)

// image has the container engine make the image that is the result. It is named by the key: what the
// reference leads to later, or another build of the same sources, does not change what runs.
func (m *making) image(ctx context.Context) error {
	if m.Containers == nil {
		return fmt.Errorf("build %s: nobody runs containers here", m.ID)
	}
	if err := os.MkdirAll(m.result.Dir, 0o755); err != nil { // before the image, which nobody knows otherwise
		return fmt.Errorf("build %s: %w", m.ID, err)
	}
	m.result.Image = m.Containers.Tag(m.result.Key)
	i := container.Image{Tag: m.result.Image, Ref: m.Image, Dir: m.result.Dir, Dockerfile: m.Dockerfile}
	name, command := "pull", "docker pull "+m.Image
	if m.Image == "" {
		name, command = "image", "docker build -f "+m.Dockerfile+" ."
	}
	m.progress("%s: %s", name, command)
	u, err := m.Containers.Maker(ctx, keeper.Unit{
		// What logging in to a registry leaves is found by these.
		ID: unitPrefix(m.ID) + name, Env: slices.DeleteFunc(os.Environ(), func(kv string) bool {
			return !strings.HasPrefix(kv, "HOME=") && !strings.HasPrefix(kv, "DOCKER_CONFIG=") && !strings.HasPrefix(kv, "XDG_RUNTIME_DIR=")
		}), Log: m.Log, LogKeep: 1, StopGrace: 5 * time.Second,
	}, i)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := m.hold(ctx, u, name, command); err != nil {
		return err
	}
	// The engine has the files now; the folder alone says that the build is there.
	if err := errors.Join(os.RemoveAll(m.result.Tree), os.MkdirAll(m.result.Dir, 0o755)); err != nil {
		return fmt.Errorf("build %s: %w", m.ID, err)
	}
	m.done(Stage{Name: name, Command: command, Took: time.Since(began)})
	return nil
}

// Forget has a build be made again the next time that somebody wants it: what it made is gone.
func (b *Builder) Forget(key string) error {
	if !keyForm.MatchString(key) {
		return nil
	}
	err := os.Remove(filepath.Join(b.dir(key), "build.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Known says that a build is there, or is being made.
func (b *Builder) Known(key string) bool {
	if !keyForm.MatchString(key) {
		return false
	}
	_, err := os.Stat(b.dir(key))
	return err == nil
}
