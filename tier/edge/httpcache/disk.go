package httpcache

import (
	"bufio"
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tenfold/internal/atomicfile"
)

// disk is the disk tier: one content file per response, and a journal of what there is, by which the tier
// comes back after a restart. docs of the formats: content files in diskfile.go, the journal below.
//
// Writing happens on one goroutine, behind a bounded queue: a response never waits for the disk, and a
// burst is cached in memory alone. Nothing is synced but a Purge: after a crash of the machine a file may
// be torn, which its checksums tell, and then it is gone. A content file appears under its name whole
// (written aside, renamed), and counts only once the journal names it.
type disk struct {
	dir   string
	log   *slog.Logger
	queue chan *entry

	mu      sync.Mutex             // owns what follows
	limit   int64                  // bytes
	index   map[string][]*diskFile // by URL
	recent  *list.List             // of *diskFile; front: the last used
	bytes   int64
	journal *os.File
	written int // records in the journal
	next    uint64
	trash   []uint64             // content files to remove
	newer   map[string]time.Time // by key, responses that found the queue full: older ones are not to be written
}

// diskFile is one content file; all but el is fixed.
type diskFile struct {
	ID      uint64    `json:"id"`
	Key     string    `json:"key"`
	Size    int64     `json:"size"`
	Vary    []varied  `json:"vary,omitempty"`
	Tags    []string  `json:"tags,omitempty"`
	Release string    `json:"release,omitempty"`
	Got     time.Time `json:"got"`
	el      *list.Element
}

// journalRecord is one line: eight hexadecimal digits of CRC-32C, a space, this as JSON.
type journalRecord struct {
	Add  *diskFile `json:"add,omitempty"`
	Drop uint64    `json:"drop,omitempty"`
}

const (
	diskQueue = 1024
	// worthDisk is how long a response must stay useful to be written.
	worthDisk = 10 * time.Second
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newDisk(dir string, limit int64, log *slog.Logger) *disk {
	return &disk{dir: dir, limit: limit, log: log, queue: make(chan *entry, diskQueue), index: map[string][]*diskFile{}, recent: list.New(), newer: map[string]time.Time{}}
}

func (d *disk) path(id uint64) string {
	return filepath.Join(d.dir, fmt.Sprintf("%02x", id&0xff), fmt.Sprintf("%016x", id))
}

// open reads the journal, drops what has no file, removes files that it does not name, and begins a new
// journal.
func (d *disk) open() error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make cache folder: %w", err)
	}
	known := map[uint64]*diskFile{}
	var order []*diskFile
	if err := d.replay(func(r journalRecord) {
		if r.Add != nil {
			known[r.Add.ID] = r.Add
			order = append(order, r.Add)
			d.next = max(d.next, r.Add.ID)
		}
		delete(known, r.Drop)
	}); err != nil {
		return err
	}
	present := d.sweep(known)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range order {
		if known[f.ID] == f && present[f.ID] {
			d.insert(f)
		}
	}
	d.shrink()
	return d.compact()
}

func (d *disk) replay(apply func(journalRecord)) error {
	j, err := os.Open(filepath.Join(d.dir, "journal"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open cache journal: %w", err)
	}
	defer j.Close()
	lines := bufio.NewScanner(j)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if r, ok := parseRecord(lines.Bytes()); ok {
			apply(r)
		}
	}
	return nil // a torn end is no error: what it would have named is swept
}

// parseRecord reads one line of the journal.
func parseRecord(line []byte) (r journalRecord, ok bool) {
	if len(line) < 10 || line[8] != ' ' {
		return r, false
	}
	if fmt.Sprintf("%08x", crc32.Checksum(line[9:], castagnoli)) != string(line[:8]) {
		return r, false
	}
	return r, json.Unmarshal(line[9:], &r) == nil && (r.Add == nil || r.Add.Size >= 0)
}

func (r journalRecord) line() []byte {
	text, err := json.Marshal(r)
	if err != nil {
		return nil
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(text, castagnoli), text)
}

