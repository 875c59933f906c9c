package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"tenfold/control"
)

func (c *cli) edgeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "edge", Short: "The front door: what its cache holds of an app", Args: cobra.NoArgs}
	cmd.AddCommand(c.purgeCommand())
	return cmd
}

func (c *cli) purgeCommand() *cobra.Command {
	var tag string
	cmd := c.asking("purge [PATH | URL]", "Forget stored responses: one path, all below it (/assets/*), or all of a tag", cobra.MaximumNArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		p := control.Purge{Tag: tag}
		if len(args) == 1 {
			p.URL = args[0]
		}
		if (p.URL == "") == (p.Tag == "") {
			return usage("purge what? a path, an address, or --tag TAG")
		}
		n, err := api.Purge(ctx, env, p)
		if err != nil {
			return err
		}
		if c.json {
			return c.encode(map[string]int{"purged": n})
		}
		fmt.Fprintf(c.out, "%d purged\n", n)
		return nil
	})
	cmd.Flags().StringVar(&tag, "tag", "", "a tag of the manifest's cache: or of the response's Surrogate-Key or Cache-Tag")
	return cmd
}
