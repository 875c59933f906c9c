//go:build scenario

package test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"tenfold/internal/cacheinfo"
)

// redisConn connects as a client library does that is given an address.
func redisConn(raw string, limit time.Duration) (redis.Conn, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, err
	}
	password, _ := u.User.Password()
	return redis.Dial("tcp", u.Host, redis.DialUsername(u.User.Username()), redis.DialPassword(password), redis.DialConnectTimeout(limit), redis.DialReadTimeout(limit),
		redis.DialUseTLS(u.Scheme == "rediss"), redis.DialTLSConfig(&tls.Config{InsecureSkipVerify: true}))
}

// redisDo is one command over a connection of its own.
func redisDo(raw, command string, args ...any) (string, error) {
	c, err := redisConn(raw, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return redis.String(c.Do(command, args...))
}

// cacheNodes asks for the servers of the app's cache.
func (h *house) cacheNodes(dir string) cacheinfo.Cache {
	h.t.Helper()
	var out cacheinfo.Cache
	if err := json.Unmarshal([]byte(h.must(dir, "cache", "nodes", "--json")), &out); err != nil {
		h.t.Fatal(err)
	}
	return out
}

func primaryOf(c cacheinfo.Cache) cacheinfo.Node {
	for _, n := range c.Nodes {
		if n.Role == "primary" {
			return n
		}
	}
	return cacheinfo.Node{}
}

// following says that so many readers follow, and that every server is where clients look for it.
func following(c cacheinfo.Cache, readers int) bool {
	up := 0
	for _, n := range c.Nodes {
		if n.Role == "reader" && n.State == "following" && n.Lag == 0 && len(n.Addr) > 0 {
			up++
		}
	}
	return up == readers && len(c.Nodes) == readers+1 && primaryOf(c).State == "serving"
}

// counting increments a counter without pause, over a new connection after each fault, and notes the longest
// time between two answers.
type counting struct {
	acked int64
	gap   time.Duration
	stop  chan struct{}
	done  chan struct{}
}

func countAt(raw string) *counting {
	c := &counting{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		var conn redis.Conn
		last := time.Now()
		for {
			select {
			case <-c.stop:
				return
			default:
			}
			if conn == nil {
				if conn, _ = redisConn(raw, 200*time.Millisecond); conn == nil {
					<-time.After(time.Millisecond)
					continue
				}
			}
			if _, err := conn.Do("INCR", "count"); err != nil {
				conn.Close()
				conn = nil
				continue
			}
			c.acked++
			c.gap = max(c.gap, time.Since(last))
			last = time.Now()
		}
	}()
	return c
}

// A service is given an address to write to and one to read from, as a user of its own. Whoever dies or hangs, both
// stay what they are: a reader takes over the primary's, and the service sees a fault and connects again.
func TestCacheFailsOverAtItsAddress(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [cache]\ncaches: {cache: {size: 32mb, readers: 1}}\n")})
	h.up(dir)
	env := h.environ("echo 1")
	at, read := env["REDIS_URL"], env["REDIS_READ_URL"]
	if u, err := url.Parse(at); err != nil || u.User.Username() != "api" || u.Hostname() != "127.0.0.1" || at == read {
		t.Fatalf("REDIS_URL=%s REDIS_READ_URL=%s", at, read)
	}
	settled := func() {
		t.Helper()
		eventually(t, "a reader that follows", 30*time.Second, func() bool { return following(h.cacheNodes(dir), 1) })
	}
	settled()
	if _, err := redisDo(read, "SET", "a", "1"); err == nil || !strings.HasPrefix(err.Error(), "READONLY") {
		t.Errorf("a write at the address for reads: %v", err)
	}
	if _, err := redisDo(at, "CONFIG", "GET", "maxmemory"); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
		t.Errorf("a service may configure: %v", err)
	}
	var gaps []string
	for round := range 6 {
		how := []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP}[round%2]
		before := h.cacheNodes(dir)
		if _, err := redisDo(at, "SET", "count", "0"); err != nil {
			t.Fatal(err)
		}
		c := countAt(at)
		<-time.After(300 * time.Millisecond)
		if err := syscall.Kill(primaryOf(before).PID, how); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another primary", 20*time.Second, func() bool {
			now := h.cacheNodes(dir)
			return now.Epoch == before.Epoch+1 && primaryOf(now).State == "serving"
		})
		<-time.After(200 * time.Millisecond)
		close(c.stop)
		<-c.done
		got, err := redisDo(at, "GET", "count")
		if err != nil {
			t.Fatal(err)
		}
		var kept int64
		fmt.Sscan(got, &kept)
		gaps = append(gaps, fmt.Sprintf("%s %s", how, c.gap.Round(time.Millisecond)))
		if c.gap > 3*time.Second {
			t.Errorf("%s: nothing was written for %s", how, c.gap)
		}
		// Replication does not wait: what was acknowledged in the last moments may be gone.
		if lost := c.acked - kept; lost > c.acked/20 {
			t.Errorf("%s: of %d acknowledged %d are lost", how, c.acked, lost)
		}
		settled()
		if now, err := redisDo(read, "GET", "count"); err != nil || now != got {
			t.Errorf("at the address for reads: %q %v, want %s", now, err, got)
		}
	}
	t.Logf("longest time without a write: %s", strings.Join(gaps, ", "))

	// In order nothing is lost, and with the daemon dead too somebody takes over when it is back.
	if _, err := redisDo(at, "SET", "count", "0"); err != nil {
		t.Fatal(err)
	}
	c := countAt(at)
	h.must(dir, "cache", "switchover")
	close(c.stop)
	<-c.done
	settled() // a connection that is made while listeners change hands may be reset
	if got, err := redisDo(at, "GET", "count"); err != nil || got != fmt.Sprint(c.acked) {
		t.Errorf("a switchover: %s of %d, %v", got, c.acked, err)
	}
	before := h.cacheNodes(dir)
	h.kill("house daemon")
	syscall.Kill(primaryOf(before).PID, syscall.SIGKILL)
	eventually(t, "another primary after the daemon died with the old one", 30*time.Second, func() bool {
		got, err := redisDo(at, "GET", "count")
		return err == nil && got == fmt.Sprint(c.acked)
	})
	settled()
	if out := h.must(dir, "cache", "failover"); !strings.Contains(out, "has a primary again after") || !strings.Contains(out, "reader") {
		t.Errorf("cache failover says: %s", out)
	}
	settled()
	// The number of readers, and the size, change while all goes on.
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [cache]\ncaches: {cache: {size: 64mb, readers: 2, evict: allkeys-lfu}}\n")})
	was := primaryOf(h.cacheNodes(dir)).PID
	h.up(dir)
	eventually(t, "two readers", 30*time.Second, func() bool { return following(h.cacheNodes(dir), 2) })
	if now := h.cacheNodes(dir); primaryOf(now).PID != was || now.Size != 64<<20 || now.Evict != "allkeys-lfu" || len(now.Readers) != 2 {
		t.Errorf("after a resize: %+v", now)
	}
	if got, err := redisDo(at, "GET", "count"); err != nil || got != fmt.Sprint(c.acked) {
		t.Errorf("after a resize: %s of %d, %v", got, c.acked, err)
	}
}

