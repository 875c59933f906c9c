package daemon

import (
	"testing"

	"tenfold"
)

// Only a warning looks like one.
func TestWhatAPusherReads(t *testing.T) {
	web := tenfold.ID{Kind: tenfold.KindBuild, Name: "web"}
	for want, e := range map[string]tenfold.Event{
		"· web    copying the sources\n": {ID: web, Severity: tenfold.SeverityProgress, Text: "copying the sources"},
		"✓ edge   deployment 2 serves\n": {Severity: tenfold.SeverityInfo, Text: "deployment 2 serves"},
		"! web    one line\n  another\n": {ID: web, Severity: tenfold.SeverityWarning, Text: "one line\nanother\n"},
		"✗ web    test: npm test\n":      {ID: web, Severity: tenfold.SeverityError, Text: "test: npm test"},
	} {
		if got := toPusher(e); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
