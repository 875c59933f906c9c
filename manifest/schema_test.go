package manifest

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	schemaFile = "../docs/tenfold.schema.json"
	docsFile   = "../docs/manifest.md"
)

type object = map[string]any

// TestSchemaIsOfTheTable keeps docs/tenfold.schema.json, which editors complete and check with,
// equal to the table. The schema is looser than Parse where JSON Schema cannot say a rule.
func TestSchemaIsOfTheTable(t *testing.T) {
	top := schemaOf(topKeys())
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["title"] = "tenfold.yaml"
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(top); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(schemaFile, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(schemaFile)
	if err != nil || !bytes.Equal(have, b.Bytes()) {
		t.Errorf("%s is not of the table (%v): go test ./manifest -update", schemaFile, err)
	}
}

// schemaOf is the schema of a key's value: what it may be, or false or empty.
func schemaOf(k key) object {
	text := object{"type": []string{"string", "number", "boolean"}}
	list := object{"type": "array", "items": text}
	var kinds []object
	switch k.form {
	case fMap:
		kinds = append(kinds, mapOf(k))
		if k.main != "" && k.main != rangeKey {
			c, _ := k.find(k.main)
			kinds = append(kinds, schemaOf(key{form: c.form, words: c.words, keys: c.keys, main: c.main}))
		}
		if k.main == rangeKey {
			kinds = append(kinds, object{"type": []string{"string", "integer"}})
		}
	case fNamed:
		entry := object{"anyOf": []object{mapOf(k), {"enum": []any{nil, false}}}}
		if entryMain(k) != "" {
			main := "string"
			if c, _ := k.find(entryMain(k)); c.form == fCount {
				main = "integer"
			}
			entry = object{"anyOf": []object{mapOf(k), {"type": main}, {"enum": []any{nil, false}}}}
		}
		kinds = append(kinds, object{"type": "object", "additionalProperties": entry}, object{"type": "array", "items": object{"type": "string"}}, object{"type": "string"})
	case fURLs:
		kinds = append(kinds, object{"type": "object", "additionalProperties": object{"anyOf": []object{mapOf(k), {"enum": []any{nil, false}}}}})
	case fEnv, fTexts:
		kinds = append(kinds, object{"type": "object", "additionalProperties": object{"type": []string{"string", "number", "boolean", "null"}}})
	case fUses:
		kinds = append(kinds, list, object{"type": "string"}, object{"type": "object", "additionalProperties": object{"type": []string{"string", "boolean", "null"}}})
	case fCommand, fRoutes, fHosts, fWords:
		kinds = append(kinds, object{"type": "string"}, list)
	case fWord:
		words := make([]any, len(k.words))
		for i, w := range k.words {
			if words[i] = w; w == "true" { // YAML reads it as one
				words[i] = true
			}
		}
		kinds = append(kinds, object{"enum": words})
	case fKeeps:
		kinds = append(kinds, object{"type": "boolean"}, object{"type": "object", "propertyNames": object{"pattern": "^[0-9a-f]{16}$"}, "additionalProperties": object{"type": []string{"string", "boolean", "null"}}})
	case fAny:
		kinds = append(kinds, object{"type": "object"})
	case fBool:
		kinds = append(kinds, object{"type": "boolean"})
	case fCount:
		kinds = append(kinds, object{"type": "integer"})
	case fCPU:
		kinds = append(kinds, object{"type": "number"})
	case fDuration:
		kinds = append(kinds, object{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$`})
	case fShare:
		kinds = append(kinds, object{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)?%$`})
	case fRate:
		kinds = append(kinds, object{"type": "string", "pattern": `^[0-9]+/[smh]$`})
	case fSize:
		kinds = append(kinds, object{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)?(kb|mb|gb|tb)$`})
	default:
		kinds = append(kinds, text)
	}
	if k.name == "" {
		return kinds[0]
	}
	out := object{"description": description(k)}
	switch empty := []any{nil}; {
	case k.off || k.form == fNamed || k.name == "edge":
		kinds = append(kinds, object{"enum": append(empty, false)})
	default:
		kinds = append(kinds, object{"enum": empty})
	}
	out["anyOf"] = kinds
	return out
}

func mapOf(k key) object {
	props := object{}
	for _, c := range k.keys {
		if c.later == "" {
			props[c.name] = schemaOf(c)
		}
	}
	return object{"type": "object", "properties": props, "additionalProperties": false}
}

func description(k key) string {
	if k.deflt == "" {
		return k.doc
	}
	return k.doc + " Default: " + k.deflt + "."
}

var docKey = regexp.MustCompile("(?m)^\\| `([a-z0-9.*]+)` \\|")

// TestDocsNameEveryKey holds docs/manifest.md to the table, both ways: the rows of its tables are
// the paths of the keys that run.
func TestDocsNameEveryKey(t *testing.T) {
	b, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	var have, want []string
	for _, m := range docKey.FindAllSubmatch(b, -1) {
		have = append(have, string(m[1]))
	}
	walk(topKeys(), "", func(path string, k key) {
		want = append(want, path)
		if k.doc == "" {
			t.Errorf("%s has no doc", path)
		}
	})
	for _, w := range want {
		if !slices.Contains(have, w) {
			t.Errorf("%s does not name %s", docsFile, w)
		}
	}
	for _, h := range have {
		if !slices.Contains(want, h) {
			t.Errorf("%s names %s, which is no key", docsFile, h)
		}
	}
	// What the parser refuses as not run yet is listed, and nothing else.
	_, section, _ := strings.Cut(string(b), "## Words that are reserved")
	var said []string
	for i, word := range strings.Split(section, "`") {
		if i%2 == 1 {
			said = append(said, word)
		}
	}
	slices.Sort(said)
	if refused := slices.Sorted(maps.Keys(refusedOf(topKeys()))); !slices.Equal(said, refused) {
		t.Errorf("%s says that %v do not run yet, the parser refuses %v", docsFile, said, refused)
	}
	for _, block := range yamlBlocks(string(b)) {
		if _, err := Parse("docs/manifest.md", []byte(block)); err != nil {
			t.Errorf("an example does not parse:\n%v", err)
		}
	}
}

// refusedOf are the names of keys that do not run yet.
func refusedOf(k key) map[string]bool {
	out := map[string]bool{}
	for _, c := range k.keys {
		if c.later != "" {
			out[c.name] = true
			continue
		}
		maps.Copy(out, refusedOf(c))
	}
	return out
}

// walk visits the keys that run; those of an environment are the top's and not visited again.
func walk(k key, path string, f func(string, key)) {
	for _, c := range k.keys {
		if c.later != "" {
			continue
		}
		p := join(path, c.name)
		f(p, c)
		switch {
		case c.name == "environments": // any key again, and some of its own
			for _, own := range c.keys {
				if _, again := k.find(own.name); !again && own.later == "" {
					f(p+".*."+own.name, own)
				}
			}
		case c.form == fNamed || c.form == fURLs:
			walk(c, p+".*", f)
		default:
			walk(c, p, f)
		}
	}
}

func yamlBlocks(s string) []string {
	var out []string
	for i, part := range strings.Split(s, "```") {
		if rest, ok := strings.CutPrefix(part, "yaml\n"); ok && i%2 == 1 {
			out = append(out, rest)
		}
	}
	return out
}
