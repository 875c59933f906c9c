package postgres

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/dbinfo"
)

// What active sessions wait for, looked at once a second.
//
// Over one connection of its own: the standing one of the supervisor is what a failover is seen by, and a
// server that is slow to answer this must not be what delays that. A database that sleeps is not asked, and
// what is asked does not keep it awake: whether it is idle is told by the pool, through which this does not go.
const (
	samplePace  = time.Second
	samplesKept = 600 // ten minutes of them
	waitsKept   = 16  // of one sample: the most frequent
	sampleAgain = 5 * time.Second
)

// sampler looks at one database.
type sampler struct {
	busy sync.Mutex // held while conn is in use
	conn *pgx.Conn
	port int
	// checked is when it was last looked for what calls for an alarm.
	checked time.Time

	mu sync.Mutex
	// Under mu: a ring; the next is written at at.
	ring [samplesKept]sample
	at   int
}

// sample is how many sessions were active at a moment, by what they waited for.
type sample struct {
	time   time.Time
	active map[string]int // nil: none was
}

// sampled are the databases that run.
func (p *Postgres) sampled() []string {
	var out []string
	for _, key := range p.records.Keys() {
		if r, _ := p.records.Get(key); r.Serving != "" && !r.Stopped && !r.Suspended {
			out = append(out, key)
		}
	}
	return out
}

func (p *Postgres) sampler(key string) *sampler {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.samplers[key] == nil {
		p.samplers[key] = &sampler{}
	}
	return p.samplers[key]
}

// sample takes one sample of a database, once a minute with a look for what calls for an alarm.
func (p *Postgres) sample(ctx context.Context, key string) time.Duration {
	r, ok := p.get(key)
	if !ok || !p.answers(key) {
		return samplePace
	}
	s := p.sampler(key)
	s.busy.Lock()
	defer s.busy.Unlock()
	limited, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	if err := s.take(limited, r); err != nil {
		s.drop()
		return sampleAgain
	}
	if time.Since(s.checked) < alarmPace {
		return samplePace
	}
	found, err := p.ailing(limited, s.conn, r, usualLimits)
	if err != nil {
		s.drop()
		return sampleAgain
	}
	s.checked = time.Now()
	p.ring(key, found)
	return samplePace
}

// take asks the primary. The caller holds s.busy.
func (s *sampler) take(ctx context.Context, r record) error {
	if s.conn == nil || s.conn.IsClosed() || s.port != r.port() {
		s.drop()
		c, err := dial(ctx, r.port(), r.Super, "postgres")
		if err != nil {
			return err
		}
		s.conn, s.port = c, r.port()
	}
	rows, err := s.conn.Query(ctx, `select coalesce(wait_event_type || ': ' || wait_event, 'CPU'), count(*)::int from pg_stat_activity
		where datname = $1 and state = 'active' and usename <> current_user and backend_type in ('client backend', 'parallel worker') group by 1 order by 2 desc limit $2`, role(r.ID), waitsKept)
	var active map[string]int
	var on string
	var n int
	if err := each(rows, err, []any{&on, &n}, func() error {
		if active == nil {
			active = map[string]int{}
		}
		active[on] = n
		return nil
	}); err != nil {
		return err
	}
	s.keep(sample{time.Now(), active})
	return nil
}

// keep puts a sample in the place of the oldest.
func (s *sampler) keep(x sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring[s.at] = x
	s.at = (s.at + 1) % len(s.ring)
}

// drop closes the connection. The caller holds s.busy.
func (s *sampler) drop() {
	if s.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		s.conn.Close(ctx)
		s.conn = nil
	}
}

// unsample closes the connection to a database that runs no more; what was seen stays.
func (p *Postgres) unsample(key string) {
	p.mu.Lock()
	s := p.samplers[key]
	p.mu.Unlock()
	if s != nil {
		s.busy.Lock()
		defer s.busy.Unlock()
		s.drop()
	}
}

// waits are the averages of the samples of the last minute and the last ten.
func (s *sampler) waits(now time.Time) dbinfo.Waits {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := dbinfo.Waits{Active: []dbinfo.Wait{}}
	by := map[string]*dbinfo.Wait{}
	var minute, all int
	for _, x := range s.ring {
		age := now.Sub(x.time)
		if x.time.IsZero() || age > samplesKept*samplePace {
			continue
		}
		if all++; out.Since.IsZero() || x.time.Before(out.Since) {
			out.Since = x.time
		}
		if age <= time.Minute {
			minute++
		}
		for on, n := range x.active {
			w := by[on]
			if w == nil {
				w = &dbinfo.Wait{On: on}
				by[on] = w
			}
			w.All += float64(n)
			if age <= time.Minute {
				w.Minute += float64(n)
			}
		}
	}
	out.Samples = all
	for _, on := range slices.Sorted(maps.Keys(by)) {
		w := *by[on]
		w.All /= float64(all)
		w.Minute /= float64(max(minute, 1))
		out.Active = append(out.Active, w)
	}
	slices.SortStableFunc(out.Active, func(a, b dbinfo.Wait) int {
		switch {
		case a.All > b.All:
			return -1
		case a.All < b.All:
			return 1
		}
		return 0
	})
	return out
}

// Waits says how many sessions were active in the last ten minutes, on average, and what they waited for.
// It asks nothing of the database.
func (p *Postgres) Waits(_ context.Context, id tenfold.ID) (dbinfo.Waits, error) {
	if _, err := p.served(id); err != nil {
		return dbinfo.Waits{}, err
	}
	return p.sampler(id.String()).waits(time.Now()), nil
}
