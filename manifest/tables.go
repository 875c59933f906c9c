package manifest

import (
	"slices"
	"strings"
	"time"

	"tenfold"
)

var (
	attributeTypes = []string{"string", "number", "binary"}
	streamViews    = []string{"keys-only", "new-image", "old-image", "new-and-old-images"}
)

func tableKeys() []key {
	return []key{
		{name: "key", form: fText, deflt: "id", doc: "Attribute that names an item's partition: items of one are together, and the sort key is their order."},
		{name: "sort", form: fText, deflt: "none", doc: "Attribute that tells the items of a partition apart."},
		{name: "types", form: fTexts, deflt: "string", doc: "Of the attributes that keys name: string, number or binary."},
		{name: "indexes", form: fNamed, doc: "The same items by other keys, as global secondary indexes.", keys: []key{
			{name: "key", form: fWords, doc: "Attribute of the index' partition; up to four together."},
			{name: "sort", form: fWords, deflt: "none", doc: "Attribute of the order inside; up to four together."},
			{name: "project", form: fWords, deflt: "all", doc: "What is in it of each item: all, keys, or the attributes in a list."},
			{name: "local", form: fBool, deflt: "false", doc: "A local secondary index: by the table's own key, with another order, read consistently. It is made with the table or never."},
		}},
		{name: "ttl", form: fText, deflt: "none", doc: "Attribute with the moment, in Unix seconds, from which an item may be deleted."},
		{name: "stream", form: fWord, words: streamViews, off: true, deflt: "none", doc: "A record of each change for a day, with the item before, after, both or neither."},
		{name: "capacity", form: fMap, main: "mode", deflt: "on-demand", doc: "How much it takes a second: what comes, or no more than is provisioned.", keys: []key{
			{name: "mode", form: fWord, words: []string{"on-demand"}, deflt: "on-demand", doc: "Whatever comes."},
			{name: "read", form: fCount, doc: "Read units a second: 4 KB each, consistently."},
			{name: "write", form: fCount, doc: "Write units a second: 1 KB each."},
		}},
		{name: "backups", form: fDuration, off: true, deflt: "35d", doc: "For how long the table can be had back as it was at any moment; 35d at most. false: it cannot."},
	}
}

// attribute is a name of an attribute of a key.
func (b *builder) attribute(t *tree, name, deflt string) string {
	f, ok := value(t, name)
	if !ok {
		return deflt
	}
	if v := f.node.Value; v != "" && len(v) <= 255 {
		return v
	}
	b.reporter.at(f.node, "write its name: user_id", "%s: an attribute has 1 to 255 characters", f.path)
	return deflt
}

func (b *builder) tables() {
	b.each("tables", func(n tenfold.Name, t *tree) {
		x := tenfold.Table{Key: b.attribute(t, "key", "id"), Sort: b.attribute(t, "sort", ""), TTL: b.attribute(t, "ttl", ""), Stream: b.word(t, "stream", "", streamViews), Backups: 35 * 24 * time.Hour, Line: t.line()}
		if len(n) < 3 {
			b.reporter.at(t.place(), "call it "+string(n)+"-table", "%s: a table's name has at least 3 characters, as on AWS", t.path)
		}
		if x.Sort == x.Key {
			b.reporter.at(t.get("sort").place(), "name another attribute, or remove the line", "%s.sort: %s is the key already", t.path, x.Sort)
		}
		if f := t.get("backups"); f != nil && f.off {
			x.Backups = 0
		} else if f != nil {
			x.Backups = b.duration(t, "backups", x.Backups)
			if x.Backups < 24*time.Hour || x.Backups > 35*24*time.Hour {
				b.reporter.at(f.place(), "from 1d to 35d", "%s: out of bounds", f.path)
			}
		}
		b.tableCapacity(t, &x)
		b.indexes(t, &x)
		b.attributeTypes(t, &x)
		if b.app.Tables == nil {
			b.app.Tables = map[tenfold.Name]tenfold.Table{}
		}
		b.app.Tables[n] = x
	})
}

