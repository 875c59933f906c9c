package container

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// isTerminal says that a person sits at this input.
func isTerminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// terminal gives the container our input until it ends. A terminal is handed over as it is, key by key,
// and its size with it; what that changes here is undone by restore.
func (r *runner) terminal(ctx context.Context, id string, out *stream) (restore func()) {
	restore = func() {}
	if isTerminal(r.in) {
		fd := int(r.in.(*os.File).Fd())
		restore = raw(fd)
		resized := make(chan os.Signal, 1)
		signal.Notify(resized, syscall.SIGWINCH)
		resized <- syscall.SIGWINCH
		go func() {
			for {
				select {
				case <-out.done:
					signal.Stop(resized)
					return
				case <-resized:
					if w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
						r.call(ctx, http.MethodPost, "/containers/"+id+"/resize?h="+strconv.Itoa(int(w.Row))+"&w="+strconv.Itoa(int(w.Col)), nil, nil)
					}
				}
			}
		}()
	}
	// It reads until this process ends: nobody can be woken who waits for a key.
	go func() {
		to, ok := out.conn.(io.Writer)
		if !ok {
			return
		}
		io.Copy(to, r.in)
		if half, ok := out.conn.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
	}()
	return restore
}

// raw switches a terminal to passing on every key, and gives what switches it back.
func raw(fd int) func() {
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	now := *was
	now.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	now.Oflag &^= unix.OPOST
	now.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	now.Cflag = now.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(fd, unix.TCSETS, &now) != nil {
		return func() {}
	}
	return func() { unix.IoctlSetTermios(fd, unix.TCSETS, was) }
}
