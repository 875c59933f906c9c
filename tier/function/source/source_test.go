package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// shelf is a queue that keeps the contract: visibility, groups, order.
type shelf struct {
	mu      sync.Mutex
	all     []*lot
	timeout time.Duration
	fifo    bool
	down    bool
	most    int // records that one question got
}

type lot struct {
	Record
	seen  time.Time // from when on it can be taken
	count int
	done  bool
}

func (s *shelf) put(keys ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		n := strconv.Itoa(len(s.all))
		s.all = append(s.all, &lot{Record: Record{ID: n, Key: k, Handle: n, Body: json.RawMessage(`{"messageId":"` + n + `"}`)}})
	}
}

func (s *shelf) Visible() time.Duration { return s.timeout }
func (s *shelf) Ordered() bool          { return s.fifo }

func (s *shelf) Take(_ context.Context, n int, wait, hold time.Duration) (out []Record, err error) {
	for until := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		if s.down {
			s.mu.Unlock()
			return nil, errors.New("nobody answers")
		}
		busy := map[string]bool{}
		for _, l := range s.all {
			if s.fifo && !l.done && l.seen.After(time.Now()) {
				busy[l.Key] = true
			}
		}
		for _, l := range s.all {
			if len(out) < n && !l.done && !l.seen.After(time.Now()) && !busy[l.Key] {
				l.seen = time.Now().Add(s.timeout + hold)
				l.count++
				out = append(out, l.Record)
			}
		}
		s.most = max(s.most, len(out))
		s.mu.Unlock()
		if len(out) > 0 || !time.Now().Before(until) {
			return out, nil
		}
	}
}

func (s *shelf) Done(_ context.Context, records []Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errors.New("nobody answers")
	}
	for _, r := range records {
		n, _ := strconv.Atoi(r.Handle)
		s.all[n].done = true
	}
	return nil
}

func (s *shelf) Hold(_ context.Context, records []Record, d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		n, _ := strconv.Atoi(r.Handle)
		s.all[n].seen = time.Now().Add(d)
	}
	return nil
}

func (s *shelf) left() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.all {
		if !l.done {
			out = append(out, l.ID)
		}
	}
	return out
}

// ids are the records of an event.
func ids(t *testing.T, event []byte) (out []string) {
	t.Helper()
	var e struct{ Records []struct{ MessageID string } }
	if err := json.Unmarshal(event, &e); err != nil || len(e.Records) == 0 {
		t.Errorf("%s: %v", event, err)
	}
	for _, r := range e.Records {
		out = append(out, r.MessageID)
	}
	return out
}

func report(ids ...string) []byte {
	var items []string
	for _, id := range ids {
		items = append(items, `{"itemIdentifier":"`+id+`"}`)
	}
	return []byte(`{"batchItemFailures":[` + strings.Join(items, ",") + `]}`)
}

func drain(q Queue, s Settings, call Call) (d *Drainer, end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	d = NewDrainer(q, s, call, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() { d.Run(ctx); close(done) }()
	return d, func() { cancel(); <-done }
}

func TestBatchesOfAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &shelf{timeout: 30 * time.Second}
		var mu sync.Mutex
		var sizes []int
		now, most := 0, 0
		d, end := drain(q, Settings{Batch: 25, Wait: 5 * time.Second, Parallel: 2}, func(_ context.Context, e []byte) ([]byte, error) {
			mu.Lock()
			sizes = append(sizes, len(ids(t, e)))
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(20 * time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return []byte("null"), nil
		})
		q.put(make([]string, 80)...)
		time.Sleep(100 * time.Second)
		end()
		if got := q.left(); len(got) > 0 || most != 2 || !slices.Equal(sizes, []int{25, 25, 25, 5}) {
			t.Errorf("left %v, %d at once, batches %v", got, most, sizes)
		}
		if u := d.Use(); u.Batches != 4 || u.Records != 80 || u.Working != 0 {
			t.Errorf("%+v", u)
		}
		for _, l := range q.all {
			if l.count != 1 {
				t.Errorf("%s was given out %d times", l.ID, l.count)
			}
		}
	})
}

