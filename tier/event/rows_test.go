package event_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"tenfold/internal/awsapi"
	"tenfold/tier/event"
)

// A database's rows and how far they were taken are written together, and outlive the process; a row that is no
// event holds up none.
func TestRowsBecomeEvents(t *testing.T) {
	x := newTargets()
	dir := t.TempDir()
	h := open(t, dir, x, nil)
	for name, err := range h.Want(t.Context(), account, []event.Wanted{{Name: "shop", Rules: []event.WantedRule{{Name: "all", Pattern: `{"source":["app"]}`, Retries: 1, Age: time.Minute, Targets: []event.WantedTarget{{Queue: "emails"}}}}}}) {
		t.Fatal(name, err)
	}
	ask := func(operation string, in event.RowsTaken) (out event.RowsTaken, err error) {
		body, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := h.Serve(context.Background(), &awsapi.Request{Operation: operation, Body: body, Caller: awsapi.Caller{Account: account, Uses: map[string][]string{"events": {awsapi.Every}}}})
		if err == nil {
			err = json.Unmarshal(raw, &out)
		}
		return out, err
	}
	if out, err := ask(event.TakenRows, event.RowsTaken{Bus: "shop", From: "db"}); err != nil || out.State != nil {
		t.Fatal(out, err)
	}
	row := func(id, detail string) event.Row {
		return event.Row{ID: id, Source: "app", Type: "paid", Time: time.Unix(1e9, 0), Detail: detail}
	}
	in := event.RowsTaken{Bus: "shop", From: "db", State: json.RawMessage(`{"at":7}`), Rows: []event.Row{row("1", `{"n":1}`), row("2", `[1]`), row("3", `{`), row("4", `{"n":"`+strings.Repeat("x", 1<<20)+`"}`), row("5", `{"n":5}`)}}
	if _, err := ask(event.TakeRows, in); err != nil {
		t.Fatal(err)
	}
	for _, m := range x.wait(t, "emails", 2) { // in no order
		if !strings.Contains(m.Body, `"id":"1"`) && !strings.Contains(m.Body, `"id":"5"`) || !strings.Contains(m.Body, `"time":"2001-09-09T01:46:40Z"`) {
			t.Error(m.Body)
		}
	}
	if u := h.Uses(account)["shop"]; u.OutboxRows != 2 || u.OutboxRowsRefused != 3 || !strings.HasPrefix(u.Refused, "row 4: ") {
		t.Errorf("%+v", u)
	}
	if _, err := ask(event.TakeRows, event.RowsTaken{Bus: "none", From: "db", State: in.State}); err == nil {
		t.Error("rows for no bus")
	}
	h.stop()
	h = open(t, dir, x, nil)
	defer func() { h.stop() }()
	if out, err := ask(event.TakenRows, event.RowsTaken{Bus: "shop", From: "db"}); err != nil || string(out.State) != `{"at":7}` {
		t.Error(string(out.State), err)
	}
	if err := h.Remove(t.Context(), account, "shop"); err != nil {
		t.Fatal(err)
	}
	if out, err := ask(event.TakenRows, event.RowsTaken{Bus: "shop", From: "db"}); err != nil || out.State != nil {
		t.Error(string(out.State), err)
	}
}
