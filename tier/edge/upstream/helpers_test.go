package upstream

import (
	"io"
	"log"
	"net/netip"
)

// quiet takes what net/http would print about aborted answers.
var quiet = log.New(io.Discard, "", 0)

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}
