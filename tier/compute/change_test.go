package compute

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/atomicfile"
	"tenfold/internal/directory"
	"tenfold/internal/freeport"
	"tenfold/internal/keeper"
	"tenfold/tier/compute/autoscale"
)

// A service that sleeps wakes though the disk takes nothing meanwhile, neither its record nor an event.
func TestAWakeWaitsForNoDisk(t *testing.T) {
	b := newBox(t)
	if o := b.deploy(b.app(func(w *tenfold.Workload) { w.Scale = tenfold.Bounds{Min: 0, Max: 2}; w.Bake = 0 })); o.Failed != "" {
		t.Fatal(o.Reason)
	}
	b.stop()
	var rec record
	path := b.recordPath(api)
	if err := atomicfile.ReadJSON(path, &rec); err != nil {
		t.Fatal(err)
	}
	none := 0
	rec.Scaled = &none
	if err := atomicfile.WriteJSON(path, rec, 0o600); err != nil {
		t.Fatal(err)
	}
	b.begin()
	b.live(0)
	s, err := b.find(api)
	if err != nil {
		t.Fatal(err)
	}
	b.poll(func() bool { return s.snapshot().Tasks == nil && s.snapshot().Watch == nil }, func() string { return "sleep" })
	s.disk.Lock()
	b.slow.Lock()
	said := len(b.events)
	b.door.waiting <- directory.Waiting{Seq: 1, Services: []string{"shop/production/api"}}
	if body := get(b.live(1)[0], "/"); body != "one" {
		t.Errorf("it answers %q", body)
	}
	if n := len(b.events); n != said {
		t.Errorf("%d events were taken", n-said)
	}
	b.slow.Unlock()
	s.disk.Unlock()
	b.poll(func() bool {
		return strings.Contains(strings.Join(b.said(), "\n"), "scaled from 0 to 1 task: a request waits") && atomicfile.ReadJSON(path, &rec) == nil && len(rec.Tasks) == 1 && rec.Tasks[0].Phase == serving
	}, func() string { return "what was put off" })
}

