package request

import (
	"tenfold/tier/table/attr"
)

// requestItems reads the tables of BatchGetItem, whose entries are objects, or of BatchWriteItem, whose
// entries are lists.
func (r *reading) requestItems(raw []byte) {
	r.in.Gets, r.in.Writes, r.parts = nil, nil, nil
	object(raw, func(as string, raw []byte) {
		if raw[0] == '[' {
			w := TableWrites{As: as}
			w.TableName, w.Account, w.Region = table(as)
			array(raw, func(raw []byte) { w.Writes = append(w.Writes, r.batchWrite(raw)) })
			r.in.Writes = append(r.in.Writes, w)
			return
		}
		k := Keys{As: as, Raw: raw}
		k.TableName, k.Account, k.Region = table(as)
		p := parameters{}
		object(raw, func(name string, raw []byte) {
			switch name {
			case "Keys":
				k.Keys = []attr.Item{}
				array(raw, func(raw []byte) { k.Keys = append(k.Keys, r.item(as, raw)) })
			case "ConsistentRead":
				k.ConsistentRead = boolean(raw)
			default:
				p.set(name, raw)
			}
		})
		r.in.Gets = append(r.in.Gets, k)
		r.parts = append(r.parts, p)
	})
}

func (r *reading) batchWrite(raw []byte) BatchWrite {
	var w BatchWrite
	object(raw, func(name string, raw []byte) {
		put := name == "PutRequest"
		if !put && name != "DeleteRequest" {
			return
		}
		object(raw, func(name string, raw []byte) {
			switch {
			case put && name == "Item":
				w.Item = r.item("", raw)
			case !put && name == "Key":
				w.Key = r.item("", raw)
			}
		})
	})
	return w
}

// transactItems reads the steps of a transaction. Those of TransactGetItems have Get alone.
func (r *reading) transactItems(raw []byte) {
	in := r.in
	in.TransactGets, in.TransactWrite, r.parts, r.steps = nil, nil, nil, nil
	array(raw, func(raw []byte) {
		var p parameters
		var g Get
		var w Write
		steps := 0
		object(raw, func(kind string, raw []byte) {
			switch kind {
			case "Get":
				object(raw, func(name string, raw []byte) {
					switch name {
					case "TableName":
						g.TableName, g.Account, g.Region = table(unquote(raw))
					case "Key":
						g.Key = r.item("", raw)
					default:
						p.set(name, raw)
					}
				})
			case Put, Update, Delete, ConditionCheck:
				steps++
				w.Kind = kind
				object(raw, func(name string, raw []byte) { r.step(&w, &p, name, raw) })
			}
		})
		r.parts = append(r.parts, p)
		if in.Operation == "TransactGetItems" {
			in.TransactGets = append(in.TransactGets, g)
			return
		}
		in.TransactWrite = append(in.TransactWrite, w)
		r.steps = append(r.steps, steps)
	})
}

func (r *reading) step(w *Write, p *parameters, name string, raw []byte) {
	switch name {
	case "TableName":
		w.TableName, w.Account, w.Region = table(unquote(raw))
	case "Item":
		w.Item = r.item("", raw)
	case "Key":
		w.Key = r.item("", raw)
	case "ReturnValuesOnConditionCheckFailure":
		w.ReturnValuesOnConditionCheckFailure = unquote(raw)
	default:
		p.set(name, raw)
	}
}

// statement reads a member of ExecuteStatement's one statement.
func (r *reading) statement(name string, raw []byte) {
	if r.in.Statements == nil {
		r.in.Statements = make([]Statement, 1)
	}
	r.setStatement(&r.in.Statements[0], name, raw)
}

func (r *reading) statements(raw []byte) {
	r.in.Statements = each(raw, func(s *Statement, name string, raw []byte) { r.setStatement(s, name, raw) })
}

func (r *reading) setStatement(s *Statement, name string, raw []byte) {
	switch name {
	case "Statement":
		s.Statement = unquote(raw)
	case "ConsistentRead":
		s.ConsistentRead = boolean(raw)
	case "ReturnValuesOnConditionCheckFailure":
		s.ReturnValuesOnConditionCheckFailure = unquote(raw)
	case "Parameters":
		s.Parameters = nil
		array(raw, func(raw []byte) {
			v, err := attr.ParseValue(raw)
			r.note("Parameters", err)
			s.Parameters = append(s.Parameters, v)
		})
	}
}
