package main

import (
	"fmt"
)

// tls measures what encryption adds. Where this version of Tenfold offers no TLS it says so and
// measures what it can of it without: idle connections and the file limit.
func (b *bench) tls() error {
	if b.house.tls == "" {
		b.note("TLS: hits, handshakes, idle memory", "not offered by this version")
	} else if err := b.encrypted(); err != nil {
		return err
	}
	return b.idle()
}

// encrypted compares stored hits and full handshakes.
func (b *bench) encrypted() error {
	ours, nginx, static, haproxy := b.house.side(), b.nginx.side("nginx", "cache"), b.nginx.side("nginx", "static"), b.proxy.side("haproxy", "cache")
	if err := b.warm(ours.tls, nginx.tls, haproxy.tls); err != nil {
		return err
	}
	takes, err := b.contest(func(s side) (load, error) { return wrk(b.ctx, s.tls+"/h/1k", b.each) }, ours, static)
	if err != nil {
		return err
	}
	b.faster("TLS hit, HTTP/1.1, to nginx", takes, static.name, 0.85)
	for _, n := range []struct {
		streams        int
		nginx, haproxy float64
	}{{10, 3, 1.5}, {1, 1.1, 0}} {
		takes, err := b.contest(func(s side) (load, error) { return h2load(b.ctx, s.tls+"/h/1k", b.each, n.streams) }, ours, nginx, haproxy)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("TLS hit, HTTP/2, %d streams", n.streams)
		b.faster(name+", to nginx", takes, nginx.name, n.nginx)
		if n.haproxy > 0 {
			b.faster(name+", to HAProxy", takes, haproxy.name, n.haproxy)
		}
	}
	takes, err = b.contest(func(s side) (load, error) {
		return wrk(b.ctx, s.tls+"/h/1k", b.each, "-H", "Connection: close")
	}, ours, static)
	if err != nil {
		return err
	}
	b.faster("TLS full handshakes, to nginx", takes, static.name, 0.9)
	return nil
}
