package gitserver

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// serveSSH serves the world's repositories over SSH until the test ends.
func (w *world) serveSSH() (addr string, stop func()) {
	w.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.s.ServeSSH(ctx, ln) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		done <- nil
	}
	w.t.Cleanup(stop)
	return ln.Addr().String(), stop
}

// key makes a key pair: the private part in a file and as a signer, the public one as a line.
func (w *world) key() (file, line string, signer ssh.Signer) {
	w.t.Helper()
	pub, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		w.t.Fatal(err)
	}
	file = filepath.Join(w.t.TempDir(), "id")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		w.t.Fatal(err)
	}
	p, err := ssh.NewPublicKey(pub)
	if err != nil {
		w.t.Fatal(err)
	}
	signer, err = ssh.NewSignerFromKey(private)
	if err != nil {
		w.t.Fatal(err)
	}
	return file, string(ssh.MarshalAuthorizedKey(p)), signer
}

func (w *world) dial(addr string, signer ssh.Signer) (*ssh.Client, error) {
	host, err := w.s.HostKey()
	if err != nil {
		return nil, err
	}
	return ssh.Dial("tcp", addr, &ssh.ClientConfig{User: "git", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(host.PublicKey()), Timeout: 10 * time.Second})
}

func TestPushOverSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("there is no ssh client here; TestSSHByOurOwnClient covers the server")
	}
	w := newWorld(t, nil)
	addr, _ := w.serveSSH()
	file, line, _ := w.key()
	if _, err := w.s.Keys().Add("ana", line); err != nil {
		t.Fatal(err)
	}
	host, err := w.s.HostKey()
	if err != nil {
		t.Fatal(err)
	}
	name, port, _ := net.SplitHostPort(addr)
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte(fmt.Sprintf("[%s]:%s %s", name, port, ssh.MarshalAuthorizedKey(host.PublicKey()))), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_SSH_COMMAND", "ssh -F /dev/null -o IdentitiesOnly=yes -o BatchMode=yes -i "+file+" -o UserKnownHostsFile="+known)
	w.on = func(_ context.Context, p Push, out io.Writer) error {
		fmt.Fprintf(out, "deploying %s for %s\n", p.App, p.By)
		if p.Branch == "bad" {
			return errors.New("a test fails")
		}
		return nil
	}
	one := w.commit("a", "a")
	url := "ssh://git@" + addr + "/shop.git"
	if out := w.must("push", url, "main"); !strings.Contains(out, "remote: deploying shop for ana") {
		t.Errorf("pushed:\n%s", out)
	}
	if w.tip("shop", "main") != one {
		t.Error("the branch did not move")
	}
	if out, err := w.git("push", url, "main:bad"); err == nil || !strings.Contains(out, "remote: error: a test fails") {
		t.Errorf("refused push: %v\n%s", err, out)
	}
	to := filepath.Join(t.TempDir(), "clone")
	w.must("clone", "--quiet", url, to)
	if err := w.s.Keys().Remove("ana"); err != nil {
		t.Fatal(err)
	}
	if out, err := w.git("push", url, "main:again"); err == nil {
		t.Errorf("with a removed key: %s", out)
	}
	if !w.clean() {
		t.Error("something is left")
	}
}

func TestSSHByOurOwnClient(t *testing.T) {
	w := newWorld(t, nil)
	addr, stop := w.serveSSH()
	_, line, signer := w.key()
	if _, err := w.s.Keys().Add("", strings.TrimSpace(line)+" ana@laptop"); err != nil {
		t.Fatal(err)
	}
	_, _, stranger := w.key()
	if _, err := w.dial(addr, stranger); err == nil {
		t.Error("a stranger is let in")
	}
	c, err := w.dial(addr, signer)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	run := func(cmd string) (string, int) {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.Stdin = strings.NewReader("0000")
		out, err := s.CombinedOutput(cmd)
		var exit *ssh.ExitError
		if errors.As(err, &exit) {
			return string(out), exit.ExitStatus()
		}
		if err != nil {
			t.Fatalf("%s: %v", cmd, err)
		}
		return string(out), 0
	}
	if out, status := run("git-upload-pack '/shop.git'"); status != 0 || !strings.HasSuffix(out, "0000") {
		t.Errorf("upload-pack of an empty repository: %d, %q", status, out)
	}
	for _, cmd := range []string{"sh -c id", "git-receive-pack '/../../etc'", "git-upload-archive '/shop.git'", "git-receive-pack /shop.git; id"} {
		if out, status := run(cmd); status != 1 || !strings.Contains(out, "only git") {
			t.Errorf("%s: %d, %q", cmd, status, out)
		}
	}
	if _, err := c.Dial("tcp", "127.0.0.1:22"); err == nil {
		t.Error("a connection is forwarded")
	}
	if err := w.s.Keys().Remove("ana@laptop"); err != nil {
		t.Fatal(err)
	}
	if out, status := run("git-upload-pack '/shop.git'"); status != 1 || !strings.Contains(out, "not known any more") {
		t.Errorf("on an open connection whose key is gone: %d, %q", status, out)
	}
	stop() // returns although a client is connected
}

func TestDyingSSHClientLeavesNothing(t *testing.T) {
	w := newWorld(t, nil)
	addr, _ := w.serveSSH()
	_, line, signer := w.key()
	if _, err := w.s.Keys().Add("ana", line); err != nil {
		t.Fatal(err)
	}
	begun, ended := make(chan bool, 1), make(chan bool, 1)
	w.on = func(ctx context.Context, _ Push, _ io.Writer) error {
		begun <- true
		<-ctx.Done()
		ended <- true
		return nil
	}
	one := w.commit("a", "a")
	// What git push sends: the change, then the pack.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	pack := w.command(ctx, "pack-objects", "--all", "--stdout", "-q")
	bytesOf, err := pack.Output()
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.dial(addr, signer)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("git-receive-pack 'shop.git'"); err != nil {
		t.Fatal(err)
	}
	cmd := strings.Repeat("0", 40) + " " + one + " refs/heads/main\x00report-status side-band-64k"
	if _, err := fmt.Fprintf(in, "%04x%s0000%s", len(cmd)+4, cmd, bytesOf); err != nil {
		t.Fatal(err)
	}
	<-begun
	c.Close()
	select {
	case <-ended:
	case <-time.After(15 * time.Second):
		t.Fatal("the deploy goes on without its pusher")
	}
	eventually(t, "nothing is left", w.clean)
	if w.tip("shop", "main") != "" {
		t.Error("the branch moved without its pusher")
	}
}

func TestKeys(t *testing.T) {
	w := newWorld(t, nil)
	k := w.s.Keys()
	_, line, _ := w.key()
	for bad, want := range map[string]string{"": "", "ssh-ed25519 AAAA": "", `command="sh" ` + line: "options", line + line: "one after the other"} {
		if _, err := k.Add("x", bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	one, err := k.Add("ana", line)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Add("ana's laptop", line); err != nil {
		t.Fatal(err)
	}
	again, err := openKeys(k.file)
	if err != nil {
		t.Fatal(err)
	}
	if l := again.List(); len(l) != 1 || l[0].Name != "ana's laptop" || l[0].Fingerprint != one.Fingerprint {
		t.Errorf("listed %+v", l)
	}
	if err := k.Remove("nobody"); !errors.Is(err, ErrNoKey) {
		t.Error(err)
	}
	if err := k.Remove(one.Fingerprint); err != nil || len(k.List()) != 0 {
		t.Error(err, k.List())
	}
}
