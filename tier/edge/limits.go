package edge

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"tenfold/internal/directory"
	"tenfold/tier/edge/limit"
)

// limiter is what a rule's limit has counted so far.
type limiter struct {
	rates     *limit.Rates       // nil: none
	under     *limit.Concurrency // nil: none
	everybody bool               // one rate for all clients
	body      int64              // bytes; 0: the door's own limit
	header    int64              // bytes; 0: the door's own limit
	per       string             // for the page
}

// limiters are kept across tables as long as their rule stays the same: a deploy forgives nobody.
type limiters map[string]*limiter

// of gives the limiter of a rule: that of the table before while the rule does not change.
func (m limiters) of(before limiters, route string, of *directory.Limiting) *limiter {
	spec, _ := json.Marshal(of)
	key := route + " " + string(spec)
	if l, ok := before[key]; ok {
		m[key] = l
		return l
	}
	l := &limiter{everybody: of.By == "route", body: of.Body, header: of.Header}
	if of.Rate > 0 {
		l.rates = limit.NewRates(limit.Rate{Requests: of.Rate, Per: of.Per, Burst: of.Burst})
		l.per = rateText(of) + " requests"
	}
	if of.Concurrency > 0 {
		l.under = limit.NewConcurrency(limit.Load{Most: of.Concurrency})
	}
	m[key] = l
	return l
}

// rateText is a rate as the manifest has it: 50/s.
func rateText(of *directory.Limiting) string {
	per := of.Per.String()
	switch of.Per {
	case time.Second:
		per = "s"
	case time.Minute:
		per = "m"
	case time.Hour:
		per = "h"
	}
	return strconv.Itoa(of.Rate) + "/" + per
}

// sizeText is a size as the manifest has it: 8kb.
func sizeText(n int64) string {
	units := []string{" bytes", "kb", "mb", "gb"}
	at := 0
	for ; n >= 1<<10 && n%(1<<10) == 0 && at < len(units)-1; at++ {
		n >>= 10
	}
	return strconv.FormatInt(n, 10) + units[at]
}

// tooLong says that a request's head is.
func (l *limiter) tooLong(r *http.Request) *denial {
	if l.header == 0 || int64(limit.HeaderSize(r)) <= l.header {
		return nil
	}
	return &denial{page: page{http.StatusRequestHeaderFieldsTooLarge, "the request's head is too large", "at most " + sizeText(l.header) + " are taken", "edge.routes.*.limit.header sets it"}}
}

// take counts a request of a client, or answers it: it is one too many. leave is to be called when it is over.
func (l *limiter) take(w http.ResponseWriter, r *http.Request, client string) (leave func(), pass bool) {
	if l.rates != nil {
		key := ""
		if !l.everybody {
			key = limit.ClientKey(client)
		}
		if a := l.rates.Take(key); !a.OK {
			retryAfter(w, a.Retry)
			page{http.StatusTooManyRequests, "too many requests", "at most " + l.per, "edge.routes.*.limit.rate sets it"}.show(w, r)
			return nil, false
		}
	}
	if l.under == nil {
		return func() {}, true
	}
	begun := time.Now()
	if err := l.under.Acquire(r.Context()); err != nil {
		var d *limit.Denied
		if errors.As(err, &d) {
			retryAfter(w, d.RetryAfter)
			page{d.Status, "too many requests at once", d.Reason, "edge.routes.*.limit.concurrency sets it"}.show(w, r)
		}
		return nil, false
	}
	return func() { l.under.Release(time.Since(begun), false) }, true
}

func retryAfter(w http.ResponseWriter, d time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int((d+time.Second-1)/time.Second))))
}
