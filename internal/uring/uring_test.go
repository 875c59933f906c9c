package uring

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t testing.TB, size int) *Ring {
	t.Helper()
	r, err := New(size)
	if err != nil {
		t.Skip("skipped: ", err)
	}
	t.Cleanup(r.Close)
	return r
}

func pair(t testing.TB) [2]int {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return [2]int{p[0], p[1]}
}

func many(t testing.TB, n int) (pairs [][2]int) {
	for range n {
		pairs = append(pairs, pair(t))
	}
	return pairs
}

func TestManyAtOnce(t *testing.T) {
	r := open(t, 8)
	pairs := many(t, 4)
	for round := range 100 { // around the rings, several times
		var got [4][16]byte
		for i, p := range pairs {
			r.Send(p[0], fmt.Appendf(nil, "%d of %d", i, round))
		}
		for i, p := range pairs {
			r.Recv(p[1], got[i][:])
		}
		if r.Len() != 8 {
			t.Fatal(r.Len())
		}
		if err := r.Do(); err != nil {
			t.Fatal(err)
		}
		for i := range pairs {
			n, errno := r.Result(4 + i)
			if want := fmt.Sprintf("%d of %d", i, round); errno != 0 || string(got[i][:n]) != want {
				t.Errorf("%q, %v, want %q", got[i][:n], errno, want)
			}
		}
	}
}

func TestNothingWaits(t *testing.T) {
	r := open(t, 4)
	empty, full, gone := pair(t), pair(t), pair(t)
	big := bytes.Repeat([]byte("x"), 4<<20)
	unix.Shutdown(gone[1], unix.SHUT_RDWR)
	b := make([]byte, 16)
	r.Recv(empty[0], b)
	r.Send(full[0], big)
	r.Send(gone[0], b)
	r.Recv(gone[0], b)
	if err := r.Do(); err != nil {
		t.Fatal(err)
	}
	if n, errno := r.Result(0); errno != unix.EAGAIN {
		t.Error(n, errno)
	}
	if n, errno := r.Result(1); errno != 0 || n == 0 || n == len(big) {
		t.Error(n, errno)
	}
	if n, errno := r.Result(2); errno != unix.EPIPE {
		t.Error(n, errno)
	}
	if n, errno := r.Result(3); errno != 0 || n != 0 {
		t.Error(n, errno)
	}
	r.Send(full[0], big)
	r.Recv(-1, b)
	if err := r.Do(); err != nil {
		t.Fatal(err)
	}
	if n, errno := r.Result(0); errno != unix.EAGAIN {
		t.Error(n, errno)
	}
	if n, errno := r.Result(1); errno != unix.EBADF {
		t.Error(n, errno)
	}
}

func TestTheSmallest(t *testing.T) {
	r, p := open(t, 1), pair(t)
	r.Send(p[0], []byte("x"))
	if err := r.Do(); err != nil {
		t.Fatal(err)
	}
	if n, errno := r.Result(0); errno != 0 || n != 1 {
		t.Error(n, errno)
	}
}

func TestClosedGivesAllBack(t *testing.T) {
	open(t, 4)
	count := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	before := count()
	for range 50 {
		r, err := New(64)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// The same 32 sends and receives, one by one and together: `go test -bench . ./internal/uring`.
func BenchmarkCalls(b *testing.B) {
	const at = 32
	msg := bytes.Repeat([]byte("x"), 60)
	single := func(b *testing.B) {
		pairs := many(b, at)
		got := make([]byte, 128)
		for b.Loop() {
			for _, p := range pairs {
				unix.SendmsgN(p[0], msg, nil, nil, unix.MSG_DONTWAIT)
			}
			for _, p := range pairs {
				unix.Recvfrom(p[1], got, unix.MSG_DONTWAIT)
			}
		}
	}
	together := func(b *testing.B) {
		r := open(b, 2*at)
		pairs := many(b, at)
		got := make([]byte, 128)
		for b.Loop() {
			for _, p := range pairs {
				r.Send(p[0], msg)
			}
			for _, p := range pairs {
				r.Recv(p[1], got)
			}
			if err := r.Do(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("single", single)
	b.Run("together", together)
}
