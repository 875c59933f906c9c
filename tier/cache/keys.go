package cache

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"

	"tenfold"
	"tenfold/internal/cacheinfo"
)

// A sample of keys is taken by SCAN from random places of the keyspace, a hundred at a time, over a connection of
// its own: nothing that anybody else asks waits for more than one such bite.
const (
	sampleKeys = 5000
	mostKeys   = 200_000
	bite       = 100
	keysTold   = 10
)

// Keys samples keys: which are large, which are asked for, and what more memory would buy. n is how many, 0 for
// the default.
func (c *Cache) Keys(ctx context.Context, id tenfold.ID, n int) (cacheinfo.Keys, error) {
	r, err := c.served(id)
	if err != nil {
		return cacheinfo.Keys{}, err
	}
	switch {
	case r.Spec.memcached():
		return cacheinfo.Keys{}, errMemcached(id, "way to look at its keys that costs nothing")
	case r.Admin == "":
		return cacheinfo.Keys{}, errEarlier(id)
	}
	if n <= 0 {
		n = sampleKeys
	}
	if n > mostKeys {
		return cacheinfo.Keys{}, tenfold.Errorf(tenfold.CodeInvalid, "a sample has at most %d keys", mostKeys).WithHint("ask for fewer: --sample %d", mostKeys)
	}
	conn, err := c.dial(ctx, r, r.Primary, askLimit)
	if err != nil {
		return cacheinfo.Keys{}, tenfold.Errorf(tenfold.CodeUnavailable, "%s does not answer: %w", id.Short(), err).WithHint("see its servers: tenfold cache nodes")
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	info, err := redis.Bytes(conn.Do("INFO"))
	if err != nil {
		return cacheinfo.Keys{}, fmt.Errorf("sample keys: %w", err)
	}
	m := metrics(parseInfo(info))
	out := cacheinfo.Keys{Keys: int64(m["CurrItems"]), Frequency: strings.HasSuffix(r.Spec.Evict, "lfu")}
	all, err := sample(conn, n, out.Keys, out.Frequency)
	if err != nil {
		return out, fmt.Errorf("sample keys: %w", err)
	}
	out.Sampled = len(all)
	out.Big, out.Hot = largest(all), hottest(all, out.Frequency)
	out.Worth, out.Why = worthOf(r, m, all, out.Frequency)
	return out, nil
}

// sample reads keys and what the server knows of each. It touches none: ages stay what they are.
func sample(conn redis.Conn, n int, keys int64, frequency bool) ([]cacheinfo.Key, error) {
	var all []cacheinfo.Key
	seen := map[string]bool{}
	age := "IDLETIME"
	if frequency {
		age = "FREQ"
	}
	cursor, whole := "0", keys <= int64(n)
	for turns := 0; len(all) < n && turns < 3*n/bite+10; turns++ {
		if !whole { // from anywhere: cursors are places in the table of keys
			cursor = fmt.Sprint(rand.Uint64() >> 16)
		}
		page, err := redis.Values(conn.Do("SCAN", cursor, "COUNT", bite))
		if err != nil || len(page) != 2 {
			return nil, fmt.Errorf("scan: %w", err)
		}
		cursor, _ = redis.String(page[0], nil)
		names, err := redis.Strings(page[1], nil)
		if err != nil {
			return nil, err
		}
		for _, k := range names {
			conn.Send("MEMORY", "USAGE", k)
			conn.Send("OBJECT", age, k)
			conn.Send("TYPE", k)
		}
		if err := conn.Flush(); err != nil {
			return nil, err
		}
		for _, k := range names {
			bytes, err := redis.Int64(conn.Receive())
			number, err2 := redis.Int64(conn.Receive())
			kind, err3 := redis.String(conn.Receive())
			if conn.Err() != nil {
				return nil, conn.Err()
			}
			if err != nil || err2 != nil || err3 != nil || seen[k] {
				continue // it is gone, or was there already
			}
			seen[k] = true
			x := cacheinfo.Key{Name: strings.ToValidUTF8(k[:min(len(k), 200)], "?"), Type: kind, Bytes: bytes}
			if frequency {
				x.Frequency = number
			} else {
				x.Idle = time.Duration(number) * time.Second
			}
			all = append(all, x)
		}
		if whole && cursor == "0" {
			break
		}
	}
	return all, nil
}

func largest(all []cacheinfo.Key) []cacheinfo.Key {
	out := slices.SortedFunc(slices.Values(all), func(a, b cacheinfo.Key) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Name, b.Name))
	})
	return out[:min(len(out), keysTold)]
}

// hottest are the keys with the highest count where the policy counts, else those that were touched last.
func hottest(all []cacheinfo.Key, frequency bool) []cacheinfo.Key {
	out := slices.SortedFunc(slices.Values(all), func(a, b cacheinfo.Key) int {
		if frequency {
			return cmp.Or(cmp.Compare(b.Frequency, a.Frequency), strings.Compare(a.Name, b.Name))
		}
		return cmp.Or(cmp.Compare(a.Idle, b.Idle), strings.Compare(a.Name, b.Name))
	})
	return out[:min(len(out), keysTold)]
}

// worthOf says what other sizes would hit, or why nobody knows.
func worthOf(r record, m map[string]float64, all []cacheinfo.Key, frequency bool) ([]cacheinfo.Worth, string) {
	switch {
	case m["Evictions"] == 0:
		return nil, "nothing was evicted since the server started: more memory would buy nothing"
	case frequency || !strings.HasSuffix(r.Spec.Evict, "lru"):
		return nil, "evict: " + r.Spec.Evict + " keeps no ages of keys, by which that is known; evict: allkeys-lru does"
	}
	var ages []float64
	for _, k := range all {
		ages = append(ages, k.Idle.Seconds())
	}
	size := float64(r.Spec.Size)
	var sizes []float64
	for _, times := range []float64{0.5, 0.75, 1, 1.25, 1.5, 2} {
		sizes = append(sizes, size*times)
	}
	var out []cacheinfo.Worth
	for _, w := range curve(ages, size, m["CacheHitRate"]/100, sizes) {
		out = append(out, cacheinfo.Worth{Bytes: int64(w.Bytes), Hit: w.Hit})
	}
	if out == nil {
		return nil, fmt.Sprintf("the ages of %d keys do not tell yet: keys should grow older than some seconds before they are evicted", len(all))
	}
	return out, ""
}
