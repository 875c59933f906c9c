package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tenfold"
	"tenfold/internal/atomicfile"
	"tenfold/internal/engines"
	"tenfold/internal/keeper"
)

// PEM is a certificate with its key, and the authority that signed it.
type PEM struct{ Cert, Key, Authority []byte }

// homeOf is the folder of a node. Node 1 has the cache's own, as it had when it was alone.
func (c *Cache) homeOf(id tenfold.ID, n int) string {
	if n == 1 {
		return c.home(id)
	}
	return filepath.Join(c.home(id), "node-"+strconv.Itoa(n))
}

func (c *Cache) logOf(id tenfold.ID, n int) string {
	name := "cache.log"
	if n != 1 {
		name = fmt.Sprintf("cache-%d.log", n)
	}
	return filepath.Join(c.homeOf(id, n), "log", name)
}

// LogPaths are the files with its servers' output.
func (c *Cache) LogPaths(id tenfold.ID) []string {
	out := []string{c.logOf(id, 1)}
	r, _ := c.get(id.String())
	for _, n := range r.Nodes {
		if n.N != 1 {
			out = append(out, c.logOf(id, n.N))
		}
	}
	return out
}

// settings are those that are changed while a server runs, in the order that they are given in.
func settings(s spec) [][2]string {
	save, aof := "", "no"
	if s.Persist {
		save, aof = "3600 1", "yes"
	}
	return [][2]string{
		{"maxmemory", strconv.FormatInt(s.Size, 10)}, {"maxmemory-policy", s.Evict}, {"appendonly", aof}, {"save", save},
		// A reader that was away gets what it missed, not all again, as long as that is in here.
		{"repl-backlog-size", strconv.FormatInt(max(1<<20, min(s.Size/16, 64<<20)), 10)},
	}
}

// abilities are what apps may do: all but what is the operator's.
const abilities = "~* &* +@all -@dangerous +info +keys +flushdb +flushall +sort +client +command"

// accounts are the rules of all users of a server, by name. Passwords stand there as their hashes.
func accounts(r record) map[string]string {
	hash := func(passwords ...string) (out string) {
		for _, p := range passwords {
			sum := sha256.Sum256([]byte(p))
			out += " #" + hex.EncodeToString(sum[:])
		}
		return out
	}
	out := map[string]string{
		"default": "off", admin: "on" + hash(r.Admin) + " ~* &* +@all", replica: "on" + hash(r.Admin) + " +psync +replconf +ping",
	}
	add := func(name, password string) {
		passwords := []string{password}
		if old := r.Old[name]; old != "" {
			passwords = append(passwords, old)
		}
		out[name] = "on" + hash(passwords...) + " " + abilities
	}
	add(user, r.Password)
	for name, password := range r.Users {
		add(userOf(name), password)
	}
	return out
}

// configuration is a server's file. Passwords stand in it and nowhere on a command line.
func (c *Cache) configuration(r record, n int, primary bool) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	home := c.homeOf(r.ID, n)
	line("# written by tenfold")
	hosts := []string{ownHost(n)}
	if primary {
		hosts = append(hosts, primaryHost)
	}
	line("bind %s", strings.Join(hosts, " "))
	if r.Spec.TLS {
		line("port 0\ntls-port %d\ntls-replication yes\ntls-auth-clients no", r.Port)
		for _, x := range tlsFiles {
			line("%s %q", x.setting, filepath.Join(home, x.file))
		}
	} else {
		line("port %d", r.Port)
	}
	line("protected-mode yes\ndaemonize no\ndir %q\nappendfsync everysec\nreplica-announce-ip %s\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\nrdb-del-sync-files yes", home, ownHost(n))
	for _, s := range settings(r.Spec) {
		value := s[1]
		if value == "" {
			value = `""`
		}
		line("%s %s", s[0], value)
	}
	if !primary {
		line("replicaof %s %d", primaryHost, r.Port)
	}
	line("masteruser %s\nmasterauth %s", replica, r.Admin)
	all := accounts(r)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		line("user %s %s", name, all[name])
	}
	return b.String()
}

var tlsFiles = []struct{ setting, file string }{{"tls-cert-file", "server.crt"}, {"tls-key-file", "server.key"}, {"tls-ca-cert-file", "authority.crt"}}

// configure writes a server's files, for its user to read.
func (c *Cache) configure(r record, n int, primary bool) error {
	home := c.homeOf(r.ID, n)
	if err := os.MkdirAll(home, 0o755); err != nil {
		return fmt.Errorf("configure cache: %w", err)
	}
	if r.Spec.memcached() { // all that it is told stands in its arguments, and it writes nothing
		return nil
	}
	uid, gid := engines.RunAs()
	if uid > 0 {
		if d, err := engines.Blocked(home); err != nil {
			return fmt.Errorf("configure cache: %w", err)
		} else if d != "" {
			return tenfold.Errorf(tenfold.CodeDenied, "%s does not run as root, and its user cannot pass %s", r.Version, d).
				WithHint("use another data directory: --data /var/lib/tenfold")
		}
		if err := os.Chown(home, uid, gid); err != nil {
			return fmt.Errorf("configure cache: %w", err)
		}
	}
	if r.Spec.TLS {
		if err := c.writeTLS(home); err != nil {
			return err
		}
	}
	return c.give(filepath.Join(home, "server.conf"), []byte(c.configuration(r, n, primary)))
}

