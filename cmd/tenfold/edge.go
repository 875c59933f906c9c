package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
	"tenfold/daemon"
)

func (c *cli) edgeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "edge", Short: "The front door: what it would do with a request, what its cache holds", Args: cobra.NoArgs}
	cmd.AddCommand(c.purgeCommand(), c.explainCommand())
	return cmd
}

func (c *cli) trustCommand() *cobra.Command {
	var remove bool
	cmd := &cobra.Command{Use: "trust", Short: "Have this machine trust the certificates of *.localhost and LAN names", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api := c.client()
		defer api.Close()
		h, err := api.House(cmd.Context())
		if err != nil {
			return err
		}
		if h.Root == "" {
			return tenfold.Errorf(tenfold.CodeConflict, "the house does not speak TLS").WithHint("start it with an address for it: tenfold up --tls 127.0.0.1:8443")
		}
		outcomes, err := daemon.Trust(cmd.Context(), []byte(h.Root), remove)
		if err != nil {
			return err
		}
		if c.json {
			return c.encode(outcomes)
		}
		for _, o := range outcomes {
			mark := "✗"
			if o.Done {
				mark = "✓"
			}
			fmt.Fprintf(c.out, "%s %s: %s\n", mark, o.Store, o.Text)
			for _, line := range o.Commands {
				fmt.Fprintf(c.out, "    %s\n", line)
			}
		}
		return nil
	}}
	cmd.Flags().BoolVar(&remove, "remove", false, "trust it no more")
	return cmd
}

func (c *cli) explainCommand() *cobra.Command {
	var client string
	var headers []string
	cmd := c.asking("explain [METHOD] PATH | URL", "What the front door would do with a request, and why; nothing is sent to the app", cobra.RangeArgs(1, 2), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		q := control.Question{URL: args[len(args)-1], Header: map[string]string{}}
		if len(args) == 2 {
			q.Method = args[0]
		}
		if client != "" {
			q.Client = net.JoinHostPort(client, "0")
		}
		for _, h := range headers {
			name, value, ok := strings.Cut(h, ":")
			if !ok {
				return usage("write a header as curl does: -H 'Name: value'")
			}
			q.Header[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
		x, err := api.Explain(ctx, env, q)
		if err != nil {
			return err
		}
		if c.json {
			return c.encode(x)
		}
		rows := [][]string{}
		for _, l := range x.Lines {
			rows = append(rows, []string{l.What, l.Says, l.Why})
		}
		rows = append(rows, []string{"answer", x.Answer, ""})
		table(c.out, rows)
		return nil
	})
	cmd.PreRunE = c.byAddress
	cmd.Flags().StringVar(&client, "from", "", "the client's address, for example 192.0.2.7 (default this machine)")
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil, "a header of the request, as curl takes it")
	return cmd
}

// byAddress takes the environment that is meant from a whole address, which names it better than the folder does.
func (c *cli) byAddress(cmd *cobra.Command, args []string) error {
	if c.app != "" || len(args) == 0 || !strings.Contains(args[len(args)-1], "://") {
		return nil
	}
	api := c.client()
	defer api.Close()
	h, err := api.House(cmd.Context())
	if err != nil {
		return err
	}
	for _, a := range h.Apps {
		if slices.ContainsFunc(a.URLs, func(mine string) bool { return hostOf(mine) == hostOf(args[len(args)-1]) }) {
			c.app, c.env = string(a.App), string(a.Env.Env)
		}
	}
	return nil
}

// hostOf is the host of an address, without its port.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
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
	cmd.PreRunE = c.byAddress
	cmd.Flags().StringVar(&tag, "tag", "", "a tag of the manifest's cache: or of the response's Surrogate-Key or Cache-Tag")
	return cmd
}
