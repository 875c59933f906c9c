package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/atomicfile"
)

// posted is an event on its way to one target, as it lies on the disk.
type posted struct {
	Account string     `json:"account"`
	To      tenfold.ID `json:"to"`
	Event   Event      `json:"event"`
	Since   time.Time  `json:"since"`
}

// outbox has events until their targets took them: a file each, so that one that cannot be delivered is in
// nobody's way. In memory are their names and when each is due.
type outbox struct {
	dir     string
	deliver func(ctx context.Context, account string, to tenfold.ID, e Event) error
	log     *slog.Logger
	news    chan struct{} // holds one

	mu  sync.Mutex
	due []waiting // under mu
}

type waiting struct {
	name  string
	at    time.Time
	tries int
}

const (
	// deliveries is how many are under way at once, and deliverFor how long one may take.
	deliveries, deliverFor = 16, 30 * time.Second
	// A target that takes nothing is asked again after pauseFirst, then after twice as long, up to pauseMost;
	// after giveUp the event is lost, and the log has it.
	pauseFirst, pauseMost, giveUp = time.Second, 5 * time.Minute, 24 * time.Hour
)

func openOutbox(dir string, deliver func(context.Context, string, tenfold.ID, Event) error, log *slog.Logger) (*outbox, error) {
	o := &outbox{dir: dir, deliver: deliver, log: log, news: make(chan struct{}, 1)}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir) // by name: by time
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") {
			o.due = append(o.due, waiting{name: e.Name()})
		}
	}
	return o, nil
}

// put has an event on the disk when it returns.
func (o *outbox) put(p posted) error {
	name := fmt.Sprintf("%020d-%s.json", p.Since.UnixNano(), p.Event.Once)
	if err := atomicfile.WriteJSON(filepath.Join(o.dir, name), p, 0o600); err != nil {
		o.log.Error("keep an event of a bucket", "bucket", p.Event.Bucket, "err", err)
		return err
	}
	o.add(waiting{name: name})
	return nil
}

func (o *outbox) add(w waiting) {
	o.mu.Lock()
	o.due = append(o.due, w)
	o.mu.Unlock()
	select {
	case o.news <- struct{}{}:
	default:
	}
}

// waiting counts the events that no target has yet.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.due)
}

// next takes what is due, or says how long nothing is.
func (o *outbox) next(now time.Time) (w waiting, ok bool, pause time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	pause = time.Hour
	for i, w := range o.due {
		if d := w.at.Sub(now); d > 0 {
			pause = min(pause, d)
			continue
		}
		o.due = slices.Delete(o.due, i, i+1)
		return w, true, 0
	}
	return w, false, pause
}

// run delivers until ctx ends, and waits for what is under way.
func (o *outbox) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, deliveries)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		w, ok, pause := o.next(time.Now())
		if ok {
			wg.Go(func() {
				defer func() { <-slots }()
				o.try(ctx, w)
			})
			continue
		}
		<-slots
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-o.news:
		case <-t.C:
		}
		t.Stop()
	}
}

// try delivers one event, once.
func (o *outbox) try(ctx context.Context, w waiting) {
	path := filepath.Join(o.dir, w.name)
	var p posted
	if err := atomicfile.ReadJSON(path, &p); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			o.log.Error("read an event of a bucket; it is put aside", "file", path, "err", err)
			os.Rename(path, path+".broken")
		}
		return
	}
	limit, cancel := context.WithTimeout(ctx, deliverFor)
	defer cancel()
	err := o.deliver(limit, p.Account, p.To, p.Event)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return // the next process has it
	case time.Since(p.Since) > giveUp:
		o.log.Error("an event of a bucket is lost: its target took it in no try of a day", "bucket", p.Event.Bucket, "key", p.Event.Key, "event", p.Event.What, "to", p.To.Short(), "err", err)
	default:
		if w.tries == 0 {
			o.log.Warn("deliver an event of a bucket; it is tried again", "bucket", p.Event.Bucket, "to", p.To.Short(), "err", err)
		}
		w.tries++
		w.at = time.Now().Add(min(pauseMost, cmp.Or(pauseFirst<<min(w.tries-1, 10), pauseMost)))
		o.add(w)
		return
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.log.Error("forget an event that was delivered; it comes again", "file", path, "err", err)
	}
}
