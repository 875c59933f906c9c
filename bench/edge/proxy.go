package main

// proxying measures answers that no side stores: the tasks say nothing of how long they are fresh.
func (b *bench) proxying() error {
	ours, nginx, haproxy := b.house.side(), b.nginx.side("nginx", "proxy"), b.proxy.side("haproxy", "proxy")
	for _, size := range []struct{ name, path string }{{"1 KiB", "/p/1k"}, {"64 KiB", "/p/64k"}} {
		takes, err := b.contest(func(s side) (load, error) { return wrk(b.ctx, s.base+size.path, b.each) }, ours, nginx, haproxy)
		if err != nil {
			return err
		}
		name := "proxied, " + size.name
		b.faster(name+", to nginx", takes, nginx.name, 0.9)
		b.cheaper(name+", to nginx", takes, nginx.name, 1.2)
		b.seen(name+", HAProxy", takes, haproxy.name)
		if err := b.tail(name, size.path, takes, nginx, 1.2); err != nil {
			return err
		}
	}
	return nil
}
