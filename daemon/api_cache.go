package daemon

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/cacheinfo"
	"tenfold/internal/dbinfo"
	"tenfold/internal/engines"
	"tenfold/tier/cache"
	"tenfold/tier/edge/certs"
)

// Cache implements control.API.
func (h *house) Cache(ctx context.Context, id tenfold.ID) (cacheinfo.Cache, error) {
	return h.cache.Cache(ctx, id)
}

// CacheFailover implements control.API.
func (h *house) CacheFailover(ctx context.Context, id tenfold.ID) error {
	if err := h.audit(ctx, id.App, id.Env, "failover", id.Short(), "asked for"); err != nil {
		return err
	}
	return h.cache.Failover(ctx, id)
}

// CacheSwitchover implements control.API.
func (h *house) CacheSwitchover(ctx context.Context, id tenfold.ID, node int) error {
	if err := h.audit(ctx, id.App, id.Env, "switchover", id.Short(), "asked for"); err != nil {
		return err
	}
	return h.cache.Switchover(ctx, id, node)
}

// CacheRotate implements control.API.
func (h *house) CacheRotate(ctx context.Context, id tenfold.ID) (dbinfo.Rotation, error) {
	return h.rotate(ctx, id, h.cache.Rotate)
}

// CacheTop implements control.API.
func (h *house) CacheTop(ctx context.Context, id tenfold.ID) (cacheinfo.Top, error) {
	return h.cache.Top(ctx, id)
}

// CacheKeys implements control.API.
func (h *house) CacheKeys(ctx context.Context, id tenfold.ID, n int) (cacheinfo.Keys, error) {
	return h.cache.Keys(ctx, id, n)
}

// CacheBackup implements control.API.
func (h *house) CacheBackup(ctx context.Context, id tenfold.ID) (cacheinfo.Backup, error) {
	return h.cache.Backup(ctx, id)
}

// CacheBackups implements control.API.
func (h *house) CacheBackups(ctx context.Context, id tenfold.ID) ([]cacheinfo.Backup, error) {
	return h.cache.Backups(ctx, id)
}

// CacheRestore implements control.API.
func (h *house) CacheRestore(ctx context.Context, id tenfold.ID, to time.Time) (tenfold.ID, error) {
	if err := h.audit(ctx, id.App, id.Env, "restore", id.Short(), "asked for, to "+to.Format(time.RFC3339)); err != nil {
		return tenfold.ID{}, err
	}
	return h.cache.Restore(ctx, id, to)
}

// cacheTool is the shell of the engine, with what it needs to log in.
func (h *house) cacheTool(ctx context.Context, id tenfold.ID, tool string) (control.Process, error) {
	env, err := fields(ctx, h.cache.Field, id, map[string]tenfold.Field{"REDIS_URL": tenfold.FieldURL, "REDIS_READ_URL": tenfold.FieldReadURL, "REDISCLI_AUTH": tenfold.FieldPassword, "VALKEYCLI_AUTH": tenfold.FieldPassword})
	if err != nil {
		return control.Process{}, err
	}
	at, err := h.cache.Field(ctx, id, tenfold.FieldURL)
	if err != nil {
		return control.Process{}, err
	}
	switch host, ok := strings.CutPrefix(at, "memcached://"); {
	case ok && tool != "":
		return control.Process{}, tenfold.Errorf(tenfold.CodeConflict, "%s is memcached, which comes with no shell", id.Short()).WithHint("its protocol is text: nc %s", strings.Replace(host, ":", " ", 1))
	case ok:
		return control.Process{Env: []string{"MEMCACHED_URL=" + at}}, nil
	case tool == "":
		return control.Process{Env: env}, nil
	}
	e, err := engines.Cache(ctx, "", 0)
	if err != nil {
		return control.Process{}, tenfold.Errorf(tenfold.CodeMissing, "%w", err).WithHint("tenfold doctor --fix")
	}
	cli := e.Tool(e.Name + "-cli")
	if cli == "" {
		return control.Process{}, tenfold.Errorf(tenfold.CodeMissing, "%s-cli is not installed", e.Name).WithHint("apt-get install %s-tools", e.Name)
	}
	user, err := h.cache.Field(ctx, id, tenfold.FieldUser)
	if err != nil {
		return control.Process{}, err
	}
	host, err := h.cache.Field(ctx, id, tenfold.FieldHost)
	if err != nil {
		return control.Process{}, err
	}
	port, err := h.cache.Field(ctx, id, tenfold.FieldPort)
	if err != nil {
		return control.Process{}, err
	}
	argv := []string{cli, "-h", host, "-p", port, "--user", user}
	if h.cache.Secure(id) {
		ca, err := h.Authority(ctx)
		if err != nil {
			return control.Process{}, err
		}
		argv = append(argv, "--tls", "--cacert", ca.File)
	}
	return control.Process{Argv: argv, Env: env}, nil
}

