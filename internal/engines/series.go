package engines

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"tenfold/internal/lazy"
)

// seriesPrograms are the names of the server: as distributions have it, and as its makers do.
var seriesPrograms = []string{"victoria-metrics", "victoria-metrics-prod"}

// A version of VictoriaMetrics among the tags of its makers ("…-tags-v1.112.0-0-g…"), or as a package has it.
var (
	taggedVersion  = lazy.Regexp(`\bv(\d+\.\d+\.\d+)\b`)
	packageVersion = lazy.Regexp(`^(?:\d+:)?(\d+\.\d+\.\d+)`)
)

// Series finds VictoriaMetrics. Its Version is "" where neither the program nor the package manager tells it.
func Series(ctx context.Context) (Engine, error) {
	for _, program := range seriesPrograms {
		for _, p := range []string{look(program), "/usr/bin/" + program, "/usr/local/bin/" + program} {
			if p == "" || !executable(p) {
				continue
			}
			out, err := exec.CommandContext(ctx, p, "-version").CombinedOutput()
			if err != nil {
				return Engine{}, fmt.Errorf("ask %s for its version: %w", p, err)
			}
			e := Engine{Name: "victoriametrics", Major: 1, Bin: filepath.Dir(p), Server: p}
			if m := taggedVersion.FindStringSubmatch(string(out)); m != nil {
				e.Version = m[1]
			} else if filepath.Dir(p) != "/usr/bin" {
				return e, nil // no package is there
			} else if out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Version}", program).Output(); err == nil { // Debian's says nothing
				if m := packageVersion.FindStringSubmatch(string(out)); m != nil {
					e.Version = m[1]
				}
			}
			return e, nil
		}
	}
	return Engine{}, fmt.Errorf("victoria-metrics is %w", ErrMissing)
}

// Flags are what the server program of VictoriaMetrics can be told, without the dash: what a version can do is seen
// by them.
func (e Engine) Flags(ctx context.Context) (map[string]bool, error) {
	out, err := exec.CommandContext(ctx, e.Server, "-help").CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // who asks for help is told with an error by some
		return nil, fmt.Errorf("ask %s for its flags: %w", e.Server, err)
	}
	flags := flagsOf(out)
	if len(flags) == 0 {
		return nil, fmt.Errorf("ask %s for its flags: it names none", e.Server)
	}
	return flags, nil
}

// flagsOf reads the lines "  -name type" of Go's package flag.
func flagsOf(help []byte) map[string]bool {
	out := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(help))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "  -"); ok {
			if name, _, _ := strings.Cut(rest, " "); name != "" {
				out[name] = true
			}
		}
	}
	return out
}
