package manifest

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"tenfold"
)

// strategies are the words of deploy.
var strategies = []string{tenfold.StrategyRolling, tenfold.StrategyBlueGreen, tenfold.StrategyCanary}

// mostShare bounds a canary: with more the old version would be the one that is tried out.
const mostShare = 0.5

// strategy reads how a service's tasks are replaced. Rolling, the default, is "".
func (b *builder) strategy(deploy *tree, w *tenfold.Workload) {
	w.Deadline = b.duration(deploy, "deadline", 10*time.Minute)
	if w.Strategy = b.word(deploy, "strategy", "", strategies); w.Strategy == tenfold.StrategyRolling {
		w.Strategy = ""
	}
	w.Bake = b.duration(deploy, "bake", 0)
	f, ok := value(deploy, "share")
	if !ok {
		return
	}
	share, ok := readShare(b.reporter, f.node, f.path)
	switch {
	case !ok:
	case w.Strategy != tenfold.StrategyCanary:
		b.reporter.at(f.node, "write deploy: {strategy: canary, share: "+cut(f.node.Value, 20)+"}", "%s: only a canary gets a share of the requests", f.path)
	case share > mostShare:
		b.reporter.at(f.node, "write a share up to 50%", "%s: a canary that gets %s is no canary", f.path, cut(f.node.Value, 20))
	}
	w.Share = share
}

// pins reads which calls of frontends reach the deployment that made the page, and tells the services that
// answer them how long their tasks may stay for it.
func (b *builder) pins() {
	b.each("frontends", func(n tenfold.Name, t *tree) {
		f, ok := value(t, "pin")
		if !ok {
			return
		}
		routes, at := readRoutes(b.reporter, f.node, f.path)
		pin := &tenfold.Pin{Routes: routes}
		for i, r := range routes {
			pin.Services = append(pin.Services, b.pinned(f.path, r, at[i])...)
		}
		slices.Sort(pin.Services)
		pin.Services = slices.Compact(pin.Services)
		front := b.app.Frontends[n]
		front.Pin = pin
		b.app.Frontends[n] = front
		for _, s := range pin.Services {
			w := b.app.Services[s]
			w.Pinned = max(w.Pinned, front.Keep)
			b.app.Services[s] = w
		}
	})
}

// pinned are the services that answer along a route.
func (b *builder) pinned(path string, route tenfold.Route, at *yaml.Node) (out []tenfold.Name) {
	method, host, want := route.Split()
	if method != "" || host != "" {
		b.reporter.at(at, "write the path alone: "+cut(want, 60), "%s: %q names more than a path", path, cut(string(route), 60))
		return nil
	}
	for name, w := range b.app.Services {
		for _, r := range w.Routes {
			if _, _, have := r.Split(); overlap(want, have) {
				out = append(out, name)
				break
			}
		}
	}
	if len(out) == 0 {
		b.reporter.at(at, "write a path that a service has under routes", "%s: no service answers %s", path, cut(want, 60))
	}
	return out
}

// overlap says that a path can be along both routes.
func overlap(a, b string) bool {
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	for i := range min(len(x), len(y)) {
		if x[i] == "*" || y[i] == "*" {
			return true
		}
		if x[i] != y[i] && !strings.HasPrefix(x[i], ":") && !strings.HasPrefix(y[i], ":") {
			return false
		}
	}
	return len(x) == len(y)
}
