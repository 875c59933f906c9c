package tasklog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func create(t testing.TB, max int64, keep int) (*Writer, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log", "a.log")
	w, err := Create(path, max, keep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w, path
}

func read(t *testing.T, path string, o Options) []Line {
	t.Helper()
	lines, err := Read(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestTailAndSinceReadOverRotatedFiles(t *testing.T) {
	w, path := create(t, 1000, 50)
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 500 {
		w.Add(begin.Add(time.Duration(i)*time.Second), i%2 == 1, false, fmt.Append(nil, i))
	}
	w.Flush()
	for _, c := range []struct {
		o           Options
		n, from, to int
	}{
		{Options{}, 500, 0, 499},
		{Options{Tail: 1}, 1, 499, 499},
		{Options{Tail: 120}, 120, 380, 499},
		{Options{Tail: 900}, 500, 0, 499},
		{Options{Since: begin.Add(9 * time.Second)}, 490, 10, 499},
		{Options{Since: begin.Add(480 * time.Second), Tail: 100}, 19, 481, 499},
		{Options{Since: begin.Add(400 * time.Second), Tail: 5}, 5, 495, 499},
	} {
		got := read(t, path, c.o)
		if len(got) != c.n || got[0].Text != fmt.Sprint(c.from) || got[len(got)-1].Text != fmt.Sprint(c.to) {
			t.Errorf("%+v: %d lines, %+v", c.o, len(got), got)
		}
	}
	if got := read(t, path, Options{Since: begin.Add(time.Hour)}); len(got) != 0 {
		t.Errorf("of the future: %d lines", len(got))
	}
}

func TestASearchFindsInRotatedFilesWithinItsBounds(t *testing.T) {
	w, path := create(t, 200_000, 50)
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const n = 40_000
	for i := range n {
		text := fmt.Sprintf("request %d ok", i)
		if i%10_000 == 7 {
			text = fmt.Sprintf("request %d failed: no such table", i)
		}
		w.Add(begin.Add(time.Duration(i)*time.Second), false, false, []byte(text))
	}
	w.Flush()
	failed := func(text string) bool { return strings.Contains(text, "failed") }
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Match: failed}, "7 10007 20007 30007"},
		{Options{Match: failed, Tail: 2}, "20007 30007"},
		{Options{Match: failed, Since: begin.Add(15_000 * time.Second)}, "20007 30007"},
		{Options{Match: failed, Until: begin.Add(20_007 * time.Second)}, "7 10007"},
		{Options{Match: failed, Since: begin.Add(9 * time.Second), Until: begin.Add(30_000 * time.Second), Tail: 1}, "20007"},
		{Options{Since: begin.Add(4 * time.Second), Until: begin.Add(7 * time.Second)}, "5 6"},
		{Options{Match: func(string) bool { return false }}, ""},
	} {
		var got []string
		for _, l := range read(t, path, c.o) {
			got = append(got, strings.Fields(l.Text)[1])
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %v, want %s", c.o, got, c.want)
		}
	}
}

// What is longer than a chunk is no line of ours; those around it are found.
func TestDamageAsLongAsAChunkHidesNoOtherLine(t *testing.T) {
	w, path := create(t, 1<<30, 1)
	w.Add(time.Now(), false, false, []byte("first"))
	w.Flush()
	if _, err := w.f.Write(append(bytes.Repeat([]byte("x"), 3*chunkSize), '\n')); err != nil {
		t.Fatal(err)
	}
	w.Add(time.Now(), false, false, []byte("last"))
	w.Flush()
	if got := read(t, path, Options{}); len(got) != 2 || got[0].Text != "first" || got[1].Text != "last" {
		t.Errorf("%+v", got)
	}
}

func TestTailOfALargeFileGoesOverItsChunks(t *testing.T) {
	w, path := create(t, 1<<30, 1)
	for i := range 100 {
		w.Add(time.Now(), false, false, append(bytes.Repeat([]byte("x"), 20_000), fmt.Append(nil, i)...))
	}
	w.Flush()
	if got := read(t, path, Options{Tail: 60}); len(got) != 60 || !strings.HasSuffix(got[0].Text, "x40") {
		t.Fatal(len(got))
	}
}

type deadline struct{ parts []string }

func (d *deadline) Read(b []byte) (int, error) {
	if len(d.parts) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, d.parts[0])
	d.parts = d.parts[1:]
	return n, nil
}

func TestCopyHandsOnAnUnfinishedLine(t *testing.T) {
	w, path := create(t, 1<<20, 1)
	rest, err := w.Copy(&deadline{[]string{"one\ntw", "o\n\nthr"}}, false, nil)
	if !errors.Is(err, os.ErrDeadlineExceeded) || string(rest) != "thr" {
		t.Fatalf("%q %v", rest, err)
	}
	if rest, err = w.Copy(strings.NewReader("ee\nlast"), true, rest); err != nil || rest != nil {
		t.Fatalf("%q %v", rest, err)
	}
	var got []string
	for _, l := range read(t, path, Options{}) {
		got = append(got, l.Text)
	}
	if strings.Join(got, "|") != "one|two||three|last" {
		t.Fatalf("%q", got)
	}
}

