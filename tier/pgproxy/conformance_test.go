//go:build conformance

package pgproxy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"tenfold/internal/pooldir"
)

// pgxPackages are those of pgx that ask a server.
var pgxPackages = []string{".", "pgconn", "pgxpool", "pgtype", "stdlib", "pgproto3", "multitracer", "tracelog"}

// leastPgx is how many of pgx's tests that pass directly have to pass through the pool, in thousandths.
const leastPgx = 978

// endless are tests that end the server's process by the number that the client was told, and wait for
// it: through any pool, that number is the pool's own.
const endless = "^(TestConnCheckConn|TestConnCopyFromConnectionTerminated)$"

var result = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\S+)`)

// TestConformancePgx runs the test suite of the driver pgx directly and through the pool.
func TestConformancePgx(t *testing.T) {
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/jackc/pgx/v5")
	dir, err := list.Output()
	if err != nil {
		t.Skip("skipped: pgx's source is not there: go mod download")
	}
	src := t.TempDir()
	if out, err := exec.Command("cp", "-r", "--no-preserve=mode", strings.TrimSpace(string(dir))+"/.", src).CombinedOutput(); err != nil {
		t.Fatalf("copy pgx: %v\n%s", err, out)
	}
	// As superuser, as the suite asks; the password is SCRAM's, whatever the name says.
	f := begin(t, func(d *pooldir.Database) {
		d.Name, d.Pool = "pgx_test", 20
		for _, u := range []string{"pgx_md5", "pgx_scram", "pgx_pw"} {
			d.Users = append(d.Users, pooldir.User{Name: u, Password: "secret"})
		}
	})
	admin := func(db, sql string) {
		c, err := pgx.Connect(bg, "postgresql://test@"+f.server+"/"+db+"?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(bg)
		if _, err := c.Exec(bg, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
	}
	admin("postgres", "create database pgx_test")
	admin("pgx_test", `create extension hstore; create extension ltree; create domain uint64 as numeric(20,0);
		create user pgx_md5 superuser password 'secret'; create user pgx_scram superuser password 'secret'; create user pgx_pw superuser password 'secret';
		create user " tricky, ' } "" \ test user " superuser password 'secret'`)
	passed := [2]map[string]bool{{}, {}}
	failed := map[string]string{}
	for _, pkg := range pgxPackages {
		bin := filepath.Join(src, strings.ReplaceAll(pkg, ".", "pgx")+".suite")
		build := exec.Command("go", "test", "-c", "-o", bin, "./"+pkg)
		build.Dir, build.Env = src, append(os.Environ(), "GOFLAGS=-mod=mod")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build pgx's %s: %v\n%s", pkg, err, out)
		}
		if _, err := os.Stat(bin); err != nil {
			continue // without tests
		}
		for i, addr := range []string{f.server, f.addr} {
			host, port, _ := strings.Cut(addr, ":")
			conn := "host=" + host + " port=" + port + " user=pgx_md5 password=secret dbname=pgx_test sslmode=disable"
			args := []string{"-test.v", "-test.timeout", "160s"}
			if i == 1 {
				args = append(args, "-test.skip", endless) // they count as failed
			}
			suite := exec.Command(bin, args...)
			suite.Dir = filepath.Join(src, pkg)
			suite.Env = append(os.Environ(), "PGX_TEST_DATABASE="+conn, "PGX_TEST_TCP_CONN_STRING="+conn)
			out, err := suite.CombinedOutput()
			if err != nil && strings.Contains(string(out), "panic: test timed out") {
				_, hung, _ := strings.Cut(string(out), "running tests:")
				t.Logf("%s at %s hung: %.200s", pkg, addr, hung)
			}
			for _, m := range result.FindAllStringSubmatchIndex(string(out), -1) {
				name := pkg + "." + string(out[m[4]:m[5]])
				if string(out[m[2]:m[3]]) == "PASS" {
					passed[i][name] = true
				} else if i == 1 {
					failed[name] = string(out[max(0, m[0]-600):min(len(out), m[1]+600)])
				}
			}
		}
	}
	both := 0
	for name := range passed[0] {
		if passed[1][name] {
			both++
		} else {
			t.Logf("through the pool fails %s: %s", name, failed[name])
		}
	}
	t.Logf("of %d tests that pass directly %d pass through the pool; %+v", len(passed[0]), both, f.stats())
	if both*1000 < len(passed[0])*leastPgx {
		t.Fail()
	}
}
