//go:build scenario

package test

import (
	"strings"
	"testing"
	"time"
)

// reporter says what it was called with, and fails what asks for it.
const reporter = `def handler(event, context):
    for r in event.get("Records", [event]):
        print("called with", r.get("body", r), flush=True)
    if event.get("fail"):
        raise ValueError("out of stock")
    return {"done": event.get("order")}
`

// What comes of an asynchronous event reaches a queue and a bus, whose rules match it; and a function is called with those
// messages alone that its pattern takes.
func TestDestinationsAndFilters(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{
		"functions/sell/handler.py": reporter,
		"tenfold.yaml": `app: shop
functions:
  sell: {handler: handler.handler, runtime: python, retries: 0, to: shop-bus, dead: sell-dead, timeout: 5s,
         from: {orders: {match: {body: {kind: [order], total: [{numeric: [">", 100]}]}}}}}
queues: {orders: {timeout: 5s}, sold: {}}
events:
  shop-bus: {rules: {sold: {match: {source: [lambda], detail: {responsePayload: {done: [{exists: true}]}}}, to: sold}}}
`,
	})
	h.up(dir)
	receive := func(queue, part string) {
		t.Helper()
		var out string
		eventually(t, part+" in "+queue, 30*time.Second, func() bool {
			out = h.must(dir, "queue", "receive", queue)
			return strings.Contains(out, part)
		})
		if !strings.Contains(out, ":function:sell") {
			t.Errorf("%s: %s", queue, out)
		}
	}
	h.must(dir, "fn", "invoke", "--async", "sell", `{"order": 7}`)
	receive("sold", "Lambda Function Invocation Result - Success")
	h.must(dir, "fn", "invoke", "--async", "sell", `{"fail": true}`)
	receive("sell-dead", "RetriesExhausted")

	for _, body := range []string{`{"kind": "order", "total": 99}`, "no JSON", `{"kind": "mail", "total": 500}`, `{"kind": "order", "total": 101}`} {
		h.must(dir, "queue", "send", "orders", body)
	}
	eventually(t, "three messages passed over, one done", 30*time.Second, func() bool {
		return strings.Contains(h.must(dir, "fn", "list"), "orders: 1 done, 3 passed over")
	})
	if out := h.must(dir, "fn", "logs", "sell", "--grep", "called with"); !strings.Contains(out, `"total": 101`) || strings.Contains(out, "99}") || strings.Contains(out, "mail") {
		t.Errorf("called with: %s", out)
	}

	write(t, dir, map[string]string{"tenfold.yaml": "app: shop\nfunctions:\n  sell: {handler: handler.handler, runtime: python, from: {orders: {match: {body: {total: [{numeric: [\"~\", 1]}]}}}}}\nqueues: [orders]\n"})
	if out, status := h.runIn(dir, "deploy"); status == 0 || !strings.Contains(out, "functions.sell.from: orders: match: ") || !strings.Contains(out, "tenfold: hint: ") {
		t.Errorf("a pattern that is none: %d %s", status, out)
	}
}
