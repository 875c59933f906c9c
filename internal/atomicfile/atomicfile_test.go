package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestReaderSeesOldOrNewNeverAPart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.json")
	type pair struct{ A, B []int }
	write := func(n int) {
		v := make([]int, 2000)
		for i := range v {
			v[i] = n
		}
		if err := WriteJSON(path, pair{v, v}, 0o600); err != nil {
			t.Error(err)
		}
	}
	write(0)
	var writing sync.WaitGroup
	for w := range 2 {
		writing.Go(func() {
			for i := range 10 {
				write(w*100 + i)
			}
		})
	}
	for range 100 {
		var p pair
		if err := ReadJSON(path, &p); err != nil || len(p.A) != 2000 || p.A[0] != p.B[1999] {
			t.Fatal(err, len(p.A))
		}
	}
	writing.Wait()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
}

func TestFailedWriteLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("x"), 0o600); err == nil {
		t.Fatal("a folder was replaced")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	if err := ReadJSON(filepath.Join(dir, "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
