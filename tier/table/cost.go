package table

import (
	"math"
	"time"
)

// List prices of us-east-1 in US dollars, standard table class, as AWS publishes them since November 2024.
const (
	priceWrites      = 0.625e-6 // a write request unit, on demand
	priceReads       = 0.125e-6
	priceWriteHour   = 0.00065 // a provisioned write unit, an hour
	priceReadHour    = 0.00013
	priceStored      = 0.25 // a GB and month, past the first 25 GB of an account
	priceRecovered   = 0.20 // a GB and month of point-in-time recovery
	hoursOfMonth     = 730
	targetOfCapacity = 0.7 // what auto scaling keeps consumption at
)

// binLength is how long consumption is summed up over for the history of a table; historyBins of them are kept.
const (
	binLength   = 5 * time.Minute
	historyBins = 24 * 12
)

// Bin is what a table and its indexes consumed in five minutes.
type Bin struct {
	At          int64 // Unix seconds of its begin
	Read, Write float64
}

// Bill is what a table would cost on DynamoDB a month, by what it consumed, in US dollars.
type Bill struct {
	Observed time.Duration
	// ReadRate and WriteRate are the means in units a second, PeakRead and PeakWrite the highest five minutes.
	ReadRate, WriteRate, PeakRead, PeakWrite float64
	// OnDemand is with capacity on demand, Scaled provisioned with auto scaling, Fixed provisioned for the peak.
	OnDemand, Scaled, Fixed float64
	Stored, Recovered       float64 // storage, and point-in-time recovery
}

// BillOf reckons from a table's history, which ends at now, and its size in bytes.
func BillOf(history []Bin, now time.Time, size int64, recovered bool) Bill {
	b := Bill{Stored: float64(size) / 1e9 * priceStored}
	if recovered {
		b.Recovered = float64(size) / 1e9 * priceRecovered
	}
	if len(history) == 0 {
		return b
	}
	b.Observed = max(now.Sub(time.Unix(history[0].At, 0)), time.Second)
	seconds := b.Observed.Seconds()
	var scaledRead, scaledWrite float64 // unit hours
	at := map[int64]Bin{}
	for _, x := range history {
		at[x.At] = x
	}
	length := int64(binLength / time.Second)
	bins := 0.0
	for t := history[0].At; t <= now.Unix(); t += length {
		x := at[t]
		over := math.Min(binLength.Seconds(), math.Max(1, float64(now.Unix()-t)))
		r, w := x.Read/over, x.Write/over
		b.ReadRate += x.Read / seconds
		b.WriteRate += x.Write / seconds
		b.PeakRead, b.PeakWrite = math.Max(b.PeakRead, r), math.Max(b.PeakWrite, w)
		scaledRead += math.Max(1, math.Ceil(r/targetOfCapacity))
		scaledWrite += math.Max(1, math.Ceil(w/targetOfCapacity))
		bins++
	}
	month := hoursOfMonth * time.Hour.Seconds()
	b.OnDemand = b.ReadRate*month*priceReads + b.WriteRate*month*priceWrites
	b.Scaled = scaledRead/bins*hoursOfMonth*priceReadHour + scaledWrite/bins*hoursOfMonth*priceWriteHour
	b.Fixed = math.Max(1, math.Ceil(b.PeakRead))*hoursOfMonth*priceReadHour + math.Max(1, math.Ceil(b.PeakWrite))*hoursOfMonth*priceWriteHour
	return b
}
