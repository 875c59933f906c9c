package wire

import (
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// Prepare makes a Hit of a response. Date, Age, the hop-by-hop fields and Content-Length of h are
// left out: the loops send live ones, and the length is the body's. A response that has no body by
// its status (204, 304) is sent without Content-Length unless h has one.
func Prepare(status int, h http.Header, body []byte, born int64) *Hit {
	hit := &Hit{Status: status, Body: body, Born: born}
	hit.Head1 = appendStatusLine(nil, status)
	hit.Block2 = appendStatus(nil, status)
	add := func(name, value string) {
		value = cleanValue(value)
		hit.Head1 = append(append(append(append(hit.Head1, name...), ": "...), value...), "\r\n"...)
		hit.Block2 = AppendField(hit.Block2, strings.ToLower(name), value)
	}
	for name, values := range h {
		switch name {
		case "Date", "Age", "Content-Length":
			continue
		}
		if hopByHop(name) || !validToken(name) {
			continue
		}
		for _, v := range values {
			add(name, v)
		}
	}
	switch {
	case !bodyAllowed(status):
		hit.Body = nil
		if l := h.Get("Content-Length"); l != "" && status == http.StatusNotModified {
			add("Content-Length", l)
		}
	default:
		add("Content-Length", strconv.Itoa(len(body)))
	}
	return hit
}

// hopByHop names the fields that belong to one connection (RFC 9110, section 7.6.1).
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Te", "Trailer", "Upgrade":
		return true
	}
	return false
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

func appendStatusLine(dst []byte, status int) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, http.StatusText(status)...)
	return append(dst, "\r\n"...)
}

// Names of HPACK's static table (RFC 7541, appendix A) that the loops write by themselves.
const (
	nameStatus        = 8 // :status 200; the next six have other values
	nameAge           = 21
	nameContentLength = 28
	nameDate          = 33
)

var staticNames = map[string]int{
	"accept-ranges": 18, "access-control-allow-origin": 20, "age": nameAge, "allow": 22, "cache-control": 24,
	"content-disposition": 25, "content-encoding": 26, "content-language": 27, "content-length": nameContentLength,
	"content-location": 29, "content-range": 30, "content-type": 31, "date": nameDate, "etag": 34, "expires": 36,
	"last-modified": 44, "link": 45, "location": 46, "proxy-authenticate": 48, "refresh": 52, "retry-after": 53,
	"server": 54, "set-cookie": 55, "strict-transport-security": 56, "vary": 59, "via": 60, "www-authenticate": 61,
}

var staticStatus = map[int]byte{200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}

// appendInt writes an HPACK integer (RFC 7541, section 5.1) with a prefix of n bits; first holds
// the bits above the prefix.
func appendInt(dst []byte, first byte, n uint, v uint64) []byte {
	limit := uint64(1)<<n - 1
	if v < limit {
		return append(dst, first|byte(v))
	}
	dst = append(dst, first|byte(limit))
	for v -= limit; v >= 128; v >>= 7 {
		dst = append(dst, byte(v)|0x80)
	}
	return append(dst, byte(v))
}

func appendString(dst []byte, s string) []byte {
	if n := hpack.HuffmanEncodeLength(s); n < uint64(len(s)) {
		return hpack.AppendHuffmanString(appendInt(dst, 0x80, 7, n), s)
	}
	return append(appendInt(dst, 0, 7, uint64(len(s))), s...)
}

// appendIndexed writes a literal without indexing whose name is in the static table; the value is
// not Huffman coded, since the loops do this once per response.
func appendIndexed(dst []byte, name int, value string) []byte {
	dst = appendInt(dst, 0, 4, uint64(name))
	return append(appendInt(dst, 0, 7, uint64(len(value))), value...)
}

// AppendField appends a header field to an HPACK block as a literal without indexing (RFC 7541,
// section 6.2.2), good on every connection because it touches no table. name is in lower case.
func AppendField(dst []byte, name, value string) []byte {
	if i := staticNames[name]; i != 0 {
		dst = appendInt(dst, 0, 4, uint64(i))
	} else {
		dst = appendString(append(dst, 0), name)
	}
	return appendString(dst, value)
}

func appendStatus(dst []byte, status int) []byte {
	if i := staticStatus[status]; i != 0 {
		return append(dst, 0x80|i)
	}
	return appendIndexed(dst, nameStatus, strconv.Itoa(status))
}
