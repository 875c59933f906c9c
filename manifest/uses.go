package manifest

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"tenfold"
	"tenfold/internal/lazy"
)

var extensionOK = lazy.Regexp(`^[a-z][a-z0-9_-]{0,62}$`)

// uses resolves the arrow "may call": the variables that are injected and the resources that must
// serve first. env is what the entry sets itself; a variable comes from one place.
func (b *builder) uses(t *tree, env map[string]string, of tenfold.Kind, self tenfold.Name) ([]tenfold.Binding, []tenfold.ID) {
	f, ok := value(t, "uses")
	if !ok {
		return nil, nil
	}
	count := map[tenfold.Kind]int{}
	for _, name := range f.order {
		if !f.fields[name].off {
			count[b.kinds[name]]++
		}
	}
	var bindings []tenfold.Binding
	var needs []tenfold.ID
	from := map[string]string{}
	add := func(u *tree, name, hint string, vars []tenfold.Binding) {
		for _, v := range vars {
			if _, set := env[v.Var]; set {
				b.reporter.at(t.get("env").fields[v.Var].place(), "remove it from env, or "+hint, "%s: %s comes from %s in uses already", t.get("env").path, v.Var, name)
				continue
			}
			if o := from[v.Var]; o != "" {
				b.reporter.at(u.key, hint, "%s: %s comes from %s already", f.path, v.Var, o)
				continue
			}
			from[v.Var] = name
			bindings = append(bindings, v)
		}
	}
	for _, name := range f.order {
		u := f.fields[name]
		kind, known := b.kinds[name]
		switch {
		case u.off:
			continue
		case !known:
			b.unknownUse(f, u, name)
			continue
		case !b.mayUse(f, u, of, self, kind):
			continue
		}
		id := b.app.ID(kind, tenfold.Name(name))
		add(u, name, "choose another variable: uses: {"+name+": "+upper(name)+"_URL}", b.variables(u, id, count[kind]))
		if kind != tenfold.KindSecret && kind != tenfold.KindFunction { // one that is called is there when it is called
			needs = append(needs, id)
		}
	}
	for _, name := range sortedKeys(f.fields) {
		if d, ok := b.app.Databases[tenfold.Name(name)]; ok && b.kinds[name] == tenfold.KindDatabase && !f.fields[name].off && name != string(self) {
			add(f.fields[name], name, awsName, b.signed(d, b.app.ID(tenfold.KindDatabase, tenfold.Name(name)), self, from))
		}
	}
	for _, name := range f.order {
		if b.kinds[name] == tenfold.KindFunction && !f.fields[name].off && name != string(self) && from["AWS_ENDPOINT_URL_LAMBDA"] == "" && of != tenfold.KindFrontend {
			id := b.app.ID(tenfold.KindFunction, tenfold.Name(name))
			add(f.fields[name], name, awsName, append([]tenfold.Binding{{Var: "AWS_ENDPOINT_URL_LAMBDA", From: id, Field: tenfold.FieldURL}}, b.keys(self, from)...))
		}
	}
	for _, name := range f.order {
		if k := b.kinds[name]; endpoints[k] != nil && !f.fields[name].off && of != tenfold.KindFrontend {
			add(f.fields[name], name, awsName, b.endpoints(b.app.ID(k, tenfold.Name(name)), self, from))
		}
	}
	// The order of names in the file means nothing, so it does not reach a fingerprint.
	slices.SortFunc(bindings, func(a, b tenfold.Binding) int { return strings.Compare(a.Var, b.Var) })
	slices.SortFunc(needs, tenfold.ID.Compare)
	return bindings, needs
}

// signed are the variables by which SDKs of AWS find a database's Data API and sign for it, and the name that
// its pool counts the service by.
func (b *builder) signed(d tenfold.Database, id tenfold.ID, self tenfold.Name, from map[string]string) (out []tenfold.Binding) {
	own := b.app.ID(tenfold.KindIdentity, self)
	if d.Proxy.ServiceLimit > 0 && from["PGAPPNAME"] == "" {
		out = append(out, tenfold.Binding{Var: "PGAPPNAME", From: own, Field: tenfold.FieldName})
	}
	if !d.API {
		return out
	}
	name := upper(string(id.Name))
	out = append(out, tenfold.Binding{Var: name + "_ARN", From: id, Field: tenfold.FieldARN}, tenfold.Binding{Var: name + "_SECRET_ARN", From: id, Field: tenfold.FieldSecretARN})
	if b.app.Databases[tenfold.Name(from["AWS_ENDPOINT_URL_RDS_DATA"])].API { // it answers for the others too
		return out
	}
	return append(append(out, tenfold.Binding{Var: "AWS_ENDPOINT_URL_RDS_DATA", From: id, Field: tenfold.FieldAPI}), b.keys(self, from)...)
}

