package table

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/uuid"

	"tenfold/internal/awsapi"
	"tenfold/tier/table/attr"
	"tenfold/tier/table/request"
)

const (
	maxTables = 2500
	maxGlobal = 20
	maxTags   = 50
)

// form makes the definition that a CreateTable asks for.
func (s *Store) form(c awsapi.Caller, in *request.Input) *definition {
	d := &definition{
		Account: c.Account, Name: in.TableName, UUID: uuid.NewString(), Created: s.moment(), By: c.Of,
		Types: map[string]attr.Kind{}, Class: in.TableClass, Billed: in.BillingMode == "PAY_PER_REQUEST", Provisioned: in.BillingMode != "PAY_PER_REQUEST",
	}
	for _, a := range in.AttributeDefinitions {
		d.Types[a.AttributeName] = attr.KindOf(a.AttributeType)
		d.Order = append(d.Order, a.AttributeName)
	}
	hash, sort := keyOfSchema(in.KeySchema)
	d.Hash = hash[0]
	if len(sort) > 0 {
		d.Sort = sort[0]
	}
	if in.ProvisionedThroughput != nil {
		d.Capacity = capacityOf(in.ProvisionedThroughput)
	}
	if !d.Provisioned {
		d.ModeSince = d.Created
	}
	for _, x := range in.LocalSecondaryIndexes {
		d.add(x, true)
	}
	for _, x := range in.GlobalSecondaryIndexes {
		d.add(x, false)
	}
	d.Protected = in.DeletionProtectionEnabled != nil && *in.DeletionProtectionEnabled
	d.Encrypted = in.SSESpecification != nil && in.SSESpecification.Enabled != nil && *in.SSESpecification.Enabled
	if sp := in.StreamSpecification; sp != nil && sp.StreamEnabled {
		s.startStream(d, sp.StreamViewType)
	}
	if len(in.Tags) > 0 {
		d.Tags = map[string]string{}
		for _, t := range in.Tags {
			d.Tags[t.Key] = t.Value
		}
	}
	return d
}

func capacityOf(t *request.Throughput) throughput {
	return throughput{Read: t.ReadCapacityUnits, Write: t.WriteCapacityUnits}
}

func keyOfSchema(all []request.KeySchemaElement) (hash, sort []string) {
	for _, e := range all {
		if e.KeyType == "HASH" {
			hash = append(hash, e.AttributeName)
		} else {
			sort = append(sort, e.AttributeName)
		}
	}
	return hash, sort
}

// add appends an index.
func (d *definition) add(x request.Index, local bool) *index {
	hash, sort := keyOfSchema(x.KeySchema)
	d.NextIndex++
	y := index{Name: x.IndexName, No: d.NextIndex, Local: local, Hash: hash, Sort: sort, Projection: cmp.Or(x.Projection.ProjectionType, all), Others: x.Projection.NonKeyAttributes}
	if x.ProvisionedThroughput != nil {
		y.Capacity = capacityOf(x.ProvisionedThroughput)
	}
	d.Indexes = append(d.Indexes, y)
	return &d.Indexes[len(d.Indexes)-1]
}

func (s *Store) createTable(c awsapi.Caller, in *request.Input) (any, error) {
	if len(c.Uses["dynamodb"]) == 0 {
		return nil, awsapi.Denied(c, "dynamodb:CreateTable", tableARN(c.Account, in.TableName), in.TableName)
	}
	d := s.form(c, in)
	t, err := s.make(d)
	if err != nil {
		return nil, err
	}
	// Clients wait until it is ACTIVE, which it is when they ask.
	return member{"TableDescription": t.describe(d, "CREATING")}, nil
}

// make has a new table.
func (s *Store) make(d *definition) (*table, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.find(d.Account, d.Name) != nil {
		return nil, fault("ResourceInUseException", "Table already exists: %s", d.Name)
	}
	if len(s.of(d.Account)) >= maxTables {
		return nil, fault("LimitExceededException", "Subscriber limit exceeded: There is a limit of %d tables per subscriber", maxTables)
	}
	if err := s.number(d); err != nil {
		return nil, err
	}
	t := newTable(d)
	if err := s.openStream(t, d); err != nil {
		return nil, err
	}
	if err := s.save(t, d); err != nil {
		return nil, err
	}
	s.enter(t, d)
	return t, nil
}

