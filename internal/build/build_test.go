package build

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tenfold/internal/keeper"
	"tenfold/internal/keeper/keepertest"
	"tenfold/internal/source"
)

func TestMain(m *testing.M) { keepertest.Main(m, nil) }

func sh(line string) []string { return []string{"/bin/sh", "-c", line} }

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

type site struct {
	*Builder
	root   string
	stages []string
}

func begin(t *testing.T, files map[string]string) *site {
	s := &site{root: t.TempDir()}
	write(t, s.root, files)
	s.Builder = &Builder{Dir: t.TempDir(), Units: keepertest.Start(t), Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}}
	return s
}

func (s *site) request(t *testing.T, path string) Request {
	t.Helper()
	d, err := source.Digest(t.Context(), s.root, ".")
	if err != nil {
		t.Fatal(err)
	}
	return Request{
		ID: "shop/production/" + path, Root: s.root, Context: ".", Path: path, Digest: d, Log: filepath.Join(s.Dir, path+".log"),
		Done: func(st Stage) { s.stages = append(s.stages, st.Name) },
	}
}

func (s *site) units(t *testing.T) []keeper.Status {
	t.Helper()
	left, err := s.Units.List(t.Context(), "build/")
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func TestBuildOnceThenCached(t *testing.T) {
	s := begin(t, map[string]string{"api/main.txt": "hello"})
	r := s.request(t, "api")
	r.Install, r.Test, r.Command = sh("echo deps > deps"), sh("test -f deps"), sh("mkdir out && cat main.txt deps > out/app && pwd > out/where")
	r.Output = "out"
	one, err := s.Build(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(one.Output, "app")); string(b) != "hello\ndeps\n" && string(b) != "hellodeps\n" || err != nil {
		t.Errorf("output is %q, %v", b, err)
	}
	if b, _ := os.ReadFile(filepath.Join(one.Output, "where")); strings.TrimSpace(string(b)) != one.Dir {
		t.Errorf("built in %q and found in %q: absolute paths in the result break", b, one.Dir)
	}
	if want := []string{"install", "test", "build"}; !slices.Equal(s.stages, want) {
		t.Errorf("stages %v, want %v", s.stages, want)
	}
	two, err := s.Build(t.Context(), r)
	if err != nil || !two.Cached || two.Dir != one.Dir || len(s.stages) != 3 {
		t.Errorf("the second build: %+v, %v", two, err)
	}
	if left := s.units(t); len(left) > 0 {
		t.Errorf("units are left: %v", left)
	}
	if err := s.Prune(nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(one.Key); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("found after Prune: %v", err)
	}
}

func TestAFailingTestStopsTheBuild(t *testing.T) {
	s := begin(t, map[string]string{"api/x": ""})
	r := s.request(t, "api")
	r.Test, r.Command = sh("for i in $(seq 30); do echo line $i; done; echo '\x1b[31mwrong\x1b[0m' >&2; exit 3"), sh("touch built")
	_, err := s.Build(t.Context(), r)
	var failed *StageError
	if !errors.As(err, &failed) {
		t.Fatalf("got %v", err)
	}
	if failed.Stage != "test" || failed.Reason != "exited with status 3" || len(failed.Output) != 20 || !slices.Contains(failed.Output, "wrong") || failed.Hint == "" {
		t.Errorf("failure: %+v", failed)
	}
	if _, err := os.Stat(filepath.Join(s.dir(Key(r)), "tree", "api", "built")); err == nil {
		t.Error("the build ran after a failed test")
	}
	if _, err := s.Find(Key(r)); err == nil {
		t.Error("a failed build is found")
	}
}

func TestTimeoutAndCancelLeaveNothing(t *testing.T) {
	s := begin(t, map[string]string{"api/x": ""})
	r := s.request(t, "api")
	r.Command, r.Timeout = sh("sleep 60 & sleep 60"), 200*time.Millisecond
	_, err := s.Build(t.Context(), r)
	var failed *StageError
	if !errors.As(err, &failed) || !strings.Contains(failed.Reason, "not done after") {
		t.Errorf("timeout: %v", err)
	}
	r.Timeout = 0
	ctx, cancel := context.WithCancel(t.Context())
	r.Progress = func(text string) {
		if strings.HasPrefix(text, "build:") {
			cancel()
		}
	}
	if _, err := s.Build(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("cancel: %v", err)
	}
	if left := s.units(t); len(left) > 0 {
		t.Errorf("units are left: %v", left)
	}
}

func TestLeftoversOfADeadDaemonGo(t *testing.T) {
	s := begin(t, map[string]string{"api/x": ""})
	r := s.request(t, "api")
	r.Command = sh("echo new > made")
	if _, err := s.Units.Start(t.Context(), keeper.Unit{ID: "build/shop/production/api/build", Argv: sh("sleep 60"), Env: s.Env}); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(s.dir(Key(r)), "tree"), map[string]string{"api/half": "x"})
	done, err := s.Build(t.Context(), r)
	if err != nil || done.Cached {
		t.Fatalf("got %+v, %v", done, err)
	}
	if _, err := os.Stat(filepath.Join(done.Dir, "half")); err == nil {
		t.Error("the unfinished build was built upon")
	}
}

