package function

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"tenfold"
	"tenfold/tier/function/runtimeapi"
	"tenfold/tier/function/source"
)

const (
	// toldMost is how much a queue or a bus takes of what came of an event, with something left for what is around it.
	toldMost = 1<<20 - 4096
	// tellLimit bounds a question to a queue or a bus.
	tellLimit = 15 * time.Second
)

// outcome is what came of an event, in Lambda's form (version 1.0).
func (g *Goal) outcome(e event1, condition string, fail *runtimeapi.Failure, payload []byte) map[string]any {
	type object = map[string]any
	res := object{"statusCode": 200, "executedVersion": "$LATEST"}
	if fail != nil {
		res["functionError"] = "Unhandled"
	}
	return object{
		"version": "1.0", "timestamp": time.Now().UTC().Format("2006-01-02T15:04:05.000Z"),
		"requestContext":  object{"requestId": e.ID, "functionArn": g.ARN() + ":$LATEST", "condition": condition, "approximateInvokeCount": max(1, e.Tries)},
		"requestPayload":  jsonOr(e.Payload),
		"responseContext": res,
		"responsePayload": jsonOr(payload),
	}
}

// tell hands what came of events to a destination. It is kept for a function that is not there at the moment; of a queue
// or a bus an error says that it is to be told again.
func (v *Invoker) tell(to *tenfold.ID, g Goal, condition string, record map[string]any, trace string) error {
	if to == nil {
		return nil
	}
	most := toldMost
	if to.Kind == tenfold.KindFunction {
		most = runtimeapi.MaxEvent
	}
	b, err := json.Marshal(record)
	for _, part := range []string{"responsePayload", "requestPayload"} {
		if err == nil && len(b) > most { // without what nobody could be handed
			record[part] = nil
			b, err = json.Marshal(record)
		}
	}
	switch {
	case err != nil:
		return err
	case to.Kind == tenfold.KindFunction:
		return v.keep(*to, runtimeapi.Invocation{ID: uuid.NewString(), Payload: b, Trace: trace})
	case v.cfg.Ask == nil:
		return errors.New("there are no queues and buses")
	}
	// Not cut off by the end of this process: what was told and is told again comes twice.
	ctx, cancel := context.WithTimeout(context.Background(), tellLimit)
	defer cancel()
	if to.Kind == tenfold.KindQueue {
		err = v.cfg.Ask(ctx, g.Account, "sqs", "SendMessage", map[string]any{"QueueUrl": string(to.Name), "MessageBody": string(b)}, &struct{}{})
	} else {
		err = v.publish(ctx, to, g, condition, b)
	}
	var no *source.Refusal
	if errors.As(err, &no) && !strings.Contains(no.Code, "NonExistent") && !strings.Contains(no.Code, "DoesNotExist") && !strings.Contains(no.Code, "NotFound") {
		// However often it is told the same. The log has it, since nothing else does.
		v.cfg.Log.Error("tell what came of an event", "function", g.ID.String(), "to", to.Short(), "err", err)
		if f := v.known(g.ID.String()); f != nil {
			f.logs.add(true, fmt.Sprintf("%s did not take what came of an event: %v: %s", to.Short(), err, b[:min(len(b), 4096)]))
		}
		return nil
	}
	return err
}

// publish puts what came of an event on a bus, as Lambda does.
func (v *Invoker) publish(ctx context.Context, to *tenfold.ID, g Goal, condition string, detail []byte) error {
	how := "Failure"
	if condition == "Success" {
		how = "Success"
	}
	var said struct {
		Entries []struct{ ErrorCode, ErrorMessage string }
	}
	entry := map[string]any{"EventBusName": string(to.Name), "Source": "lambda", "DetailType": "Lambda Function Invocation Result - " + how, "Detail": string(detail), "Resources": []string{g.ARN() + ":$LATEST"}}
	if err := v.cfg.Ask(ctx, g.Account, "events", "PutEvents", map[string]any{"Entries": []any{entry}}, &said); err != nil {
		return err
	}
	if len(said.Entries) == 1 && said.Entries[0].ErrorCode != "" {
		return &source.Refusal{Code: said.Entries[0].ErrorCode, Message: said.Entries[0].ErrorMessage}
	}
	return nil
}

// jsonOr gives b as JSON: as it is when it is some.
func jsonOr(b []byte) json.RawMessage {
	switch {
	case len(bytes.TrimSpace(b)) == 0:
		return json.RawMessage("null")
	case json.Valid(b):
		return b
	}
	s, _ := json.Marshal(string(b))
	return s
}
