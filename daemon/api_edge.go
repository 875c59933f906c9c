package daemon

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/directory"
	"tenfold/internal/lazy"
	"tenfold/tier/edge"
)

// Purge implements control.API. A path is meant under every name of the app, with and without the
// port, because a response is stored under the host it was asked for.
func (h *house) Purge(ctx context.Context, e control.Env, p control.Purge) (int, error) {
	env, err := h.environment(ctx, e)
	if err != nil {
		return 0, err
	}
	if env.Goal == 0 {
		return 0, tenfold.Errorf(tenfold.CodeConflict, "%s does not run", e.App).WithHint("start it in its folder: tenfold up")
	}
	app, err := h.app(ctx, env.App, env.Env, env.Goal)
	if err != nil {
		return 0, err
	}
	if p.Tag != "" {
		return h.edge.Purge(ctx, directory.Purge{Tag: p.Tag, Site: env.App + "/" + env.Env})
	}
	target, origins := p.URL, []string{""}
	if strings.HasPrefix(target, "/") {
		origins = h.origins(app)
	} else if u, err := url.Parse(target); err != nil || u.Scheme == "" || u.Host == "" {
		return 0, tenfold.Errorf(tenfold.CodeInvalid, "%q is neither a path nor an address", target).WithHint("tenfold edge purge /api/tags, /assets/*, or https://shop.example.com/x")
	}
	all := 0
	for _, o := range origins {
		what := directory.Purge{URL: o + target}
		if below, ok := strings.CutSuffix(o+target, "*"); ok {
			what = directory.Purge{Prefix: below}
		}
		n, err := h.edge.Purge(ctx, what)
		if err != nil {
			return all, err
		}
		all += n
	}
	return all, h.audit(ctx, e.App, e.Env, "purge", "edge", "asked for: "+target)
}

// Explain implements control.API. A path is meant under the app's first address.
func (h *house) Explain(ctx context.Context, e control.Env, q control.Question) (control.Explanation, error) {
	env, err := h.environment(ctx, e)
	if err != nil {
		return control.Explanation{}, err
	}
	if env.Goal == 0 {
		return control.Explanation{}, tenfold.Errorf(tenfold.CodeConflict, "%s does not run", e.App).WithHint("start it in its folder: tenfold up")
	}
	if q.Method == "" {
		q.Method = http.MethodGet
	}
	if !methodOK.MatchString(q.Method) {
		return control.Explanation{}, tenfold.Errorf(tenfold.CodeInvalid, "%q is not a method", q.Method).WithHint("write it in upper case: POST")
	}
	if q.Client == "" {
		q.Client = "127.0.0.1:0"
	}
	if strings.HasPrefix(q.URL, "/") {
		app, err := h.app(ctx, env.App, env.Env, env.Goal)
		if err != nil {
			return control.Explanation{}, err
		}
		urls := h.urls(app)
		if len(urls) == 0 {
			return control.Explanation{}, tenfold.Errorf(tenfold.CodeConflict, "the house has no address")
		}
		q.URL = strings.TrimSuffix(urls[0], "/") + q.URL
	}
	if u, err := url.Parse(q.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return control.Explanation{}, tenfold.Errorf(tenfold.CodeInvalid, "%q is neither a path nor an address", q.URL).WithHint("tenfold edge explain /api/tags, or https://shop.example.com/api/tags")
	}
	return h.edge.Explain(ctx, q)
}

var methodOK = lazy.Regexp(`^[A-Z]{1,20}$`)

// origins are all the schemes and hosts under which an app may have been asked.
func (h *house) origins(app tenfold.App) []string {
	hosts := append([]string{edge.Host(app.Name, app.Env), "localhost", "127.0.0.1"}, app.Domains...)
	if _, port, err := net.SplitHostPort(h.listen); err == nil {
		for _, name := range slices.Clone(hosts) {
			hosts = append(hosts, net.JoinHostPort(name, port))
		}
	}
	var out []string
	for _, name := range hosts {
		out = append(out, "http://"+name, "https://"+name)
	}
	return out
}