// number gives a definition its number, which no table had before.
func (s *Store) number(d *definition) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nextID == 0 {
		return errors.New("there are no numbers left for tables")
	}
	d.ID = s.nextID
	s.nextID++
	return nil
}

func (s *Store) enter(t *table, d *definition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables[place{d.Account, d.Name}] = t
}

// named finds a table for the operations on tables, whose refusals name it.
func (s *Store) named(c awsapi.Caller, in *request.Input, operation string) (*table, *definition, error) {
	t, d, err := s.use(c, in.TableName, in.Account, operation)
	var f *awsapi.Fault
	if errors.As(err, &f) && f.Code == "ResourceNotFoundException" {
		err = errNoTableNamed(in.TableName)
	}
	return t, d, err
}

func (s *Store) describeTable(c awsapi.Caller, in *request.Input) (any, error) {
	t, d, err := s.named(c, in, "DescribeTable")
	if err != nil {
		return nil, err
	}
	status := ""
	if d.Restoring != nil {
		status = "CREATING"
	}
	return member{"Table": t.describe(d, status)}, nil
}

func (s *Store) deleteTable(c awsapi.Caller, in *request.Input) (any, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	t, d, err := s.named(c, in, "DeleteTable")
	if err != nil {
		return nil, err
	}
	if d.Kept {
		return nil, invalid("Resource cannot be deleted as tenfold.yaml names it: remove it there first, deploy, and see: tenfold kept")
	}
	if d.Restoring != nil {
		return nil, fault("ResourceInUseException", "Attempt to change a resource which is still in use: Table is being created: %s", d.Name)
	}
	if d.Protected {
		return nil, invalid("Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first.")
	}
	if err := s.drop(t); err != nil {
		return nil, err
	}
	return member{"TableDescription": t.describe(d, "DELETING")}, nil
}

