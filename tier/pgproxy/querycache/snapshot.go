package querycache

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Snapshot is which transactions are seen, as pg_current_snapshot says it.
type Snapshot struct {
	Min, Max uint64 // all before Min are seen, none from Max on
	running  []uint32
}

// ParseSnapshot reads "10:20:10,14,15".
func ParseSnapshot(s string) (Snapshot, error) {
	var out Snapshot
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return out, fmt.Errorf("parse snapshot %q: want three parts", s)
	}
	var err error
	if out.Min, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return out, fmt.Errorf("parse snapshot: %w", err)
	}
	if out.Max, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return out, fmt.Errorf("parse snapshot: %w", err)
	}
	if parts[2] == "" {
		return out, nil
	}
	for x := range strings.SplitSeq(parts[2], ",") {
		n, err := strconv.ParseUint(x, 10, 64)
		if err != nil {
			return out, fmt.Errorf("parse snapshot: %w", err)
		}
		out.running = append(out.running, uint32(n))
	}
	return out, nil
}

// Sees says that a committed transaction's changes are seen. The WAL has the lower half of its number: the
// upper one is that of numbers nearby.
func (s Snapshot) Sees(xid uint32) bool {
	if int32(xid-uint32(s.Min)) < 0 {
		return true
	}
	return int32(xid-uint32(s.Max)) < 0 && !slices.Contains(s.running, xid)
}
