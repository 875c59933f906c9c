package compose

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"tenfold/internal/lazy"
)

var (
	secretName = lazy.Regexp(`(^|_)(KEY|SECRET|TOKEN|PASSWORD|PASS|CREDENTIALS|APIKEY)(_|$)`)
	variable   = lazy.Regexp(`^[A-Z][A-Z0-9_]*$`)
	injected   = lazy.Regexp(`^(DATABASE_(READ_)?URL|REDIS_(READ_)?URL|PG(HOST|PORT|USER|PASSWORD|DATABASE)|PORT|APP_URL|APP_ENV)$`)
	interval   = lazy.Regexp(`^[0-9]+(ms|s|m|h)$`)
	memory     = lazy.Regexp(`^([0-9]+)([kmgKMG])[bB]?$`)
	probe      = lazy.Regexp(`https?://[^/\s"']+(/[^\s"'|&;]*)`)
)

// service translates the fields of one compose service; the rest becomes notes.
func (im *importer) service(s *service) {
	contained := field(s.node, "build") == nil && field(s.node, "image") != nil
	each(s.node, func(k, v *yaml.Node) {
		at := "services." + s.key.Value + "." + k.Value
		switch k.Value {
		case "image":
			if contained {
				s.lines = append([]string{"image: " + quote(v.Value)}, s.lines...)
				im.note(k, at, "runs in a container, which has to listen on 127.0.0.1:$PORT; look which setting of it says so")
			}
		case "build":
			im.build(s, k, v, at)
		case "command":
			if t := strings.TrimSpace(flat(v)); t != "" {
				s.lines = append(s.lines, "command: "+quote(t))
			}
			if contained {
				im.note(k, at, "runs in place of the image's ENTRYPOINT too, and by sh -c: write the whole command, as a list where the image has no shell")
			}
		case "ports":
			s.ports = len(v.Content) > 0
			im.note(k, at, "translated to routes: a task listens on $PORT, the front door on one port for all; check the path")
		case "depends_on", "links":
			im.depends(s, v, at)
		case "environment":
			im.environment(s, v, at)
		case "healthcheck":
			im.health(s, v, at)
		case "deploy":
			im.deploy(s, v, at)
		case "mem_limit":
			im.size(s, v, at)
		case "stop_grace_period":
			if interval.MatchString(v.Value) {
				s.lines = append(s.lines, "drain: "+v.Value)
			} else {
				im.note(k, at, "not carried: write drain: 30s")
			}
		case "restart", "container_name", "init", "expose", "hostname":
			// Tenfold restarts, names and connects tasks by itself.
		case "env_file":
			im.note(k, at, "not carried: put its variables into env, what is secret into secrets")
		case "volumes":
			im.note(k, at, "not carried: a task has no disk of its own; keep files in a database")
		case "secrets":
			im.note(k, at, "not carried: a secret is a variable here; add it to secrets and uses")
		default:
			im.note(k, at, "not carried")
		}
	})
	slices.Sort(s.uses)
	s.uses = slices.Compact(s.uses)
	if !contained && !slices.ContainsFunc(s.lines, func(l string) bool { return strings.HasPrefix(l, "path: ") }) {
		s.lines = append([]string{"path: ."}, s.lines...)
	}
}

func (im *importer) build(s *service, k, v *yaml.Node, at string) {
	dir := v.Value
	if v.Kind == yaml.MappingNode {
		dir = "."
		each(v, func(f, value *yaml.Node) {
			switch {
			case f.Value == "context":
				dir = value.Value
			case f.Value == "dockerfile" && value.Value != "" && !strings.HasPrefix(path.Clean(value.Value), "..") && !strings.HasPrefix(value.Value, "/"):
				s.lines = append(s.lines, "build: {dockerfile: "+quote(path.Clean(value.Value))+"}")
			default:
				im.note(f, at+"."+f.Value, "not carried: an image is built from its Dockerfile and its folder alone")
			}
		})
	} else {
		im.note(k, at, "its Dockerfile is not used: language, build and command are detected, and it runs as a process; for a container: build: {dockerfile: Dockerfile}")
	}
	clean := path.Clean(strings.TrimPrefix(dir, "./"))
	if dir == "" || strings.HasPrefix(clean, "..") || strings.HasPrefix(clean, "/") || strings.Contains(clean, ":") {
		im.note(k, at, "not carried: %q is not a folder of this project", dir)
		clean = "."
	}
	s.lines = append([]string{"path: " + quote(clean)}, s.lines...)
}

