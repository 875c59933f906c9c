package daemon

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/store"
)

// hub stores events and wakes those who follow them. Followers read from the store, so that a slow
// one costs nothing and none is missed.
type hub struct {
	store *store.Store
	log   *slog.Logger
	wake  func() // of the loop: an event often means that the world changed

	mu   sync.Mutex
	news chan struct{} // closed and replaced at each event
}

func newHub(s *store.Store, log *slog.Logger, wake func()) *hub {
	return &hub{store: s, log: log, wake: wake, news: make(chan struct{})}
}

// emit implements tenfold.Emit.
func (h *hub) emit(e tenfold.Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	doc, err := json.Marshal(e)
	if err == nil {
		// Not the caller's context: what happened is recorded even while everything stops.
		_, err = h.store.AddEvent(context.Background(), store.Event{At: e.At, App: string(e.ID.App), Env: string(e.ID.Env), Document: doc})
	}
	if err != nil {
		h.log.Error("record event", "event", e.Text, "err", err)
	}
	h.mu.Lock()
	close(h.news)
	h.news = make(chan struct{})
	h.mu.Unlock()
	h.wake()
}

// next is closed at the next event.
func (h *hub) next() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.news
}

// follow yields events after q.After, and with follow those that come.
func (h *hub) follow(ctx context.Context, app, env string, after int64, tail int, follow bool, yield func(tenfold.Event) error) error {
	for {
		news := h.next()
		stored, err := h.store.Events(ctx, app, env, after, tail)
		if err != nil {
			return err
		}
		tail = 0
		for _, s := range stored {
			after = s.Seq
			var e tenfold.Event
			if err := json.Unmarshal(s.Document, &e); err != nil {
				continue // of a newer format; the sequence number is skipped
			}
			e.Seq = s.Seq
			if err := yield(e); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		}
	}
}
