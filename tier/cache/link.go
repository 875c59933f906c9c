package cache

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gomodule/redigo/redis"

	"tenfold/internal/keeper"
)

// How long our own questions may take.
const (
	pingLimit = 100 * time.Millisecond
	// heirLimit is for those that may take over from a primary that ended: to give up on one sooner, and to
	// connect again, takes longer than to wait for it.
	heirLimit = 500 * time.Millisecond
	askLimit  = 2 * time.Second
)

// admin is our own user at a server, replica the one that servers log in at each other as.
const (
	admin   = "tenfold"
	replica = "replica"
)

// place is one server of a cache.
type place struct {
	key string
	n   int
}

// link is a connection to a server, made when it is asked first.
type link struct {
	mu   sync.Mutex // held while it is asked
	conn redis.Conn
	silence
}

func (c *Cache) link(key string, n int) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.links[place{key, n}]
	if l == nil {
		l = &link{}
		c.links[place{key, n}] = l
	}
	return l
}

// unlink forgets a server that is no more.
func (c *Cache) unlink(key string, n int) {
	l := c.link(key, n)
	l.mu.Lock()
	l.drop()
	l.silence = silence{}
	l.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.links, place{key, n})
	delete(c.tuned, place{key, n})
}

func (l *link) drop() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// dial connects to a server as our own user.
func (c *Cache) dial(ctx context.Context, r record, n int, limit time.Duration) (redis.Conn, error) {
	opts := []redis.DialOption{redis.DialConnectTimeout(limit), redis.DialReadTimeout(limit), redis.DialWriteTimeout(limit), redis.DialClientName(admin)}
	host := ownHost(n)
	switch {
	case r.Admin == "": // of an earlier Tenfold: it takes nothing but PING
		host = primaryHost
		opts = append(opts[:3], redis.DialUsername("probe"), redis.DialPassword(r.Password))
	default:
		opts = append(opts, redis.DialUsername(admin), redis.DialPassword(r.Admin))
	}
	if c.speaksTLS(r, n) {
		cfg, err := c.clientTLS()
		if err != nil {
			return nil, err
		}
		opts = append(opts, redis.DialUseTLS(true), redis.DialTLSConfig(cfg))
	}
	return redis.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(r.Port)), opts...)
}

// clientTLS trusts the house's authority alone.
func (c *Cache) clientTLS() (*tls.Config, error) {
	if c.cfg.Certificate == nil {
		return nil, errNoTLS
	}
	p, err := c.cfg.Certificate()
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.Authority)
	return &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}, nil
}

// speaksTLS goes by what a server was started for, which may not be the goal yet.
func (c *Cache) speaksTLS(r record, n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if label, ok := c.labels[place{r.ID.String(), n}]; ok {
		return spoken(label)
	}
	return r.Spec.TLS
}

func (c *Cache) noteLabel(at place, label string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.labels[at] = label
}

var errNoTLS = errors.New("this house has no certificates")

// do asks a server one thing. What cannot be asked breaks the connection, which the next question renews.
func (c *Cache) do(ctx context.Context, r record, n int, limit time.Duration, command string, args ...any) (any, error) {
	l := c.link(r.ID.String(), n)
	l.mu.Lock()
	defer l.mu.Unlock()
	return c.askOver(ctx, l, r, n, limit, command, args...)
}

func (c *Cache) askOver(ctx context.Context, l *link, r record, n int, limit time.Duration, command string, args ...any) (any, error) {
	if l.conn == nil {
		conn, err := c.dial(ctx, r, n, limit)
		if err != nil {
			return nil, err
		}
		l.conn = conn
	}
	out, err := redis.DoWithTimeout(l.conn, limit, command, args...)
	if l.conn.Err() != nil {
		l.drop()
	}
	return out, err
}

// facts are what INFO says, by name.
type facts map[string]string

// parseInfo reads INFO's answer.
func parseInfo(b []byte) facts {
	out := facts{}
	for in := bufio.NewScanner(bytes.NewReader(b)); in.Scan(); {
		if name, value, ok := strings.Cut(in.Text(), ":"); ok && !strings.HasPrefix(name, "#") {
			out[name] = value
		}
	}
	return out
}

// number is a fact that is one; 0: it is absent or none.
func (f facts) number(name string) float64 {
	n, _ := strconv.ParseFloat(f[name], 64)
	return n
}

// seconds is a fact that is a number of them.
func (f facts) seconds(name string) time.Duration {
	return time.Duration(f.number(name) * float64(time.Second))
}