func TestSourcesThatChangedAreNotKept(t *testing.T) {
	s := begin(t, map[string]string{"api/x": "1"})
	r := s.request(t, "api")
	write(t, s.root, map[string]string{"api/x": "2"})
	if _, err := s.Build(t.Context(), r); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v", err)
	}
}

func TestMissingToolIsNamed(t *testing.T) {
	s := begin(t, map[string]string{"api/x": ""})
	s.Env = []string{"PATH=/nowhere"}
	r := s.request(t, "api")
	r.Language, r.Command = "go", []string{"go", "build"}
	_, err := s.Build(t.Context(), r)
	var missing *MissingError
	if !errors.As(err, &missing) || missing.Tool != "go" || !strings.Contains(missing.Hint, "golang") {
		t.Errorf("got %v", err)
	}
}

func TestKeyCoversWhatChangesTheResult(t *testing.T) {
	base := Request{Digest: "d", Path: "api", Context: ".", Command: sh("a"), Env: []string{"A=1"}}
	seen := map[string]bool{Key(base): true}
	for what, change := range map[string]func(*Request){
		"digest": func(r *Request) { r.Digest = "e" }, "path": func(r *Request) { r.Path = "web" },
		"command": func(r *Request) { r.Command = sh("b") }, "test": func(r *Request) { r.Test = sh("a") },
		"env": func(r *Request) { r.Env = []string{"A=2"} }, "secret": func(r *Request) { r.Secret = []string{"B=1"} },
		"version": func(r *Request) { r.Version = "22" }, "output": func(r *Request) { r.Output = "dist" },
	} {
		r := base
		change(&r)
		if k := Key(r); seen[k] {
			t.Errorf("another %s gives the same key", what)
		} else {
			seen[k] = true
		}
	}
	moved := base
	moved.Root, moved.ID, moved.Log = "/elsewhere", "x", "y"
	if Key(moved) != Key(base) {
		t.Error("where the project lies changes the key")
	}
}

func TestNodeModulesAreRestored(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("npm is not installed")
	}
	s := begin(t, map[string]string{
		"web/package.json":      `{"name":"web","version":"1.0.0","dependencies":{"dep":"file:dep.tgz"}}`,
		"web/index.js":          "1",
		"dep/package.json":      `{"name":"dep","version":"1.0.0"}`,
		"dep/index.js":          "module.exports = 1",
		"web/package-lock.json": "",
	})
	env := append(os.Environ(), "npm_config_audit=false")
	for _, c := range [][]string{{"npm", "pack", "--silent", "--pack-destination", "../web"}, {"mv", "../web/dep-1.0.0.tgz", "../web/dep.tgz"}, {"rm", "../web/package-lock.json"}, {"npm", "install", "--silent", "--package-lock-only", "--prefix", "../web"}} {
		cmd := exec.Command(c[0], c[1:]...)
		cmd.Dir, cmd.Env = filepath.Join(s.root, "dep"), env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
	build := func(env ...string) Result {
		t.Helper()
		r := s.request(t, "web")
		r.Env = env
		r.Language, r.Install, r.Command = "node", sh("npm ci"), sh("node -e 'require(\"dep\")'")
		res, err := s.Build(t.Context(), r)
		if err != nil {
			var failed *StageError
			if errors.As(err, &failed) {
				t.Log(failed.Detail())
			}
			t.Fatal(err)
		}
		// Before it stands the toolchain where this machine's Node.js is too old.
		install := slices.IndexFunc(res.Stages, func(s Stage) bool { return s.Name == "install" })
		if install < 0 || res.Stages[install].Note != "1 package installed" {
			b, _ := json.Marshal(res.Stages)
			t.Errorf("stages: %s", b)
		}
		return res
	}
	one := build()
	write(t, s.root, map[string]string{"web/index.js": "2"})
	two := build()
	a, err1 := os.Stat(filepath.Join(one.Dir, "node_modules/dep/index.js"))
	b, err2 := os.Stat(filepath.Join(two.Dir, "node_modules/dep/index.js"))
	if err1 != nil || err2 != nil || !os.SameFile(a, b) {
		t.Errorf("the second build installed again (%v, %v)", err1, err2)
	}
	// What another environment made of the same lock file is nobody else's.
	three := build("npm_config_ignore_scripts=true")
	if c, err := os.Stat(filepath.Join(three.Dir, "node_modules/dep/index.js")); err != nil || os.SameFile(a, c) {
		t.Errorf("with another environment the packages are the same (%v)", err)
	}
}