// sweep removes content files that are not known and says which of the known there are.
func (d *disk) sweep(known map[uint64]*diskFile) map[uint64]bool {
	present := map[uint64]bool{}
	for i := range 256 {
		folder := filepath.Join(d.dir, fmt.Sprintf("%02x", i))
		files, err := os.ReadDir(folder)
		if err != nil {
			continue
		}
		for _, file := range files {
			var id uint64
			if _, err := fmt.Sscanf(file.Name(), "%16x", &id); err == nil && known[id] != nil && file.Name() == fmt.Sprintf("%016x", id) {
				present[id] = true
			} else if err := os.Remove(filepath.Join(folder, file.Name())); err != nil {
				d.log.Warn("remove cache file", "err", err)
			}
		}
	}
	return present
}

// compact rewrites the journal. Under mu.
func (d *disk) compact() error {
	var b strings.Builder
	n := 0
	for el := d.recent.Back(); el != nil; el = el.Prev() {
		b.Write(journalRecord{Add: el.Value.(*diskFile)}.line())
		n++
	}
	path := filepath.Join(d.dir, "journal")
	if err := atomicfile.Write(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write cache journal: %w", err)
	}
	j, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open cache journal: %w", err)
	}
	if d.journal != nil {
		d.journal.Close()
	}
	d.journal, d.written = j, n
	return nil
}

// note appends to the journal. Under mu.
func (d *disk) note(r journalRecord) {
	if d.journal == nil {
		return
	}
	if _, err := d.journal.Write(r.line()); err != nil {
		d.log.Warn("write cache journal", "err", err)
	}
	d.written++
}

func (d *disk) insert(f *diskFile) {
	u := urlOf(f.Key)
	d.index[u] = append([]*diskFile{f}, d.index[u]...)
	f.el = d.recent.PushFront(f)
	d.bytes += f.Size
}

// remove takes a file out of the tier; the file itself goes later. Under mu.
func (d *disk) remove(f *diskFile) {
	if f.el == nil {
		return
	}
	d.recent.Remove(f.el)
	f.el = nil
	d.bytes -= f.Size
	u := urlOf(f.Key)
	rest := make([]*diskFile, 0, len(d.index[u]))
	for _, o := range d.index[u] {
		if o != f {
			rest = append(rest, o)
		}
	}
	if len(rest) == 0 {
		delete(d.index, u)
	} else {
		d.index[u] = rest
	}
	d.note(journalRecord{Drop: f.ID})
	d.trash = append(d.trash, f.ID)
}

// bound changes the limit; what does not fit any more leaves.
func (d *disk) bound(limit int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = limit
	d.shrink()
}

func (d *disk) shrink() {
	for d.bytes > d.limit {
		el := d.recent.Back()
		if el == nil {
			return
		}
		d.remove(el.Value.(*diskFile))
	}
}

func (d *disk) size() (int, int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.recent.Len(), d.bytes
}

// offer asks for an entry to be written, soon. An older response to the same requests is taken away now.
func (d *disk) offer(e *entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outdate(e)
	useful := max(-e.staleFor(e.got), e.rules.StaleRevalidate, e.rules.StaleError)
	if !e.whole() || d.journal == nil || useful < worthDisk && e.etag() == "" && e.modified() == "" || e.bytes > d.limit/4 {
		return
	}
	select {
	case d.queue <- e:
	default:
		d.newer[e.key] = e.got
	}
}

// outdate takes away the files of answers to the same requests as e. Under mu.
func (d *disk) outdate(e *entry) {
	for _, f := range d.index[urlOf(e.key)] {
		if f.Key == e.key && e.variantOf(&entry{vary: f.Vary}) {
			d.remove(f)
		}
	}
}

// forget takes away the files of entries that are void.
func (d *disk) forget(entries []*entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range entries {
		d.outdate(e)
	}
}

// forgetURL takes away all of one URL, as keys begin with it.
func (d *disk) forgetURL(u string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.index[u] {
		d.remove(f)
	}
}

// purge takes away what p covers, durably.
func (d *disk) purge(p Purge) (gone []*diskFile) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for el := d.recent.Front(); el != nil; {
		f := el.Value.(*diskFile)
		el = el.Next()
		if p.covers(f.Key, f.Tags, f.Release) {
			d.remove(f)
			gone = append(gone, f)
		}
	}
	if len(gone) > 0 && d.journal != nil {
		if err := d.journal.Sync(); err != nil {
			d.log.Warn("sync cache journal", "err", err)
		}
	}
	return gone
}

