package table

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"tenfold/internal/awsapi"
	"tenfold/tier/table/attr"
)

// definition is what a table is. One that is in use is never changed: another takes its place.
type definition struct {
	ID      uint32 `json:"id"`
	Account string `json:"account"`
	Name    string `json:"name"`
	UUID    string `json:"uuid"`

	Hash  string               `json:"hash"`
	Sort  string               `json:"sort,omitempty"`
	Types map[string]attr.Kind `json:"types"` // of the attributes of all keys
	Order []string             `json:"order"` // in which those attributes were given

	Indexes   []index `json:"indexes,omitempty"`
	NextIndex uint16  `json:"nextIndex,omitempty"`

	Provisioned bool       `json:"provisioned,omitempty"`
	Capacity    throughput `json:"capacity"`
	ModeSince   float64    `json:"modeSince,omitempty"` // when it was last made on-demand
	Billed      bool       `json:"billing,omitempty"`   // a billing mode was given
	Class       string     `json:"class,omitempty"`
	Protected   bool       `json:"protected,omitempty"` // against DeleteTable
	Encrypted   bool       `json:"encrypted,omitempty"` // SSE was asked for

	Stream string `json:"stream,omitempty"` // StreamViewType
	Label  string `json:"label,omitempty"`  // of the newest stream, which outlives its end
	Began  int64  `json:"began,omitempty"`  // of the stream, Unix ms

	TTL string `json:"ttl,omitempty"`
	// Dating says that items from before the TTL are not dated yet.
	Dating bool `json:"dating,omitempty"`

	// Recover is since when every change can be undone, Unix ms; 0: it cannot.
	Recover int64 `json:"recover,omitempty"`
	// RecoverDays is for how long.
	RecoverDays int `json:"recoverDays,omitempty"`

	Tags    map[string]string `json:"tags,omitempty"`
	Created float64           `json:"created"` // Unix seconds
	// Restoring says from what its items are being made; nil: it is whole.
	Restoring *source `json:"restoring,omitempty"`
	// Restored says from what it was made.
	Restored map[string]any `json:"restored,omitempty"`
	// Kept says that a manifest names it: clients cannot delete it. By is who made it otherwise.
	Kept bool `json:"kept,omitempty"`
	// Named are the indexes that the manifest named when it was last heard.
	Named map[string]bool `json:"named,omitempty"`
	By    string          `json:"by,omitempty"`
}

// throughput is provisioned capacity in units a second.
type throughput struct {
	Read      int64   `json:"read"`
	Write     int64   `json:"write"`
	Decreases int     `json:"decreases,omitempty"`
	Increased float64 `json:"increased,omitempty"`
	Decreased float64 `json:"decreased,omitempty"`
}

// index is a secondary index.
type index struct {
	Name       string     `json:"name"`
	No         uint16     `json:"no"`
	Local      bool       `json:"local,omitempty"`
	Hash       []string   `json:"hash"`
	Sort       []string   `json:"sort,omitempty"`
	Projection string     `json:"projection"`
	Others     []string   `json:"others,omitempty"` // projected beside the keys
	Capacity   throughput `json:"capacity"`
	// Filling says that items from before it are still missing, Leaving that it is being deleted.
	Filling bool `json:"filling,omitempty"`
	Leaving bool `json:"leaving,omitempty"`
}

// all is the projection of an index that has its items whole.
const all = "ALL"

func (d *definition) clone() *definition {
	e := *d
	e.Types, e.Tags = maps.Clone(d.Types), maps.Clone(d.Tags)
	e.Order = slices.Clone(d.Order)
	e.Indexes = slices.Clone(d.Indexes)
	return &e
}

// keyNames are the attributes of the table's own key.
func (d *definition) keyNames() []string {
	if d.Sort == "" {
		return []string{d.Hash}
	}
	return []string{d.Hash, d.Sort}
}

func (d *definition) index(name string) *index {
	for i := range d.Indexes {
		if d.Indexes[i].Name == name {
			return &d.Indexes[i]
		}
	}
	return nil
}

// names are the attributes that an index has of each item, nil for all.
func (d *definition) projected(x *index) []string {
	if x.Projection == all {
		return nil
	}
	out := slices.Concat(x.Hash, x.Sort, d.keyNames(), x.Others)
	slices.Sort(out)
	return slices.Compact(out)
}

// project is an item as an index has it.
func (d *definition) project(x *index, item attr.Item) attr.Item {
	names := d.projected(x)
	if names == nil {
		return item
	}
	out := make(attr.Item, len(names))
	for _, n := range names {
		if v, ok := item[n]; ok {
			out[n] = v
		}
	}
	return out
}

// keyOf are the attributes by which a page is gone on from: of the table's key, and of an index' before it.
func (d *definition) keyOf(x *index, item attr.Item) attr.Item {
	out := attr.Item{}
	for _, n := range d.startNames(x) {
		out[n] = item[n]
	}
	return out
}

