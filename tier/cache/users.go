package cache

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tenfold"
)

// user is the ACL user of whoever names no service: shells and tools.
const user = "app"

// graceLimit is how long a password is taken after a rotation replaced it.
const graceLimit = 10 * time.Minute

// userOf is the ACL user of a service or a function: its name, apart from those that every server has.
func userOf(name tenfold.Name) string {
	switch name {
	case user, admin, replica, "default", "probe":
		return string(name) + "-service"
	}
	return string(name)
}

// Field gives one fact of a cache, for those who use it and name no service.
func (c *Cache) Field(ctx context.Context, id tenfold.ID, f tenfold.Field) (string, error) {
	return c.FieldFor(ctx, id, f, "")
}

// FieldFor gives one fact of a cache to a service, which has a user and a password of its own.
func (c *Cache) FieldFor(ctx context.Context, id tenfold.ID, f tenfold.Field, by tenfold.Name) (string, error) {
	r, ok := c.get(id.String())
	if !ok || r.Port == 0 {
		return "", tenfold.Errorf(tenfold.CodeUnavailable, "%s has not been started", id.Short()).WithHint("tenfold up")
	}
	name, pass := user, r.Password
	// A server that an earlier Tenfold started knows one user.
	if by != "" && r.Admin != "" && !r.Spec.memcached() {
		var err error
		if pass, err = c.enroll(ctx, id, by); err != nil {
			return "", err
		}
		name = userOf(by)
	}
	at := func(host string) string {
		u := url.URL{Scheme: "redis", User: url.UserPassword(name, pass), Host: net.JoinHostPort(host, strconv.Itoa(r.Port))}
		if r.Spec.TLS {
			u.Scheme = "rediss"
		}
		if r.Spec.memcached() {
			u.Scheme, u.User = memcached, nil
		}
		return u.String()
	}
	switch f {
	case tenfold.FieldHost:
		return primaryHost, nil
	case tenfold.FieldPort:
		return strconv.Itoa(r.Port), nil
	case tenfold.FieldUser:
		return name, nil
	case tenfold.FieldPassword:
		return pass, nil
	case tenfold.FieldURL:
		return at(primaryHost), nil
	case tenfold.FieldReadURL:
		if r.Spec.Readers.Max == 0 || r.Admin == "" {
			return at(primaryHost), nil
		}
		return at(readHost(c.turn(id, r.Spec.Readers.Max))), nil
	}
	return "", fmt.Errorf("a cache has no %s", f)
}

// turn spreads those who ask over the addresses for reads.
func (c *Cache) turn(id tenfold.ID, n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turns[id]++
	return (c.turns[id] - 1) % n
}

// enroll gives a service its user, once, and says its password. Servers that do not answer are told when they
// do: the record has it.
func (c *Cache) enroll(ctx context.Context, id tenfold.ID, by tenfold.Name) (string, error) {
	key := id.String()
	if r, ok := c.get(key); ok && r.Users[by] != "" {
		return r.Users[by], nil
	}
	if err := c.records.Change(key, func(x *record) {
		if x.Users[by] != "" {
			return
		}
		users := map[tenfold.Name]string{by: password()}
		maps.Copy(users, x.Users)
		x.Users = users
	}); err != nil {
		return "", err
	}
	r, _ := c.get(key)
	c.tell(ctx, r, userOf(by))
	c.wake()
	return r.Users[by], nil
}

// tell gives users to the servers that answer; the others get them with all else.
func (c *Cache) tell(ctx context.Context, r record, names ...string) {
	rules := accounts(r)
	for _, n := range r.Nodes {
		for _, name := range names {
			args := []any{"SETUSER", name, "reset"}
			for _, word := range strings.Fields(rules[name]) {
				args = append(args, word)
			}
			if _, err := c.do(ctx, r, n.N, askLimit, "ACL", args...); err != nil {
				break
			}
		}
	}
}

// Rotate gives every user of a cache a new password and returns when its servers have them. What was replaced
// is taken for ten minutes more, so that those who have it can be started again one after another; it is
// refused at once when a rotation follows.
func (c *Cache) Rotate(ctx context.Context, id tenfold.ID) error {
	r, err := c.served(id)
	if err != nil {
		return err
	}
	if r.Spec.memcached() {
		return errMemcached(id, "passwords")
	}
	if r.Admin == "" {
		return tenfold.Errorf(tenfold.CodeConflict, "%s runs as an earlier Tenfold started it", id.Short()).WithHint("start it again first: tenfold cache failover")
	}
	if err := c.records.Change(id.String(), func(x *record) {
		old, users := map[string]string{user: x.Password}, map[tenfold.Name]string{}
		for name, p := range x.Users {
			old[userOf(name)], users[name] = p, password()
		}
		x.Old, x.OldUntil, x.Password, x.Users = old, time.Now().Add(graceLimit), password(), users
	}); err != nil {
		return err
	}
	r, _ = c.get(id.String())
	names := []string{user}
	for name := range r.Users {
		names = append(names, userOf(name))
	}
	c.tell(ctx, r, names...)
	c.wake()
	c.cfg.Emit(tenfold.Event{ID: id, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("%d users have new passwords; the old ones are taken until %s", len(names), r.OldUntil.UTC().Format(time.TimeOnly))})
	return nil
}

// expire forgets replaced passwords when their time is over.
func (c *Cache) expire(key string, r record, now time.Time) {
	if len(r.Old) > 0 && now.After(r.OldUntil) {
		c.records.Change(key, func(x *record) { x.Old = nil })
		c.wake()
	}
}

// served is the record of a cache that has been started.
func (c *Cache) served(id tenfold.ID) (record, error) {
	r, ok := c.get(id.String())
	if !ok || r.Serving == "" || r.Stopped {
		return r, tenfold.Errorf(tenfold.CodeUnavailable, "%s does not run", id.Short()).WithHint("tenfold up")
	}
	return r, nil
}
