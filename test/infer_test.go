//go:build scenario

package test

import (
	"strings"
	"testing"
	"time"
)

// Apps to the letter of their frameworks' tutorials, with no manifest.
var strangers = map[string]struct {
	files map[string]string
	path  string
	want  string
}{
	"express": {map[string]string{
		"package.json": `{"name":"hello","version":"1.0.0","scripts":{"start":"node app.js"},"dependencies":{"express":"^5.1.0"}}`,
		"app.js": `const express = require('express')
const app = express()
const port = process.env.PORT || 3000

app.get('/', (req, res) => {
  res.send('Hello World!')
})

app.listen(port, () => {
  console.log('Example app listening on port ' + port)
})
`}, "/", "Hello World!"},
	"python": {map[string]string{
		"Procfile": "web: python3 app.py\n",
		"app.py": `import os
from wsgiref.simple_server import make_server

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello from Python"]

with make_server("127.0.0.1", int(os.environ["PORT"]), app) as httpd:
    httpd.serve_forever()
`}, "/", "Hello from Python"},
	"golang": {map[string]string{
		"go.mod": "module example.com/hello\n\ngo 1.24\n",
		"main.go": `package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
)

func handler(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hi there, I love %s!", r.URL.Path[1:])
}

func main() {
	http.HandleFunc("/", handler)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
`}, "/monkeys", "Hi there, I love monkeys!"},
	"static": {map[string]string{
		"index.html": "<!doctype html><title>Mine</title><link rel=stylesheet href=style.css><h1>My page</h1>\n",
		"style.css":  "h1 { color: teal }\n",
	}, "/style.css", "teal"},
}

func TestStrangersStartWithoutAManifest(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for name, app := range strangers {
		dir := write(t, t.TempDir()+"/"+name, app.files)
		out := h.up(dir)
		if !strings.Contains(out, "no tenfold.yaml: inferred") {
			t.Errorf("%s: nothing is said of inferring:\n%s", name, out)
		}
		var body string
		eventually(t, name+" answers", 10*time.Second, func() bool {
			_, body = h.get(hostIn(out), app.path)
			return strings.Contains(body, app.want)
		})
	}
	if out := h.must("", "ps"); strings.Count(out, "serving") < 3 {
		t.Errorf("ps: %s", out)
	}
}

// hostIn finds the app's own host name in the output of up.
func hostIn(out string) string {
	for _, f := range strings.Fields(out) {
		if rest, ok := strings.CutPrefix(f, "http://"); ok && strings.Contains(f, ".localhost:") && !strings.Contains(f, "tenfold.localhost") {
			return strings.Split(rest, ":")[0]
		}
	}
	return ""
}