// A record that is reported comes again alone; a batch that fails comes again whole, after the queue's time.
func TestFailuresOfAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &shelf{timeout: 30 * time.Second}
		var calls []string
		var times []time.Duration
		began := time.Now()
		answers := []func() ([]byte, error){
			func() ([]byte, error) { return report("1"), nil },
			func() ([]byte, error) { return nil, errors.New("out of stock") },
			func() ([]byte, error) { return report("nobody"), nil },
			func() ([]byte, error) { return []byte(`{"batchItemFailures": 3}`), nil },
			func() ([]byte, error) { return []byte(`{"batchItemFailures": [{}]}`), nil },
			func() ([]byte, error) { return []byte(`{"batchItemFailures": []}`), nil },
		}
		q.put("", "", "")
		d, end := drain(q, Settings{Batch: 10, Parallel: 5}, func(_ context.Context, e []byte) ([]byte, error) {
			calls, times = append(calls, strings.Join(ids(t, e), " ")), append(times, time.Since(began).Round(time.Second))
			return answers[len(calls)-1]()
		})
		time.Sleep(170 * time.Second)
		end()
		if want := []string{"0 1 2", "1", "1", "1", "1", "1"}; !slices.Equal(calls, want) || len(q.left()) > 0 {
			t.Errorf("%q, left %v", calls, q.left())
		}
		if times[1] != 30*time.Second || times[5] != 150*time.Second {
			t.Errorf("came again at %v", times)
		}
		if u := d.Use(); u.Failed != 5 || u.Records != 3 || u.Last == "" {
			t.Errorf("%+v", u)
		}
	})
}

// What comes after a failure in its group is not done, and comes again in order; other groups go on.
func TestAQueueInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &shelf{timeout: 30 * time.Second, fifo: true}
		q.put("a", "b", "a", "a", "b")
		var calls []string
		_, end := drain(q, Settings{Batch: 10, Parallel: 5}, func(_ context.Context, e []byte) ([]byte, error) {
			calls = append(calls, strings.Join(ids(t, e), " "))
			if len(calls) == 1 {
				return report("2"), nil
			}
			return nil, nil
		})
		time.Sleep(time.Minute)
		end()
		if want := []string{"0 1 2 3 4", "2 3"}; !slices.Equal(calls, want) || len(q.left()) > 0 {
			t.Errorf("%q, left %v", calls, q.left())
		}
	})
}

// A function without room keeps its records, for as long as it takes; at the end they are given back at once.
func TestNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &shelf{timeout: 30 * time.Second}
		q.put("", "")
		room := time.Now().Add(2 * time.Minute)
		d, end := drain(q, Settings{Batch: 1, Parallel: 1}, func(context.Context, []byte) ([]byte, error) {
			if time.Now().Before(room) {
				return nil, ErrBusy
			}
			room = time.Now().Add(time.Hour)
			return nil, nil
		})
		time.Sleep(3 * time.Minute)
		if u := d.Use(); u.Records != 1 || u.Throttle == 0 || q.all[0].count != 1 {
			t.Errorf("%+v, given out %d times", u, q.all[0].count)
		}
		end()
		if l := q.all[1]; l.done || l.count != 1 || l.seen.After(time.Now()) {
			t.Errorf("%+v", l)
		}
	})
}

// A stores' process that dies loses nothing: what was done is ended when it is back.
func TestAQueueThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &shelf{timeout: 30 * time.Second}
		q.put("", "", "")
		called := 0
		d, end := drain(q, Settings{Batch: 10, Parallel: 2}, func(context.Context, []byte) ([]byte, error) {
			called++
			q.mu.Lock()
			q.down = true
			q.mu.Unlock()
			return nil, nil
		})
		time.Sleep(8 * time.Second)
		if u := d.Use(); u.Trouble == "" {
			t.Errorf("%+v", u)
		}
		q.mu.Lock()
		q.down = false
		q.mu.Unlock()
		time.Sleep(10 * time.Second)
		if u := d.Use(); len(q.left()) > 0 || called != 1 || u.Trouble != "" {
			t.Errorf("left %v, called %d times, %+v", q.left(), called, u)
		}
		end()
	})
}

// log is a stream with the contract kept: shards in order, an end, a window of what is there.
type log struct {
	mu     sync.Mutex
	shards []Shard
	of     map[string][]Record
	closed map[string]bool
}

func (l *log) add(shard string, keys ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of, l.closed = map[string][]Record{}, map[string]bool{}
	}
	if !slices.ContainsFunc(l.shards, func(s Shard) bool { return s.ID == shard }) {
		l.shards = append(l.shards, Shard{ID: shard})
	}
	for _, k := range keys {
		n := len(l.of[shard])
		id := fmt.Sprintf("%s-%04d", shard, n)
		l.of[shard] = append(l.of[shard], Record{ID: id, Key: k, At: time.Now(), Handle: strconv.Itoa(n + 1), Body: json.RawMessage(`{"messageId":"` + id + `"}`)})
	}
}

