package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"

	"tenfold/internal/measure"
)

// switchCount is how often the release is switched.
const switchCount = 50

// pages is what the readers saw: whole pages only, and when.
type pages struct {
	mu     sync.Mutex
	first  map[string]time.Time // by release: the end of the first answer with it
	last   map[string]time.Time // by release: the beginning of the last request answered with it
	assets map[string]string    // every asset named by any page -> the release
	mixed  []string
}

var (
	pageTitle = regexp.MustCompile(`<title>release (\d+)</title>`)
	pageEnd   = regexp.MustCompile(`<p>this was release (\d+)</p>`)
	pageAsset = regexp.MustCompile(`<link href=(/assets/app\.([0-9a-f]{16})\.(js|css))>`)
)

// switches changes the release under 64 readers, and cuts deploys off by kill -9.
func (b *bench) switches() error {
	seen := &pages{first: map[string]time.Time{}, last: map[string]time.Time{}, assets: map[string]string{}}
	c := drillClient()
	defer c.CloseIdleConnections()
	var rollback []float64
	err := b.reading(c, seen, func() error {
		for n := 1; n <= switchCount; n++ {
			if err := b.release(n); err != nil {
				return err
			}
			if err := b.served(c, n); err != nil {
				return err
			}
		}
		var err error
		rollback, err = b.rollbacks(c)
		return err
	})
	if err != nil {
		return err
	}
	b.explain(seen.mixed)
	var overlap []float64
	for n := 2; n < switchCount-1; n++ { // the last two are served again by the rollbacks
		old, next := fmt.Sprint(n), fmt.Sprint(n+1)
		if last, ok := seen.last[old]; ok {
			if first, ok := seen.first[next]; ok {
				overlap = append(overlap, max(0, float64(last.Sub(first).Microseconds())/1000))
			}
		}
	}
	lost := 0.0
	for path, release := range seen.assets {
		a := get(b.ctx, c, b.house.base+path)
		if what := wrongAsset(path, a); what != "" {
			if lost++; lost < 4 {
				b.note(path, "of release "+release+": "+what)
			}
		}
	}
	for _, f := range []measure.Figure{
		{Name: "50 switches: mixed or bad answers", Ours: []float64{float64(len(seen.mixed))}, Asked: measure.AtMost(0)},
		{Name: fmt.Sprintf("assets of %d pages no longer whole", len(seen.first)), Ours: []float64{lost}, Asked: measure.AtMost(0)},
		{Name: "old pages after the first new one, at most", Unit: "ms", Ours: worst(overlap), Asked: measure.AtMost(50)},
		{Name: "rollback", Unit: "ms", Ours: rollback, Asked: measure.AtMost(1000)},
	} {
		b.report.Add(f)
	}
	return b.cutOff(c)
}

// release makes release n the frontend's and returns when the house serves it.
func (b *bench) release(n int) error {
	if err := writeRelease(filepath.Join(b.house.app, "web"), n); err != nil {
		return err
	}
	_, err := b.house.tenfold("deploy", b.house.app)
	if err != nil && b.ctx.Err() == nil {
		b.note(fmt.Sprintf("deploy of release %d", n), fmt.Sprintf("is tried again: %v", err))
		if err := b.house.settled("roll", 2); err != nil {
			return err
		}
		_, err = b.house.tenfold("deploy", b.house.app)
	}
	return err
}

// rollbacks goes back to the release before the last, and forth, and so on: ms from the command until a
// page of the other release comes.
func (b *bench) rollbacks(c *http.Client) (ms []float64, err error) {
	out, err := b.house.tenfold("--json", "releases", "web")
	if err != nil {
		return nil, err
	}
	type kept struct {
		ID      string    `json:"id"`
		Created time.Time `json:"created"`
	}
	var all []kept
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(x, y kept) int { return y.Created.Compare(x.Created) })
	if len(all) < 2 {
		return nil, fmt.Errorf("only %d releases are kept", len(all))
	}
	for n := range b.rounds {
		begun := time.Now()
		if _, err := b.house.tenfold("rollback", "--frontend", "web", all[1-n%2].ID); err != nil {
			return nil, err
		}
		if err := b.served(c, switchCount-1+n%2); err != nil {
			return nil, err
		}
		ms = append(ms, float64(time.Since(begun).Microseconds())/1000)
	}
	return ms, nil
}

// served waits until a page of release n comes.
func (b *bench) served(c *http.Client, n int) error {
	for begun := time.Now(); time.Since(begun) < 20*time.Second; time.Sleep(5 * time.Millisecond) {
		a := get(b.ctx, c, b.house.base+"/")
		if m := pageTitle.FindSubmatch(a.body); m != nil && string(m[1]) == fmt.Sprint(n) {
			return nil
		}
	}
	return fmt.Errorf("release %d is never served", n)
}

