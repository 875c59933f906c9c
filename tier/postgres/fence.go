package postgres

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"tenfold/internal/pgrepl"
)

// killAll kills every process that stands in a data directory: postmaster and backends have it as their
// working directory. The keeper would wait for the backends of a dead postmaster for as long as an
// ordered shutdown may take, and one that runs a statement can still commit.
func killAll(data string) {
	data, err := filepath.EvalSymlinks(data)
	if err != nil {
		return
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !standsIn(pid, data) {
			continue
		}
		// The descriptor holds on to the process: its number may be another's by now.
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if standsIn(pid, data) {
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
	}
}

func standsIn(pid int, dir string) bool {
	at, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	return err == nil && at == dir
}

// finalPosition is where the WAL of a server ends that was shut down in order, by its control file:
// state 1 is a primary that was, and the last checkpoint is then the last record. 0: it was not, or is
// no primary.
func finalPosition(data string) pgrepl.LSN {
	b, err := os.ReadFile(filepath.Join(data, "global", "pg_control"))
	// The first fields have stood where they are since version 9: identifier, versions, state, time, checkpoint.
	if err != nil || len(b) < 40 || binary.NativeEndian.Uint32(b[16:]) != 1 {
		return 0
	}
	return pgrepl.LSN(binary.NativeEndian.Uint64(b[32:]))
}
