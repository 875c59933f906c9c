package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gomodule/redigo/redis"

	"tenfold/internal/cacheinfo"
	"tenfold/internal/measure"
)

const (
	cacheConns  = 50
	cacheKeys   = 10_000
	cacheValue  = 200
	cacheRounds = 10 // at least
	// A round goes from one side to the other so often: what else the machine does is much the same for both.
	turns   = 50
	idleFor = 20 * time.Second
)

// engine is a server of a cache, ours or a bare one with the same file.
type engine struct {
	url *url.URL
	pid int

	conns []*asker
}

// asker is a connection that logged in.
type asker struct {
	net.Conn
	r *bufio.Reader
}

// caches measures servers that the house holds beside bare ones: the same program with the same file, users, TLS
// and persistence, at another port.
func (b *bench) caches() error {
	for _, x := range []struct{ name, of string }{{"alone", "PLAIN_URL"}, {"safe", "SAFE_URL"}, {"ha", "HA_URL"}} {
		if b.env[x.of] == "" {
			return fmt.Errorf("%s is not given", x.of)
		}
	}
	if err := b.beside("plain", "", []string{"GET", "SET"}); err != nil {
		return err
	}
	if err := b.beside("safe", ", TLS, persisted", []string{"GET", "SET"}); err != nil {
		return err
	}
	if err := b.beside("ha", ", one reader", []string{"GET", "SET"}); err != nil {
		return err
	}
	if err := b.watching(); err != nil {
		return err
	}
	return b.failover()
}

// nodes tells the servers of a cache.
func (b *bench) nodes(name string) (cacheinfo.Cache, error) {
	var out cacheinfo.Cache
	text, err := b.tenfold("cache", "nodes", "--json", "--name", name)
	if err == nil {
		err = json.Unmarshal([]byte(text), &out)
	}
	if err != nil {
		return out, fmt.Errorf("nodes of %s: %w: %s", name, err, text)
	}
	return out, nil
}

// settled waits until every reader of a cache follows.
func (b *bench) settled(name string) (primary cacheinfo.Node, all []cacheinfo.Node, err error) {
	for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(100 * time.Millisecond) {
		c, err := b.nodes(name)
		if err != nil {
			return primary, nil, err
		}
		up := 0
		for _, n := range c.Nodes {
			if n.Role == "primary" {
				primary = n
			}
			if len(n.Addr) > 0 && (n.State == "serving" || n.State == "following") {
				up++
			}
		}
		if up == len(c.Nodes) && up == 1+len(c.Readers) {
			return primary, c.Nodes, nil
		}
	}
	return primary, nil, fmt.Errorf("%s does not settle", name)
}

