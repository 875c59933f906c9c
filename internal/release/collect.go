package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"tenfold/internal/atomicfile"
)

// Policy says which releases Collect leaves.
type Policy struct {
	// Keep is how long a release stays after a page of it was served last, at least Day (also the
	// default): a browser may ask so long for the files that such a page names.
	Keep time.Duration
	// Newest is how many of the newest releases stay whatever their age, for instant rollback (5).
	Newest int
}

// Day is the least time for which a file that a served page names stays.
const Day = 24 * time.Hour

// inFlight is how long a request that saw the old link may go on answering from the old release.
const inFlight = 10 * time.Minute

func (s Site) leftPath(id string) string { return filepath.Join(s.Dir, "left", id) }

// left notes that a release stops being served now. It is written before the link is switched: a crash
// between the two leaves a note of a release that is still current, which the next switch corrects.
func (s Site) left(id string, now time.Time) error {
	if err := os.MkdirAll(filepath.Join(s.Dir, "left"), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(s.leftPath(id), []byte(now.UTC().Format(time.RFC3339Nano)+"\n"), 0o644)
}

// LeftAt is when a release was served last: the zero time when it never was, or has been since before
// that was noted.
func (s Site) LeftAt(id string) (time.Time, error) {
	if !idForm.MatchString(id) {
		return time.Time{}, fmt.Errorf("read when release %q was served: %w", id, fs.ErrNotExist)
	}
	b, err := os.ReadFile(s.leftPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read when release %s was served: %w", id, err)
	}
	t, err := time.Parse(time.RFC3339Nano, string(trimNewline(b)))
	if err != nil {
		return time.Time{}, fmt.Errorf("read when release %s was served: %w", id, err)
	}
	return t, nil
}

func trimNewline(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		return b[:n-1]
	}
	return b
}

// Collect removes the releases that the policy does not keep, and the blobs that none of the others
// holds, and returns the IDs removed. A release is removed only when it is not the current one, is not
// among the newest, was made and was served last longer than Keep before now. What cannot be told
// (a note that cannot be read) is kept. Like all that writes it is for the site's one writer.
func (s Site) Collect(now time.Time, p Policy) ([]string, error) {
	keep, newest := max(p.Keep, Day)+inFlight, p.Newest
	if newest <= 0 {
		newest = 5
	}
	current, err := s.Current()
	if err != nil {
		return nil, fmt.Errorf("collect releases: %w", err)
	}
	all, err := s.Heads()
	if err != nil {
		return nil, fmt.Errorf("collect releases: %w", err)
	}
	var old []string
	for i, r := range all {
		if i < newest || r.ID == current || now.Sub(r.Created) <= keep {
			continue
		}
		if left, err := s.LeftAt(r.ID); err != nil || now.Sub(left) <= keep {
			continue
		}
		old = append(old, r.ID)
	}
	if len(old) == 0 {
		return nil, nil
	}
	if err := s.Remove(old...); err != nil {
		return nil, fmt.Errorf("collect releases: %w", err)
	}
	return old, nil
}
