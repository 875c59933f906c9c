package shell

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// script prints its arguments, its folder and the variable X.
const script = "#!/bin/sh\nprintf '%s\\n' \"$@\" \"$PWD\" \"$X\"\n"

func folder(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]struct {
		text string
		mode os.FileMode
	}{"app": {script, 0o755}, "bare": {"echo of no interpreter\n", 0o755}, "shut": {script, 0o644}, "mine": {script, 0o700}, "empty": {"", 0o755}} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(f.text), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSpare(t *testing.T) {
	dir := folder(t)
	for text, want := range map[string]bool{
		"./app":                     true,
		"./app serve --port=80 a:b": true,
		"exec ./app  -x":            true,
		dir + "/app":                true,
		"app":                       false, // not in PATH
		"cat -n x":                  true,
		"exec cat":                  true,
		"echo a":                    false, // the shell does it
		"cd /":                      false,
		"exec kill 1":               false,
		"-c":                        false,
		"exec":                      false,
		"":                          false,
		"./app $X":                  false,
		"./app 'a b'":               false,
		"./app ~":                   false,
		"./app *":                   false,
		"./app && ./app":            false,
		"./app\n./app":              false,
		"X=/1 ./app":                false,
		"./app > out":               false,
		"./app # no more":           false,
		"./app {a,b}":               false,
		"./none":                    false,
		"./bare":                    false,
		"./shut":                    false,
		"./empty":                   false,
		"./mine":                    false, // the task's user may not
		".":                         false,
		"./":                        false,
	} {
		by := []string{"/bin/sh", "-c", text}
		argv, _ := Spare(by, []string{"PATH=/usr/bin:/bin"}, dir)
		if got := !slices.Equal(argv, by); got != want {
			t.Errorf("%q: %q", text, argv)
		}
	}
	if argv, _ := Spare([]string{"/bin/sh", "-c", "cat"}, []string{"PATH=.:/usr/bin"}, dir); len(argv) != 3 {
		t.Errorf("a PATH that depends on the folder: %q", argv)
	}
	for _, argv := range [][]string{nil, {"./app"}, {"/bin/sh", "-c", "./app", "more"}, {"/bin/bash", "-c", "./app"}} {
		if got, _ := Spare(argv, nil, dir); !slices.Equal(got, argv) {
			t.Errorf("%q became %q", argv, got)
		}
	}
}

// FuzzSpare: what is started without a shell gets what it would get from one.
func FuzzSpare(f *testing.F) {
	for _, s := range []string{"./app", "exec ./app a", "./app a=b %c @d", "./app\ta", " ./app", "./app --", "exec exec ./app", "./app \r", "app", "exec app x", "app=1", "time app"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		dir := folder(t)
		by := []string{"/bin/sh", "-c", text}
		env := []string{"X=1", "PATH=" + dir}
		argv, with := Spare(by, env, dir)
		if slices.Equal(argv, by) || strings.HasPrefix(argv[0], "/") && !strings.HasPrefix(argv[0], dir) {
			return // a shell; or another program of the machine, which is not run
		}
		run := func(argv, env []string) string {
			c := exec.Command(argv[0], argv[1:]...)
			c.Dir, c.Env = dir, env
			if !strings.Contains(c.Path, "/") || strings.HasPrefix(c.Path, ".") || argv[0] == "app" {
				c.Path, c.Err = filepath.Join(dir, argv[0]), nil
			}
			out, err := c.CombinedOutput()
			if err != nil {
				return err.Error()
			}
			return string(out)
		}
		if got, want := run(argv, with), run(by, env); got != want {
			t.Errorf("%q: %q without a shell, %q by one", text, got, want)
		}
	})
}
