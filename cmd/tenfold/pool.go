package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/pooldir"
)

// dbPool is what the pool before a database does, and what it has seen of statements.
func (c *cli) dbPool(name *string) *cobra.Command {
	var limit int
	cmd := c.asking("pool", "The pool before it: who waits, what statements cost and why they pin", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		id, err := c.only(ctx, api, env, tenfold.KindDatabase, *name)
		if err != nil {
			return err
		}
		v, err := api.Pool(ctx, id)
		if err != nil || c.json {
			return orEncode(c, v, err)
		}
		c.printPool(v, limit)
		return nil
	})
	cmd.Flags().IntVar(&limit, "limit", 20, "how many statements")
	return cmd
}

func (c *cli) printPool(v pooldir.View, limit int) {
	rows := [][]string{{"USER", "TO", "CLIENTS", "CONNECTIONS", "BUSY", "AT ONCE", "PINNED", "WAITING"}}
	for _, g := range v.Groups {
		if g.Readers && g.Clients == 0 && g.Servers == 0 {
			continue
		}
		to, waiting, atOnce := "primary", strconv.Itoa(g.Waiting), "all"
		if g.AtOnce > 0 {
			atOnce = strconv.Itoa(g.AtOnce)
		}
		if g.Readers {
			to = "readers"
		}
		if g.Waiting > 0 {
			waiting += ", " + took(g.Oldest)
		}
		rows = append(rows, []string{g.User, to, strconv.Itoa(g.Clients), strconv.Itoa(g.Servers), strconv.Itoa(g.Busy), atOnce, strconv.Itoa(g.Pinned), waiting})
	}
	table(c.out, rows)
	if len(v.Statements) > 0 {
		fmt.Fprintln(c.out)
		rows = [][]string{{"TOTAL", "CALLS", "MEAN", "MOST", "WAITED", "ROWS", "ERRORS", "STATEMENT"}}
		for _, s := range v.Statements[:min(limit, len(v.Statements))] {
			mean := time.Duration(0)
			if s.Calls > 0 {
				mean = s.Executed / time.Duration(s.Calls)
			}
			rows = append(rows, []string{took(s.Executed), strconv.FormatUint(s.Calls, 10), brief(mean), brief(s.Longest), brief(s.Waited), strconv.FormatUint(s.Rows, 10), classes(s.Errors), line(s.Query)})
		}
		table(c.out, rows)
	}
	if len(v.Slow) > 0 {
		fmt.Fprintln(c.out)
		rows = [][]string{{"SLOW", "TOOK", "WAITED", "SERVICE", "TRACE", "STATEMENT"}}
		for _, s := range v.Slow[:min(10, len(v.Slow))] {
			trace := "–"
			if p := strings.Split(s.Trace, "-"); len(p) == 4 {
				trace = p[1]
			}
			if s.Code != "" {
				s.Query = s.Code + ": " + s.Query
			}
			rows = append(rows, []string{ago(s.At), brief(s.Took), brief(s.Waited), dash(s.Application), trace, line(s.Query)})
		}
		table(c.out, rows)
	}
	c.printCached(v)
	if len(v.Pins) > 0 {
		fmt.Fprintln(c.out)
		rows = [][]string{{"PINNED BY", "NOW", "SO FAR", "STATEMENT"}}
		for _, p := range v.Pins {
			rows = append(rows, []string{p.Reason, strconv.Itoa(p.Now), strconv.FormatUint(p.Total, 10), line(p.Query)})
		}
		table(c.out, rows)
	}
}

// printCached shows the query cache, and what it did for which statement or why it may not.
func (c *cli) printCached(v pooldir.View) {
	k := v.Cache
	if k == nil {
		return
	}
	fmt.Fprintf(c.out, "\nquery cache %s: %d hits, %d misses, %d answers in %s of %s; %d thrown out by changes, %d for room\n",
		k.State, k.Hits, k.Misses, k.Entries, size(k.Bytes), size(k.Limit), k.Invalidations, k.Evicted)
	rows := [][]string{{"FINGERPRINT", "HITS", "MISSES", "NOT CACHED", "STATEMENT"}}
	for _, s := range v.Statements {
		if s.Hits > 0 || s.Misses > 0 || s.Uncached != "" {
			rows = append(rows, []string{s.Fingerprint, strconv.FormatUint(s.Hits, 10), strconv.FormatUint(s.Misses, 10), dash(s.Uncached), line(s.Query)})
		}
	}
	if len(rows) > 1 {
		table(c.out, rows)
	}
}

// brief is a time that may be far below a millisecond.
func brief(d time.Duration) string {
	switch {
	case d == 0:
		return "–"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2gms", float64(d)/float64(time.Millisecond))
	}
	return took(d)
}

// classes writes errors by class of SQLSTATE, most first.
func classes(m map[string]uint64) string {
	if len(m) == 0 {
		return "–"
	}
	var out []string
	for _, k := range slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b)) }) {
		out = append(out, fmt.Sprintf("%d× %s", m[k], k))
	}
	return strings.Join(out, ", ")
}
