//go:build conformance

package wire

import (
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestH2spec runs the HTTP/2 conformance suite: go test -tags conformance -run H2spec ./tier/edge/wire
func TestH2spec(t *testing.T) {
	path, err := exec.LookPath("h2spec")
	if err != nil {
		t.Skip("h2spec is not on PATH: go install github.com/summerwind/h2spec/cmd/h2spec@latest")
	}
	for _, c := range []struct {
		name   string
		secure bool
		path   string
	}{{"hit", true, "/1k"}, {"miss", true, "/other"}, {"h2c hit", false, "/1k"}} {
		t.Run(c.name, func(t *testing.T) {
			hits := stored{}
			s := start(t, Config{Hits: hits, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				io.WriteString(w, strings.Repeat("x", 1024))
			})}, c.secure, true)
			host, port, _ := net.SplitHostPort(s.addr)
			hits[s.addr+"/1k"] = hello(strings.Repeat("x", 1024))
			args := []string{"-h", host, "-p", port, "-P", c.path, "-o", "2"}
			if c.secure {
				args = append(args, "-t", "-k")
			}
			out, _ := exec.Command(path, args...).CombinedOutput()
			m := regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`).FindSubmatch(out)
			if m == nil {
				t.Fatalf("no result:\n%s", out)
			}
			if passed, _ := strconv.Atoi(string(m[2])); passed < 144 {
				i := strings.Index(string(out), "Failures:")
				t.Errorf("%s\n%s", m[0], out[max(0, i):])
			} else {
				t.Logf("%s", m[0])
			}
		})
	}
}
