package keeper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// The protocol: a request is one JSON object a line on a unix stream socket, so is its answer;
// requests of one connection are answered in order.

// request is one command.
type request struct {
	Op      string `json:"op"`
	ID      string `json:"id,omitempty"`
	Unit    *Unit  `json:"unit,omitempty"`
	Signal  int    `json:"signal,omitempty"`
	Name    string `json:"name,omitempty"`
	Network string `json:"network,omitempty"`
	Addr    string `json:"addr,omitempty"`
}

// answer is what comes back.
type answer struct {
	Error string   `json:"error,omitempty"`
	Units []Status `json:"units,omitempty"`
	Addr  string   `json:"addr,omitempty"`
}

// maxRequest bounds a request, in bytes: an environment of a few hundred kilobytes fits.
const maxRequest = 4 << 20

// serve answers connections until l is closed.
func (k *Keeper) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { // ends with its peer, or when the keeper's process does
			defer c.Close()
			k.converse(c)
		}()
	}
}

func (k *Keeper) converse(c net.Conn) {
	in := bufio.NewReader(c)
	out := json.NewEncoder(c)
	for {
		line, err := readLine(in)
		if err != nil {
			return
		}
		var r request
		var a answer
		if err := json.Unmarshal(line, &r); err != nil {
			a.Error = "read request: " + err.Error()
		} else if a, err = k.answer(c, r); err != nil {
			a.Error = err.Error()
		}
		if out.Encode(a) != nil {
			return
		}
	}
}

func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxRequest {
			return nil, errors.New("request is too long")
		}
		if err == nil {
			return line, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

func (k *Keeper) answer(c net.Conn, r request) (answer, error) {
	switch r.Op {
	case "list":
		return answer{Units: k.list(r.ID)}, nil
	case "start":
		if r.Unit == nil {
			return answer{}, errors.New("start unit: no unit")
		}
		s, err := k.start(*r.Unit)
		return answer{Units: []Status{s}}, err
	case "stop", "remove":
		h, ok := k.get(r.ID)
		if !ok {
			return answer{}, nil
		}
		h.once.Do(func() { close(h.stop) })
		<-h.exited
		if r.Op == "remove" {
			k.mu.Lock()
			if k.units[r.ID] == h {
				delete(k.units, r.ID)
			}
			k.mu.Unlock()
		}
		return answer{}, nil
	case "wait":
		h, ok := k.get(r.ID)
		if !ok {
			return answer{}, fmt.Errorf("wait for unit: no unit %s", r.ID)
		}
		select {
		case <-h.exited:
		case <-hangup(c):
			return answer{}, io.EOF
		}
		return answer{Units: k.list(r.ID)[:1]}, nil
	case "signal":
		h, ok := k.get(r.ID)
		if !ok {
			return answer{}, fmt.Errorf("signal unit: no unit %s", r.ID)
		}
		k.mu.Lock()
		pid := h.status.PID
		k.mu.Unlock()
		if pid > 0 {
			return answer{}, syscall.Kill(pid, syscall.Signal(r.Signal))
		}
		return answer{}, nil
	case "listen":
		addr, err := k.listen(r.Name, r.Network, r.Addr)
		return answer{Addr: addr}, err
	case "unlisten":
		k.unlisten(r.Name)
		return answer{}, nil
	case "shutdown":
		k.shutOnce.Do(func() { close(k.shut) })
		return answer{}, nil
	}
	return answer{}, fmt.Errorf("no such command: %q", r.Op)
}

// hangup is closed when the peer goes away. The client sends nothing while it waits, so a read that
// ends means that.
func hangup(c net.Conn) <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var b [1]byte
		c.Read(b[:])
	}()
	return gone
}

// Client commands a keeper. Every call has a connection of its own: commands are few, and a call
// that waits holds up no other.
type Client struct{ socket string }

var _ Units = (*Client)(nil)

// Dial checks that a keeper answers at socket.
func Dial(ctx context.Context, socket string) (*Client, error) {
	c := &Client{socket}
	_, err := c.List(ctx, "house/")
	return c, err
}

func (c *Client) call(ctx context.Context, r request) (answer, error) {
	var a answer
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return a, fmt.Errorf("reach keeper: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return a, fmt.Errorf("ask keeper to %s: %w", r.Op, orCause(ctx, err))
	}
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return a, fmt.Errorf("ask keeper to %s: %w", r.Op, orCause(ctx, err))
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (c *Client) one(ctx context.Context, r request) (Status, error) {
	a, err := c.call(ctx, r)
	if err != nil || len(a.Units) == 0 {
		return Status{}, err
	}
	return a.Units[0], nil
}

// List implements Units.
func (c *Client) List(ctx context.Context, prefix string) ([]Status, error) {
	a, err := c.call(ctx, request{Op: "list", ID: prefix})
	return a.Units, err
}

// Start implements Units.
func (c *Client) Start(ctx context.Context, u Unit) (Status, error) {
	return c.one(ctx, request{Op: "start", Unit: &u})
}

// Stop implements Units.
func (c *Client) Stop(ctx context.Context, id string) error {
	_, err := c.call(ctx, request{Op: "stop", ID: id})
	return err
}

// Signal implements Units.
func (c *Client) Signal(ctx context.Context, id string, sig int) error {
	_, err := c.call(ctx, request{Op: "signal", ID: id, Signal: sig})
	return err
}

// Remove implements Units.
func (c *Client) Remove(ctx context.Context, id string) error {
	_, err := c.call(ctx, request{Op: "remove", ID: id})
	return err
}

// Wait implements Units.
func (c *Client) Wait(ctx context.Context, id string) (Status, error) {
	return c.one(ctx, request{Op: "wait", ID: id})
}

// Listen makes the keeper hold a listening socket under a name and returns its address. The same
// name and address again is the same socket: it stays open while units that serve it are replaced.
func (c *Client) Listen(ctx context.Context, name, network, addr string) (string, error) {
	a, err := c.call(ctx, request{Op: "listen", Name: name, Network: network, Addr: addr})
	return a.Addr, err
}

// Unlisten closes a held socket; units that have it keep their own copy.
func (c *Client) Unlisten(ctx context.Context, name string) error {
	_, err := c.call(ctx, request{Op: "unlisten", Name: name})
	return err
}

// Shutdown makes the keeper end every unit in reverse order of its start, and itself. It returns at once.
func (c *Client) Shutdown(ctx context.Context) error {
	_, err := c.call(ctx, request{Op: "shutdown"})
	return err
}
