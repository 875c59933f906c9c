package lean

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func held(t *testing.T) (file, all int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		t.Skip("no smaps_rollup:", err)
	}
	rss, anon := 0, 0
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 {
			n, _ := strconv.Atoi(f[1])
			switch f[0] {
			case "Rss:":
				rss = n
			case "Anonymous:":
				anon = n
			}
		}
	}
	return rss - anon, rss
}

// What was given back is read again when it is wanted: this goes on, with less of the binary in memory.
func TestShed(t *testing.T) {
	before, _ := held(t)
	Shed()
	after, all := held(t)
	if after >= before || all == 0 {
		t.Errorf("%d KB of files in memory, %d before", after, before)
	}
}

func TestBounds(t *testing.T) {
	if low, high, ok := bounds("00400000-02a0f000"); !ok || low != 0x400000 || high != 0x2a0f000 {
		t.Error(low, high, ok)
	}
	for _, s := range []string{"", "1", "2-1", "1-2-3", "x-y"} {
		if _, _, ok := bounds(s); ok {
			t.Errorf("%q was read", s)
		}
	}
}
