package main

import (
	"bytes"
	"testing"
	"time"

	"tenfold/internal/cacheinfo"
)

// What a cache tells is read by people: times are rounded, and of what there is nothing there is no table.
func TestWhatCachesTell(t *testing.T) {
	for name, x := range map[string]struct {
		print func(*cli)
		want  string
	}{
		"top": {
			func(c *cli) {
				c.printTop(cacheinfo.Top{Commands: []cacheinfo.Command{{Name: "info", Calls: 129, Mean: 708480 * time.Nanosecond, P50: 214015 * time.Nanosecond, P99: 12932159 * time.Nanosecond}}})
			},
			"processor 0.0 %, memory 0 B (0 %), 0 keys, 0 connections, hits 0.0 %, 0 evicted\n\n" +
				"COMMAND  A SECOND  PROCESSOR  CALLS  MEAN    P50     P99   FAILED\ninfo     0         0.0 %      129    0.71ms  0.21ms  12ms  0\n",
		},
		"top of memcached": {
			func(c *cli) { c.printTop(cacheinfo.Top{}) },
			"processor 0.0 %, memory 0 B (0 %), 0 keys, 0 connections, hits 0.0 %, 0 evicted\n\n",
		},
		"keys of an empty one": {
			func(c *cli) { c.printKeys(cacheinfo.Keys{Why: "nothing was evicted"}) },
			"0 of 0 keys\n\nnothing was evicted\n",
		},
	} {
		var out bytes.Buffer
		x.print(&cli{out: &out})
		if got := out.String(); got != x.want {
			t.Errorf("%s:\n%q, want\n%q", name, got, x.want)
		}
	}
}
