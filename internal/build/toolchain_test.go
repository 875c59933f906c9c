package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// npmOf is an npm that makes programs which say its name, and notes what environment it was given.
func npmOf(name string) string {
	return `#!/bin/sh
# install --no-save --prefix DIR PACK
note="$(dirname "$0")/asked"
{ echo "in $PWD"; echo "for $5"; env; } >> "$note"
case "$5" in
node@*) bin="$4/node_modules/node/bin"; said="v99.0.0"; prog=node ;;
*) bin="$4/node_modules/.bin"; said="` + name + `"; prog=pnpm ;;
esac
mkdir -p "$bin"
printf '#!/bin/sh\necho %s\n' "$said" > "$bin/$prog"
chmod +x "$bin/$prog"
`
}

// TestAToolchainIsTheMachinesAndNotTheProjects: it runs in the builds of all others too.
func TestAToolchainIsTheMachinesAndNotTheProjects(t *testing.T) {
	s := begin(t, map[string]string{
		"web/package.json": `{"packageManager":"pnpm@9.1.2"}`, "web/.npmrc": "registry=http://evil.example\n",
	})
	machine, evil := t.TempDir(), t.TempDir()
	for dir, name := range map[string]string{machine: "good", evil: "evil"} {
		if err := os.WriteFile(filepath.Join(dir, "npm"), []byte(npmOf(name)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.Env = []string{"PATH=" + machine + ":/usr/bin:/bin", "OF_THE_MACHINE=1"}
	r := s.request(t, "web")
	r.Language, r.Version = "node", "99"
	r.Install = sh("pnpm install > said && node --version >> said")
	r.Env = []string{"PATH=" + evil + ":/usr/bin:/bin", "npm_config_registry=http://evil.example", "NODE_OPTIONS=--require=/evil.js", "HOME=" + evil}
	r.Secret = []string{"NPM_TOKEN=hunter2hunter2"}
	var told []string
	r.Done = func(st Stage) { told = append(told, st.Note) }
	res, err := s.Build(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(res.Dir, "said")); string(b) != "good\nv99.0.0\n" {
		t.Errorf("the toolchain says %q, %v", b, err)
	}
	b, err := os.ReadFile(filepath.Join(machine, "asked"))
	if err != nil {
		t.Fatal(err)
	}
	asked := string(b)
	for _, no := range []string{"evil", "hunter2", "NODE_OPTIONS", "in " + s.dir(res.Key)} {
		if strings.Contains(asked, no) {
			t.Errorf("npm was given %s:\n%s", no, asked)
		}
	}
	for _, want := range []string{"for node@99\n", "for pnpm@9.1.2\n", "OF_THE_MACHINE=1\n", "CI=true\n", "in " + s.Dir + "/toolchains/", "HOME=" + s.Dir + "/toolchains/home\n"} {
		if !strings.Contains(asked, want) {
			t.Errorf("npm was not given %q:\n%s", want, asked)
		}
	}
	if _, err := os.Stat(filepath.Join(evil, "asked")); err == nil {
		t.Error("the project's npm was run")
	}
	if got := strings.Join(told, ", "); !strings.Contains(got, "node 99 fetched, pnpm 9.1.2 fetched") {
		t.Errorf("told: %s", got)
	}

	// What is there is not fetched again, and needs no npm.
	if err := os.Remove(filepath.Join(machine, "npm")); err != nil {
		t.Fatal(err)
	}
	r.Env = []string{"OTHER=1"}
	if _, err := s.Build(t.Context(), r); err != nil {
		t.Error(err)
	}
}
