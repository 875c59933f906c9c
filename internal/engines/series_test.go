package engines

import (
	"os"
	"path/filepath"
	"testing"
)

func TestVictoriaMetricsIsFoundByItsNames(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	script := "#!/bin/sh\ncase $1 in -version) echo 'victoria-metrics-20250204-000000-tags-v1.112.0-0-g0123456789';; *) printf 'Usage:\\n  -storageDataPath string\\n    \\tPath -not.a.flag\\n  -version\\n' >&2; exit 2;; esac\n"
	if err := os.WriteFile(filepath.Join(dir, "victoria-metrics"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	e, err := Series(t.Context())
	if err != nil || e.Version != "1.112.0" || e.Server != filepath.Join(dir, "victoria-metrics") {
		t.Errorf("%+v %v", e, err)
	}
	flags, err := e.Flags(t.Context())
	if err != nil || len(flags) != 2 || !flags["storageDataPath"] || !flags["version"] {
		t.Error(flags, err)
	}
}

func TestVersionsOfPackages(t *testing.T) {
	for in, want := range map[string]string{"1.79.5+ds1-2+b5": "1.79.5", "2:1.112.0-1": "1.112.0", "": "", "none": ""} {
		got := ""
		if m := packageVersion.FindStringSubmatch(in); m != nil {
			got = m[1]
		}
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