// bare starts servers with the files of a cache's, the primary's first.
func (b *bench) bare(name string, at *url.URL) (engine, []int, func(), error) {
	var cmds []*exec.Cmd
	stop := func() {
		for _, c := range cmds {
			end(c)
		}
	}
	primary, all, err := b.settled(name)
	if err != nil {
		return engine{}, nil, stop, err
	}
	port := ""
	var pids []int
	start := func(n cacheinfo.Node) error {
		home, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", n.PID))
		if err != nil {
			return fmt.Errorf("find files of %s: %w", name, err)
		}
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", n.PID))
		if err != nil {
			return fmt.Errorf("find program of %s: %w", name, err)
		}
		as, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", n.PID)) // one program is several, by its name
		if err != nil {
			return fmt.Errorf("find program of %s: %w", name, err)
		}
		text, err := os.ReadFile(filepath.Join(home, "server.conf"))
		if err != nil {
			return err
		}
		dir := filepath.Join(b.dir, "bare", name, strconv.Itoa(n.N))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		_, own, _ := net.SplitHostPort(l.Addr().String())
		l.Close()
		var out strings.Builder
		for line := range strings.Lines(string(text)) {
			switch word, _, _ := strings.Cut(strings.TrimSpace(line), " "); word {
			case "bind", "replica-announce-ip":
				line = ""
			case "dir":
				line = fmt.Sprintf("dir %q\n", dir)
			case "tls-port":
				line = "tls-port " + own + "\n"
			case "port":
				if at.Scheme == "redis" {
					line = "port " + own + "\n"
				}
			case "replicaof":
				line = "replicaof 127.0.0.1 " + port + "\n"
			case "user": // ours came when it ran: it may what every user may
				if rules, ok := strings.CutPrefix(line, "user app on #"); ok {
					password, _ := at.User.Password()
					line += fmt.Sprintf("user %s on #%x%s", at.User.Username(), sha256.Sum256([]byte(password)), rules[64:])
				}
			}
			out.WriteString(line)
		}
		file := filepath.Join(dir, "server.conf")
		if err := os.WriteFile(file, []byte("bind 127.0.0.1\n"+out.String()), 0o600); err != nil {
			return err
		}
		if n.PID == primary.PID {
			port = own
		}
		cmd := exec.CommandContext(b.ctx, program, file)
		cmd.Args[0] = strings.TrimSpace(string(as))
		cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
		log, err := os.Create(filepath.Join(dir, "log"))
		if err != nil {
			return err
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			return err
		}
		cmds, pids = append(cmds, cmd), append(pids, cmd.Process.Pid)
		return nil
	}
	for _, first := range []bool{true, false} {
		for _, n := range all {
			if (n.PID == primary.PID) != first {
				continue
			}
			if err := start(n); err != nil {
				return engine{}, nil, stop, err
			}
			if b.favour {
				measure.Favour(n.PID)
				measure.Favour(pids[len(pids)-1])
			}
		}
	}
	u := *at
	u.Host = net.JoinHostPort("127.0.0.1", port)
	for range 100 {
		var c redis.Conn
		if c, err = connect(&u); err == nil {
			c.Close()
			return engine{url: &u, pid: pids[0]}, pids, stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(b.dir, "bare", name, strconv.Itoa(primary.N), "log"))
	return engine{}, nil, stop, fmt.Errorf("the bare server of %s: %w\n%s", name, err, log)
}

// connect speaks to a server as a client library does.
func connect(u *url.URL) (redis.Conn, error) {
	password, _ := u.User.Password()
	return redis.Dial("tcp", u.Host, redis.DialUsername(u.User.Username()), redis.DialPassword(password), redis.DialUseTLS(u.Scheme == "rediss"),
		redis.DialTLSConfig(&tls.Config{InsecureSkipVerify: true}), redis.DialConnectTimeout(200*time.Millisecond), redis.DialReadTimeout(200*time.Millisecond), redis.DialWriteTimeout(200*time.Millisecond))
}

// beside loads a cache's server and a bare one in turn.
func (b *bench) beside(name, how string, commands []string) error {
	at, err := url.Parse(b.env[strings.ToUpper(name)+"_URL"])
	if err != nil {
		return err
	}
	peer, bare, stop, err := b.bare(name, at)
	defer stop()
	if err != nil {
		return err
	}
	primary, all, err := b.settled(name)
	if err != nil {
		return err
	}
	us := engine{url: at, pid: primary.PID}
	if len(all) > 1 && runtime.NumCPU() > 1 {
		// Three processes are busy with a write: what shares a processor with what is not left to chance.
		last := runtime.NumCPU() - 1
		for _, n := range all {
			bare = append(bare, n.PID)
		}
		for _, pid := range bare {
			cpu := last
			if pid == us.pid || pid == peer.pid {
				cpu = 0
			}
			if err := measure.Pin(pid, cpu); err != nil {
				return err
			}
		}
		if err := measure.Pin(os.Getpid(), last); err != nil {
			return err
		}
		every := make([]int, runtime.NumCPU())
		for i := range every {
			every[i] = i
		}
		defer measure.Pin(os.Getpid(), every...)
	}
	defer us.hangUp()
	defer peer.hangUp()
	if err := errors.Join(us.call(), peer.call()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, command := range commands {
		f := measure.Figure{Name: fmt.Sprintf("%s, %d clients%s", command, cacheConns, how), Unit: "op/s", Asked: measure.Within(0.97, 1.03)}
		spent := measure.Figure{Name: f.Name + ", CPU", Unit: "µs/op", Asked: measure.AtMost(1.03)}
		for round := range max(b.rounds, cacheRounds) {
			var n [2]tally
			for i := range 2 * turns { // who is first changes
				of := (i + i/2 + round) % 2
				if err := []engine{us, peer}[of].load(command, b.each/turns, &n[of]); err != nil {
					return fmt.Errorf("%s: %w", f.Name, err)
				}
			}
			f.Ours, f.Peer = append(f.Ours, n[0].rate()), append(f.Peer, n[1].rate())
			spent.Ours, spent.Peer = append(spent.Ours, n[0].each()), append(spent.Peer, n[1].each())
			b.report.Noise()
		}
		b.report.Add(f)
		b.report.Add(spent)
	}
	return nil
}

// tally is what a side answered in a round.
type tally struct {
	n         int64
	took, cpu float64 // seconds
}

func (t tally) rate() float64 { return float64(t.n) / t.took }
func (t tally) each() float64 { return t.cpu / float64(t.n) * 1e6 }

// call makes the connections that load asks over.
func (e *engine) call() error {
	password, _ := e.url.User.Password()
	for range cacheConns {
		c, err := net.Dial("tcp", e.url.Host)
		if err != nil {
			return err
		}
		if e.url.Scheme == "rediss" {
			c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		}
		a := &asker{c, bufio.NewReader(c)}
		e.conns = append(e.conns, a)
		if err := a.answered(encode("AUTH", e.url.User.Username(), password)); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) hangUp() {
	for _, c := range e.conns {
		c.Close()
	}
}

// load asks one command again and again over all connections, each question when the last was answered.
func (e engine) load(command string, d time.Duration, to *tally) error {
	value := strings.Repeat("v", cacheValue)
	before, err := measure.Ran(e.pid)
	if err != nil {
		return err
	}
	var n atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, len(e.conns))
	begun := time.Now()
	for i, c := range e.conns {
		wg.Go(func() {
			count := int64(0)
			for errs[i] == nil && time.Since(begun) < d {
				key := "key:" + strconv.Itoa(rand.IntN(cacheKeys))
				if command == "SET" {
					errs[i] = c.answered(encode("SET", key, value))
				} else {
					errs[i] = c.answered(encode(command, key))
				}
				count++
			}
			n.Add(count)
		})
	}
	wg.Wait()
	took := time.Since(begun).Seconds()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	after, err := measure.Ran(e.pid)
	to.n += n.Load()
	to.took += took
	to.cpu += after - before
	return err
}

// encode writes a command as clients do.
func encode(words ...string) []byte {
	out := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		out = fmt.Appendf(out, "$%d\r\n%s\r\n", len(w), w)
	}
	return out
}

// answered sends a command and reads its answer, which is a line or a string.
func (c *asker) answered(command []byte) error {
	if _, err := c.Write(command); err != nil {
		return err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	switch {
	case line[0] == '-':
		return errors.New(strings.TrimSpace(string(line)))
	case line[0] == '$' && line[1] != '-':
		n, err := strconv.Atoi(strings.TrimSpace(string(line[1:])))
		if err != nil {
			return err
		}
		_, err = io.CopyN(io.Discard, c.r, int64(n)+2)
		return err
	}
	return nil
}

// watching is what it costs to look at caches while nobody asks for anything: what the two servers of one with a
// reader use over what bare ones do, and what the daemon uses over what it does when there are no caches.
func (b *bench) watching() error {
	at, err := url.Parse(b.env["HA_URL"])
	if err != nil {
		return err
	}
	_, bare, stop, err := b.bare("ha", at)
	defer stop()
	if err != nil {
		return err
	}
	_, nodes, err := b.settled("ha")
	if err != nil {
		return err
	}
	var ours []int
	for _, n := range nodes {
		ours = append(ours, n.PID)
	}
	daemon := measure.Processes(func(args []string) bool {
		return len(args) > 2 && args[1] == "house" && args[2] == "daemon" && strings.Contains(strings.Join(args, " "), b.dir)
	})
	sum := func(pids []int) (s float64) {
		for _, pid := range pids {
			own, _, e := measure.CPU(pid)
			err = errors.Join(err, e)
			s += own
		}
		return s
	}
	share := func(of ...[]int) (out []float64) {
		time.Sleep(5 * time.Second) // what a deploy leaves to do
		for _, pids := range of {
			out = append(out, -sum(pids))
		}
		begun := time.Now()
		select {
		case <-b.ctx.Done():
			err = errors.Join(err, b.ctx.Err())
		case <-time.After(idleFor):
		}
		for i, pids := range of {
			out[i] = (out[i] + sum(pids)) / time.Since(begun).Seconds() * 100
		}
		return out
	}
	servers := measure.Figure{Name: "metrics: two servers, over bare", Unit: "% CPU", Asked: measure.AtMost(1)}
	looks := measure.Figure{Name: "metrics: daemon, four servers over none", Unit: "% CPU", Asked: measure.AtMost(1)}
	for range 2 {
		x := share(ours, bare, daemon)
		if err := b.up(withoutCaches); err != nil {
			return err
		}
		none := share(daemon)
		if err := b.up(withCaches); err != nil {
			return err
		}
		if _, nodes, err = b.settled("ha"); err != nil {
			return err
		}
		ours = ours[:0]
		for _, n := range nodes {
			ours = append(ours, n.PID)
		}
		if err != nil {
			return err
		}
		servers.Ours, looks.Ours = append(servers.Ours, x[0]-x[1]), append(looks.Ours, x[2]-none[0])
	}
	b.report.Add(servers)
	b.report.Add(looks)
	return nil
}

// failover kills the primary under a writer, and takes the longest time between two answers.
func (b *bench) failover() error {
	at, err := url.Parse(b.env["HA_URL"])
	if err != nil {
		return err
	}
	f := measure.Figure{Name: "no write after kill -9 of the primary", Unit: "ms", Asked: measure.AtMost(500)}
	worst := measure.Figure{Name: "the longest of them", Unit: "ms", Asked: measure.AtMost(500), Ours: []float64{0}}
	for range max(b.rounds, cacheRounds) {
		primary, _, err := b.settled("ha")
		if err != nil {
			return err
		}
		gap, err := gapAfter(at, func() error { return syscall.Kill(primary.PID, syscall.SIGKILL) })
		if err != nil {
			return err
		}
		f.Ours = append(f.Ours, gap)
		worst.Ours[0] = max(worst.Ours[0], gap)
	}
	b.report.Add(f)
	b.report.Add(worst)
	return nil
}

// gapAfter writes without pause, over a new connection after each fault, and returns the longest time between two
// answers in the seconds around an event, in milliseconds.
func gapAfter(at *url.URL, event func() error) (float64, error) {
	var c redis.Conn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	begun, gap, last, faults := time.Now(), time.Duration(0), time.Time{}, 0
	done := false
	for time.Since(begun) < 10*time.Second {
		if !done && time.Since(begun) > 300*time.Millisecond {
			done = true
			if err := event(); err != nil {
				return 0, err
			}
		}
		if c == nil {
			var err error
			if c, err = connect(at); err != nil {
				c = nil
				time.Sleep(time.Millisecond)
				continue
			}
		}
		if _, err := c.Do("INCR", "count"); err != nil {
			c.Close()
			c = nil
			faults++
			continue
		}
		if !last.IsZero() {
			gap = max(gap, time.Since(last))
		}
		last = time.Now()
		if faults > 0 && time.Since(begun) > 2*time.Second {
			return gap.Seconds() * 1000, nil
		}
	}
	return 0, fmt.Errorf("nothing is written 10 s after the primary was killed (%d faults)", faults)
}
