package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"tenfold/internal/measure"
	"time"
)

// peer is a server that we are compared with, on the processor of the server under test. It runs once
// with several ports: each is a configuration of its own.
type peer struct {
	cmd   *exec.Cmd
	ports map[string]string // "cache", "proxy", "static", "four" and their TLS twins -> address
}

// openPeers starts nginx and HAProxy on the tasks of the house. One that is missing is nil.
func (b *bench) openPeers() error {
	_, origin, err := b.house.tasks("bytes")
	if err != nil || len(origin) != 1 {
		return fmt.Errorf("find the task of the bytes: %d, %w", len(origin), err)
	}
	_, four, err := b.house.tasks("four")
	if err != nil {
		return err
	}
	cert := filepath.Join(b.dir, "cert.pem")
	if err := writeCertificate(cert); err != nil {
		return err
	}
	if err := writeStatic(filepath.Join(b.dir, "static")); err != nil {
		return err
	}
	for _, p := range []struct {
		to     **peer
		name   string
		config func(dir string, ports map[string]string) string
		args   []string
	}{
		{&b.nginx, "nginx", func(dir string, at map[string]string) string { return nginxConfig(dir, at, origin[0], b.files) }, []string{"-e", "stderr", "-c"}},
		{&b.proxy, "haproxy", func(dir string, at map[string]string) string { return haproxyConfig(dir, at, origin[0], four, b.files) }, []string{"-db", "-f"}},
	} {
		if err := tools(p.name); err != nil {
			b.note(p.name, err.Error()+"; its figures read no peer")
			continue
		}
		if *p.to, err = openPeer(b.dir, p.name, p.config, p.args); err != nil {
			return fmt.Errorf("start %s: %w", p.name, err)
		}
	}
	return nil
}

func openPeer(dir, name string, config func(string, map[string]string) string, args []string) (*peer, error) {
	p := &peer{ports: map[string]string{}}
	configs := []string{"cache", "proxy", "static", "four", "tls cache", "tls static"}
	addrs, err := freePorts(len(configs))
	if err != nil {
		return nil, err
	}
	for i, k := range configs {
		p.ports[k] = addrs[i]
	}
	file := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(file, []byte(config(dir, p.ports)), 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command("taskset", append([]string{"-c", strconv.Itoa(serverCPU), name}, append(args, file)...)...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = log, log, &syscall.SysProcAttr{Setsid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	measure.Favour(p.cmd.Process.Pid)
	for begun := time.Now(); time.Since(begun) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", p.ports["cache"]); err == nil {
			return p, c.Close()
		}
	}
	p.close()
	said, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("it does not listen: %s", said)
}

// freePorts gives loopback addresses that nobody listens on: all at once, so that none comes twice.
func freePorts(n int) (addrs []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// side is the peer in one of its configurations; without the peer it has no address.
func (p *peer) side(name, config string) side {
	s := side{name: name + " " + config, pids: func() []int { return tree(p.cmd.Process.Pid) }}
	if p == nil {
		return s
	}
	s.base = "http://" + p.ports[config]
	if at, ok := p.ports["tls "+config]; ok {
		_, port, _ := net.SplitHostPort(at)
		s.tls = "https://" + tlsHost + ":" + port
	}
	return s
}

func (p *peer) close() error {
	if p == nil || p.cmd == nil || p.cmd.Process == nil {
		return nil
	}
	return end(p.cmd, syscall.SIGTERM)
}

// nginxConfig is tuned as its own documentation advises: one worker, kept connections to the origin, a
// buffered log, open files remembered. Stored answers are sent without sendfile, which measured faster
// for 1 KiB; the static files of 64 KiB with it.
func nginxConfig(dir string, at map[string]string, origin string, files int) string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n"
	}
	return strings.NewReplacer("$DIR", dir, "$FILES", strconv.Itoa(files), "$HALF", strconv.Itoa(files/2-200), "$ORIGIN", origin, "$CACHETLS", at["tls cache"], "$STATICTLS", at["tls static"], "$CACHE", at["cache"], "$PROXY", at["proxy"], "$STATIC", at["static"]).Replace(user + `daemon off;
worker_processes 1;
worker_rlimit_nofile $FILES;
pid $DIR/nginx.pid;
events { worker_connections $FILES; }
http {
	access_log $DIR/nginx.access combined buffer=64k;
	keepalive_requests 100000000;
	keepalive_timeout 600s;
	tcp_nodelay on;
	sendfile off;
	default_type application/octet-stream;
	open_file_cache max=$HALF inactive=1h;
	open_file_cache_valid 1h;
	client_body_temp_path $DIR/nginx.body; proxy_temp_path $DIR/nginx.proxy; fastcgi_temp_path $DIR/nginx.f; uwsgi_temp_path $DIR/nginx.u; scgi_temp_path $DIR/nginx.s;
	proxy_cache_path $DIR/nginx.cache levels=1:2 keys_zone=stored:64m max_size=8g inactive=1d use_temp_path=off;
	proxy_http_version 1.1;
	proxy_set_header Connection "";
	proxy_buffers 16 16k;
	ssl_certificate $DIR/cert.pem;
	ssl_certificate_key $DIR/cert.pem;
	ssl_protocols TLSv1.2 TLSv1.3;
	ssl_session_cache shared:tls:10m;
	http2_max_concurrent_streams 256;
	upstream origin { server $ORIGIN; keepalive 128; keepalive_requests 100000000; }
	server {
		listen $CACHE backlog=4096;
		listen $CACHETLS ssl http2 backlog=4096;
		location / { proxy_pass http://origin; proxy_cache stored; }
	}
	server {
		listen $PROXY backlog=4096;
		location / { proxy_pass http://origin; }
	}
	server {
		listen $STATIC backlog=4096;
		listen $STATICTLS ssl http2 backlog=4096;
		root $DIR/static;
		sendfile on;
	}
}
`)
}

// haproxyConfig runs one thread; it logs to a file, each request as it ends.
func haproxyConfig(dir string, at map[string]string, origin string, four []string, files int) string {
	var servers strings.Builder
	for i, addr := range four {
		fmt.Fprintf(&servers, "\tserver t%d %s\n", i, addr)
	}
	return strings.NewReplacer("$DIR", dir, "$FILES", strconv.Itoa(files), "$HALF", strconv.Itoa(files/2-200), "$ORIGIN", origin, "$CACHETLS", at["tls cache"], "$CACHE", at["cache"], "$PROXY", at["proxy"], "$FOUR", at["four"], "$SERVERS", servers.String()).Replace(`global
	nbthread 1
	maxconn $HALF
	log stdout format raw local0
defaults
	mode http
	log global
	option httplog
	option http-keep-alive
	http-reuse always
	timeout connect 5s
	timeout client 600s
	timeout server 60s
	timeout http-keep-alive 600s
cache stored
	total-max-size 1024
	max-object-size 131072
	max-age 86400
frontend cache
	bind $CACHE
	bind $CACHETLS ssl crt $DIR/cert.pem alpn h2,http/1.1
	http-request cache-use stored
	http-response cache-store stored
	default_backend origin
frontend proxy
	bind $PROXY
	default_backend origin
frontend four
	bind $FOUR
	default_backend four
backend origin
	server o $ORIGIN
backend four
	balance leastconn
$SERVERS`)
}
