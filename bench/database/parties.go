package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"tenfold/internal/measure"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"tenfold/internal/engines"
	"tenfold/internal/pooldir"
	"tenfold/tier/pgproxy"
)

const (
	user, password = "bench", "secret-of-the-bench"
	servers        = 20
)

// process is a program that runs until stop.
type process struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd}
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	measure.Favour(cmd.Process.Pid)
	return p, nil
}

func (p *process) stop(sig syscall.Signal) {
	p.cmd.Process.Signal(sig)
	timer := time.AfterFunc(20*time.Second, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	p.cmd.Wait()
}

// await returns when a port takes connections.
func (p *process) await(port int) error {
	for begun := time.Now(); time.Since(begun) < 20*time.Second; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			c.Close()
			return nil
		}
	}
	return fmt.Errorf("%s does not listen: %s", p.cmd.Path, p.out.Bytes())
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

type postgres struct {
	*process
	port    int
	home    string // has its socket
	version string
	secret  string // what it knows of the user's password
}

func (p *postgres) stop() { p.process.stop(syscall.SIGINT) }

func unprivileged(cmd *exec.Cmd) *exec.Cmd {
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if uid, gid := engines.RunAs(); uid > 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return cmd
}

func startPostgres(dir string, sockets ...string) (*postgres, error) {
	e, err := engines.Postgres(context.Background(), 0, "")
	if err != nil {
		return nil, err
	}
	home := filepath.Join(dir, "postgres")
	if err := os.Mkdir(home, 0o755); err != nil {
		return nil, err
	}
	if uid, gid := engines.RunAs(); uid > 0 {
		if err := os.Chown(home, uid, gid); err != nil {
			return nil, err
		}
	}
	secret := filepath.Join(home, "password")
	if err := os.WriteFile(secret, []byte(password), 0o644); err != nil {
		return nil, err
	}
	data := filepath.Join(home, "data")
	if out, err := unprivileged(exec.Command(filepath.Join(e.Bin, "initdb"), "-D", data, "-U", user, "-A", "scram-sha-256", "--pwfile", secret, "--no-sync", "--no-instructions", "--locale=C", "-E", "UTF8")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &postgres{port: port, home: home, version: "PostgreSQL " + e.Version}
	if p.process, err = start(unprivileged(exec.Command(e.Server, "-D", data, "-p", strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+strings.Join(append([]string{home}, sockets...), ","),
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "shared_buffers=256MB", "-c", "max_connections=300", "-c", "max_wal_size=4GB", "-c", "autovacuum=off", "-c", "wal_level=logical"))); err != nil {
		return nil, err
	}
	if err := p.await(port); err != nil {
		p.stop()
		return nil, err
	}
	for range 100 { // until it has recovered, it takes connections and refuses them
		var c *pgx.Conn
		if c, err = pgx.Connect(context.Background(), dsn(port, "postgres")); err == nil {
			if _, err = c.Exec(context.Background(), "create database bench"); err == nil {
				err = c.QueryRow(context.Background(), "select rolpassword from pg_authid where rolname = $1", user).Scan(&p.secret)
			}
			c.Close(context.Background())
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err == nil {
		_, err = tool(port, "pgbench", "-i", "-q", "-s", "20", "bench")
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func dsn(port int, database string) string {
	return fmt.Sprintf("postgresql://%s:%s@127.0.0.1:%d/%s?sslmode=disable", user, password, port, database)
}

func tool(port int, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(port), "PGUSER="+user, "PGPASSWORD="+password, "PGSSLMODE=disable", "PGGSSENCMODE=disable")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", name, err, out[max(0, len(out)-2000):])
	}
	return out, nil
}

// proxy is we, or the peer.
type proxy struct {
	*process
	name, version string
	port, pid     int
}

// start starts both proxies, ours first.
func (b *bench) start() error {
	us, err := b.startUs()
	if err != nil {
		return err
	}
	b.proxies = append(b.proxies, us)
	if b.root == "" {
		if _, err := exec.LookPath(b.bouncer); err != nil {
			fmt.Fprintf(os.Stderr, "no peer: %v (apt-get install pgbouncer, or -root with a debootstrap of Debian 13)\n", err)
			return nil
		}
	}
	peer, err := b.startBouncer()
	if err != nil {
		return err
	}
	b.proxies = append(b.proxies, peer)
	return nil
}

func (b *bench) stop() {
	for _, p := range b.proxies {
		p.process.stop(syscall.SIGTERM)
	}
}

func (b *bench) startUs() (*proxy, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &proxy{name: "tenfold", version: "tenfold", port: port}
	if p.process, err = start(exec.Command(self, "serve", filepath.Join(b.dir, "pool"), strconv.Itoa(port), strconv.Itoa(b.server.port), b.server.home)); err != nil {
		return nil, err
	}
	p.pid = p.cmd.Process.Pid
	return p, p.await(port)
}

// serve is our proxy's process: its folder, its port, and PostgreSQL's port and home.
func serve(args []string) error {
	port, _ := strconv.Atoi(args[1])
	p, err := pgproxy.New(pgproxy.Config{Dir: args[0], Control: filepath.Join(filepath.Dir(args[0]), "pool.sock")})
	if err != nil {
		return err
	}
	if err := p.Apply(pooldir.Snapshot{Version: 1, Databases: []pooldir.Database{{
		ID: "bench", Name: "bench", Port: port, Epoch: 1, Primary: "127.0.0.1:" + args[2], Pool: servers,
		Sockets: map[string]string{"127.0.0.1:" + args[2]: filepath.Join(args[3], ".s.PGSQL."+args[2])}, Wait: time.Minute, Hold: time.Minute, Cache: true,
		Users: []pooldir.User{{Name: user, Password: password}},
	}}}); err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	defer func() { json.NewEncoder(os.Stderr).Encode(p.Stats()) }()
	return p.Run(ctx, func() {})
}

func (b *bench) startBouncer() (*proxy, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	var uid, gid int
	if uid, gid = engines.RunAs(); uid == 0 {
		uid, gid = os.Getuid(), os.Getgid()
	}
	dir := filepath.Join(b.dir, "bouncer")
	inside := dir
	command := []string{b.bouncer}
	if b.root != "" {
		if dir, err = os.MkdirTemp(filepath.Join(b.root, "tmp"), "bouncer"); err != nil {
			return nil, err
		}
		inside = strings.TrimPrefix(dir, filepath.Clean(b.root))
		if command[0] == "pgbouncer" {
			command[0] = "/usr/sbin/pgbouncer"
		}
		if uid == 0 {
			return nil, errors.New("only root can use another root")
		}
	} else if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	os.Chmod(dir, 0o755)
	host := b.server.home
	switch {
	case b.tcp:
		host = "127.0.0.1"
	case b.root != "":
		host = strings.TrimPrefix(b.inRoot, filepath.Clean(b.root))
	}
	config := fmt.Sprintf(`[databases]
bench = host=%s port=%d dbname=bench
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s/users
pool_mode = transaction
default_pool_size = %d
max_client_conn = 20000
max_prepared_statements = 200
log_connections = 0
log_disconnections = 0
query_wait_timeout = 60
ignore_startup_parameters = extra_float_digits
`, host, b.server.port, port, inside, servers)
	// The secret as the server has it: with the password itself the peer derives keys at every login.
	for name, text := range map[string]string{"users": fmt.Sprintf("%q %q\n", user, b.server.secret), "config": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	credential := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if os.Getuid() != 0 {
		credential = nil
	}
	attr := func() *syscall.SysProcAttr { return &syscall.SysProcAttr{Chroot: b.root, Credential: credential} }
	ask := exec.Command(command[0], "--version")
	ask.Dir, ask.SysProcAttr, ask.Env = "/", attr(), []string{}
	version, err := ask.Output()
	if err != nil {
		return nil, fmt.Errorf("ask the peer's version: %w", err)
	}
	first, _, _ := strings.Cut(string(version), "\n")
	p := &proxy{name: "pgbouncer", version: first, port: port}
	cmd := exec.Command(command[0], inside+"/config")
	cmd.Dir, cmd.SysProcAttr, cmd.Env = "/", attr(), []string{}
	if p.process, err = start(cmd); err != nil {
		return nil, err
	}
	p.pid = p.cmd.Process.Pid
	return p, p.await(port)
}

// times are the processor time of a proxy and of PostgreSQL so far, in seconds.
func (b *bench) times(p *proxy) (own, server float64, err error) {
	if own, err = cpu(p.pid); err != nil {
		return 0, 0, err
	}
	pids := []int{b.server.cmd.Process.Pid}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pids[0], pids[0]))
	for _, f := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		t, err := cpu(pid)
		if err != nil {
			continue // a backend that ended meanwhile
		}
		server += t
	}
	return own, server, nil
}

// cpu counts the children that ended too.
func cpu(pid int) (float64, error) {
	own, reaped, err := measure.CPU(pid)
	return own + reaped, err
}

type result struct{ transactions, tps float64 }

var (
	processed = regexp.MustCompile(`transactions actually processed: (\d+)`)
	rate      = regexp.MustCompile(`tps = ([0-9.]+)`)
	failed    = regexp.MustCompile(`failed transactions: (\d+)`)
)

func (b *bench) pgbench(port int, args []string) (r result, err error) {
	out, err := tool(port, "pgbench", append(append([]string{"-n"}, args...), "bench")...)
	if err != nil {
		return r, err
	}
	n, t := processed.FindSubmatch(out), rate.FindSubmatch(out)
	if n == nil {
		return r, fmt.Errorf("unknown output: %s", out)
	}
	if t == nil {
		return r, nil // none got through: not all could log in within the time
	}
	if f := failed.FindSubmatch(out); f != nil && string(f[1]) != "0" {
		return r, fmt.Errorf("transactions failed: %s", out)
	}
	r.transactions, _ = strconv.ParseFloat(string(n[1]), 64)
	r.tps, _ = strconv.ParseFloat(string(t[1]), 64)
	return r, nil
}

// logIn opens n connections that have logged in.
func logIn(port, n int) ([]io.Closer, error) {
	most := unix.Rlimit{Cur: 200_000, Max: 200_000}
	unix.Setrlimit(unix.RLIMIT_NOFILE, &most)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		all  []io.Closer
		errs []error
	)
	next := make(chan struct{})
	for range 16 {
		wg.Go(func() {
			for range next {
				c, err := pgx.Connect(context.Background(), dsn(port, "bench"))
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
				} else {
					all = append(all, c.PgConn().Conn())
				}
				mu.Unlock()
			}
		})
	}
	for range n {
		next <- struct{}{}
	}
	close(next)
	wg.Wait()
	return all, errors.Join(errs...)
}
