// Package crashtest is what tests of stores on the log share that die by kill -9: a second process of the test
// itself, which serves a folder until it is killed.
//
// TestMain asks Dir whether it is that process, and if so ends in Serve; the test has it run by Start. It is
// for tests only.
package crashtest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
)

const variable = "CRASHTEST_DIR"

// Dir is the folder that this process is to serve, and "" when it is the test.
func Dir() string { return os.Getenv(variable) }

// Serve serves on a port of its own until the process is killed.
func Serve(h http.Handler) {
	fmt.Println(httptest.NewServer(h).URL)
	select {}
}

// Start has a process of the same test serve dir, and returns when it listens, with its address. The caller
// kills it and waits for it.
func Start(t testing.TB, dir string) (at string, cmd *exec.Cmd) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = fmt.Fscanln(out, &at)
	}
	if err != nil {
		t.Fatal(err)
	}
	return at, cmd
}
