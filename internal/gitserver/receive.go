package gitserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
)

// hookScript is git's pre-receive hook of all repositories. Descriptors 3 and 4 are the server's: the
// script says what is pushed and where its objects lie, and prints what the server answers until the
// verdict. A server that is gone refuses.
const hookScript = `#!/bin/sh
{ printf '%s\n%s\n' "$GIT_OBJECT_DIRECTORY" "$GIT_ALTERNATE_OBJECT_DIRECTORIES"; cat; echo; } >&3 || exit 1
exec 3>&-
while IFS= read -r line <&4; do
	case $line in
	=yes) exit 0 ;;
	=no) exit 1 ;;
	*) printf '%s\n' "${line#.}" ;;
	esac
done
echo 'the server went away'
exit 1
`

// streams are the ends of one git command. end is called once, when the command is gone, with how it
// ended; it must make a reading of in return, because a client keeps its end open until it is answered.
type streams struct {
	in       io.Reader
	out, err io.Writer
	end      func(error)
}

// command runs receive-pack or upload-pack on an app's repository, and returns when all that it started
// is gone. protocol is what the client asks for (GIT_PROTOCOL), args stand before the folder.
func (s *Server) command(ctx context.Context, name, repo, who, service, protocol string, args []string, st streams) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.MostTime)
	defer cancel()
	c := s.git(ctx, repo, append(append([]string{service}, args...), ".")...)
	if protocolForm(protocol) {
		c.Env = append(c.Env, "GIT_PROTOCOL="+protocol)
	}
	c.Stdout, c.Stderr = st.out, st.err
	var feeding sync.WaitGroup
	var err error
	if service == "receive-pack" && !slices.Contains(args, "--advertise-refs") {
		err = s.receive(ctx, c, name, repo, who, st.in, &feeding)
	} else {
		err = run(c, st.in, &feeding, func() {})
	}
	st.end(err)
	feeding.Wait()
}

// receive runs a receive-pack with its hook.
func (s *Server) receive(ctx context.Context, c *exec.Cmd, name, repo, who string, in io.Reader, feeding *sync.WaitGroup) error {
	a := s.app(name)
	a.begin()
	defer a.end(repo)
	fromHook, hookOut, err := os.Pipe()
	if err != nil {
		return err
	}
	hookIn, toHook, err := os.Pipe()
	if err != nil {
		fromHook.Close()
		hookOut.Close()
		return err
	}
	c.ExtraFiles = []*os.File{hookOut, hookIn}
	h := &push{s: s, app: name, repo: repo, who: who, turn: a.turn}
	hookCtx, stop := context.WithCancel(ctx)
	defer stop()
	var hook sync.WaitGroup
	hook.Go(func() {
		defer toHook.Close()
		h.decide(hookCtx, fromHook, toHook)
	})
	err = run(c, in, feeding, func() { hookOut.Close(); hookIn.Close() })
	// The command is gone: whatever its hook still waits for is for nobody.
	stop()
	fromHook.Close()
	hook.Wait()
	if h.mine {
		if err == nil {
			s.tidy(ctx, repo)
		}
		<-a.turn
	}
	return err
}

// tidy packs a repository when git finds it worth it, while no other push moves a branch.
func (s *Server) tidy(ctx context.Context, repo string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c := s.git(ctx, repo, "-c", "gc.auto=2000", "-c", "gc.autoDetach=false", "gc", "--auto", "--quiet")
	_ = c.Run() // seen again after the next push
	killGroup(c)
}

// protocolForm keeps GIT_PROTOCOL to what clients send: version=2 and the like.
func protocolForm(p string) bool {
	return p != "" && len(p) < 100 && strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789=:-") == ""
}

// run starts a command, says so, and waits for its end, but not for that of its input, whose copying
// counts in feeding.
func run(c *exec.Cmd, in io.Reader, feeding *sync.WaitGroup, started func()) error {
	stdin, err := c.StdinPipe()
	if err == nil {
		err = c.Start()
	}
	started()
	if err != nil {
		return err
	}
	feeding.Go(func() {
		_, _ = io.Copy(stdin, in)
		stdin.Close()
	})
	err = c.Wait()
	killGroup(c)
	return err
}

// push is one receive-pack's visit to the hook.
type push struct {
	s         *Server
	app, repo string
	who       string
	turn      chan struct{}
	mine      bool // the turn is this push's, until receive-pack is gone
}

// change is one line of the hook's input.
type change struct{ old, new, ref string }

// decide reads what the hook says and answers with lines and a verdict.
func (p *push) decide(ctx context.Context, from io.Reader, to io.Writer) {
	env, changes, err := readHook(from)
	if err != nil {
		return // receive-pack ended without a push: nothing was sent, or it was refused earlier
	}
	lines := &progress{to: to}
	err = p.accept(ctx, env, changes, lines)
	lines.flush()
	verdict := "=yes\n"
	if err != nil {
		for _, l := range strings.Split(strings.TrimSpace(err.Error()), "\n") {
			lines.line([]byte("error: " + l))
		}
		verdict = "=no\n"
	}
	_, _ = io.WriteString(to, verdict)
}

// readHook reads the places of the pushed objects and the changes up to the empty line.
func readHook(from io.Reader) (env []string, changes []change, err error) {
	r := bufio.NewReader(io.LimitReader(from, 1<<20))
	next := func() string {
		if err != nil {
			return ""
		}
		var line string
		line, err = r.ReadString('\n')
		return strings.TrimSuffix(line, "\n")
	}
	objects, alternates := next(), next()
	for {
		line := next()
		if err != nil {
			return nil, nil, fmt.Errorf("read hook: %w", err)
		}
		if line == "" {
			break
		}
		f := strings.SplitN(line, " ", 3)
		if len(f) != 3 {
			return nil, nil, fmt.Errorf("read hook: %q is no change of a ref", line)
		}
		changes = append(changes, change{f[0], f[1], f[2]})
	}
	if objects != "" {
		env = append(env, "GIT_OBJECT_DIRECTORY="+objects)
	}
	if alternates != "" {
		env = append(env, "GIT_ALTERNATE_OBJECT_DIRECTORIES="+alternates)
	}
	return env, changes, nil
}

