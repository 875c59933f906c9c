package upstream

import (
	"io"
	"log"
	"net/netip"
	"net/url"
)

// quiet takes what net/http would print about aborted answers.
var quiet = log.New(io.Discard, "", 0)

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func newURL(path, rawPath, query string) *url.URL {
	return &url.URL{Path: path, RawPath: rawPath, RawQuery: query}
}
