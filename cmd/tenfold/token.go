package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
)

// dbToken prints a password for a while. It goes to standard output and nowhere else.
func (c *cli) dbToken(name *string) *cobra.Command {
	var url bool
	cmd := c.asking("token [DATABASE]", "A password for 15 minutes, for the user with +token behind the name; standard output should be no shared screen", cobra.MaximumNArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		named := *name
		if len(args) > 0 {
			named = args[0]
		}
		id, err := c.only(ctx, api, env, tenfold.KindDatabase, named)
		if err != nil {
			return err
		}
		t, err := api.Token(ctx, id)
		if err != nil || c.json {
			return orEncode(c, t, err)
		}
		if url {
			fmt.Fprintln(c.out, t.URL)
		} else {
			fmt.Fprintln(c.out, t.Token)
		}
		fmt.Fprintf(c.err, "user %s, until %s\n", t.User, t.Until.Local().Format(time.TimeOnly))
		return nil
	})
	cmd.Flags().BoolVar(&url, "url", false, "the whole address")
	return cmd
}

// dbCA prints the certificate that clients verify pools by.
func (c *cli) dbCA() *cobra.Command {
	var file bool
	cmd := c.asking("ca", "The authority of the pools' certificates, for sslrootcert", cobra.NoArgs, func(ctx context.Context, api *control.Client, _ control.Env, _ []string) error {
		a, err := api.Authority(ctx)
		if err != nil || c.json {
			return orEncode(c, a, err)
		}
		if file {
			fmt.Fprintln(c.out, a.File)
		} else {
			fmt.Fprint(c.out, a.PEM)
		}
		return nil
	})
	cmd.Flags().BoolVar(&file, "file", false, "where it lies on the house's machine")
	return cmd
}
