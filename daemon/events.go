package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/awsapi"
	"tenfold/tier/data"
	"tenfold/tier/event"
	"tenfold/tier/function"
	"tenfold/tier/postgres"
	"tenfold/tier/queue"
)

// eventStore is the store of event buses as the tier has it. It knows whose accounts are whose, since it is
// told of buses by what they are of.
type eventStore struct {
	*event.Store
	scopes *scopes
}

// scopes are the environments of accounts.
type scopes struct {
	mu sync.Mutex
	of map[string]tenfold.ID // by account; under mu
}

func (s *scopes) put(account string, id tenfold.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[account] = tenfold.ID{App: id.App, Env: id.Env}
}

// id is a resource of an account.
func (s *scopes) id(account string, kind tenfold.Kind, name string) (tenfold.ID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.of[account]
	if !ok {
		return id, errors.New("it is not known yet whose account " + account + " is")
	}
	id.Kind, id.Name = kind, tenfold.Name(name)
	return id, nil
}

// Keep implements data.Store.
func (s eventStore) Keep(ctx context.Context, account string, wants []data.Want) map[string]error {
	var all []event.Wanted
	for _, w := range wants {
		s.scopes.put(account, w.ID)
		all = append(all, wantedBus(w))
	}
	return s.Want(ctx, account, all)
}

// wantedBus is a bus of a manifest in the words of its store.
func wantedBus(w data.Want) event.Wanted {
	x := event.Wanted{Name: w.Name, Archive: w.Bus.Archive}
	for _, n := range slices.Sorted(maps.Keys(w.Bus.Rules)) {
		r := w.Bus.Rules[n]
		y := event.WantedRule{Name: string(n), Pattern: r.Match, Schedule: r.Schedule, Zone: r.Timezone, Window: r.Window, Retries: r.Retries, Age: r.Age, Dead: string(r.Dead), Paths: r.Paths, Template: r.Template}
		for _, t := range r.To {
			z := event.WantedTarget{URL: t.URL, Header: t.Header, User: t.User, Every: t.Every, Secret: w.Secrets[t.Secret.Name], Keyed: t.Secret.Name != ""}
			switch name := string(t.To.Name); t.To.Kind {
			case tenfold.KindQueue:
				if z.Queue = name; w.Ordered[t.To.Name] {
					z.Queue += ".fifo"
				}
			case tenfold.KindFunction:
				z.Function = name
			case tenfold.KindJob:
				z.Job = name
			case tenfold.KindBus:
				z.Bus = name
			}
			y.Targets = append(y.Targets, z)
		}
		x.Rules = append(x.Rules, y)
	}
	return x
}

// Facts implements data.Store.
func (s eventStore) Facts(account string) map[string]data.Outcome {
	out := map[string]data.Outcome{}
	for name, u := range s.Uses(account) {
		raw, err := json.Marshal(u)
		if err != nil {
			continue
		}
		note := fmt.Sprintf("%d rules, %d events", u.Rules, u.PutEvents)
		if u.FailedInvocations > 0 {
			note += fmt.Sprintf(", %d tries failed", u.FailedInvocations)
		}
		if u.OutboxRowsRefused > 0 {
			note += fmt.Sprintf(", %d rows are no events (%s)", u.OutboxRowsRefused, u.Refused)
		}
		out[name] = data.Outcome{Note: note, Facts: raw}
	}
	return out
}

// eventSender sends to the queues of the same process.
type eventSender struct {
	queues *queue.Store
	url    func(account, name string) string
}

// Send implements event.Sender.
func (s eventSender) Send(ctx context.Context, account, name string, m event.Message) error {
	type value struct{ DataType, StringValue string }
	in := struct {
		QueueUrl, MessageBody                  string
		MessageGroupId, MessageDeduplicationId string           `json:",omitempty"`
		MessageAttributes                      map[string]value `json:",omitempty"`
	}{QueueUrl: s.url(account, name), MessageBody: m.Body, MessageGroupId: m.Group, MessageDeduplicationId: m.Once}
	for k, v := range m.Attributes {
		if v == "" {
			continue
		}
		if in.MessageAttributes == nil {
			in.MessageAttributes = map[string]value{}
		}
		in.MessageAttributes[k] = value{"String", v}
	}
	return serve(ctx, s.queues, account, "sqs", "SendMessage", in)
}

// serve has an operation done as the owner of an account.
func serve(ctx context.Context, to awsapi.Service, account, service, operation string, in any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+service+"/", nil)
	if err != nil {
		return err
	}
	_, err = to.Serve(ctx, &awsapi.Request{Operation: operation, Body: body, HTTP: r, Caller: awsapi.Caller{Account: account, Region: awsapi.Region, Of: "events", Uses: map[string][]string{service: {awsapi.Every}}}})
	return err
}

