package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tenfold/internal/measure"
)

// clients send requests in each of two ways of connecting, half of them with GET and half with POST, which nobody
// sends a second time.
const clients = 8

// crowd is traffic in both ways.
type crowd struct{ kept, fresh [2]*load }

func (b *bench) crowd(app string) *crowd {
	c := &crowd{}
	for i, method := range []string{http.MethodGet, http.MethodPost} {
		c.kept[i] = b.house.traffic(app, method, clients/2, 2*time.Millisecond, false)
		c.fresh[i] = b.house.traffic(app, method, clients/2, 2*time.Millisecond, true)
	}
	return c
}

// end ends the traffic and reports what became of it.
func (b *bench) end(c *crowd, what string, least float64) {
	for _, way := range []struct {
		name string
		of   [2]*load
	}{{"kept connections", c.kept}, {"new connections", c.fresh}} {
		good, bad := 0, 0
		for _, l := range way.of {
			l.end()
			good, bad = good+l.good(), bad+l.bad()
			if l.first != "" {
				fmt.Fprintln(os.Stderr, "the first that failed:", l.first)
			}
		}
		b.report.Add(measure.Figure{Name: what + ", " + way.name + ", OK", Unit: "", Ours: []float64{float64(good)}, Asked: measure.AtLeast(least)})
		b.count(what+", "+way.name+", failed", "", float64(bad), 0)
	}
}

// enough is how many good answers are asked of a group that does n things: 200 for each.
func enough(n int) float64 { return float64(200 * n) }

// deploys deploys one version after the other under traffic.
func (b *bench) deploys() error {
	r := release{app: "deploys", version: "0", mood: "0", deploy: "rolling", tasks: 2}
	if out, err := b.house.deploy(b.self, r); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	c := b.crowd(r.app)
	took := []float64{}
	var fault error
	for n := 1; n <= b.deployments && b.ctx.Err() == nil; n++ {
		r.version = fmt.Sprint(n)
		begun := time.Now()
		if out, err := b.house.deploy(b.self, r); err != nil {
			fault = fmt.Errorf("deploy %d: %w: %s", n, err, out)
			break
		}
		took = append(took, time.Since(begun).Seconds())
	}
	b.end(c, fmt.Sprintf("%d deploys", len(took)), enough(b.deployments))
	fmt.Printf("%-45s %.2f s\n", "a deploy under traffic, median", measure.Median(took))
	return errors.Join(fault, b.ctx.Err())
}

// upgrades hands the house over to another binary and back under traffic, with one WebSocket that lives through all of
// it and one for each.
func (b *bench) upgrades() error {
	r := release{app: "upgrades", version: "1", mood: "0", deploy: "rolling", tasks: 1}
	if out, err := b.house.deploy(b.self, r); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	first := b.house.bin
	next := filepath.Join(b.house.dir, "next")
	text, err := os.ReadFile(first)
	if err == nil {
		err = os.WriteFile(next, text, 0o755)
	}
	if err != nil {
		return err
	}
	tasks, err := b.tasks(r.app)
	if err != nil {
		return err
	}
	lasting, err := b.socket(r.app)
	if err != nil {
		return err
	}
	defer lasting.c.Close()
	c := b.crowd(r.app)
	done, broken := 0, 0
	var fault error
	for ; done < b.handOvers && b.ctx.Err() == nil && fault == nil; done++ {
		fault = func() error {
			ws, err := b.socket(r.app)
			if err != nil {
				return err
			}
			defer ws.c.Close()
			b.house.bin = []string{next, first}[done%2]
			if out, err := b.house.run("", "upgrade"); err != nil {
				return fmt.Errorf("upgrade %d: %w: %s", done+1, err, out)
			}
			for _, s := range []*socket{ws, lasting} {
				if err := s.hello(); err != nil {
					broken++
					fmt.Fprintf(os.Stderr, "upgrade %d: a WebSocket: %v\n", done+1, err)
				}
			}
			ws.c.Close()
			return b.doors(2) // the one of the lasting WebSocket and the newest
		}()
	}
	b.end(c, fmt.Sprintf("%d upgrades", done), enough(b.handOvers))
	b.count("WebSockets that did not survive an upgrade", "", float64(broken), 0)
	after, err := b.tasks(r.app)
	if err == nil && !slices.Equal(tasks, after) {
		err = fmt.Errorf("tasks were processes %v, are %v", tasks, after)
	}
	return errors.Join(fault, err, b.ctx.Err())
}

// tasks are the processes of an app's tasks.
func (b *bench) tasks(app string) (pids []int, err error) {
	st, err := b.house.status(app)
	for _, t := range st.Tasks {
		pids = append(pids, t.PID)
	}
	slices.Sort(pids)
	return pids, err
}

// doors waits until there are no more than so many.
func (b *bench) doors(most int) error {
	n := 0
	for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(50 * time.Millisecond) {
		n = len(measure.Processes(func(args []string) bool {
			return slices.Contains(args, "door") && slices.Contains(args, filepath.Join(b.house.dir, "data"))
		}))
		if n <= most {
			return nil
		}
	}
	return fmt.Errorf("%d doors a minute after an upgrade", n)
}

// socket is a WebSocket.
type socket struct {
	c  net.Conn
	in *bufio.Reader
}

func (b *bench) socket(app string) (*socket, error) {
	c, err := net.DialTimeout("tcp", b.house.addr, askFor)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(askFor))
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", app)
	s := &socket{c, bufio.NewReader(c)}
	res, err := http.ReadResponse(s.in, nil)
	if err == nil && res.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("open a WebSocket: %s", res.Status)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

// hello sends a frame and expects one.
func (s *socket) hello() error {
	s.c.SetDeadline(time.Now().Add(askFor))
	if _, err := s.c.Write([]byte{0x81, 0x82, 0, 0, 0, 0, 'h', 'i'}); err != nil {
		return err
	}
	got := make([]byte, len(greeting))
	if _, err := io.ReadFull(s.in, got); err != nil {
		return err
	}
	if string(got) != greeting {
		return fmt.Errorf("it says %q", got)
	}
	return nil
}
