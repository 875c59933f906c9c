package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tenfold/internal/keeper"
)

// noting keeps what was started.
type noting struct {
	keeper.Units
	started []keeper.Unit
}

func (n *noting) Start(ctx context.Context, u keeper.Unit) (keeper.Status, error) {
	n.started = append(n.started, u)
	return n.Units.Start(ctx, u)
}

func TestEveryCommandIsLimitedAndHidesSecrets(t *testing.T) {
	s := begin(t, map[string]string{"web/a": "1"})
	n := &noting{Units: s.Units}
	s.Units = n
	r := s.request(t, "web")
	r.Memory, r.Secret = 256<<20, []string{"TOKEN=hunter2hunter2"}
	r.Install, r.Test, r.Command = sh("true"), sh("true"), sh("echo $TOKEN && cp a b")
	done, err := s.Build(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range n.started {
		if u.Memory != 256<<20 || !slices.Equal(u.Hide, []string{"TOKEN"}) {
			t.Errorf("%s: memory %d, hides %v", u.ID, u.Memory, u.Hide)
		}
	}
	if len(n.started) != 3 {
		t.Errorf("%d commands ran", len(n.started))
	}
	if b, err := os.ReadFile(r.Log); err != nil || strings.Contains(string(b), "hunter2") || !strings.Contains(string(b), "***") {
		t.Errorf("%v: the log has %s", err, b)
	}

	// A check runs where the build lies, within its own limit, and leaves nothing.
	r.Secret = nil
	if err := s.Check(t.Context(), done.Key, r, "e2e", sh("test -f b")); err != nil {
		t.Error(err)
	}
	r.Timeout = 200 * time.Millisecond
	var failed *StageError
	if err := s.Check(t.Context(), done.Key, r, "e2e", sh("echo waiting; sleep 60")); !errors.As(err, &failed) || failed.Stage != "e2e" || failed.Reason != "not done after 200ms" {
		t.Errorf("a check that hangs: %v", err)
	}
	if left := s.units(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := s.Check(t.Context(), "00000000000000000000", r, "e2e", sh("true")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a check of no build: %v", err)
	}
}

// TestPinsTellSecretsApart: the key of a build with secrets is known without them, and a new version of
// one is a new build.
func TestPinsTellSecretsApart(t *testing.T) {
	r := Request{Digest: "d", Pins: []string{"TOKEN=shop/TOKEN@1"}}
	known := Key(r)
	r.Secret = []string{"TOKEN=value"}
	if Key(r) != known {
		t.Error("the value is in the key")
	}
	r.Pins = []string{"TOKEN=shop/TOKEN@2"}
	if Key(r) == known {
		t.Error("another version has the same key")
	}
}

func TestThePackageManagerIsTheProjectsOwn(t *testing.T) {
	for _, c := range []struct{ name, file, text, want string }{
		{"pnpm", "package.json", `{"packageManager":"pnpm@9.15.9+sha512.abc"}`, "9.15.9"},
		{"yarn", "package.json", `{"packageManager":"pnpm@9.15.9"}`, ""},
		{"pnpm", "package.json", `{"packageManager":"pnpm@../../evil"}`, ""},
		{"pnpm", "package.json", `not json`, ""},
		{"pnpm", "pnpm-lock.yaml", "lockfileVersion: '6.0'\n", "8"},
		{"pnpm", "pnpm-lock.yaml", "lockfileVersion: '9.0'\n", ""},
		{"yarn", "yarn.lock", "__metadata:\n  version: 8\n", "4"},
		{"yarn", "yarn.lock", "# yarn lockfile v1\n", ""},
	} {
		b := &Builder{Dir: t.TempDir()}
		m := &making{Builder: b, result: Result{Key: "k"}}
		m.result.Dir = filepath.Join(b.dir("k"), "tree")
		write(t, m.result.Dir, map[string]string{c.file: c.text})
		if got := m.managerVersion(c.name); got != c.want {
			t.Errorf("%s by %s %q: version %q, want %q", c.name, c.file, c.text, got, c.want)
		}
	}
	for command, want := range map[string]string{"cd ../.. && pnpm install": "pnpm", "yarn": "yarn", "npm ci": "", "echo my-yarn x": "", "(yarn build)": "yarn"} {
		got := ""
		if m := managerWord.FindStringSubmatch(command + " "); m != nil {
			got = m[1]
		}
		if got != want {
			t.Errorf("%q is run by %q, want %q", command, got, want)
		}
	}
}
