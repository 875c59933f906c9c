package edge

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"tenfold/internal/directory"
	"tenfold/internal/tasklog"
)

// Bounds of a site's access log.
const (
	logBytes  = 64 << 20 // of one file
	logFiles  = 15       // rotated ones
	logKeep   = 14 * 24 * time.Hour
	logFlush  = time.Second
	logPruned = time.Hour
)

// LogPath is where the access log of an environment lies, below the tier's folder: one line a
// request, in the format of internal/tasklog with a JSON object as text.
func LogPath(dir, app, env string) string {
	return filepath.Join(dir, "log", app+"~"+env+".log")
}

// accessLog is a site's. Of persons it says nothing unless asked: no address, no query.
type accessLog struct {
	sample   float64
	personal bool
	keep     time.Duration
	w        *tasklog.Writer // nil: off
	path     string
	pool     sync.Pool
}

// access is what there is to say of a request.
type access struct {
	at                                  time.Time // when it was answered
	method, host, target, route, remote string
	status                              int
	bytes                               int64
	took                                time.Duration
	protocol                            int
	secure, hit                         bool
}

func (l *accessLog) add(a *access) {
	if l == nil || l.w == nil || l.sample < 1 && rand.Float64() >= l.sample {
		return
	}
	b, _ := l.pool.Get().(*[]byte)
	if b == nil {
		b = new(make([]byte, 0, 512))
	}
	o := append((*b)[:0], `{"method":`...)
	o = appendJSON(o, a.method)
	o = appendJSON(append(o, `,"host":`...), a.host)
	path, query := a.target, false
	for i := range len(path) {
		if path[i] == '?' {
			query = true
			if !l.personal {
				path = path[:i]
			}
			break
		}
	}
	o = appendJSON(append(o, `,"path":`...), path)
	if query && !l.personal {
		o = append(o, `,"query":true`...)
	}
	o = appendJSON(append(o, `,"route":`...), a.route)
	o = strconv.AppendInt(append(o, `,"status":`...), int64(a.status), 10)
	o = strconv.AppendInt(append(o, `,"bytes":`...), a.bytes, 10)
	o = strconv.AppendFloat(append(o, `,"ms":`...), float64(a.took.Microseconds())/1000, 'f', 3, 64)
	o = strconv.AppendInt(append(o, `,"http":`...), int64(a.protocol), 10)
	if a.secure {
		o = append(o, `,"tls":true`...)
	}
	if a.hit {
		o = append(o, `,"cache":"hit"`...)
	}
	if l.personal {
		o = appendJSON(append(o, `,"client":`...), a.remote)
	}
	o = append(o, '}')
	l.w.Add(a.at, false, false, o) // what the disk does not take is counted by the writer
	*b = o
	l.pool.Put(b)
}

// appendJSON appends a string as JSON has it.
func appendJSON(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(b, `\ufffd`...)
			} else {
				b = append(b, s[i:i+n]...)
			}
			i += n
			continue
		}
		i++
	}
	return append(b, '"')
}

// accessLogs are those of all sites, kept across tables.
type accessLogs struct {
	dir string
	mu  sync.Mutex
	m   map[string]*accessLog
}

// of opens the log of a site, or gives the one that is open while the manifest says the same.
func (a *accessLogs) of(s directory.Site) (*accessLog, error) {
	want := accessLog{sample: 1, keep: logKeep, path: LogPath(a.dir, s.App, s.Env)}
	if s.Log != nil {
		if s.Log.Off {
			return nil, nil
		}
		want.sample, want.personal = s.Log.Sample, s.Log.Personal
		if s.Log.Keep > 0 {
			want.keep = s.Log.Keep
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.m[want.path]
	if old != nil && old.sample == want.sample && old.personal == want.personal && old.keep == want.keep {
		return old, nil
	}
	l := &accessLog{sample: want.sample, personal: want.personal, keep: want.keep, path: want.path}
	if old != nil {
		l.w = old.w
	} else {
		if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
			return nil, err
		}
		var err error
		if l.w, err = tasklog.Create(l.path, logBytes, logFiles); err != nil {
			return nil, err
		}
	}
	a.m[l.path] = l
	return l, nil
}

// retain closes the logs of sites that are named no more. A request that is still under way for one
// is not noted.
func (a *accessLogs) retain(sites []directory.Site) error {
	named := map[string]bool{}
	for _, s := range sites {
		named[LogPath(a.dir, s.App, s.Env)] = s.Log == nil || !s.Log.Off
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	for path, l := range a.m {
		if !named[path] {
			err = errors.Join(err, l.w.Close())
			delete(a.m, path)
		}
	}
	return err
}

// run hands on what has gathered, and removes what is too old, until ctx ends.
func (a *accessLogs) run(ctx context.Context) error {
	pruned := time.Time{}
	for {
		a.mu.Lock()
		var err error
		for _, l := range a.m {
			err = errors.Join(err, l.w.Flush())
			if time.Since(pruned) > logPruned {
				l.prune()
			}
		}
		a.mu.Unlock()
		if time.Since(pruned) > logPruned {
			pruned = time.Now()
		}
		select {
		case <-ctx.Done():
			a.mu.Lock()
			defer a.mu.Unlock()
			for path, l := range a.m {
				err = errors.Join(err, l.w.Close())
				delete(a.m, path)
			}
			return err
		case <-time.After(logFlush):
		}
	}
}

func (l *accessLog) prune() {
	old, _ := filepath.Glob(l.path + ".*")
	for _, p := range old {
		if info, err := os.Stat(p); err == nil && time.Since(info.ModTime()) > l.keep {
			os.Remove(p)
		}
	}
}