func (b *builder) tableCapacity(t *tree, x *tenfold.Table) {
	f := t.get("capacity")
	if f == nil || f.off {
		return
	}
	b.word(f, "mode", "on-demand", []string{"on-demand"})
	const most = 1_000_000
	x.Read, x.Write = int64(b.count(f, "read", 0, 1, most)), int64(b.count(f, "write", 0, 1, most))
	if (x.Read == 0) != (x.Write == 0) && !b.failed() {
		b.reporter.at(f.place(), "write both: {read: 10, write: 5}", "%s: provisioned capacity is of reads and of writes", f.path)
	}
}

func (b *builder) indexes(t *tree, x *tenfold.Table) {
	f, ok := value(t, "indexes")
	if !ok {
		return
	}
	local, global := 0, 0
	for _, n := range f.order {
		e := f.fields[n]
		if e.off {
			continue
		}
		i := tenfold.TableIndex{Key: b.words(e, "key"), Sort: b.words(e, "sort"), Project: "all"}
		if l, ok := value(e, "local"); ok {
			i.Local, _ = readBool(b.reporter, l.node, l.path)
		}
		switch p := b.words(e, "project"); {
		case len(p) == 0, len(p) == 1 && p[0] == "all":
		case len(p) == 1 && p[0] == "keys":
			i.Project = "keys"
		default:
			i.Project, i.Attributes = "", p
		}
		if i.Local {
			local++
			if len(i.Key) == 0 {
				i.Key = []string{x.Key}
			}
		} else {
			global++
		}
		switch {
		case len(n) < 3:
			b.reporter.at(e.place(), "call it by-"+n, "%s: an index' name has at least 3 characters, as on AWS", e.path)
		case len(i.Key) == 0:
			b.reporter.at(e.place(), "write {key: device}", "%s: an index needs a key", e.path)
		case len(i.Key) > 4 || len(i.Sort) > 4:
			b.reporter.at(e.place(), "leave some out", "%s: key and sort have up to four attributes each", e.path)
		case i.Local && (len(i.Key) != 1 || i.Key[0] != x.Key || len(i.Sort) != 1):
			b.reporter.at(e.place(), "write {local: true, sort: created_at}, or leave out local", "%s: a local index has the table's key, %s, and one sort of its own", e.path, x.Key)
		case i.Local && x.Sort == "":
			b.reporter.at(e.place(), "leave out local", "%s: a table without sort has no local indexes", e.path)
		case len(i.Attributes) > 100:
			b.reporter.at(e.place(), "write project: all", "%s: up to 100 attributes can be named", e.path)
		}
		if x.Indexes == nil {
			x.Indexes = map[tenfold.Name]tenfold.TableIndex{}
		}
		x.Indexes[tenfold.Name(n)] = i
	}
	if local > 5 || global > 20 {
		b.reporter.at(f.place(), "leave some out", "%s: a table has up to 20 indexes, and 5 local ones", f.path)
	}
}

// attributeTypes reads types; every attribute in it has to be one that a key names.
func (b *builder) attributeTypes(t *tree, x *tenfold.Table) {
	f, ok := value(t, "types")
	if !ok {
		return
	}
	named := []string{x.Key, x.Sort}
	for _, i := range x.Indexes {
		named = slices.Concat(named, i.Key, i.Sort)
	}
	for _, n := range f.order {
		v := f.fields[n]
		if !slices.Contains(named, n) {
			b.reporter.at(v.place(), "remove it", "%s: no key names %q; other attributes have whatever type each item gives them", f.path, cut(n, 60))
			continue
		}
		w, ok := readWord(b.reporter, v.node, v.path, attributeTypes)
		if !ok {
			continue
		}
		if x.Types == nil {
			x.Types = map[string]string{}
		}
		x.Types[n] = strings.ToUpper(w[:1])
	}
}
