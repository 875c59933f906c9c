package gitserver

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"tenfold/internal/atomicfile"
)

const (
	mostConns = 64               // SSH connections at once
	handshake = 15 * time.Second // until a key is accepted
	idle      = time.Minute      // between the handshake and a command
	mostLogin = 6                // keys that a client may try
)

// HostKey is the server's own key (ed25519), made at the first call and kept in Dir with mode 0600.
func (s *Server) HostKey() (ssh.Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file := filepath.Join(s.cfg.Dir, "host_ed25519")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make host key: %w", err)
		}
		block, err := ssh.MarshalPrivateKey(key, "tenfold")
		if err != nil {
			return nil, fmt.Errorf("make host key: %w", err)
		}
		text = pem.EncodeToMemory(block)
		if err := atomicfile.Write(file, text, 0o600); err != nil {
			return nil, fmt.Errorf("make host key: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("read host key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("read host key %s: %w", file, err)
	}
	return signer, nil
}

// ServeSSH answers SSH clients on ln until ctx ends or ln fails, and returns when every connection and
// every command is gone; ln is closed then. Only public keys of Keys are let in, only git's commands
// are run, nothing is forwarded. nil when ctx ended.
func (s *Server) ServeSSH(ctx context.Context, ln net.Listener) error {
	defer ln.Close()
	host, err := s.HostKey()
	if err != nil {
		return fmt.Errorf("serve ssh: %w", err)
	}
	cfg := &ssh.ServerConfig{MaxAuthTries: mostLogin, ServerVersion: "SSH-2.0-tenfold", PublicKeyCallback: s.login}
	cfg.AddHostKey(host)
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	places := make(chan struct{}, mostConns)
	for {
		c, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) {
				// It passes. The client waits in the kernel's queue.
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
				continue
			}
			return fmt.Errorf("serve ssh: %w", err)
		}
		select {
		case places <- struct{}{}:
		default:
			c.Close() // too many: the client may come again
			continue
		}
		conns.Go(func() {
			defer func() { <-places }()
			s.serveConn(ctx, c, cfg)
		})
	}
}

func (s *Server) login(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	fp := ssh.FingerprintSHA256(key)
	if _, ok := s.keys.who(fp); !ok {
		return nil, fmt.Errorf("key %s is not known", fp)
	}
	return &ssh.Permissions{Extensions: map[string]string{"key": fp}}, nil
}

// serveConn answers one connection, until it is closed by either side or ctx ends.
func (s *Server) serveConn(ctx context.Context, c net.Conn, cfg *ssh.ServerConfig) {
	defer c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	_ = c.SetDeadline(time.Now().Add(handshake))
	conn, channels, requests, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		return
	}
	_ = c.SetDeadline(time.Now().Add(s.cfg.MostTime + idle))
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	parts.Go(func() { ssh.DiscardRequests(requests) })
	waiting := time.AfterFunc(idle, func() { c.Close() })
	defer waiting.Stop()
	sessions := 0
	for ch := range channels {
		if sessions++; ch.ChannelType() != "session" || sessions > 8 {
			_ = ch.Reject(ssh.Prohibited, "git's commands only")
			continue
		}
		channel, reqs, err := ch.Accept()
		if err != nil {
			return
		}
		parts.Go(func() { s.session(ctx, conn.Permissions.Extensions["key"], channel, reqs, func() { waiting.Stop() }) })
	}
	// The client is gone: so is everything that it asked for.
}

// session answers the requests of one channel; the first exec is run.
func (s *Server) session(ctx context.Context, key string, ch ssh.Channel, reqs <-chan *ssh.Request, begun func()) {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	protocol, started := "", false
	for r := range reqs {
		ok := false
		switch r.Type {
		case "env":
			var kv struct{ Name, Value string }
			if ssh.Unmarshal(r.Payload, &kv) == nil && kv.Name == "GIT_PROTOCOL" && !started {
				protocol, ok = kv.Value, true
			}
		case "exec":
			var cmd struct{ Line string }
			if ssh.Unmarshal(r.Payload, &cmd) != nil || started {
				break
			}
			ok, started = true, true
			begun()
			_ = r.Reply(true, nil)
			r.WantReply = false
			running.Go(func() { s.exec(ctx, key, cmd.Line, protocol, ch) })
		case "shell":
			who, _ := s.keys.who(key)
			ok = true
			_ = r.Reply(true, nil)
			r.WantReply = false
			fmt.Fprintf(ch, "Hello %s. There is no shell here: git push ssh://<host>/<app>.git main\r\n", who)
			exit(ch, 1)
		}
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
	}
}

// exit tells the client how a command ended (RFC 4254, 6.10) and closes the channel.
func exit(ch ssh.Channel, status uint32) {
	_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
	_ = ch.Close()
}

// exec runs one of git's commands.
func (s *Server) exec(ctx context.Context, key, line, protocol string, ch ssh.Channel) {
	refuse := func(why string) {
		fmt.Fprintf(ch.Stderr(), "tenfold: %s\n", why)
		exit(ch, 1)
	}
	service, name, ok := parseCommand(line)
	if !ok {
		refuse("only git push, fetch and clone of <app>.git are answered here")
		return
	}
	who, ok := s.keys.who(key) // it may have been removed since
	if !ok {
		refuse("the key is not known any more")
		return
	}
	repo, err := s.repo(ctx, name, who)
	if err != nil {
		refuse(name + ": " + err.Error())
		return
	}
	s.command(ctx, name, repo, who, service, protocol, nil, streams{in: io.Reader(ch), out: ch, err: ch.Stderr(), end: func(err error) {
		var status uint32
		var ended *exec.ExitError
		if errors.As(err, &ended) && ended.ExitCode() > 0 {
			status = uint32(ended.ExitCode())
		} else if err != nil {
			status = 1
		}
		exit(ch, status)
	}})
}

// parseCommand reads git-receive-pack '/app.git' in the ways in which clients write it.
func parseCommand(line string) (service, app string, ok bool) {
	service, arg, ok := strings.Cut(strings.TrimSpace(line), " ")
	if ok && service == "git" {
		service, arg, ok = strings.Cut(arg, " ")
		service = "git-" + service
	}
	service = strings.TrimPrefix(service, "git-")
	if !ok || service != "receive-pack" && service != "upload-pack" {
		return "", "", false
	}
	if arg = strings.TrimSpace(arg); len(arg) >= 2 && (arg[0] == '\'' || arg[0] == '"') && arg[len(arg)-1] == arg[0] {
		arg = arg[1 : len(arg)-1]
	}
	app = strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(arg, "/"), "/"), ".git")
	return service, app, appForm.MatchString(app)
}
