// Package sigv4 checks requests signed by AWS Signature Version 4, as the SDKs of AWS sign them:
// in the Authorization field, or in the query (presigned URLs).
//
// It knows keys only through Keys, reads no body and keeps nothing but derived keys. Begin at
// Verifier.Verify. Source: "Signature Version 4 signing process", AWS General Reference, and what
// aws-sdk-go-v2, botocore and the JavaScript SDK send.
package sigv4

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Skew is how far a request's date may be from now.
const Skew = 15 * time.Minute

// Unsigned stands for a payload whose hash is not part of the signature.
const Unsigned = "UNSIGNED-PAYLOAD"

const (
	algorithm = "AWS4-HMAC-SHA256"
	stamp     = "20060102T150405Z"
	// fieldsAtMost bounds the list of signed fields, credentialAtMost what a scope may be long.
	fieldsAtMost     = 100
	credentialAtMost = 256
)

// Error says why a request is not believed, by the code that AWS' services give. Its message is for the
// client.
type Error struct{ Code, Message string }

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// The codes, as AWS' JSON protocols name them.
const (
	CodeMissing   = "MissingAuthenticationTokenException"
	CodeMalformed = "IncompleteSignatureException"
	CodeUnknown   = "UnrecognizedClientException"
	CodeInvalid   = "InvalidSignatureException"
)

// Scope is what a signature is good for.
type Scope struct {
	AccessKey string // names who signed
	Day       string // "20261126"
	Region    string
	Service   string // "lambda", "dynamodb"
}

// Verifier checks signatures. Safe for concurrent use.
type Verifier struct {
	// Keys gives the secret of an access key; ok is false when there is no such key.
	Keys func(accessKey string) (secret string, ok bool)
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Raw leaves the path as it was sent, as S3 does; all other services encode it once more.
	Raw bool

	mu      sync.Mutex
	derived map[derivation]*signer
}

type derivation struct{ secret, day, region, service string }

// signer signs with a derived key. What has taken the key in is kept: taking it in again costs half of a signature.
type signer struct {
	key  []byte
	pool sync.Pool // of hash.Hash
}

// sign returns a signature in hexadecimal.
func (k *signer) sign(text []byte) (out [2 * sha256.Size]byte) {
	h, ok := k.pool.Get().(hash.Hash)
	if ok {
		h.Reset()
	} else {
		h = hmac.New(sha256.New, k.key)
	}
	h.Write(text)
	var sum [sha256.Size]byte
	hex.Encode(out[:], h.Sum(sum[:0]))
	k.pool.Put(h)
	return out
}

// Verify says who signed r. hash is the SHA-256 of the body in hexadecimal; it is used unless the client
// signed X-Amz-Content-Sha256, which is then compared with it. "": the body is not compared, and the
// field is required.
func (v *Verifier) Verify(r *http.Request, hash string) (Scope, error) {
	s, err := read(r)
	if err != nil {
		return Scope{}, err
	}
	secret, ok := v.Keys(s.AccessKey)
	if !ok {
		return Scope{}, &Error{CodeUnknown, "The security token included in the request is invalid."}
	}
	now := time.Now
	if v.Now != nil {
		now = v.Now
	}
	if err := s.inTime(now()); err != nil {
		return Scope{}, err
	}
	payload, err := s.payload(r, hash)
	if err != nil {
		return Scope{}, err
	}
	canonical, err := s.canonical(r, payload, v.Raw)
	if err != nil {
		return Scope{}, err
	}
	sum := sha256.Sum256(canonical)
	text := append(make([]byte, 0, 256), algorithm+"\n"...)
	text = s.date.UTC().AppendFormat(text, stamp)
	text = append(text, '\n')
	for _, part := range []string{s.Day, s.Region, s.Service} {
		text = append(append(text, part...), '/')
	}
	text = hex.AppendEncode(append(text, "aws4_request\n"...), sum[:])
	want := v.key(derivation{secret, s.Day, s.Region, s.Service}).sign(text)
	if subtle.ConstantTimeCompare(want[:], []byte(s.signature)) != 1 {
		return Scope{}, &Error{CodeInvalid, "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."}
	}
	return s.Scope, nil
}

