package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
)

func (c *cli) gitCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "git", Short: "Tenfold as a git remote, and repositories on a Git host: a push is a deploy", Args: cobra.NoArgs}
	cmd.AddCommand(c.gitRemoteCommand(), c.gitConnectCommand(), c.gitDisconnectCommand(), c.gitKeysCommand())
	return cmd
}

func (c *cli) gitRemoteCommand() *cobra.Command {
	var ssh bool
	cmd := &cobra.Command{Use: "remote APP", Short: "The address to push an app to, its token included", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		api := c.client()
		defer api.Close()
		h, err := api.House(cmd.Context())
		if err != nil {
			return err
		}
		flag := ""
		var u *url.URL
		if ssh {
			if h.SSH == "" {
				return tenfold.Errorf(tenfold.CodeConflict, "the house does not speak SSH").WithHint("start it with an address for it: tenfold up --ssh 127.0.0.1:2222")
			}
			u, flag = &url.URL{Scheme: "ssh", User: url.User("git"), Host: h.SSH, Path: "/" + args[0] + ".git"}, " --ssh"
		} else {
			token, err := os.ReadFile(c.layout().Token())
			if err != nil {
				return tenfold.Errorf(tenfold.CodeDenied, "read the token: %w", err).WithHint("run this on the server, as the user that owns the data directory")
			}
			if u, err = url.Parse(h.Console); err != nil {
				return fmt.Errorf("read the console's address: %w", err)
			}
			u.User, u.Path = url.UserPassword("git", strings.TrimSpace(string(token))), "/git/"+args[0]+".git"
		}
		if c.json {
			return c.encode(map[string]string{"url": u.String()})
		}
		fmt.Fprintln(c.err, "git remote add tenfold $(tenfold git remote "+args[0]+flag+"); git push tenfold main")
		fmt.Fprintln(c.out, u)
		return nil
	}}
	cmd.Flags().BoolVar(&ssh, "ssh", false, "the address over SSH, for keys of tenfold git keys")
	return cmd
}

func (c *cli) gitConnectCommand() *cobra.Command {
	var r control.GitConnect
	var token string
	cmd := &cobra.Command{Use: "connect URL", Short: "Deploy what is pushed to a repository on GitHub, GitLab, Gitea, Forgejo or Bitbucket, with a preview for each pull request", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		api := c.client()
		defer api.Close()
		r.URL, r.Token = args[0], tenfold.Name(token)
		var err error
		if r.App, err = c.appOf(cmd.Context(), api); err != nil {
			return err
		}
		done, err := api.GitConnect(cmd.Context(), r)
		if err != nil {
			return err
		}
		if c.json {
			return c.encode(done)
		}
		table(c.out, [][]string{{"webhook", done.Webhook}, {"secret", done.Secret}, {"content", "application/json"}, {"events", "pushes and pull requests"}})
		fmt.Fprintf(c.err, "Enter this as a webhook of the repository (%s).\n", done.Kind)
		if host := hostOf(done.Webhook); host == "localhost" || strings.HasSuffix(host, ".localhost") {
			fmt.Fprintf(c.err, "Only this machine reaches that address. With a domain in tenfold.yaml (domain: shop.example.com) the app has one that the Git host reaches: deploy, and connect again.\n")
		}
		if !done.Posts {
			fmt.Fprintf(c.err, "Without --token no status is posted back, and only a public repository can be fetched:\n  tenfold secrets set GIT_TOKEN --app %[1]s; tenfold git connect %[2]s --app %[1]s --token GIT_TOKEN\n", r.App, r.URL)
		}
		return nil
	}}
	cmd.Flags().StringVar(&r.Kind, "kind", "", "github, gitlab, gitea (Forgejo too) or bitbucket (default by the host's name)")
	cmd.Flags().StringVar(&r.API, "api", "", "where the host's API begins (default by its kind)")
	cmd.Flags().StringVar(&token, "token", "", "secret of the app that holds an access token: it fetches, and posts statuses and comments")
	cmd.Flags().BoolVar(&r.Rotate, "rotate", false, "make a new secret for the webhook")
	return cmd
}

func (c *cli) gitDisconnectCommand() *cobra.Command {
	return &cobra.Command{Use: "disconnect", Short: "Deploy no more of what is pushed to the app's repository; what runs stays", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api := c.client()
		defer api.Close()
		app, err := c.appOf(cmd.Context(), api)
		if err != nil {
			return err
		}
		if err := api.GitDisconnect(cmd.Context(), app); err != nil {
			return err
		}
		fmt.Fprintf(c.err, "Deliveries for %s are refused from now on. Remove the webhook of the repository too.\n", app)
		return nil
	}}
}

// appOf is the app that is meant: the one named, or the only one.
func (c *cli) appOf(ctx context.Context, api *control.Client) (tenfold.AppName, error) {
	if c.app != "" {
		return tenfold.AppName(c.app), nil
	}
	env, err := c.target(ctx, api)
	return env.App, err
}

