package function

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"tenfold"
	"tenfold/tier/function/source"
)

// box is a queue with so many messages, as it is asked by SQS' API.
type box struct {
	mu      sync.Mutex
	left    int
	deleted int
}

func (x *box) ask(ctx context.Context, _, _, operation string, question, answer any) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	b, err := json.Marshal(question)
	if err != nil {
		return err
	}
	var q struct {
		MaxNumberOfMessages int
		Entries             []any
	}
	if err := json.Unmarshal(b, &q); err != nil {
		return err
	}
	var out struct{ Messages []map[string]string }
	switch operation {
	case "ReceiveMessage":
		if x.left == 0 {
			x.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			x.mu.Lock()
		}
		for range min(x.left, q.MaxNumberOfMessages) {
			x.left--
			out.Messages = append(out.Messages, map[string]string{"MessageId": "m", "ReceiptHandle": "h", "Body": "b"})
		}
	case "DeleteMessageBatch":
		x.deleted += len(q.Entries)
	case "ChangeMessageVisibilityBatch":
	default:
		return errors.New(operation)
	}
	if b, err = json.Marshal(out); err != nil {
		return err
	}
	return json.Unmarshal(b, answer)
}

func (x *box) done() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.deleted
}

// A source begins with the goal that names it and ends with the one that does not; Leave ends the reading.
func TestSourcesComeAndGo(t *testing.T) {
	b := start(t)
	x := &box{left: 25}
	b.cfg.Ask = x.ask
	emails := Source{From: tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindQueue, Name: "emails"}, Name: "emails", Visible: 30 * time.Second, Settings: source.Settings{Batch: 10, Parallel: 2}}
	b.goal("echo", "echo", func(g *Goal) { g.Sources = []Source{emails} })
	use := func() source.Use { return b.Report().Functions[id("echo").String()].Sources["emails"] }
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); <-time.After(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no %s: %+v", what, use())
			}
		}
	}
	wait("25 messages done", func() bool { return x.done() == 25 && use().Working == 0 })
	if u := use(); u.Records != 25 || u.Batches < 3 {
		t.Errorf("%+v", u)
	}
	emails.Parallel = 3 // another drainer takes its place
	b.goal("echo", "echo", func(g *Goal) { g.Sources = []Source{emails} })
	x.mu.Lock()
	x.left = 5
	x.mu.Unlock()
	wait("30 messages done", func() bool { return x.done() == 30 })
	b.goal("echo", "echo", func(g *Goal) { g.Sources = nil })
	if len(b.Report().Functions[id("echo").String()].Sources) != 0 {
		t.Error("it is read although no goal names it")
	}
	b.goal("echo", "echo", func(g *Goal) { g.Sources = []Source{emails} })
	b.Leave()
	b.feeding.Wait()
	x.mu.Lock()
	x.left = 5
	x.mu.Unlock()
	b.goal("echo", "echo", func(g *Goal) { g.Sources = []Source{emails} })
	if x.mu.Lock(); x.left != 5 {
		t.Error("it is read after Leave")
	}
	x.mu.Unlock()
}

// Records of a stream that are given up on are told of where they lie, and it outlives the process.
func TestRecordsThatAreGivenUpOn(t *testing.T) {
	b := start(t)
	dead := id("graveyard")
	b.goal("echo", "echo", func(g *Goal) { g.Dead = &dead })
	f, err := b.find(t.Context(), id("echo"))
	if err != nil {
		t.Fatal(err)
	}
	records := []source.Record{{ID: "001", At: time.Unix(1, 0), Body: json.RawMessage(`{"eventSourceARN":"arn:stream"}`)}, {ID: "002", At: time.Unix(2, 0)}}
	if err := f.dropped(Source{From: tenfold.ID{Name: "sessions"}}, source.Drop{Shard: "shard-1", Records: records, Why: "RetryAttemptsExhausted", Tries: 3, Err: errors.New("no")}); err != nil {
		t.Fatal(err)
	}
	all := b.async.All()
	if len(all) != 1 {
		t.Fatalf("%d events", len(all))
	}
	for _, e := range all {
		if s := string(e.Payload); e.Function != dead || !strings.Contains(s, `"condition":"RetryAttemptsExhausted"`) || !strings.Contains(s, `"startSequenceNumber":"001"`) || !strings.Contains(s, `"streamArn":"arn:stream"`) || !strings.Contains(s, `"approximateArrivalOfLastRecord":"1970-01-01T00:00:02.000Z"`) {
			t.Errorf("%s", s)
		}
	}
	if u := b.Report().Functions[id("echo").String()]; u.Dropped != 1 {
		t.Errorf("%+v", u)
	}
}
