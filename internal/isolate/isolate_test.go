package isolate

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// run starts a shell script in a box and gives its output and status. The box has all rungs that there are.
func run(t *testing.T, b Box, dir, script string) (string, int) {
	t.Helper()
	argv := []string{"/bin/sh", "-c", script}
	env := []string{"PATH=/usr/local/bin:/usr/bin:/bin"}
	p, err := Prepare(b, argv, env, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, err := p.Start(Process{Path: argv[0], Argv: argv, Env: append(env, p.Environ()...), Dir: dir, Files: []uintptr{null.Fd(), w.Fd(), w.Fd()}, Cgroup: -1, DeathSignal: syscall.SIGKILL})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	return string(out), ws.ExitStatus()
}

// boxes makes two boxes with homes and folders of their own below one hidden folder that others may enter.
func boxes(t *testing.T) (data string, a, b Box) {
	t.Helper()
	data, err := os.MkdirTemp("", "box")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(data) })
	os.Chmod(data, 0o755)
	make := func(name string, user int) Box {
		work := filepath.Join(data, name)
		if err := os.MkdirAll(work, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(work, "file"), []byte("of "+name), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Give(work, user); err != nil {
			t.Fatal(err)
		}
		home := filepath.Join(data, "home-"+name)
		return Box{User: user, Groups: []int{user}, Home: home, Hide: []string{data}, Write: []string{work}}
	}
	return data, make("a", FirstUser+11), make("b", FirstUser+22)
}

func has(rungs []Rung, name string) bool {
	return slices.ContainsFunc(rungs, func(r Rung) bool { return r.Name == name && r.OK })
}

func TestABoxSeesItsOwnFilesAlone(t *testing.T) {
	probe := Probe()
	if !has(probe, RungUser) && !has(probe, RungLandlock) {
		t.Skipf("this machine has no rung for files: %+v", probe)
	}
	data, a, b := boxes(t)
	work := a.Write[0]
	if out, status := run(t, a, work, "cat file && echo more >>file && mkdir -p x/y && mv file x/y/file && mv x/y/file file && echo home >$TMPDIR/t && cat $TMPDIR/t && echo >/dev/null"); status != 0 || !strings.HasPrefix(out, "of a") {
		t.Errorf("its own files: %q, status %d", out, status)
	}
	if out, status := run(t, b, b.Write[0], "cat "+work+"/file; ls "+filepath.Join(data, "home-a")+"; echo bad >"+work+"/new"); status == 0 || strings.Contains(out, "of a") || strings.Contains(out, "tmp\n") {
		t.Errorf("another's files: %q, status %d", out, status)
	}
	if _, err := os.Stat(filepath.Join(work, "new")); err == nil {
		t.Error("a file was made in another's folder")
	}
	if out, status := run(t, a, work, "echo bad >/etc/tenfold-was-here"); status == 0 {
		os.Remove("/etc/tenfold-was-here")
		t.Errorf("the system was written to: %q", out)
	}
}

func TestABoxHasBoundsAndNoNewPrivileges(t *testing.T) {
	_, a, _ := boxes(t)
	out, _ := run(t, a, a.Write[0], "ulimit -c; ulimit -Hn; grep NoNewPrivs /proc/self/status; id -u; id -G; [ ! -e /proc/"+strconv.Itoa(os.Getpid())+" ]; echo $?")
	lines := strings.Fields(out)
	if len(lines) < 6 || lines[0] != "0" || lines[3] != "1" {
		t.Fatalf("%q", out)
	}
	probe := Probe()
	if has(probe, RungUser) {
		if lines[4] != fmt.Sprint(a.User) || lines[5] != fmt.Sprint(a.User) {
			t.Errorf("user and groups: %q", out)
		}
		if has(probe, RungNamespaces) && lines[len(lines)-1] != "0" {
			t.Errorf("it sees another user's processes: %q", out)
		}
	}
}

func TestSignalsStayInside(t *testing.T) {
	probe := Probe()
	abi, _ := landlockABI()
	if !has(probe, RungUser) && abi < scopeABI {
		t.Skipf("this machine has no rung for signals: %+v", probe)
	}
	victim := exec.Command("sleep", "1000")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer victim.Wait()
	defer victim.Process.Kill()
	_, a, _ := boxes(t)
	if out, _ := run(t, a, a.Write[0], fmt.Sprintf("kill -9 %d; echo $?; sleep 1000 & kill -9 $!; echo $?", victim.Process.Pid)); !strings.Contains(out, "1\n0\n") {
		t.Errorf("another's process, then its own: %q", out)
	}
	if err := victim.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other process: %v", err)
	}
}

func TestRefusedCallsFailAndOthersWork(t *testing.T) {
	if !has(Probe(), RungSeccomp) {
		t.Skip("no seccomp here")
	}
	_, a, _ := boxes(t)
	if out, status := run(t, a, a.Write[0], "unshare -U true"); status == 0 {
		t.Errorf("a namespace was made: %q", out)
	}
	if out, status := run(t, a, a.Write[0], "(sleep 0 & wait) && echo fine"); status != 0 || out != "fine\n" {
		t.Errorf("%q, status %d", out, status)
	}
}

