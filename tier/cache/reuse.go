package cache

import (
	"math"
	"slices"
)

// What more memory would buy, from how long keys were not touched.
//
// The problem: a curve of hit ratios needs the reuse distance of each request, and to see requests costs more
// than it is worth (MONITOR halves a server). What can be had for nothing is the age of keys: how long each was
// not touched, of a sample. Each touch makes a key of age 0, and as long as it is not touched again it grows
// older, until LRU evicts it at an age T. So the number n(a) of keys of age a falls as the share S(a) of touches
// that are not followed by another within a: n(a) = rate * S(a). A cache that evicts at T misses S(T). Hence
//
//	misses(T') = misses(T) * n(T') / n(T)      keys(T') = keys(T) + the integral of n from T to T'
//
// and misses(T) is what the server counts now. Up to T, for less memory, n is seen. Beyond T, for more, nobody
// has seen it, and it goes on as the power law that fits the older half of the ages: that is how request
// frequencies fall in most caches, and it is a guess, the worse the further.
//
// Ages have a resolution of a second and are what the engine's clock says; policies by frequency keep none.

// worth is what a cache of a size would hit.
type worth struct {
	Bytes float64
	Hit   float64
}

// minAges is how many keys a guess needs.
const minAges = 200

// curve says what sizes would hit, by the ages of a sample of keys in seconds, of all of which there are so many
// bytes now, and the share of hits now. Nil: the ages say nothing, because there are few or they are all alike.
func curve(ages []float64, bytes, hit float64, sizes []float64) []worth {
	if len(ages) < minAges || hit <= 0 || hit >= 1 || bytes <= 0 {
		return nil
	}
	ages = slices.Sorted(slices.Values(ages))
	// The last ages are thin: a server that samples evicts no sharp edge.
	edge := math.Floor(ages[len(ages)*97/100])
	if edge < 8 {
		return nil
	}
	// n(a) between the middle of the ages and the edge, as c*a^-k: by the keys in the two halves (in the
	// logarithm) of that stretch.
	// All bounds are whole seconds, as ages are: an age of 3 is anything from 3 up to 4.
	low := max(math.Ceil(ages[len(ages)/4]), 1)
	mid := math.Round(math.Sqrt(low * edge))
	if mid <= low || mid >= edge {
		return nil
	}
	within := func(a, b float64) float64 {
		i, _ := slices.BinarySearch(ages, a)
		j, _ := slices.BinarySearch(ages, b)
		return float64(j-i) / (b - a)
	}
	first, second := within(low, mid), within(mid, edge)
	if first == 0 || second == 0 {
		return nil
	}
	k := math.Log(first/second) / math.Log(math.Sqrt(mid*edge)/math.Sqrt(low*mid))
	k = min(max(k, 0), 8) // that n grows with age is noise
	at := second * math.Pow(math.Sqrt(mid*edge)/edge, k)
	if at <= 0 {
		return nil
	}
	perKey := bytes / float64(len(ages))
	miss := 1 - hit
	var out []worth
	for _, size := range sizes {
		keys := size / perKey // of the sample's scale
		var m float64
		switch extra := keys - float64(len(ages)); {
		case extra >= 0:
			m = miss * math.Pow(grown(edge, at, k, extra)/edge, -k)
		default:
			age := max(ages[max(0, min(len(ages)-1, int(keys)))], low/2)
			m = miss * math.Pow(age/edge, -k)
		}
		out = append(out, worth{size, 1 - min(max(m, 0), 1)})
	}
	return out
}

// grown is the age at which keys would be evicted that has so many more of them, when n goes on from an edge as
// at*(a/edge)^-k. With k above 1 there are only so many keys at all.
func grown(edge, at, k, extra float64) float64 {
	const longest = 1e9
	if math.Abs(k-1) < 1e-3 {
		return min(edge*math.Exp(extra/(at*edge)), longest)
	}
	x := 1 + extra*(1-k)/(at*edge)
	if x <= 0 {
		return longest
	}
	return min(edge*math.Pow(x, 1/(1-k)), longest)
}
