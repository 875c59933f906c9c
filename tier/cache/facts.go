package cache

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"

	"tenfold"
	"tenfold/internal/cacheinfo"
)

// noted is what INFO said of a server, and when.
type noted struct {
	facts facts
	at    time.Time
}

func (c *Cache) noteFacts(at place, f facts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told[at] = noted{f, time.Now()}
}

// Use is what every server was seen to do when it was looked at last; nobody is asked for it.
func (c *Cache) Use() map[tenfold.ID][]cacheinfo.Use {
	out := map[tenfold.ID][]cacheinfo.Use{}
	for key, r := range c.records.All() {
		r = r.whole()
		for _, n := range r.Nodes {
			c.mu.Lock()
			t, ok := c.told[place{key, n.N}]
			c.mu.Unlock()
			if !ok || time.Since(t.at) > time.Minute {
				continue
			}
			role := "reader"
			if n.N == r.Primary {
				role = "primary"
			}
			out[r.ID] = append(out[r.ID], cacheinfo.Use{Node: n.N, Role: role, Metrics: metrics(t.facts), Calls: families(t.facts)})
		}
	}
	return out
}

// metrics are ElastiCache's, by its names, of one server. Counters are since it started.
func metrics(f facts) map[string]float64 {
	out := map[string]float64{
		"BytesUsedForCache": f.number("used_memory"), "CacheHits": f.number("keyspace_hits"), "CacheMisses": f.number("keyspace_misses"),
		"CurrConnections": f.number("connected_clients"), "NewConnections": f.number("total_connections_received"), "Evictions": f.number("evicted_keys"), "Reclaimed": f.number("expired_keys"),
		"NetworkBytesIn": f.number("total_net_input_bytes"), "NetworkBytesOut": f.number("total_net_output_bytes"), "ReplicationBytes": f.number("master_repl_offset"),
		"MemoryFragmentationRatio": f.number("mem_fragmentation_ratio"), "SaveInProgress": f.number("rdb_bgsave_in_progress"),
		"EngineCPUSeconds": f.number("used_cpu_user_main_thread") + f.number("used_cpu_sys_main_thread"),
		"CurrItems":        0, "CurrVolatileItems": 0, "ReplicationLag": 0,
	}
	if _, is := f["limit_maxbytes"]; is { // memcached knows none of these
		for _, name := range []string{"ReplicationBytes", "ReplicationLag", "MemoryFragmentationRatio", "SaveInProgress", "CurrVolatileItems"} {
			delete(out, name)
		}
	}
	for of, name := range memcachedCounts {
		if _, counted := f[of]; counted {
			out[name] = f.number(of)
		}
	}
	for of, name := range map[string]string{"auth": "AuthenticationFailures", "cmd": "CommandAuthorizationFailures", "key": "KeyAuthorizationFailures", "channel": "ChannelAuthorizationFailures"} {
		if _, counted := f["acl_access_denied_"+of]; counted { // Redis 7.0 counts none of them
			out[name] = f.number("acl_access_denied_" + of)
		}
	}
	if limit := f.number("maxmemory"); limit > 0 {
		out["DatabaseMemoryUsagePercentage"] = 100 * f.number("used_memory") / limit
	}
	if all := out["CacheHits"] + out["CacheMisses"]; all > 0 {
		out["CacheHitRate"] = 100 * out["CacheHits"] / all
	}
	if f["role"] == "slave" {
		out["ReplicationLag"] = max(f.number("master_last_io_seconds_ago"), 0)
	}
	for name, value := range f {
		if !strings.HasPrefix(name, "db") {
			continue
		}
		of := pairs(value)
		out["CurrItems"] += of["keys"]
		out["CurrVolatileItems"] += of["expires"]
	}
	return out
}