func TestTheFilterSaysWhatItShould(t *testing.T) {
	arch := architectures[runtime.GOARCH]
	vm, err := bpf.NewVM(program(arch, runtime.GOARCH == "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(nr, arch, arg uint32) uint32 {
		// The machine's order of bytes is read as the network's by this interpreter.
		b := make([]byte, 64)
		for at, v := range map[int]uint32{offsetCall: nr, offsetArch: arch, offsetArg0: arg} {
			b[at], b[at+1], b[at+2], b[at+3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
		}
		n, err := vm.Run(b)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
	const deny = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	for _, nr := range refused {
		if got := ask(nr, arch, 0); got != deny {
			t.Errorf("call %d: %#x", nr, got)
		}
	}
	for name, c := range map[string][4]uint32{
		"read": {unix.SYS_READ, arch, 0, unix.SECCOMP_RET_ALLOW}, "fork": {unix.SYS_CLONE, arch, 17, unix.SECCOMP_RET_ALLOW},
		"namespace": {unix.SYS_CLONE, arch, unix.CLONE_NEWUSER | 17, deny}, "clone3": {unix.SYS_CLONE3, arch, 0, unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		"another architecture": {unix.SYS_READ, arch + 1, 0, unix.SECCOMP_RET_KILL_PROCESS}, "ptrace": {unix.SYS_PTRACE, arch, 0, unix.SECCOMP_RET_ALLOW},
	} {
		if got := ask(c[0], c[1], c[2]); got != c[3] {
			t.Errorf("%s: %#x, want %#x", name, got, c[3])
		}
	}
}

func TestAStepThatFailsIsSaid(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := &Plan{ruleset: -1, proc: -1}
	for step, x := range map[string]Process{
		"execute": {Path: "/no/such/program", Argv: []string{"x"}}, "enter its folder": {Path: "/bin/true", Argv: []string{"x"}, Dir: "/no/such/folder"},
	} {
		x.Cgroup = -1
		if _, err := p.Start(x); err == nil || !strings.HasPrefix(err.Error(), step) {
			t.Errorf("%v, want %s", err, step)
		}
	}
}

// Descriptors arrive in their places however they lie before.
func TestDescriptorsArriveInTheirPlaces(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var fds []uintptr
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 6 {
		f, err := os.CreateTemp(t.TempDir(), strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fds = append(fds, f.Fd())
		if i == 1 {
			fds = append(fds, 2) // lies before its place
		}
		fmt.Fprint(f, i)
		f.Seek(0, 0)
	}
	r, w, _ := os.Pipe()
	fds[0], fds[1] = fds[5], w.Fd() // swapped and doubled
	p := &Plan{ruleset: -1, proc: -1}
	pid, err := p.Start(Process{Path: "/bin/sh", Argv: []string{"sh", "-c", "cat <&0; cat <&3; cat <&4; cat <&6"}, Env: []string{"PATH=/usr/bin:/bin"}, Files: fds, Cgroup: -1})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(r)
	unix.Wait4(pid, nil, 0, nil)
	if string(out) != "4235" {
		t.Errorf("%q", out)
	}
}

func TestAClosedWayIsFound(t *testing.T) {
	dir := t.TempDir()
	os.Chmod(filepath.Dir(dir), 0o755)
	os.Chmod(dir, 0o755)
	in := filepath.Join(dir, "private", "bin")
	os.MkdirAll(in, 0o755)
	os.WriteFile(filepath.Join(in, "tool"), []byte("#!/bin/sh\n"), 0o755)
	os.WriteFile(filepath.Join(dir, "script"), []byte("#!"+in+"/tool\n"), 0o755)
	os.Chmod(filepath.Join(dir, "private"), 0o700)
	env := []string{"PATH=" + in + ":/usr/bin:/bin"}
	for _, argv := range [][]string{{"tool"}, {"/bin/sh", "-c", "exec tool serve"}, {"/bin/sh", "-c", "X=1; cd / && ./script"}} {
		where := dir
		closedAt := ""
		for _, path := range programs(argv, env, where) {
			if at, ok := closed(path, nil); ok {
				closedAt = at
			}
		}
		if closedAt != filepath.Join(dir, "private") {
			t.Errorf("%q: %q", argv, closedAt)
		}
	}
	if at, ok := closed(filepath.Join(in, "tool"), []string{in}); ok {
		if at != filepath.Join(dir, "private") {
			t.Errorf("given, and %s is closed", at)
		}
	} else {
		t.Error("a folder before the one that is given is closed, and that is not seen")
	}
}

// What is hidden below /tmp cannot be hidden while /tmp is written to: Java, which asks no TMPDIR, is told otherwise.
func TestJavaIsToldOfItsTemporaryFolder(t *testing.T) {
	if !has(Probe(), RungLandlock) {
		t.Skip("no Landlock here")
	}
	home := t.TempDir()
	for hide, want := range map[string]string{"/tmp/of-a-house": "JDK_JAVA_OPTIONS=-Xmx1g -Djava.io.tmpdir=" + home + "/tmp", "/var/lib/of-a-house": ""} {
		p, err := Prepare(Box{Home: home, Hide: []string{hide}, Write: []string{"/tmp/of-a-house"}}, []string{"/bin/true"}, []string{"JDK_JAVA_OPTIONS=-Xmx1g"}, "/")
		if err != nil {
			t.Fatal(err)
		}
		told := p.Environ()
		p.Close()
		if i := slices.IndexFunc(told, func(e string) bool { return strings.HasPrefix(e, "JDK_") }); want == "" && i >= 0 || want != "" && !slices.Contains(told, want) {
			t.Errorf("hiding %s: %q", hide, told)
		}
	}
}

func FuzzMapped(f *testing.F) {
	f.Add("         0          0 4294967295\n", uint64(FirstUser), uint64(FirstUser+Users))
	f.Add("0 100000 65536\n", uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, text string, first, end uint64) {
		if mapped(text, first, end) && !strings.ContainsAny(text, "0123456789") {
			t.Errorf("%q maps %d to %d", text, first, end)
		}
	})
}
