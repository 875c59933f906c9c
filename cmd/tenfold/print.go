package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"tenfold"
)

// terminal says whether w is one that wants colour.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// progress prints events as lines: a mark, the name, what happened, how long it took.
type progress struct {
	w     io.Writer
	color bool
	live  bool // a progress line stands on the terminal and is overwritten by the next line
}

func newProgress(w io.Writer) *progress { return &progress{w: w, color: terminal(w)} }

const nameWidth, textWidth = 6, 64

func (p *progress) event(e tenfold.Event) {
	mark, code := "✓", "32"
	switch e.Severity {
	case tenfold.SeverityProgress:
		if !p.color {
			return // a line that will be replaced has no place in a log
		}
		mark, code = "·", "90"
	case tenfold.SeverityWarning:
		mark, code = "!", "33"
	case tenfold.SeverityError, tenfold.SeverityAlarm:
		mark, code = "✗", "31"
	}
	name := string(e.ID.Name)
	if e.ID.Kind == tenfold.KindEdge || name == "" {
		name = "edge"
	}
	if p.live {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.live = false
	}
	line := fmt.Sprintf("%-*s %s", nameWidth-1, name, e.Text)
	if e.Took > 0 {
		line = fmt.Sprintf("%-*s %6s", textWidth, line, took(e.Took))
	}
	if p.color {
		fmt.Fprintf(p.w, "\x1b[%sm%s\x1b[0m %s", code, mark, line)
	} else {
		fmt.Fprintf(p.w, "%s %s", mark, line)
	}
	if e.Severity == tenfold.SeverityProgress {
		p.live = true
		return
	}
	fmt.Fprintln(p.w)
	if e.Detail != "" {
		fmt.Fprintln(p.w, indent(e.Detail))
	}
	if e.Hint != "" && e.Severity != tenfold.SeverityInfo {
		fmt.Fprintf(p.w, "tenfold: hint: %s\n", e.Hint)
	}
}

// took is a duration as people read it: 4ms, 1.8s, 2m10s.
func took(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", max(1, d.Milliseconds()))
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// ago is how long since t.
func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	switch d := time.Since(t); {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd ago", int(d.Hours()/24))
	}
}

// size is a count of bytes as people read it, in powers of 1024.
func size(n int64) string {
	units := []string{"B", "KB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 || v >= 10 {
		return fmt.Sprintf("%.0f %s", v, units[i])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// table prints rows in columns; the first is the head.
func table(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.TrimRight(strings.Join(r, "\t"), "\t"))
	}
	t.Flush()
}
