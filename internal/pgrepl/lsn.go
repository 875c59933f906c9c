// Package pgrepl speaks PostgreSQL's replication protocol (14 to 18) over a pgconn connection that was
// opened with replication=true: base backups with their manifest checked, and the stream of WAL. It
// needs no client tools, decides nothing and starts nothing: the caller connects, and its context ends
// what was begun. Begin at Clone for a standby, at Backup for a stream to keep, at Stream for WAL.
package pgrepl

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the WAL, in bytes.
type LSN uint64

// ParseLSN reads "16/B374D848".
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	h, err := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if !ok || err != nil || err2 != nil {
		return 0, fmt.Errorf("parse WAL position %q: want two hexadecimal numbers and a slash", s)
	}
	return LSN(h<<32 | l), nil
}

// String is how PostgreSQL writes it.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// Segment is the name of the WAL file that holds l, of a server with segments of size bytes.
func (l LSN) Segment(timeline uint32, size uint64) string {
	n := uint64(l) / size
	per := uint64(1<<32) / size
	return fmt.Sprintf("%08X%08X%08X", timeline, uint32(n/per), uint32(n%per))
}
