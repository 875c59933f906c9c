package compute

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// tree lists a process and its descendants.
func tree(root int) []int {
	if root <= 0 {
		return nil
	}
	children := map[int][]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []int{root}
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if f := stat(pid); len(f) > 1 {
			parent, _ := strconv.Atoi(f[1])
			children[parent] = append(children[parent], pid)
		}
	}
	out := []int{root}
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out
}

// stat reads the fields of /proc/<pid>/stat after the name: [0] the state, [1] the parent.
func stat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return nil
	}
	return strings.Fields(string(b[i+1:]))
}

// usage sums what processes use: seconds of CPU since they started, and bytes of resident memory.
func usage(pids []int) (cpu float64, rss int64) {
	const ticks = 100 // USER_HZ, the same on every Linux that Go runs on
	for _, pid := range pids {
		f := stat(pid)
		if len(f) < 22 {
			continue
		}
		user, _ := strconv.ParseFloat(f[11], 64)
		system, _ := strconv.ParseFloat(f[12], 64)
		pages, _ := strconv.ParseInt(f[21], 10, 64)
		cpu += (user + system) / ticks
		rss += pages * int64(os.Getpagesize())
	}
	return cpu, rss
}

// listeners finds the TCP addresses that processes listen on.
func listeners(pids []int) []netip.AddrPort {
	inodes := map[string]bool{}
	for _, pid := range pids {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			to, err := os.Readlink(fd)
			if err != nil {
				continue
			}
			if inode, ok := strings.CutPrefix(to, "socket:["); ok {
				inodes[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	var out []netip.AddrPort
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, s := range parseTCP(b) {
			if inodes[s.inode] {
				out = append(out, s.addr)
			}
		}
	}
	return out
}

type socket struct {
	addr  netip.AddrPort
	inode string
}

// parseTCP reads the listening sockets of /proc/net/tcp or tcp6. Addresses are 32-bit words in the
// machine's order (little endian wherever this runs).
func parseTCP(b []byte) []socket {
	var out []socket
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[3] != "0A" {
			continue
		}
		host, port, ok := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(port, 16, 16)
		raw, herr := hex.DecodeString(host)
		if !ok || err != nil || herr != nil || len(raw) != 4 && len(raw) != 16 {
			continue
		}
		for i := 0; i < len(raw); i += 4 {
			raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
		}
		addr, _ := netip.AddrFromSlice(raw)
		out = append(out, socket{netip.AddrPortFrom(addr.Unmap(), uint16(n)), f[9]})
	}
	return out
}
