package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tenfold/control"
	"tenfold/internal/measure"
)

const (
	neighbourRounds = 5
	neighbourFor    = 2 * time.Second
	streetMemory    = 1500 << 20 // of the whole house: a hog without a size must not take the machine's
)

// nuisances are what the neighbour does, and which: loud has a size, free has none.
var nuisances = []struct{ what, service, name string }{
	{"eat", "loud", "memory hog with a size"},
	{"eat", "free", "memory hog without a size"},
	{"fork", "free", "fork bomb"},
	{"spin", "loud", "spin loop with a size"},
	{"spin", "free", "spin loop without a size"},
	{"flood", "free", "log flood"},
	{"fill", "free", "disk filler"},
	{"leak", "free", "descriptor leak"},
}

// neighbours measures how long the slowest answers of a service take alone and beside a neighbour that takes what it
// can get, in turn.
func (b *bench) neighbours() (err error) {
	rest := b.house
	own, err := newHouse() // bounded from its start
	if err != nil {
		return err
	}
	bounded, end, err := own.within(streetMemory)
	if err != nil {
		return err
	}
	b.house = own
	defer func() {
		b.house = rest
		err = errors.Join(err, own.close())
		end()
	}()
	mark := b.house.dir
	text := "app: street\nservices:\n"
	for _, s := range []string{"quiet: {", "loud: {size: {memory: 192mb, cpu: 0.5}, logs: {max: 1mb}, ", "free: {"} {
		name, _, _ := strings.Cut(s, ":")
		text += fmt.Sprintf("  %spath: ., runtime: go, build: false, command: exec %s task 1 0, routes: [/%s/*], health: {route: /healthz}, env: {MARK: %s}}\n", s, b.self, name, mark)
	}
	if err := b.house.up("street", text); err != nil {
		return err
	}
	quiet, err := b.neighbour("quiet")
	if err != nil {
		return err
	}
	for _, n := range nuisances {
		if n.what == "eat" && n.service == "free" && !bounded {
			fmt.Fprintln(os.Stderr, "no cgroup bounds the house here: left out:", n.name)
			continue
		}
		fig := measure.Figure{Name: "p99 beside a " + n.name, Unit: "ms", Asked: measure.AtMost(1.5)}
		for range neighbourRounds {
			alone, err := b.slowest()
			if err != nil {
				return err
			}
			before, err := b.neighbour(n.service)
			if err == nil {
				err = b.tell(before, n.what)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			beside, err := b.slowest()
			if err != nil {
				return fmt.Errorf("%s: the neighbour: %w", n.name, err)
			}
			fig.Peer, fig.Ours = append(fig.Peer, alone), append(fig.Ours, beside)
			if now, err := b.neighbour(n.service); err == nil && now.PID == before.PID {
				b.tell(now, "end") // its answer does not come
			}
			if err := b.again(n.service, before); err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			if err := b.ctx.Err(); err != nil {
				return err
			}
		}
		b.report.Add(fig)
	}
	if now, err := b.neighbour("quiet"); err != nil || now.PID != quiet.PID || now.Restarts > 0 {
		return fmt.Errorf("the quiet one did not live through it: %+v, was %+v, %v", now, quiet, err)
	}
	if out, err := b.house.run(filepath.Join(b.house.dir, "apps", "street"), "down"); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	b.count("processes that are left of them", "", float64(len(marked(mark))), 0)
	return nil
}

// neighbour is the one task of a service.
func (b *bench) neighbour(service string) (control.Task, error) {
	st, err := b.house.status("street")
	for _, t := range st.Tasks {
		if string(t.Service) == service && t.PID > 0 {
			return t, nil
		}
	}
	return control.Task{}, cmp.Or(err, fmt.Errorf("%s has no task", service))
}

// again waits for a task after one that ended.
func (b *bench) again(service string, before control.Task) error {
	var err error
	for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(50 * time.Millisecond) {
		now, e := b.neighbour(service)
		if err = e; err == nil && now.PID != before.PID && now.State == "serving" {
			return nil
		}
	}
	status, _ := b.house.run("", "status", "--app", "street")
	return fmt.Errorf("%s does not come back: %v\n%s", service, err, status)
}

// tell has a task begin an offence, past the front door.
func (b *bench) tell(t control.Task, what string) error {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Post("http://127.0.0.1:"+strconv.Itoa(t.Port)+"/offend/"+what, "", nil)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// slowest is the 99th percentile of the quiet one's answers through the front door, in ms.
func (b *bench) slowest() (float64, error) {
	var mu sync.Mutex
	var all []float64
	var fault error
	var wg sync.WaitGroup
	begun := time.Now()
	for range 4 {
		wg.Go(func() {
			client := &http.Client{Timeout: askFor, Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for time.Since(begun) < neighbourFor && b.ctx.Err() == nil {
				req, err := http.NewRequest(http.MethodGet, "http://"+b.house.addr+"/quiet/", nil)
				if err != nil {
					return
				}
				req.Host = "street.localhost"
				asked := time.Now()
				res, err := client.Do(req)
				if err == nil {
					_, err = io.Copy(io.Discard, res.Body)
					res.Body.Close()
					if res.StatusCode != http.StatusOK {
						err = errors.New(res.Status)
					}
				}
				took := time.Since(asked)
				mu.Lock()
				all = append(all, took.Seconds()*1000)
				fault = cmp.Or(fault, err)
				mu.Unlock()
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	if fault != nil || len(all) == 0 {
		return 0, cmp.Or(fault, errors.New("nobody answered"))
	}
	slices.Sort(all)
	return all[len(all)*99/100], nil
}

// marked are the processes with a mark in their environment.
func marked(mark string) (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, d := range dirs {
		if env, err := os.ReadFile(d); err == nil && bytes.Contains(env, []byte("MARK="+mark+"\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(d)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// within has the house start in a cgroup that bounds its memory; false: none can be made here.
func (h *house) within(limit int64) (ok bool, end func(), err error) {
	none := func() {}
	base, file := "/sys/fs/cgroup", "memory.max"
	if b, err := os.ReadFile(filepath.Join(base, "cgroup.subtree_control")); err != nil || !bytes.Contains(b, []byte("memory")) {
		base, file = "", "memory.limit_in_bytes"
		b, _ := os.ReadFile("/proc/self/cgroup")
		for l := range strings.Lines(string(b)) {
			if p := strings.SplitN(strings.TrimSpace(l), ":", 3); len(p) == 3 && p[1] == "memory" {
				base = filepath.Join("/sys/fs/cgroup/memory", p[2])
			}
		}
	}
	dir := filepath.Join(base, filepath.Base(h.dir))
	if base == "" || os.Mkdir(dir, 0o755) != nil {
		return false, none, nil
	}
	end = func() { // a group that is not empty stays
		for begun := time.Now(); time.Since(begun) < 20*time.Second; time.Sleep(50 * time.Millisecond) {
			below, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
			for _, f := range below {
				os.Remove(filepath.Dir(f))
			}
			if os.Remove(dir) == nil {
				return
			}
		}
		fmt.Fprintln(os.Stderr, "a cgroup is left:", dir)
	}
	if os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(limit, 10)), 0) != nil {
		os.Remove(dir)
		return false, none, nil
	}
	inside := filepath.Join(h.dir, "inside")
	if err := os.WriteFile(inside, []byte(fmt.Sprintf("#!/bin/sh\necho $$ >%s/cgroup.procs || exit 1\nexec %s \"$@\"\n", dir, h.bin)), 0o755); err != nil {
		return false, none, err
	}
	h.bin = inside
	return true, end, nil
}
