package main

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pollFor waits for events, to the nanosecond where the kernel can (epoll_pwait2, Linux 5.11), else to
// the next millisecond.
func pollFor(poll int, events []unix.EpollEvent, wait time.Duration) (int, error) {
	ts := unix.NsecToTimespec(int64(wait))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(poll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	err := error(errno)
	count := int(n)
	switch {
	case errno == 0:
		return count, nil
	case errors.Is(errno, unix.ENOSYS):
		count, err = unix.EpollWait(poll, events, int((wait+time.Millisecond-1)/time.Millisecond))
	}
	if errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("wait for answers: %w", err)
	}
	return count, nil
}
