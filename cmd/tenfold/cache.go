package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/cacheinfo"
)

func (c *cli) cacheCommand() *cobra.Command {
	var name string
	cache := &cobra.Command{Use: "cache", Short: "A cache: shell, its servers, failover, passwords, keys, backups"}
	cache.PersistentFlags().StringVar(&name, "name", "", "cache, when the app has several")
	with := func(use, short string, args cobra.PositionalArgs, f func(context.Context, *control.Client, tenfold.ID, []string) error) *cobra.Command {
		return c.asking(use, short, args, func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
			id, err := c.only(ctx, api, env, tenfold.KindCache, name)
			if err != nil {
				return err
			}
			return f(ctx, api, id, args)
		})
	}
	asking := func(use, short string, f func(context.Context, *control.Client, tenfold.ID) error) *cobra.Command {
		return with(use, short, cobra.NoArgs, func(ctx context.Context, api *control.Client, id tenfold.ID, _ []string) error {
			return f(ctx, api, id)
		})
	}
	var node int
	switchover := asking("switchover", "Make a reader the primary in order: writes wait, and none is lost", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
		begun := time.Now()
		if err := api.CacheSwitchover(ctx, id, node); err != nil {
			return err
		}
		return c.tellCache(ctx, api, id, begun)
	})
	switchover.Flags().IntVar(&node, "to", 0, "node to switch to (default: the one that is least behind)")
	var to string
	restore := asking("restore", "Make a cache beside it with what a backup has", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
		at, err := parseMoment(to)
		if err != nil {
			return err
		}
		made, err := api.CacheRestore(ctx, id, at)
		if err != nil || c.json {
			return orEncode(c, made, err)
		}
		fmt.Fprintln(c.out, made.Name)
		fmt.Fprintf(c.err, "cache %s is %s as it was; the old one is untouched\n  look at it  tenfold cache cli --name %s\n  keep it     write it under caches in tenfold.yaml\n  drop it     tenfold kept remove %s --yes\n", made.Name, id.Name, made.Name, made)
		return nil
	})
	restore.Flags().StringVar(&to, "to", "latest", "a time ('2026-11-23 10:15:30', UTC): the last backup before it; or latest")
	var n int
	keys := asking("keys", "A sample of its keys: the large, the hot, and what more memory would buy", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
		k, err := api.CacheKeys(ctx, id, n)
		if err != nil || c.json {
			return orEncode(c, k, err)
		}
		c.printKeys(k)
		return nil
	})
	keys.Flags().IntVar(&n, "sample", 0, "how many keys to look at (default 5000)")
	cache.AddCommand(
		keys,
		asking("top", "What the primary does now: commands by time, what was slow, hits and memory", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
			t, err := api.CacheTop(ctx, id)
			if err != nil || c.json {
				return orEncode(c, t, err)
			}
			c.printTop(t)
			return nil
		}),
		asking("backup", "Take a backup now", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
			b, err := api.CacheBackup(ctx, id)
			if err != nil || c.json {
				return orEncode(c, b, err)
			}
			fmt.Fprintf(c.out, "%s  %s in %s\n", b.Name, size(b.Bytes), took(b.Ended.Sub(b.Begun)))
			return nil
		}),
		asking("backups", "What can be restored from", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
			bs, err := api.CacheBackups(ctx, id)
			if err != nil || c.json {
				return orEncode(c, bs, err)
			}
			rows := [][]string{{"BACKUP", "OF", "SIZE", "NOTE"}}
			for _, b := range bs {
				note := b.Fault
				if b.Encrypted {
					note = strings.TrimPrefix(note+", encrypted", ", ")
				}
				rows = append(rows, []string{b.Name, b.Ended.UTC().Format(time.DateTime), size(b.Bytes), note})
			}
			table(c.out, rows)
			return nil
		}),
		restore,
		with("cli [-- ARGS…]", "A valkey-cli or redis-cli shell on the cache", cobra.ArbitraryArgs, func(ctx context.Context, api *control.Client, id tenfold.ID, args []string) error {
			p, err := api.Environ(ctx, id, "cli")
			if err != nil {
				return err
			}
			return c.hand(ctx, append(p.Argv, args...), p)
		}),
		asking("url", "The cache's address with its password; standard output should be no shared screen", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
			p, err := api.Environ(ctx, id, "")
			if err != nil {
				return err
			}
			for _, kv := range p.Env {
				if name, v, _ := strings.Cut(kv, "="); name == "REDIS_URL" || name == "MEMCACHED_URL" {
					fmt.Fprintln(c.out, v)
				}
			}
			return nil
		}),
		asking("nodes", "Its servers: which is the primary, how far readers are behind", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
			d, err := api.Cache(ctx, id)
			if err != nil || c.json {
				return orEncode(c, d, err)
			}
			c.printCache(d)
			return nil
		}),
		asking("failover", "Kill the primary as a crash would: a rehearsal, or the way out when it is ill", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
			begun := time.Now()
			if err := api.CacheFailover(ctx, id); err != nil {
				return err
			}
			return c.tellCache(ctx, api, id, begun)
		}),
		switchover,
		asking("rotate", "New passwords for all users of the cache; the services that have one are restarted", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
			done, err := api.CacheRotate(ctx, id)
			if err != nil || c.json {
				return orEncode(c, done, err)
			}
			fmt.Fprintf(c.err, "%s has new passwords; the old ones are taken for ten minutes more, or until it is rotated again\n", id.Name)
			if len(done.Restarted) > 0 {
				fmt.Fprintf(c.err, "  restarted        %s: new tasks beside the old (tenfold ps)\n", strings.Join(done.Restarted, ", "))
			}
			fmt.Fprintln(c.err, "  everybody else   tenfold cache url")
			return nil
		}),
	)
	return cache
}

