package pgrepl

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"tenfold/internal/engines"
	"tenfold/internal/enginetest"
)

// While rows are written all the time, the copy starts by itself and has every row that was committed before it
// began.
func TestALocalCopyStartsAndHasWhatWasCommitted(t *testing.T) {
	dsn := enginetest.Postgres(t)
	c, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	source, err := row(t.Context(), c, "show data_directory")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Exec(t.Context(), "create table t (n serial primary key, pad text); insert into t (pad) select repeat('x', 200) from generate_series(1, 20000)").Close(); err != nil {
		t.Fatal(err)
	}
	w, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer w.Close(t.Context())
		for {
			select {
			case <-stop:
				return
			default:
				w.Exec(t.Context(), "insert into t (pad) values ('y'); update t set pad = pad || 'z' where n % 1000 = 0").Close()
			}
		}
	}()
	defer func() { close(stop); <-done }()
	before, err := row(t.Context(), c, "select count(*)::text from t")
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("", "copy")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	uid, gid := engines.RunAs()
	if uid > 0 {
		os.Chown(home, uid, gid)
	}
	dir := filepath.Join(home, "data")
	out, err := Copy(t.Context(), c, Options{Label: "it's a copy", WAL: true}, source[0], dir, uid, gid)
	if err != nil {
		t.Fatal(err)
	}
	if out.End <= out.Start || out.Timeline != 1 || out.Bytes < 1<<20 || Sync(dir) != nil {
		t.Errorf("%+v", out)
	}
	for _, gone := range []string{"postmaster.pid", "postmaster.opts"} {
		if _, err := os.Stat(filepath.Join(dir, gone)); err == nil {
			t.Errorf("%s was copied", gone)
		}
	}
	slots, err := row(t.Context(), c, "select count(*)::text from pg_replication_slots")
	if err != nil || slots[0] != "0" {
		t.Errorf("it leaves a slot behind: %v %v", slots, err)
	}
	if got := rows(t, dir); got < before[0] && len(got) <= len(before[0]) {
		t.Errorf("%s rows of %s", got, before[0])
	}
}

// rows counts t in a copy, by a server in single-user mode: recovery from the label comes first.
func rows(t *testing.T, dir string) string {
	t.Helper()
	e, err := engines.Postgres(t.Context(), 0, "")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), e.Server, "--single", "-D", dir, "postgres")
	cmd.Dir, cmd.Env = "/", []string{"LC_ALL=C", "TZ=UTC"}
	cmd.Stdin = strings.NewReader("select 'rows', count(*) from t\n")
	if uid, gid := engines.RunAs(); uid > 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, after, _ := strings.Cut(string(out), `count = "`)
	n, _, ok := strings.Cut(after, `"`)
	if !ok {
		t.Fatalf("no count\n%s", out)
	}
	return n
}

// On a file system that can, nothing is copied: xfs in a file, where root may mount one.
func TestALocalCopyIsSharedWhereTheFileSystemCan(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root mounts file systems")
	}
	for _, tool := range []string{"mkfs.xfs", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (apt-get install xfsprogs)", tool)
		}
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 320<<20); err != nil {
		t.Fatal(err)
	}
	os.Mkdir(mount, 0o755)
	if out, err := exec.Command("mkfs.xfs", "-q", "-m", "reflink=1", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.xfs: %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, mount).CombinedOutput(); err != nil {
		t.Skipf("no loop devices here: %v %s", err, out)
	}
	defer exec.Command("umount", mount).Run()
	from := filepath.Join(mount, "from")
	os.MkdirAll(filepath.Join(from, "global"), 0o755)
	os.WriteFile(filepath.Join(from, "global", "pg_control"), []byte("control"), 0o600)
	if err := os.WriteFile(filepath.Join(from, "1"), make([]byte, 100<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var before, after unix.Statfs_t
	if err := Sync(from); err != nil {
		t.Fatal(err)
	}
	unix.Statfs(mount, &before)
	begun := time.Now()
	c := copier{from: from, to: filepath.Join(mount, "to")}
	if err := c.files(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	Sync(from)
	unix.Statfs(mount, &after)
	if used := int64(before.Bfree-after.Bfree) * before.Bsize; !c.out.Shared || c.out.Bytes != 100<<20 || used > 4<<20 {
		t.Errorf("shared %t, %d bytes, %s more on disk", c.out.Shared, c.out.Bytes, strconv.FormatInt(used, 10))
	}
	t.Logf("100 MB in %s", took)
}