func (c *cli) gitKeysCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "Public keys that may push over SSH", Args: cobra.NoArgs}
	var name string
	add := &cobra.Command{Use: "add FILE", Short: "Let a public key push: a file as ~/.ssh/id_ed25519.pub, or - for standard input", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		var text []byte
		var err error
		if args[0] == "-" {
			text, err = io.ReadAll(io.LimitReader(c.in, 64<<10))
		} else if text, err = os.ReadFile(args[0]); errors.Is(err, fs.ErrNotExist) {
			return tenfold.Errorf(tenfold.CodeNotFound, "no file %s", args[0]).WithHint("make a key: ssh-keygen -t ed25519")
		}
		if err != nil {
			return err
		}
		line := strings.TrimSpace(string(text))
		if name == "" {
			if f := strings.Fields(line); len(f) > 2 {
				name = strings.Join(f[2:], " ")
			} else {
				name = actor()
			}
		}
		api := c.client()
		defer api.Close()
		k, err := api.AddGitKey(cmd.Context(), name, line)
		if err != nil {
			return err
		}
		if c.json {
			return c.encode(k)
		}
		fmt.Fprintf(c.out, "%s may push: %s\n", k.Name, k.Fingerprint)
		return nil
	}}
	add.Flags().StringVar(&name, "name", "", "whose it is (default the key's comment)")
	list := &cobra.Command{Use: "list", Short: "Keys that may push", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api := c.client()
		defer api.Close()
		keys, err := api.GitKeys(cmd.Context())
		if err != nil {
			return err
		}
		if c.json {
			return c.encode(keys)
		}
		rows := [][]string{{"NAME", "FINGERPRINT", "ADDED"}}
		for _, k := range keys {
			rows = append(rows, []string{k.Name, k.Fingerprint, k.Added.Local().Format(time.DateTime)})
		}
		table(c.out, rows)
		return nil
	}}
	remove := &cobra.Command{Use: "remove NAME | FINGERPRINT", Short: "Let a key push no more", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		api := c.client()
		defer api.Close()
		return api.RemoveGitKey(cmd.Context(), args[0])
	}}
	cmd.AddCommand(add, list, remove)
	return cmd
}

func (c *cli) previewCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "preview", Short: "Environments of branches and pull requests", Args: cobra.NoArgs}
	list := &cobra.Command{Use: "list", Short: "Previews, with their addresses and passwords", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return c.withPreviews(cmd.Context(), func(ctx context.Context, api *control.Client, app tenfold.AppName) error {
			all, err := api.Previews(ctx, app)
			if err != nil {
				return err
			}
			if c.json {
				return c.encode(all)
			}
			rows := [][]string{{"APP", "PREVIEW", "OF", "COMMIT", "STATE", "URL", "PASSWORD", "UNTIL"}}
			for _, p := range all {
				of := p.Branch
				if p.Pull > 0 {
					of = fmt.Sprintf("#%d %s", p.Pull, p.Branch)
				}
				if p.Fork {
					of += " (fork of " + p.Author + ")"
				}
				rows = append(rows, []string{string(p.App), string(p.Env.Env), of, short(p.Commit), p.State, p.URL, p.Password, p.Expires.Local().Format(time.DateTime)})
			}
			table(c.out, rows)
			return nil
		})
	}}
	remove := &cobra.Command{Use: "remove NAME", Short: "Take a preview away, with its data; NAME is its environment, branch or pull request", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return c.withPreviews(cmd.Context(), func(ctx context.Context, api *control.Client, app tenfold.AppName) error {
			return api.RemovePreview(ctx, app, args[0])
		})
	}}
	var commit string
	approve := &cobra.Command{Use: "approve NAME", Short: "Deploy the commit of a fork that waits, without secrets; its next one waits again", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return c.withPreviews(cmd.Context(), func(ctx context.Context, api *control.Client, app tenfold.AppName) error {
			p, err := api.ApprovePreview(ctx, app, args[0], commit)
			if err != nil {
				return err
			}
			if c.json {
				return c.encode(p)
			}
			fmt.Fprintf(c.out, "%s of %s is being deployed: %s; how it stands: tenfold preview list\n", short(p.Commit), p.Author, p.URL)
			return nil
		})
	}}
	approve.Flags().StringVar(&commit, "commit", "", "the commit that you read: a newer one is refused")
	cmd.AddCommand(list, remove, approve)
	return cmd
}

// withPreviews asks about the previews of the app that is named, or of all.
func (c *cli) withPreviews(ctx context.Context, f func(context.Context, *control.Client, tenfold.AppName) error) error {
	api := c.client()
	defer api.Close()
	return f(ctx, api, tenfold.AppName(c.app))
}

func short(commit string) string { return commit[:min(7, len(commit))] }
