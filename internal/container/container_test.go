package container

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"tenfold/internal/keeper"
)

// driven makes the process of a unit as the keeper would start it, without the process.
func driven(t *testing.T, u keeper.Unit, s Spec) (r *runner, out, errw *bytes.Buffer) {
	t.Helper()
	u, err := Driver{Command: []string{"tenfold", "house", "container"}, Data: "/var/lib/tenfold"}.Unit(t.Context(), u, s)
	if err != nil {
		t.Fatal(err)
	}
	o, env, err := takeOrder(u.Env)
	if err != nil {
		t.Fatal(err)
	}
	out, errw = &bytes.Buffer{}, &bytes.Buffer{}
	say := func(format string, args ...any) { fmt.Fprintf(errw, "tenfold: "+format+"\n", args...) }
	return &runner{Engine: &Engine{Socket: o.Socket}, order: o, spec: *o.Run, env: env, out: out, errw: errw, say: say}, out, errw
}

func TestAContainerIsAUnit(t *testing.T) {
	f := newFake(t)
	var got config
	f.does = func(c *fakeContainer) int {
		got = c.config
		c.say(1, "to out\n")
		c.say(2, "to err\n")
		return 3
	}
	r, out, errw := driven(t, keeper.Unit{ID: "task/shop/production/api/1", Env: []string{"PORT=8000", "TENFOLD_UNIT=x"}, StopGrace: 10 * time.Second},
		Spec{Image: "app:1", Argv: []string{"/app", "serve"}, Memory: 64 << 20, CPU: 0.5, PIDs: 4096})
	if code := r.run(t.Context()); code != 3 {
		t.Errorf("it ended with %d: %s", code, errw)
	}
	if out.String() != "to out\n" || errw.String() != "to err\n" {
		t.Errorf("it said %q and %q", out, errw)
	}
	h := got.HostConfig
	if got.Entrypoint[0] != "/app" || got.Cmd[0] != "serve" || !slices.Equal(got.Env, []string{"PORT=8000", "TENFOLD_UNIT=x"}) || got.Tty || got.OpenStdin {
		t.Errorf("%+v", got)
	}
	if h.NetworkMode != "host" || h.Memory != 64<<20 || h.MemorySwap != 64<<20 || h.NanoCpus != 5e8 || h.PidsLimit != 4096 || h.LogConfig.Type != "none" ||
		!slices.Equal(h.CapDrop, []string{"ALL"}) || !slices.Contains(h.SecurityOpt, "no-new-privileges") || !h.Init {
		t.Errorf("%+v", h)
	}
	if len(f.containers) != 0 {
		t.Error("the container is still there")
	}
}

func TestWhatAKilledProcessLeftMakesRoom(t *testing.T) {
	f := newFake(t)
	u := keeper.Unit{ID: "task/shop/production/api/1", StopGrace: time.Second}
	r, _, _ := driven(t, u, Spec{Image: "app:1"})
	if id, code := r.create(t.Context()); id != "id1" || code != 0 {
		t.Fatal(id, code)
	}
	// Another house's with the same unit stays, and one that has the name without the labels goes.
	other, _, _ := driven(t, u, Spec{Image: "app:1"})
	other.House = "0123"
	other.create(t.Context())
	f.containers["x"] = &fakeContainer{id: "x", name: containerName(r.House, "task/shop/production/api/2")}
	for _, n := range []string{"1", "2"} {
		u.ID = "task/shop/production/api/" + n
		r, _, errw := driven(t, u, Spec{Image: "app:1"})
		if code := r.run(t.Context()); code != 0 {
			t.Error(code, errw)
		}
	}
	if len(f.containers) != 1 || f.containers["id2"] == nil {
		t.Errorf("%v", f.containers)
	}
}

// A command of a service is shut in before it has its name, and takes away nobody else's container.
func TestTheKeeperNamesACommand(t *testing.T) {
	f := newFake(t)
	task, _, _ := driven(t, keeper.Unit{ID: "task/shop/production/api/1", StopGrace: time.Second}, Spec{Image: "app:1"})
	task.create(t.Context())
	var got config
	f.does = func(c *fakeContainer) int { got = c.config; return 0 }
	command, _, errw := driven(t, keeper.Unit{Env: []string{"TENFOLD_UNIT=exec/shop/production/api/1"}, StopGrace: time.Second}, Spec{Image: "app:1"})
	if code := command.run(t.Context()); code != 0 || got.Labels[labelUnit] != "exec/shop/production/api/1" {
		t.Errorf("exit %d, %v: %s", code, got.Labels, errw)
	}
	nameless, _, errw := driven(t, keeper.Unit{StopGrace: time.Second}, Spec{Image: "app:1"})
	if code := nameless.run(t.Context()); code != ExitEngine || len(f.containers) != 1 {
		t.Errorf("without a name: exit %d, %d containers: %s", code, len(f.containers), errw)
	}
}

