package ledger

import "testing"

func TestSoonIsSeenAtOnceAndOnDiskAfterFlush(t *testing.T) {
	dir := t.TempDir()
	l, err := Open[int](dir)
	if err != nil {
		t.Fatal(err)
	}
	l.Soon("a", func(n *int) { *n = 7 })
	if _, ok := l.Get("a"); ok {
		t.Error("it made a record that did not exist")
	}
	if err := l.Update("a", func(n *int) { *n = 1 }); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		l.Soon("a", func(n *int) { *n++ })
	}
	if n, _ := l.Get("a"); n != 101 {
		t.Errorf("it holds %d", n)
	}
	l.Flush()
	again, err := Open[int](dir)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := again.Get("a"); n != 101 {
		t.Errorf("on disk is %d", n)
	}
}
