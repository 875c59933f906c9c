package httpcache

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// respond answers from an entry: conditionals, ranges, HEAD and content codings included. status is the
// member for Cache-Status.
func (c *Cache) respond(w http.ResponseWriter, q *request, e *entry, status string) {
	if e.part != nil {
		c.respondPart(w, q, e, status)
		return
	}
	form := e.forms[identity].Load()
	if !q.ranged {
		form = c.formFor(e, headerFields(q.r.Header))
	}
	h := w.Header()
	for name, values := range form.header {
		h[name] = append([]string(nil), values...)
	}
	h.Set("Age", strconv.FormatInt(form.Age(q.now), 10))
	h.Add("Cache-Status", status)
	if e.status == http.StatusOK {
		if notModified(q.r.Header, form.header, q.now) {
			writeNotModified(w)
			return
		}
		if q.ranged && q.r.Method == http.MethodGet && rangeApplies(q.r.Header, form.header, q.now) {
			if c.respondRanges(w, q, form) {
				return
			}
		}
	}
	w.WriteHeader(e.status)
	if q.r.Method != http.MethodHead && bodyAllowed(e.status) {
		w.Write(form.Body)
	}
}

// writeNotModified sends 304 with the fields that RFC 9110 §15.4.5 wants; w has the stored ones.
func writeNotModified(w http.ResponseWriter) {
	h := w.Header()
	for _, name := range []string{"Content-Length", "Content-Type", "Content-Encoding", "Content-Range"} {
		delete(h, name)
	}
	w.WriteHeader(http.StatusNotModified)
}

// notModified evaluates If-None-Match, else If-Modified-Since (RFC 9111 §4.3.2, RFC 9110 §13.1).
func notModified(req, stored http.Header, now time.Time) bool {
	if lines := req["If-None-Match"]; len(lines) > 0 {
		return etagListed(lines, stored.Get("Etag"))
	}
	lines := req["If-Modified-Since"]
	if len(lines) != 1 {
		return false
	}
	since, ok := parseDate(lines[0], now)
	if !ok {
		return false
	}
	modified, ok := parseDate(stored.Get("Last-Modified"), now)
	if !ok {
		if modified, ok = parseDate(stored.Get("Date"), now); !ok {
			return false
		}
	}
	return !modified.After(since)
}

// etagListed compares weakly (RFC 9110 §8.8.3.2) with each member of If-None-Match.
func etagListed(lines []string, etag string) bool {
	for _, line := range lines {
		for line = strings.Trim(line, " \t,"); line != ""; line = strings.TrimLeft(line, " \t,") {
			if line[0] == '*' {
				return true
			}
			var one string
			one, line = nextETag(line)
			if one != "" && etag != "" && opaque(one) == opaque(etag) {
				return true
			}
		}
	}
	return false
}

// nextETag cuts an entity tag off a list. What is not quoted ends at the next comma.
func nextETag(s string) (tag, rest string) {
	i := 0
	if strings.HasPrefix(s, "W/") {
		i = 2
	}
	if i < len(s) && s[i] == '"' {
		if j := strings.IndexByte(s[i+1:], '"'); j >= 0 {
			return s[:i+j+2], s[i+j+2:]
		}
	}
	tag, rest, _ = strings.Cut(s, ",")
	return strings.TrimRight(tag, " \t"), rest
}

func opaque(etag string) string { return strings.TrimPrefix(etag, "W/") }

func strong(etag string) bool { return len(etag) >= 2 && etag[0] == '"' }

// rangeApplies evaluates If-Range: a strong entity tag or the exact Last-Modified, itself strong
// (RFC 9110 §13.1.5).
func rangeApplies(req, stored http.Header, now time.Time) bool {
	lines := req["If-Range"]
	if len(lines) == 0 {
		return true
	}
	v := strings.Trim(lines[0], " \t")
	if strings.HasPrefix(v, `"`) || strings.HasPrefix(v, "W/") {
		return strong(v) && v == stored.Get("Etag")
	}
	date, ok := parseDate(stored.Get("Date"), now)
	modified, ok2 := parseDate(stored.Get("Last-Modified"), now)
	asked, ok3 := parseDate(v, now)
	return ok && ok2 && ok3 && asked.Equal(modified) && date.Sub(modified).Seconds() >= 1
}

// byteRange is first and last position, both included.
type byteRange struct{ first, last int64 }

func (b byteRange) length() int64 { return b.last - b.first + 1 }

func (b byteRange) contentRange(total int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", b.first, b.last, total)
}

// maxRanges in one request; more are answered with the whole.
const maxRanges = 16

