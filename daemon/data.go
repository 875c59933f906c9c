package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/awsapi"
	"tenfold/internal/kv"
	"tenfold/internal/secret"
	"tenfold/tier/compute"
	"tenfold/tier/data"
	"tenfold/tier/event"
	"tenfold/tier/function"
	"tenfold/tier/queue"
	"tenfold/tier/table"
)

// dataListener is the keeper's name for the listener of the stores' process.
const dataListener = "data"

// RunData is the process of the purpose-built stores: it alone has their log open.
func RunData(ctx context.Context, dir string) error {
	return runCompanion(ctx, dir, dataListener, func(l Layout, log *slog.Logger) (companionWork, error) {
		// Most of what is alive here are blocks and tables of the log, without a pointer to follow: collecting
		// twice as often costs little time and saves a fourth of the memory.
		debug.SetGCPercent(50)
		address, err := companionAddress(l.Tier("data"))
		if err != nil {
			return companionWork{}, err
		}
		db, err := kv.Open(filepath.Join(l.Tier("data"), "log"), kv.Options{Log: log})
		if err != nil {
			return companionWork{}, err
		}
		queues, err := queue.Open(db, queue.Config{Log: log, URL: func(account, name string) string { return data.QueueURL(address, account, name) }})
		if err != nil {
			return companionWork{}, err
		}
		files, err := companionAddress(l.Tier(filesListener))
		if err != nil {
			return companionWork{}, err
		}
		var s *data.Server
		made := make(chan struct{}) // closed with s: what was under way in a table goes on from its opening
		defer close(made)
		tables, err := table.Open(db, table.Config{Log: log, Objects: objects{files, func(ctx context.Context, account string) (awsapi.Key, bool) {
			if <-made; s == nil { // the process does not start
				return awsapi.Key{}, false
			}
			return s.Owner(ctx, account)
		}}})
		if err != nil {
			return companionWork{}, err
		}
		key, err := secret.Load(l.Key())
		if err != nil {
			return companionWork{}, err
		}
		known := &scopes{of: map[string]tenfold.ID{}}
		others := eventTargets{known, function.NewRemote(l.Socket(invokeListener)), control.Unix(l.Socket("control"))}
		events, err := event.Open(db, event.Config{Log: log, Send: eventSender{queues, func(account, name string) string { return data.QueueURL(address, account, name) }}, Invoke: others, Run: others, Seal: key})
		if err != nil {
			return companionWork{}, err
		}
		s = data.NewServer(map[tenfold.Kind]data.Store{tenfold.KindQueue: queueStore{queues}, tenfold.KindTable: tableStore{tables}, tenfold.KindBus: eventStore{events, known}}, map[string]awsapi.Served{
			"sqs":      {Service: queues, Namespace: "com.amazonaws.sqs#", XMLNS: queue.Namespace, Limit: 8 << 20},
			"dynamodb": tables.Served(),
			"events":   events.Served(), "scheduler": events.Scheduler(),
		}, db.Writable, log)
		return companionWork{public: s.Handler(), private: s.ControlHandler(), leave: queues.Leave, run: func(ctx context.Context, ready func()) error {
			err := events.Run(ctx, ready)
			queues.Close()
			tables.Close()
			return errors.Join(err, db.Close())
		}}, nil
	})
}

// queueStore is the store of queues as the tier has it.
type queueStore struct{ *queue.Store }

// Keep implements data.Store.
func (s queueStore) Keep(ctx context.Context, account string, wants []data.Want) map[string]error {
	var all []queue.Wanted
	for _, w := range wants {
		q := w.Queue
		x := queue.Wanted{Name: w.Name, Timeout: q.Timeout, Keep: q.Keep, Delay: q.Delay, Receives: q.Retries + 1}
		if q.FIFO != nil {
			x.FIFO, x.ContentDedupe, x.PerGroup = true, q.FIFO.Content, q.FIFO.Group
		}
		if q.Dead != "" {
			x.Dead = data.AWSName(tenfold.ID{Name: q.Dead}, q) // of the same kind as this one
		}
		all = append(all, x)
	}
	return s.Want(ctx, account, all)
}

// Facts implements data.Store.
func (s queueStore) Facts(account string) map[string]data.Outcome {
	out := map[string]data.Outcome{}
	for name, b := range s.Backlogs(account) {
		note := fmt.Sprintf("%d waiting", b.Visible)
		if b.Visible == 0 {
			note = "empty"
		} else if b.Oldest >= time.Second {
			note += ", oldest " + b.Oldest.Round(time.Second).String()
		}
		if b.InFlight > 0 {
			note += fmt.Sprintf(", %d in flight", b.InFlight)
		}
		if b.Delayed > 0 {
			note += fmt.Sprintf(", %d delayed", b.Delayed)
		}
		raw, err := json.Marshal(b)
		if err != nil {
			continue
		}
		out[name] = data.Outcome{Note: note, Facts: raw}
	}
	return out
}

// stores is the stores' process as the daemon has it: it is there as long as there is something to hold.
type stores struct {
	*data.Remote
	*companion
}

func newStores(ctx context.Context, h *house, mode Mode, name, binary, version string) (*stores, error) {
	c, err := newCompanion(ctx, h, mode, name, h.layout.Tier(name), binary, version)
	return &stores{data.NewRemote(h.layout.Socket(name)), c}, err
}