// pairs reads "calls=3,usec=12".
func pairs(s string) map[string]float64 {
	out := map[string]float64{}
	for kv := range strings.SplitSeq(s, ",") {
		if name, value, ok := strings.Cut(kv, "="); ok {
			out[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return out
}

// familyOf is the metric that ElastiCache counts a command in. What is none of them it does not count.
func familyOf(command string) string {
	command, _, _ = strings.Cut(command, "|")
	switch command {
	case "eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro":
		return "EvalBasedCmds"
	case "publish", "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "spublish", "ssubscribe", "sunsubscribe", "pubsub":
		return "PubSubBasedCmds"
	case "del", "unlink", "exists", "expire", "expireat", "pexpire", "pexpireat", "persist", "ttl", "pttl", "rename", "renamenx", "type", "touch", "copy", "move", "dump", "restore", "sort", "randomkey", "scan", "keys", "object":
		return "KeyBasedCmds"
	case "get", "set", "append", "decr", "decrby", "getdel", "getex", "getrange", "getset", "incr", "incrby", "incrbyfloat", "mget", "mset", "msetnx", "psetex", "setex", "setnx", "setrange", "strlen", "substr", "lcs":
		return "StringBasedCmds"
	case "sadd", "scard", "sdiff", "sdiffstore", "sinter", "sintercard", "sinterstore", "sismember", "smismember", "smembers", "smove", "spop", "srandmember", "srem", "sscan", "sunion", "sunionstore":
		return "SetBasedCmds"
	case "pfadd", "pfcount", "pfmerge":
		return "HyperLogLogBasedCmds"
	case "setbit", "getbit", "bitcount", "bitfield", "bitfield_ro", "bitop", "bitpos":
		return "BitmapBasedCmds"
	case "blpop", "brpop", "brpoplpush", "blmove", "blmpop", "lindex", "linsert", "llen", "lmove", "lmpop", "lpop", "lpos", "lpush", "lpushx", "lrange", "lrem", "lset", "ltrim", "rpop", "rpoplpush", "rpush", "rpushx":
		return "ListBasedCmds"
	}
	switch {
	case strings.HasPrefix(command, "geo"):
		return "GeoSpatialBasedCmds"
	case strings.HasPrefix(command, "z"), strings.HasPrefix(command, "bz"):
		return "SortedSetBasedCmds"
	case strings.HasPrefix(command, "x"):
		return "StreamBasedCmds"
	case strings.HasPrefix(command, "h") && command != "hello":
		return "HashBasedCmds"
	}
	return ""
}

// families are the calls of commands and the time that they took, by ElastiCache's families.
func families(f facts) map[string]cacheinfo.Calls {
	out := map[string]cacheinfo.Calls{}
	for name, value := range f {
		command, ok := strings.CutPrefix(name, "cmdstat_")
		if family := familyOf(command); ok && family != "" {
			of, x := pairs(value), out[family]
			x.Calls += of["calls"]
			x.Seconds += of["usec"] / 1e6
			out[family] = x
		}
	}
	return out
}

// topFor is how long Top looks.
const topFor = time.Second

// Top is what the primary does now: commands by the time that they take, and what was slow lately.
func (c *Cache) Top(ctx context.Context, id tenfold.ID) (cacheinfo.Top, error) {
	r, err := c.served(id)
	if err != nil {
		return cacheinfo.Top{}, err
	}
	if r.Admin == "" {
		return cacheinfo.Top{}, errEarlier(id)
	}
	ask := func() (facts, error) {
		if r.Spec.memcached() {
			lines, err := c.askMemcached(ctx, r, r.Primary, askLimit, "stats")
			if err != nil {
				return nil, tenfold.Errorf(tenfold.CodeUnavailable, "%s does not answer: %w", id.Short(), err).WithHint("see its servers: tenfold cache nodes")
			}
			return statsOf(lines), nil
		}
		b, err := redis.Bytes(c.do(ctx, r, r.Primary, askLimit, "INFO", "everything"))
		if err != nil {
			return nil, tenfold.Errorf(tenfold.CodeUnavailable, "%s does not answer: %w", id.Short(), err).WithHint("see its servers: tenfold cache nodes")
		}
		return parseInfo(b), nil
	}
	before, err := ask()
	if err != nil {
		return cacheinfo.Top{}, err
	}
	begun := time.Now()
	select {
	case <-ctx.Done():
		return cacheinfo.Top{}, ctx.Err()
	case <-time.After(topFor):
	}
	after, err := ask()
	if err != nil {
		return cacheinfo.Top{}, err
	}
	out := cacheinfo.Top{Metrics: metrics(after), Commands: busiest(before, after, time.Since(begun)), Slow: []cacheinfo.Slow{}}
	m := metrics(before)
	out.EngineCPU = 100 * (out.Metrics["EngineCPUSeconds"] - m["EngineCPUSeconds"]) / time.Since(begun).Seconds()
	if r.Spec.memcached() { // it keeps no log of slow commands
		return out, nil
	}
	out.Slow, err = c.slow(ctx, r)
	return out, err
}

// busiest are commands by the time that they took between two looks, then by that since the server started.
func busiest(before, after facts, took time.Duration) []cacheinfo.Command {
	out := []cacheinfo.Command{}
	for name, value := range after {
		command, ok := strings.CutPrefix(name, "cmdstat_")
		if !ok {
			continue
		}
		was, is, lat := pairs(before[name]), pairs(value), pairs(after["latency_percentiles_usec_"+command])
		us := func(f float64) time.Duration { return time.Duration(f * float64(time.Microsecond)) }
		out = append(out, cacheinfo.Command{
			Name: command, Calls: is["calls"], Rate: (is["calls"] - was["calls"]) / took.Seconds(), Busy: (is["usec"] - was["usec"]) / 1e4 / took.Seconds(),
			Mean: us(is["usec_per_call"]), P50: us(lat["p50"]), P99: us(lat["p99"]), Failed: is["failed_calls"] + is["rejected_calls"], Total: us(is["usec"]),
		})
	}
	slices.SortFunc(out, func(a, b cacheinfo.Command) int {
		return cmp.Or(cmp.Compare(b.Busy, a.Busy), cmp.Compare(b.Total, a.Total), strings.Compare(a.Name, b.Name))
	})
	return out[:min(len(out), 20)]
}

// slow are entries of the server's slow log, the slowest first. Values that commands were given are not told:
// they may be anybody's.
func (c *Cache) slow(ctx context.Context, r record) ([]cacheinfo.Slow, error) {
	rows, err := redis.Values(c.do(ctx, r, r.Primary, askLimit, "SLOWLOG", "GET", 128))
	if err != nil {
		return nil, fmt.Errorf("read slow log: %w", err)
	}
	out := []cacheinfo.Slow{}
	for _, row := range rows {
		f, err := redis.Values(row, nil)
		if err != nil || len(f) < 4 {
			continue
		}
		at, err1 := redis.Int64(f[1], nil)
		took, err2 := redis.Int64(f[2], nil)
		words, err3 := redis.Strings(f[3], nil)
		if err1 != nil || err2 != nil || err3 != nil || len(words) == 0 {
			continue
		}
		s := cacheinfo.Slow{At: time.Unix(at, 0).UTC(), Took: time.Duration(took) * time.Microsecond, Command: strings.ToLower(words[0]), Words: len(words)}
		if family := familyOf(s.Command); len(words) > 1 && family != "" && family != "EvalBasedCmds" {
			s.Key = strings.ToValidUTF8(words[1][:min(len(words[1]), 100)], "?")
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b cacheinfo.Slow) int { return cmp.Compare(b.Took, a.Took) })
	return out[:min(len(out), 10)], nil
}

func errEarlier(id tenfold.ID) error {
	return tenfold.Errorf(tenfold.CodeConflict, "%s runs as an earlier Tenfold started it, and cannot be asked", id.Short()).WithHint("start it again: tenfold cache failover")
}

// Families are the names of the families of commands that are counted, for those who print them in order.
func Families(uses map[tenfold.ID][]cacheinfo.Use) []string {
	all := map[string]bool{}
	for _, us := range uses {
		for _, u := range us {
			for name := range u.Calls {
				all[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}
