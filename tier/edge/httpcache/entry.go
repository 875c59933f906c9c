package httpcache

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

// entry is one stored response. All of it but the atomics is fixed once it is in a tier: freshening makes
// a new entry that shares the body.
type entry struct {
	key     string
	route   string
	release string
	tags    []string
	vary    []varied
	status  int
	header  http.Header // as storedHeader leaves it, with Date
	body    []byte
	part    *span // of what the body is a part (206); nil: whole
	bytes   int64 // charged for header, key and body

	got       time.Time // when the response came
	age0      time.Duration
	lifetime  time.Duration
	rules     entryRules
	language  string // the only Content-Language, lower case
	encodable bool   // coded forms are made

	forms  [codings]atomic.Pointer[Stored] // by coding, identity first
	wanted atomic.Uint32                   // bits of codings asked for
	made   atomic.Uint32                   // bits of codings that were tried

	freq     atomic.Uint32 // for eviction; at most 3
	void     atomic.Bool   // replaced, invalidated or purged: in no tier, and to go into none
	failing  atomic.Int64  // unix nanoseconds until when the origin is taken to fail still
	place    place         // of the memory tier, under its lock
	disk     *diskFile     // for an entry read from disk, its file
	stamp    uint64        // of the purges that it was checked against
	fromDisk bool
}

// entryRules are what a verdict leaves behind for later uses of the entry. They go to disk as they are.
type entryRules struct {
	NoCache         bool          `json:"noCache,omitempty"`
	Strict          bool          `json:"strict,omitempty"`
	Immutable       bool          `json:"immutable,omitempty"`
	NoTransform     bool          `json:"noTransform,omitempty"`
	StaleRevalidate time.Duration `json:"swr,omitempty"`
	StaleError      time.Duration `json:"sie,omitempty"`
	Explicit        bool          `json:"explicit,omitempty"`
}

// span is the place of a part in its whole; Total -1: unknown.
type span struct{ First, Last, Total int64 }

// Stored is a response of the memory tier in one content coding, ready to be sent. It is read-only, and
// stays valid as long as somebody holds it. What is sent is Head1 (or Block2), then Age, then whatever
// the caller adds (Connection), then, but for HEAD, Body.
type Stored struct {
	Status int
	// Head1 is the HTTP/1.1 status line and the fields, each line ended by CRLF, without the empty line
	// at the end, Age and Connection. Date is in it: it is the origin's, and a cache does not change it
	// (RFC 9110 §6.6.1). Content-Length is in it wherever the status allows it.
	Head1 []byte
	// Block2 is the same for HTTP/2 as a block of HPACK (RFC 7541) that uses the static table and
	// literals without indexing only: valid on every connection, and without effect on its state.
	Block2 []byte
	Body   []byte
	// Born and InitialAge give the age: InitialAge + now - Born.
	Born       time.Time
	InitialAge time.Duration

	header http.Header // what Head1 says
}

// Age is the value of the Age field, in seconds (RFC 9111 §5.1). It allocates nothing.
func (s *Stored) Age(now time.Time) int64 {
	return max(0, int64((s.InitialAge+now.Sub(s.Born))/time.Second))
}

// newEntry makes an entry of a response that came whole. vary is by what the origin selected it: h may name
// Accept-Encoding besides, for the codings that the cache makes.
func newEntry(q *request, v verdict, status int, h http.Header, vary []varied, body []byte, part *span, got time.Time) *entry {
	e := &entry{
		key: q.key, route: q.route, release: q.rule.Release, tags: tagsOf(h, q.rule),
		status: status, header: storedHeader(h, v.omit), body: body, part: part,
		vary: vary, got: got, age0: v.age, lifetime: v.lifetime,
		rules: entryRules{v.noCache, v.strict, v.immutable, v.noTransform, v.staleRevalidate, v.staleError, v.explicit},
	}
	if _, ok := parseDate(e.header.Get("Date"), got); !ok {
		e.header.Set("Date", got.UTC().Format(http.TimeFormat))
	}
	e.finish()
	return e
}

// finish derives what is not given: also for entries read from disk.
func (e *entry) finish() {
	if l := e.header["Content-Language"]; len(l) == 1 {
		if one := strings.ToLower(strings.Trim(l[0], " \t")); !strings.Contains(one, ",") {
			e.language = one
		}
	}
	e.encodable = e.compressible()
	if e.encodable && !listHas(e.header["Vary"], "Accept-Encoding") {
		e.header.Add("Vary", "Accept-Encoding")
	}
	if bodyAllowed(e.status) {
		e.header.Set("Content-Length", strconv.Itoa(len(e.body)))
	} else {
		e.header.Del("Content-Length")
	}
	e.forms[identity].Store(e.form(e.header, e.body))
	e.made.Store(1 << identity)
	e.bytes = int64(len(e.body)+len(e.key)) + 700
	for name, values := range e.header {
		for _, v := range values {
			e.bytes += int64(3*(len(name)+len(v)) + 80) // the map, Head1, Block2
		}
	}
}

