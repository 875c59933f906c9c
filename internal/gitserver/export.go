package gitserver

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// What a commit may hold: a pack of kilobytes can stand for more files than any disk has.
const (
	mostFiles = 200_000
	mostBytes = 8 << 30
)

// export writes the files of a commit to dir/files. An index of its own and checkout-index are used,
// not git archive: that leaves out what .gitattributes says, and rewrites files. Links that lead out of
// the project are left out, and the pusher is told.
func (s *Server) export(ctx context.Context, repo string, env []string, commit, dir string, out io.Writer) error {
	files := filepath.Join(dir, "files")
	if err := os.Mkdir(files, 0o700); err != nil {
		return fmt.Errorf("export files: %w", err)
	}
	env = append(env, "GIT_DIR="+repo, "GIT_WORK_TREE="+dir, "GIT_INDEX_FILE="+filepath.Join(dir, "index"))
	if err := s.measure(ctx, repo, env, commit); err != nil {
		return fmt.Errorf("export files: %w", err)
	}
	for _, args := range [][]string{
		{"read-tree", commit + "^{tree}"},
		{"checkout-index", "--all", "--force", "--quiet", "--prefix=" + files + "/"},
	} {
		c := s.git(ctx, repo, args...)
		c.Env = append(c.Env, env...)
		if said, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("export files: git %s: %w: %s", args[0], err, firstLine(said))
		}
	}
	return filepath.WalkDir(files, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(files, path)
		if err != nil || staysInside(name, to) {
			return err
		}
		fmt.Fprintf(out, "warning: %s is a link that leads out of the project; it is left out\n", name)
		return os.Remove(path)
	})
}

// measure refuses a commit with too many files or bytes, before one is written. They are counted first:
// to tell a file's size git opens it.
func (s *Server) measure(ctx context.Context, repo string, env []string, commit string) error {
	var n, size int64
	err := s.list(ctx, repo, env, []string{"ls-tree", "-r", "-z", commit}, func(string) bool {
		n++
		return n <= mostFiles
	})
	if err == nil && n <= mostFiles {
		err = s.list(ctx, repo, env, []string{"ls-tree", "-r", "-l", "-z", commit}, func(entry string) bool {
			// <mode> <type> <object> <size><tab><path>; a submodule's size is "-".
			if f := strings.Fields(entry); len(f) > 3 {
				b, _ := strconv.ParseInt(f[3], 10, 64)
				size += b
			}
			return size <= mostBytes
		})
	}
	if err == nil && (n > mostFiles || size > mostBytes) {
		err = fmt.Errorf("more than %d files or %d GiB", mostFiles, mostBytes>>30)
	}
	return err
}

// list calls each with the entries that a git command prints, separated by zeros, until it returns false.
func (s *Server) list(ctx context.Context, repo string, env, args []string, each func(string) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := s.git(ctx, repo, args...)
	c.Env = append(c.Env, env...)
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	scan := bufio.NewScanner(out)
	scan.Buffer(nil, 1<<20)
	scan.Split(func(b []byte, end bool) (int, []byte, error) {
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return i + 1, b[:i], nil
		}
		if end && len(b) > 0 {
			return len(b), b, nil
		}
		return 0, nil, nil
	})
	enough := false
	for !enough && scan.Scan() {
		enough = !each(scan.Text())
	}
	if enough || scan.Err() != nil {
		cancel()
	}
	err = c.Wait()
	switch {
	case enough:
		return nil
	case scan.Err() != nil:
		return fmt.Errorf("list files: %w", scan.Err())
	case err != nil:
		return fmt.Errorf("list files: %w", err)
	}
	return nil
}

// staysInside says whether a link at name (a path below the project, through real folders) surely leads
// to something in the project. It may climb, as far as the project's folder, and then only descend: a
// climb from a place that another link leads to starts who knows where.
func staysInside(name, to string) bool {
	if to == "" || to[0] == '/' {
		return false
	}
	depth := strings.Count(filepath.ToSlash(name), "/")
	descended := false
	for _, part := range strings.Split(to, "/") {
		switch {
		case part == "" || part == ".":
		case part != "..":
			descended = true
		case descended || depth == 0:
			return false
		default:
			depth--
		}
	}
	return true
}
