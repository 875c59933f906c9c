package ledger

import (
	"sync"
	"time"
)

// FirstPause is how long what went wrong once waits for its next try, LastPause the most that it ever waits.
const (
	FirstPause = 100 * time.Millisecond
	LastPause  = 10 * time.Second
)

// Patience is what a tier remembers of that which it tries again and again, each by a name of its own: how long it
// waits, and what was said of it. The zero value is ready. It is safe for concurrent use, and holds no lock while it
// calls anybody.
type Patience struct {
	mu    sync.Mutex
	pause map[string]time.Duration // under mu
	said  map[string]string        // under mu
}

// Pause is how long to wait before the next try: twice as long as before, from FirstPause to LastPause.
func (p *Patience) Pause(name string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pause == nil {
		p.pause = map[string]time.Duration{}
	}
	p.pause[name] = min(max(2*p.pause[name], FirstPause), LastPause)
	return p.pause[name]
}

// Done has the next trouble wait FirstPause again.
func (p *Patience) Done(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pause, name)
}

// News notes what is to be said, "" for nothing, and says whether it is another thing than the last time.
func (p *Patience) News(name, text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.said[name] == text {
		return false
	}
	if p.said == nil {
		p.said = map[string]string{}
	}
	p.said[name] = text
	return true
}

// Forget is for what begins anew: nothing was tried or said.
func (p *Patience) Forget(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pause, name)
	delete(p.said, name)
}
