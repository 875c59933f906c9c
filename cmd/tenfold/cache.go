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
	cache := &cobra.Command{Use: "cache", Short: "A cache: shell, its servers, failover, passwords"}
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
	cache.AddCommand(
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
				if v, ok := strings.CutPrefix(kv, "REDIS_URL="); ok {
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