// What people ask of a cache over the command line: its keys, what it does, metrics, a shell, other passwords, TLS,
// and what it had yesterday.
func TestCacheIsAskedAndRestored(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	const cache = "    uses: [cache]\ncaches: {cache: {size: 32mb, readers: 1, persist: true, tls: true, backups: {every: 1h, key: KEY}}}\nsecrets: {KEY: {generate: 32}}\n"
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", cache)})
	h.up(dir)
	eventually(t, "a reader that follows", 30*time.Second, func() bool { return following(h.cacheNodes(dir), 1) })
	at := h.environ("echo 1")["REDIS_URL"]
	if !strings.HasPrefix(at, "rediss://api:") {
		t.Fatal(at)
	}
	for i := range 50 {
		if _, err := redisDo(at, "SET", fmt.Sprint("key", i), strings.Repeat("v", 100*i)); err != nil {
			t.Fatal(err)
		}
	}
	if out := h.must(dir, "cache", "cli", "--", "GET", "key1"); strings.TrimSpace(out) != strings.Repeat("v", 100) {
		t.Errorf("cache cli says %q", out)
	}
	if out := h.must(dir, "cache", "keys"); !strings.Contains(out, "50 of 50 keys") || !strings.Contains(out, "key49") || !strings.Contains(out, "more memory would buy nothing") {
		t.Errorf("cache keys says %s", out)
	}
	if out := h.must(dir, "cache", "top"); !strings.Contains(out, "set ") || !strings.Contains(out, "processor") {
		t.Errorf("cache top says %s", out)
	}
	eventually(t, "metrics of both servers", 20*time.Second, func() bool {
		out := h.must(dir, "metrics")
		return strings.Contains(out, `cache_curr_items{app="echo",env="production",cache="cache",node="1",role="primary"} 50`) && strings.Contains(out, `node="2",role="reader"} 50`) &&
			strings.Contains(out, "cache_string_based_cmds_total")
	})
	if out := h.must(dir, "cache", "backup"); !strings.Contains(out, "Z  ") {
		t.Errorf("cache backup says %s", out)
	}
	if _, err := redisDo(at, "FLUSHALL"); err != nil {
		t.Fatal(err)
	}
	if out := h.must(dir, "cache", "backups"); !strings.Contains(out, "encrypted") {
		t.Errorf("cache backups says %s", out)
	}
	h.must(dir, "cache", "restore")
	if out := h.must(dir, "cache", "cli", "--name", "cache-restored", "--", "GET", "key1"); strings.TrimSpace(out) != strings.Repeat("v", 100) {
		t.Errorf("what was restored has %q", out)
	}
	if out := h.must(dir, "cache", "rotate"); !strings.Contains(out, "api") {
		t.Errorf("cache rotate says %s", out)
	}
	eventually(t, "a task with the new password", 30*time.Second, func() bool {
		now := h.environ("echo 1")["REDIS_URL"]
		got, err := redisDo(now, "PING")
		return now != at && err == nil && got == "PONG"
	})
	if _, err := redisDo(at, "PING"); err != nil {
		t.Errorf("the old password, before its time is over: %v", err)
	}
}

