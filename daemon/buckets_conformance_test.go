//go:build conformance

package daemon

import (
	"context"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/versity/versitygw/auth"

	"tenfold"
	"tenfold/internal/atomicfile"
	"tenfold/internal/awsapi"
	"tenfold/internal/directory"
	"tenfold/tier/bucket"
	"tenfold/tier/edge"
)

// TestConformanceVersitygw runs the suite of the engine of buckets, versitygw, along the whole way of a client:
// the front door, the route of a bucket, our keys and our layer before the engine. The engine by itself, without
// all of that, passes 687 of 687 without versions, and 765 of 765 with them, as buckets here have them.
func TestConformanceVersitygw(t *testing.T) {
	tool, err := exec.LookPath("versitygw")
	if err != nil {
		t.Skip("versitygw is not on PATH: go install github.com/versity/versitygw/cmd/versitygw@v1.8.0")
	}
	for _, c := range []struct {
		name  string
		total string
		args  []string
	}{{"without versions", "687", nil}, {"with versions", "765", []string{"-vs"}}} {
		t.Run(c.name, func(t *testing.T) {
			root := awsapi.Key{Access: "owner", Secret: "secret-owner"}
			addr := throughTheDoor(t, serveSuite(t, root, len(c.args) > 0))
			dir := t.TempDir()
			if err := os.Symlink(tool, filepath.Join(dir, "versitygw")); err != nil { // the suite calls it so
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "./versitygw", append([]string{"test", "-a", root.Access, "-s", root.Secret, "-e", "http://" + addr, "full-flow", "--parallel"}, c.args...)...)
			cmd.Dir = dir
			for _, e := range os.Environ() {
				if !strings.HasPrefix(e, "AWS_") {
					cmd.Env = append(cmd.Env, e)
				}
			}
			out, err := cmd.CombinedOutput()
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "FAIL") {
					t.Log(strings.TrimSpace(line))
				}
			}
			sum := regexp.MustCompile(`RAN: \d+ PASS: \d+ FAIL: \d+ SKIP: \d+`).Find(out)
			t.Logf("%s", sum)
			if want := "RAN: " + c.total + " PASS: " + c.total + " FAIL: 0 SKIP: 0"; err != nil || string(sum) != want {
				t.Errorf("%v; want %s", err, want)
			}
		})
	}
}

// routed is the bucket whose route leads to the store. The suite makes hundreds of others in its account.
var routed = tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindBucket, Name: "uploads"}

// serveSuite is a store of buckets for the suite, behind the listener that their process has.
func serveSuite(t *testing.T, root awsapi.Key, versions bool) (addr string) {
	users, err := auth.NewInternal(auth.Account{Access: root.Access, Secret: root.Secret, Role: auth.RoleAdmin}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const account = "111111111111"
	sockets, err := os.MkdirTemp("", "tfb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	cfg := bucket.Config{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Socket: func(a string) string { return filepath.Join(sockets, a) },
		Keys: func(access string) (awsapi.Key, bool) {
			u, err := users.GetUserAccount(access)
			return awsapi.Key{Access: u.Access, Secret: u.Secret, Caller: awsapi.Caller{Account: account, Of: awsapi.Owner, Uses: map[string][]string{"s3": {awsapi.Every}}}}, err == nil
		}}
	cfg.Suite(root, users, versions)
	s, err := bucket.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range s.Want(t.Context(), account, []bucket.Wanted{{ID: routed, Name: string(routed.Name)}}) {
		t.Fatal(err)
	}
	running(t, s.Run)
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// throughTheDoor is the address of a front door with a route to a bucket's process at every path.
func throughTheDoor(t *testing.T, addr string) string {
	dir := t.TempDir()
	err := atomicfile.WriteJSON(filepath.Join(dir, "directory.json"), directory.Snapshot{Version: 1, Sites: []directory.Site{{
		App: "shop", Env: "production", Hosts: []string{"shop.localhost"}, Default: true,
		Routes:   []directory.Route{{Pattern: "/*", Service: "uploads"}},
		Rules:    []directory.Rule{{Pattern: "/*", Limit: &directory.Limiting{Body: 5 << 30}}},
		Services: []directory.Service{{Name: "uploads", Bucket: routed.String(), Endpoints: []directory.Endpoint{{ID: "files", Addr: addr}}}},
	}}}, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	control, err := os.MkdirTemp("", "tfd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(control) })
	d, err := edge.NewDoor(edge.DoorConfig{Dir: dir, Control: filepath.Join(control, "s"), Listeners: []net.Listener{l}})
	if err != nil {
		t.Fatal(err)
	}
	running(t, d.Run)
	return l.Addr().String()
}

// running runs something until the test ends.
func running(t *testing.T, run func(context.Context, func()) error) {
	ctx, stop := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
