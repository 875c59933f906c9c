//go:build scenario

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Apps in Python and JavaScript use tables, streams, queues, buses, schedules and functions through AWS' own
// clients of their language, told nothing but their environment. boto3 brings the examples of AWS' documentation:
// they are run too.
func TestClientsOfOtherLanguages(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{
		"functions/hi/index.mjs": "export const handler = async (event) => ({ hello: event.name });\n",
		"tenfold.yaml": manifest("1", "    uses: [sessions, jobs, orders, news, hi, uploads]\n") + `functions: {hi: {}}
tables: {sessions: {key: user, sort: at, types: {at: number}, stream: new-and-old-images}}
queues: {jobs: {}, orders: {fifo: {}}}
events: {news: {}}
buckets: {uploads: {}}
`,
	})
	h.up(dir)
	var env []string
	for k, v := range h.environ("echo 1") {
		if strings.HasPrefix(k, "AWS_") || strings.HasSuffix(k, "_TABLE") || strings.HasSuffix(k, "_QUEUE_URL") || strings.HasSuffix(k, "_BUS") || strings.HasSuffix(k, "_BUCKET") {
			env = append(env, k+"="+v)
		}
	}
	env = append(env, "PATH="+os.Getenv("PATH"), "HOME="+t.TempDir())
	run := func(t *testing.T, parts int, dir, name string, args ...string) {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Count(string(out), "ok ") != parts {
			t.Errorf("%v: %s", err, out)
		}
	}
	source, err := filepath.Abs("testdata/clients")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("python", func(t *testing.T) {
		for _, python := range []string{"python3", "/usr/bin/python3"} {
			if exec.Command(python, "-c", "import boto3").Run() == nil {
				run(t, 7, t.TempDir(), python, filepath.Join(source, "main.py"))
				return
			}
		}
		t.Skip("no boto3, which make scenarios installs")
	})
	t.Run("javascript", func(t *testing.T) {
		if _, err := exec.LookPath("npm"); err != nil {
			t.Skip("no npm, which make scenarios installs")
		}
		at := t.TempDir()
		for _, name := range []string{"package.json", "main.mjs"} {
			raw, err := os.ReadFile(filepath.Join(source, name))
			if err != nil {
				t.Fatal(err)
			}
			write(t, at, map[string]string{name: string(raw)})
		}
		npm := exec.CommandContext(t.Context(), "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts")
		npm.Dir = at
		if out, err := npm.CombinedOutput(); err != nil {
			t.Fatalf("npm install: %v: %s", err, out)
		}
		run(t, 6, at, "node", "main.mjs")
	})
}
