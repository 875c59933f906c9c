package manifest

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"tenfold"
	"tenfold/internal/lazy"
)

// The readers of types. Each reports at the node and says false when the text is wrong.

var (
	quantity  = lazy.Regexp(`^([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([A-Za-zµ]*)$`)
	rangeText = lazy.Regexp(`^([0-9]{1,6}(?:\.[0-9]{1,3})?)(?:\s*-\s*([0-9]{1,6}(?:\.[0-9]{1,3})?))?$`)
	hostText  = lazy.Regexp(`^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	pathText  = lazy.Regexp(`^/[!-~]*$`)
	segment   = lazy.Regexp(`^:[A-Za-z_][A-Za-z0-9_]*$`)
	// provided is the runtime of a function that is a program by itself.
	provided   = "provided"
	runtimes   = []string{"node", "go", "python", "ruby", "php", "deno", "bun", "static"}
	runtimeNow = lazy.Regexp(`^([a-z]+)(?:-([0-9]+(?:\.[0-9]+){0,2}))?$`)
	methods    = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
	timeUnits  = map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
	sizeUnits  = map[string]int64{"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
)

// maxDuration bounds what the language can say: ten years.
const maxDuration = 3650 * 24 * time.Hour

func readDuration(r *reporter, n *yaml.Node, path string) (time.Duration, bool) {
	s := n.Value
	m := quantity.FindStringSubmatch(s)
	switch {
	case m == nil:
		r.at(n, "write one number and one unit: 250ms 10s 5m 2h 7d", "%s: %q is not a duration", path, cut(s, 40))
		return 0, false
	case m[2] == "":
		r.at(n, "did you mean "+m[1]+"s or "+m[1]+"m?", "%s: %s has no unit", path, m[1])
		return 0, false
	case timeUnits[m[2]] == 0:
		hint := "units of time: ms s m h d"
		if u := timeWord(m[2]); u != "" {
			hint = "write " + m[1] + u
		}
		r.at(n, hint, "%s: %q is not a duration: no unit %q", path, cut(s, 40), m[2])
		return 0, false
	}
	f, _ := strconv.ParseFloat(m[1], 64)
	f *= float64(timeUnits[m[2]])
	if f > float64(maxDuration) || f < float64(time.Millisecond) {
		r.at(n, "from 1ms to 3650d", "%s: %s is out of bounds", path, cut(s, 40))
		return 0, false
	}
	return time.Duration(f).Round(time.Microsecond), true
}

func timeWord(u string) string {
	switch strings.ToLower(strings.TrimSuffix(strings.ToLower(u), "s")) {
	case "sec", "second", "":
		return "s"
	case "min", "minute":
		return "m"
	case "h", "hr", "hour":
		return "h"
	case "d", "day":
		return "d"
	case "milli", "millisecond", "m":
		return "ms"
	}
	return ""
}

func readSize(r *reporter, n *yaml.Node, path string) (int64, bool) {
	s := n.Value
	m := quantity.FindStringSubmatch(s)
	switch {
	case m == nil:
		r.at(n, "write one number and one unit: 32kb 512mb 5gb", "%s: %q is not a size", path, cut(s, 40))
		return 0, false
	case m[2] == "":
		r.at(n, "did you mean "+m[1]+"mb or "+m[1]+"gb?", "%s: %s has no unit", path, m[1])
		return 0, false
	case sizeUnits[m[2]] == 0:
		hint := "units of size: kb mb gb tb, powers of 1024"
		if u := strings.ToLower(m[2][:1]) + "b"; sizeUnits[u] != 0 {
			hint = "write " + m[1] + u + ": sizes are powers of 1024"
		}
		r.at(n, hint, "%s: %q is not a size: no unit %q", path, cut(s, 40), m[2])
		return 0, false
	}
	f, _ := strconv.ParseFloat(m[1], 64)
	f *= float64(sizeUnits[m[2]])
	if f < 1 || f > float64(int64(1)<<50) {
		r.at(n, "from 1kb to 1024tb", "%s: %s is out of bounds", path, cut(s, 40))
		return 0, false
	}
	return int64(f), true
}

// parseRange splits "1-20", "0.5-8" or "3", the range of one number.
func parseRange(s string) (low, high string, ok bool) {
	m := rangeText.FindStringSubmatch(s)
	if m == nil {
		return "", "", false
	}
	if m[2] == "" {
		return m[1], m[1], true
	}
	return m[1], m[2], true
}

// readShare reads "5%": above 0, at most 1.
func readShare(r *reporter, n *yaml.Node, path string) (float64, bool) {
	number, percent := strings.CutSuffix(n.Value, "%")
	f, err := strconv.ParseFloat(number, 64)
	switch {
	case err == nil && !percent:
		r.at(n, "did you mean "+cut(number, 20)+"%?", "%s: %s has no %%", path, cut(n.Value, 40))
	case err != nil || f <= 0 || f > 100 || len(number) > 12:
		r.at(n, "write a share above 0 and up to 100%", "%s: %q is not a share", path, cut(n.Value, 40))
	default:
		return f / 100, true
	}
	return 0, false
}

// readRate reads "50/s": so many in a second, minute or hour.
func readRate(r *reporter, n *yaml.Node, path string) (count int, per time.Duration) {
	number, unit, _ := strings.Cut(n.Value, "/")
	per = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	count, err := strconv.Atoi(number)
	switch {
	case err == nil && unit == "":
		r.at(n, "did you mean "+number+"/s or "+number+"/m?", "%s: %s has no unit", path, cut(n.Value, 40))
	case err != nil || per == 0 || len(number) > 7:
		r.at(n, "write a whole number and a unit: 50/s 300/m 1000/h", "%s: %q is not a rate", path, cut(n.Value, 40))
	case count < 1:
		r.at(n, "write at least 1/h, or leave the limit out", "%s: a rate of %d lets nothing pass", path, count)
	}
	return count, per
}

func readCount(r *reporter, n *yaml.Node, path string, low, high int) (int, bool) {
	i, err := strconv.Atoi(n.Value)
	if err != nil || len(n.Value) > 9 {
		r.at(n, "write a whole number", "%s: %q is not a whole number", path, cut(n.Value, 40))
		return 0, false
	}
	if i < low || i > high {
		r.at(n, "from "+itoa(low)+" to "+itoa(high), "%s: %d is out of bounds", path, i)
		return 0, false
	}
	return i, true
}

func readCPU(r *reporter, n *yaml.Node, path string) (float64, bool) {
	f, err := strconv.ParseFloat(n.Value, 64)
	if err != nil || math.IsNaN(f) || f < 0.01 || f > 1024 {
		r.at(n, "write cores, for example 0.5 or 2", "%s: %q is not a number of cores", path, cut(n.Value, 40))
		return 0, false
	}
	return f, true
}

func readBool(r *reporter, n *yaml.Node, path string) (bool, bool) {
	if n.Tag == "!!bool" {
		return !isFalse(n), true
	}
	r.at(n, "write true or false", "%s: %q is neither true nor false", path, cut(n.Value, 40))
	return false, false
}

func readWord(r *reporter, n *yaml.Node, path string, words []string) (string, bool) {
	if slices.Contains(words, n.Value) {
		return n.Value, true
	}
	hint := "one of: " + strings.Join(words, ", ")
	if w := nearest(n.Value, words); w != "" {
		hint = "did you mean " + w + "?"
	}
	r.at(n, hint, "%s: %q is not known here", path, cut(n.Value, 40))
	return "", false
}

func readStatus(r *reporter, n *yaml.Node, path string) (low, high int, ok bool) {
	a, b, ok := parseRange(n.Value)
	low, err := strconv.Atoi(a)
	high, err2 := strconv.Atoi(b)
	if !ok || err != nil || err2 != nil || low < 100 || high > 599 || low > high {
		r.at(n, "write 200 or 200-399", "%s: %q is not a range of HTTP statuses", path, cut(n.Value, 40))
		return 0, 0, false
	}
	return low, high, true
}

// readList takes a text or a list of texts.
func readList(r *reporter, n *yaml.Node, path, what string) ([]*yaml.Node, bool) {
	if n.Kind == yaml.ScalarNode {
		return []*yaml.Node{n}, true
	}
	for _, c := range n.Content {
		if c.Kind != yaml.ScalarNode || isNull(c) {
			r.at(c, "write each as one text", "%s: want a %s, not a %s", path, what, map[bool]string{true: "gap", false: kindWord(c)}[isNull(c)])
			return nil, false
		}
	}
	return n.Content, true
}

func readCommand(r *reporter, n *yaml.Node, path string) (tenfold.Command, bool) {
	parts, ok := readList(r, n, path, "word of a command")
	if !ok {
		return tenfold.Command{}, false
	}
	for _, p := range parts {
		if strings.Contains(p.Value, "\x00") {
			r.at(p, "remove it", "%s: a command cannot hold a zero byte", path)
			return tenfold.Command{}, false
		}
	}
	if n.Kind == yaml.ScalarNode {
		if strings.TrimSpace(n.Value) == "" {
			r.at(n, "write a command, or leave the line out", "%s: the command is empty", path)
			return tenfold.Command{}, false
		}
		return tenfold.Command{Shell: strings.TrimSpace(n.Value)}, true
	}
	if len(parts) == 0 || parts[0].Value == "" {
		r.at(n, "write a program and its arguments: [./api, worker]", "%s: the command is empty", path)
		return tenfold.Command{}, false
	}
	args := make([]string, len(parts))
	for i, p := range parts {
		args[i] = p.Value
	}
	return tenfold.Command{Args: args}, true
}

// readRoute checks "[METHOD ][host]/path", "*" last, ":name" a segment.
func readRoute(r *reporter, n *yaml.Node, path string) (tenfold.Route, bool) {
	bad := func(hint, format string, args ...any) (tenfold.Route, bool) {
		r.at(n, hint, path+": "+format, args...)
		return "", false
	}
	s := n.Value
	shown := cut(s, 60)
	rest := s
	if m, after, ok := strings.Cut(s, " "); ok {
		if !slices.Contains(methods, m) {
			hint := "methods: " + strings.Join(methods, " ")
			if slices.Contains(methods, strings.ToUpper(m)) {
				hint = "write " + strings.ToUpper(m)
			}
			return bad(hint, "route %q: no method %q", shown, cut(m, 20))
		}
		rest = after
	}
	i := strings.IndexByte(rest, '/')
	switch {
	case strings.Contains(rest, "://"):
		return bad("write it without scheme: "+cut(rest[strings.Index(rest, "://")+3:], 60), "route %q: a route has no scheme", shown)
	case i < 0 && strings.Contains(rest, "."):
		return bad("write "+shown+"/*", "route %q has no path", shown)
	case i < 0:
		return bad("write /"+cut(rest, 60), "route %q does not begin with /", shown)
	case i > 0 && !hostText.MatchString(rest[:i]):
		return bad("write /path, or host.example.com/path", "route %q: %q is not a host name", shown, cut(rest[:i], 60))
	}
	p := rest[i:]
	if !pathText.MatchString(p) || strings.ContainsAny(p, "?#") {
		return bad("only a path: letters, digits and - . _ ~ / * :name", "route %q: the path holds a space, ?, # or other character that cannot stand there", shown)
	}
	if j := strings.IndexByte(p, '*'); j >= 0 && j != len(p)-1 {
		return bad("write :name for one segment in the middle: "+cut(strings.ReplaceAll(p[:len(p)-1], "*", ":name")+p[len(p)-1:], 60), "route %q: * stands last only", shown)
	}
	for part := range strings.SplitSeq(p, "/") {
		switch {
		case strings.HasPrefix(part, ":") && !segment.MatchString(part):
			return bad("write :id", "route %q: %q is not a named segment", shown, cut(part, 40))
		case part == "." || part == "..":
			return bad("write the path that is meant", "route %q: a path has no . or .. segment", shown)
		case strings.HasSuffix(part, "*") && part != "*":
			return bad("write "+cut(strings.TrimSuffix(p, "*"), 60)+"/*", "route %q: * stands for whole segments", shown)
		}
	}
	return tenfold.Route(s), true
}

func readRoutes(r *reporter, n *yaml.Node, path string) ([]tenfold.Route, []*yaml.Node) {
	parts, ok := readList(r, n, path, "route")
	if !ok {
		return nil, nil
	}
	var out []tenfold.Route
	var at []*yaml.Node
	for _, p := range parts {
		if route, ok := readRoute(r, p, path); ok {
			if slices.Contains(out, route) {
				r.at(p, "keep one of them", "%s: route %q stands twice", path, cut(p.Value, 60))
				continue
			}
			out, at = append(out, route), append(at, p)
		}
	}
	return out, at
}

func readHosts(r *reporter, n *yaml.Node, path string) []string {
	parts, ok := readList(r, n, path, "host name")
	if !ok {
		return nil
	}
	var out []string
	for _, p := range parts {
		s := p.Value
		switch {
		case strings.Contains(s, "://") || strings.Contains(s, "/"):
			host := s[strings.Index(s, "://")+1:]
			host, _, _ = strings.Cut(strings.TrimLeft(host, "/:"), "/")
			r.at(p, "write "+cut(host, 60), "%s: %q is an address, not a host name", path, cut(s, 60))
		case s != strings.ToLower(s):
			r.at(p, "write "+cut(strings.ToLower(s), 60), "%s: %q: host names are lower-case", path, cut(s, 60))
		case !hostText.MatchString(s) || len(s) > 253:
			r.at(p, "write shop.example.com", "%s: %q is not a host name", path, cut(s, 60))
		case slices.Contains(out, s):
			r.at(p, "keep one of them", "%s: %q stands twice", path, s)
		default:
			out = append(out, s)
		}
	}
	return out
}

// readPath checks a folder or file below another.
func readPath(r *reporter, n *yaml.Node, path string) (string, bool) {
	s := strings.TrimSuffix(strings.TrimPrefix(n.Value, "./"), "/")
	switch {
	case strings.HasPrefix(n.Value, "/"):
		r.at(n, "write it relative to the manifest's folder", "%s: %q is an absolute path", path, cut(n.Value, 60))
	case s == "":
		return ".", true
	case strings.ContainsAny(s, "\\\x00\n") || slices.ContainsFunc(strings.Split(s, "/"), func(p string) bool { return p == ".." || p == "" || p == "." && s != "." }):
		r.at(n, "write a folder below the manifest's, with /", "%s: %q leads out of the project or is not a clean path", path, cut(n.Value, 60))
	default:
		return s, true
	}
	return "", false
}

func readRuntime(r *reporter, n *yaml.Node, path string) (language, version string) {
	if n.Value == provided && strings.Contains(path, "functions.") {
		return provided, ""
	}
	m := runtimeNow.FindStringSubmatch(n.Value)
	if m == nil || !slices.Contains(runtimes, m[1]) {
		hint := "a language and a version, for example node-22; languages: " + strings.Join(runtimes, ", ")
		if w := nearest(strings.SplitN(n.Value, "-", 2)[0], runtimes); w != "" && m != nil {
			hint = "did you mean " + strings.Replace(n.Value, m[1], w, 1) + "?"
		}
		r.at(n, hint, "%s: runtime %q is not known", path, cut(n.Value, 40))
		return "", ""
	}
	return m[1], m[2]
}
