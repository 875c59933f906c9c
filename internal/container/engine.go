package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"tenfold/internal/unixhttp"
)

// Engine speaks to a container engine. The zero value with a Socket is ready to use.
type Engine struct {
	// Socket is the path of its unix socket.
	Socket string

	once   sync.Once
	client *http.Client
}

// Info says which engine it is.
type Info struct {
	Name    string // "Docker", "Podman"
	Version string
	// Init says that it brings a first process that reaps orphans and passes signals on.
	Init bool
}

// String is the engine for people.
func (i Info) String() string { return i.Name + " " + i.Version }

// sockets are where engines listen, the first that answers is used.
func sockets() []string {
	if h := os.Getenv("DOCKER_HOST"); h != "" {
		return []string{strings.TrimPrefix(h, "unix://")}
	}
	out := []string{"/var/run/docker.sock", "/run/podman/podman.sock"}
	if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
		out = append(out, filepath.Join(run, "podman", "podman.sock"), filepath.Join(run, "docker.sock"))
	}
	return out
}

// MissingError says that no engine can be used, and what gives the machine one.
type MissingError struct {
	Reason string
	Hint   string
}

func (e *MissingError) Error() string { return e.Reason }

// Find looks for an engine: at DOCKER_HOST if that is set, else where Docker and Podman listen. Without
// one the error is a *MissingError.
func Find(ctx context.Context) (*Engine, error) {
	if h := os.Getenv("DOCKER_HOST"); h != "" && !strings.HasPrefix(h, "unix://") && !strings.HasPrefix(h, "/") {
		return nil, &MissingError{fmt.Sprintf("DOCKER_HOST is %s, and containers of tasks have to be on this machine", h), "unset DOCKER_HOST, or name a socket: unix:///var/run/docker.sock"}
	}
	var refused error
	for _, s := range sockets() {
		e := &Engine{Socket: s}
		err := e.ping(ctx)
		switch {
		case err == nil:
			return e, nil
		case errors.Is(err, fs.ErrNotExist):
		case refused == nil:
			refused = fmt.Errorf("%s: %w", s, err)
		}
	}
	switch {
	case errors.Is(refused, fs.ErrPermission):
		return nil, &MissingError{fmt.Sprintf("the container engine may not be used: %v", refused), "let this user: usermod -aG docker " + userName() + ", then start the house again"}
	case refused != nil:
		return nil, &MissingError{fmt.Sprintf("the container engine does not answer: %v", refused), "start it: systemctl start docker (or podman.socket); tenfold doctor says whether it answers"}
	}
	return nil, &MissingError{"there is no container engine on this machine", "apt-get install docker.io (or podman, then systemctl enable --now podman.socket)"}
}

func userName() string {
	if u := os.Getenv("USER"); u != "" {
		return u
	}
	return "tenfold"
}

// pingFor bounds how long an engine may take to say that it is there, and infoFor, which: one that is busy
// with other containers answers that late.
const (
	pingFor = 5 * time.Second
	infoFor = 30 * time.Second
)

func (e *Engine) ping(ctx context.Context) error {
	if _, err := os.Stat(e.Socket); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pingFor)
	defer cancel()
	return e.call(ctx, http.MethodGet, "/_ping", nil, nil)
}

// libpod is the field in which Podman says its version with every answer.
const libpod = "Libpod-Api-Version"

// Info asks which engine it is. Podman is not asked for more than it says by itself: to answer /version it has the
// machine's package manager search for its parts, which takes seconds, and a container is started in less.
func (e *Engine) Info(ctx context.Context) (Info, error) {
	var v struct {
		Version    string
		Components []struct{ Name, Version string }
	}
	ctx, cancel := context.WithTimeout(ctx, infoFor)
	defer cancel()
	res, err := e.send(ctx, http.MethodGet, "/_ping", nil, nil)
	if err != nil {
		return Info{}, err
	}
	res.Body.Close()
	if version := res.Header.Get(libpod); version != "" {
		return Info{Name: "Podman", Version: version}, nil
	}
	if err := e.call(ctx, http.MethodGet, "/version", nil, &v); err != nil {
		return Info{}, err
	}
	i := Info{Name: "Docker", Version: v.Version}
	for _, c := range v.Components {
		if c.Name == "docker-init" && c.Version != "" && c.Version != "N/A" {
			i.Init = true
		}
	}
	return i, nil
}

// refusal is what an engine answered instead.
type refusal struct {
	status int
	said   string
}

func (r *refusal) Error() string { return r.said }

// refused says that the engine answered with one of these statuses.
func refused(err error, statuses ...int) bool {
	var r *refusal
	if !errors.As(err, &r) {
		return false
	}
	for _, s := range statuses {
		if r.status == s {
			return true
		}
	}
	return false
}

// send puts a question and gives the answer, whose body is to be closed. A refusal is an error.
func (e *Engine) send(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	e.once.Do(func() {
		t := unixhttp.Transport(e.Socket)
		t.DisableKeepAlives = true
		e.client = &http.Client{Transport: t}
	})
	req, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, body)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := e.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the container engine: %w", plain(err))
	}
	if res.StatusCode < 400 {
		return res, nil
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	var said struct{ Message, Cause string }
	if json.Unmarshal(b, &said) != nil || said.Message == "" {
		said.Message = strings.TrimSpace(string(b))
	}
	if said.Message == "" {
		said.Message = "the container engine answered " + res.Status
	}
	return nil, &refusal{res.StatusCode, said.Message}
}

// plain takes the address out of an error, which is not one that anybody could look at.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		var no syscall.Errno
		if errors.As(op.Err, &no) {
			return no
		}
	}
	return err
}

// maxAnswer bounds an answer that is read whole.
const maxAnswer = 32 << 20

// call puts a question with a body in JSON, if any, and reads the answer, if one is wanted.
func (e *Engine) call(ctx context.Context, method, path string, question, answer any) error {
	var body io.Reader
	header := http.Header{}
	if question != nil {
		b, err := json.Marshal(question)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
		header.Set("Content-Type", "application/json")
	}
	res, err := e.send(ctx, method, path, body, header)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if answer == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
		return err
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(answer); err != nil {
		return fmt.Errorf("read what the container engine says: %w", err)
	}
	return nil
}

// filters is the query that lists what has all of these labels.
func filters(labels ...string) string {
	b, _ := json.Marshal(map[string][]string{"label": labels})
	return url.QueryEscape(string(b))
}
