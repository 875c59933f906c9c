package compute

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// errFound ends a walk early.
var errFound = errors.New("found")

// remedies say, by the ending of a source file, how its language reads the port it is given.
var remedies = map[string]string{
	".js": "app.listen(process.env.PORT || %d)", ".mjs": "app.listen(process.env.PORT || %d)", ".cjs": "app.listen(process.env.PORT || %d)",
	".ts": "app.listen(process.env.PORT || %d)", ".go": "os.Getenv(\"PORT\") instead of %d", ".py": "int(os.environ.get(\"PORT\", %d))",
	".rb": "ENV.fetch(\"PORT\", %d)",
}

// whereListening finds the line of a project that names a port it listens on: "index.js:14", with
// what to write there. It looks at few and small files only, since it merely improves a hint.
func whereListening(dir string, port int) (place, say string, ok bool) {
	form := regexp.MustCompile(fmt.Sprintf(`(?i)(listen|port|addr|run|serve|bind).*\b%d\b`, port))
	looked := 0
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // unreadable: nothing to find there
		}
		name := d.Name()
		if d.IsDir() {
			if p != dir && (name == "node_modules" || name == "vendor" || strings.HasPrefix(name, ".")) {
				return fs.SkipDir
			}
			return nil
		}
		remedy, known := remedies[filepath.Ext(name)]
		if !known {
			return nil
		}
		if looked++; looked > 2000 {
			return fs.SkipAll
		}
		if n := lineMatching(p, form); n > 0 {
			rel, _ := filepath.Rel(dir, p)
			place, say = fmt.Sprintf("%s:%d", filepath.ToSlash(rel), n), fmt.Sprintf(remedy, port)
			return errFound
		}
		return nil
	})
	return place, say, errors.Is(err, errFound)
}

// lineMatching is the number of the first line that matches, 0 without one.
func lineMatching(path string, form *regexp.Regexp) int {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		if form.Match(lines.Bytes()) {
			return n
		}
	}
	return 0
}