// endpoints are the variables in which SDKs of AWS look for the address of a kind of store.
var endpoints = map[tenfold.Kind][]string{
	tenfold.KindQueue:  {"AWS_ENDPOINT_URL_SQS"},
	tenfold.KindTable:  {"AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_DYNAMODB_STREAMS"},
	tenfold.KindBucket: {"AWS_ENDPOINT_URL_S3"},
	tenfold.KindBus:    {"AWS_ENDPOINT_URL_EVENTBRIDGE", "AWS_ENDPOINT_URL_SCHEDULER"},
}

// endpoints are the variables by which SDKs of AWS find a store and sign for it.
func (b *builder) endpoints(id tenfold.ID, self tenfold.Name, from map[string]string) (out []tenfold.Binding) {
	for _, v := range endpoints[id.Kind] {
		if o := from[v]; o != "" && b.kinds[o] == id.Kind { // another of its kind gives it
			return nil
		}
		out = append(out, tenfold.Binding{Var: v, From: id, Field: tenfold.FieldAPI})
	}
	return append(out, b.keys(self, from)...)
}

// awsName is what to do about a variable that an SDK of AWS reads.
const awsName = "call that one otherwise: the SDKs of AWS read this name"

// keys are the variables by which SDKs of AWS sign, unless another use gives them.
func (b *builder) keys(self tenfold.Name, from map[string]string) []tenfold.Binding {
	if from["AWS_ACCESS_KEY_ID"] != "" {
		return nil
	}
	own := b.app.ID(tenfold.KindIdentity, self)
	return []tenfold.Binding{
		{Var: "AWS_REGION", From: own, Field: tenfold.FieldRegion}, {Var: "AWS_ACCESS_KEY_ID", From: own, Field: tenfold.FieldKeyID}, {Var: "AWS_SECRET_ACCESS_KEY", From: own, Field: tenfold.FieldKeySecret},
	}
}

// mayUse refuses what has no meaning: itself, jobs, frontends, running things from a build.
func (b *builder) mayUse(f, u *tree, of tenfold.Kind, self tenfold.Name, kind tenfold.Kind) bool {
	name := u.key.Value
	switch {
	case name == string(self):
		b.reporter.at(u.key, "remove it", "%s: %s uses itself", f.path, name)
	case of == tenfold.KindFrontend && kind != tenfold.KindSecret:
		hint := "call a service through its routes, from the browser"
		b.reporter.at(u.key, hint, "%s: a frontend is files: its build may use secrets, not a %s", f.path, kind)
	case kind == tenfold.KindFrontend || kind == tenfold.KindJob:
		b.reporter.at(u.key, "remove it; stores of data, services, functions and secrets can be used", "%s: a %s cannot be used", f.path, kind)
	default:
		return true
	}
	return false
}

func (b *builder) unknownUse(f, u *tree, name string) {
	known := sortedKeys(b.kinds)
	if upperCase.MatchString(name) {
		hint := "add it under secrets: [" + name + "]"
		if have := b.top.get("secrets"); have != nil && !have.off && have.node != nil && have.node.Kind == yaml.SequenceNode {
			hint = "add it to secrets on line " + itoa(have.line()) + ": [" + strings.Join(append(slices.Clone(have.order), name), ", ") + "]"
		} else if have != nil && !have.off {
			hint = "add the line \"" + name + ":\" under secrets (line " + itoa(have.line()) + ")"
		}
		if n := nearest(name, known); n != "" {
			hint = "did you mean \"" + n + "\"? else " + hint
		}
		b.reporter.at(u.key, hint, "%s: no secret %q is declared", f.path, cut(name, 60))
		return
	}
	hint := didYouMean(name, known)
	switch {
	case nearest(name, known) != "":
	case name == "postgres" || name == "database" || name == "db" || name == "pg":
		hint = "add databases: [" + name + "]"
	case name == "redis" || name == "cache" || name == "valkey":
		hint = "add caches: [" + name + "]"
	case name == "sqs" || name == "queue":
		hint = "add queues: [" + name + "]"
	case name == "dynamodb" || name == "table":
		hint = "add tables: [" + name + "]"
	case name == "timestream" || name == "influx" || name == "influxdb" || name == "prometheus" || name == "series":
		hint = "add series: [" + name + "]"
	case name == "eventbridge" || name == "events" || name == "bus":
		hint = "add events: [" + name + "]"
	}
	b.reporter.at(u.key, hint, "%s: nothing is called %q", f.path, cut(name, 60))
}