// key derives the signing key of a day, region and service, which is the same for all its requests.
func (v *Verifier) key(d derivation) *signer {
	v.mu.Lock()
	defer v.mu.Unlock()
	if k, ok := v.derived[d]; ok {
		return k
	}
	k := &signer{key: mac(mac(mac(mac([]byte("AWS4"+d.secret), d.day), d.region), d.service), "aws4_request")}
	if v.derived == nil || len(v.derived) > 1000 {
		v.derived = map[derivation]*signer{}
	}
	v.derived[d] = k
	return k
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// signed is what a request says of its signature.
type signed struct {
	Scope
	date      time.Time
	expires   time.Duration // of a presigned URL; 0: none was said
	fields    []string      // lower case, sorted
	signature string
	query     bool
}

func malformed(format string, args ...any) error {
	return &Error{CodeMalformed, fmt.Sprintf(format, args...)}
}

// read takes the signature out of the Authorization field or the query.
func read(r *http.Request) (signed, error) {
	auth := strings.TrimSpace(r.Header.Get("Authorization"))
	inQuery := strings.Contains(r.URL.RawQuery, "X-Amz-Algorithm") && r.URL.Query().Has("X-Amz-Algorithm")
	switch {
	case auth != "" && inQuery:
		return signed{}, &Error{CodeInvalid, "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."}
	case inQuery:
		return readQuery(r)
	case !strings.HasPrefix(auth, "AWS4-"):
		return signed{}, &Error{CodeMissing, "Request is missing Authentication Token"}
	}
	name, rest, _ := strings.Cut(auth, " ")
	var credential, fields, signature string
	for item := range strings.FieldsFuncSeq(rest, func(r rune) bool { return r == ',' || r == ' ' }) {
		switch name, value, _ := strings.Cut(item, "="); name {
		case "Credential":
			credential = value
		case "SignedHeaders":
			fields = value
		case "Signature":
			signature = value
		}
	}
	date := cmp.Or(r.Header.Get("X-Amz-Date"), r.Header.Get("Date"))
	missing := ""
	for _, p := range [...][2]string{{"Credential", credential}, {"Signature", signature}, {"SignedHeaders", fields}} {
		if p[1] == "" {
			missing += "Authorization header requires '" + p[0] + "' parameter. "
		}
	}
	if date == "" {
		missing += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
	}
	if missing != "" {
		return signed{}, malformed("%sAuthorization=%s", missing, auth)
	}
	if name != algorithm {
		return signed{}, malformed("Unsupported AWS 'algorithm': '%s' (only %s for now). ", name, algorithm)
	}
	return newSigned(credential, fields, signature, date)
}

func readQuery(r *http.Request) (signed, error) {
	q := r.URL.Query()
	missing := ""
	for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
		if q.Get(name) == "" {
			missing += "AWS query-string parameters must include '" + name + "'. "
		}
	}
	if missing != "" {
		return signed{}, malformed("%sRe-examine the query-string parameters.", missing)
	}
	if name := q.Get("X-Amz-Algorithm"); name != algorithm {
		return signed{}, malformed("Unsupported AWS 'algorithm': '%s' (only %s for now). ", name, algorithm)
	}
	s, err := newSigned(q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Signature"), q.Get("X-Amz-Date"))
	if err != nil {
		return signed{}, err
	}
	s.query = true
	if !q.Has("X-Amz-Expires") { // as good as a signature in a field
		return s, nil
	}
	n, err := strconv.Atoi(q.Get("X-Amz-Expires"))
	if err != nil || n < 1 || n > 7*24*3600 {
		return signed{}, malformed("X-Amz-Expires must be a number of seconds between 1 and 604800.")
	}
	s.expires = time.Duration(n) * time.Second
	return s, nil
}

func newSigned(credential, fields, signature, date string) (signed, error) {
	s := signed{signature: signature}
	p := strings.Split(credential, "/")
	if n := len(p); n < 5 || p[n-1] != "aws4_request" || len(credential) > credentialAtMost {
		return s, malformed("Credential must have the form <key>/<date>/<region>/<service>/aws4_request.")
	}
	n := len(p)
	s.Scope = Scope{AccessKey: strings.Join(p[:n-4], "/"), Day: p[n-4], Region: p[n-3], Service: p[n-2]}
	var err error
	if s.date, err = time.Parse(stamp, date); err != nil {
		if s.date, err = http.ParseTime(date); err != nil {
			return s, malformed("The request needs a date: X-Amz-Date in the form YYYYMMDD'T'HHMMSS'Z'.")
		}
	}
	if s.date.UTC().Format("20060102") != s.Day {
		return s, malformed("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
	}
	s.fields = strings.Split(strings.ToLower(fields), ";")
	if len(s.fields) > fieldsAtMost {
		return s, malformed("More than %d signed headers.", fieldsAtMost)
	}
	slices.Sort(s.fields)
	if !slices.Contains(s.fields, "host") {
		return s, malformed("'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	return s, nil
}

func (s *signed) inTime(now time.Time) error {
	if now.Before(s.date.Add(-Skew)) {
		return &Error{CodeInvalid, "Signature not yet current: " + s.date.UTC().Format(stamp) + " is still later than " + now.UTC().Add(Skew).Format(stamp)}
	}
	if end := s.date.Add(cmp.Or(s.expires, Skew)); now.After(end) {
		return &Error{CodeInvalid, "Signature expired: " + s.date.UTC().Format(stamp) + " is now earlier than " + now.UTC().Add(-cmp.Or(s.expires, Skew)).Format(stamp)}
	}
	return nil
}

// payload is what stands for the body in the canonical request.
func (s *signed) payload(r *http.Request, hash string) (string, error) {
	if s.query && (s.Service == "s3" || hash == "") {
		return cmp.Or(r.Header.Get("X-Amz-Content-Sha256"), Unsigned), nil
	}
	said := r.Header.Get("X-Amz-Content-Sha256")
	switch {
	case said == "" && hash == "":
		return "", malformed("The request needs X-Amz-Content-Sha256.")
	case said == "":
		return hash, nil
	case hash != "" && len(said) == len(hash) && !strings.EqualFold(said, hash):
		return "", &Error{CodeInvalid, "The provided 'x-amz-content-sha256' header does not match what was computed."}
	}
	return said, nil
}

// canonical is the canonical request.
func (s *signed) canonical(r *http.Request, payload string, raw bool) ([]byte, error) {
	b := make([]byte, 0, 1024)
	line := func(parts ...string) {
		for _, p := range parts {
			b = append(b, p...)
		}
		b = append(b, '\n')
	}
	line(r.Method)
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if path == "" || path[0] != '/' {
		path = r.URL.EscapedPath()
	}
	if path = cmp.Or(path, "/"); !raw {
		path = escape(path, true)
	}
	line(path)
	line(s.canonicalQuery(r))
	for _, name := range s.fields {
		value := ""
		switch {
		case name == "host":
			value = r.Host
		case name == "content-length" && r.Header["Content-Length"] == nil:
			value = strconv.FormatInt(r.ContentLength, 10)
		default:
			values := r.Header[http.CanonicalHeaderKey(name)]
			if values == nil {
				return nil, malformed("The signed header '%.100s' is not there.", name)
			}
			for i, v := range values {
				if i > 0 {
					value += ","
				}
				value += trimmed(v)
			}
		}
		line(name, ":", value)
	}
	line()
	for i, name := range s.fields {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, name...)
	}
	b = append(b, '\n')
	return append(b, payload...), nil
}

// trimmed has no space around it and one between its words.
func trimmed(v string) string {
	for i := range len(v) {
		// Fields knows more kinds of space than one.
		if c := v[i]; c >= 0x80 || c < ' ' || c == ' ' && (i == 0 || i == len(v)-1 || v[i+1] == ' ') {
			return strings.Join(strings.Fields(v), " ")
		}
	}
	return v
}

func (s *signed) canonicalQuery(r *http.Request) string {
	if r.URL.RawQuery == "" {
		return ""
	}
	var pairs [][2]string
	for item := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if item == "" {
			continue
		}
		name, value, _ := strings.Cut(item, "=")
		name, value = unescape(name), unescape(value)
		if s.query && name == "X-Amz-Signature" {
			continue
		}
		pairs = append(pairs, [2]string{escape(name, false), escape(value, false)})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int { return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1])) })
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p[0] + "=" + p[1])
	}
	return b.String()
}

func unescape(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

const hexDigits = "0123456789ABCDEF"

// escape encodes all but RFC 3986's unreserved characters, and slashes in a path.
func escape(s string, path bool) string {
	if path && s == "/" {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~', path && c == '/':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}