func (d *definition) startNames(x *index) []string {
	out := d.keyNames()
	if x != nil {
		for _, n := range slices.Concat(x.Hash, x.Sort) {
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out
}

func (d *definition) arn() string { return tableARN(d.Account, d.Name) }

func tableARN(account, name string) string {
	return "arn:aws:dynamodb:" + awsapi.Region + ":" + account + ":table/" + name
}

func (d *definition) streamARN() string { return d.arn() + "/stream/" + d.Label }

// member is a JSON object in the making.
type member = map[string]any

func keySchema(hash, sort []string) []member {
	var out []member
	for _, n := range hash {
		out = append(out, member{"AttributeName": n, "KeyType": "HASH"})
	}
	for _, n := range sort {
		out = append(out, member{"AttributeName": n, "KeyType": "RANGE"})
	}
	return out
}

func (c throughput) describe() member {
	m := member{"ReadCapacityUnits": c.Read, "WriteCapacityUnits": c.Write, "NumberOfDecreasesToday": c.Decreases}
	if c.Increased > 0 {
		m["LastIncreaseDateTime"] = c.Increased
	}
	if c.Decreased > 0 {
		m["LastDecreaseDateTime"] = c.Decreased
	}
	return m
}

// describe is a TableDescription. status is the table's, "" for ACTIVE.
func (t *table) describe(d *definition, status string) member {
	if status == "" {
		status = "ACTIVE"
	}
	var defs []member
	for _, n := range d.Order {
		defs = append(defs, member{"AttributeName": n, "AttributeType": d.Types[n].String()})
	}
	var sort []string
	if d.Sort != "" {
		sort = []string{d.Sort}
	}
	m := member{
		"TableName": d.Name, "TableArn": d.arn(), "TableId": d.UUID, "TableStatus": status, "CreationDateTime": d.Created,
		"AttributeDefinitions": defs, "KeySchema": keySchema([]string{d.Hash}, sort),
		"ProvisionedThroughput": d.Capacity.describe(),
		"ItemCount":             max(0, t.count.items.Load()), "TableSizeBytes": max(0, t.count.bytes.Load()),
	}
	if status == "DELETING" {
		delete(m, "KeySchema")
		delete(m, "AttributeDefinitions")
		delete(m, "CreationDateTime")
	}
	if d.Billed {
		mode := "PAY_PER_REQUEST"
		if d.Provisioned {
			mode = "PROVISIONED"
		}
		bill, through := member{"BillingMode": mode}, member{"TableThroughputMode": mode}
		if d.ModeSince > 0 && status != "CREATING" {
			bill["LastUpdateToPayPerRequestDateTime"], through["LastUpdateToPayPerRequestDateTime"] = d.ModeSince, d.ModeSince
		}
		m["BillingModeSummary"], m["TableThroughputModeSummary"] = bill, through
	}
	if d.Protected {
		m["DeletionProtectionEnabled"] = true
	}
	if d.Class != "" {
		m["TableClassSummary"] = member{"TableClass": d.Class}
	}
	if d.Encrypted {
		m["SSEDescription"] = member{"Status": "ENABLED", "SSEType": "KMS"}
	}
	if d.Label != "" {
		m["LatestStreamArn"], m["LatestStreamLabel"] = d.streamARN(), d.Label
		if d.Stream != "" {
			m["StreamSpecification"] = member{"StreamEnabled": true, "StreamViewType": d.Stream}
		}
	}
	if d.Restored != nil {
		m["RestoreSummary"] = d.Restored
	}
	var global, local []member
	for i := range d.Indexes {
		x := &d.Indexes[i]
		p := member{"ProjectionType": x.Projection}
		if len(x.Others) > 0 {
			p["NonKeyAttributes"] = x.Others
		}
		n := t.indexCount(x.No)
		y := member{
			"IndexName": x.Name, "IndexArn": d.arn() + "/index/" + x.Name, "KeySchema": keySchema(x.Hash, x.Sort), "Projection": p,
			"ItemCount": max(0, n.items.Load()), "IndexSizeBytes": max(0, n.bytes.Load()),
		}
		if x.Local {
			local = append(local, y)
			continue
		}
		y["ProvisionedThroughput"] = x.Capacity.describe()
		switch {
		case status == "CREATING" || x.Filling:
			y["IndexStatus"] = "CREATING"
			if x.Filling {
				y["Backfilling"] = true
			}
		case x.Leaving || status == "DELETING":
			y["IndexStatus"] = "DELETING"
		default:
			y["IndexStatus"] = "ACTIVE"
		}
		global = append(global, y)
	}
	if global != nil {
		m["GlobalSecondaryIndexes"] = global
	}
	if local != nil {
		m["LocalSecondaryIndexes"] = local
	}
	return m
}

func (s *Store) moment() float64 { return float64(s.cfg.Now().UnixMilli()) / 1000 }

// save writes a definition down and has it hold from now on.
func (s *Store) save(t *table, d *definition) error {
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := s.db.Writable(); err != nil {
		return err
	}
	if err := s.db.Set(metaKey(place{d.Account, d.Name}), raw, synced); err != nil {
		return fmt.Errorf("write the definition of table %s: %w", d.Name, err)
	}
	t.def.Store(d)
	return nil
}

func dateTime(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
