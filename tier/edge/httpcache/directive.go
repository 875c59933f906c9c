package httpcache

import (
	"net/http"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// directives is what Cache-Control says (RFC 9111 §5.2), or the targeted field that stands in for it.
// Seconds are -1 where a directive is absent. An invalid freshness counts as 0, stale, as §4.2.1 advises;
// of two, the first counts.
type directives struct {
	noStore, noCache, private, public bool
	mustRevalidate, proxyRevalidate   bool
	mustUnderstand, noTransform       bool
	immutable, onlyIfCached           bool
	noCacheFields, privateFields      []string
	maxAge, sMaxAge                   int64
	staleRevalidate, staleError       int64 // RFC 5861
	maxStale, minFresh                int64 // of requests
}

// maxSeconds is the largest delta-seconds kept: "some value that does not overflow" (RFC 9111 §1.2.2).
const maxSeconds = 1 << 31

func noDirectives() directives {
	return directives{maxAge: -1, sMaxAge: -1, staleRevalidate: -1, staleError: -1, maxStale: -1, minFresh: -1}
}

// parseCacheControl reads the lines of a Cache-Control field.
func parseCacheControl(lines []string) directives {
	d := noDirectives()
	for _, line := range lines {
		for line != "" {
			var name, value string
			var has bool
			name, value, has, line = nextDirective(line)
			if name != "" {
				d.set(strings.ToLower(name), value, has)
			}
		}
	}
	return d
}

// nextDirective cuts the first member off a list of token[=(token|quoted-string)]. Commas inside quotes
// belong to the value. White space around "=" is not part of the grammar: such a name is kept with its
// space, so that it matches nothing.
func nextDirective(s string) (name, value string, has bool, rest string) {
	i := 0
	for i < len(s) && s[i] != ',' && s[i] != '=' {
		i++
	}
	name = s[:i]
	if i == len(s) || s[i] == ',' {
		return strings.Trim(name, " \t"), "", false, s[min(i+1, len(s)):]
	}
	name = strings.TrimLeft(name, " \t")
	i++
	if i < len(s) && s[i] == '"' {
		var b strings.Builder
		for i++; i < len(s) && s[i] != '"'; i++ {
			if s[i] == '\\' && i+1 < len(s) {
				i++
			}
			b.WriteByte(s[i])
		}
		j := strings.IndexByte(s[min(i+1, len(s)):], ',')
		if j < 0 {
			return name, b.String(), true, ""
		}
		return name, b.String(), true, s[i+1+j+1:]
	}
	j := strings.IndexByte(s[i:], ',')
	if j < 0 {
		j = len(s) - i
	}
	return name, strings.TrimRight(s[i:i+j], " \t"), true, s[min(i+j+1, len(s)):]
}

func (d *directives) set(name, value string, has bool) {
	switch name {
	case "no-store":
		d.noStore = true
	case "no-cache":
		d.noCacheFields, d.noCache = fieldList(d.noCacheFields, value, has, d.noCache)
	case "private":
		d.privateFields, d.private = fieldList(d.privateFields, value, has, d.private)
	case "public":
		d.public = true
	case "must-revalidate":
		d.mustRevalidate = true
	case "proxy-revalidate":
		d.proxyRevalidate = true
	case "must-understand":
		d.mustUnderstand = true
	case "no-transform":
		d.noTransform = true
	case "immutable":
		d.immutable = true
	case "only-if-cached":
		d.onlyIfCached = true
	case "max-age":
		first(&d.maxAge, seconds(value, 0))
	case "s-maxage":
		first(&d.sMaxAge, seconds(value, 0))
	case "stale-while-revalidate":
		first(&d.staleRevalidate, seconds(value, -1))
	case "stale-if-error":
		first(&d.staleError, seconds(value, -1))
	case "min-fresh":
		first(&d.minFresh, seconds(value, -1))
	case "max-stale":
		if !has {
			value = "2147483648" // any staleness
		}
		first(&d.maxStale, seconds(value, -1))
	}
}

// fieldList reads the argument of no-cache or private: names of fields that alone are meant, or nothing:
// the whole response.
func fieldList(have []string, value string, has, whole bool) ([]string, bool) {
	if !has {
		return have, true
	}
	for _, f := range strings.Split(value, ",") {
		if f = strings.Trim(f, " \t"); f != "" {
			have = append(have, http.CanonicalHeaderKey(f))
		}
	}
	return have, whole || len(have) == 0
}

func first(into *int64, v int64) {
	if *into < 0 {
		*into = v
	}
}

// seconds reads delta-seconds (RFC 9111 §1.2.2); what is none gives invalid.
func seconds(s string, invalid int64) int64 {
	if s == "" {
		return invalid
	}
	var n int64
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return invalid
		}
		if n = n*10 + int64(s[i]-'0'); n > maxSeconds {
			n = maxSeconds
		}
	}
	return n
}

