// Package enginetest gives tests a real PostgreSQL and a real Valkey or Redis, each in a folder and
// on a port of its own, gone with the test. Where no engine is installed the test is skipped, and
// fails when CI is set. It knows no tier: begin at Postgres and Redis.
package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"tenfold/internal/engines"
)

// startLimit is how long an engine may take to its first answer.
const startLimit = 30 * time.Second

// Postgres starts a PostgreSQL and returns the address of its database "postgres", as a superuser.
// Settings are more of them, "name=value". It keeps nothing safe (fsync is off): tests of durability start one through the tier.
func Postgres(t testing.TB, settings ...string) (dsn string) {
	t.Helper()
	e, err := engines.Postgres(t.Context(), 0, "")
	if err != nil {
		Lacking(t, err, "apt-get install postgresql")
	}
	dir, port := folder(t), freePort(t)
	data := filepath.Join(dir, "data")
	if out, err := as(exec.CommandContext(t.Context(), "cp", "-a", template(t, e), data)).CombinedOutput(); err != nil {
		t.Fatalf("copy the template: %v\n%s", err, out)
	}
	args := []string{e.Server, "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=16MB"}
	for _, x := range settings {
		args = append(args, "-c", x)
	}
	start(t, syscall.SIGQUIT, args...)
	// A startup packet: authentication ("R") is what a server that takes connections says first.
	body := append([]byte{0, 3, 0, 0}, "user\x00test\x00database\x00postgres\x00\x00"...)
	await(t, port, append([]byte{0, 0, 0, byte(len(body) + 4)}, body...), "R")
	return "postgresql://test@127.0.0.1:" + port + "/postgres?sslmode=disable"
}

// template is a folder as initdb makes it, made once for each version and kept in the user's cache: a copy
// takes a tenth of the time, and some packages start forty servers.
func template(t testing.TB, e engines.Engine) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	uid, gid := engines.RunAs()
	if uid > 0 { // root's cache is nobody else's to read
		cache = os.TempDir()
	}
	place := filepath.Join(cache, fmt.Sprintf("tenfold-initdb-%s-%d", e.Version, uid))
	if info, err := os.Stat(filepath.Join(place, "PG_VERSION")); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && (int(st.Uid) == uid || int(st.Uid) == os.Getuid()) { // nobody else put it there
			return place
		}
	}
	fresh, err := os.MkdirTemp(cache, "tenfold-initdb-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	if uid > 0 {
		if err := os.Chown(fresh, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	made := filepath.Join(fresh, "data")
	initdb := as(exec.CommandContext(t.Context(), filepath.Join(e.Bin, "initdb"), "-D", made, "-U", "test", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"))
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	if err := os.Rename(made, place); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		t.Fatal(err) // else another process was first
	}
	return place
}

// Redis starts a Valkey or Redis without a password and returns its host:port.
func Redis(t testing.TB) (addr string) {
	t.Helper()
	e, err := engines.Cache(t.Context(), "", 0)
	if err != nil {
		Lacking(t, err, "apt-get install valkey-server, or redis-server")
	}
	dir, port := folder(t), freePort(t)
	start(t, syscall.SIGKILL, e.Server, "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "", "--appendonly", "no")
	await(t, port, []byte("PING\r\n"), "+")
	return net.JoinHostPort("127.0.0.1", port)
}

// Folder is where scripts/need puts more majors of PostgreSQL than the distribution has, which have no client programs:
// tests that need another major look there too. ENGINES names another.
func Folder() string {
	if dir := os.Getenv("ENGINES"); dir != "" {
		return dir
	}
	if os.Getuid() == 0 { // servers run as a user that cannot look into root's home
		return "/var/cache/tenfold-engines"
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "tenfold-engines")
}

// OneMajor ends a test that needs two majors of PostgreSQL where there is one.
func OneMajor(t testing.TB, major int) {
	t.Helper()
	Lacking(t, fmt.Errorf("PostgreSQL %d is the only one, and it takes two majors", major), "scripts/need scenarios, or ENGINES=folder with another")
}

// Lacking ends a test for which something is not there, with the command that brings it: it is skipped, and fails when CI is set.
func Lacking(t testing.TB, err error, command string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("no engine to test with: %v (%s)", err, command)
	}
	t.Skipf("no engine to test with: %v (%s)", err, command)
}

// folder is one that the engines' user can write to.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if uid, gid := engines.RunAs(); uid > 0 {
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func as(cmd *exec.Cmd) *exec.Cmd {
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if uid, gid := engines.RunAs(); uid > 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return cmd
}

// start starts an engine that is ended by a signal when the test is over.
func start(t testing.TB, end syscall.Signal, argv ...string) {
	t.Helper()
	cmd := as(exec.Command(argv[0], argv[1:]...))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(end)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", argv[0], out.Bytes())
		}
	})
}

// await waits until the server answers a request with a first byte.
func await(t testing.TB, port string, request []byte, want string) {
	t.Helper()
	for begun := time.Now(); answer(port, request) != want; <-time.After(10 * time.Millisecond) {
		if time.Since(begun) > startLimit {
			t.Fatalf("port %s does not answer within %s", port, startLimit)
		}
	}
}

// answer is the first byte of what a server says to a request, "" when it says nothing.
func answer(port string, request []byte) string {
	c, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", port), time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	var first [1]byte
	if _, err := c.Write(request); err != nil {
		return ""
	}
	if _, err := c.Read(first[:]); err != nil {
		return ""
	}
	return string(first[:])
}
