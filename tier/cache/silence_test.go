package cache

import (
	"testing"
	"time"
)

// A silence is judged by what the server's main thread does. Each case is a machine: what the thread does at a
// time since the last answer, what share of a processor it has had until then, and how late we are.
func TestWhichSilenceIsADeath(t *testing.T) {
	const never = time.Duration(-1)
	at := func(state byte) func(time.Duration) byte { return func(time.Duration) byte { return state } }
	for name, x := range map[string]struct {
		state func(time.Duration) byte
		share float64
		late  time.Duration
		age   time.Duration
		want  time.Duration // at most half a second later
	}{
		"it is stopped":                             {state: at('T'), want: 200 * time.Millisecond},
		"a debugger stopped it":                     {state: at('t'), want: 200 * time.Millisecond},
		"it waits for what never comes":             {state: at('S'), want: sleepLimit},
		"it computes":                               {state: at('R'), share: 1, want: busyLimit},
		"it waits for a disk":                       {state: at('D'), want: busyLimit},
		"it works and sleeps in turn":               {state: at('S'), share: 0.01, want: busyLimit},
		"it waits for a processor":                  {state: at('R'), want: never},
		"it computes with a tenth of a processor":   {state: at('R'), share: 0.1, want: 100 * time.Second},
		"it sleeps, and we are late":                {state: at('S'), late: time.Second, want: never},
		"it computes, and we are late":              {state: at('R'), share: 1, late: time.Second, want: never},
		"it has just been started, and sleeps":      {state: at('S'), age: time.Second, want: young - time.Second},
		"it has just been started, and was stopped": {state: at('T'), age: 300 * time.Millisecond, want: 700 * time.Millisecond},
		"nothing is known of it":                    {state: at(0), want: never},
		"it is starved, and sleeps a moment each second": {share: 0.001, want: never, state: func(d time.Duration) byte {
			if d%time.Second < 150*time.Millisecond {
				return 'S'
			}
			return 'R'
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if x.age == 0 {
				x.age = time.Hour
			}
			begun := time.Now() // nothing below goes by the clock
			var s silence
			got := never
			for d := time.Duration(0); d < 110*time.Second && got == never; {
				asked := begun.Add(d)
				d += pingLimit + x.late
				p := pulse{state: x.state(d), ran: time.Duration(x.share * float64(d))}
				if s.heard(asked, begun.Add(d), pingLimit, p) && s.hung(x.age+d) {
					got = d
				}
				d += guardPace
			}
			if x.want == never && got != never || x.want != never && (got < x.want || got > x.want+500*time.Millisecond) {
				t.Errorf("taken for hung after %s, want %s", got, x.want)
			}
		})
	}
}

func TestAPulseIsFelt(t *testing.T) {
	p, ok := parseStat([]byte("71 (a (b) c) S 1 71 71 0 -1 4194560 1 0 0 0 12 30 0 0 20 0 1"))
	if !ok || p != (pulse{'S', 420 * time.Millisecond}) {
		t.Errorf("%+v %t", p, ok)
	}
	if ran, ok := parseSchedstat([]byte("760174 1935807 2\n")); !ok || ran != 760174 {
		t.Error(ran, ok)
	}
}

func FuzzPulse(f *testing.F) {
	f.Add([]byte("71 (redis-server) S 1 71 71 0 -1 4194560 1 0 0 0 12 30 0 0 20 0 1"))
	f.Add([]byte("760174 1935807 2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parseStat(b); ok && (p.state == 0 || p.ran < 0) {
			t.Errorf("%+v", p)
		}
		if ran, ok := parseSchedstat(b); ok && ran < 0 {
			t.Error(ran)
		}
	})
}
