package postgres

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"tenfold/internal/pgrepl"
)

// killAll kills every process of the server that stands in a data directory: postmaster and backends have
// it as their working directory. Whoever else looks around there is left alone. The keeper would wait for the backends of a dead postmaster for as long as an
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
	proc := "/proc/" + strconv.Itoa(pid)
	at, err := os.Readlink(proc + "/cwd")
	if err != nil || at != dir {
		return false
	}
	program, err := os.Readlink(proc + "/exe") // "postgres (deleted)" after an upgrade
	return err == nil && strings.HasPrefix(filepath.Base(program), "postgres")
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
