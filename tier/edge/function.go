package edge

import (
	"maps"
	"time"

	"tenfold"
)

// FieldFunction tells the functions' process which function a request is for.
const FieldFunction = "Tenfold-Function"

// functionSlack is what a function may take beside its own timeout: to start, and to be told.
const functionSlack = 15 * time.Second

// namingFunctions are an app's rules, with those that name the function at the end of a route. A rule sets
// the field whatever the client says there.
func namingFunctions(app tenfold.App) map[tenfold.Route]tenfold.Rule {
	rules := maps.Clone(app.Rules)
	for name, f := range app.Functions {
		for _, route := range f.Routes {
			if rules == nil {
				rules = map[tenfold.Route]tenfold.Rule{}
			}
			r := rules[route]
			r.Request = maps.Clone(r.Request)
			if r.Request == nil {
				r.Request = map[string]string{}
			}
			r.Request[FieldFunction] = app.ID(tenfold.KindFunction, name).String()
			rules[route] = r
		}
	}
	return rules
}
