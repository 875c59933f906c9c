package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tenfold"
	"tenfold/tier/data"
	"tenfold/tier/table"
	"tenfold/tier/table/attr"
)

// tableStore is the store of tables as the tier has it.
type tableStore struct{ *table.Store }

// Keep implements data.Store.
func (s tableStore) Keep(ctx context.Context, account string, wants []data.Want) map[string]error {
	var all []table.Wanted
	for _, w := range wants {
		all = append(all, wantedTable(w.Name, w.Table))
	}
	return s.Want(ctx, account, all)
}

// wantedTable is a table of a manifest in the words of its store.
func wantedTable(name string, t *tenfold.Table) table.Wanted {
	x := table.Wanted{Name: name, Hash: t.Key, Sort: t.Sort, Types: map[string]attr.Kind{}, TTL: t.TTL, Read: t.Read, Write: t.Write, Days: int(t.Backups / (24 * time.Hour))}
	for n, k := range t.Types {
		x.Types[n] = attr.KindOf(k)
	}
	x.Stream = strings.ToUpper(strings.ReplaceAll(t.Stream, "-", "_"))
	for _, n := range slices.Sorted(maps.Keys(t.Indexes)) {
		i := t.Indexes[n]
		y := table.WantedIndex{Name: string(n), Local: i.Local, Hash: i.Key, Sort: i.Sort, Projection: "INCLUDE", Others: i.Attributes}
		switch i.Project {
		case "all":
			y.Projection = "ALL"
		case "keys":
			y.Projection = "KEYS_ONLY"
		}
		x.Indexes = append(x.Indexes, y)
	}
	return x
}

// Facts implements data.Store.
func (s tableStore) Facts(account string) map[string]data.Outcome {
	out := map[string]data.Outcome{}
	for name, u := range s.Uses(account) {
		note := "empty"
		if u.Items > 0 {
			note = fmt.Sprintf("%d items, %s", u.Items, bytesWord(u.Bytes))
		}
		raw, err := json.Marshal(u)
		if err != nil {
			continue
		}
		out[name] = data.Outcome{Note: note, Facts: raw}
	}
	return out
}

// bytesWord is a size as a person reads it.
func bytesWord(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KB", n>>10)
	}
	return fmt.Sprintf("%d MB", n>>20)
}

// tableMetrics writes tables' counters in Prometheus' text format, under CloudWatch's names.
func tableMetrics(use map[string]data.Outcome, b *strings.Builder) {
	all := map[tenfold.ID]table.Use{}
	for key, o := range use {
		var x table.Use
		if id, err := tenfold.ParseID(key); err == nil && id.Kind == tenfold.KindTable && json.Unmarshal(o.Facts, &x) == nil {
			all[id] = x
		}
	}
	each := byResource(b, all)
	each("table_items", "gauge", func(x table.Use) float64 { return float64(x.Items) })
	each("table_size_bytes", "gauge", func(x table.Use) float64 { return float64(x.Bytes) })
	each("table_consumed_read_capacity_units_total", "counter", func(x table.Use) float64 { return x.ConsumedReadCapacityUnits })
	each("table_consumed_write_capacity_units_total", "counter", func(x table.Use) float64 { return x.ConsumedWriteCapacityUnits })
	each("table_read_throttle_events_total", "counter", func(x table.Use) float64 { return float64(x.ReadThrottleEvents) })
	each("table_write_throttle_events_total", "counter", func(x table.Use) float64 { return float64(x.WriteThrottleEvents) })
	each("table_conditional_check_failed_requests_total", "counter", func(x table.Use) float64 { return float64(x.ConditionalCheckFailedRequests) })
	each("table_returned_items_total", "counter", func(x table.Use) float64 { return float64(x.ReturnedItemCount) })
	each("table_time_to_live_deleted_items_total", "counter", func(x table.Use) float64 { return float64(x.TimeToLiveDeletedItemCount) })
	each("table_index_amplification", "gauge", func(x table.Use) float64 { return x.Amplification })
}
