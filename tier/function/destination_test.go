package function

import (
	"bytes"
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"tenfold"
	"tenfold/tier/function/runtimeapi"
	"tenfold/tier/function/source"
)

// asked is what a queue or a bus was asked for.
type asked struct {
	service, operation, account string
	question                    map[string]any
}

func TestWhatCameOfAnEventGoesToQueuesAndBuses(t *testing.T) {
	v := still(t)
	var got []asked
	var refusal error
	v.cfg.Ask = func(_ context.Context, account, service, operation string, question, answer any) error {
		b, err := json.Marshal(question)
		if err != nil {
			return err
		}
		a := asked{service: service, operation: operation, account: account}
		if err := json.Unmarshal(b, &a.question); err != nil {
			return err
		}
		got = append(got, a)
		return refusal
	}
	at := func(kind tenfold.Kind, name tenfold.Name) *tenfold.ID {
		return &tenfold.ID{App: "shop", Env: "production", Kind: kind, Name: name}
	}
	g := Goal{ID: *at(tenfold.KindFunction, "echo"), Account: "123456789012", To: at(tenfold.KindBus, "shop-bus"), Dead: at(tenfold.KindQueue, "echo-dead")}
	event := func(payload string) event1 {
		t.Helper()
		if err := v.keep(g.ID, runtimeapi.Invocation{ID: "1", Payload: []byte(payload)}); err != nil {
			t.Fatal(err)
		}
		e, _ := v.async.Get("1")
		return e
	}

	if d := v.finish(g, event(`{"a":1}`), []byte(`{"condition":"odd"}`)); !d.over {
		t.Fatalf("finish: %+v", d)
	}
	a := got[0]
	entry := a.question["Entries"].([]any)[0].(map[string]any)
	if a.service != "events" || a.operation != "PutEvents" || a.account != g.Account || entry["EventBusName"] != "shop-bus" || entry["Source"] != "lambda" || entry["DetailType"] != "Lambda Function Invocation Result - Success" ||
		!strings.Contains(entry["Detail"].(string), `"requestPayload":{"a":1}`) || !strings.Contains(entry["Detail"].(string), `"responsePayload":{"condition":"odd"}`) {
		t.Errorf("the bus was asked for %+v", a)
	}

	if d := v.giveUp(g, event(`{}`), "RetriesExhausted", &runtimeapi.Failure{Type: "Boom", Body: []byte(`{"errorMessage":"no"}`)}); !d.over {
		t.Fatalf("giveUp: %+v", d)
	}
	if a := got[1]; a.service != "sqs" || a.operation != "SendMessage" || a.question["QueueUrl"] != "echo-dead" || !strings.Contains(a.question["MessageBody"].(string), `"condition":"RetriesExhausted"`) {
		t.Errorf("the queue was asked for %+v", a)
	}

	// What is larger than a message goes without the answer, then without the question.
	big := `"` + strings.Repeat("x", 900_000) + `"`
	if d := v.giveUp(g, event(big), "EventAgeExceeded", nil); !d.over {
		t.Fatalf("giveUp: %+v", d)
	}
	if body := got[2].question["MessageBody"].(string); !strings.Contains(body, `"responsePayload":null`) || !strings.Contains(body, "xxxx") || len(body) > 1<<20 {
		t.Errorf("the queue was asked for %d bytes", len(body))
	}
	if d := v.finish(Goal{ID: g.ID, To: g.Dead}, event(big), []byte(big)); !d.over {
		t.Fatalf("finish: %+v", d)
	}
	if body := got[3].question["MessageBody"].(string); !strings.Contains(body, `"responsePayload":null`) || len(body) > 1<<20 {
		t.Errorf("the queue was asked for %d bytes", len(body))
	}

	// A queue that is not there, or a process that does not answer, is told later; what is refused is not lost in silence.
	for _, refusal = range []error{errors.New("no such socket"), &source.Refusal{Code: "AWS.SimpleQueueService.NonExistentQueue"}} {
		d := v.finish(Goal{ID: g.ID, To: g.Dead}, event(`{}`), nil)
		if d.over || d.rest == nil || !d.e.Due.After(time.Now()) {
			t.Errorf("%v: %+v", refusal, d)
		}
		keep := refusal
		refusal = nil
		if d := d.rest(); !d.over {
			t.Errorf("%v, and told again: %+v", keep, d)
		}
	}
	refusal = &source.Refusal{Code: "InvalidMessageContents"}
	if d := v.finish(Goal{ID: g.ID, To: g.Dead}, event(`{}`), nil); !d.over {
		t.Errorf("what is refused for good: %+v", d)
	}
	if n := len(v.async.All()); n != 0 {
		t.Errorf("%d events are left", n)
	}
}

// Events wait by when they are due, and those of a function that never came back are forgotten.
func TestEventsWaitInLine(t *testing.T) {
	v := still(t)
	h := &hands{v: v, lines: map[string]*line{}, busy: map[string]int{}}
	gone := tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindFunction, Name: "gone"}
	for _, id := range []string{"c", "a", "b"} {
		if err := v.keep(gone, runtimeapi.Invocation{ID: id, Payload: bytes.Repeat([]byte("x"), 10)}); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	v.came[0].due, v.came[1].due, v.came[2].due = now.Add(3), now.Add(1), now.Add(2)
	h.take()
	l := h.lines[gone.String()]
	if l.Len() != 3 || (*l)[0].id != "a" {
		t.Fatalf("in line: %+v", *l)
	}
	h.orphans(now.Add(orphaned - time.Hour))
	if len(v.async.All()) != 3 {
		t.Error("forgotten too early")
	}
	h.orphans(now.Add(orphaned + time.Hour))
	if n := len(v.async.All()); n != 0 || h.lines[gone.String()].Len() != 0 || v.depths[gone.String()].n != 0 {
		t.Errorf("%d events are left, %d in line, depth %+v", n, h.lines[gone.String()].Len(), v.depths)
	}
}

// BenchmarkEndOfAnEvent is what one end of an event costs while ten thousand wait.
func BenchmarkEndOfAnEvent(b *testing.B) {
	h := &hands{lines: map[string]*line{}, busy: map[string]int{}}
	id := tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindFunction, Name: "echo"}
	now := time.Now()
	for i := range asyncQueued {
		h.push(turn{function: id.String(), due: now.Add(time.Duration(i))})
	}
	for b.Loop() {
		h.busy[id.String()]++
		h.back(tried{e: event1{Function: id, Due: now}})
		heap.Pop(h.lines[id.String()])
	}
}
