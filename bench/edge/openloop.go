package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// The open loop asks at a fixed rate, whatever the answers do, and takes each answer's time from when
// its request was due: a server that stalls makes every request wait that came due meanwhile. A closed
// loop like wrk's would stall with it and measure one. Each connection has its own timetable; a request
// that is due while the one before is unanswered waits, and its wait counts.
//
// One thread and epoll, not goroutines: the runtime's timers are late by up to a millisecond when
// nothing else runs, which is more than what is measured.
type openLoop struct {
	head    []byte // of the request
	every   time.Duration
	conns   []*openConn
	latency []time.Duration
	bad     int
}

type openConn struct {
	fd      int
	due     time.Time // of the request that is out, or of the next
	out     bool
	buf     []byte
	read    int // bytes of buf
	missing int // bytes of the body to come; -1 while the head is read
}

// openLoop runs loop in a process of its own on the load's processor.
func (b *bench) openLoop(target string, conns int, perSecond float64, d time.Duration) (load, error) {
	self, err := executable()
	if err != nil {
		return load{}, err
	}
	out, err := exec.CommandContext(b.ctx, "taskset", "-c", strconv.Itoa(loadCPU), self, "task", "loop",
		target, strconv.Itoa(conns), strconv.FormatFloat(perSecond, 'f', 3, 64), d.String()).Output()
	if err != nil {
		return load{}, fmt.Errorf("run the open loop: %w", err)
	}
	var l [4]float64
	if err := json.Unmarshal(out, &l); err != nil {
		return load{}, fmt.Errorf("read the open loop: %w", err)
	}
	return load{answers: l[0], rate: l[1], bad: l[2], p99: l[3]}, nil
}

// loop is the process: it prints answers, rate, bad answers and the 99th percentile in ms.
func loop(w io.Writer, args []string) error {
	if len(args) != 4 {
		return errors.New("want URL, connections, rate, duration")
	}
	conns, err := strconv.Atoi(args[1])
	perSecond, err2 := strconv.ParseFloat(args[2], 64)
	d, err3 := time.ParseDuration(args[3])
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	l, err := runOpenLoop(context.Background(), args[0], conns, perSecond, d)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode([4]float64{l.answers, l.rate, l.bad, l.p99})
}

// runOpenLoop asks a URL at a rate over that many connections. It holds its thread until it is done.
func runOpenLoop(ctx context.Context, target string, conns int, perSecond float64, d time.Duration) (load, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	u, err := url.Parse(target)
	if err != nil {
		return load{}, err
	}
	o := &openLoop{
		head:  fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", u.RequestURI(), u.Host),
		every: time.Duration(float64(conns) / perSecond * float64(time.Second)),
	}
	poll, err := unix.EpollCreate1(0)
	if err != nil {
		return load{}, err
	}
	defer unix.Close(poll)
	defer func() {
		for _, c := range o.conns {
			unix.Close(c.fd)
		}
	}()
	begun := time.Now().Add(5 * time.Millisecond)
	for i := range conns {
		fd, err := connect(u.Host)
		if err != nil {
			return load{}, err
		}
		o.conns = append(o.conns, &openConn{fd: fd, due: begun.Add(o.every * time.Duration(i) / time.Duration(conns)), buf: make([]byte, 128<<10), missing: -1})
		if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return load{}, err
		}
	}
	if err := o.run(ctx, poll, begun.Add(d)); err != nil {
		return load{}, err
	}
	if len(o.latency) == 0 {
		return load{}, errors.New("no answer at all")
	}
	slices.Sort(o.latency)
	return load{
		answers: float64(len(o.latency)), rate: float64(len(o.latency)) / time.Since(begun).Seconds(), bad: float64(o.bad),
		p99: float64(o.latency[len(o.latency)*99/100]) / float64(time.Millisecond),
	}, nil
}

// connect gives a connected, non-blocking socket.
func connect(host string) (int, error) {
	addr, err := net.ResolveTCPAddr("tcp4", host)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	to := &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}
	if err := unix.Connect(fd, to); err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("connect to %s: %w", host, err)
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return fd, unix.SetNonblock(fd, true)
}

// run asks until the end and then waits up to 2 s for what is out; what never comes is bad.
func (o *openLoop) run(ctx context.Context, poll int, until time.Time) error {
	events := make([]unix.EpollEvent, len(o.conns))
	for ctx.Err() == nil {
		now := time.Now()
		wait, out := 100*time.Millisecond, 0
		for _, c := range o.conns {
			if !c.out && c.due.Before(until) {
				if left := c.due.Sub(now); left > 0 {
					wait = min(wait, left)
				} else {
					if _, err := unix.Write(c.fd, o.head); err != nil {
						return fmt.Errorf("ask: %w", err)
					}
					c.out = true
				}
			}
			if c.out {
				out++
			}
		}
		if out == 0 && now.After(until) {
			return nil
		}
		if now.After(until.Add(2 * time.Second)) {
			o.bad += out
			return nil
		}
		n, err := pollFor(poll, events, wait)
		if err != nil {
			return err
		}
		for _, e := range events[:n] {
			if err := o.receive(o.conns[e.Fd]); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// receive reads what came and books the answer when it is whole.
func (o *openLoop) receive(c *openConn) error {
	for {
		n, err := unix.Read(c.fd, c.buf[c.read:])
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			return nil
		}
		if err != nil || n <= 0 {
			return fmt.Errorf("read an answer: the connection ended (%v)", err)
		}
		c.read += n
		if c.missing < 0 {
			head, status, length, err := answerHead(c.buf[:c.read])
			if err != nil {
				return err
			}
			if head == 0 {
				continue
			}
			if status/100 != 2 {
				o.bad++
			}
			c.missing, c.read = length-(c.read-head), 0
		} else {
			c.missing, c.read = c.missing-n, 0
		}
		if c.missing == 0 {
			o.latency = append(o.latency, time.Since(c.due))
			c.due, c.out, c.missing = c.due.Add(o.every), false, -1
			return nil
		}
	}
}

// answerHead finds the end of an answer's head, its status and the length of its body; 0 for the end
// means that more must come. An answer without Content-Length is an error: nothing here sends one.
func answerHead(b []byte) (end, status, length int, err error) {
	i := bytes.Index(b, []byte("\r\n\r\n"))
	if i < 0 {
		return 0, 0, 0, nil
	}
	lines := bytes.Split(b[:i], []byte("\r\n"))
	if len(lines[0]) < 12 || !bytes.HasPrefix(lines[0], []byte("HTTP/1.1 ")) {
		return 0, 0, 0, fmt.Errorf("read an answer: begins %q", lines[0])
	}
	if status, err = strconv.Atoi(string(lines[0][9:12])); err != nil {
		return 0, 0, 0, fmt.Errorf("read an answer: %w", err)
	}
	for _, l := range lines[1:] {
		if k, v, ok := bytes.Cut(l, []byte(":")); ok && bytes.EqualFold(k, []byte("Content-Length")) {
			length, err = strconv.Atoi(string(bytes.TrimSpace(v)))
			if err == nil && (length < 0 || status < 100) {
				err = fmt.Errorf("read an answer: status %d, length %d", status, length)
			}
			return i + 4, status, length, err
		}
	}
	return 0, 0, 0, errors.New("read an answer: it has no Content-Length")
}