// memcachedDo says one thing in memcached's protocol, and returns the first line of the answer.
func memcachedDo(raw, command string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", err
	}
	c, err := net.DialTimeout("tcp", u.Host, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(c, "%s\r\n", command)
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// A cache of memcached, for apps that speak that: its address stays what it is whatever happens to the server.
func TestCacheOfMemcached(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	const cache = "    uses: [pages]\ncaches: {pages: {engine: memcached, size: %s}}\n"
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", fmt.Sprintf(cache, "32mb"))})
	h.up(dir)
	env := h.environ("echo 1")
	at := env["MEMCACHED_URL"]
	if u, err := url.Parse(at); err != nil || u.Scheme != "memcached" || u.Hostname() != "127.0.0.1" || env["REDIS_URL"] != "" {
		t.Fatalf("MEMCACHED_URL=%s REDIS_URL=%s", at, env["REDIS_URL"])
	}
	if got, err := memcachedDo(at, "set a 0 0 1\r\n7"); err != nil || got != "STORED" {
		t.Fatal(got, err)
	}
	was := primaryOf(h.cacheNodes(dir))
	if was.State != "serving" || was.PID == 0 {
		t.Fatalf("%+v", was)
	}
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", fmt.Sprintf(cache, "64mb"))})
	h.up(dir)
	if now := h.cacheNodes(dir); primaryOf(now).PID != was.PID || now.Size != 64<<20 || !strings.HasPrefix(now.Version, "Memcached 1.") {
		t.Errorf("after a resize: %+v", now)
	}
	if got, err := memcachedDo(at, "get a"); err != nil || got != "VALUE a 0 1" {
		t.Errorf("after a resize: %q %v", got, err)
	}
	eventually(t, "its metrics", 20*time.Second, func() bool {
		out := h.must(dir, "metrics")
		return strings.Contains(out, `cache_cmd_set_total{app="echo",env="production",cache="pages",node="1",role="primary"} 1`) && strings.Contains(out, `cache_curr_items{app="echo"`)
	})
	if out := h.must(dir, "cache", "top"); !strings.Contains(out, "1 keys") {
		t.Errorf("cache top says %s", out)
	}
	if out := strings.TrimSpace(h.must(dir, "cache", "url")); out != at {
		t.Errorf("cache url says %s, and the service has %s", out, at)
	}
	if err := syscall.Kill(was.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an empty one at the same address", 20*time.Second, func() bool {
		got, err := memcachedDo(at, "get a")
		return err == nil && got == "END"
	})
}
