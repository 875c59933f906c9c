package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tenfold/internal/freeport"
	"tenfold/internal/isolate"
	"tenfold/internal/keeper"
	"tenfold/internal/measure"
)

const (
	sleepers = 100 // services that sleep and are woken in turn: each sleeps a minute after its last request
	arrivals = 8   // requests that come at once to one that sleeps
	sleepFor = 3 * time.Minute
)

// wakes wakes services from zero by several requests at once, and in turn starts the same process by itself, shut in by
// the same rungs, until it gives its first byte.
func (b *bench) wakes() error {
	n := min(sleepers, b.wake)
	var text strings.Builder
	text.WriteString("app: wakes\nservices:\n")
	for i := range n {
		fmt.Fprintf(&text, "  s%d: {path: ., runtime: go, build: false, command: exec %s task 1 0, routes: [/s%d/*], health: {route: /healthz}, scale: 0-1}\n", i, b.self, i)
	}
	if err := b.house.up("wakes", text.String()); err != nil {
		return err
	}
	units, err := keeper.Dial(b.ctx, filepath.Join(b.house.dir, "data", "keeper.sock"))
	if err != nil {
		return err
	}
	known, err := units.List(b.ctx, "task/wakes/")
	if err != nil || len(known) == 0 {
		return errors.Join(err, errors.New("no task is up to be started by itself"))
	}
	fig := measure.Figure{Name: "wake from zero, first byte", Unit: "ms"}
	bad, all, asked := 0, 0, time.Now()
	var slept []string
	for done := 0; done < b.wake; done++ {
		if len(slept) == 0 {
			if slept, err = b.asleep(); err != nil {
				return err
			}
		}
		name := slept[0]
		slept = slept[1:]
		bare, err := b.alone(known[0].Unit)
		if err != nil {
			return fmt.Errorf("start a task by itself: %w", err)
		}
		took, failed := b.arrive("/" + name + "/")
		all, bad = all+arrivals, bad+failed
		fig.Ours, fig.Peer = append(fig.Ours, took.Seconds()*1000), append(fig.Peer, bare.Seconds()*1000)
		if time.Since(asked) > time.Minute {
			asked = time.Now()
			fmt.Fprintf(os.Stderr, "%d of %d wakes\n", done+1, b.wake)
		}
		if err := b.ctx.Err(); err != nil {
			return err
		}
	}
	b.count(fmt.Sprintf("%d wakes, %d requests: not 2xx", b.wake, all), "", float64(bad), 0)
	fig.Asked = measure.AtMost(max(1.5, 1+3/measure.Median(fig.Peer)))
	b.report.Add(fig)
	return nil
}

// asleep waits until services have no task, and names them.
func (b *bench) asleep() ([]string, error) {
	for begun := time.Now(); time.Since(begun) < sleepFor; time.Sleep(200 * time.Millisecond) {
		st, err := b.house.status("wakes")
		if err != nil {
			return nil, err
		}
		var out []string
		for _, r := range st.Resources {
			if strings.Contains(r.Now, "asleep") {
				out = append(out, string(r.Name))
			}
		}
		for _, t := range st.Tasks {
			out = remove(out, string(t.Service)) // its last task ends still
		}
		if len(out) > 0 {
			return out, nil
		}
		if err := b.ctx.Err(); err != nil {
			return nil, err
		}
	}
	status, _ := b.house.run("", "status", "--app", "wakes")
	return nil, fmt.Errorf("nothing sleeps:\n%s", status)
}

func remove(names []string, name string) (out []string) {
	for _, n := range names {
		if n != name {
			out = append(out, n)
		}
	}
	return out
}

// arrive sends requests at once; took is until the first byte of the first one's answer.
func (b *bench) arrive(path string) (took time.Duration, failed int) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: askFor}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	oks := make([]bool, arrivals)
	for i := range oks {
		wg.Go(func() {
			begun := time.Now()
			req, err := http.NewRequest(http.MethodGet, "http://"+b.house.addr+path, nil)
			if err != nil {
				return
			}
			req.Host = "wakes.localhost"
			res, err := client.Do(req)
			if err != nil {
				fmt.Fprintln(os.Stderr, path, err)
				return
			}
			if i == 0 {
				took = time.Since(begun)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if oks[i] = err == nil && res.StatusCode/100 == 2; !oks[i] {
				fmt.Fprintf(os.Stderr, "%s: %d %.200s\n", path, res.StatusCode, body)
			}
		})
	}
	wg.Wait()
	for _, ok := range oks {
		if !ok {
			failed++
		}
	}
	return took, failed
}

// alone starts the process of a unit without the house, shut in by the same rungs but the cgroup, and waits for its
// first byte.
func (b *bench) alone(u keeper.Unit) (took time.Duration, err error) {
	port, err := freeport.Pick()
	if err != nil {
		return 0, err
	}
	env := []string{}
	for _, kv := range u.Env {
		if !strings.HasPrefix(kv, "PORT=") {
			env = append(env, kv)
		}
	}
	env = append(env, "PORT="+strconv.Itoa(port))
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	var box isolate.Box
	if u.Box != nil {
		box = *u.Box
	}
	runtime.LockOSThread() // the process ends with its thread
	defer runtime.UnlockOSThread()
	begun := time.Now()
	plan, err := isolate.Prepare(box, u.Argv, env, u.Dir)
	if err != nil {
		return 0, err
	}
	defer plan.Close()
	pid, err := plan.Start(isolate.Process{
		Path: u.Argv[0], Argv: u.Argv, Env: append(env, plan.Environ()...), Dir: u.Dir,
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd()}, Cgroup: -1, DeathSignal: syscall.SIGKILL,
	})
	if err != nil {
		return 0, err
	}
	defer func() {
		syscall.Kill(pid, syscall.SIGKILL)
		syscall.Wait4(pid, nil, 0, nil)
	}()
	addr := "127.0.0.1:" + strconv.Itoa(port)
	ctx, cancel := context.WithTimeout(b.ctx, askFor)
	defer cancel()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			defer c.Close()
			c.SetDeadline(time.Now().Add(askFor))
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: wakes.localhost\r\n\r\n")
			var first [1]byte
			_, err = io.ReadFull(c, first[:])
			return time.Since(begun), err
		}
		if ctx.Err() != nil {
			return 0, err
		}
		time.Sleep(200 * time.Microsecond)
	}
}
