//go:build scenario

package test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"tenfold"
	"tenfold/control"
)

// What tasks and runs of jobs said is found when they are gone, failed or rotated away from the newest file, by the
// command line and by the console.
func TestOutputIsFoundOfWhatIsGone(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	const jobs = "    logs: {max: 256kb}\njobs:\n  sweep: {service: api, command: echo swept 3 rows}\n  late: {service: api, command: sleep 600, timeout: 1s}\n  seed: {service: api, schedule: first-deploy, retries: 1, command: echo no such table; exit 4}\n"
	// 2,400 lines are some 120 KB on disk, of which two tasks may keep 256 KB, in files of 64 KB.
	const loud = "sh -c 'i=0; while [ $i -lt 2400 ]; do echo line $i said; i=$((i+1)); done; exec ./echo 1'"
	text := strings.Replace(manifest("1", jobs), "command: exec ./echo 1\n", "command: "+loud+"\n", 1)
	write(t, dir, map[string]string{"tenfold.yaml": text})
	h.up(dir)

	find := func(args ...string) string { return h.must(dir, append([]string{"logs", "--grep"}, args...)...) }
	eventually(t, "an old line of a rotated file", 10*time.Second, func() bool { return strings.Count(find("^line 7 said$", "api"), "line 7 said") == 2 })
	if out := find("line 23[0-9]+ said", "api", "--tail", "3"); strings.Count(out, "\n") != 6 || !strings.Contains(out, "line 2399 said") {
		t.Errorf("the last three of each task: %s", out)
	}
	if out := find("line 7 said", "--until", "1h"); out != "" {
		t.Errorf("older than the house: %s", out)
	}
	if out := find("line 7 said", "--since", "1h", "api/1"); strings.Count(out, "api/1 | line 7 said") != 1 || strings.Contains(out, "api/2") {
		t.Errorf("of one task: %s", out)
	}
	if out, status := h.runIn(dir, "logs", "--grep", "f(x"); status != tenfold.CodeInvalid.ExitStatus() || !strings.Contains(out, "is no regular expression") || !strings.Contains(out, "tenfold: hint: ") {
		t.Errorf("a pattern that is none: %d %s", status, out)
	}

	// Of a version that never served: its tasks are gone.
	if out, status := h.deploy(dir, "2 crash", jobs); status != tenfold.CodeFailed.ExitStatus() {
		t.Errorf("a broken release: %d %s", status, out)
	}
	if out := find("(?i)NO LUCK"); !strings.Contains(out, "panic: no luck today") {
		t.Errorf("of tasks that failed: %s", out)
	}

	// Runs of jobs, with what each said.
	h.must(dir, "run", "sweep")
	h.must(dir, "run", "sweep")
	if out, status := h.runIn(dir, "run", "late"); status != tenfold.CodeFailed.ExitStatus() || !strings.Contains(out, "late was ended: not done after 1s") || !strings.Contains(out, "jobs.late.timeout") {
		t.Errorf("a run that takes too long: %d %s", status, out)
	}
	if out, status := h.runIn(dir, "run", "api"); status != tenfold.CodeInvalid.ExitStatus() || !strings.Contains(out, "tenfold run api --app") {
		t.Errorf("a service that is run as a job: %d %s", status, out)
	}
	eventually(t, "the seed's two tries", 20*time.Second, func() bool {
		out := h.must(dir, "jobs", "seed")
		return strings.Contains(out, "first-deploy") && strings.Contains(out, "retry 1") && strings.Contains(out, "exited with status 4")
	})
	out := h.must(dir, "jobs")
	if !strings.Contains(out, "sweep/1") || !strings.Contains(out, "sweep/2") || !strings.Contains(out, "tenfold logs seed/1") {
		t.Errorf("jobs: %s", out)
	}
	runs := decode[[]control.JobRun](t, h.must(dir, "jobs", "sweep", "--json"))
	if len(runs) != 2 || runs[0].N != 2 || runs[0].Trigger != "hand" || runs[0].Ended.IsZero() || runs[0].Exit != 0 || !runs[0].Log {
		t.Errorf("runs: %+v", runs)
	}
	if out := h.must(dir, "logs", "sweep/2"); strings.Count(out, "swept 3 rows") != 1 || !strings.Contains(out, "sweep/2 | ") {
		t.Errorf("of one run: %s", out)
	}
	if out, status := h.runIn(dir, "logs", "sweep/99"); status != tenfold.CodeNotFound.ExitStatus() || !strings.Contains(out, "tenfold: hint: ") {
		t.Errorf("of no run: %d %s", status, out)
	}
	if out, status := h.runIn(dir, "jobs", "nothing"); status != tenfold.CodeNotFound.ExitStatus() || !strings.Contains(out, "echo has no job nothing") {
		t.Errorf("of no job: %d %s", status, out)
	}

	// The console asks the same.
	const base = "/v1/apps/echo/production"
	if status, body := h.get("tenfold.localhost", base+"/logs?"+url.Values{"grep": {"no such (table|row)"}}.Encode()); status != 200 || strings.Count(body, `"from":"seed/`) != 2 {
		t.Errorf("the console's search: %d %s", status, body)
	}
	if status, body := h.get("tenfold.localhost", base+"/runs"); status != 200 || !strings.Contains(body, `"job":"sweep","n":2`) {
		t.Errorf("the console's runs: %d %s", status, body)
	}
	if status, body := h.get("tenfold.localhost", "/"); status != 200 || !strings.Contains(body, `id="search"`) {
		t.Errorf("the console: %d, search is not in it: %v", status, fmt.Sprintf("%.80s", body))
	}
}
