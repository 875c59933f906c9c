package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// MaxProblems is how many problems one Parse tells.
const MaxProblems = 20

// A Problem is one thing to change in a manifest.
type Problem struct {
	File    string
	Line    int // from 1
	Column  int // from 1, in characters
	Message string
	Hint    string // what to write instead; may be empty
	Source  string // the line as it stands
	Width   int    // characters that are meant, from Column
}

// String is the problem as people see it: place, line with the part marked, hint.
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
	if p.Source != "" {
		n := fmt.Sprint(p.Line)
		fmt.Fprintf(&b, "\n  %s | %s\n  %s | %s%s", n, p.Source, strings.Repeat(" ", len(n)),
			strings.Repeat(" ", max(0, p.Column-1)), strings.Repeat("^", max(1, p.Width)))
	}
	if p.Hint != "" {
		b.WriteString("\ntenfold: hint: " + p.Hint)
	}
	return b.String()
}

// Errors are all problems of a manifest, in the order of its lines; never empty.
type Errors struct{ Problems []Problem }

// Error lists every problem.
func (e *Errors) Error() string {
	parts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		parts[i] = p.String()
	}
	return strings.Join(parts, "\n")
}

// text is the source by lines, for messages.
type text struct {
	name  string
	lines []string
}

func newText(name string, src []byte) *text {
	if len(src) > MaxSize {
		src = src[:MaxSize]
	}
	return &text{name, strings.Split(string(src), "\n")}
}

func (t *text) problem(line, col, width int, msg, hint string) Problem {
	p := Problem{File: t.name, Line: line, Column: col, Message: msg, Hint: hint, Width: width}
	if line >= 1 && line <= len(t.lines) {
		s := strings.TrimRight(t.lines[line-1], "\r ")
		// Control characters of a hostile file do not reach the terminal; a tab is one column.
		s = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f || r == utf8.RuneError || r >= 0x80 && r < 0xa0 {
				return ' '
			}
			return r
		}, strings.TrimPrefix(s, "\ufeff"))
		p.Source = cut(s, 160)
		p.Width = min(p.Width, max(1, utf8.RuneCountInString(p.Source)-col+1))
		if col > utf8.RuneCountInString(p.Source)+1 {
			p.Source = ""
		}
	}
	return p
}

// reporter collects problems and warnings of one reading.
type reporter struct {
	text     *text
	problems []Problem
	warnings []Problem
}

func (r *reporter) failed() bool { return len(r.problems) > 0 }

// at reports a problem at a node; nil means the top of the file.
func (r *reporter) at(n *yaml.Node, hint, format string, args ...any) {
	r.problems = append(r.problems, r.place(n, hint, format, args...))
}

func (r *reporter) warn(n *yaml.Node, hint, format string, args ...any) {
	r.warnings = append(r.warnings, r.place(n, hint, format, args...))
}

func (r *reporter) place(n *yaml.Node, hint, format string, args ...any) Problem {
	line, col, width := 1, 1, 1
	if n != nil {
		line, col, width = max(1, n.Line), max(1, n.Column), 1
		if n.Kind == yaml.ScalarNode {
			width = utf8.RuneCountInString(n.Value)
			if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
				width += 2
			}
		}
	}
	return r.text.problem(line, col, width, fmt.Sprintf(format, args...), hint)
}

// err is nil without problems, else they, sorted and each said once: the same line may be read for
// several environments.
func (r *reporter) err() error {
	if !r.failed() {
		return nil
	}
	ps := unique(r.problems)
	if len(ps) > MaxProblems {
		ps = ps[:MaxProblems]
	}
	return &Errors{ps}
}

func (r *reporter) warned() []Problem { return unique(r.warnings) }

func unique(ps []Problem) []Problem {
	ps = slices.Clone(ps)
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(ps)
}

// cut shortens what a user wrote, so that a message stays a line.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// nearest is the known word closest to s, "" when none is close.
func nearest(s string, known []string) string {
	if len(s) > 64 {
		return ""
	}
	best, dist := "", 1+max(1, len(s)/3)
	for _, k := range known {
		if len(s) >= 3 && strings.HasPrefix(k, s) {
			return k
		}
		if d := distance(s, k); d < dist {
			best, dist = k, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of neighbours from a to b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// didYouMean is the hint for an unknown word.
func didYouMean(s string, known []string) string {
	if n := nearest(s, known); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	if len(known) == 0 {
		return ""
	}
	return "known here: " + strings.Join(known, ", ")
}
