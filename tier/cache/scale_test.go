package cache

import (
	"testing"
	"time"

	"tenfold"
)

func TestReadersFollowTheLoad(t *testing.T) {
	b := tenfold.Bounds{Max: 2}
	of := func(k int, s sampleOf) (out []sampleOf) {
		for i := range k {
			s.at = time.Unix(int64(10*i), 0)
			out = append(out, s)
		}
		return out
	}
	for what, x := range map[string]struct {
		samples []sampleOf
		want    int
	}{
		"nothing seen":               {nil, 0},
		"busy, not for long":         {of(risesBy-1, sampleOf{primary: 0.9}), 0},
		"busy":                       {of(risesBy, sampleOf{primary: 0.9}), 1},
		"a primary busy by writes":   {of(risesBy, sampleOf{primary: 0.9, readers: 0.1, n: 1}), 0},
		"busy readers":               {of(risesBy, sampleOf{primary: 0.1, readers: 0.7, n: 1}), 1},
		"as many as may be":          {of(risesBy, sampleOf{readers: 1.8, n: 2}), 0},
		"idle, not for long":         {of(fallsBy-1, sampleOf{readers: 0.1, n: 2}), 0},
		"idle":                       {of(fallsBy, sampleOf{readers: 0.1, n: 2}), -1},
		"one fewer would be busy":    {of(fallsBy, sampleOf{readers: 0.9, n: 2}), 0},
		"the last, which is of use":  {of(fallsBy, sampleOf{primary: 0.3, readers: 0.2, n: 1}), 0},
		"the last, which is of none": {of(fallsBy, sampleOf{primary: 0.1, readers: 0.1, n: 1}), -1},
		"one was just added":         {append(of(risesBy, sampleOf{primary: 0.9}), sampleOf{readers: 0.9, n: 1}), 0},
	} {
		if got, why := crowded(x.samples, b); got != x.want || (got != 0) != (why != "") {
			t.Errorf("%s: %d (%s), want %d", what, got, why, x.want)
		}
	}
}
