package keeper

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"tenfold/internal/isolate"
)

// The protocol: a request is one JSON object a line on a unix stream socket, so is its answer;
// requests of one connection are answered in order.

// request is one command.
type request struct {
	Op      string  `json:"op"`
	ID      string  `json:"id,omitempty"`
	Unit    *Unit   `json:"unit,omitempty"`
	Signal  int     `json:"signal,omitempty"`
	Name    string  `json:"name,omitempty"`
	Limits  *Limits `json:"limits,omitempty"`
	Network string  `json:"network,omitempty"`
	Addr    string  `json:"addr,omitempty"` // of listen; of reexec the binary
}

// answer is what comes back.
type answer struct {
	Error string   `json:"error,omitempty"`
	Units []Status `json:"units,omitempty"`
	Addr  string   `json:"addr,omitempty"` // of listen; of freeze the folder of the unit's cgroup
	// Rungs answer ladder.
	Rungs []isolate.Rung `json:"rungs,omitempty"`
	// Generation counts the keeper's re-execs.
	Generation int `json:"generation,omitempty"`
	// Event is one of many answers to subscribe.
	Event *Event `json:"event,omitempty"`
}

// maxRequest bounds a request, in bytes: an environment of a few hundred kilobytes fits.
const maxRequest = 4 << 20

var errTooLong = fmt.Errorf("request is longer than %d MiB", maxRequest>>20)

// serve answers connections until l is closed.
func (k *Keeper) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { // ends with its peer, or with the keeper's process
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
			if errors.Is(err, errTooLong) {
				out.Encode(answer{Error: err.Error()})
			}
			return
		}
		var r request
		var a answer
		if err := json.Unmarshal(line, &r); err != nil {
			a.Error = "read request: " + err.Error()
		} else if r.Op == "subscribe" {
			k.tell(c, out)
			return
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
			return nil, errTooLong
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
		k.update(h, func(s *Status) { // at once, for whoever asks whether it will go on
			if s.Phase == Running || s.Phase == Waiting {
				s.Phase = Stopping
			}
		})
		<-h.exited
		if r.Op == "remove" {
			k.mu.Lock()
			if k.units[r.ID] == h {
				delete(k.units, r.ID)
				k.changed(r.ID)
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
		k.mu.Lock()
		defer k.mu.Unlock()
		return answer{Units: []Status{h.status}}, nil // its last: it may be removed by now
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
	case "limit":
		if r.Limits == nil {
			return answer{}, errors.New("limit unit: no limits")
		}
		s, err := k.limit(r.ID, *r.Limits)
		return answer{Units: []Status{s}}, err
	case "freeze":
		dir, err := k.freeze(r.ID)
		return answer{Addr: dir}, err
	case "listen":
		addr, err := k.listen(r.Name, r.Network, r.Addr)
		return answer{Addr: addr}, err
	case "unlisten":
		k.unlisten(r.Name)
		return answer{}, nil
	case "ladder":
		return answer{Rungs: Ladder()}, nil
	case "generation":
		k.mu.Lock()
		defer k.mu.Unlock()
		return answer{Generation: k.generation}, nil
	case "reexec":
		if err := k.check(r.Addr); err != nil {
			return answer{}, err
		}
		return answer{}, k.do(func() error { return k.become(r.Addr) })
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

// watcher is one subscriber: the ids of units that changed since it was last told. Changes of one
// unit that come faster than the peer reads are one.
type watcher struct {
	changed map[string]bool // under Keeper.mu
	wake    chan struct{}
}

// changed notes a change for every subscriber. The caller holds k.mu.
func (k *Keeper) changed(id string) {
	for w := range k.watchers {
		w.changed[id] = true
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// tell sends the state of every unit, then each change, until the peer goes away.
func (k *Keeper) tell(c net.Conn, out *json.Encoder) {
	gone := hangup(c)
	w := &watcher{changed: map[string]bool{}, wake: make(chan struct{}, 1)}
	w.wake <- struct{}{}
	k.mu.Lock()
	k.watchers[w] = true
	for id := range k.units {
		w.changed[id] = true
	}
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.watchers, w)
	}()
	for {
		select {
		case <-gone:
			return
		case <-w.wake:
		}
		var events []Event
		k.mu.Lock()
		for id := range w.changed {
			if h, ok := k.units[id]; ok {
				events = append(events, Event{Status: h.status})
			} else {
				events = append(events, Event{Status: Status{Unit: Unit{ID: id}}, Removed: true})
			}
		}
		clear(w.changed)
		k.mu.Unlock()
		slices.SortFunc(events, func(a, b Event) int { return strings.Compare(a.Status.Unit.ID, b.Status.Unit.ID) })
		for _, e := range events {
			if out.Encode(answer{Event: &e}) != nil {
				return
			}
		}
	}
}
