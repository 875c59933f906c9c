// Command house measures what running under the house costs: the start of a task against a bare
// exec of the same binary, a deployment, and the memory of Tenfold's own processes at rest.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"tenfold/internal/keeper"
	"tenfold/internal/measure"
)

const rounds = 40

func main() {
	short, err := bench()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench house:", err)
		os.Exit(1)
	}
	if short > 0 {
		os.Exit(3)
	}
}

// server is the task: it answers as soon as it may.
const server = `package main

import (
	"net/http"
	"os"
)

func main() {
	http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("here")) }))
}
`

func bench() (short int, err error) {
	dir, err := os.MkdirTemp("", "tfb")
	if err != nil {
		return 0, err
	}
	os.Chmod(dir, 0o755) // PostgreSQL runs as another user below root
	bin, err := filepath.Abs("bin/tenfold")
	if err != nil {
		return 0, err
	}
	tenfold := func(where string, args ...string) ([]byte, error) {
		cmd := exec.Command(bin, append([]string{"--data", filepath.Join(dir, "data")}, args...)...)
		cmd.Dir, cmd.Stderr = where, os.Stderr
		return cmd.Output()
	}
	defer func() {
		_, stop := tenfold("", "down", "--house")
		err = errors.Join(err, stop, os.RemoveAll(dir))
	}()
	if _, err := tenfold("examples/conduit", "up", "--detach", "--listen", "127.0.0.1:0"); err != nil {
		return 0, err
	}
	report := measure.NewReport(os.Stdout)
	ours, peer, err := starts(dir)
	if err != nil {
		return 0, err
	}
	report.Add(measure.Figure{Name: "start of a Go task to its first byte", Unit: "ms", Ours: ours, Peer: peer, Asked: measure.AtMost(2)})

	// At rest: nothing was asked of the app for a while, and the collectors of Go had their turn.
	time.Sleep(10 * time.Second)
	var own int64
	modes := 0
	for _, pid := range measure.Processes(func(args []string) bool { return len(args) > 2 && args[0] == bin && args[1] == "house" }) {
		pss, err := measure.PSS(pid)
		if err != nil {
			return 0, err
		}
		own, modes = own+pss, modes+1
	}
	if modes < 4 {
		return 0, fmt.Errorf("found %d processes of the house", modes)
	}
	report.Add(measure.Figure{Name: fmt.Sprintf("memory (PSS) of Tenfold's own %d processes", modes), Unit: "MB", Ours: []float64{float64(own) / (1 << 20)}, Asked: measure.AtMost(80)})

	var healthy []float64
	for n := range 5 {
		took, err := scaleOut(tenfold, n%2 == 0)
		if err != nil {
			return 0, err
		}
		healthy = append(healthy, took)
	}
	report.Add(measure.Figure{Name: "tenfold scale to a healthy task, in all", Unit: "ms", Ours: healthy, Asked: measure.AtMost(1000)})
	return report.End(), nil
}

// starts takes turns: a task by the keeper of the house, and the same binary by a bare exec.
func starts(dir string) (ours, peer []float64, err error) {
	src := filepath.Join(dir, "server")
	if err := os.MkdirAll(src, 0o755); err != nil {
		return nil, nil, err
	}
	for name, text := range map[string]string{"go.mod": "module server\n\ngo 1.24\n", "main.go": server} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			return nil, nil, err
		}
	}
	build := exec.Command("go", "build", "-o", "server", ".")
	build.Dir, build.Stderr = src, os.Stderr
	if err := build.Run(); err != nil {
		return nil, nil, err
	}
	ctx := context.Background()
	k, err := keeper.Dial(ctx, filepath.Join(dir, "data", "keeper.sock"))
	if err != nil {
		return nil, nil, err
	}
	defer k.Close()
	for n := range rounds {
		port, err := freePort()
		if err != nil {
			return nil, nil, err
		}
		id := "bench/" + strconv.Itoa(n)
		begun := time.Now()
		if _, err := k.Start(ctx, keeper.Unit{ID: id, Argv: []string{filepath.Join(src, "server")}, Env: append(os.Environ(), "PORT="+port), Dir: src, Log: filepath.Join(dir, "server.log")}); err != nil {
			return nil, nil, err
		}
		took, err := firstByte(port, begun)
		if err := errors.Join(err, k.Remove(ctx, id)); err != nil {
			return nil, nil, err
		}
		ours = append(ours, took)

		if port, err = freePort(); err != nil {
			return nil, nil, err
		}
		cmd := exec.Command(filepath.Join(src, "server"))
		cmd.Env, cmd.Dir = append(os.Environ(), "PORT="+port), src
		begun = time.Now()
		if err := cmd.Start(); err != nil {
			return nil, nil, err
		}
		took, err = firstByte(port, begun)
		cmd.Process.Kill()
		cmd.Wait()
		if err != nil {
			return nil, nil, err
		}
		peer = append(peer, took)
	}
	return ours, peer, nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// firstByte asks until somebody answers: milliseconds since begun.
func firstByte(port string, begun time.Time) (float64, error) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for time.Since(begun) < 10*time.Second {
		res, err := c.Get("http://127.0.0.1:" + port + "/")
		if err == nil {
			took := time.Since(begun)
			res.Body.Close()
			return float64(took.Microseconds()) / 1000, nil
		}
		time.Sleep(100 * time.Microsecond)
	}
	return 0, fmt.Errorf("nothing answers on port %s", port)
}

// scaleOut has the example's API run one task more or fewer, and waits until that many are healthy.
func scaleOut(tenfold func(string, ...string) ([]byte, error), more bool) (float64, error) {
	want := map[bool]int{true: 3, false: 2}[more]
	begun := time.Now()
	if _, err := tenfold("", "--app", "conduit", "scale", "api="+strconv.Itoa(want)); err != nil {
		return 0, err
	}
	for time.Since(begun) < 20*time.Second {
		out, err := tenfold("", "--app", "conduit", "--json", "status")
		if err != nil {
			return 0, err
		}
		var st struct {
			State string            `json:"state"`
			Tasks []json.RawMessage `json:"tasks"`
		}
		if err := json.Unmarshal(out, &st); err != nil {
			return 0, err
		}
		if st.State == "healthy" && len(st.Tasks) == want {
			return float64(time.Since(begun).Microseconds()) / 1000, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0, errors.New("the task does not become healthy")
}
