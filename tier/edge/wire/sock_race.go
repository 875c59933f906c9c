//go:build race

package wire

import "syscall"

// With the race detector the calls of package syscall are taken: they tell it that what was done before
// a write happened before what is done after the read, also when both are of one process.

func read(fd uintptr, p []byte) (int, syscall.Errno) { return of(syscall.Read(int(fd), p)) }

func write(fd uintptr, a, _ []byte) (int, syscall.Errno) { return of(syscall.Write(int(fd), a)) }

func of(n int, err error) (int, syscall.Errno) {
	if err == nil {
		return n, 0
	}
	return 0, err.(syscall.Errno)
}