func TestWhatACrashMayForget(t *testing.T) {
	one, two := 1, 2
	base := func() record {
		return record{ID: api, Scaled: &one, LastTask: 2, Goal: &version{Version: "v"}, Tasks: []task{{N: 1, Phase: serving, Port: 5}, {N: 2, Phase: starting, Version: "v"}}}
	}
	for name, c := range map[string]struct {
		change func(*record)
		want   bool
	}{
		"the count":        {func(r *record) { r.Scaled = &two }, true},
		"a new task":       {func(r *record) { r.LastTask = 3; r.Tasks = append(r.Tasks, task{N: 3, Phase: starting}) }, true},
		"its port":         {func(r *record) { r.Tasks[1].Port = 6 }, true},
		"it is healthy":    {func(r *record) { r.Tasks[1].Phase, r.Tasks[1].Healthy, r.Boot = serving, true, time.Second }, true},
		"another port":     {func(r *record) { r.Tasks[0].Port = 6 }, false},
		"a task drains":    {func(r *record) { r.Tasks[0].Phase = draining }, false},
		"a task stops":     {func(r *record) { r.Tasks[1].Phase = stopping }, false},
		"a task ended":     {func(r *record) { r.Tasks[0].Down, r.Tasks[0].Restarts = true, 1 }, false},
		"a task is gone":   {func(r *record) { r.Tasks = r.Tasks[:1] }, false},
		"a goal":           {func(r *record) { r.Goal = &version{Version: "w"} }, false},
		"a deployment":     {func(r *record) { r.Deploy = &deployment{Number: 1} }, false},
		"a failure":        {func(r *record) { r.Failed = "x" }, false},
		"a task of before": {func(r *record) { r.Tasks = append(r.Tasks, task{N: 3, Phase: serving}) }, false},
	} {
		r := base()
		c.change(&r)
		if got := forgettable(base(), r); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// What a lost record does not know is learned from the units: numbers that were given, and ports.
func TestARecordThatIsBehind(t *testing.T) {
	now := time.Unix(1e9, 0)
	v := version{Version: "v", Spec: serviceSpec{Scale: tenfold.Bounds{Min: 2, Max: 2}, Routed: true}}
	r := record{ID: api, Goal: &v, Serving: &v, LastTask: 3, Tasks: []task{{N: 3, Version: "v", Phase: starting, Since: now}}}
	r, _ = next(r, seen{Units: map[int]unitSeen{3: {Phase: keeper.Running, Port: 4003, Started: now}, 7: {Phase: keeper.Running, Port: 4007, Started: now}}}, now)
	if len(r.Tasks) != 2 || r.Tasks[0].Port != 4003 || r.Tasks[1].N != 8 || r.LastTask != 8 {
		t.Errorf("%+v", r)
	}
	if n := portOf(keeper.Unit{Label: `{"version":"v","port":4003}`}); n != 4003 {
		t.Errorf("port %d", n)
	}
	for _, bad := range []string{"", "x", `{"port":-1}`, `{"port":70000}`} {
		if n := portOf(keeper.Unit{Label: bad}); n != 0 {
			t.Errorf("%q has port %d", bad, n)
		}
	}
}

// A first probe waits for its task to listen, and one that has no patience does not.
func TestAFirstProbeWaitsForItsTaskToListen(t *testing.T) {
	port, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	if ok, answer := probe(t.Context(), tenfold.Health{}, port, 0); ok || !strings.Contains(answer, "connection refused") {
		t.Fatalf("%t %s", ok, answer)
	}
	var l net.Listener
	late := time.AfterFunc(30*time.Millisecond, func() {
		if l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
		}
	})
	defer late.Stop()
	if ok, answer := probe(t.Context(), tenfold.Health{}, port, 20*time.Second); !ok {
		t.Errorf("%s", answer)
	}
	l.Close()
}

// Tasks that wait for something else than processors while they start may start together; those that do not slow each
// other down.
func TestHowManyStartAtOnce(t *testing.T) {
	now := time.Unix(1e9, 0)
	many := 60
	v := version{Version: "v", Spec: serviceSpec{Scale: tenfold.Bounds{Min: 1, Max: 100}, Routed: true}}
	for name, c := range map[string]struct {
		quickest, work time.Duration
		want           int
	}{
		"nothing is known":      {0, 0, maxScaling},
		"it sleeps":             {3 * time.Second, 30 * time.Millisecond, many},
		"it computes":           {10 * time.Second, 9 * time.Second, maxScaling},
		"it does half and half": {3 * time.Second, 300 * time.Millisecond, 20},
	} {
		r := record{ID: api, Goal: &v, Serving: &v, Scaled: &many, Quickest: c.quickest, Work: c.work}
		if r, _ = next(r, seen{Cores: 2}, now); len(r.Tasks) != c.want {
			t.Errorf("%s: %d start", name, len(r.Tasks))
		}
	}
	// Both are measured when a task becomes healthy, and forgotten when a deployment begins.
	r := record{ID: api, Goal: &v, Serving: &v, LastTask: 1, Tasks: []task{{N: 1, Version: "v", Phase: starting, Since: now}}}
	r, _ = next(r, seen{Units: map[int]unitSeen{1: {Phase: keeper.Running, Started: now}}, Healthy: map[int]bool{1: true}, Work: map[int]time.Duration{1: time.Second}}, now.Add(3*time.Second))
	if r.Quickest != 3*time.Second || r.Work != time.Second {
		t.Errorf("measured: %s, %s", r.Quickest, r.Work)
	}
	w := version{Version: "w", Fingerprint: "w", Spec: v.Spec}
	r.Goal = &w
	if r, _ = next(r, seen{}, now); r.Quickest != 0 || r.Work != 0 || r.Boot == 0 {
		t.Errorf("after a deployment began: %+v", r)
	}
}

// A service whose door says nothing of its load is not looked at again and again.
func TestALoadThatIsNotKnownIsNotPressed(t *testing.T) {
	s := &service{}
	if got := s.untilSample(calmPace); got != calmPace {
		t.Errorf("without a scaler %s", got)
	}
	s.scaled.scaler = autoscale.New(autoscale.Targets{}, 1, nil)
	if got := s.untilSample(calmPace); got != quietPace {
		t.Errorf("with an old sample %s", got)
	}
	s.scaled.at = time.Now().Add(-500 * time.Millisecond)
	if got := s.untilSample(calmPace); got > 500*time.Millisecond {
		t.Errorf("half a second after a sample %s", got)
	}
}
