package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"tenfold"
	"tenfold/internal/ledger"
	"tenfold/tier/function/runtimeapi"
	"tenfold/tier/function/source"
)

// Source is a queue or a table's stream that a function is called with.
type Source struct {
	From tenfold.ID `json:"from"`
	// Name is as SDKs call it; Visible for how long a queue gives a message to nobody else.
	Name    string        `json:"name"`
	Visible time.Duration `json:"visible,omitempty"`
	source.Settings
}

// feed is a source that works for a function.
type feed struct {
	s    Source
	end  context.CancelFunc
	done chan struct{} // closed when nothing of it is under way
	use  func() source.Use
}

// worker is a Drainer or a Follower.
type worker interface {
	Run(context.Context)
	Use() source.Use
}

// Leave has event sources be read no more: what was read is worked at yet. Another process is to go on.
func (v *Invoker) Leave() { v.leave() }

// feed has the sources of the goal work, and those end that are not in it. Under f.mu.
func (f *function) feed() {
	if !f.v.runs.Load() || f.v.cfg.Ask == nil || f.v.reading.Err() != nil || f.gone {
		return
	}
	now := map[string]Source{}
	for _, s := range f.goal.Sources {
		now[s.From.String()] = s
	}
	for key, x := range f.feeds {
		if s, ok := now[key]; ok && reflect.DeepEqual(s, x.s) {
			delete(now, key)
		} else {
			x.end()
			if !ok {
				delete(f.feeds, key)
			}
		}
	}
	for key, s := range now {
		var before <-chan struct{}
		if x := f.feeds[key]; x != nil { // as it was: the order of a key holds across a change
			before = x.done
		}
		ctx, end := context.WithCancel(f.v.reading)
		w := f.worker(s)
		x := &feed{s: s, end: end, done: make(chan struct{}), use: w.Use}
		f.feeds[key] = x
		f.v.feeding.Go(func() {
			defer close(x.done)
			if before != nil {
				<-before
			}
			w.Run(ctx)
		})
	}
}

// worker makes what reads a source.
func (f *function) worker(s Source) worker {
	account, log := f.goal.Account, f.v.cfg.Log.With("function", f.goal.ID.String(), "from", s.From.Short())
	if s.From.Kind == tenfold.KindQueue {
		q := &source.SQS{Ask: f.v.cfg.Ask, Account: account, Name: s.Name, ARN: "arn:aws:sqs:" + region + ":" + account + ":" + s.Name, Region: region, Timeout: s.Visible}
		return source.NewDrainer(q, s.Settings, f.batch, log)
	}
	stream := &source.Dynamo{Ask: f.v.cfg.Ask, Account: account, Region: region, Table: s.Name}
	return source.NewFollower(stream, s.Settings, f.batch, places{f.v.places, f.goal.ID.String() + "/" + string(s.From.Name) + "/"}, func(_ context.Context, d source.Drop) error { return f.dropped(s, d) }, log)
}

// batch implements source.Call.
func (f *function) batch(ctx context.Context, event []byte) ([]byte, error) {
	var out collect
	_, err := f.invoke(ctx, runtimeapi.Invocation{ID: uuid.NewString(), Payload: event}, false, &out)
	var busy *Throttled
	if errors.As(err, &busy) || errors.Is(err, errRemoved) {
		return nil, source.ErrBusy
	}
	return out.Bytes(), err
}

// dropped hands on what of a stream was given up on, as Lambda tells a destination of it: where the records lie,
// not what is in them.
func (f *function) dropped(s Source, d source.Drop) error {
	f.mu.Lock()
	g := f.goal
	f.mu.Unlock()
	request := uuid.NewString()
	first, last := d.Records[0], d.Records[len(d.Records)-1]
	if g.Dead != nil {
		type object = map[string]any
		res := object{"statusCode": 200, "executedVersion": "$LATEST"}
		if d.Err != nil {
			res["functionError"] = "Unhandled"
		}
		const stamp = "2006-01-02T15:04:05.000Z"
		if err := f.v.tell(g.Dead, g, d.Why, object{
			"version": "1.0", "timestamp": time.Now().UTC().Format(stamp),
			"requestContext":  object{"requestId": request, "functionArn": g.ARN(), "condition": d.Why, "approximateInvokeCount": max(1, d.Tries)},
			"responseContext": res,
			"DDBStreamBatchInfo": object{
				"shardId": d.Shard, "startSequenceNumber": first.ID, "endSequenceNumber": last.ID, "batchSize": len(d.Records), "streamArn": streamOf(first),
				"approximateArrivalOfFirstRecord": first.At.UTC().Format(stamp), "approximateArrivalOfLastRecord": last.At.UTC().Format(stamp),
			},
		}, ""); err != nil {
			return err
		}
	}
	f.mu.Lock()
	f.tally.Dropped++
	f.mu.Unlock()
	text := fmt.Sprintf("GAVE UP RequestId: %s on %d records of %s, %s to %s, after %d tries: %s", request, len(d.Records), s.From.Name, first.ID, last.ID, d.Tries, d.Why)
	if d.Err != nil {
		text += ": " + d.Err.Error()
	}
	f.logs.add(true, text)
	return nil
}

// streamOf is the stream that a record says it is of.
func streamOf(r source.Record) string {
	var x struct {
		ARN string `json:"eventSourceARN"`
	}
	_ = json.Unmarshal(r.Body, &x)
	return x.ARN
}

// used says what the sources gave. Under f.mu.
func (f *function) used() map[string]source.Use {
	if len(f.feeds) == 0 {
		return nil
	}
	out := map[string]source.Use{}
	for _, x := range f.feeds {
		out[string(x.s.From.Name)] = x.use()
	}
	return out
}

// places remembers how far the shards of a function's source were worked at.
type places struct {
	all    *ledger.Ledger[source.Place]
	prefix string
}

// Get implements source.Places.
func (p places) Get(shard string) (source.Place, bool) { return p.all.Get(p.prefix + shard) }

// Set implements source.Places.
func (p places) Set(shard string, x source.Place) error {
	return p.all.Update(p.prefix+shard, func(r *source.Place) { *r = x })
}

// Keep implements source.Places.
func (p places) Keep(shards map[string]bool) error {
	for _, key := range p.all.Keys() {
		if shard, ok := strings.CutPrefix(key, p.prefix); ok && !shards[shard] {
			if err := p.all.Delete(key); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetPlaces forgets how far functions read that have not been there for long.
func (v *Invoker) forgetPlaces(now time.Time) {
	if v.places == nil {
		return
	}
	v.mu.Lock()
	there := slices.Collect(maps.Keys(v.functions))
	v.mu.Unlock()
	for key, p := range v.places.All() {
		if now.Sub(p.At) > orphaned && !slices.ContainsFunc(there, func(id string) bool { return strings.HasPrefix(key, id+"/") }) {
			_ = v.places.Delete(key) // or the next time
		}
	}
}