// find reads the newest stored response that the request selects.
func (d *disk) find(q *request, fields Fields) *entry {
	d.mu.Lock()
	var found *diskFile
	for _, f := range d.index[urlOf(q.key)] {
		probe := entry{vary: f.Vary}
		if f.Key == q.key && probe.matches(fields) {
			found = f
			d.recent.MoveToFront(f.el)
			break
		}
	}
	d.mu.Unlock()
	if found == nil {
		return nil
	}
	e, err := readContent(d.path(found.ID), found.Key)
	if err != nil {
		d.log.Warn("read cache file: dropped", "err", err)
		d.mu.Lock()
		d.remove(found)
		d.mu.Unlock()
		return nil
	}
	e.route, e.disk = q.route, found
	return e
}

// has says that there is a stored response to a key.
func (d *disk) has(key []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.index[urlOf(string(key))] {
		if f.Key == string(key) {
			return true
		}
	}
	return false
}

// writeLoop writes what is offered and removes what is gone, until ctx is done; then what is queued.
func (d *disk) writeLoop(ctx context.Context, c *Cache) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case e := <-d.queue:
			d.write(e, c)
		case <-tick.C:
			d.tidy()
		case <-ctx.Done():
			for {
				select {
				case e := <-d.queue:
					d.write(e, c)
				default:
					d.tidy()
					return
				}
			}
		}
	}
}

// write puts one entry on disk, unless it is outdated by now.
func (d *disk) write(e *entry, c *Cache) {
	if e.void.Load() {
		return
	}
	d.mu.Lock()
	if t, ok := d.newer[e.key]; ok && e.got.Before(t) {
		d.mu.Unlock()
		return
	}
	d.next++
	id := d.next
	d.mu.Unlock()
	size, err := writeContent(d.path(id), e)
	if err != nil {
		d.log.Warn("write cache file", "err", err)
		return
	}
	f := &diskFile{ID: id, Key: e.key, Size: size, Vary: e.vary, Tags: e.tags, Release: e.release, Got: e.got}
	c.purges.RLock()
	defer c.purges.RUnlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.void.Load() || c.purges.since(e.stamp, e) || d.journal == nil {
		d.trash = append(d.trash, id)
		return
	}
	d.outdate(e)
	d.insert(f)
	d.note(journalRecord{Add: f})
	d.shrink()
}

// tidy removes content files that are in the tier no more, and keeps the journal short.
func (d *disk) tidy() {
	d.mu.Lock()
	trash := d.trash
	d.trash = nil
	if len(d.queue) == 0 {
		clear(d.newer)
	}
	if d.journal != nil && d.written > 4*d.recent.Len()+4096 {
		if err := d.compact(); err != nil {
			d.log.Warn("compact cache journal", "err", err)
		}
	}
	d.mu.Unlock()
	for _, id := range trash {
		if err := os.Remove(d.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("remove cache file", "err", err)
		}
	}
}

func (d *disk) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	j := d.journal
	d.journal = nil
	d.index, d.bytes = map[string][]*diskFile{}, 0
	d.recent.Init()
	if j == nil {
		return nil
	}
	if err := j.Close(); err != nil {
		return fmt.Errorf("close cache journal: %w", err)
	}
	return nil
}

// promote puts an entry that was read from disk into memory, unless memory has learned better meanwhile.
func (c *Cache) promote(e *entry) *entry {
	c.purges.RLock()
	defer c.purges.RUnlock()
	c.disk.mu.Lock()
	current := e.disk.el != nil
	c.disk.mu.Unlock()
	if current {
		c.memory.put(e)
	}
	return e
}

// content is the head of a content file.
type content struct {
	Key      string        `json:"key"`
	Release  string        `json:"release,omitempty"`
	Tags     []string      `json:"tags,omitempty"`
	Vary     []varied      `json:"vary,omitempty"`
	Status   int           `json:"status"`
	Header   http.Header   `json:"header"`
	Got      time.Time     `json:"got"`
	Age      time.Duration `json:"age"`
	Lifetime time.Duration `json:"lifetime"`
	Rules    entryRules    `json:"rules"`
}