// tellCache says that a cache has a primary again.
func (c *cli) tellCache(ctx context.Context, api *control.Client, id tenfold.ID, begun time.Time) error {
	d, err := api.Cache(ctx, id)
	if err != nil || c.json {
		return orEncode(c, d, err)
	}
	fmt.Fprintf(c.err, "%s has a primary again after %s\n", id.Name, took(time.Since(begun)))
	c.printCache(d)
	return nil
}

func (c *cli) printCache(d cacheinfo.Cache) {
	rows := [][]string{{"NODE", "ROLE", "STATE", "LAG", "MEMORY", "ADDRESS"}}
	for _, n := range d.Nodes {
		lag := "–"
		if n.Role == "reader" && n.Lag >= 0 {
			lag = size(n.Lag)
		}
		rows = append(rows, []string{strconv.Itoa(n.N), n.Role, n.State, lag, size(n.Memory), dash(strings.Join(n.Addr, " "))})
	}
	table(c.out, rows)
	note := fmt.Sprintf("%s, epoch %d, %s, %s", d.Version, d.Epoch, size(d.Size), d.Evict)
	if d.TLS {
		note += ", TLS"
	}
	fmt.Fprintln(c.out, note)
}

func (c *cli) printTop(t cacheinfo.Top) {
	m := t.Metrics
	fmt.Fprintf(c.out, "processor %.1f %%, memory %s (%.0f %%), %.0f keys, %.0f connections, hits %.1f %%, %.0f evicted\n\n",
		t.EngineCPU, size(int64(m["BytesUsedForCache"])), m["DatabaseMemoryUsagePercentage"], m["CurrItems"], m["CurrConnections"], m["CacheHitRate"], m["Evictions"])
	rows := [][]string{{"COMMAND", "A SECOND", "PROCESSOR", "CALLS", "MEAN", "P50", "P99", "FAILED"}}
	for _, x := range t.Commands {
		rows = append(rows, []string{x.Name, fmt.Sprintf("%.0f", x.Rate), fmt.Sprintf("%.1f %%", x.Busy), fmt.Sprintf("%.0f", x.Calls), brief(x.Mean), brief(x.P50), brief(x.P99), fmt.Sprintf("%.0f", x.Failed)})
	}
	if len(rows) > 1 { // memcached does not tell
		table(c.out, rows)
	}
	if len(t.Slow) == 0 {
		return
	}
	fmt.Fprintln(c.out)
	rows = [][]string{{"SLOW", "TOOK", "WHEN", "KEY", "WORDS"}}
	for _, x := range t.Slow {
		rows = append(rows, []string{x.Command, brief(x.Took), ago(x.At), dash(line(x.Key)), strconv.Itoa(x.Words)})
	}
	table(c.out, rows)
}

func (c *cli) printKeys(k cacheinfo.Keys) {
	fmt.Fprintf(c.out, "%d of %d keys\n\n", k.Sampled, k.Keys)
	warmth := func(x cacheinfo.Key) string {
		if k.Frequency {
			return strconv.FormatInt(x.Frequency, 10)
		}
		return x.Idle.String()
	}
	column := map[bool]string{true: "COUNT", false: "UNTOUCHED"}[k.Frequency]
	for _, part := range []struct {
		title string
		keys  []cacheinfo.Key
	}{{"LARGE", k.Big}, {"HOT", k.Hot}} {
		rows := [][]string{{part.title, "TYPE", "BYTES", column}}
		if len(part.keys) == 0 {
			continue
		}
		for _, x := range part.keys {
			rows = append(rows, []string{line(x.Name), x.Type, size(x.Bytes), warmth(x)})
		}
		table(c.out, rows)
		fmt.Fprintln(c.out)
	}
	if k.Why != "" {
		fmt.Fprintln(c.out, k.Why)
		return
	}
	rows := [][]string{{"SIZE", "WOULD HIT"}}
	for _, w := range k.Worth {
		rows = append(rows, []string{size(w.Bytes), fmt.Sprintf("%.1f %%", 100*w.Hit)})
	}
	table(c.out, rows)
}
