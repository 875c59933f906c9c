package pgrepl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"tenfold/internal/lazy"
)

// A copy of a data directory on the same machine.
//
// Over the wire each byte passes through two processes, a socket and a checksum. Here the files are copied by
// the kernel, several at once, or shared by it (FICLONE) where the file system can, which takes no time and no
// room. Pages may be torn and files of different moments: that is what backup mode is for. From its start on
// the server writes whole pages to the WAL, and whoever starts the copy replays from there (PostgreSQL's
// documentation, "Making a Base Backup Using the Low Level API"). What this gives up is the server's look
// at the checksum of every page; base backups that are kept are taken over the wire.

// Copied says what a local copy was made of.
type Copied struct {
	Base
	Files int
	Bytes int64
	// Shared says that the file system shares the blocks with the original until one of them changes.
	Shared bool
}

// Copy makes dir, which must not exist, a copy of the data directory source of the server that conn (a plain
// connection as superuser) leads to. With uid above 0 the files belong to uid and gid. They are in the
// kernel's memory, not yet on disk, when it returns: call Sync before the copy is what is relied on after a
// loss of power. With o.WAL it can be started as it is. What failed half-way stays for the caller to remove.
func Copy(ctx context.Context, conn *pgconn.PgConn, o Options, source, dir string, uid, gid int) (Copied, error) {
	c := copier{from: source, to: dir, uid: uid, gid: gid}
	if err := c.all(ctx, conn, o); err != nil {
		return Copied{}, fmt.Errorf("copy data directory: %w", err)
	}
	return c.out, nil
}

type copier struct {
	from, to string
	uid, gid int

	mu     sync.Mutex
	out    Copied // under mu while files are copied
	copied bool   // under mu: one at least was not shared
}

func (c *copier) all(ctx context.Context, conn *pgconn.PgConn, o Options) error {
	major, err := majorOf(conn)
	if err != nil {
		return err
	}
	// A slot of this session holds what WAL is needed; it goes with the session.
	if o.WAL {
		name := "tenfold_copy_" + strconv.Itoa(int(conn.PID()))
		if _, err := row(ctx, conn, "select pg_create_physical_replication_slot('"+name+"', true, true)"); err != nil {
			return err
		}
		defer func() { conn.Exec(context.WithoutCancel(ctx), "select pg_drop_replication_slot('"+name+"')").Close() }()
	}
	begin, end := "pg_backup_start(%s, true)", "pg_backup_stop(false)"
	if major < 15 {
		begin, end = "pg_start_backup(%s, true, false)", "pg_stop_backup(false, false)"
	}
	label := "'" + strings.ReplaceAll(o.Label, "'", "''") + "'"
	started, err := row(ctx, conn, "select lsn::text, (select timeline_id from pg_control_checkpoint())::text, (select bytes_per_wal_segment from pg_control_init())::text from "+fmt.Sprintf(begin, label)+" lsn")
	if err != nil {
		return err
	}
	if err := c.files(ctx); err != nil {
		conn.Exec(context.WithoutCancel(ctx), "select "+end).Close()
		return err
	}
	ended, err := row(ctx, conn, "select lsn::text, labelfile, spcmapfile from "+end)
	if err != nil {
		return err
	}
	if c.out.Start, err = ParseLSN(started[0]); err != nil {
		return err
	}
	if c.out.End, err = ParseLSN(ended[0]); err != nil {
		return err
	}
	if err := c.write("backup_label", ended[1]); err != nil {
		return err
	}
	tli, err := strconv.ParseUint(started[1], 10, 32)
	if err != nil {
		return err
	}
	c.out.Timeline = uint32(tli)
	segment, err := strconv.ParseUint(started[2], 10, 64)
	if err != nil || !o.WAL {
		return err
	}
	return c.wal(segment)
}

// empty are folders whose contents belong to the server that runs; their names are those of pg_basebackup.
var empty = map[string]bool{
	"pg_wal": true, "pg_replslot": true, "pg_dynshmem": true, "pg_notify": true, "pg_serial": true,
	"pg_snapshots": true, "pg_stat_tmp": true, "pg_subtrans": true,
}

var left = lazy.Regexp(`^(postmaster\.(pid|opts)|backup_label(\.old)?|backup_manifest|tablespace_map|current_logfiles|(standby|recovery)\.signal|pg_internal\.init.*|pgsql_tmp.*|.*\.new)$`)