func TestAStopIsTheEngines(t *testing.T) {
	f := newFake(t)
	began := make(chan *fakeContainer, 1)
	f.does = func(c *fakeContainer) int {
		began <- c
		<-c.stopped
		c.say(1, "last words")
		return 143
	}
	r, out, _ := driven(t, keeper.Unit{ID: "task/a/production/b/1", StopGrace: 12 * time.Second}, Spec{Image: "app:1"})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	if code := r.run(ctx); code != 143 || out.String() != "last words" {
		t.Errorf("%d, %q", code, out)
	}
}

func TestUnitKeepsNothingOfAProcess(t *testing.T) {
	newFake(t)
	u, err := Driver{Command: []string{"tenfold", "house", "container"}, Data: "/d"}.Unit(t.Context(),
		keeper.Unit{ID: "task/a/production/b/1", Argv: []string{"./b"}, Dir: "/build", Memory: 1, CPU: 1, StopTree: true, Strict: true, StopGrace: 10 * time.Second}, Spec{Image: "i"})
	if err != nil || u.Argv[0] != "tenfold" || u.Dir != "/" || u.Memory != 0 || u.CPU != 0 || u.StopTree || u.Strict || u.StopGrace <= 10*time.Second {
		t.Errorf("%+v, %v", u, err)
	}
	if _, _, err := takeOrder([]string{"A=b"}); err == nil {
		t.Error("without an order something runs")
	}
	if _, _, err := takeOrder([]string{orderVar + "={"}); err == nil {
		t.Error("half an order was taken")
	}
}

func TestHowAContainerEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		set    func(*fake)
		strict bool
		code   Exit
		said   string
	}{
		{"out of memory", func(f *fake) { f.does = func(c *fakeContainer) int { c.oom = true; return 137 } }, false, 137, "out of memory of its 64 MB"},
		{"no program", func(f *fake) {
			f.refuse = `OCI runtime create failed: exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown`
		}, false, 127, "has no program"},
		{"no program, says what is first", func(f *fake) {
			f.does = func(c *fakeContainer) int {
				c.say(2, "[FATAL tini (7)] exec /bin/sh failed: No such file or directory\n")
				return 127
			}
		}, false, 127, "has no program"},
		{"not executable", func(f *fake) { f.refuse = `exec: "/app": permission denied` }, false, 126, "may not be executed"},
		{"no image", func(f *fake) { clear(f.images) }, false, 125, "its image is gone"},
		{"engine refuses", func(f *fake) { f.refuse = "out of disk" }, false, 125, "out of disk"},
		{"no limits", func(f *fake) {
			f.warnings = []string{"Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded."}
		}, true, 125, "best-effort"},
		{"no limits, best effort", func(f *fake) {
			f.warnings = []string{"Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded."}
		}, false, 0, "cannot enforce a limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			c.set(f)
			r, _, errw := driven(t, keeper.Unit{ID: "task/a/production/b/1", StopGrace: time.Second}, Spec{Image: "app:1", Memory: 64 << 20, Strict: c.strict})
			if code := r.run(t.Context()); code != c.code || !strings.Contains(errw.String(), c.said) {
				t.Errorf("%d: %s", code, errw)
			}
			if len(f.containers) != 0 {
				t.Error("the container is still there")
			}
		})
	}
}

func TestFindSaysWhatToInstall(t *testing.T) {
	dir := t.TempDir()
	for host, want := range map[string]string{"unix://" + dir + "/none.sock": "there is no container engine", "tcp://10.0.0.1:2375": "have to be on this machine"} {
		t.Setenv("DOCKER_HOST", host)
		_, err := Find(t.Context())
		var missing *MissingError
		if !errors.As(err, &missing) || !strings.Contains(missing.Reason, want) || missing.Hint == "" {
			t.Errorf("%s: %v", host, err)
		}
	}
	f := newFake(t)
	e, err := Find(t.Context())
	if err != nil || e.Socket != f.socket {
		t.Fatal(e, err)
	}
	if i, err := e.Info(t.Context()); err != nil || i.String() != "Docker 20.10.24" || !i.Init {
		t.Error(i, err)
	}
	f.info, f.libpod = "", "4.3.1"
	if i, err := e.Info(t.Context()); err != nil || i.String() != "Podman 4.3.1" || i.Init {
		t.Error(i, err)
	}
}