// parseTargeted reads CDN-Cache-Control (RFC 9213 §2.1, a structured dictionary). ok is false when the
// field is absent, empty or invalid: then it does not count at all. A known directive of the wrong type
// makes it invalid too, which is the safe reading.
func parseTargeted(lines []string) (d directives, ok bool) {
	if len(lines) == 0 {
		return d, false
	}
	dict, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil || len(dict.Names()) == 0 {
		return d, false
	}
	d = noDirectives()
	for _, name := range dict.Names() {
		member, _ := dict.Get(name)
		item, isItem := member.(httpsfv.Item)
		if !isItem {
			if targetedKind(name) != 0 {
				return d, false
			}
			continue
		}
		switch v := item.Value.(type) {
		case int64:
			switch targetedKind(name) {
			case 'i':
				if v < 0 {
					return d, false
				}
				d.setSeconds(name, min(v, maxSeconds))
			case 'b', 'f':
				return d, false
			}
		case bool:
			switch targetedKind(name) {
			case 'i':
				return d, false
			case 'b', 'f':
				if v {
					d.set(name, "", false)
				}
			}
		case string:
			switch targetedKind(name) {
			case 'f':
				d.set(name, v, true)
			case 'i', 'b':
				return d, false
			}
		default:
			if targetedKind(name) != 0 {
				return d, false
			}
		}
	}
	return d, true
}

// targetedKind is the type that a directive's value has: integer, boolean, or boolean or list of fields.
func targetedKind(name string) byte {
	switch name {
	case "max-age", "s-maxage", "stale-while-revalidate", "stale-if-error":
		return 'i'
	case "no-store", "public", "must-revalidate", "proxy-revalidate", "must-understand", "no-transform", "immutable":
		return 'b'
	case "no-cache", "private":
		return 'f'
	}
	return 0
}

func (d *directives) setSeconds(name string, v int64) {
	switch name {
	case "max-age":
		d.maxAge = v
	case "s-maxage":
		d.sMaxAge = v
	case "stale-while-revalidate":
		d.staleRevalidate = v
	case "stale-if-error":
		d.staleError = v
	}
}

// parseDate reads an HTTP-date in its three forms (RFC 9110 §5.6.7), in any case, and nothing that merely
// resembles one: net/http.ParseTime takes one-digit hours, for example. now decides the century of the
// obsolete form with two digits.
func parseDate(s string, now time.Time) (time.Time, bool) {
	if shaped(s, "aaa, 99 aaa 9999 99:99:99 GMT") {
		t, err := time.Parse("Mon, 02 Jan 2006 15:04:05", s[:len(s)-4])
		return t, err == nil
	}
	if shaped(s, "aaa aaa x9 99:99:99 9999") {
		t, err := time.Parse("Mon Jan _2 15:04:05 2006", s)
		return t, err == nil
	}
	i := strings.IndexByte(s, ',')
	if i < 6 || i > 9 || !shaped(s[i:], ", 99-aaa-99 99:99:99 GMT") {
		return time.Time{}, false
	}
	t, err := time.Parse("Monday, 02-Jan-06 15:04:05", s[:len(s)-4])
	if err != nil {
		return time.Time{}, false
	}
	century := now.Year() / 100 * 100
	t = t.AddDate(century+t.Year()%100-t.Year(), 0, 0)
	if t.After(now.AddDate(50, 0, 0)) {
		t = t.AddDate(-100, 0, 0)
	}
	return t, true
}

// shaped compares with a pattern: a letter, 9 digit, x digit or space, everything else itself in any case.
func shaped(s, pattern string) bool {
	if len(s) != len(pattern) {
		return false
	}
	for i := 0; i < len(s); i++ {
		c, digit := s[i], s[i] >= '0' && s[i] <= '9'
		switch pattern[i] {
		case 'a':
			if lower(c) < 'a' || lower(c) > 'z' {
				return false
			}
		case '9':
			if !digit {
				return false
			}
		case 'x':
			if !digit && c != ' ' {
				return false
			}
		default:
			if lower(c) != lower(pattern[i]) {
				return false
			}
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// parseAge reads Age (RFC 9111 §5.1): the first member of the first line counts, what is no number is
// ignored.
func parseAge(lines []string) time.Duration {
	if len(lines) == 0 {
		return 0
	}
	v, _, _ := strings.Cut(lines[0], ",")
	if n := seconds(strings.Trim(v, " \t"), -1); n >= 0 {
		return time.Duration(n) * time.Second
	}
	return 0
}
