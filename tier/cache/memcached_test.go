package cache

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/engines"
)

// tell says something to a server in memcached's protocol and returns the first line of its answer, and the second.
func tell(raw, command string) (first, second string, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", "", err
	}
	c, err := net.DialTimeout("tcp", u.Host, time.Second)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	fmt.Fprintf(c, "%s\r\nversion\r\n", command)
	in := bufio.NewReader(c)
	if first, err = in.ReadString('\n'); err == nil {
		second, err = in.ReadString('\n')
	}
	return strings.TrimSpace(first), strings.TrimSpace(second), err
}

// A cache of memcached answers at its address, comes back there when it dies, and changes its size while it runs.
func TestMemcachedServes(t *testing.T) {
	if _, err := engines.Cache(t.Context(), memcached, 0); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("no engine to test with: %v (apt-get install memcached)", err)
	}
	f := begin(t)
	f.open(t)
	f.start(t, tenfold.Cache{Engine: memcached, Size: 16 << 20})
	f.await(t, "ready", ready)
	at, err := f.FieldFor(t.Context(), id, tenfold.FieldURL, "api")
	if err != nil || !strings.HasPrefix(at, "memcached://127.0.0.1:") {
		t.Fatal(at, err)
	}
	if got, _, err := tell(at, "set a 0 0 1\r\n7"); err != nil || got != "STORED" {
		t.Fatal(got, err)
	}
	pid := f.pid(t, 1)
	f.start(t, tenfold.Cache{Engine: memcached, Size: 32 << 20})
	f.await(t, "of another size", func(r tenfold.Resource) bool {
		lines, err := f.askMemcached(t.Context(), record{Port: port(t, at)}, 1, askLimit, "stats")
		return ready(r) && err == nil && statsOf(lines).number("maxmemory") == 32<<20
	})
	if first, second, err := tell(at, "get a"); err != nil || first != "VALUE a 0 1" || second != "7" || f.pid(t, 1) != pid {
		t.Errorf("%s %s %v, process %d then %d", first, second, err, pid, f.pid(t, 1))
	}
	var hits float64
	for begun := time.Now(); hits == 0 && time.Since(begun) < 20*time.Second; <-time.After(20 * time.Millisecond) {
		for _, u := range f.Use()[id] {
			hits = u.Metrics["CacheHits"]
		}
		f.wake()
	}
	if hits != 1 {
		t.Errorf("%v hits", hits)
	}
	f.signal(t, 1, syscall.SIGKILL)
	for begun := time.Now(); ; <-time.After(10 * time.Millisecond) {
		if got, _, err := tell(at, "get a"); err == nil && got == "END" {
			break // it is empty: memcached keeps nothing
		} else if time.Since(begun) > 20*time.Second {
			t.Fatal(got, err)
		}
	}
	if err := f.Rotate(t.Context(), id); tenfold.CodeOf(err) != tenfold.CodeConflict {
		t.Errorf("passwords of memcached: %v", err)
	}
	// One that refuses what does not fit is another server, and so is another engine; the address stays.
	f.start(t, tenfold.Cache{Engine: memcached, Size: 32 << 20, Evict: "noeviction"})
	f.await(t, "one that evicts nothing", func(r tenfold.Resource) bool {
		lines, err := f.askMemcached(t.Context(), record{Port: port(t, at)}, 1, askLimit, "stats settings")
		return ready(r) && err == nil && statsOf(lines)["evictions"] == "off"
	})
	f.start(t, tenfold.Cache{})
	f.await(t, "another engine", func(r tenfold.Resource) bool {
		got, err := f.ask(tenfold.FieldURL, "", "SET", "a", 1)
		return ready(r) && err == nil && got == "OK"
	})
	if now, _ := f.Field(t.Context(), id, tenfold.FieldURL); port(t, now) != port(t, at) {
		t.Errorf("%s, then %s", at, now)
	}
	f.start(t, tenfold.Cache{Engine: memcached, Size: 16 << 20})
	f.await(t, "memcached again", func(r tenfold.Resource) bool {
		got, _, err := tell(at, "get a")
		return ready(r) && err == nil && got == "END"
	})
}

func port(t *testing.T, raw string) int {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAnswersOfMemcachedAreRead(t *testing.T) {
	for _, x := range []struct{ in, want, err string }{
		{"STAT pid 7\r\nSTAT get_hits 3\r\nEND\r\n", "pid 7|get_hits 3", ""},
		{"VERSION 1.6.18\r\n", "VERSION 1.6.18", ""},
		{"OK\r\n", "OK", ""},
		{"END\r\n", "", ""},
		{"ERROR\r\n", "", "ERROR"},
		{"SERVER_ERROR out of memory\r\n", "", "SERVER_ERROR out of memory"},
		{"STAT pid 7\r\n", "", io.ErrUnexpectedEOF.Error()},
		{"", "", io.ErrUnexpectedEOF.Error()},
	} {
		got, err := readAnswer(strings.NewReader(x.in))
		if strings.Join(got, "|") != x.want || (err == nil) != (x.err == "") || err != nil && err.Error() != x.err {
			t.Errorf("%q: %q %v", x.in, got, err)
		}
	}
}

func FuzzMemcachedAnswer(f *testing.F) {
	f.Add([]byte("STAT pid 7\r\nSTAT limit_maxbytes 67108864\r\nEND\r\n"))
	f.Add([]byte("VERSION 1.6.18\r\n"))
	f.Add([]byte("STAT \r\nSTAT a\r\nEND\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		lines, err := readAnswer(strings.NewReader(string(b)))
		if err != nil && len(lines) > 0 {
			t.Errorf("%d lines with %v", len(lines), err)
		}
		metrics(statsOf(lines))
	})
}
