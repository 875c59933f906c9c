package cache

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tenfold"
)

// What a cache does is told under ElastiCache's names, its large and hot keys by a sample, and no value of anybody.
func TestWhatACacheDoesIsTold(t *testing.T) {
	f := begin(t)
	f.open(t)
	f.start(t, tenfold.Cache{Evict: "allkeys-lfu", Readers: tenfold.Bounds{Min: 1, Max: 1}})
	f.settled(t, 1)
	c, err := f.connect(tenfold.FieldURL, "api")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	do := func(command string, args ...any) {
		t.Helper()
		if _, err := c.Do(command, args...); err != nil {
			t.Fatal(command, err)
		}
	}
	for i := range 300 {
		do("SET", fmt.Sprint("key", i), "value")
	}
	do("SET", "large", strings.Repeat("secret", 20_000))
	do("HSET", "hash", "f", 1)
	for range 2000 {
		do("GET", "key7")
	}
	do("GET", "none")
	k, err := f.Keys(t.Context(), id, 0)
	if err != nil || k.Keys != 302 || k.Sampled != 302 || !k.Frequency {
		t.Fatalf("%+v %v", k, err)
	}
	if k.Big[0].Name != "large" || k.Big[0].Bytes < 100_000 || k.Hot[0].Name != "key7" || k.Hot[0].Frequency < 6 || len(k.Worth) > 0 || !strings.Contains(k.Why, "nothing was evicted") {
		t.Errorf("%+v", k)
	}
	if some, err := f.Keys(t.Context(), id, 100); err != nil || some.Sampled < 100 || some.Sampled > 250 {
		t.Errorf("%d sampled, %v", some.Sampled, err)
	}
	if _, err := f.Keys(t.Context(), id, mostKeys+1); tenfold.CodeOf(err) != tenfold.CodeInvalid {
		t.Error(err)
	}
	r, _ := f.get(id.String())
	if _, err := f.do(t.Context(), r, r.Primary, askLimit, "CONFIG", "SET", "slowlog-log-slower-than", "0"); err != nil {
		t.Fatal(err)
	}
	do("SET", "slow", "secret")
	top, err := f.Top(t.Context(), id)
	if err != nil || len(top.Commands) == 0 || len(top.Slow) == 0 {
		t.Fatalf("%+v %v", top, err)
	}
	get := false
	for _, x := range top.Commands {
		get = get || x.Name == "get" && x.Calls == 2001 && x.P99 > 0 && x.Mean > 0
	}
	if m := top.Metrics; !get || m["CacheHits"] < 2000 || m["CacheMisses"] != 1 || m["CurrItems"] != 303 || m["DatabaseMemoryUsagePercentage"] < 5 {
		t.Errorf("%+v", top)
	}
	if strings.Contains(fmt.Sprint(top.Slow), "secret") {
		t.Errorf("a value is told: %+v", top.Slow)
	}
	for begun := time.Now(); ; <-time.After(20 * time.Millisecond) {
		u := f.Use()[id]
		if len(u) == 2 && u[0].Role == "primary" && u[0].Calls["StringBasedCmds"].Calls >= 2302 && u[0].Calls["HashBasedCmds"].Calls == 1 && u[1].Metrics["CurrItems"] == 303 {
			break
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("%+v", u)
		}
	}
}

func TestFamiliesOfCommands(t *testing.T) {
	for command, want := range map[string]string{
		"get": "StringBasedCmds", "hget": "HashBasedCmds", "hello": "", "zadd": "SortedSetBasedCmds", "bzpopmin": "SortedSetBasedCmds", "xadd": "StreamBasedCmds", "xgroup|create": "StreamBasedCmds",
		"lpush": "ListBasedCmds", "sadd": "SetBasedCmds", "geoadd": "GeoSpatialBasedCmds", "pfadd": "HyperLogLogBasedCmds", "setbit": "BitmapBasedCmds", "eval": "EvalBasedCmds", "publish": "PubSubBasedCmds", "del": "KeyBasedCmds", "ping": "", "info": "",
	} {
		if got := familyOf(command); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}