// cacheMetrics writes what servers of caches do in Prometheus' text format, under ElastiCache's names.
func cacheMetrics(uses map[tenfold.ID][]cacheinfo.Use, b *strings.Builder) {
	each := func(name, kind string, of func(cacheinfo.Use) (float64, bool)) {
		first := true
		for _, id := range slices.SortedFunc(maps.Keys(uses), tenfold.ID.Compare) {
			for _, u := range uses[id] {
				v, ok := of(u)
				if !ok {
					continue
				}
				if first {
					fmt.Fprintf(b, "# TYPE %s %s\n", name, kind)
					first = false
				}
				fmt.Fprintf(b, "%s{%s,cache=%s,node=\"%d\",role=%s} %g\n", name, label2(string(id.App), string(id.Env)), quote(string(id.Name)), u.Node, quote(u.Role), v)
			}
		}
	}
	for _, m := range cacheFacts {
		each(m.name, m.kind, func(u cacheinfo.Use) (float64, bool) { v, ok := u.Metrics[m.of]; return v, ok })
	}
	for _, family := range cache.Families(uses) {
		name := "cache_" + snake(family)
		each(name+"_total", "counter", func(u cacheinfo.Use) (float64, bool) { v, ok := u.Calls[family]; return v.Calls, ok })
		each(name+"_latency_seconds_total", "counter", func(u cacheinfo.Use) (float64, bool) { v, ok := u.Calls[family]; return v.Seconds, ok })
	}
}

// cacheFacts are the metrics of a cache by ElastiCache's names.
var cacheFacts = []struct{ of, name, kind string }{
	{"BytesUsedForCache", "cache_bytes_used_for_cache", "gauge"}, {"DatabaseMemoryUsagePercentage", "cache_database_memory_usage_percentage", "gauge"},
	{"CacheHits", "cache_hits_total", "counter"}, {"CacheMisses", "cache_misses_total", "counter"}, {"CacheHitRate", "cache_hit_rate", "gauge"},
	{"CurrConnections", "cache_curr_connections", "gauge"}, {"NewConnections", "cache_new_connections_total", "counter"},
	{"CurrItems", "cache_curr_items", "gauge"}, {"CurrVolatileItems", "cache_curr_volatile_items", "gauge"},
	{"Evictions", "cache_evictions_total", "counter"}, {"Reclaimed", "cache_reclaimed_total", "counter"},
	{"NetworkBytesIn", "cache_network_bytes_in_total", "counter"}, {"NetworkBytesOut", "cache_network_bytes_out_total", "counter"},
	{"CmdGet", "cache_cmd_get_total", "counter"}, {"CmdSet", "cache_cmd_set_total", "counter"}, {"CmdTouch", "cache_cmd_touch_total", "counter"}, {"CmdFlush", "cache_cmd_flush_total", "counter"},
	{"CasHits", "cache_cas_hits_total", "counter"}, {"CasMisses", "cache_cas_misses_total", "counter"}, {"CasBadval", "cache_cas_badval_total", "counter"},
	{"DeleteHits", "cache_delete_hits_total", "counter"}, {"DeleteMisses", "cache_delete_misses_total", "counter"},
	{"IncrHits", "cache_incr_hits_total", "counter"}, {"IncrMisses", "cache_incr_misses_total", "counter"}, {"DecrHits", "cache_decr_hits_total", "counter"}, {"DecrMisses", "cache_decr_misses_total", "counter"},
	{"ExpiredUnfetched", "cache_expired_unfetched_total", "counter"}, {"EvictedUnfetched", "cache_evicted_unfetched_total", "counter"},
	{"ReplicationBytes", "cache_replication_bytes", "gauge"}, {"ReplicationLag", "cache_replication_lag_seconds", "gauge"},
	{"AuthenticationFailures", "cache_authentication_failures_total", "counter"}, {"CommandAuthorizationFailures", "cache_command_authorization_failures_total", "counter"},
	{"KeyAuthorizationFailures", "cache_key_authorization_failures_total", "counter"}, {"ChannelAuthorizationFailures", "cache_channel_authorization_failures_total", "counter"},
	{"MemoryFragmentationRatio", "cache_memory_fragmentation_ratio", "gauge"}, {"SaveInProgress", "cache_save_in_progress", "gauge"}, {"EngineCPUSeconds", "cache_engine_cpu_seconds_total", "counter"},
}

// snake writes HashBasedCmds as hash_based_cmds.
func snake(s string) string {
	var b strings.Builder
	for i, r := range s {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// cacheCertificates gives the servers of caches what they show, signed by the house's authority. It is opened
// with the first that has TLS.
func cacheCertificates(l Layout) func() (cache.PEM, error) {
	open := sync.OnceValues(func() (*certs.Local, error) {
		return certs.OpenLocal(l.certificates(), append([]string{"localhost", "::1"}, cache.Hosts()...)...)
	})
	return func() (cache.PEM, error) {
		local, err := open()
		if err != nil {
			return cache.PEM{}, err
		}
		c, err := local.Certificate()
		if err != nil {
			return cache.PEM{}, err
		}
		key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			return cache.PEM{}, fmt.Errorf("write certificate of caches: %w", err)
		}
		out := cache.PEM{Authority: local.Root(), Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}
		for _, der := range c.Certificate {
			out.Cert = append(out.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		return out, nil
	}
}
