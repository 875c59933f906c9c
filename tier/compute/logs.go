package compute

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tenfold"
)

// sweepPace is how often it is looked at how much output of a service is kept.
const sweepPace = time.Minute

// logDir is the folder of a resource's logs.
func (c *Compute) logDir(id tenfold.ID) string {
	return filepath.Join(c.cfg.Dir, "logs", filepath.FromSlash(string(id.App)+"/"+string(id.Env)+"/"+string(id.Kind)+"/"+string(id.Name)))
}

// LogPaths lists the log files of a service, its build, or a job, oldest first.
func (c *Compute) LogPaths(id tenfold.ID) []string {
	var out []string
	for _, f := range stored(filepath.Join(c.logDir(id), "*.log")) {
		out = append(out, f.path)
	}
	return out
}

// logFile is a file of output.
type logFile struct {
	path string
	at   time.Time // of its last line
	size int64
}

// stored lists files, oldest first.
func stored(pattern string) (out []logFile) {
	paths, _ := filepath.Glob(pattern)
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil {
			out = append(out, logFile{p, info.ModTime(), info.Size()})
		}
	}
	slices.SortFunc(out, func(a, b logFile) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.path, b.path)) })
	return out
}

// sweepLogs forgets output that is older than Keep, and of what is more than Max in all the oldest. The file that a
// living task writes to stays: its writer has it open, and would write where nobody reads.
func (c *Compute) sweepLogs(id tenfold.ID, l tenfold.Logs, written map[string]bool, now time.Time) {
	files := stored(filepath.Join(c.logDir(id), "*.log*"))
	total := int64(0)
	for _, f := range files {
		total += f.size
	}
	for _, f := range files {
		old, much := l.Keep > 0 && now.Sub(f.at) >= l.Keep, l.Max > 0 && total > l.Max
		if (old || much) && !written[f.path] && os.Remove(f.path) == nil { // or the next time
			total -= f.size
		}
	}
}

// removeLog deletes a log with what was rotated of it. What cannot be deleted stays.
func removeLog(path string) {
	for _, f := range stored(path + "*") {
		_ = os.Remove(f.path)
	}
}
