// Package lean has a process hold no more memory than it uses. Begin at Shed.
package lean

import (
	"bufio"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Settled is how long after its start, or after a deploy, a process has done what it did for that alone: time for Shed.
const Settled = 5 * time.Second

// Shed gives memory back that only the start of the process needed: of the heap, and of the binary. Starting
// initialises every package of it, of which this process uses few; the kernel reads what is wanted again
// from the file, which other processes of the house hold in memory anyway.
func Shed() {
	debug.FreeOSMemory()
	binary, err := os.Executable()
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for s := bufio.NewScanner(maps); s.Scan(); {
		// "00400000-02a00000 r-xp 00000000 fe:00 1234 /usr/bin/tenfold"
		f := strings.Fields(s.Text())
		if len(f) < 6 || f[5] != binary || len(f[1]) < 4 || f[1][1] != '-' || f[1][3] != 'p' { // what can be written is not in the file
			continue
		}
		low, high, ok := bounds(f[0])
		if !ok {
			continue
		}
		unix.Syscall(unix.SYS_MADVISE, low, high-low, unix.MADV_DONTNEED) // what it refuses, stays
	}
}

// bounds reads two addresses in hexadecimal, with a dash between.
func bounds(s string) (low, high uintptr, ok bool) {
	at := &low
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9':
			*at = *at<<4 | uintptr(c-'0')
		case c >= 'a' && c <= 'f':
			*at = *at<<4 | uintptr(c-'a'+10)
		case c == '-' && at == &low:
			at = &high
		default:
			return 0, 0, false
		}
	}
	return low, high, low < high
}
