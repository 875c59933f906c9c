package function

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tenfold/tier/function/runtimeapi"
)

// handlersIn are the same handlers in two languages.
var handlersIn = map[string]map[string]string{
	"node": {
		"index.mjs": `
export const echo = async (event, context) => ({ event, name: context.functionName, id: context.awsRequestId, left: context.getRemainingTimeInMillis() > 1000 });
export const fail = async () => { throw new TypeError("out of stock"); };
export const back = (event, context, callback) => { setTimeout(() => callback(null, "called back"), 5); };
export const flow = awslambda.streamifyResponse(async (event, stream) => {
  stream = awslambda.HttpResponseStream.from(stream, { statusCode: 202, headers: { "x-of": event.rawPath } });
  for (let i = 0; i < 1000; i++) stream.write("streamed ");
  stream.end();
});
`,
		"old.js":     `exports.handler = async () => "common";`,
		"broken.mjs": `throw new Error("no database");`,
	},
	"python": {
		"index.py": `
import os
def echo(event, context):
    return {"event": event, "name": context.function_name, "id": context.aws_request_id, "left": context.get_remaining_time_in_millis() > 1000}
def fail(event, context):
    raise TypeError("out of stock")
`,
		"old.py":    "handler = lambda event, context: \"common\"\n",
		"broken.py": "raise RuntimeError(\"no database\")\n",
	},
}

func TestHandlersOfOtherLanguages(t *testing.T) {
	for language, files := range handlersIn {
		t.Run(language, func(t *testing.T) {
			dir := t.TempDir()
			argv, err := bootstrap(dir+"/runtimes", language)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := exec.LookPath(argv[0]); err != nil {
				t.Skip("no " + argv[0] + " on this machine")
			}
			for name, text := range files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			b := start(t)
			put := func(name, handler string, concurrency int) {
				b.goal(name, "", func(g *Goal) {
					g.Argv, g.Dir, g.Handler, g.Concurrency = argv, dir, handler, concurrency
					g.Env = append(os.Environ(), "X=1")
				})
			}
			put("echo", "index.echo", 1)
			for range 3 {
				said, out, err := b.call("echo", order{Text: "grüß"})
				var got struct {
					Event order
					Name  string
					ID    string
					Left  bool
				}
				if err != nil || json.Unmarshal([]byte(said), &got) != nil || got.Event.Text != "grüß" || got.Name != "echo" || got.ID != out.RequestID || !got.Left {
					t.Errorf("echo: %s, %v", said, err)
				}
			}
			put("fail", "index.fail", 1)
			for range 2 {
				if _, _, err := b.call("fail", order{}); kind(err) != "TypeError" || !strings.Contains(err.Error(), "out of stock") {
					t.Errorf("fail: %v", err)
				}
			}
			put("old", "old.handler", 1)
			if said, _, err := b.call("old", order{}); err != nil || said != `"common"` {
				t.Errorf("a module of the old kind: %s, %v", said, err)
			}
			for handler, want := range map[string]string{"broken.handler": "no database", "nothing.handler": "nothing", "index.nothing": "nothing", "handler": "write file.function"} {
				put("bad", handler, 1)
				b.goal("bad", "", func(g *Goal) { *g = b.snap.Functions[len(b.snap.Functions)-1]; g.Version = handler })
				if _, _, err := b.call("bad", order{}); kind(err) == "" || !strings.Contains(string(failure(err).Payload()), want) {
					t.Errorf("%s: %v", handler, err)
				}
			}
			put("many", "index.echo", 4)
			done := make(chan error)
			for range 4 {
				go func() {
					_, _, err := b.call("many", order{})
					done <- err
				}()
			}
			for range 4 {
				select {
				case err := <-done:
					if err != nil {
						t.Error(err)
					}
				case <-time.After(20 * time.Second):
					t.Fatal("no answer")
				}
			}
			if language != "node" {
				return
			}
			put("back", "index.back", 1)
			if said, _, err := b.call("back", order{}); err != nil || said != `"called back"` {
				t.Errorf("a callback: %s, %v", said, err)
			}
			put("flow", "index.flow", 1)
			if said, _, err := b.call("flow", order{}); err != nil || !strings.HasSuffix(said, strings.Repeat("streamed ", 1000)) {
				t.Errorf("a stream: %d bytes, %v", len(said), err)
			}
		})
	}
}

func failure(err error) *runtimeapi.Failure {
	f, _ := err.(*runtimeapi.Failure)
	if f == nil {
		return &runtimeapi.Failure{}
	}
	return f
}
