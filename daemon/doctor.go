package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tenfold/internal/engines"
)

// Check is one thing that doctor looked at.
type Check struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Optional bool   `json:"optional,omitempty"` // needed by some apps only
	Found    string `json:"found"`
	Fix      string `json:"fix,omitempty"` // the command that mends it
}

// Fix says what Doctor may install: what is missing, and with Postgres a major ("17") or the folder of one.
type Fix struct {
	On       bool
	Postgres string
}

// postgres brings the PostgreSQL that was asked for.
func (f Fix) postgres(ctx context.Context, dir string, say func(string)) error {
	major, err := strconv.Atoi(f.Postgres)
	if err != nil {
		e, err := engines.Name(ctx, f.Postgres, dir)
		if err == nil {
			say("PostgreSQL " + e.Version + " is used from " + e.Bin)
		}
		return err
	}
	if _, err := engines.Postgres(ctx, major, dir); err == nil {
		return nil
	}
	return engines.Install(ctx, "postgres-"+f.Postgres, dir, say)
}

// Doctor says what of the machine can be used. With fix it installs what is missing and may be
// installed, saying each command first.
func Doctor(ctx context.Context, l Layout, fix Fix, say func(string)) []Check {
	if fix.On && fix.Postgres != "" {
		if err := fix.postgres(ctx, l.Tier("engines"), say); err != nil {
			say(err.Error())
		}
	}
	if fix.On {
		for what, found := range map[string]func() error{
			"postgres": func() error { _, err := engines.Postgres(ctx, 0, l.Tier("engines")); return err },
			"cache":    func() error { _, err := engines.Cache(ctx, "", 0); return err },
		} {
			if found() != nil {
				if err := engines.Install(ctx, what, l.Tier("engines"), say); err != nil {
					say(err.Error())
				}
			}
		}
	}
	checks := []Check{checkData(l), checkDisk(l), checkClock(), checkListen(l), checkPostgres(ctx, l), checkCache(ctx), checkSeries(ctx)}
	checks = append(checks, checkLadder(ctx, l)...)
	checks = append(checks, checkContainers(ctx))
	for _, t := range []struct{ name, what, fix string }{
		{"git", "labels deployments with their commit", "apt-get install git"},
		{"node", "builds JavaScript", "apt-get install nodejs npm"},
		{"npm", "builds JavaScript", "apt-get install npm"},
		{"go", "builds Go", "apt-get install golang-go"},
		{"python3", "builds Python", "apt-get install python3 python3-venv"},
	} {
		checks = append(checks, checkTool(ctx, t.name, t.what, t.fix))
	}
	return checks
}

func checkData(l Layout) Check {
	c := Check{Name: "data directory", Found: l.Dir}
	if err := l.prepare(); err != nil {
		c.Found, c.Fix = err.Error(), "use another: --data DIR"
		return c
	}
	f, err := os.CreateTemp(l.Dir, ".doctor")
	if err != nil {
		c.Found, c.Fix = err.Error(), "use another: --data DIR"
		return c
	}
	f.Close()
	os.Remove(f.Name())
	c.OK = true
	return c
}

func checkDisk(l Layout) Check {
	var s syscall.Statfs_t
	dir := l.Dir
	for syscall.Statfs(dir, &s) != nil && dir != "/" {
		dir = filepath.Dir(dir)
	}
	free := s.Bavail * uint64(s.Bsize)
	return Check{Name: "disk", OK: free > 2<<30, Found: fmt.Sprintf("%d GB free", free>>30), Fix: "keep 2 GB free"}
}

func checkClock() Check {
	now := time.Now()
	return Check{Name: "clock", OK: now.Year() >= 2026, Found: now.Format(time.RFC3339), Fix: "timedatectl set-ntp true"}
}

func checkListen(l Layout) Check {
	s, err := LoadSettings(l)
	c := Check{Name: "front door", Found: s.Listen}
	if err != nil {
		c.Found = err.Error()
		return c
	}
	conn, err := net.DialTimeout("unix", l.Socket("control"), time.Second)
	if err == nil {
		conn.Close()
		c.OK, c.Found = true, s.Listen+", the house is up"
		return c
	}
	nl, err := net.Listen("tcp", s.Listen)
	if err != nil {
		c.Found, c.Fix = err.Error(), "choose another: tenfold up --listen 127.0.0.1:8081"
		return c
	}
	nl.Close()
	c.OK, c.Found = true, s.Listen+" is free"
	return c
}

func checkPostgres(ctx context.Context, l Layout) Check {
	c := Check{Name: "PostgreSQL", Optional: true, Fix: "tenfold doctor --fix (apt-get install postgresql)"}
	var have []string
	for _, e := range engines.AllPostgres(ctx, l.Tier("engines")) {
		have = append(have, e.Version)
	}
	if c.Found = strings.Join(have, ", "); c.Found != "" {
		c.OK, c.Fix = true, ""
	} else {
		c.Found = "not installed: needed by databases"
	}
	return c
}

func checkCache(ctx context.Context) Check {
	e, err := engines.Cache(ctx, "", 0)
	if err != nil {
		return Check{Name: "Valkey or Redis", Optional: true, Found: "not installed: needed by caches", Fix: "tenfold doctor --fix (apt-get install valkey-server, before Debian 13 redis-server)"}
	}
	return Check{Name: "Valkey or Redis", OK: true, Found: e.Name + " " + e.Version}
}

func checkSeries(ctx context.Context) Check {
	c := Check{Name: "VictoriaMetrics", Optional: true, Found: "not installed: needed by series", Fix: "apt-get install victoria-metrics"}
	if e, err := engines.Series(ctx); err == nil {
		c.OK, c.Found, c.Fix = true, cmp.Or(e.Version, e.Server), ""
	}
	return c
}

func checkTool(ctx context.Context, name, what, fix string) Check {
	path, err := exec.LookPath(name)
	if err != nil {
		return Check{Name: name, Optional: true, Found: "not installed: " + what, Fix: fix}
	}
	arg := "--version"
	if name == "go" {
		arg = "version"
	}
	out, _ := exec.CommandContext(ctx, path, arg).Output()
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return Check{Name: name, OK: true, Optional: true, Found: first}
}
