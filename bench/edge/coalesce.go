package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"tenfold/internal/measure"
)

// crowd is how many ask at once in the coalescing drill.
const crowd = 200

// rush is a crowd whose connections are open: opening 200 at once is not what the drill is about.
type rush struct {
	*bench
	client *http.Client
}

// coalesce sends a crowd after what the store does not have, or has no longer fresh.
func (bench *bench) coalesce() error {
	b := rush{bench, drillClient()}
	defer b.client.CloseIdleConnections()
	answers, _ := together(b.ctx, b.client, crowd, func(i int) string { return b.house.base + "/count?of=" + strconv.Itoa(i) })
	if what, n := firstBad(answers); n > 0 {
		return fmt.Errorf("open %d connections: %s", crowd, what)
	}
	var wall, again, origins, swrOrigins, swrMax, cutBad, cutOrigins []float64
	origin := float64(originTime.Milliseconds())
	for round := range b.rounds {
		id := strconv.Itoa(round)
		took, n, err := b.send(func(int) string { return "/stored/" + id })
		if err != nil {
			return err
		}
		wall, origins = append(wall, took/origin), append(origins, float64(n))
		// The route's very first miss has to find out that nothing can be stored.
		if took, _, err = b.send(func(int) string { return "/never/" + id }); err != nil {
			return err
		}
		if round == 0 {
			b.report.Add(measure.Figure{Name: "200 misses, not to be stored, first of route", Unit: "× origin", Ours: []float64{took / origin}, Asked: measure.AtMost(2.2)})
		} else {
			again = append(again, took/origin)
		}
		if took, _, err = b.send(func(i int) string { return "/never/" + id + "/" + strconv.Itoa(i) }); err != nil {
			return err
		}
		again = append(again, took/origin)
		n, most, err := b.stale("/stale/" + id)
		if err != nil {
			return err
		}
		swrOrigins, swrMax = append(swrOrigins, float64(n)), append(swrMax, most)
		bad, n, err := b.abort("/cut/" + id)
		if err != nil {
			return err
		}
		cutBad, cutOrigins = append(cutBad, float64(bad)), append(cutOrigins, float64(n))
	}
	for _, f := range []measure.Figure{
		{Name: "200 misses, stored: origin requests", Ours: worst(origins), Asked: measure.AtMost(1)},
		{Name: "200 misses, stored: wall", Unit: "× origin", Ours: wall, Asked: measure.AtMost(1.1)},
		{Name: "200 misses, not to be stored, later", Unit: "× origin", Ours: again, Asked: measure.AtMost(1.1)},
		{Name: "200 on a stale one: origin requests", Ours: worst(swrOrigins), Asked: measure.AtMost(1)},
		{Name: "200 on a stale one: slowest", Unit: "ms", Ours: worst(swrMax), Asked: measure.AtMost(50)},
		{Name: "first client leaves: followers harmed", Ours: worst(cutBad), Asked: measure.AtMost(0)},
		{Name: "first client leaves: origin requests", Ours: worst(cutOrigins), Asked: measure.AtMost(1)},
	} {
		b.report.Add(f)
	}
	return nil
}

// send sends the crowd: milliseconds until the last answer, and the origin's requests for the first path.
func (b rush) send(path func(i int) string) (ms float64, origins int, err error) {
	answers, took := together(b.ctx, b.client, crowd, func(i int) string { return b.house.base + path(i) })
	if what, n := firstBad(answers); n > 0 {
		return 0, 0, fmt.Errorf("%s: %d of %d answers are bad: %s", path(0), n, crowd, what)
	}
	origins, err = b.origins(path(0))
	return float64(took.Microseconds()) / 1000, origins, err
}

// origins asks the task how often it was asked for a path.
func (b rush) origins(path string) (int, error) {
	a := get(b.ctx, b.client, b.house.base+"/count?of="+path)
	if what := a.bad(); what != "" {
		return 0, fmt.Errorf("count the origin's requests: %s", what)
	}
	return strconv.Atoi(string(a.body))
}

// stale has an answer stored, waits until it is stale and sends the crowd: the origin's requests for
// its revalidation, and the slowest answer in ms.
func (b rush) stale(path string) (origins int, slowest float64, err error) {
	if what := get(b.ctx, b.client, b.house.base+path).bad(); what != "" {
		return 0, 0, fmt.Errorf("store %s: %s", path, what)
	}
	select {
	case <-time.After(1500 * time.Millisecond): // it was fresh for 1 s
	case <-b.ctx.Done():
		return 0, 0, b.ctx.Err()
	}
	before, err := b.origins(path)
	if err != nil {
		return 0, 0, err
	}
	answers, _ := together(b.ctx, b.client, crowd, func(int) string { return b.house.base + path })
	if what, n := firstBad(answers); n > 0 {
		return 0, 0, fmt.Errorf("%s: %d answers are bad: %s", path, n, what)
	}
	for _, a := range answers {
		slowest = max(slowest, float64(a.took.Microseconds())/1000)
	}
	after, err := b.origins(path)
	return after - before, slowest, err
}

// abort has the first client leave in the middle of the body while followers read it: how many of them,
// and of those who ask later, did not get it whole, and the origin's requests.
func (b rush) abort(path string) (harmed, origins int, err error) {
	first, leave := context.WithTimeout(b.ctx, originTime/2)
	defer leave()
	var wg sync.WaitGroup
	wg.Go(func() { get(first, b.client, b.house.base+path) })
	select {
	case <-time.After(originTime / 10):
	case <-b.ctx.Done():
		return 0, 0, b.ctx.Err()
	}
	answers, _ := together(b.ctx, b.client, 20, func(int) string { return b.house.base + path })
	wg.Wait()
	answers = append(answers, get(b.ctx, b.client, b.house.base+path))
	whole := bytes.Repeat([]byte("y"), large)
	for _, a := range answers {
		if a.bad() != "" || !bytes.Equal(a.body, whole) {
			harmed++
		}
	}
	origins, err = b.origins(path)
	return harmed, origins, err
}
