package function

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"tenfold/internal/tasklog"
	"tenfold/tier/function/runtimeapi"
)

const (
	tailMost = 4 << 10 // of the output that a caller may ask for
	// tailWait is how long the tail waits for output on its way through the keeper: all of it where nothing comes.
	tailWait, tailPace = 300 * time.Millisecond, 10 * time.Millisecond
	platformLog        = "platform.log"
)

// logs writes the lines that Lambda itself writes: REPORT, and what went wrong.
type logs struct {
	mu    sync.Mutex
	w     *tasklog.Writer
	timer *time.Timer // of a flush, when one is due
	path  string
	max   int64
}

// flushAfter is how long lines may wait for others, to be written with them.
const flushAfter = 100 * time.Millisecond

func newLogs(g Goal) *logs {
	return &logs{path: filepath.Join(g.LogDir, platformLog), max: max(g.Logs.Max/8, 64<<10)}
}

func (l *logs) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if l.w != nil {
		l.w.Close()
		l.w = nil
	}
}

func (l *logs) add(failed bool, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.w == nil {
		if os.MkdirAll(filepath.Dir(l.path), 0o750) != nil {
			return
		}
		w, err := tasklog.Create(l.path, l.max, 1)
		if err != nil {
			return
		}
		l.w = w
	}
	l.w.Add(time.Now(), failed, false, []byte(line))
	if l.timer == nil {
		l.timer = time.AfterFunc(flushAfter, l.flush)
	}
}

func (l *logs) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	if l.w != nil {
		l.w.Flush()
	}
}

// report writes an invocation's REPORT and gives it.
func (l *logs) report(e *environment, g Goal, request string, began time.Time, out Outcome, err error) string {
	ms := float64(out.Took) / float64(time.Millisecond)
	used := e.memory(began)
	line := fmt.Sprintf("REPORT RequestId: %s\tDuration: %.2f ms\tBilled Duration: %.0f ms\tMemory Size: %d MB\tMax Memory Used: %d MB", request, ms, math.Ceil(ms), g.Size.Memory>>20, used)
	if out.Init > 0 {
		line += fmt.Sprintf("\tInit Duration: %.2f ms", float64(out.Init)/float64(time.Millisecond))
	}
	if err != nil {
		line += "\tStatus: error\tError Type: " + kindOf(err)
	}
	l.add(err != nil, line)
	status := "success"
	if err != nil {
		status = "error"
	}
	e.told("platform.runtimeDone", map[string]any{"requestId": request, "status": status, "metrics": map[string]any{"durationMs": ms}})
	e.told("platform.report", map[string]any{"requestId": request, "status": status, "metrics": map[string]any{"durationMs": ms, "billedDurationMs": math.Ceil(ms), "memorySizeMB": g.Size.Memory >> 20, "maxMemoryUsedMB": used}})
	return line
}

func kindOf(err error) string {
	if f, ok := err.(*runtimeapi.Failure); ok {
		return f.Type
	}
	return "Unknown"
}

// tail gives the last of what the function said in an invocation, in Lambda's frame. Output is on its way
// through a pipe when the answer has come: it is waited for until it is still.
func (l *logs) tail(e *environment, request string, began time.Time, report string) []byte {
	var lines []tasklog.Line
	for waited := time.Duration(0); ; waited += tailPace {
		now, err := tasklog.Read(e.log, tasklog.Options{Since: began.Add(-time.Millisecond)})
		if err != nil || waited >= tailWait || waited >= 2*tailPace && len(now) > 0 && len(now) == len(lines) {
			lines = now
			break
		}
		lines = now
		time.Sleep(tailPace)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "START RequestId: %s Version: $LATEST\n", request)
	for _, x := range lines {
		b.WriteString(x.Text + "\n")
	}
	fmt.Fprintf(&b, "END RequestId: %s\n%s\n", request, report)
	out := b.Bytes()
	return out[max(0, len(out)-tailMost):]
}

// peak reads VmHWM of /proc/<pid>/status, in MiB.
func peak(status []byte) int {
	_, rest, ok := strings.Cut(string(status), "VmHWM:")
	if !ok {
		return 0
	}
	f := strings.Fields(rest)
	kb, err := strconv.Atoi(f[0])
	if err != nil {
		return 0
	}
	return (kb + 1023) / 1024
}
