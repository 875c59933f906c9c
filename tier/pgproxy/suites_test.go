//go:build conformance

package pgproxy

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold/internal/enginetest"
	"tenfold/internal/pooldir"
)

// A suite is somebody else's tests, that are run with a PostgreSQL of their own and, at the same time, with
// another through a pool that shares its connections by transaction.
type suite struct {
	setup []string // SQL, at both servers
	users []pooldir.User
	// run does all of it with the server at an address.
	run func(ctx context.Context, addr string) outcome
	// least is how many have to pass at the server itself: less means that the suite did not run.
	least int
	// inherent are tests that fail through any pool that shares connections by transaction, with the reason.
	inherent map[string]string
}

type outcome struct {
	passed int
	failed map[string]string // with what each said
	out    string
}

// limit is how long a suite may take, on a machine that does much else besides.
const limit = 8 * time.Minute

// compare fails for each test that passes at the server and not through the pool.
func compare(t *testing.T, s suite) {
	t.Helper()
	// Two-phase commit is off unless a server is told.
	direct := serverOf(t, "max_prepared_transactions=10")
	f := over(t, serverOf(t, "max_prepared_transactions=10"), func(d *pooldir.Database) {
		d.Pool, d.Users = 20, append(d.Users, s.users...)
	})
	for _, sql := range s.setup {
		setUp(t, direct, "postgres", sql)
		setUp(t, f.server, "postgres", sql)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var alone, pooled outcome
	var both sync.WaitGroup
	both.Go(func() { alone = s.run(ctx, direct) })
	both.Go(func() { pooled = s.run(ctx, f.addr) })
	both.Wait()
	excused := 0
	for name, said := range pooled.failed {
		if _, ok := alone.failed[name]; ok {
			continue
		}
		if why, ok := s.inherent[name]; ok {
			excused++
			t.Logf("fails as listed: %s: %s", name, why)
			continue
		}
		t.Errorf("fails through the pool alone: %s: %s", name, said)
	}
	t.Logf("%d pass directly, %d through the pool; %d fail directly too; %+v", alone.passed, pooled.passed, len(alone.failed), f.stats())
	if alone.passed < s.least {
		t.Errorf("%d passed directly, at least %d do when all run:\n%s", alone.passed, s.least, tail(alone.out))
	}
	if pooled.passed+excused < alone.passed {
		t.Errorf("some did not come to their end through the pool:\n%s", tail(pooled.out))
	}
}

// serverOf starts a PostgreSQL and returns its address.
func serverOf(t *testing.T, settings ...string) string {
	t.Helper()
	u, err := url.Parse(enginetest.Postgres(t, settings...))
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// setUp has a server do something as its superuser.
func setUp(t *testing.T, server, db, sql string) {
	t.Helper()
	c, err := pgx.Connect(bg, "postgresql://test@"+server+"/"+db+"?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(bg)
	if _, err := c.Exec(bg, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// fetched builds the tests in the root of a Go module and returns the program, which is to be run where it lies.
func fetched(t *testing.T, module string) (program string) {
	t.Helper()
	// A folder of its own, so that no go.mod of ours says which versions the module is built with.
	dir := t.TempDir()
	get := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	get.Dir = dir
	out, err := get.Output()
	var at struct{ Dir, Error string }
	if json.Unmarshal(out, &at); err != nil || at.Dir == "" {
		enginetest.Lacking(t, fmt.Errorf("the source of %s: %v %s", module, err, at.Error), "go mod download "+module)
	}
	src := filepath.Join(dir, "src")
	if out, err := exec.Command("cp", "-r", "--no-preserve=mode", at.Dir, src).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", module, err, out)
	}
	program = filepath.Join(src, "all.suite")
	// Vet finds things in old code that are no matter of ours; without cgo no other database is compiled.
	build := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-c", "-o", program, ".")
	build.Dir, build.Env = src, append(os.Environ(), "GOFLAGS=-mod=mod", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", module, err, out)
	}
	return program
}

// goTests runs a program made by fetched. Tests within a test, of another framework, are found by more patterns
// for what failed and what passed.
func goTests(ctx context.Context, program string, env, args []string) (o outcome) {
	cmd := exec.CommandContext(ctx, program, append([]string{"-test.v"}, args...)...)
	cmd.Dir, cmd.Env = filepath.Dir(program), append(os.Environ(), env...)
	b, err := cmd.CombinedOutput()
	o = outcome{failed: map[string]string{}, out: fmt.Sprintf("%s\n%v", b, err)}
	for _, m := range result.FindAllStringSubmatchIndex(o.out, -1) {
		switch o.out[m[2]:m[3]] {
		case "PASS":
			o.passed++
		case "FAIL":
			o.failed[o.out[m[4]:m[5]]] = o.out[max(0, m[0]-1500):min(len(o.out), m[1]+1500)]
		}
	}
	return o
}

// TestConformanceGORM runs the tests of GORM that are to be had as a module: those of its first edition, by lib/pq.
func TestConformanceGORM(t *testing.T) {
	program := fetched(t, "github.com/jinzhu/gorm@v1.9.16")
	compare(t, suite{least: 190, run: func(ctx context.Context, addr string) outcome {
		host, port, _ := strings.Cut(addr, ":")
		return goTests(ctx, program, []string{"GORM_DIALECT=postgres",
			"GORM_DSN=user=test password=secret host=" + host + " port=" + port + " dbname=postgres sslmode=disable"}, nil)
	}})
}

var (
	ginkgoPassed  = regexp.MustCompile(`(\d+) Passed \| \d+ Failed`)
	ginkgoFailed  = regexp.MustCompile(`(?m)^\[(?:Fail|Panic!)\] (.*)$`)
	gocheckPassed = regexp.MustCompile(`(?m)^(?:OK|OOPS): (\d+) passed`)
	gocheckFailed = regexp.MustCompile(`(?m)^(?:FAIL|PANIC): \S+ (\S+)$`)
)

// hasty are specs of go-pg's that set a fixed time against what the machine does: they fail or take minutes at the
// server itself when it is busy. ExampleListener is another: it notifies a millisecond after it began to listen, and
// waits for ever when that was too soon.
var hasty = []string{"timeout race", "supports concurrent Listen and Receive", "cancels query when context is cancelled"}

// TestConformanceGoPG runs the tests of the ORM go-pg, which has a driver of its own: COPY, LISTEN, cancels,
// prepared statements, transactions on many connections.
func TestConformanceGoPG(t *testing.T) {
	program := fetched(t, "github.com/go-pg/pg/v10@v10.11.0")
	compare(t, suite{
		least: 200,
		setup: []string{"create role postgres superuser login password 'postgres'", "create extension hstore"},
		users: []pooldir.User{{Name: "postgres", Password: "postgres"}}, // the suite knows no other
		run: func(ctx context.Context, addr string) outcome {
			host, port, _ := strings.Cut(addr, ":")
			o := goTests(ctx, program, []string{"PGHOST=" + host, "PGPORT=" + port, "PGSSLMODE=disable"},
				[]string{"-ginkgo.noColor", "-ginkgo.skip", strings.Join(hasty, "|"), "-test.skip", "^ExampleListener$"})
			for _, p := range []*regexp.Regexp{ginkgoPassed, gocheckPassed} {
				if m := p.FindStringSubmatch(o.out); m != nil {
					var n int
					fmt.Sscan(m[1], &n)
					o.passed += n
				}
			}
			for _, p := range []*regexp.Regexp{ginkgoFailed, gocheckFailed} {
				for _, m := range p.FindAllStringSubmatchIndex(o.out, -1) {
					o.failed[o.out[m[2]:m[3]]] = o.out[m[0]:min(len(o.out), m[1]+1500)]
				}
			}
			return o
		},
	})
}

// TestConformanceSQLAlchemy runs the suite that SQLAlchemy has for dialects, as the distribution packages it, by
// the driver that most use and by the one that prepares every statement under a name.
func TestConformanceSQLAlchemy(t *testing.T) {
	for _, driver := range []string{"psycopg2", "asyncpg"} {
		t.Run(driver, func(t *testing.T) {
			// The distribution's, whatever other Python is first on PATH.
			const python = "/usr/bin/python3"
			if out, err := exec.CommandContext(t.Context(), python, "-c", "import sqlalchemy.testing, pytest, greenlet, "+driver).CombinedOutput(); err != nil {
				enginetest.Lacking(t, fmt.Errorf("SQLAlchemy with %s: %v %s", driver, err, tail(string(out))), "scripts/need conformance")
			}
			compare(t, suite{
				least: 400,
				setup: []string{"create schema test_schema", "create extension hstore"},
				run: func(ctx context.Context, addr string) outcome {
					return pytest(ctx, t, python, "testdata/sqlalchemy", "--dburi", "postgresql+"+driver+"://test:secret@"+addr+"/postgres")
				},
			})
		})
	}
}

// pytest runs the tests in a copy of a folder.
func pytest(ctx context.Context, t *testing.T, python, folder string, args ...string) (o outcome) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(folder)); err != nil {
		return outcome{out: err.Error()}
	}
	report := filepath.Join(dir, "report.xml")
	cmd := exec.CommandContext(ctx, python, append([]string{"-B", "-m", "pytest", "-p", "no:cacheprovider", "-q", "--junitxml", report, "--maxfail", "10000"}, args...)...)
	// Some tests take the next best of a set: both sides are to take the same, run after run.
	cmd.Env = append(os.Environ(), "PYTHONHASHSEED=0")
	cmd.Dir = dir
	b, err := cmd.CombinedOutput()
	o = outcome{failed: map[string]string{}, out: fmt.Sprintf("%s\n%v", b, err)}
	written, err := os.ReadFile(report)
	if err != nil {
		return o
	}
	type part struct {
		Text string `xml:",chardata"`
	}
	var found struct {
		Cases []struct {
			Class   string `xml:"classname,attr"`
			Name    string `xml:"name,attr"`
			Failure *part  `xml:"failure"`
			Error   *part  `xml:"error"`
			Skipped *part  `xml:"skipped"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(written, &found); err != nil {
		o.out += err.Error()
		return o
	}
	for _, c := range found.Cases {
		name := c.Class + "." + c.Name
		switch {
		case c.Failure != nil:
			o.failed[name] = tail(c.Failure.Text)
		case c.Error != nil:
			o.failed[name] = tail(c.Error.Text)
		case c.Skipped == nil:
			o.passed++
		}
	}
	return o
}
