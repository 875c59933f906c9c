// Package tasklog is the format of a unit's output on disk: one line of text an output line,
//
//	2026-11-26T01:02:03.123456789Z o text
//
// with "o" for standard output and "e" for standard error. A line longer than MaxLine is split; all
// parts but the last carry "O" or "E". Files rotate by size: name (newest), name.1, … to name.N.
// Begin at Writer (write.go), Read and Follow (read.go).
package tasklog

import (
	"strconv"
	"strings"
	"time"
)

// MaxLine bounds a stored line's text, in bytes.
const MaxLine = 64 << 10

// stamp has a fixed width, so that stored lines sort as text too.
const stamp = "2006-01-02T15:04:05.000000000Z"

// Line is one line of output.
type Line struct {
	At      time.Time
	Stderr  bool
	Partial bool // the line goes on in the next one
	Text    string
}

// parse reads a stored line.
func parse(s string) (Line, bool) {
	at, rest, ok := strings.Cut(s, " ")
	when, err := time.Parse(time.RFC3339Nano, at)
	if !ok || err != nil || len(rest) < 2 || rest[1] != ' ' {
		return Line{}, false
	}
	l := Line{At: when, Text: rest[2:]}
	switch rest[0] {
	case 'o':
	case 'e':
		l.Stderr = true
	case 'O':
		l.Partial = true
	case 'E':
		l.Stderr, l.Partial = true, true
	default:
		return Line{}, false
	}
	return l, true
}

// old is the name of the i-th newest rotated file.
func old(path string, i int) string { return path + "." + strconv.Itoa(i) }
