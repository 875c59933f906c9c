package source

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Limits of what Unpack takes.
const (
	maxFiles = 200_000
	maxBytes = 4 << 30
)

// Pack writes the files that Digest reads, and the manifest, as a tar stream, for a house that cannot read root itself:
// one that runs as another user, or on another machine.
func Pack(ctx context.Context, root string, w io.Writer) error {
	files, err := list(ctx, root, root)
	if err != nil {
		return fmt.Errorf("pack %s: %w", root, err)
	}
	out := tar.NewWriter(w)
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := pack(out, root, f); err != nil {
			return fmt.Errorf("pack %s: %w", root, err)
		}
	}
	return out.Close()
}

// Packed is what Pack writes, to be read. Close it, read or not: a goroutine packs until then.
func Packed(ctx context.Context, root string) io.ReadCloser {
	out, in := io.Pipe()
	go func() { in.CloseWithError(Pack(ctx, root, in)) }()
	return out
}

func pack(out *tar.Writer, root string, f file) error {
	h := &tar.Header{Name: f.path, Mode: 0o644, Format: tar.FormatPAX}
	if f.target != "" {
		h.Typeflag, h.Linkname = tar.TypeSymlink, filepath.ToSlash(f.target)
		return out.WriteHeader(h)
	}
	if f.mode&0o111 != 0 {
		h.Mode = 0o755
	}
	in, err := os.Open(filepath.Join(root, filepath.FromSlash(f.path)))
	if err != nil {
		return readable(err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil { // a file that grows meanwhile is an error, not a wrong copy
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return nil
}

// Unpack writes what Pack packed below dst, which must not exist. Whatever could reach outside dst is
// refused: absolute names, "..", links that leave it, anything but files and symbolic links.
func Unpack(ctx context.Context, r io.Reader, dst string) (err error) {
	if err := os.Mkdir(dst, 0o755); err != nil {
		return fmt.Errorf("unpack sources: %w", err)
	}
	root, err := os.OpenRoot(dst)
	if err != nil {
		return fmt.Errorf("unpack sources: %w", err)
	}
	defer func() {
		err = errors.Join(err, root.Close())
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dst))
		}
	}()
	in, bytes := tar.NewReader(r), int64(0)
	for n := 0; ; n++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("unpack sources: %w", err)
		}
		if bytes += h.Size; n >= maxFiles || h.Size < 0 || bytes > maxBytes {
			return fmt.Errorf("unpack sources: more than %d files or %d GB: name what is no source in .gitignore", maxFiles, maxBytes>>30)
		}
		if err := unpack(root, h, in); err != nil {
			return fmt.Errorf("unpack sources: %q: %w", h.Name, err)
		}
	}
}

func unpack(root *os.Root, h *tar.Header, in io.Reader) error {
	if !fs.ValidPath(h.Name) || h.Name == "." {
		return errors.New("not a path below the project")
	}
	if err := root.MkdirAll(path.Dir(h.Name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		to := path.Join(path.Dir(h.Name), h.Linkname)
		if path.IsAbs(h.Linkname) || to == ".." || strings.HasPrefix(to, "../") {
			return fmt.Errorf("a link to %s, outside the project", h.Linkname)
		}
		return root.Symlink(h.Linkname, h.Name)
	case tar.TypeReg:
		perm := fs.FileMode(0o644)
		if h.Mode&0o111 != 0 {
			perm = 0o755
		}
		out, err := root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	}
	return fmt.Errorf("entries of type %q are not sources", h.Typeflag)
}

// Label says which commit of git a folder is at: short hash, "+" when something is not committed, and
// subject. Empty outside git.
func Label(ctx context.Context, dir string) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "git", "-C", dir, "log", "-1", "--format=%h %s").Output()
	if err != nil {
		return ""
	}
	hash, subject, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if dirty, err := exec.CommandContext(ctx, "git", "-C", dir, "status", "--porcelain", "--", dir).Output(); err == nil && len(dirty) > 0 {
		hash += "+"
	}
	return hash + " " + subject
}

// Has says whether the repository of a folder has a commit.
func Has(ctx context.Context, dir, commit string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return commit != "" && !strings.HasPrefix(commit, "-") && exec.CommandContext(ctx, "git", "-C", dir, "cat-file", "-e", commit+"^{commit}").Run() == nil
}
