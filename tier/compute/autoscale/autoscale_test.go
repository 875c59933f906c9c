package autoscale

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"tenfold/internal/schedule"
)

var start = time.Date(2026, 3, 2, 7, 0, 0, 0, time.UTC) // a Monday

// drive feeds a scaler a load of so many requests a second, each of 50 ms, with tasks that are there at once.
type drive struct {
	*Scaler
	at    time.Time
	tasks int
	last  Decision
}

func newDrive(t Targets, tasks int) *drive {
	return &drive{Scaler: New(t, tasks, nil), at: start, tasks: tasks}
}

func (d *drive) run(seconds, rps int, change func(*Sample)) Decision {
	for range seconds {
		d.at = d.at.Add(time.Second)
		x := Sample{At: d.at, Arrived: rps, Finished: rps, Busy: time.Duration(rps) * 50 * time.Millisecond, InFlight: int(math.Ceil(float64(rps) * 0.05)), Ready: d.tasks, Boot: time.Second, CPU: -1}
		if change != nil {
			change(&x)
		}
		d.last = d.Step(x)
		d.tasks = d.last.Want
	}
	return d.last
}

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		name   string
		t      Targets
		change func(*Sample)
		want   [2]int // at least, at most, at 200 rps
		why    string
	}{
		{"concurrency", Targets{Min: 1, Max: 50, Concurrency: 2}, nil, [2]int{6, 8}, "2 per task"},
		{"rps", Targets{Min: 1, Max: 50, RPS: 20}, nil, [2]int{10, 10}, "20 per task"},
		{"the larger wins", Targets{Min: 1, Max: 50, Concurrency: 2, RPS: 100}, nil, [2]int{6, 8}, "2 per task"},
		{"bounds", Targets{Min: 1, Max: 4, Concurrency: 2}, nil, [2]int{4, 4}, "bounds 1-4"},
		{"measured", Targets{Min: 1, Max: 50}, nil, [2]int{1, 2}, "per task"},
		{"cpu", Targets{Min: 1, Max: 50, CPU: 0.7, RPS: 1000}, func(x *Sample) { x.CPU = min(1, 5/float64(x.Ready)) }, [2]int{7, 8}, "cpu"},
		{"latency", Targets{Min: 1, Max: 50, RPS: 1000, Latency: 250 * time.Millisecond, Quantile: 0.95}, func(x *Sample) { x.Late = 1 / float64(x.Ready) }, [2]int{4, 6}, "p95"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDrive(c.t, 1)
			var why []string
			for range 300 {
				if r := d.run(1, 200, c.change); r.Changed {
					why = append(why, r.Reason)
				}
			}
			if d.tasks < c.want[0] || d.tasks > c.want[1] {
				t.Errorf("%d tasks, want %d to %d: %q", d.tasks, c.want[0], c.want[1], why)
			}
			if c.name != "measured" && !strings.Contains(strings.Join(why, "\n"), c.why) {
				t.Errorf("no reason says %q: %q", c.why, why)
			}
		})
	}
}

// A task that can do less than it was taken for shows it by slowing down.
func TestMeasuresConcurrency(t *testing.T) {
	d := newDrive(Targets{Min: 1, Max: 50}, 1)
	d.run(60, 30, nil)
	d.run(240, 200, func(x *Sample) { // two at once, 50 ms each: 40 a second
		x.Finished = min(200, 40*x.Ready)
		if over := 200 - x.Finished; over > 0 {
			x.InFlight = 2*x.Ready + 100
			x.Busy = time.Duration(x.InFlight) * time.Second
		}
	})
	if d.tasks < 5 || d.tasks > 12 {
		t.Errorf("%d tasks of two slots for 10 erlangs", d.tasks)
	}
}

func TestSleepsAndWakes(t *testing.T) {
	d := newDrive(Targets{Min: 0, Max: 5, Concurrency: 2}, 1)
	d.run(30, 10, nil)
	for i := range 200 {
		d.run(1, 0, nil)
		if d.tasks == 0 {
			if i < 58 {
				t.Fatalf("asleep after %d s", i)
			}
			break
		}
	}
	if d.tasks != 0 || !strings.Contains(d.last.Reason, "nothing came") {
		t.Fatalf("does not sleep: %d, %q", d.tasks, d.last.Reason)
	}
	for range 200 {
		if d.run(1, 0, nil); d.tasks != 0 {
			break
		}
	}
	if d.tasks != 0 {
		t.Fatal("woke by itself")
	}
	if r := d.run(1, 0, func(x *Sample) { x.Waiting = 3 }); r.Want != 1 || !strings.Contains(r.Reason, "waiting") {
		t.Errorf("a request waits: %+v", r)
	}
}

func TestSlowBootSleepsLater(t *testing.T) {
	d := newDrive(Targets{Min: 0, Max: 5, Concurrency: 2}, 1)
	d.run(5, 10, nil)
	d.run(150, 0, func(x *Sample) { x.Boot = 10 * time.Second })
	if d.tasks != 1 {
		t.Error("a service that boots for 10 s sleeps after 150 s")
	}
}