func TestSweep(t *testing.T) {
	newFake(t)
	d := Driver{Data: "/var/lib/tenfold"}
	for _, id := range []string{"task/a/production/b/1", "task/a/production/b/2", terminalUnit + "1", terminalUnit + "999999999"} {
		r, _, _ := driven(t, keeper.Unit{ID: id}, Spec{Image: "app:1"})
		r.create(t.Context())
	}
	other, _, _ := driven(t, keeper.Unit{ID: "task/a/production/b/3"}, Spec{Image: "app:1"})
	other.House = "other"
	other.create(t.Context())
	n, err := d.Sweep(t.Context(), func(context.Context) (map[string]bool, error) {
		return map[string]bool{"task/a/production/b/2": true}, nil
	})
	if n != 2 || err != nil {
		t.Error(n, err)
	}
	if pid := d.PID(t.Context(), "task/a/production/b/2"); pid != 0 {
		t.Error("what does not run has a process:", pid)
	}
	t.Setenv("DOCKER_HOST", "unix:///nowhere.sock")
	if n, err := d.Sweep(t.Context(), nil); n != 0 || err != nil {
		t.Error(n, err)
	}
}

func TestAnImageIsPulledOnce(t *testing.T) {
	f := newFake(t)
	f.registry = []string{"ghcr.io/shop/search:4"}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("DOCKER_CONFIG", "")
	os.MkdirAll(filepath.Join(home, ".docker"), 0o700)
	os.WriteFile(filepath.Join(home, ".docker", "config.json"), []byte(`{"auths":{"ghcr.io":{"auth":"`+base64.StdEncoding.EncodeToString([]byte("me:secret"))+`"}}}`), 0o600)
	d := Driver{Data: "/d"}
	out := &bytes.Buffer{}
	if err := f.engine().Make(t.Context(), Image{Tag: d.Tag("k1"), Ref: "ghcr.io/shop/search:4"}, out); err != nil {
		t.Fatal(err)
	}
	if !f.images[d.Tag("k1")] || f.images["ghcr.io/shop/search:4"] || !strings.Contains(out.String(), "a: Pull complete") {
		t.Errorf("%v\n%s", f.images, out)
	}
	if b, _ := base64.URLEncoding.DecodeString(f.auth); !strings.Contains(string(b), `"password":"secret"`) {
		t.Errorf("credentials: %s", b)
	}
	// One that was there stays the user's.
	if err := f.engine().Make(t.Context(), Image{Tag: d.Tag("k2"), Ref: "app:1"}, out); err != nil || !f.images["app:1"] || !f.images[d.Tag("k2")] {
		t.Error(err, f.images)
	}
	err := f.engine().Make(t.Context(), Image{Tag: d.Tag("k3"), Ref: "nobody/none"}, out)
	if err == nil || !strings.Contains(err.Error(), "pull nobody/none") || !strings.Contains(err.Error(), "hint: ") {
		t.Error(err)
	}
	if err := d.Prune(t.Context(), func(key string) bool { return key == "k2" }); err != nil || f.images[d.Tag("k1")] || !f.images[d.Tag("k2")] || !f.images["app:1"] {
		t.Error(err, f.images)
	}
}

func field(n protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), v)
}

