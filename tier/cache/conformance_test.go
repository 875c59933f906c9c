//go:build conformance

package cache

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"tenfold"
	"tenfold/internal/engines"
	"tenfold/internal/freeport"
	"tenfold/internal/keeper"
)

// debuggable has servers know DEBUG, which many tests of the suite ask and which nobody else may.
type debuggable struct{ Units }

func (d debuggable) Start(ctx context.Context, u keeper.Unit) (keeper.Status, error) {
	u.Argv = append(slices.Clone(u.Argv), "--enable-debug-command", "yes")
	return d.Units.Start(ctx, u)
}

// TestConformanceEngineSuite runs the engine's own test suite, of the version that is installed, against a server
// that the tier holds and against a bare one, both at once. What passes on the bare one passes on ours.
func TestConformanceEngineSuite(t *testing.T) {
	f := begin(t)
	e, err := engines.Cache(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := engineSource(t, e)
	f.cfg.Units = debuggable{f.cfg.Units}
	f.open(t)
	f.start(t, tenfold.Cache{Size: 1 << 30, Evict: "noeviction"})
	f.await(t, "ready", ready)
	r, _ := f.get(id.String())
	pid := f.pid(t, 1)
	// The suite logs in nowhere: it is whoever names no user.
	if _, err := f.do(t.Context(), r, 1, askLimit, "ACL", "SETUSER", "default", "reset", "on", "nopass", "~*", "&*", "+@all"); err != nil {
		t.Fatal(err)
	}
	sides := []*side{{name: "managed", port: r.Port, base: 21111}, {name: "bare", port: bareServer(t, e), base: 41111}}
	var wg sync.WaitGroup
	for _, s := range sides {
		wg.Go(func() { s.run(t, dir, nil) })
	}
	wg.Wait()
	if f.pid(t, 1) != pid {
		t.Error("the managed server was started again")
	}
	var again []string
	for name, n := range sides[0].failed {
		if n > sides[1].failed[name] {
			again = append(again, name)
		}
	}
	slices.Sort(again)
	for _, s := range sides {
		t.Logf("%s: %d ok, %d failed, %d left out", s.name, s.ok, s.bad, s.ignored)
		for _, name := range slices.Sorted(maps.Keys(s.failed)) {
			t.Logf("  %s: %s", s.name, name)
		}
	}
	if sides[1].ok < 1000 {
		t.Fatalf("the bare server passed %d tests: the suite did not run\n%s", sides[1].ok, sides[1].tail)
	}
	// Some tests go by the clock, or find what the manager asks each second in SLOWLOG: what failed on ours alone
	// is asked again, alone, and not each time.
	left := again
	for turn := 1; turn <= 5 && len(left) > 0; turn++ {
		s := &side{name: fmt.Sprint("managed, again ", turn), port: r.Port, base: 21111}
		s.run(t, dir, left)
		if s.ok+s.bad == 0 {
			t.Fatalf("nothing of %q ran\n%s", left, s.tail)
		}
		left = slices.DeleteFunc(slices.Clone(left), func(name string) bool { return s.failed[name] == 0 })
	}
	for _, name := range left {
		t.Errorf("%q fails on the managed server and passes on the bare one", name)
	}
	if len(again) == 0 && sides[0].ok+sides[0].bad != sides[1].ok+sides[1].bad {
		t.Errorf("%d tests ran on the managed server, %d on the bare one\n%s", sides[0].ok+sides[0].bad, sides[1].ok+sides[1].bad, sides[0].tail)
	}
}

// side is a run of the suite.
type side struct {
	name             string
	port, base       int
	ok, bad, ignored int
	failed           map[string]int
	tail             string
}

var result = regexp.MustCompile(`\[(ok|err|ignore|exception)\]: (.*)`)

func (s *side) run(t *testing.T, from string, only []string) {
	// Each in a folder of its own: it writes there.
	dir := filepath.Join(t.TempDir(), "suite")
	if out, err := exec.Command("cp", "-r", from, dir).CombinedOutput(); err != nil {
		t.Errorf("copy suite: %v: %s", err, out)
		return
	}
	args := []string{"--host", "127.0.0.1", "--port", strconv.Itoa(s.port), "--baseport", strconv.Itoa(s.base), "--durable", "--tags", "-slow"}
	for _, name := range only {
		args = append(args, "--only", name)
	}
	cmd := exec.CommandContext(t.Context(), "./runtest", args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Run() // its exit says that something failed: the lines say what
	s.failed = map[string]int{}
	for line := range strings.Lines(colours.ReplaceAllString(out.String(), "")) {
		m := result.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		switch name, _, _ := strings.Cut(m[2], " in tests/"); m[1] {
		case "ok":
			s.ok++
		case "ignore":
			s.ignored++
		default:
			s.bad++
			s.failed[name]++
		}
	}
	s.tail = out.String()[max(0, out.Len()-3000):]
}

var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

// bareServer is the engine as it comes, bounded as ours.
func bareServer(t *testing.T, e engines.Engine) int {
	port, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), e.Server, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--maxmemory", strconv.Itoa(1<<30), "--enable-debug-command", "yes")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for begun := time.Now(); ; <-time.After(10 * time.Millisecond) {
		c, err := redis.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			c.Close()
			return port
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatal(err)
		}
	}
}

// engineSource is a folder with the engine's source, as the distribution has it, for its suite: nothing of it is
// built, and the programs that tests call are those that are installed.
func engineSource(t *testing.T, e engines.Engine) string {
	for _, tool := range []string{"apt-get", "tclsh", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("skipped: suite not present: no %s", tool)
		}
	}
	dir := t.TempDir()
	parts, src := filepath.Join(dir, "sources"), filepath.Join(dir, "src")
	for _, d := range []string{parts, filepath.Join(dir, "lists", "partial"), src} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Where this machine's packages come from, their sources do too.
	files, _ := filepath.Glob("/etc/apt/sources.list.d/*")
	for i, file := range append(files, "/etc/apt/sources.list") {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		text := regexp.MustCompile(`(?m)^Types: deb$`).ReplaceAllString(string(b), "Types: deb-src")
		text = regexp.MustCompile(`(?m)^deb `).ReplaceAllString(text, "deb-src ")
		if err := os.WriteFile(filepath.Join(parts, fmt.Sprint(i, filepath.Ext(file))), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	apt := func(args ...string) {
		args = append([]string{"-q", "-o", "Dir::Etc::SourceList=/dev/null", "-o", "Dir::Etc::SourceParts=" + parts, "-o", "Dir::State::Lists=" + filepath.Join(dir, "lists")}, args...)
		cmd := exec.CommandContext(t.Context(), "apt-get", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("skipped: suite not present: apt-get %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	apt("update")
	apt("source", "--download-only", e.Name)
	orig, _ := filepath.Glob(filepath.Join(dir, e.Name+"_*.orig.tar.*"))
	if len(orig) != 1 {
		t.Skipf("skipped: suite not present: the source of %s has %d archives", e.Name, len(orig))
	}
	if version, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(orig[0]), e.Name+"_"), ".orig"); !strings.HasPrefix(version, e.Version) {
		t.Skipf("skipped: suite not present: %s is installed, and the source is %s", e.Version, version)
	}
	if out, err := exec.Command("tar", "xf", orig[0], "-C", src, "--strip-components=1").CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v: %s", orig[0], err, out)
	}
	for _, tool := range []string{"server", "cli", "benchmark"} {
		name := e.Name + "-" + tool
		if path := e.Tool(name); path != "" {
			if err := os.Symlink(path, filepath.Join(src, "src", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return src
}
