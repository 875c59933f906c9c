//go:build conformance

package edge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tenfold/internal/directory"
)

// tool finds a program that a test drives, or skips.
func tool(t *testing.T, name, get string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not on PATH: %s", name, get)
	}
	return path
}

// served is a door with a service at all paths of shop.localhost, plain and over TLS.
type servedDoor struct {
	*Door
	plain, secure string
}

func serveAll(t *testing.T, ep directory.Endpoint) *servedDoor {
	t.Helper()
	dir := short(t)
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	pl, sl := listen(), listen()
	d, err := NewDoor(DoorConfig{Dir: dir, Control: filepath.Join(dir, "door.sock"), Listeners: []net.Listener{pl}, TLSListeners: []net.Listener{sl}, Certificates: filepath.Join(dir, "certs")})
	if err != nil {
		t.Fatal(err)
	}
	running(t, d.Run)
	err = d.apply(directory.Snapshot{Version: 1, Sites: []directory.Site{{
		App: "shop", Env: "production", Hosts: []string{"shop.localhost"}, Default: true,
		Routes:   []directory.Route{{Pattern: "/*", Service: "api"}},
		Services: []directory.Service{{Name: "api", Endpoints: []directory.Endpoint{ep}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return &servedDoor{d, pl.Addr().String(), sl.Addr().String()}
}

// grpcCases are the interop test cases of gRPC that need no account with anybody
// (grpc/doc/interop-test-descriptions.md).
var grpcCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server",
	"cancel_after_begin", "cancel_after_first_response", "status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service",
}

// TestGRPCConformance runs gRPC's interop client against its server through the door: HTTP/2 without
// TLS on both sides.
func TestGRPCConformance(t *testing.T) {
	get := "go install google.golang.org/grpc/interop/client@latest google.golang.org/grpc/interop/server@latest (as grpc-client, grpc-server)"
	client, server := tool(t, "grpc-client", get), tool(t, "grpc-server", get)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	backend := exec.CommandContext(ctx, server, "--port="+port)
	if err := backend.Start(); err != nil {
		t.Fatal(err)
	}
	defer backend.Wait()
	defer cancel()
	eventually(t, "the interop server", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	d := serveAll(t, directory.Endpoint{ID: "grpc", Addr: "127.0.0.1:" + port})
	host, doorPort, _ := net.SplitHostPort(d.plain)
	passed := 0
	for _, name := range grpcCases {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		out, err := exec.CommandContext(ctx, client, "--server_host="+host, "--server_port="+doorPort, "--test_case="+name).CombinedOutput()
		cancel()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
			continue
		}
		passed++
	}
	t.Logf("%d of %d interop cases pass through the door", passed, len(grpcCases))
}

// TestTLSConformance has testssl.sh look at protocols, ciphers, server defaults and known weaknesses.
// Only what it ranks as a finding of medium severity or above counts, and not the certificate's chain:
// the house's own authority is not one that testssl trusts.
func TestTLSConformance(t *testing.T) {
	testssl := tool(t, "testssl", "apt-get install testssl.sh")
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") })
	d := serveAll(t, ep)
	report := filepath.Join(t.TempDir(), "report.csv")
	_, port, _ := net.SplitHostPort(d.secure)
	cmd := exec.CommandContext(t.Context(), testssl, "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", "127.0.0.1", "--severity", "MEDIUM", "--csvfile", report,
		"-p", "-s", "-f", "-U", "localhost:"+port)
	cmd.Env = append(os.Environ(), "TERM=dumb")
	out, _ := cmd.CombinedOutput() // its exit status counts findings of any kind
	b, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("no report: %v\n%s", err, out)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n")[1:] {
		if !strings.HasPrefix(line, `"engine_problem"`) { // what testssl's own OpenSSL cannot do, not the door
			t.Error(line)
		}
	}
	if !regexp.MustCompile(`TLS 1.3\s+offered`).Match(out) {
		t.Errorf("it did not look: %s", out)
	}
}

// TestSlowConformance lets slowhttptest hold the door in each of its ways while another user asks: the
// other's slowest answers must not be more than twice as slow as without, or 20 ms, whichever is more.
func TestSlowConformance(t *testing.T) {
	slow := tool(t, "slowhttptest", "apt-get install slowhttptest")
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Write(bytes.Repeat([]byte("x"), 64<<10))
	})
	d := serveAll(t, ep)
	client := &http.Client{Timeout: 10 * time.Second}
	p99 := func(until <-chan struct{}) (time.Duration, int) {
		var took []time.Duration
		failed := 0
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-until:
				slices.Sort(took)
				return took[len(took)*99/100], failed
			case <-tick.C:
			}
			begun := time.Now()
			res, err := client.Get("http://" + d.plain + "/")
			if err != nil {
				failed++
				continue
			}
			if n, err := io.Copy(io.Discard, res.Body); err != nil || n != 64<<10 {
				failed++
			}
			res.Body.Close()
			took = append(took, time.Since(begun))
		}
	}
	during := func(f func()) (time.Duration, int) {
		done := make(chan struct{})
		go func() { defer close(done); f() }()
		return p99(done)
	}
	alone, _ := during(func() { <-time.After(5 * time.Second) })
	for mode, args := range map[string][]string{
		"slow heads":   {"-H", "-i", "2"},
		"slow bodies":  {"-B", "-i", "2", "-s", "8192"},
		"slow reading": {"-X", "-w", "1", "-y", "512", "-n", "2", "-z", "32", "-k", "3"},
		"ranges":       {"-R", "-a", "10", "-b", "3000"},
	} {
		args = append(args, "-c", "300", "-r", "100", "-l", "10", "-p", "3", "-u", "http://"+d.plain+"/")
		var out []byte
		beside, failed := during(func() { out, _ = exec.CommandContext(t.Context(), slow, args...).CombinedOutput() })
		t.Logf("%s: p99 of another user %s, alone %s", mode, beside.Round(100*time.Microsecond), alone.Round(100*time.Microsecond))
		if failed > 0 || beside > max(2*alone, 20*time.Millisecond) {
			t.Errorf("%s: p99 %s beside it, %s alone; %d failed\n%s", mode, beside, alone, failed, lastLines(out, 12))
		}
	}
}

func lastLines(b []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return fmt.Sprint(strings.Join(lines[max(0, len(lines)-n):], "\n"))
}