// reading keeps 64 readers on the page and what it names while do runs.
func (b *bench) reading(c *http.Client, seen *pages, do func() error) error {
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		err := do()
		close(stop)
		done <- err
	}()
	_, wrong := stream(connections, stop, func(int) answer {
		begun := time.Now()
		a := get(b.ctx, c, b.house.base+"/")
		if a.bad() != "" {
			return a
		}
		for _, path := range seen.page(a.body, begun) {
			part := get(b.ctx, c, b.house.base+path)
			if what := wrongAsset(path, part); what != "" {
				return answer{err: errors.New(path + ": " + what)}
			}
		}
		time.Sleep(20 * time.Millisecond) // the load must leave the deploys their share of the machine
		return a
	})
	seen.mixed = append(seen.mixed, wrong...)
	return <-done
}

// page books a page that came, and gives the assets to ask for: those not seen before.
func (p *pages) page(body []byte, begun time.Time) (fresh []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	title, end := pageTitle.FindSubmatch(body), pageEnd.FindSubmatch(body)
	if title == nil || end == nil || string(title[1]) != string(end[1]) {
		p.mixed = append(p.mixed, fmt.Sprintf("not one whole page: %.200q", body))
		return nil
	}
	release := string(title[1])
	if _, ok := p.first[release]; !ok {
		p.first[release] = time.Now()
	}
	if begun.After(p.last[release]) {
		p.last[release] = begun
	}
	for _, m := range pageAsset.FindAllSubmatch(body, -1) {
		path := string(m[1])
		if was, ok := p.assets[path]; ok && was != release {
			p.mixed = append(p.mixed, "release "+release+" names "+path+" of release "+was)
		} else if !ok {
			p.assets[path] = release
			fresh = append(fresh, path)
		}
	}
	return fresh
}

// wrongAsset says what is wrong with an asset; its name holds the hash of what it must hold.
func wrongAsset(path string, a answer) string {
	if what := a.bad(); what != "" {
		return what
	}
	want := pageAsset.FindStringSubmatch("<link href=" + path + ">")
	if sum := fmt.Sprintf("%x", sha256.Sum256(a.body)); want == nil || sum[:16] != want[2] {
		return "holds something else"
	}
	return ""
}

// cutOff kills the daemon at a random point of each of many deploys. Whatever is served then must be
// the old release or the new one, whole.
func (b *bench) cutOff(c *http.Client) error {
	if b.kills == 0 {
		return nil
	}
	random := rand.New(rand.NewPCG(1, 2))
	broken := 0.0
	before := ""
	for n := range b.kills {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		number := 1000 + n
		if err := writeRelease(filepath.Join(b.house.app, "web"), number); err != nil {
			return err
		}
		done := make(chan error, 1)
		go func() {
			_, err := b.house.tenfold("deploy", b.house.app)
			done <- err
		}()
		time.Sleep(time.Duration(random.IntN(600)) * time.Millisecond)
		for _, pid := range b.house.processes("daemon") {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		<-done // it may have been told of its end or not: what is served decides
		seen := &pages{first: map[string]time.Time{}, last: map[string]time.Time{}, assets: map[string]string{}}
		a := get(b.ctx, c, b.house.base+"/")
		fresh := seen.page(a.body, time.Now())
		now := ""
		for r := range seen.first {
			now = r
		}
		for _, path := range fresh {
			if what := wrongAsset(path, get(b.ctx, c, b.house.base+path)); what != "" {
				seen.mixed = append(seen.mixed, path+": "+what)
			}
		}
		if what := a.bad(); what != "" || len(seen.mixed) > 0 || now != before && before != "" && now != fmt.Sprint(number) {
			b.note(fmt.Sprintf("deploy %d cut off", n), fmt.Sprintf("serves release %q after %q: %s %v", now, before, what, seen.mixed))
			broken++
		}
		before = now
		if err := b.house.settled("roll", 2); err != nil {
			return fmt.Errorf("after deploy %d was cut off: %w", n, err)
		}
		// What a killed daemon left undone, the next one does: that release is then the old one.
		a = get(b.ctx, c, b.house.base+"/")
		if m := pageTitle.FindSubmatch(a.body); m != nil {
			before = string(m[1])
		}
	}
	b.report.Add(measure.Figure{Name: fmt.Sprintf("%d deploys cut off by kill -9: not whole", b.kills), Ours: []float64{broken}, Asked: measure.AtMost(0)})
	return nil
}
