package httpcache

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func serial() http.HandlerFunc {
	n := 0
	return func(w http.ResponseWriter, r *http.Request) {
		n++
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("Vary", "Accept-Language")
		w.Header().Set("Cache-Tag", "t"+r.URL.Path[1:])
		fmt.Fprint(w, r.URL.Path, r.Header.Get("Accept-Language"), n)
	}
}

// onDisk waits until n responses are on the disk and nobody is under way whose answer another could share:
// clocks that are set forward would make that answer an old one.
func onDisk(t *testing.T, c *Cache, n int) {
	t.Helper()
	poll(t, func() bool {
		c.flights.mu.Lock()
		defer c.flights.mu.Unlock()
		return c.Stats().DiskEntries == n && len(c.disk.queue) == 0 && len(c.flights.m) == 0
	})
}

// files lists what lies in the folder besides the journal.
func files(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "journal" {
			out = append(out, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDiskSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	f := start(t, Config{Dir: dir}, nil, serial())
	f.get("/a")
	f.get("/a", "Accept-Language", "de")
	f.get("/b")
	onDisk(t, f.cache, 3)
	f.stop()

	f = start(t, Config{Dir: dir}, nil, func(w http.ResponseWriter, r *http.Request) { t.Errorf("asked for %s", r.URL) })
	wantBody(t, f.get("/a"), 200, "/a1")
	wantBody(t, f.get("/a", "Accept-Language", "de"), 200, "/ade2")
	wantBody(t, f.get("/a", "Accept-Language", "de"), 200, "/ade2")
	if s := f.cache.Stats(); s.Entries != 2 || s.DiskEntries != 3 || s.Hits != 3 {
		t.Errorf("stats %+v", s)
	}
	if n := f.cache.Purge(Purge{Tag: "tA"}); n != 2 {
		t.Errorf("purged %d", n)
	}
	f.stop()

	f = start(t, Config{Dir: dir}, nil, serial())
	wantBody(t, f.get("/b"), 200, "/b3")
	wantBody(t, f.get("/a"), 200, "/a1")
	f.wantAsked(1)
}

// A stop without warning leaves the journal and the files as they lie.
func TestDiskAfterACrash(t *testing.T) {
	dir := t.TempDir()
	f := start(t, Config{Dir: dir}, nil, serial())
	for i := range 5 {
		f.get(fmt.Sprint("/", i))
	}
	onDisk(t, f.cache, 5)
	copied := t.TempDir() // what a process that starts after kill -9 finds
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	f.stop()

	list := files(t, copied)
	b, err := os.ReadFile(list[0])
	if err != nil {
		t.Fatal(err)
	}
	torn := b[:len(b)-3]
	flipped := append([]byte(nil), b...)
	flipped[len(flipped)-1] ^= 1
	other, err := os.ReadFile(list[3])
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{
		list[0]: torn, list[1]: flipped, list[2]: other, // of another response
		filepath.Join(copied, "07", "stray"):                                    []byte("?"),
		strings.TrimSuffix(list[4], filepath.Base(list[4])) + "ffffffffffffff0": b,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	journal, err := os.OpenFile(filepath.Join(copied, "journal"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	journal.WriteString(`00000000 {"add":{"id":99,"key":"x"}}` + "\n" + `1234abcd {"add":{"id"`)
	journal.Close()

	f = start(t, Config{Dir: copied}, nil, serial())
	if n := f.cache.Stats().DiskEntries; n != 5 {
		t.Errorf("%d entries, want 5", n)
	}
	for i := range 5 {
		a := f.get(fmt.Sprint("/", i))
		if want := fmt.Sprint("/", i); a.Code != 200 || !strings.HasPrefix(a.Body.String(), want) {
			t.Errorf("%s: %d %q", want, a.Code, a.Body.String())
		}
	}
	f.wantAsked(3)
	onDisk(t, f.cache, 5)
	f.stop()
	if n := len(files(t, copied)); n != 5 {
		t.Errorf("%d files are left, want 5", n)
	}
}

func TestDiskIsBounded(t *testing.T) {
	dir := t.TempDir()
	body := strings.Repeat("x", 10_000)
	f := start(t, Config{Dir: dir, Disk: 100_000}, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		fmt.Fprint(w, body)
	})
	for i := range 50 {
		f.get(fmt.Sprint("/", i))
	}
	poll(t, func() bool { return len(f.cache.disk.queue) == 0 && f.cache.Stats().DiskEntries > 0 })
	f.stop()
	var total int64
	for _, p := range files(t, dir) {
		if info, err := os.Stat(p); err == nil {
			total += info.Size()
		}
	}
	if total == 0 || total > 100_000 {
		t.Errorf("%d bytes on disk, of 100000", total)
	}
}

// Newer and invalidated responses take the older file with them, through restarts too.
func TestDiskNeverFallsBehind(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	origin := serial()
	f := start(t, Config{Dir: dir, Now: func() time.Time { return now }}, nil, origin)
	f.get("/a")
	f.get("/b")
	onDisk(t, f.cache, 2)
	f.do(request1("POST", "/b"))
	now = now.Add(2 * time.Hour)
	wantBody(t, f.get("/a"), 200, "/a4")
	poll(t, func() bool { return f.cache.Stats().DiskEntries == 1 })
	f.stop()
	f = start(t, Config{Dir: dir, Now: func() time.Time { return now }}, nil, origin)
	wantBody(t, f.get("/a"), 200, "/a4")
	wantBody(t, f.get("/b"), 200, "/b5")
}

func FuzzDecodeContent(f *testing.F) {
	c := filled(f, 1, 10, http.Header{"Cache-Control": {"max-age=60"}})
	c.memory.each(func(e *entry) {
		p := filepath.Join(f.TempDir(), "x")
		if _, err := writeContent(p, e); err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := decodeContent(b); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	})
	f.Add([]byte(contentMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := decodeContent(b); err == nil && e.forms[identity].Load() == nil {
			t.Error("an entry without a form")
		}
	})
}

func FuzzJournal(f *testing.F) {
	f.Add(journalRecord{Add: &diskFile{ID: 1, Key: "http://a/", Size: 3}}.line())
	f.Add([]byte("00000000 {}"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, ok := parseRecord(line); ok && r.Add != nil && r.Add.Size < 0 {
			t.Error("a negative size")
		}
	})
}

func TestRunTwice(t *testing.T) {
	f := start(t, Config{}, nil, serial())
	if err := f.cache.Run(context.Background(), func() {}); err == nil {
		t.Error("a cache ran twice at once")
	}
}