// drop deletes a table with all that is in it. changing is held.
func (s *Store) drop(t *table) error {
	if err := s.db.Writable(); err != nil {
		return err
	}
	d := t.def.Load()
	t.gone.Store(true)
	s.barrier()
	b := s.db.NewBatch()
	defer b.Close()
	b.Delete(metaKey(place{d.Account, d.Name}), nil)
	for _, kind := range []byte{keyItem, keyIndex, keyExpiry, keyStream, keyUndo, keyCount} {
		k := key(kind, d.ID)
		b.DeleteRange(k, after(k), nil)
	}
	if err := b.Commit(synced); err != nil {
		t.gone.Store(false)
		return fmt.Errorf("delete table %s: %w", d.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tables, place{d.Account, d.Name})
	return nil
}

func (s *Store) listTables(c awsapi.Caller, in *request.Input) (any, error) {
	most := cmp.Or(in.Limit, 100)
	names := []string{}
	out := member{}
	for _, t := range s.of(c.Account) {
		d := t.def.Load()
		if !may(c, d) || d.Name <= in.ExclusiveStartTableName {
			continue
		}
		if len(names) == most {
			out["LastEvaluatedTableName"] = names[most-1]
			break
		}
		names = append(names, d.Name)
	}
	out["TableNames"] = names
	return out, nil
}

func (s *Store) updateTable(c awsapi.Caller, in *request.Input) (any, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	t, was, err := s.named(c, in, "UpdateTable")
	if err != nil {
		return nil, err
	}
	d := was.clone()
	if err := s.recapacity(d, in); err != nil {
		return nil, err
	}
	for _, a := range in.AttributeDefinitions {
		k := attr.KindOf(a.AttributeType)
		if had, ok := d.Types[a.AttributeName]; ok && had != k {
			return nil, invalid("One or more parameter values were invalid: Attribute %s is of type %s already", a.AttributeName, had)
		}
		if _, ok := d.Types[a.AttributeName]; !ok {
			d.Types[a.AttributeName] = k
			d.Order = append(d.Order, a.AttributeName)
		}
	}
	var add, remove *index
	for _, u := range in.GlobalSecondaryIndexUpdates {
		switch {
		case u.Create != nil:
			if add != nil || remove != nil {
				return nil, fault("LimitExceededException", "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table")
			}
			if add, err = d.create(u.Create); err != nil {
				return nil, err
			}
		case u.Delete != "":
			if add != nil || remove != nil {
				return nil, fault("LimitExceededException", "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table")
			}
			if remove = d.index(u.Delete); remove == nil || remove.Local {
				return nil, fault("ResourceNotFoundException", "Requested resource not found")
			}
			remove.Leaving, remove.Filling = true, false
		}
	}
	if sp := in.StreamSpecification; sp != nil {
		switch {
		case sp.StreamEnabled && d.Stream != "":
			return nil, invalid("Table already has an enabled stream: TableName: %s", d.Name)
		case !sp.StreamEnabled && d.Stream == "":
			return nil, invalid("Table has no stream to disable: TableName: %s", d.Name)
		case sp.StreamEnabled:
			s.startStream(d, sp.StreamViewType)
		default:
			d.Stream = ""
		}
	}
	if in.DeletionProtectionEnabled != nil {
		d.Protected = *in.DeletionProtectionEnabled
	}
	d.Class = cmp.Or(in.TableClass, d.Class)
	if in.SSESpecification != nil && in.SSESpecification.Enabled != nil {
		d.Encrypted = *in.SSESpecification.Enabled
	}
	if err := s.save(t, d); err != nil {
		return nil, err
	}
	told := d
	if in.ProvisionedThroughput != nil && was.Provisioned { // a description is of what was, while it changes
		told = d.clone()
		told.Capacity.Read, told.Capacity.Write = was.Capacity.Read, was.Capacity.Write
	}
	out := t.describe(told, "UPDATING")
	if add != nil || remove != nil {
		s.barrier() // from here on all changes know of it
		s.resume(t)
	}
	return member{"TableDescription": out}, nil
}

// create adds a global index to a table that has items already.
func (d *definition) create(x *request.Index) (*index, error) {
	if d.index(x.IndexName) != nil {
		return nil, invalid("One or more parameter values were invalid: Duplicate index name: %s", x.IndexName)
	}
	n := 0
	for i := range d.Indexes {
		if !d.Indexes[i].Local {
			n++
		}
	}
	if n >= maxGlobal {
		return nil, fault("LimitExceededException", "Subscriber limit exceeded: GlobalSecondaryIndex count exceeds the per-table limit of %d", maxGlobal)
	}
	if d.Provisioned && x.ProvisionedThroughput == nil {
		return nil, invalid("One or more parameter values were invalid: ProvisionedThroughput must be specified for index: %s", x.IndexName)
	}
	for _, e := range x.KeySchema {
		if _, ok := d.Types[e.AttributeName]; !ok {
			return nil, invalid("One or more parameter values were invalid: Some index key attributes are not defined in AttributeDefinitions. Keys: [%s], AttributeDefinitions: [%s]", e.AttributeName, strings.Join(d.Order, ", "))
		}
	}
	y := d.add(*x, false)
	y.Filling = true
	return y, nil
}

// recapacity gives a definition the capacities that an UpdateTable asks for.
func (s *Store) recapacity(d *definition, in *request.Input) error {
	mode := "PROVISIONED"
	if !d.Provisioned {
		mode = "PAY_PER_REQUEST"
	}
	next := cmp.Or(in.BillingMode, mode)
	if in.ProvisionedThroughput != nil && next == "PAY_PER_REQUEST" {
		return invalid("One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
	}
	updates := map[string]*request.Throughput{}
	if len(in.GlobalSecondaryIndexUpdates) > 5 {
		return fault("LimitExceededException", "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table")
	}
	for _, u := range in.GlobalSecondaryIndexUpdates {
		if u.Update == nil || u.Update.ProvisionedThroughput == nil {
			continue
		}
		p := u.Update.ProvisionedThroughput
		if p.ReadCapacityUnits > 1e12 || p.WriteCapacityUnits > 1e12 {
			return invalid("This operation cannot be performed with given input values. Please contact DynamoDB service team for more info: Action Blocked: IndexUpdate")
		}
		updates[u.Update.IndexName] = p
	}
	if next == "PROVISIONED" && mode != next {
		var missing []string
		for i := range d.Indexes {
			if x := &d.Indexes[i]; !x.Local && updates[x.Name] == nil {
				missing = append(missing, x.Name)
			}
		}
		if missing != nil {
			return invalid("One or more parameter values were invalid: ProvisionedThroughput must be specified for index: %s", strings.Join(missing, ","))
		}
	}
	now := s.moment()
	if p := in.ProvisionedThroughput; p != nil {
		if err := d.Capacity.become(p, now); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(updates)) {
		x := d.index(name)
		if x == nil || x.Local {
			continue
		}
		if err := x.Capacity.become(updates[name], now); err != nil {
			return err
		}
	}
	if in.BillingMode == "" {
		return nil
	}
	d.Billed = true
	switch {
	case next == mode:
	case next == "PROVISIONED":
		d.Provisioned = true
	default:
		d.Provisioned, d.ModeSince = false, now
		d.Capacity = throughput{Decreases: d.Capacity.Decreases}
		for i := range d.Indexes {
			if x := &d.Indexes[i]; !x.Local {
				x.Capacity = throughput{Decreases: x.Capacity.Decreases + 1, Decreased: now}
			}
		}
	}
	return nil
}

// become changes a capacity to another.
func (t *throughput) become(p *request.Throughput, now float64) error {
	r, w := p.ReadCapacityUnits-t.Read, p.WriteCapacityUnits-t.Write
	switch {
	case r == 0 && w == 0:
		return invalid("The provisioned throughput for the table will not change. The requested value equals the current value. Current ReadCapacityUnits provisioned for the table: %d. Requested ReadCapacityUnits: %d. Current WriteCapacityUnits provisioned for the table: %d. Requested WriteCapacityUnits: %d. Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits.", t.Read, p.ReadCapacityUnits, t.Write, p.WriteCapacityUnits)
	case r > 0 || w > 0:
		t.Increased = math.Max(now, t.Increased+0.001) // each change has a moment of its own
	}
	if r < 0 || w < 0 {
		t.Decreased = math.Max(now, t.Decreased+0.001)
		if r <= 0 && w <= 0 {
			t.Decreases++
		}
	}
	t.Read, t.Write = p.ReadCapacityUnits, p.WriteCapacityUnits
	return nil
}

// resume has what a table's definition says is under way go on: indexes that fill or leave, items that are not
// dated, a table that is not whole yet.
func (s *Store) resume(t *table) {
	d := t.def.Load()
	if d.Restoring != nil {
		s.done.Go(func() { s.restore(t) })
		return
	}
	if d.Dating {
		s.done.Go(func() { s.date(t, d.TTL) })
	}
	for i := range d.Indexes {
		switch x := d.Indexes[i]; {
		case x.Filling:
			s.done.Go(func() { s.fill(t, x) })
		case x.Leaving:
			s.done.Go(func() { s.leave(t, x) })
		}
	}
}

// fill puts the items from before an index into it. Changes have entered theirs since before it began.
func (s *Store) fill(t *table, x index) {
	done := s.passOver(t, "fill index "+x.Name, func(b *pebble.Batch, c *change) {
		y := c.d.index(x.Name)
		if y == nil || y.No != x.No || !y.Filling {
			return
		}
		k, ok := c.d.indexKey(y, c.before, c.primary)
		if !ok {
			return
		}
		if s.entered(k) { // by a change, which counted it
			return
		}
		item := c.d.project(y, c.before)
		b.Set(k, c.d.encode(item), nil)
		t.indexCount(y.No).add(sizes{0, item.Size()})
	})
	if done {
		s.finish(t, func(d *definition) {
			if y := d.index(x.Name); y != nil && y.No == x.No {
				y.Filling = false
			}
		})
	}
}

// passOver goes over all items of a table, some at a time and each under its latch, and has each add what is
// missing of it. It returns true when all were seen; where a process ends before, the next begins anew.
func (s *Store) passOver(t *table, what string, each func(b *pebble.Batch, c *change)) bool {
	d := t.def.Load()
	prefix := key(keyItem, d.ID)
	for at := prefix; at != nil; {
		if s.stopped() || t.gone.Load() {
			return false
		}
		var keys [][]byte
		err := s.db.Writable()
		if err == nil {
			keys, at, err = s.someKeys(at, after(prefix))
		}
		if err == nil {
			cs := make([]*change, len(keys))
			for i, k := range keys {
				cs[i] = &change{t: t, d: t.def.Load(), primary: k[len(prefix):], only: true}
			}
			err = s.write(cs, func(b *pebble.Batch) {
				for _, c := range cs {
					if c.before != nil {
						each(b, c)
					}
				}
			}, func() error { return nil })
		}
		if err != nil {
			s.cfg.Log.Error(what, "table", d.Name, "err", err)
			return false
		}
	}
	return true
}

// someKeys are the keys of a span's next items, and where to go on; nil at its end.
func (s *Store) someKeys(from, to []byte) (keys [][]byte, next []byte, err error) {
	const some = 256
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return nil, nil, err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		if len(keys) == some {
			return keys, slices.Clone(it.Key()), nil
		}
		keys = append(keys, slices.Clone(it.Key()))
	}
	return keys, nil, it.Error()
}

// leave deletes what an index holds, then the index.
func (s *Store) leave(t *table, x index) {
	d := t.def.Load()
	prefix := d.indexPrefix(&x)
	if err := s.db.DeleteRange(prefix, after(prefix), synced); err != nil {
		s.cfg.Log.Error("delete an index", "table", d.Name, "index", x.Name, "err", err)
		return
	}
	s.finish(t, func(d *definition) {
		d.Indexes = slices.DeleteFunc(d.Indexes, func(y index) bool { return y.No == x.No })
		d.forgetTypes()
	})
}

// forgetTypes drops the attributes that no key names any more.
func (d *definition) forgetTypes() {
	named := d.keyNames()
	for i := range d.Indexes {
		named = slices.Concat(named, d.Indexes[i].Hash, d.Indexes[i].Sort)
	}
	maps.DeleteFunc(d.Types, func(n string, _ attr.Kind) bool { return !slices.Contains(named, n) })
	d.Order = slices.DeleteFunc(d.Order, func(n string) bool { return !slices.Contains(named, n) })
}

// finish changes a definition at the end of what went on in the background.
func (s *Store) finish(t *table, how func(*definition)) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if t.gone.Load() {
		return
	}
	d := t.def.Load().clone()
	how(d)
	if err := s.save(t, d); err != nil {
		s.cfg.Log.Error("write a table's definition", "table", d.Name, "err", err)
	}
}

