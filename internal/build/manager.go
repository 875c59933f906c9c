package build

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"tenfold/internal/lazy"
)

// A project says which package manager it is installed with, by its lock file and, more exactly, by
// packageManager in the root's package.json. npm comes with Node.js; pnpm and Yarn are fetched with it
// where the machine has none (toolchain.go).

var (
	managerWord = lazy.Regexp(`(?:^|[\s;&|(])(pnpm|yarn)\s`)
	managerSaid = lazy.Regexp(`^(pnpm|yarn)@(\d+(?:\.\d+){0,2})`)
	lockVersion = lazy.Regexp(`(?m)^lockfileVersion:\s*'?(\d+)`)
)

// manager puts the package manager that the commands name first in PATH.
func (m *making) manager(ctx context.Context) error {
	name := ""
	for _, c := range [][]string{m.Install, m.Command, m.Test} {
		if found := managerWord.FindStringSubmatch(text(c) + " "); found != nil && name == "" {
			name = found[1]
		}
	}
	if name == "" {
		return nil
	}
	version := m.managerVersion(name)
	if path, ok := lookup(m.env, name); ok && (version == "" || m.majorOf(ctx, path) == wantedNode(version)) {
		return nil
	}
	if version == "" {
		version = map[string]string{"pnpm": "9", "yarn": "1"}[name]
	}
	pack, major := name, wantedNode(version)
	if name == "yarn" && major > 1 {
		pack = "@yarnpkg/cli-dist" // what npm calls Yarn since 2
	}
	return m.fetch(ctx, tool{
		name: name, version: version, pack: pack + "@" + version, bin: "node_modules/.bin", why: "the project is installed with it",
		missing: MissingError{Tool: name, Hint: "install " + name + ", or npm to fetch it with, and start the daemon with it in PATH"},
	})
}

// managerVersion is what the project asks for: "9.12.0" of packageManager, else what its lock file was
// written by; "" when any will do.
func (m *making) managerVersion(name string) string {
	tree := filepath.Join(m.dir(m.result.Key), "tree")
	for _, dir := range []string{tree, m.result.Dir} {
		var p struct{ PackageManager string }
		b, err := os.ReadFile(filepath.Join(dir, "package.json"))
		if err != nil || json.Unmarshal(b, &p) != nil {
			continue
		}
		if said := managerSaid.FindStringSubmatch(p.PackageManager); said != nil && said[1] == name {
			return said[2]
		}
	}
	for _, dir := range []string{tree, m.result.Dir} {
		if b, err := os.ReadFile(filepath.Join(dir, "pnpm-lock.yaml")); err == nil && name == "pnpm" {
			if v := lockVersion.Get().FindSubmatch(b[:min(len(b), 4096)]); v != nil {
				return map[string]string{"5": "7", "6": "8"}[string(v[1])] // 9 is read by 9 and all after it
			}
		}
		if b, err := os.ReadFile(filepath.Join(dir, "yarn.lock")); err == nil && name == "yarn" && strings.Contains(string(b), "__metadata:") {
			return "4"
		}
	}
	return ""
}