// accept decides over a push: one branch at most, and tags as they come.
func (p *push) accept(ctx context.Context, env []string, changes []change, out *progress) error {
	var branch *change
	for i, c := range changes {
		switch {
		case strings.HasPrefix(c.ref, "refs/tags/"):
		case !strings.HasPrefix(c.ref, "refs/heads/"):
			return fmt.Errorf("%s is neither a branch nor a tag: push branches and tags only", c.ref)
		case branch != nil:
			return errors.New("a push deploys one branch: push the branches one after the other")
		default:
			branch = &changes[i]
		}
	}
	if branch == nil {
		return nil
	}
	if err := p.waitTurn(ctx, out); err != nil {
		return err
	}
	now, err := p.s.tip(ctx, p.repo, branch.ref)
	if err != nil {
		return err
	}
	if now != id(branch.old) {
		return fmt.Errorf("%s was moved by another push in the meantime: fetch, and push again", strings.TrimPrefix(branch.ref, "refs/heads/"))
	}
	ev := Push{App: p.app, Branch: strings.TrimPrefix(branch.ref, "refs/heads/"), Old: id(branch.old), New: id(branch.new), By: p.who}
	if ev.New != "" {
		dir, err := os.MkdirTemp(filepath.Join(p.s.cfg.Dir, "work"), p.app+"-")
		if err != nil {
			return fmt.Errorf("export files: %w", err)
		}
		defer removeAll(dir)
		ev.Dir = filepath.Join(dir, "files")
		if err := p.s.export(ctx, p.repo, env, ev.New, dir, out); err != nil {
			return err
		}
	}
	if err := p.s.cfg.Push(ctx, ev, out); err != nil {
		return err
	}
	return ctx.Err() // a client that is gone gets no branch moved behind its back
}

// waitTurn waits until no other push of the app is under way, and says so.
func (p *push) waitTurn(ctx context.Context, out *progress) error {
	select {
	case p.turn <- struct{}{}:
		p.mine = true
		return nil
	default:
	}
	fmt.Fprintf(out, "another push to %s is under way; waiting for it\n", p.app)
	timer := time.NewTimer(p.s.cfg.Wait)
	defer timer.Stop()
	select {
	case p.turn <- struct{}{}:
		p.mine = true
		return nil
	case <-timer.C:
		return fmt.Errorf("another push to %s has been under way for %s: push again when it is done", p.app, p.s.cfg.Wait)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// id is a commit's, "" for the zeros that mean none.
func id(s string) string {
	if strings.Trim(s, "0") == "" {
		return ""
	}
	return s
}

// tip is the commit of a ref, "" when there is none.
func (s *Server) tip(ctx context.Context, repo, ref string) (string, error) {
	out, err := s.git(ctx, repo, "for-each-ref", "--format=%(objectname)", "--", ref).Output()
	if err != nil {
		return "", fmt.Errorf("read %s: %w", ref, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// removeAll removes a folder whatever the callback did to its modes.
func removeAll(dir string) {
	if os.RemoveAll(dir) == nil {
		return
	}
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}

// longest bounds a line of progress, in bytes.
const longest = 4096

// progress turns what a callback writes into lines for the hook. It may be used by many at once.
type progress struct {
	mu   sync.Mutex
	to   io.Writer
	part []byte
}

func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(b)
	for {
		i := bytes.IndexAny(b, "\n\r")
		if i < 0 && len(p.part)+len(b) < longest {
			p.part = append(p.part, b...)
			return n, nil
		}
		if i < 0 || len(p.part)+i > longest {
			i = max(0, longest-len(p.part))
			p.part = append(p.part, b[:i]...)
			b = b[i:]
		} else {
			empty := b[i] == '\r' && len(p.part)+i == 0
			p.part = append(p.part, b[:i]...)
			if b = b[i+1:]; empty {
				continue
			}
		}
		if err := p.send(p.part); err != nil {
			return 0, err
		}
		p.part = p.part[:0]
	}
}

// line sends one line.
func (p *progress) line(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.send(b)
}

// flush sends a last line that has no end.
func (p *progress) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.part) > 0 {
		_ = p.send(p.part)
		p.part = p.part[:0]
	}
}

// send writes one line with the mark that tells it from a verdict, and without what could move a
// terminal's cursor or change its title.
func (p *progress) send(b []byte) error {
	clean := bytes.Map(func(r rune) rune {
		if r == '\t' || r == 0x1b || !unicode.IsControl(r) {
			return r
		}
		return -1
	}, b)
	_, err := p.to.Write(append(append([]byte{'.'}, stripEscapes(clean)...), '\n'))
	return err
}

// stripEscapes removes the terminal's escape sequences (ECMA-48) but colours.
func stripEscapes(b []byte) []byte {
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] != 0x1b {
			out = append(out, b[i])
			continue
		}
		if i+1 >= len(b) || b[i+1] != '[' {
			i++ // a sequence of two bytes; of a longer one harmless text is left
			continue
		}
		end := i + 2
		for end < len(b) && b[end] >= 0x20 && b[end] <= 0x3f {
			end++
		}
		if end < len(b) && b[end] == 'm' {
			out = append(out, b[i:end+1]...)
		}
		i = end
	}
	return out
}
