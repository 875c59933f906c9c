package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tenfold"
	"tenfold/internal/keeper"
)

// A cache of memcached is one server: it has no readers, users, files or backups, and speaks a protocol of its
// own. The rest of the tier asks here for what the other engines are asked over a link.

// memcached is its name in a manifest.
const memcached = "memcached"

func (s spec) memcached() bool { return s.Engine == memcached }

// runsMemcached goes by what a server was started for, which may not be the goal yet.
func (c *Cache) runsMemcached(r record, n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if label, ok := c.labels[place{r.ID.String(), n}]; ok {
		return strings.HasPrefix(label, memcached)
	}
	return r.Spec.memcached()
}

// megabytes is a size as memcached counts it.
func megabytes(size int64) string { return strconv.FormatInt(max(1, size>>20), 10) }

// memcachedArgs are the arguments of a server, which has no file. Its memory for items is bounded; -M has it
// refuse what does not fit.
func memcachedArgs(server string, r record, n int) []string {
	port := strconv.Itoa(r.Port)
	out := []string{server, "-l", net.JoinHostPort(ownHost(n), port) + "," + net.JoinHostPort(primaryHost, port), "-p", port, "-U", "0", "-m", megabytes(r.Spec.Size),
		"-c", strconv.Itoa(memcachedConns()), "-t", strconv.Itoa(min(max(runtime.NumCPU(), 1), 16))}
	if r.Spec.Evict == "noeviction" {
		out = append(out, "-M")
	}
	return out
}

// memcachedConns is how many connections a server takes: as many as the other engines, or what this process may
// open. It does not start when it is asked for more.
func memcachedConns() int {
	const most = 10_000
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Max >= most+64 {
		return most
	}
	return max(64, int(l.Max)-64)
}

// askMemcached asks a server one thing over a connection of its own: its answer is one line, or lines up to END.
func (c *Cache) askMemcached(ctx context.Context, r record, n int, limit time.Duration, command string) ([]string, error) {
	conn, err := (&net.Dialer{Timeout: limit}).DialContext(ctx, "tcp", net.JoinHostPort(ownHost(n), strconv.Itoa(r.Port)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
		return nil, err
	}
	return readAnswer(conn)
}

// What an answer of memcached may have. It has some eighty facts, of some forty bytes.
const (
	answerBytes = 1 << 20
	answerLines = 10_000
)

// readAnswer reads "OK", "VERSION 1.6", or "STAT a 1" lines up to END.
func readAnswer(from io.Reader) ([]string, error) {
	var out []string
	in := bufio.NewScanner(io.LimitReader(from, answerBytes))
	for in.Scan() && len(out) < answerLines {
		line := strings.TrimSuffix(in.Text(), "\r")
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "END":
			return out, nil
		case "STAT":
			out = append(out, rest)
		case "ERROR", "CLIENT_ERROR", "SERVER_ERROR":
			return nil, errors.New(line)
		default:
			return []string{line}, nil
		}
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	return nil, io.ErrUnexpectedEOF
}

// statsOf are the facts of memcached by the names that the other engines have for the same, and by its own.
func statsOf(lines []string) facts {
	f := facts{}
	for _, line := range lines {
		if name, value, ok := strings.Cut(line, " "); ok {
			f[name] = value
		}
	}
	for name, of := range map[string]string{
		"used_memory": "bytes", "maxmemory": "limit_maxbytes", "keyspace_hits": "get_hits", "keyspace_misses": "get_misses",
		"connected_clients": "curr_connections", "total_connections_received": "total_connections", "evicted_keys": "evictions",
		"expired_keys": "reclaimed", "total_net_input_bytes": "bytes_read", "total_net_output_bytes": "bytes_written",
		"used_cpu_user_main_thread": "rusage_user", "used_cpu_sys_main_thread": "rusage_system", "process_id": "pid",
	} {
		f[name] = f[of]
	}
	f["db0"] = "keys=" + f["curr_items"]
	return f
}

// memcachedCounts are the metrics that ElastiCache has for memcached alone.
var memcachedCounts = map[string]string{
	"cmd_get": "CmdGet", "cmd_set": "CmdSet", "cmd_touch": "CmdTouch", "cmd_flush": "CmdFlush", "cas_hits": "CasHits", "cas_misses": "CasMisses", "cas_badval": "CasBadval",
	"delete_hits": "DeleteHits", "delete_misses": "DeleteMisses", "incr_hits": "IncrHits", "incr_misses": "IncrMisses", "decr_hits": "DecrHits", "decr_misses": "DecrMisses",
	"expired_unfetched": "ExpiredUnfetched", "evicted_unfetched": "EvictedUnfetched",
}

// lookMemcached asks a server how it is. What it runs by is seen in its answer.
func (c *Cache) lookMemcached(ctx context.Context, key string, r record, n int, s *sight) {
	l := c.link(key, n)
	l.mu.Lock()
	defer l.mu.Unlock()
	asked := time.Now()
	lines, err := c.askMemcached(ctx, r, n, pingLimit, "stats")
	if err != nil {
		now := time.Now()
		s.Hung = l.heard(asked, now, pingLimit, pulseOf(s.PID)) && l.hung(now.Sub(s.Started))
		return
	}
	l.silence = silence{}
	f := statsOf(lines)
	s.Answers, s.Bind = true, []string{ownHost(n), primaryHost}
	s.Tuned = f["limit_maxbytes"] == strconv.FormatInt(max(1, r.Spec.Size>>20)<<20, 10)
	c.noteFacts(place{key, n}, f)
}

// tuneMemcached gives a running server another size. A smaller one it comes to as it moves pages.
func (c *Cache) tuneMemcached(ctx context.Context, r record, n int) error {
	out, err := c.askMemcached(ctx, r, n, askLimit, "cache_memlimit "+megabytes(r.Spec.Size))
	if err == nil && (len(out) != 1 || out[0] != "OK") {
		err = errors.New(strings.Join(out, " "))
	}
	if err != nil {
		return fmt.Errorf("set size: %w", err)
	}
	return nil
}

// memcachedUnit is a server as the keeper runs it.
func (c *Cache) memcachedUnit(u keeper.Unit, r record, n int) keeper.Unit {
	u.Argv = memcachedArgs(u.Argv[0], r, n)
	u.StopGrace = 10 * time.Second
	return u
}

// errMemcached says that a cache of memcached has no such thing.
func errMemcached(id tenfold.ID, what string) error {
	return tenfold.Errorf(tenfold.CodeConflict, "%s is memcached, which has no %s", id.Short(), what).WithHint("write engine: valkey (or redis) in its manifest for one that has")
}
