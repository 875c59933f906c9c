package pgrepl

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"
)

// Clone takes a base backup into dir, which must not exist, checks every file against the manifest and
// has all of it on disk when it returns. With uid above 0 the files belong to uid and gid. What failed
// half-way stays for the caller to remove.
func Clone(ctx context.Context, conn *pgconn.PgConn, o Options, dir string, uid, gid int) (Base, error) {
	r, w := io.Pipe()
	type result struct {
		sums Files
		err  error
	}
	unpacked := make(chan result, 1)
	go func() { // ends when the pipe does, which is below
		sums, err := Unpack(r, dir, uid, gid)
		if err == nil {
			_, err = io.Copy(io.Discard, r) // what pads the archive
		}
		r.CloseWithError(err)
		unpacked <- result{sums, err}
	}()
	// The server sends pieces of some kilobytes: each handed over by itself costs a switch of goroutines.
	pieces := bufio.NewWriterSize(w, 1<<20)
	b, err := Backup(ctx, conn, o, pieces)
	if err == nil {
		err = pieces.Flush()
	}
	w.CloseWithError(err)
	u := <-unpacked
	if err := errors.Join(err, u.err); err != nil {
		return b, err
	}
	if err := Check(b.Manifest, u.sums); err != nil {
		return b, err
	}
	return b, Sync(dir)
}

// Files are what Unpack wrote, by path below the data directory.
type Files map[string]written

// written is what Unpack wrote of a file.
type written struct {
	size int64
	sum  string
}

// Unpack writes a tar archive of a data directory to dir, which must not exist, and returns what each
// file came to, for Check. Names that lead out of dir and what is neither file nor folder are refused.
func Unpack(r io.Reader, dir string, uid, gid int) (Files, error) {
	if err := makeDir(dir, uid, gid); err != nil {
		return nil, fmt.Errorf("unpack backup: %w", err)
	}
	out := Files{}
	in := tar.NewReader(r)
	buf := make([]byte, 256<<10)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("unpack backup: %w", err)
		}
		name := strings.TrimPrefix(strings.TrimSuffix(h.Name, "/"), "./")
		if name == "" || name == "." {
			continue
		}
		if !filepath.IsLocal(name) {
			return nil, fmt.Errorf("unpack backup: %q leads out of the folder", h.Name)
		}
		path := filepath.Join(dir, name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = makeDir(path, uid, gid)
		case tar.TypeReg:
			out[name], err = writeFile(path, in, buf, uid, gid)
		default:
			err = fmt.Errorf("%q is neither a file nor a folder", h.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("unpack backup: %w", err)
		}
	}
}

func makeDir(path string, uid, gid int) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if uid > 0 {
		return os.Chown(path, uid, gid)
	}
	return nil
}

func writeFile(path string, r io.Reader, buf []byte, uid, gid int) (written, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return written{}, err
	}
	s := newSum()
	n, err := io.CopyBuffer(io.MultiWriter(f, s), struct{ io.Reader }{r}, buf)
	if err == nil && uid > 0 {
		err = f.Chown(uid, gid)
	}
	return written{n, s.text()}, errors.Join(err, f.Close())
}

// Check compares what was unpacked with a manifest: every file it lists is there, whole and unchanged.
func Check(manifest []byte, files Files) error {
	m, err := ParseManifest(manifest)
	if err != nil {
		return err
	}
	for _, f := range m.Files {
		w, ok := files[f.Path]
		switch {
		case !ok:
			return fmt.Errorf("check backup: %s is missing", f.Path)
		case w.size != f.Size:
			return fmt.Errorf("check backup: %s has %d bytes, its manifest says %d", f.Path, w.size, f.Size)
		case f.Algorithm == "CRC32C" && w.sum != f.Checksum:
			return fmt.Errorf("check backup: the checksum of %s is %s, its manifest says %s", f.Path, w.sum, f.Checksum)
		}
	}
	return nil
}

// Sync has everything below dir on disk. One call for the file system is far cheaper than one a file.
func Sync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync backup: %w", err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync backup: %w", err)
	}
	return nil
}