func (l *log) Shards(context.Context) ([]Shard, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.shards), nil
}

func (l *log) Begin(_ context.Context, shard, start string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if start == Latest {
		return strconv.Itoa(len(l.of[shard])), nil
	}
	return "0", nil
}

func (l *log) Read(_ context.Context, shard, position string, n int) ([]Record, string, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from, _ := strconv.Atoi(position)
	all := l.of[shard]
	to := min(len(all), from+n)
	return slices.Clone(all[from:to]), strconv.Itoa(to), l.closed[shard] && to == len(all), nil
}

// notes are places in memory.
type notes struct {
	mu sync.Mutex
	m  map[string]Place
}

func (n *notes) Get(s string) (Place, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, ok := n.m[s]
	return p, ok
}

func (n *notes) Set(s string, p Place) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m == nil {
		n.m = map[string]Place{}
	}
	n.m[s] = p
	return nil
}

func (n *notes) Keep(shards map[string]bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.m {
		if !shards[s] {
			delete(n.m, s)
		}
	}
	return nil
}

type drops struct {
	mu  sync.Mutex
	all []Drop
}

func (d *drops) take(_ context.Context, x Drop) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, x)
	return nil
}

func (d *drops) n() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.all)
}

func follow(s Stream, set Settings, call Call, p Places, d *drops) (f *Follower, end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	f = NewFollower(s, set, call, p, d.take, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() { f.Run(ctx); close(done) }()
	return f, func() { cancel(); <-done }
}

// However it fails and whenever it is stopped: every record is done, those of one key in order and one after the
// other, and at most what was in hand comes twice.
func TestOrderOfKeys(t *testing.T) {
	for _, parallel := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, uint64(parallel)))
			l, places, given := &log{}, &notes{}, &drops{}
			key := map[string]string{}
			const n = 600
			var mu sync.Mutex
			done := map[string]int{}
			last := map[string]string{} // by key
			busy := map[string]bool{}
			now, most := 0, 0
			call := func(_ context.Context, e []byte) ([]byte, error) {
				all := ids(t, e)
				mu.Lock()
				now++
				most = max(most, now)
				for _, id := range all {
					if k := key[id]; busy[k] {
						t.Errorf("%s is worked at beside another of %s", id, k)
					}
				}
				for _, id := range all {
					busy[key[id]] = true
				}
				fate, at, took := rng.IntN(4), rng.IntN(len(all)), time.Duration(1+rng.IntN(50))*time.Millisecond
				mu.Unlock()
				time.Sleep(took)
				mu.Lock()
				defer mu.Unlock()
				now--
				for _, id := range all {
					busy[key[id]] = false
				}
				switch fate {
				case 0:
					return nil, errors.New("it rains")
				case 1:
					all = all[:at]
				}
				for _, id := range all {
					if k := key[id]; id < last[k] && done[id] == 0 {
						t.Errorf("%s after %s", id, last[k])
					}
					last[key[id]] = id
					done[id]++
				}
				if fate == 1 {
					return report(ids(t, e)[at]), nil
				}
				return nil, nil
			}
			mu.Lock()
			for _, shard := range []string{"x", "y"} {
				for i := range n {
					k := shard + strconv.Itoa(rng.IntN(9))
					l.add(shard, k)
					key[fmt.Sprintf("%s-%04d", shard, i)] = k
				}
			}
			mu.Unlock()
			set := Settings{Batch: 10, Parallel: parallel, Start: Oldest, Bisect: true, Retries: -1}
			for range 5 {
				_, end := follow(l, set, call, places, given)
				time.Sleep(3 * time.Second)
				end()
			}
			f, end := follow(l, set, call, places, given)
			time.Sleep(time.Hour)
			if u := f.Use(); u.Behind != 0 {
				t.Errorf("%+v", u)
			}
			end()
			twice := 0
			for id := range key {
				if done[id] == 0 {
					t.Errorf("%s was never done", id)
				}
				twice += max(0, done[id]-1)
			}
			if most > 2*parallel || parallel > 1 && most < 4 || len(given.all) > 0 || twice > 5*2*(n/4) {
				t.Errorf("%d at once, %d given up on, %d twice", most, len(given.all), twice)
			}
		})
	}
}