func TestDownByHalfAfterAMinute(t *testing.T) {
	d := newDrive(Targets{Min: 1, Max: 50, Concurrency: 2}, 1)
	d.run(100, 400, nil)
	high := d.tasks
	if d.run(50, 10, nil); d.tasks != high {
		t.Errorf("from %d to %d within a minute", high, d.tasks)
	}
	last := d.tasks
	for range 60 {
		d.run(1, 10, nil)
		if d.tasks < last/2 {
			t.Errorf("from %d to %d at once", last, d.tasks)
		}
		last = d.tasks
	}
	if d.tasks > 2 {
		t.Errorf("%d tasks for 10 rps", d.tasks)
	}
}

func TestWindows(t *testing.T) {
	targets := Targets{Min: 1, Max: 20, Concurrency: 2, Windows: []Window{
		{schedule.Schedule{Cron: "0 8 * * 1-5"}, 4, 20},
		{schedule.Schedule{Cron: "0 20 * * *"}, 1, 20},
	}}
	d := newDrive(targets, 1)
	if d.run(10, 1, nil); d.tasks != 1 { // Monday 07:00: since Sunday 20:00
		t.Errorf("%d tasks at seven", d.tasks)
	}
	d.at = start.Add(59*time.Minute + 58*time.Second)
	if d.run(3, 1, nil); d.tasks != 4 || !strings.Contains(d.last.Reason, "since Mon 08:00 by schedule") {
		t.Errorf("%d tasks at eight: %s", d.tasks, d.last.Reason)
	}
	// A daemon that starts at noon knows too.
	d = newDrive(targets, 1)
	d.at = start.Add(5 * time.Hour)
	if d.run(1, 1, nil); d.tasks != 4 {
		t.Errorf("%d tasks at noon", d.tasks)
	}
	d.at = start.Add(13 * time.Hour)
	if d.run(200, 1, nil); d.tasks != 1 {
		t.Errorf("%d tasks in the evening", d.tasks)
	}
}

// A load that comes at the same time each day, which the law meets too late since tasks boot slowly: after
// a week in which the forecast would have been better it acts, not before.
func TestForecastProvesItself(t *testing.T) {
	s := &Season{}
	boot := 2 * time.Minute
	need := func(at time.Time) float64 {
		if m := at.Hour()*60 + at.Minute(); m >= 540 && m < 1020 {
			return 10
		}
		return 1
	}
	acted := -1
	for sec := 0; sec < 10*86400; sec += 5 {
		at := start.Add(time.Duration(sec) * time.Second)
		ready := int(need(at.Add(-boot))) // the law: a boot time late
		n := s.step(at, 5, need(at), ready, boot)
		if n > 0 && acted < 0 {
			acted = sec / 86400
		}
		if acted >= 0 && at.Hour() == 8 && at.Minute() == 59 && n < 10 {
			t.Fatalf("foreseen for nine o'clock: %d tasks", n)
		}
	}
	if acted != 7 && acted != 8 {
		t.Errorf("the forecast acted from day %d", acted)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var again Season
	if err := json.Unmarshal(b, &again); err != nil || !again.Proven || len(b) > 64<<10 {
		t.Errorf("kept in %d bytes: %v", len(b), err)
	}
}

// One that is no better than the law never acts.
func TestForecastStaysInShadow(t *testing.T) {
	s := &Season{}
	for sec := 0; sec < 15*86400; sec += 20 {
		if n := s.step(start.Add(time.Duration(sec)*time.Second), 20, 3, 4, time.Second); n != 0 {
			t.Fatalf("acts on day %d", sec/86400)
		}
	}
}

// Whatever comes, the count stays within bounds.
func FuzzStep(f *testing.F) {
	f.Add(int64(10), int64(50), int64(2), int64(1), -1.0, 0.3)
	f.Add(int64(0), int64(-5), int64(1<<40), int64(0), 5.0, math.Inf(1))
	f.Fuzz(func(t *testing.T, arrived, busy, ready, waiting int64, cpu, late float64) {
		s := New(Targets{Min: 1, Max: 9, Concurrency: 2, RPS: 3, CPU: 0.5, Latency: time.Second, Quantile: 0.9, Predict: true}, 1, nil)
		for i := range 40 {
			d := s.Step(Sample{At: start.Add(time.Duration(i) * time.Second), Arrived: int(arrived % 1e6), Finished: int(arrived % 1e6), Busy: time.Duration(busy),
				InFlight: int(waiting % 1e6), Waiting: int(waiting % 1e6), Ready: int(ready % 10), CPU: cpu, Late: late})
			if d.Want < 1 || d.Want > 9 {
				t.Fatalf("%d tasks: %s", d.Want, d.Reason)
			}
		}
	})
}