// eventTargets are those that are in other processes.
type eventTargets struct {
	scopes    *scopes
	functions *function.Remote
	house     *control.Client
}

// Invoke implements event.Invoker.
func (t eventTargets) Invoke(ctx context.Context, account, name, id string, payload []byte) error {
	fn, err := t.scopes.id(account, tenfold.KindFunction, name)
	if err != nil {
		return err
	}
	a, err := t.functions.Invoke(ctx, function.Call{Function: fn, ID: id, Payload: payload, Async: true})
	if err == nil && a.Throttled != "" {
		err = errors.New(a.Throttled)
	}
	return err
}

// Start implements event.Runner.
func (t eventTargets) Start(ctx context.Context, account, name, _ string) error {
	job, err := t.scopes.id(account, tenfold.KindJob, name)
	if err != nil {
		return err
	}
	return t.house.Run(ctx, control.RunRequest{Env: control.Env{App: job.App, Env: job.Env}, Name: job.Name, Detach: true}, func(control.LogLine) error { return nil })
}

// outboxes give rows of databases to buses.
type outboxes struct{ h *house }

// Taken implements postgres.Outbox.
func (o outboxes) Taken(ctx context.Context, db tenfold.ID, bus tenfold.Name) (json.RawMessage, error) {
	out, err := o.call(ctx, event.TakenRows, db, event.RowsTaken{Bus: string(bus), From: string(db.Name)})
	return out.State, err
}

// Take implements postgres.Outbox.
func (o outboxes) Take(ctx context.Context, db tenfold.ID, bus tenfold.Name, rows []postgres.OutboxRow, state json.RawMessage) error {
	in := event.RowsTaken{Bus: string(bus), From: string(db.Name), State: state}
	for _, r := range rows {
		in.Rows = append(in.Rows, event.Row{ID: r.ID, Source: r.Source, Type: r.Type, Time: r.Time, Detail: string(r.Detail)})
	}
	_, err := o.call(ctx, event.TakeRows, db, in)
	return err
}

func (o outboxes) call(ctx context.Context, operation string, db tenfold.ID, in event.RowsTaken) (out event.RowsTaken, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	a, err := o.h.stores.Call(ctx, data.Call{Account: account(db.App, db.Env), Service: "events", Operation: operation, Body: body})
	switch {
	case err != nil:
		return out, err
	case a.Code != "":
		return out, fmt.Errorf("%s: %s", a.Code, a.Message)
	}
	return out, json.Unmarshal(a.Body, &out)
}

// secretValue is the newest value of a secret.
func (h *house) secretValue(ctx context.Context, id tenfold.ID) (string, error) {
	return h.resolve(ctx, tenfold.Binding{From: id, Field: tenfold.FieldValue})
}

// eventMetrics writes buses' counters in Prometheus' text format, under CloudWatch's names.
func eventMetrics(use map[string]data.Outcome, b *strings.Builder) {
	all := map[tenfold.ID]event.Use{}
	for key, o := range use {
		var x event.Use
		if id, err := tenfold.ParseID(key); err == nil && id.Kind == tenfold.KindBus && json.Unmarshal(o.Facts, &x) == nil {
			all[id] = x
		}
	}
	each := byResource(b, all)
	each("bus_put_events_entries_total", "counter", func(x event.Use) float64 { return float64(x.PutEvents) })
	each("bus_matched_events_total", "counter", func(x event.Use) float64 { return float64(x.MatchedEvents) })
	each("bus_triggered_rules_total", "counter", func(x event.Use) float64 { return float64(x.TriggeredRules) })
	each("bus_invocation_attempts_total", "counter", func(x event.Use) float64 { return float64(x.Invocations) })
	each("bus_successful_invocation_attempts_total", "counter", func(x event.Use) float64 { return float64(x.SuccessfulInvocations) })
	each("bus_failed_invocations_total", "counter", func(x event.Use) float64 { return float64(x.FailedInvocations) })
	each("bus_retry_invocation_attempts_total", "counter", func(x event.Use) float64 { return float64(x.RetryInvocations) })
	each("bus_invocations_sent_to_dlq_total", "counter", func(x event.Use) float64 { return float64(x.InvocationsSentToDLQ) })
	each("bus_outbox_rows_total", "counter", func(x event.Use) float64 { return float64(x.OutboxRows) })
	each("bus_outbox_rows_refused_total", "counter", func(x event.Use) float64 { return float64(x.OutboxRowsRefused) })
	each("bus_invocations_dropped_total", "counter", func(x event.Use) float64 { return float64(x.InvocationsDropped) })
}
