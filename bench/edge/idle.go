package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/measure"
)

// idle holds many connections that ask once and then say nothing: their memory, what they leave of the
// throughput, and what happens when the door can open no more.
func (b *bench) idle() error {
	kind, address := "idle connection (no TLS)", strings.TrimPrefix(b.house.base, "http://")
	if at := b.house.tls; at != "" {
		kind, address = "idle TLS connection", "127.0.0.1"+strings.TrimPrefix(at, "https://"+tlsHost)
	}
	dial := func() (net.Conn, error) { return b.oneIdle(address) }
	before, err := measure.PSS(b.house.door)
	if err != nil {
		return err
	}
	held, err := hold(3000, dial)
	if err != nil {
		return err
	}
	time.Sleep(5 * time.Second) // what an idle connection gives back, it gives back after a while
	after, err := measure.PSS(b.house.door)
	release(held)
	if err != nil {
		return err
	}
	b.report.Add(measure.Figure{Name: kind + ", memory of each of 3000", Unit: "KiB", Ours: []float64{float64(after-before) / 3000 / 1024}, Asked: measure.AtMost(30)})
	if err := b.throughputBesideIdle(dial); err != nil {
		return err
	}
	return b.atTheLimit(dial)
}

// oneIdle opens a connection and has one answer over it, so that everything it needs is there.
func (b *bench) oneIdle(address string) (net.Conn, error) {
	var conn net.Conn
	var err error
	if b.house.tls != "" {
		conn, err = tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, &tls.Config{ServerName: tlsHost, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	} else {
		conn, err = net.DialTimeout("tcp", address, 10*time.Second)
	}
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := once(conn); err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return conn, nil
}

// once has one answer over an open connection.
func once(conn net.Conn) error {
	if _, err := io.WriteString(conn, "GET /h/1k HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// hold opens n connections, eight at a time. On an error it closes them.
func hold(n int, dial func() (net.Conn, error)) ([]net.Conn, error) {
	held, errs := make([]net.Conn, n), make([]error, 8)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += len(errs) {
				held[i], errs[w] = dial()
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		release(held)
		return nil, fmt.Errorf("hold %d connections: %w", n, err)
	}
	return held, nil
}

func release(held []net.Conn) {
	for _, c := range held {
		if c != nil {
			c.Close()
		}
	}
}

// throughputBesideIdle compares hits without and with 15,000 idle connections, in turn.
func (b *bench) throughputBesideIdle(dial func() (net.Conn, error)) error {
	const many = 15_000
	const name = "hits beside 15,000 idle ones, to hits alone"
	if b.files < many+1000 {
		b.note(name, fmt.Sprintf("not taken: this program may open %d files", b.files))
		return nil
	}
	ours := b.house.side()
	takes := map[string][]take{}
	for range b.rounds {
		for _, beside := range []bool{false, true} {
			var held []net.Conn
			var err error
			as := "alone"
			if beside {
				as = "tenfold"
				if held, err = hold(many, dial); err != nil {
					return err
				}
			}
			t, err := taken(ours, func(s side) (load, error) { return wrk(b.ctx, s.base+"/h/1k", b.each) })
			for _, i := range []int{0, len(held) / 2, len(held) - 1} {
				if err == nil && beside {
					err = once(held[i]) // they were not closed
				}
			}
			release(held)
			if err != nil {
				return err
			}
			takes[as] = append(takes[as], t)
		}
	}
	b.faster(name, takes, "alone", 0.9)
	return nil
}

// atTheLimit lets the door open few files and asks for more connections than it can have: those it has
// must go on being answered, and so must new ones when there is room again.
func (b *bench) atTheLimit(dial func() (net.Conn, error)) error {
	var was unix.Rlimit
	open := measureOpen(b.house.door)
	limit := unix.Rlimit{Cur: uint64(open + 200)}
	if err := unix.Prlimit(b.house.door, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		return err
	}
	limit.Max = was.Max
	if err := unix.Prlimit(b.house.door, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return err
	}
	defer unix.Prlimit(b.house.door, unix.RLIMIT_NOFILE, &was, nil)
	held, err := hold(50, dial)
	if err != nil {
		return err
	}
	defer func() { release(held) }()
	var flood []net.Conn
	for range 400 {
		if c, err := net.DialTimeout("tcp", strings.TrimPrefix(b.house.base, "http://"), time.Second); err == nil {
			flood = append(flood, c)
		}
	}
	var failed float64
	for _, c := range held {
		c.SetDeadline(time.Now().Add(2 * time.Second))
		if once(c) != nil {
			failed++
		}
	}
	b.report.Add(measure.Figure{Name: "at the file limit: kept ones not answered", Ours: []float64{failed}, Asked: measure.AtMost(0)})
	release(flood)
	begun := time.Now()
	for time.Since(begun) < 10*time.Second {
		if c, err := dial(); err == nil {
			c.Close()
			break
		}
	}
	b.report.Add(measure.Figure{Name: "at the file limit: room again, answered after", Unit: "ms", Ours: []float64{float64(time.Since(begun).Milliseconds())}, Asked: measure.AtMost(1000)})
	return nil
}