func TestLongLineIsSplitAndMarked(t *testing.T) {
	w, path := create(t, 1<<20, 1)
	w.Copy(strings.NewReader(strings.Repeat("x", MaxLine+10)+"\nend\n"), false, nil)
	got := read(t, path, Options{})
	if len(got) != 3 || !got[0].Partial || got[1].Partial || len(got[0].Text)+len(got[1].Text) != MaxLine+10 || got[2].Text != "end" {
		t.Fatalf("%d lines", len(got))
	}
}

func TestTornLineOfAKilledWriterSpoilsNoOther(t *testing.T) {
	w, path := create(t, 1<<20, 1)
	w.Add(time.Now(), false, false, []byte("good"))
	w.Close()
	f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString("2026-01-01T00:00:00.0000")
	f.Close()
	w, err := Create(path, 1<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	w.Add(time.Now(), false, false, []byte("next"))
	w.Close()
	if got := read(t, path, Options{}); len(got) != 2 || got[1].Text != "next" {
		t.Fatalf("%+v", got)
	}
}

func TestWhatCouldNotBeStoredIsCountedWhenStoringWorksAgain(t *testing.T) {
	w, path := create(t, 1<<20, 1)
	good := w.f
	w.f, _ = os.Open(path) // cannot be written, like a full disk
	for range 3 {
		w.Add(time.Now(), false, false, []byte("gone"))
	}
	if w.Flush() == nil {
		t.Fatal("no error")
	}
	w.f.Close()
	w.f = good
	w.Add(time.Now(), false, false, []byte("back"))
	w.Flush()
	got := read(t, path, Options{})
	if len(got) != 2 || got[0].Text != "tenfold: 3 lines could not be stored" || got[1].Text != "back" {
		t.Fatalf("%+v", got)
	}
}

func TestFollowMissesNothingAcrossFastRotation(t *testing.T) {
	w, path := create(t, 2000, 99)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const n = 2000
	seen, first := 0, make(chan bool)
	done := make(chan error, 1)
	go func() {
		done <- Follow(ctx, path, func(l Line) error {
			if l.Text == "hello" {
				if seen == 0 {
					select {
					case <-first:
					default:
						close(first)
					}
				}
				return nil
			}
			if l.Text != fmt.Sprint(seen) {
				return fmt.Errorf("line %d is %q", seen, l.Text)
			}
			if seen++; seen == n {
				cancel()
			}
			return nil
		})
	}()
	for begun := time.Now(); ; { // until it follows
		w.Add(time.Now(), false, false, []byte("hello"))
		w.Flush()
		select {
		case <-first:
		case <-time.After(10 * time.Millisecond):
			if time.Since(begun) > 5*time.Second {
				t.Fatal("it does not follow")
			}
			continue
		}
		break
	}
	for i := range n {
		w.Add(time.Now(), false, false, fmt.Append(nil, i))
	}
	w.Flush()
	select {
	case err := <-done:
		if err != nil || seen != n {
			t.Fatal(seen, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("saw %d of %d", seen, n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("2026-11-26T01:02:03.123456789Z o text")
	f.Add("2026-11-26T01:02:03Z E ")
	f.Add(" o ")
	f.Fuzz(func(t *testing.T, s string) {
		l, ok := parse(s)
		if ok && !strings.HasSuffix(s, l.Text) {
			t.Fatalf("%q became %q", s, l.Text)
		}
	})
}

func BenchmarkCopy(b *testing.B) {
	w, _ := create(b, 64<<20, 1)
	line := []byte("GET /api/items 200 12ms request served to the client\n")
	b.SetBytes(int64(len(line)))
	r, wr := io.Pipe()
	go func() {
		block := bytes.Repeat(line, 100)
		for i := 0; i < b.N; i += 100 {
			wr.Write(block)
		}
		wr.Close()
	}()
	w.Copy(r, false, nil)
}

func TestHiddenValuesAreNotStored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "build.log")
	w, err := Create(path, 1<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	w.Hide("hunter2", "hunter2hunter2", "-----BEGIN\nline two\n", "abc", "")
	if _, err := w.Copy(strings.NewReader("say hunter2hunter2 and hunter2\nurl?t=hunter2&x\nline two\nabc\nhunter"), false, nil); err != nil {
		t.Fatal(err)
	}
	w.Close()
	lines, err := Read(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range lines {
		got = append(got, l.Text)
	}
	if want := "say *** and ***|url?t=***&x|***|abc|hunter"; strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", strings.Join(got, "|"), want)
	}
}