// variables are what one used thing injects. several: another of its kind is used too, so the
// generic names would be anyone's guess.
func (b *builder) variables(u *tree, id tenfold.ID, several int) []tenfold.Binding {
	bind := func(v string, f tenfold.Field) tenfold.Binding { return tenfold.Binding{Var: v, From: id, Field: f} }
	field := tenfold.FieldURL
	switch id.Kind {
	case tenfold.KindSecret:
		field = tenfold.FieldValue
	case tenfold.KindFunction, tenfold.KindTable, tenfold.KindBus, tenfold.KindBucket:
		field = tenfold.FieldName
	}
	if !isNull(u.node) {
		v := u.node.Value
		switch {
		case !upperCase.MatchString(v):
			b.reporter.at(u.node, "write "+upper(v), "%s: %q is not a variable's name in UPPER_CASE", u.path, cut(v, 60))
			return nil
		case reserved[v] != "":
			b.reporter.at(u.node, "choose another", "%s: %s %s", u.path, v, reserved[v])
			return nil
		}
		return []tenfold.Binding{bind(v, field)}
	}
	own := upper(string(id.Name)) + "_URL"
	switch {
	case id.Kind == tenfold.KindSecret:
		return []tenfold.Binding{bind(string(id.Name), field)}
	case id.Kind == tenfold.KindFunction:
		return []tenfold.Binding{bind(upper(string(id.Name))+"_FUNCTION", tenfold.FieldName)}
	case id.Kind == tenfold.KindQueue:
		return []tenfold.Binding{bind(upper(string(id.Name))+"_QUEUE_URL", field)}
	case id.Kind == tenfold.KindTable:
		return []tenfold.Binding{bind(upper(string(id.Name))+"_TABLE", field)}
	case id.Kind == tenfold.KindBucket:
		return []tenfold.Binding{bind(upper(string(id.Name))+"_BUCKET", field)}
	case id.Kind == tenfold.KindBus:
		return []tenfold.Binding{bind(upper(string(id.Name))+"_BUS", field)}
	case reserved[own] != "":
		b.reporter.at(u.key, "choose another variable: uses: {"+string(id.Name)+": "+upper(string(id.Name))+"_SERVICE_URL}", "%s: %s %s", u.path, own, reserved[own])
		return nil
	case id.Kind == tenfold.KindService, several > 1:
		return []tenfold.Binding{bind(own, field)}
	case id.Kind == tenfold.KindCache && b.app.Caches[id.Name].Engine == "memcached":
		return []tenfold.Binding{bind("MEMCACHED_URL", field)}
	case id.Kind == tenfold.KindCache:
		read := field
		if b.app.Caches[id.Name].Readers.Max > 0 {
			read = tenfold.FieldReadURL
		}
		return []tenfold.Binding{bind("REDIS_URL", field), bind("REDIS_READ_URL", read)}
	case id.Kind == tenfold.KindSeries:
		return []tenfold.Binding{bind("SERIES_URL", field)}
	}
	read := field
	if field == tenfold.FieldURL && b.app.Databases[id.Name].Readers.Max > 0 {
		read = tenfold.FieldReadURL
	}
	return []tenfold.Binding{
		bind("DATABASE_URL", field), bind("DATABASE_READ_URL", read),
		bind("PGHOST", tenfold.FieldHost), bind("PGPORT", tenfold.FieldPort), bind("PGUSER", tenfold.FieldUser),
		bind("PGPASSWORD", tenfold.FieldPassword), bind("PGDATABASE", tenfold.FieldDatabase),
	}
}

// cycles reports services that wait for each other: none could start first.
func (b *builder) cycles() {
	const (
		open = iota + 1
		done
	)
	state := map[tenfold.Name]int{}
	var trail []string
	var visit func(n tenfold.Name)
	visit = func(n tenfold.Name) {
		state[n] = open
		trail = append(trail, string(n))
		for _, id := range b.app.Services[n].Uses {
			if id.Kind != tenfold.KindService {
				continue
			}
			switch state[id.Name] {
			case open:
				loop := append(slices.Clone(trail[slices.Index(trail, string(id.Name)):]), string(id.Name))
				at := b.top.get("services").get(string(n)).get("uses").get(string(id.Name)).key
				b.reporter.at(at, "remove one of these uses; a service can also be reached by its route", "services use each other in a circle: %s", strings.Join(loop, " → "))
			case 0:
				visit(id.Name)
			}
		}
		trail = trail[:len(trail)-1]
		state[n] = done
	}
	for _, name := range sortedKeys(b.app.Services) {
		if state[name] == 0 {
			visit(name)
		}
	}
}
