//go:build conformance

package table_test

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tenfold/tier/table"
)

// TestConformanceGuregu runs the tests of a widely used client library, guregu/dynamo, against the store. They
// are fetched as a Go module into a folder of the test's.
func TestConformanceGuregu(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":       "module conformance\n\ngo 1.26\n\nrequire github.com/guregu/dynamo/v2 v2.1.1\n",
		"some_test.go": "package conformance\n\nimport _ \"github.com/guregu/dynamo/v2\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(env []string, args ...string) (string, error) {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, args := range [][]string{{"get", "-t", "github.com/guregu/dynamo/v2@v2.1.1"}, {"mod", "tidy"}} {
		if out, err := run(nil, args...); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	// The suite's tables have one unit, of which it takes hundreds: what is throttled is not what it asks after.
	s, stop := open(t, t.TempDir(), table.Config{Burst: 24 * time.Hour})
	defer stop()
	srv := httptest.NewServer(front(s))
	defer srv.Close()
	out, err := run([]string{"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=ALL", "AWS_SECRET_ACCESS_KEY=secret",
		"DYNAMO_TEST_REGION=us-east-1", "DYNAMO_TEST_ENDPOINT=" + srv.URL, "DYNAMO_TEST_TABLE=TestDB", "DYNAMO_TEST_CREATE_TABLE=1"}, "test", "-count=1", "-v", "github.com/guregu/dynamo/v2")
	passed := strings.Count(out, "\n--- PASS")
	if err != nil || passed < 46 {
		t.Errorf("%v: %d of 46 passed\n%s", err, passed, out)
	}
	t.Logf("%d tests of guregu/dynamo passed", passed)
}
