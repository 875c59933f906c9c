package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// objects that lie in each store while hits are measured.
const objects = 100_000

// hits measures answers from the store, with that many objects in it.
func (b *bench) hits() error {
	ours, cache, static, haproxy := b.house.side(), b.nginx.side("nginx", "cache"), b.nginx.side("nginx", "static"), b.proxy.side("haproxy", "cache")
	if err := b.fill(ours, cache, haproxy); err != nil {
		return err
	}
	small, err := b.contest(func(s side) (load, error) { return wrk(b.ctx, s.base+"/h/1k", b.each) }, ours, cache, haproxy)
	if err != nil {
		return err
	}
	b.faster("hit, 1 KiB, to nginx", small, cache.name, 1.25)
	b.faster("hit, 1 KiB, to HAProxy", small, haproxy.name, 1)
	large, err := b.contest(func(s side) (load, error) { return wrk(b.ctx, s.base+"/h/64k", b.each) }, ours, static)
	if err != nil {
		return err
	}
	b.cheaper("hit, 64 KiB, to nginx static", large, static.name, 1.3)
	return b.tail("hit, 1 KiB", "/h/1k", small, cache, 1)
}

// fill has each side store the objects, and says where a second request is not answered from the store.
func (b *bench) fill(sides ...side) error {
	for _, s := range sides {
		if s.base == "" {
			continue
		}
		host, begun := strings.TrimPrefix(s.base, "http://"), time.Now()
		var wg sync.WaitGroup
		const workers = 8
		errs := make([]error, workers)
		for w := range workers {
			wg.Go(func() { errs[w] = b.ask(host, w*objects/workers, (w+1)*objects/workers) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("fill %s: %w", s.name, err)
		}
		if err := b.warm(s.base); err != nil {
			return err
		}
		b.note(s.name, fmt.Sprintf("stored %d objects in %.1f s", objects, time.Since(begun).Seconds()))
		before, err := b.originTime()
		if err != nil {
			return err
		}
		if err := b.ask(host, 0, 2000); err != nil {
			return err
		}
		after, err := b.originTime()
		if err != nil {
			return err
		}
		// 2000 answers cost the origin 20 ms or more; what is stored costs it nothing.
		if after-before > 0.015 {
			b.note(s.name, "answers are not from its store")
		}
	}
	return nil
}

// warm has what is measured stored below an address. Some stores keep an answer from its second
// request on.
func (b *bench) warm(bases ...string) error {
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer c.CloseIdleConnections()
	for _, base := range bases {
		for _, path := range []string{"/h/1k", "/h/64k", "/h/1k", "/h/64k"} {
			if base == "" {
				continue
			}
			if what := get(b.ctx, c, base+path).bad(); what != "" {
				return fmt.Errorf("warm %s: %s", base+path, what)
			}
		}
	}
	return nil
}

// originTime is the CPU time of the task behind all sides.
func (b *bench) originTime() (float64, error) {
	pids, _, err := b.house.tasks("bytes")
	if err != nil {
		return 0, err
	}
	return cpu(pids)
}

// ask gets objects over one connection, some at a time: one by one, most of the time went to waking up.
func (b *bench) ask(host string, from, to int) error {
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(b.ctx, func() { conn.Close() })()
	r := bufio.NewReaderSize(conn, 8<<10)
	const batch = 20
	for n := from; n < to; n += batch {
		last := min(n+batch, to)
		var asked bytes.Buffer
		for i := n; i < last; i++ {
			fmt.Fprintf(&asked, "GET /o/%d HTTP/1.1\r\nHost: %s\r\n\r\n", i, host)
		}
		if _, err := conn.Write(asked.Bytes()); err != nil {
			return err
		}
		for i := n; i < last; i++ {
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				return err
			}
			if res.StatusCode != http.StatusOK || res.ContentLength != small {
				return fmt.Errorf("object %d: %s, %d bytes", i, res.Status, res.ContentLength)
			}
			if _, err := r.Discard(small); err != nil {
				return err
			}
		}
	}
	return nil
}
