package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"tenfold/internal/isolate"
)

// Units is the part of a Client that tiers use to run processes; a fake may stand in for it.
type Units interface {
	// List returns every unit whose ID starts with prefix, in order of ID.
	List(ctx context.Context, prefix string) ([]Status, error)
	// Start starts u, or returns the status of the unit that has its ID already, whatever its phase.
	Start(ctx context.Context, u Unit) (Status, error)
	// Stop ends the unit's whole tree and returns when no descendant lives (Exited). Unknown: nil.
	Stop(ctx context.Context, id string) error
	// Signal sends sig to the unit's first process.
	Signal(ctx context.Context, id string, sig int) error
	// Remove stops the unit if it runs and forgets it with its exit status. Unknown: nil.
	Remove(ctx context.Context, id string) error
	// Wait returns when the unit is Exited.
	Wait(ctx context.Context, id string) (Status, error)
}

// How a call that a re-exec cut off is repeated.
const (
	maxTries  = 10
	retryPace = 20 * time.Millisecond
)

// Client commands a keeper. Every call has a connection of its own: commands are few, and a call
// that waits holds up no other. A keeper that re-executes itself keeps its socket but not its
// connections, so what was cut off is asked again; all but Signal may be done twice.
type Client struct{ socket string }

var _ Units = (*Client)(nil)

// Dial checks that a keeper answers at socket.
func Dial(ctx context.Context, socket string) (*Client, error) {
	c := &Client{socket: socket}
	_, err := c.List(ctx, "house/")
	return c, err
}

// errCut says that the connection ended before the answer.
var errCut = errors.New("the keeper went away")

func (c *Client) call(ctx context.Context, r request) (answer, error) {
	for try := 1; ; try++ {
		a, err := c.ask(ctx, r)
		again := errors.Is(err, errCut) && r.Op != "signal" && r.Op != "shutdown" && r.Op != "reexec"
		if !again || try == maxTries || ctx.Err() != nil {
			return a, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryPace):
		}
	}
}

// open sends a request.
func (c *Client) open(ctx context.Context, r request) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, fmt.Errorf("reach keeper: %w", err)
	}
	if d, ok := ctx.Deadline(); ok {
		conn.SetWriteDeadline(d)
	}
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask keeper to %s: %w", r.Op, orCause(ctx, errors.Join(errCut, err)))
	}
	return conn, nil
}

func (c *Client) ask(ctx context.Context, r request) (answer, error) {
	var a answer
	conn, err := c.open(ctx, r)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return a, fmt.Errorf("ask keeper to %s: %w", r.Op, orCause(ctx, errors.Join(errCut, err)))
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
// With a network of udp it is a socket for datagrams.
func (c *Client) Listen(ctx context.Context, name, network, addr string) (string, error) {
	a, err := c.call(ctx, request{Op: "listen", Name: name, Network: network, Addr: addr})
	return a.Addr, err
}

// Unlisten closes a held socket; units that have it keep their own copy.
func (c *Client) Unlisten(ctx context.Context, name string) error {
	_, err := c.call(ctx, request{Op: "unlisten", Name: name})
	return err
}

// Ladder says which rungs the keeper has to shut units in.
func (c *Client) Ladder(ctx context.Context) ([]isolate.Rung, error) {
	a, err := c.call(ctx, request{Op: "ladder"})
	return a.Rungs, err
}

// Shutdown makes the keeper end every unit in reverse order of its start, and itself. It returns at once.
func (c *Client) Shutdown(ctx context.Context) error {
	_, err := c.call(ctx, request{Op: "shutdown"})
	return err
}

// Subscribe sends every unit as it is, then each change, until ctx is done or the keeper has gone
// for good; then the channel is closed. Changes that come faster than they are taken are joined:
// the last state of each unit always arrives.
func (c *Client) Subscribe(ctx context.Context) (<-chan Event, error) {
	conn, err := c.open(ctx, request{Op: "subscribe"})
	if err != nil {
		return nil, err
	}
	events := make(chan Event)
	go func() {
		defer close(events)
		for {
			c.events(ctx, conn, events)
			if ctx.Err() != nil {
				return
			}
			if conn, err = c.open(ctx, request{Op: "subscribe"}); err != nil {
				return
			}
		}
	}()
	return events, nil
}

// events passes on what one connection tells.
func (c *Client) events(ctx context.Context, conn net.Conn, to chan<- Event) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for in := json.NewDecoder(conn); ; {
		var a answer
		if in.Decode(&a) != nil || a.Event == nil {
			return
		}
		select {
		case to <- *a.Event:
		case <-ctx.Done():
			return
		}
	}
}

// Reexec makes the keeper become another binary without letting go of anything: units, listeners,
// exit statuses and output stay. It returns when the new one answers, or an error when the old one
// refused: binary, an absolute path, has to say its version first (Config.Check).
func (c *Client) Reexec(ctx context.Context, binary string) error {
	before, err := c.call(ctx, request{Op: "generation"})
	if err != nil {
		return err
	}
	if _, err := c.call(ctx, request{Op: "reexec", Addr: binary}); err != nil && !errors.Is(err, errCut) {
		return err
	}
	now, err := c.call(ctx, request{Op: "generation"})
	if err != nil {
		return err
	}
	if now.Generation <= before.Generation {
		return errors.New("upgrade keeper: it was started afresh")
	}
	return nil
}

// Close lets go of the client. Calls that wait end with their contexts.
func (c *Client) Close() {}