// give writes a file that the engines' user alone may read.
func (c *Cache) give(path string, b []byte) error {
	if err := atomicfile.Write(path, b, 0o600); err != nil {
		return err
	}
	if uid, gid := engines.RunAs(); uid > 0 {
		if err := os.Chown(path, uid, gid); err != nil {
			return fmt.Errorf("configure cache: %w", err)
		}
	}
	return nil
}

func (c *Cache) writeTLS(home string) error {
	if c.cfg.Certificate == nil {
		return errNoTLS
	}
	p, err := c.cfg.Certificate()
	if err != nil {
		return fmt.Errorf("configure cache: %w", err)
	}
	for i, b := range [][]byte{p.Cert, p.Key, p.Authority} {
		if err := c.give(filepath.Join(home, tlsFiles[i].file), b); err != nil {
			return err
		}
	}
	return nil
}

// launch starts a node's server, as the primary or as a reader of it.
func (c *Cache) launch(ctx context.Context, key string, r record, n int, e engines.Engine) error {
	if err := c.cfg.Units.Remove(ctx, unitOf(key, n)); err != nil {
		return err
	}
	c.unlink(key, n)
	c.noteLabel(place{key, n}, r.Spec.basis())
	if err := c.configure(r, n, n == r.Primary); err != nil {
		return err
	}
	uid, gid := engines.RunAs()
	u := keeper.Unit{
		ID: unitOf(key, n), Label: r.Spec.basis(), Argv: []string{e.Server, filepath.Join(c.homeOf(r.ID, n), "server.conf")}, Env: []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}, Dir: "/",
		UID: uid, GID: gid, StopGrace: 60 * time.Second, Log: c.logOf(r.ID, n), OOMScore: -200,
	}
	if r.Spec.memcached() {
		u = c.memcachedUnit(u, r, n)
	}
	_, err := c.cfg.Units.Start(ctx, u)
	return err
}

// engine finds the server program of a cache.
func (c *Cache) engine(ctx context.Context, s spec) (engines.Engine, error) {
	e, err := engines.Cache(ctx, s.Engine, s.Major)
	if err != nil && s.memcached() {
		return e, tenfold.Errorf(tenfold.CodeMissing, "%w", err).WithHint("install it: apt-get install memcached")
	}
	if err != nil {
		return e, tenfold.Errorf(tenfold.CodeMissing, "%w", err).WithHint("install it: tenfold doctor --fix (or apt-get install valkey-server, before Debian 13 redis-server)")
	}
	return e, nil
}

// alive asks a server for a sign of life.
func (c *Cache) alive(ctx context.Context, r record, n int) error {
	if r.Spec.memcached() {
		_, err := c.askMemcached(ctx, r, n, askLimit, "version")
		return err
	}
	_, err := c.do(ctx, r, n, askLimit, "PING")
	return err
}

// await waits for the first answer of a node that was started.
func (c *Cache) await(ctx context.Context, key string, r record, n int) error {
	begun := time.Now()
	for {
		err := c.alive(ctx, r, n)
		if err == nil {
			return nil
		}
		all, lerr := c.status(ctx, key)
		if lerr != nil {
			return lerr
		}
		s := all[n]
		ended := s.Phase == keeper.Exited && s.LastExit != nil
		loads := strings.HasPrefix(err.Error(), "LOADING")
		if ended || !loads && time.Since(begun) > startLimit {
			how := "does not answer: " + err.Error()
			if ended {
				how = "ended: " + s.LastExit.Describe()
			}
			lines := keeper.LastLines(c.logOf(r.ID, n), begun.Add(-time.Second), 5)
			return tenfold.Errorf(tenfold.CodeFailed, "%s %s\n  last output  %s", r.Version, how, strings.Join(lines, "\n               ")).WithHint("its whole log: %s", c.logOf(r.ID, n))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(answerPace):
		}
	}
}

// fits says what this machine lacks for all caches that it is asked for: a cache that is killed for memory
// loses all that it has.
func (c *Cache) fits(key string, r record, have int64) error {
	var others int64
	for k, x := range c.records.All() {
		if k != key && !x.Stopped {
			others += x.Spec.Size * int64(1+max(x.Readers, x.Spec.Readers.Min))
		}
	}
	mine := r.Spec.Size * int64(1+max(r.Readers, r.Spec.Readers.Min))
	if have <= 0 || others+mine <= have/10*9 {
		return nil
	}
	text := fmt.Sprintf("size %s", sizeOf(r.Spec.Size))
	if n := r.Spec.Readers.Min; n > 0 {
		text += fmt.Sprintf(" at each of %d servers", n+1)
	}
	if others > 0 {
		text += fmt.Sprintf(" and %s of other caches", sizeOf(others))
	}
	return tenfold.Errorf(tenfold.CodeInvalid, "%s: %s, and the machine has %s", r.ID.Short(), text, sizeOf(have)).WithHint("write a smaller size, or fewer readers: nine tenths of the memory is what all caches may have")
}

// machineMemory is what there is for this house, in bytes; 0: not known.
func machineMemory() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kb int64
	if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kb); err != nil {
		return 0
	}
	have := kb << 10
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if b, err := os.ReadFile(file); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
				have = min(have, n)
			}
		}
	}
	return have
}

// definite says that trying again will not help.
func definite(err error) bool {
	var te *tenfold.Error
	return errors.As(err, &te)
}