// look asks a server how it is, and waits for its answers for so long each.
func (c *Cache) look(ctx context.Context, key string, r record, n int, s *sight, limit time.Duration) {
	if c.runsMemcached(r, n) {
		c.lookMemcached(ctx, key, r, n, s)
		return
	}
	l := c.link(key, n)
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Admin == "" {
		_, err := c.askOver(ctx, l, r, n, pingLimit, "PING")
		s.Answers, s.Tuned = err == nil, true
		if r.Serving == r.Goal { // else it is started again, with our user
			s.Label = r.Spec.basis()
		}
		return
	}
	asked := time.Now()
	b, err := redis.Bytes(c.askOver(ctx, l, r, n, limit, "INFO", "everything"))
	if err != nil {
		now := time.Now()
		s.Hung = l.heard(asked, now, limit, pulseOf(s.PID)) && l.hung(now.Sub(s.Started))
		return
	}
	l.silence = silence{}
	f := parseInfo(b)
	s.Answers, s.Loading = true, f["loading"] == "1" || f["async_loading"] == "1"
	s.Replica, s.LinkUp, s.Syncing = f["role"] == "slave", f["master_link_status"] == "up", f["master_sync_in_progress"] == "1"
	s.Offset, s.Down = int64(f.number("master_repl_offset")), f.seconds("master_link_down_since_seconds")
	if s.Replica {
		s.Offset = int64(f.number("slave_repl_offset"))
	}
	bind, err := redis.Strings(c.askOver(ctx, l, r, n, limit, "CONFIG", "GET", "bind"))
	if err == nil && len(bind) == 2 {
		s.Bind = strings.Fields(bind[1])
	}
	c.noteFacts(place{key, n}, f)
}

// heartbeat asks a server for nothing but a sign of life, and says whether it gave one.
func (c *Cache) heartbeat(ctx context.Context, key string, r record, n int) bool {
	l := c.link(key, n)
	l.mu.Lock()
	defer l.mu.Unlock()
	asked := time.Now()
	if _, err := c.askOver(ctx, l, r, n, pingLimit, "PING"); err == nil {
		l.silence = silence{}
		return true
	}
	l.heard(asked, time.Now(), pingLimit, pulse{})
	return false
}

// see looks at all servers of a cache.
func (c *Cache) see(ctx context.Context, key string, r record) (view, error) {
	units, err := c.status(ctx, key)
	if err != nil {
		return view{}, err
	}
	limit := pingLimit
	if units[r.Primary].Phase != keeper.Running {
		limit = heirLimit
	}
	v := view{Nodes: map[int]sight{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range r.Nodes {
		u, ok := units[n.N]
		s := sight{}
		if ok {
			s = sight{Unit: u.Phase, PID: u.PID, Started: u.Started, Label: u.Unit.Label}
			c.noteLabel(place{key, n.N}, u.Unit.Label)
			if u.LastExit != nil {
				s.Asked, s.Exit = u.LastExit.Asked, u.LastExit.Describe()
			}
		}
		wg.Go(func() {
			if s.Unit == keeper.Running {
				c.look(ctx, key, r, n.N, &s, limit)
				switch {
				case c.runsMemcached(r, n.N):
					s.Tuned = s.Tuned || r.Failed == r.Goal
				case r.Admin != "": // a goal that was refused is given to nobody
					s.Tuned = r.Failed == r.Goal || c.isTuned(place{key, n.N}, r, s.PID)
				}
			}
			s.Failures, s.Fed = c.failures(place{key, n.N}), c.fedBefore(place{key, n.N}, s)
			mu.Lock()
			defer mu.Unlock()
			v.Nodes[n.N] = s
		})
	}
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := v.Nodes[r.Primary]; p.Answers && !p.Replica {
		v.Followed = map[int]bool{}
		for n, x := range v.Nodes {
			v.Followed[n] = x.Replica && x.LinkUp && !x.Syncing
		}
	} else if old, ok := c.seen[key]; ok {
		v.Followed = old.Followed
	}
	c.seen[key] = v
	return v, nil
}

// fedBefore says that a server's process follows or has followed.
func (c *Cache) fedBefore(at place, s sight) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.LinkUp && !s.Syncing {
		c.fed[at] = s.PID
	}
	return s.PID != 0 && c.fed[at] == s.PID
}

// status is what the keeper says of a cache's servers, by node. The keeper lists by prefix, and "hot" is a
// prefix of "hot2".
func (c *Cache) status(ctx context.Context, key string) (map[int]keeper.Status, error) {
	all, err := c.cfg.Units.List(ctx, unitPrefix+key)
	if err != nil {
		return nil, fmt.Errorf("look at servers: %w", err)
	}
	out := map[int]keeper.Status{}
	for _, s := range all {
		if of, n, ok := parseUnit(s.Unit.ID); ok && of == key {
			out[n] = s
		}
	}
	return out, nil
}