// One record that cannot be done: halving finds it, and it alone is given up on. Without halving its batch is.
func TestAPoisonedRecord(t *testing.T) {
	for _, bisect := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			l, given := &log{}, &drops{}
			l.add("s", make([]string, 16)...)
			calls := 0
			var good []string
			f, end := follow(l, Settings{Batch: 16, Parallel: 1, Start: Oldest, Bisect: bisect, Retries: 2}, func(_ context.Context, e []byte) ([]byte, error) {
				calls++
				all := ids(t, e)
				if slices.Contains(all, "s-0005") {
					return nil, errors.New("poison")
				}
				good = append(good, all...)
				return nil, nil
			}, &notes{}, given)
			time.Sleep(time.Hour)
			end()
			want, asked := 1, 4+3+4 // 16, 8, 4, 2 fail; the record itself three times; the other halves
			if !bisect {
				want, asked = 16, 3
			}
			if len(given.all) != 1 || len(given.all[0].Records) != want || given.all[0].Why != "RetryAttemptsExhausted" || given.all[0].Tries != 3 || calls != asked || len(good) != 16-want || !slices.IsSorted(good) {
				t.Errorf("given up on %+v after %d calls, done %v", given.all, calls, good)
			}
			if u := f.Use(); u.Dropped != uint64(want) || u.Records != uint64(16-want) {
				t.Errorf("%+v", u)
			}
		})
	}
}

func TestRecordsThatAreTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, given := &log{}, &drops{}
		l.add("s", "a", "b")
		f, end := follow(l, Settings{Batch: 10, Parallel: 1, Start: Oldest, Retries: -1, Age: 10 * time.Minute}, func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no") }, &notes{}, given)
		time.Sleep(5 * time.Minute)
		if u := f.Use(); u.Behind < 5*time.Minute-time.Second || given.n() > 0 {
			t.Errorf("%+v", u)
		}
		time.Sleep(10 * time.Minute)
		end()
		if len(given.all) != 1 || given.all[0].Why != "MaximumRecordAgeExceeded" || len(given.all[0].Records) != 2 {
			t.Errorf("%+v", given.all)
		}
	})
}

// A shard's child comes after it; latest begins at what is there now, and the children of that at their first.
func TestShardsOfAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, places := &log{}, &notes{}
		l.add("p", "a", "a")
		l.add("c", "a")
		l.shards[1].Parent = "p"
		l.closed["p"] = true
		var mu sync.Mutex // two calls may be under way
		var got []string
		_, end := follow(l, Settings{Batch: 10, Wait: time.Second, Parallel: 2, Start: Latest, Retries: -1}, func(_ context.Context, e []byte) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, ids(t, e)...)
			return nil, nil
		}, places, &drops{})
		time.Sleep(time.Minute)
		l.add("c", "a", "b")
		l.mu.Lock()
		l.closed["c"] = true
		l.mu.Unlock()
		time.Sleep(time.Second)
		l.add("d", "a")
		l.mu.Lock()
		l.shards[2].Parent = "c"
		l.mu.Unlock()
		time.Sleep(time.Minute)
		end()
		if slices.Sort(got); !slices.Equal(got, []string{"c-0001", "c-0002", "d-0000"}) {
			t.Errorf("%v", got)
		}
		if p, _ := places.Get("c"); !p.Ended {
			t.Errorf("%+v", places.m)
		}
	})
}

// An event is cut where it would be too large.
func TestParts(t *testing.T) {
	big := json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)
	var all []Record
	for range 13 {
		all = append(all, Record{Body: big})
	}
	got := parts(all)
	if n := len(slices.Concat(got...)); n != 13 || len(got) != 3 {
		t.Errorf("%d records in %d events", n, len(got))
	}
	for _, p := range got {
		if n := len(event(p)); n > 6<<20 || !json.Valid(event(p)) {
			t.Errorf("an event of %d bytes", n)
		}
	}
}

func FuzzFailures(f *testing.F) {
	for _, s := range []string{"", "null", "{}", `{"batchItemFailures":null}`, `{"batchItemFailures":[{"itemIdentifier":"a"}]}`, `{"batchItemFailures":[{"itemIdentifier":null}]}`, `[1]`, `{"batchItemFailures":"a"}`, `{"BatchItemFailures":[{"ItemIdentifier":"b"}]}`} {
		f.Add([]byte(s))
	}
	records := []Record{{ID: "a"}, {ID: "b"}}
	f.Fuzz(func(t *testing.T, answer []byte) {
		failed, all := failures(answer, records)
		for id := range failed {
			if id != "a" && id != "b" || all != nil {
				t.Errorf("%q, %v", id, all)
			}
		}
	})
}
