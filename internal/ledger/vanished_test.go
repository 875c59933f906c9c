package ledger

import (
	"os"
	"path/filepath"
	"testing"
)

// A folder that somebody took away from under a house that runs does not keep it from ending.
func TestAFolderThatVanishedIsMadeAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tier", "goals")
	l, err := Open[int](dir)
	if err != nil {
		t.Fatal(err)
	}
	set := func(n int) func(*int) { return func(x *int) { *x = n } }
	for _, key := range []string{"a", "b"} {
		if err := l.Update(key, set(1)); err != nil {
			t.Fatal(err)
		}
	}
	vanish := func() {
		if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
			t.Fatal(err)
		}
	}
	vanish()
	if err := l.Change("a", set(2)); err != nil {
		t.Error(err)
	}
	vanish()
	l.Soon("a", set(3))
	l.Flush()
	vanish()
	if err := l.Delete("b"); err != nil {
		t.Error(err)
	}
	if err := l.Update("a", set(4)); err != nil {
		t.Error(err)
	}
	again, err := Open[int](dir)
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := again.Get("a"); n != 4 || !ok {
		t.Errorf("on disk is %d, %t", n, ok)
	}
}