// controlFile says how far the server has come; it is copied last, so that it is newer than all others.
const controlFile = "global/pg_control"

// files copies all but WAL, several at once.
func (c *copier) files(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	names := make(chan string)
	var wg sync.WaitGroup
	for range min(max(runtime.NumCPU(), 2), 8) {
		wg.Go(func() {
			for name := range names {
				if err := c.file(name); err != nil {
					cancel(err)
				}
			}
		})
	}
	err := c.walk(ctx, names)
	close(names)
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	c.out.Shared = !c.copied
	return c.control()
}

func (c *copier) walk(ctx context.Context, names chan<- string) error {
	return filepath.WalkDir(c.from, func(path string, d fs.DirEntry, err error) error {
		name, rerr := filepath.Rel(c.from, path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && name != ".": // dropped meanwhile; the WAL knows
			return nil
		case err != nil || rerr != nil:
			return errors.Join(err, rerr)
		case d.IsDir() && (left.MatchString(d.Name()) || strings.HasPrefix(name, "pg_replslot/")): // half a slot is a server that does not start
			return fs.SkipDir
		case d.IsDir():
			return makeDir(filepath.Join(c.to, name), c.uid, c.gid)
		case filepath.Dir(name) == "pg_tblspc":
			return errors.New("the database has a tablespace of its own")
		case empty[strings.Split(name, "/")[0]], left.MatchString(d.Name()), name == controlFile:
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder", name)
		}
		select {
		case names <- name:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// file copies one file, or shares it.
func (c *copier) file(name string) error {
	in, err := os.Open(filepath.Join(c.from, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := c.create(name)
	if err != nil {
		return err
	}
	shared := unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil
	var n int64
	if shared {
		n, err = out.Seek(0, io.SeekEnd)
	} else {
		n, err = io.Copy(out, in) // by copy_file_range
	}
	c.mu.Lock()
	c.out.Files++
	c.out.Bytes += n
	c.copied = c.copied || !shared && n > 0
	c.mu.Unlock()
	return errors.Join(err, out.Close())
}

func (c *copier) create(name string) (*os.File, error) {
	out, err := os.OpenFile(filepath.Join(c.to, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if c.uid > 0 {
		if err := out.Chown(c.uid, c.gid); err != nil {
			out.Close()
			return nil, err
		}
	}
	return out, nil
}

func (c *copier) write(name, text string) error {
	out, err := c.create(name)
	if err != nil {
		return err
	}
	_, err = out.WriteString(text)
	return errors.Join(err, out.Close())
}

// control copies the control file. The server writes it in place, so what was read is what is read again.
func (c *copier) control() error {
	path := filepath.Join(c.from, controlFile)
	last, err := os.ReadFile(path)
	for range 100 {
		if err != nil {
			return err
		}
		var again []byte
		if again, err = os.ReadFile(path); err == nil && string(again) == string(last) {
			return c.write(controlFile, string(last))
		}
		last = again
	}
	return errors.New("the control file does not come to rest")
}

// wal copies the segments from the start to the end, and the histories of timelines.
func (c *copier) wal(segment uint64) error {
	entries, err := os.ReadDir(filepath.Join(c.from, "pg_wal"))
	if err != nil {
		return err
	}
	first, last := c.out.Start.Segment(c.out.Timeline, segment), (c.out.End-1).Segment(c.out.Timeline, segment)
	for _, e := range entries {
		name := e.Name()
		if strings.HasSuffix(name, ".history") || len(name) == 24 && name >= first && name <= last {
			if err := c.file("pg_wal/" + name); err != nil {
				return err
			}
		}
	}
	return nil
}

func majorOf(conn *pgconn.PgConn) (int, error) {
	version := conn.ParameterStatus("server_version")
	f := strings.FieldsFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if len(f) == 0 {
		return 0, fmt.Errorf("server version %q", version)
	}
	return strconv.Atoi(f[0])
}

// row is the one row that a query answers with.
func row(ctx context.Context, conn *pgconn.PgConn, sql string) ([]string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return nil, errors.New("the server answers with no row")
	}
	var out []string
	for _, v := range results[0].Rows[0] {
		out = append(out, string(v))
	}
	return out, nil
}