// parseRange reads Range against a size. valid is false for what is to be ignored: another unit, a
// syntax error, too many. No range is left when none can be satisfied: 416.
func parseRange(lines []string, size int64) (out []byteRange, valid bool) {
	if len(lines) != 1 {
		return nil, false
	}
	unit, list, ok := strings.Cut(lines[0], "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return nil, false
	}
	n := 0
	for _, spec := range strings.Split(list, ",") {
		spec = strings.Trim(spec, " \t")
		if spec == "" {
			continue
		}
		if n++; n > maxRanges {
			return nil, false
		}
		from, to, ok := strings.Cut(spec, "-")
		if !ok {
			return nil, false
		}
		first, last := position(from), position(to)
		switch {
		case first == -2 || last == -2 || first < 0 && last < 0:
			return nil, false
		case first < 0: // the last bytes
			if last > 0 && size > 0 {
				out = append(out, byteRange{max(0, size-last), size - 1})
			}
		case last >= 0 && last < first:
			return nil, false
		case first < size:
			if last < 0 || last >= size {
				last = size - 1
			}
			out = append(out, byteRange{first, last})
		}
	}
	return out, n > 0
}

// position reads digits: -1 for none, -2 for what is no number; too large is the largest.
func position(s string) int64 {
	if s == "" {
		return -1
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return -2
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 1<<63 - 1
	}
	return n
}

// respondRanges answers 206 or 416 from a whole body; false: the whole is to be sent.
func (c *Cache) respondRanges(w http.ResponseWriter, q *request, form *Stored) bool {
	size := int64(len(form.Body))
	ranges, valid := parseRange(q.r.Header["Range"], size)
	if !valid {
		return false
	}
	h := w.Header()
	var total int64
	for _, b := range ranges {
		total += b.length()
	}
	switch {
	case len(ranges) == 0:
		for _, name := range []string{"Content-Type", "Content-Encoding", "Etag", "Last-Modified"} {
			delete(h, name)
		}
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
	case total > size:
		return false // overlapping: the whole is shorter (RFC 9110 §14.2)
	case len(ranges) == 1:
		b := ranges[0]
		h.Set("Content-Range", b.contentRange(size))
		h.Set("Content-Length", strconv.FormatInt(b.length(), 10))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(form.Body[b.first : b.last+1])
	default:
		writeMultipart(w, ranges, form.Body)
	}
	return true
}

// writeMultipart sends several ranges (RFC 9110 §15.3.7.2).
func writeMultipart(w http.ResponseWriter, ranges []byteRange, body []byte) {
	h := w.Header()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	for _, r := range ranges {
		head := textproto.MIMEHeader{"Content-Range": {r.contentRange(int64(len(body)))}}
		if t := h.Get("Content-Type"); t != "" {
			head.Set("Content-Type", t)
		}
		part, err := m.CreatePart(head)
		if err != nil {
			return
		}
		part.Write(body[r.first : r.last+1])
	}
	m.Close()
	h.Set("Content-Type", "multipart/byteranges; boundary="+m.Boundary())
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(http.StatusPartialContent)
	io.Copy(w, &b)
}

// wants is the single range that a request asks for of a part whose whole has the size total.
func (e *entry) wants(q *request) (byteRange, bool) {
	if !q.ranged || q.r.Method != http.MethodGet || e.part.Total < 0 || !rangeApplies(q.r.Header, e.header, q.now) {
		return byteRange{}, false
	}
	ranges, valid := parseRange(q.r.Header["Range"], e.part.Total)
	if !valid || len(ranges) != 1 || ranges[0].first < e.part.First || ranges[0].last > e.part.Last {
		return byteRange{}, false
	}
	return ranges[0], true
}

// respondPart answers a range that a stored part covers.
func (c *Cache) respondPart(w http.ResponseWriter, q *request, e *entry, status string) {
	b, ok := e.wants(q)
	if !ok {
		panic("httpcache: a part was chosen that does not cover the range")
	}
	form := e.forms[identity].Load()
	h := w.Header()
	for name, values := range form.header {
		h[name] = append([]string(nil), values...)
	}
	h.Set("Age", strconv.FormatInt(form.Age(q.now), 10))
	h.Add("Cache-Status", status)
	if notModified(q.r.Header, form.header, q.now) {
		writeNotModified(w)
		return
	}
	h.Set("Content-Range", b.contentRange(e.part.Total))
	h.Set("Content-Length", strconv.FormatInt(b.length(), 10))
	w.WriteHeader(http.StatusPartialContent)
	w.Write(e.body[b.first-e.part.First : b.last-e.part.First+1])
}
