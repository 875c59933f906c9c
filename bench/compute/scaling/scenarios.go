package scaling

import (
	"math"
	"time"

	"tenfold/tier/compute/autoscale"
)

// Scenario is a load. Recovery is measured from From to Until.
type Scenario struct {
	Name        string
	Boot        float64
	Seconds     int
	From, Until float64
	First       int // tasks at the beginning
	Load        func(t float64) float64
}

func step(t float64) float64 {
	if t >= 300 && t < 900 {
		return 500
	}
	return 10
}

var rampFor = 300.0 // seconds

func ramp(t float64) float64 {
	switch {
	case t < 300:
		return 10
	case t < 300+rampFor:
		return 10 + 490*(t-300)/rampFor
	case t < 900:
		return 500
	}
	return 10
}

func spikes(base, peak, period float64) func(float64) float64 {
	return func(t float64) float64 {
		if t >= 60 && math.Mod(t, period) < 10 {
			return peak
		}
		return base
	}
}

// diurnal is a day: quiet at four in the morning, full at four in the afternoon, and uneven by minutes.
func diurnal(t float64) float64 {
	day := 0.5 - 0.5*math.Cos(2*math.Pi*(t/86400-4.0/24))
	return 4 + 76*day*(1+0.1*math.Sin(t/170))
}

func flat(v float64) func(float64) float64 { return func(float64) float64 { return v } }

// Scenarios are what controllers are compared in.
func Scenarios() []Scenario {
	var out []Scenario
	for _, boot := range []float64{0.3, 3, 23} {
		out = append(out,
			Scenario{"step", boot, 3600, 300, 900, 1, step},
			Scenario{"ramp", boot, 3600, 300, 1200, 1, ramp},
			Scenario{"steady", boot, 3600, 0, 3600, 7, flat(200)},
			Scenario{"spikes", boot, 3600, 60, 3600, 1, spikes(20, 100, 30)},
			Scenario{"spikes 1 min", boot, 7200, 60, 7200, 1, spikes(20, 150, 60)},
			Scenario{"spikes 4 min", boot, 7200, 60, 7200, 1, spikes(20, 200, 240)},
		)
	}
	return append(out, Scenario{"day", 3, 86400, 0, 86400, 1, diurnal})
}

// Law is our own scaler as a Controller.
type Law struct {
	Boot   float64
	Want   int
	scaler *autoscale.Scaler
	Trace  func(x Second, d autoscale.Decision)
}

// Decide implements Controller.
func (l *Law) Decide(x Second) int {
	if l.scaler == nil {
		l.scaler = autoscale.New(autoscale.Targets{Min: 1, Max: 200, Concurrency: 2}, x.Ready+x.Starting, nil)
	}
	d := l.scaler.Step(autoscale.Sample{
		At: time.Unix(1_780_000_000, 0).Add(time.Duration(x.At * float64(time.Second))), Arrived: x.Arrived, Finished: x.Finished,
		Busy: time.Duration(x.Busy * float64(time.Second)), InFlight: x.InWork, Waiting: x.Waiting, Ready: x.Ready, Starting: x.Starting,
		Boot: time.Duration(l.Boot * float64(time.Second)), CPU: -1,
	})
	if l.Trace != nil {
		l.Trace(x, d)
	}
	return d.Want
}
