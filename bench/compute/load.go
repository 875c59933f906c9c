package main

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// load is traffic to an app, counted by the version that answered; "" is who gave no answer of a version.
type load struct {
	stop chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	seen  map[string]*answers
	first string // that went wrong
}

// answers are those of a version.
type answers struct {
	all, bad    int
	first, last time.Time
}

// load sends requests from some clients, each one after the other with a pause between.
func (h *house) load(app string, clients int, pause time.Duration) *load {
	return h.traffic(app, http.MethodGet, clients, pause, false)
}

// traffic is load by a method, and with fresh by a connection for each request.
func (h *house) traffic(app, method string, clients int, pause time.Duration, fresh bool) *load {
	l := &load{stop: make(chan struct{}), seen: map[string]*answers{}}
	for range clients {
		l.done.Go(func() {
			client := &http.Client{Timeout: askFor, Transport: &http.Transport{DisableKeepAlives: fresh}}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-l.stop:
					return
				case <-time.After(pause):
				}
				req, err := http.NewRequest(method, "http://"+h.addr+"/", nil)
				if err != nil {
					return
				}
				req.Host = app + ".localhost"
				res, err := client.Do(req)
				if err != nil {
					l.note("", true)
					l.say(err.Error())
					continue
				}
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				bad := err != nil || res.StatusCode != http.StatusOK
				if l.note(res.Header.Get("Version"), bad); bad {
					l.say(fmt.Sprintf("%s %s: %s, %v", method, app, res.Status, err))
				}
			}
		})
	}
	return l
}

func (l *load) note(version string, bad bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.seen[version]
	if a == nil {
		a = &answers{first: time.Now()}
		l.seen[version] = a
	}
	a.all++
	a.last = time.Now()
	if bad {
		a.bad++
	}
}

// say keeps what went wrong first, for people.
func (l *load) say(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == "" {
		l.first = what
	}
}

// good counts all answers that were.
func (l *load) good() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.seen {
		n += a.all - a.bad
	}
	return n
}

func (l *load) of(version string) answers {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.seen[version]; a != nil {
		return *a
	}
	return answers{}
}

// bad counts all answers that were.
func (l *load) bad() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.seen {
		n += a.bad
	}
	return n
}

func (l *load) end() {
	close(l.stop)
	l.done.Wait()
}
