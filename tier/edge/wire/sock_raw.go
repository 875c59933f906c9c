//go:build !race

package wire

import (
	"syscall"
	"unsafe"
)

// read and write are system calls that the scheduler does not hear of.

func read(fd uintptr, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), errno
}

// write writes some of a, or of a and then b; a is not empty. A connection that is gone raises no signal,
// or one that Go ignores.
func write(fd uintptr, a, b []byte) (int, syscall.Errno) {
	if len(b) == 0 {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(a))), uintptr(len(a)), syscall.MSG_NOSIGNAL, 0, 0)
		return int(n), errno
	}
	both := [2]syscall.Iovec{{Base: unsafe.SliceData(a)}, {Base: unsafe.SliceData(b)}}
	both[0].SetLen(len(a))
	both[1].SetLen(len(b))
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&both)), uintptr(len(both)))
	return int(n), errno
}
