package daemon

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tenfold"
)

// A disk that fills and is emptied is spoken of once a level, with whose files there are, and not while it hovers.
func TestADiskThatFillsIsSpokenOfInTime(t *testing.T) {
	const gb = 1 << 30
	level := room
	var said []string
	for _, free := range []int64{50 * gb, 6 * gb, 4 * gb, 3 * gb, 5*gb + 1, gb / 4, gb, 5 * gb, 6 * gb, 20 * gb} {
		now := diskLevel(level, 100*gb, free)
		if e, ok := diskEvent(level, now, free, "data", func() string { return "shop/production/api has 90 MB" }); ok {
			said = append(said, string(e.Severity)+" "+e.Text[:25]+" "+e.Detail)
			if e.Severity != tenfold.SeverityInfo && e.Hint == "" {
				t.Errorf("no hint: %+v", e)
			}
		}
		level = now
	}
	want := []string{"warning the disk is nearly full:  shop/production/api has 90 MB", "error the disk is nearly full:  shop/production/api has 90 MB", "info the disk has room again:  "}
	if strings.Join(said, "\n") != strings.Join(want, "\n") {
		t.Errorf("said:\n%s", strings.Join(said, "\n"))
	}
	if diskLevel(room, 2*gb, gb/10) != nearlyFull || diskLevel(room, 2*gb, gb/4) != room {
		t.Error("a small disk")
	}
}

func TestWhoseFilesFillTheDisk(t *testing.T) {
	dir := t.TempDir()
	folders := map[string][]string{}
	for name, mb := range map[string]int{"shop/production/api": 70, "shop/production/mail": 1, "blog/production/web": 80} {
		home := filepath.Join(dir, filepath.Base(name))
		if err := os.MkdirAll(home, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(home, "x"), bytes.Repeat([]byte{1}, mb<<20), 0o644); err != nil {
			t.Fatal(err)
		}
		folders[name] = []string{home, filepath.Join(dir, "none")}
	}
	if got := largestOf(t.Context(), folders); !strings.HasPrefix(got, "blog/production/web has 80 MB, shop/production/api has 70 MB") {
		t.Error(got)
	}
}