func (im *importer) depends(s *service, v *yaml.Node, at string) {
	add := func(n *yaml.Node) {
		name, _, _ := strings.Cut(n.Value, ":")
		if ours := im.names[name]; ours != "" && ours != s.name {
			s.uses = append(s.uses, ours)
		} else {
			im.note(n, at, "%s is not in the manifest", name)
		}
	}
	for _, c := range v.Content {
		if v.Kind == yaml.SequenceNode {
			add(c)
		}
	}
	each(v, func(k, _ *yaml.Node) { add(k) })
}

func (im *importer) environment(s *service, v *yaml.Node, at string) {
	var env []string
	add := func(n *yaml.Node, name, value string) {
		store := ""
		for _, c := range sorted(im.stores) {
			if strings.Contains(value, "@"+c) || strings.Contains(value, "//"+c) || value == c {
				store = im.names[c]
			}
		}
		switch {
		case !variable.MatchString(name):
			im.note(n, at+"."+name, "not carried: variables are UPPER_CASE")
		case store != "":
			s.uses = append(s.uses, store)
			im.note(n, at+"."+name, "now injected by uses: [%s] (as DATABASE_URL and PG*, or REDIS_URL); for another name write uses: {%s: %s}", store, store, name)
		case injected.MatchString(name):
			im.note(n, at+"."+name, "not carried: Tenfold sets it")
		case secretName.MatchString(name):
			im.secrets[name] = true
			s.uses = append(s.uses, name)
			im.note(n, at+"."+name, "now a secret: tenfold secrets set %s", name)
		case strings.Contains(value, "$"):
			im.note(n, at+"."+name, "not carried: the manifest has no variables (%s)", value)
		case strings.ContainsAny(value, "\n\x00"):
			im.note(n, at+"."+name, "not carried: more than one line")
		default:
			if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+": ") }) {
				env = append(env, name+": "+quote(value))
			}
		}
	}
	for _, c := range v.Content {
		if v.Kind == yaml.SequenceNode {
			name, value, _ := strings.Cut(c.Value, "=")
			add(c, name, value)
		}
	}
	each(v, func(k, value *yaml.Node) { add(k, k.Value, value.Value) })
	if len(env) > 0 {
		s.lines = append(s.lines, "env: {"+strings.Join(env, ", ")+"}")
	}
}

func (im *importer) health(s *service, v *yaml.Node, at string) {
	var parts []string
	each(v, func(k, value *yaml.Node) {
		word := map[string]string{"interval": "every", "timeout": "timeout", "start_period": "grace"}[k.Value]
		switch {
		case k.Value == "test":
			if m := probe.FindStringSubmatch(flat(value)); m != nil && !strings.Contains(m[1], "*") {
				parts = append(parts, "route: "+quote(m[1]))
			} else {
				im.note(k, at+".test", "not carried: health is an HTTP path here: %s", flat(value))
			}
		case word != "" && interval.MatchString(value.Value) && !strings.HasPrefix(value.Value, "0"):
			parts = append(parts, word+": "+value.Value)
		default:
			im.note(k, at+"."+k.Value, "not carried")
		}
	})
	if len(parts) > 0 {
		s.lines = append(s.lines, "health: {"+strings.Join(parts, ", ")+"}")
	}
}

func (im *importer) deploy(s *service, v *yaml.Node, at string) {
	each(v, func(k, value *yaml.Node) {
		limits := field(value, "limits")
		switch {
		case k.Value == "replicas" && regexp.MustCompile(`^[1-9][0-9]{0,2}$`).MatchString(value.Value):
			s.lines = append(s.lines, "scale: "+value.Value)
		case k.Value == "resources" && field(limits, "memory") != nil:
			im.size(s, field(limits, "memory"), at+".resources.limits.memory")
			if c := field(limits, "cpus"); c != nil {
				im.note(c, at+".resources.limits.cpus", "not carried: write size: {memory: …, cpu: %s}", c.Value)
			}
		case k.Value == "restart_policy":
		default:
			im.note(k, at+"."+k.Value, "not carried")
		}
	})
}

func (im *importer) size(s *service, v *yaml.Node, at string) {
	m := memory.FindStringSubmatch(v.Value)
	if m == nil || slices.ContainsFunc(s.lines, func(l string) bool { return strings.HasPrefix(l, "size: ") }) {
		im.note(v, at, "not carried: write size: 512mb")
		return
	}
	s.lines = append(s.lines, "size: "+m[1]+strings.ToLower(m[2])+"b")
}

// quote writes any text of one line so that YAML reads it back.
func quote(s string) string {
	return "'" + strings.ReplaceAll(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xfeff {
			return ' '
		}
		return r
	}, s), "'", "''") + "'"
}