func bodyAllowed(status int) bool { return status >= 200 && status != 204 && status != 304 }

func (e *entry) form(h http.Header, body []byte) *Stored {
	s := &Stored{Status: e.status, Body: body, Born: e.got, InitialAge: e.age0, header: h}
	s.Head1, s.Block2 = heads(e.status, h)
	return s
}

// selection is by what the origin selected its response to a request.
func selection(q *request, h http.Header) []varied {
	names, _ := varyNames(h)
	return selecting(names, q.r.Header)
}

// statusHit is the member that this cache adds to Cache-Status for a fresh hit (RFC 9211).
const statusHit = "tenfold; hit"

// heads writes a stored response's head for both protocols. Names sort, so that equal responses have equal
// heads. A field that no message can carry (a name that is no token, a line break in a value) is left out.
func heads(status int, h http.Header) (head1, block2 []byte) {
	var b1, b2 bytes.Buffer
	b1.WriteString("HTTP/1.1 ")
	b1.WriteString(strconv.Itoa(status))
	b1.WriteByte(' ')
	b1.WriteString(http.StatusText(status))
	b1.WriteString("\r\n")

	enc := hpack.NewEncoder(&b2)
	// Without a dynamic table the encoder indexes nothing. It announces that at the head of the next
	// block, which therefore is a block of no use.
	enc.SetMaxDynamicTableSize(0)
	enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	b2.Reset()
	enc.WriteField(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)})

	write := func(name, value string) {
		if !validField(name, value) {
			return
		}
		b1.WriteString(name)
		b1.WriteString(": ")
		b1.WriteString(value)
		b1.WriteString("\r\n")
		enc.WriteField(hpack.HeaderField{Name: strings.ToLower(name), Value: value})
	}
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range h[name] {
			write(name, value)
		}
	}
	write("Cache-Status", statusHit)
	return bytes.Clone(b1.Bytes()), bytes.Clone(b2.Bytes())
}

// validField says whether a field can be sent (RFC 9110 §5.1, §5.5).
func validField(name, value string) bool {
	if name == "" {
		return false
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?={}`, c) >= 0 {
			return false
		}
	}
	for i := 0; i < len(value); i++ {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// listHas looks for a member of a list of names, without case.
func listHas(lines []string, name string) bool {
	for _, line := range lines {
		for _, m := range strings.Split(line, ",") {
			if m = strings.Trim(m, " \t"); m == "*" || strings.EqualFold(m, name) {
				return true
			}
		}
	}
	return false
}

func (e *entry) age(now time.Time) time.Duration { return e.age0 + max(0, now.Sub(e.got)) }

// fresh says whether the entry may answer without a word from the origin (RFC 9111 §4.2).
func (e *entry) fresh(now time.Time) bool { return !e.rules.NoCache && e.lifetime > e.age(now) }

// staleFor is how long the entry is stale; negative: fresh so long.
func (e *entry) staleFor(now time.Time) time.Duration { return e.age(now) - e.lifetime }

// keepFor bounds what a disconnected cache may still serve (RFC 9111 §4.2.4): a day past freshness.
const keepFor = 24 * time.Hour

// staleOn says whether the entry may answer in place of a failure. disconnected: there was no answer
// at all; else the origin answered 500, 502, 503 or 504 (RFC 5861 §4).
func (e *entry) staleOn(now time.Time, disconnected bool) bool {
	stale := e.staleFor(now)
	if e.rules.StaleError > 0 && stale <= e.rules.StaleError {
		return true
	}
	return disconnected && !e.rules.Strict && !e.rules.NoCache && stale <= keepFor
}

func (e *entry) whole() bool { return e.part == nil }

func (e *entry) etag() string     { return e.header.Get("Etag") }
func (e *entry) modified() string { return e.header.Get("Last-Modified") }

// variantOf says whether two entries are answers to the same requests: the newer replaces the older.
func (e *entry) variantOf(o *entry) bool {
	return slices.EqualFunc(e.vary, o.vary, func(a, b varied) bool {
		return a.Name == b.Name && a.Absent == b.Absent && a.Normal == b.Normal
	})
}

func (e *entry) matches(fields Fields) bool {
	for i := range e.vary {
		if !e.vary[i].matches(fields, e.language) {
			return false
		}
	}
	return true
}

// touch counts a use, for eviction.
func (e *entry) touch() {
	if f := e.freq.Load(); f < 3 {
		e.freq.Store(f + 1)
	}
}