func (s *Store) tag(c awsapi.Caller, in *request.Input) (any, error) {
	return s.retag(c, in, "TagResource", func(tags map[string]string) error {
		for _, t := range in.Tags {
			tags[t.Key] = t.Value
		}
		if len(tags) > maxTags {
			return invalid("Too many tags: a table has at most %d", maxTags)
		}
		return nil
	})
}

func (s *Store) untag(c awsapi.Caller, in *request.Input) (any, error) {
	return s.retag(c, in, "UntagResource", func(tags map[string]string) error {
		for _, k := range in.TagKeys {
			delete(tags, k)
		}
		return nil
	})
}

func (s *Store) retag(c awsapi.Caller, in *request.Input, operation string, how func(map[string]string) error) (any, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	t, d, err := s.byARN(c, in, operation)
	if err != nil {
		return nil, err
	}
	d = d.clone()
	if d.Tags == nil {
		d.Tags = map[string]string{}
	}
	if err := how(d.Tags); err != nil {
		return nil, err
	}
	if err := s.save(t, d); err != nil {
		return nil, err
	}
	return []byte{}, nil
}

// byARN finds a table by a ResourceArn.
func (s *Store) byARN(c awsapi.Caller, in *request.Input, operation string) (*table, *definition, error) {
	if in.Account != "" && in.Account != c.Account {
		return nil, nil, fault("AccessDeniedException", "User: arn:aws:iam::%s:root is not authorized to perform: dynamodb:%s on resource: %s", c.Account, operation, in.ResourceArn)
	}
	t, d, err := s.use(c, in.TableName, in.Account, operation)
	var f *awsapi.Fault
	if errors.As(err, &f) && f.Code == "ResourceNotFoundException" {
		if operation == "UntagResource" { // AWS has no more to say there
			return nil, nil, errNoTable()
		}
		err = fault("ResourceNotFoundException", "Requested resource not found: ResourcArn: %s not found", in.ResourceArn)
	}
	return t, d, err
}

func (s *Store) listTags(c awsapi.Caller, in *request.Input) (any, error) {
	_, d, err := s.byARN(c, in, "ListTagsOfResource")
	if err != nil {
		return nil, err
	}
	list := []member{}
	for _, k := range slices.Sorted(maps.Keys(d.Tags)) {
		list = append(list, member{"Key": k, "Value": d.Tags[k]})
	}
	return member{"Tags": list}, nil
}

func (s *Store) describeLimits(awsapi.Caller, *request.Input) (any, error) {
	return member{"AccountMaxReadCapacityUnits": 80000, "AccountMaxWriteCapacityUnits": 80000, "TableMaxReadCapacityUnits": 40000, "TableMaxWriteCapacityUnits": 40000}, nil
}