func TestAnImageIsBuilt(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Dockerfile": "FROM scratch\nCOPY app /\n", ".dockerignore": "*.md\nnode_modules\n!README.md\nDockerfile\n", "app": "x", "a.md": "x", "README.md": "x", "node_modules/a": "x", "sub/b": "x",
	} {
		os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755)
		os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
	}
	os.Symlink("app", filepath.Join(dir, "link"))
	vertex := slices.Concat(field(vertexDigest, "sha256:1"), field(vertexName, "[1/1] COPY app /"), field(vertexStarted, ""))
	failing := slices.Concat(field(vertexDigest, "sha256:1"), field(vertexName, "[1/1] COPY app /"), field(vertexErrorMsg, "app: not found"))
	aux := func(parts ...[]byte) string {
		return `{"id":"moby.buildkit.trace","aux":"` + base64.StdEncoding.EncodeToString(slices.Concat(parts...)) + `"}` + "\n"
	}
	var names []string
	f.built = func(q url.Values, body io.Reader) string {
		for in := tar.NewReader(body); ; {
			h, err := in.Next()
			if err != nil {
				break
			}
			if !h.ModTime.IsZero() && h.ModTime.Unix() != 0 || h.Uname != "" {
				t.Errorf("%s tells when and who: %v %s", h.Name, h.ModTime, h.Uname)
			}
			names = append(names, h.Name)
		}
		if q.Get("version") != "2" || q.Get("dockerfile") != "Dockerfile" {
			t.Error(q)
		}
		f.images[q.Get("t")] = true
		return aux(field(fieldVertexes, string(vertex)), field(fieldLogs, string(field(logMessage, "compiling\n")))) + aux(field(fieldVertexes, string(vertex)))
	}
	out := &bytes.Buffer{}
	if err := f.engine().Make(t.Context(), Image{Tag: "localhost/x:k", Dir: dir, Dockerfile: "Dockerfile"}, out); err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	if want := ".dockerignore Dockerfile README.md app link sub/ sub/b"; strings.Join(names, " ") != want {
		t.Errorf("the context is %q", names)
	}
	if out.String() != "[1/1] COPY app /\ncompiling\n" {
		t.Errorf("told: %q", out)
	}
	f.built = func(_ url.Values, body io.Reader) string {
		io.Copy(io.Discard, body)
		return aux(field(fieldVertexes, string(failing))) + `{"error":"failed to solve"}`
	}
	if err := f.engine().Make(t.Context(), Image{Tag: "localhost/x:k", Dir: dir, Dockerfile: "Dockerfile"}, out); err == nil || !strings.Contains(out.String(), "app: not found") {
		t.Error(err, out)
	}
	if err := f.engine().Make(t.Context(), Image{Tag: "localhost/x:k", Dir: dir, Dockerfile: "docker/Other"}, out); err == nil || !strings.Contains(err.Error(), "there is no docker/Other") {
		t.Error(err)
	}
}

func TestReferences(t *testing.T) {
	for ref, want := range map[string][3]string{
		"redis": {"redis", "latest", "docker.io"}, "redis:7": {"redis", "7", "docker.io"}, "localhost:5000/a": {"localhost:5000/a", "latest", "localhost:5000"},
		"ghcr.io/a/b:1.2": {"ghcr.io/a/b", "1.2", "ghcr.io"}, "a/b@sha256:12": {"a/b", "sha256:12", "docker.io"}, "localhost/tenfold-1:k": {"localhost/tenfold-1", "k", "localhost"},
	} {
		name, version := splitRef(ref)
		if got := [3]string{name, version, registry(ref)}; got != want {
			t.Errorf("%s: %v", ref, got)
		}
	}
}

func FuzzDemultiplex(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 2, 'h', 'i', 2, 0, 0, 0, 0, 0, 0, 1, '!'})
	f.Add([]byte{9, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var out, errw bytes.Buffer
		demultiplex(bytes.NewReader(b), &out, &errw)
		if out.Len()+errw.Len() > len(b) {
			t.Error("more came out than went in")
		}
	})
}

func FuzzTell(f *testing.F) {
	f.Add([]byte(`{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"a"}{"id":"moby.buildkit.trace","aux":"CgMKAXg="}{"error":"x"}`))
	f.Add([]byte(`{"stream":"Step 1/1"}`))
	f.Fuzz(func(t *testing.T, b []byte) { tell(bytes.NewReader(b), io.Discard) })
}

func FuzzTrace(f *testing.F) {
	f.Add(field(fieldVertexes, string(field(vertexName, "x"))))
	f.Fuzz(func(t *testing.T, b []byte) { (&tracer{out: io.Discard, named: map[string]bool{}}).take(b) })
}

func FuzzCredentials(f *testing.F) {
	f.Add([]byte(`{"auths":{"ghcr.io":{"auth":"bWU6c2VjcmV0"}}}`), "ghcr.io")
	f.Fuzz(func(t *testing.T, b []byte, registry string) { credentialsIn(b, registry) })
}