// Put implements data.Process.
func (s *stores) Put(ctx context.Context, snap data.Snapshot) (rep data.Report, err error) {
	err = s.serving(ctx, func(ctx context.Context) error {
		rep, err = s.Remote.Put(ctx, snap)
		return err
	})
	return rep, err
}

// Idle implements data.Process.
func (s *stores) Idle(ctx context.Context) error { return s.idle(ctx) }

// storeKeys are those of services and functions that use queues, tables, event buses or buckets.
func (h *house) storeKeys(ctx context.Context) ([]awsapi.Key, error) {
	keys := map[string]awsapi.Key{}
	err := h.holdersOfKeys(ctx, func(app tenfold.App, of tenfold.ID, line int, bs []tenfold.Binding) {
		uses, functions := map[string][]string{}, []string(nil)
		for _, b := range bs {
			switch {
			case b.From.Kind == tenfold.KindQueue && b.Field == tenfold.FieldURL:
				q := app.Queues[b.From.Name]
				uses["sqs"] = append(uses["sqs"], data.AWSName(b.From, &q))
			case b.From.Kind == tenfold.KindTable && b.Field == tenfold.FieldName:
				uses["dynamodb"] = append(uses["dynamodb"], data.AWSName(b.From, nil))
			case b.From.Kind == tenfold.KindBus && b.Field == tenfold.FieldName:
				uses["events"] = append(uses["events"], data.AWSName(b.From, nil))
			case b.From.Kind == tenfold.KindBucket && b.Field == tenfold.FieldName:
				uses["s3"] = append(uses["s3"], data.AWSName(b.From, nil))
			case b.From.Kind == tenfold.KindFunction && b.Field == tenfold.FieldName: // that rules may be made to call
				functions = append(functions, string(b.From.Name))
			}
		}
		if len(uses) == 0 {
			return
		}
		if len(functions) > 0 {
			uses["lambda"] = functions
		}
		k := h.accessKey(app.ID(tenfold.KindIdentity, of.Name))
		have := keys[k.ID]
		// What the one revision uses, and what the other does.
		all := map[string][]string{}
		for _, service := range []string{"sqs", "dynamodb", "events", "s3", "lambda"} {
			if names := slices.Concat(have.Uses[service], uses[service]); len(names) > 0 {
				slices.Sort(names)
				all[service] = slices.Compact(names)
			}
		}
		have.Uses = all
		have.Access, have.Secret, have.Account, have.Of, have.Line = k.ID, k.Secret, account(app.Name, app.Env), of.Short(), line
		keys[k.ID] = have
	})
	return slices.SortedFunc(maps.Values(keys), func(a, b awsapi.Key) int { return strings.Compare(a.Access, b.Access) }), err
}

// StoreCall implements control.API.
func (h *house) StoreCall(ctx context.Context, e control.Env, c control.StoreCall) (control.StoreCalled, error) {
	if _, err := h.environment(ctx, e); err != nil {
		return control.StoreCalled{}, err
	}
	if !h.data.Holds() {
		return control.StoreCalled{}, tenfold.Errorf(tenfold.CodeNotFound, "no app of this house has a queue, a table or an event bus").WithHint("add one to the manifest: queues: [emails], tables: {sessions: user_id} or events: [shop-bus]")
	}
	out, err := h.stores.Call(ctx, data.Call{Account: account(e.App, e.Env), Service: c.Service, Operation: c.Operation, Body: c.Body})
	return control.StoreCalled{Body: out.Body, Code: out.Code, Message: out.Message}, err
}

// backlog is what is in a queue, as its process said last.
func (h *house) backlog(id tenfold.ID) (out compute.Backlog, ok bool) {
	var b queue.Backlog
	o, ok := h.data.Is(id)
	if !ok || len(o.Facts) == 0 || json.Unmarshal(o.Facts, &b) != nil {
		return out, false
	}
	return compute.Backlog{Waiting: b.Visible, Working: b.InFlight, Sent: b.Sent, Done: b.Deleted}, true
}

// queueMetrics writes queues' counters in Prometheus' text format, under CloudWatch's names.
func queueMetrics(use map[string]data.Outcome, b *strings.Builder) {
	all := map[tenfold.ID]queue.Backlog{}
	for key, o := range use {
		var x queue.Backlog
		if id, err := tenfold.ParseID(key); err == nil && id.Kind == tenfold.KindQueue && json.Unmarshal(o.Facts, &x) == nil {
			all[id] = x
		}
	}
	each := byResource(b, all)
	each("queue_messages_visible", "gauge", func(x queue.Backlog) float64 { return float64(x.Visible) })
	each("queue_messages_not_visible", "gauge", func(x queue.Backlog) float64 { return float64(x.InFlight) })
	each("queue_messages_delayed", "gauge", func(x queue.Backlog) float64 { return float64(x.Delayed) })
	each("queue_age_of_oldest_message_seconds", "gauge", func(x queue.Backlog) float64 { return x.Oldest.Seconds() })
	each("queue_noisy_groups", "gauge", func(x queue.Backlog) float64 { return float64(x.NoisyGroups) })
	each("queue_messages_visible_in_quiet_groups", "gauge", func(x queue.Backlog) float64 { return float64(x.QuietVisible) })
	each("queue_messages_sent_total", "counter", func(x queue.Backlog) float64 { return float64(x.Sent) })
	each("queue_messages_received_total", "counter", func(x queue.Backlog) float64 { return float64(x.Received) })
	each("queue_messages_deleted_total", "counter", func(x queue.Backlog) float64 { return float64(x.Deleted) })
}
