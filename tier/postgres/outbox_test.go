package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/pgrepl"
)

// bus keeps what it is given, as the stores' process does: rows and state together.
type bus struct {
	mu    sync.Mutex
	rows  []OutboxRow
	state json.RawMessage
	fails error
}

func (b *bus) Taken(context.Context, tenfold.ID, tenfold.Name) (json.RawMessage, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state, b.fails
}

func (b *bus) Take(_ context.Context, _ tenfold.ID, _ tenfold.Name, rows []OutboxRow, state json.RawMessage) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fails != nil {
		return b.fails
	}
	b.rows, b.state = append(b.rows, rows...), state
	return nil
}

// details waits for n rows and returns what they say.
func (f *fixture) details(t *testing.T, n int) (out []string) {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < 60*time.Second; <-time.After(10 * time.Millisecond) {
		f.bus.mu.Lock()
		out = nil
		for _, r := range f.bus.rows {
			out = append(out, r.Type+" "+string(r.Detail))
		}
		f.bus.mu.Unlock()
		if len(out) >= n {
			return out
		}
	}
	t.Fatalf("%d rows, not %d: %v\n%s", len(out), n, out, strings.Join(f.texts, "\n"))
	return nil
}

func (f *fixture) refuse(err error) {
	f.bus.mu.Lock()
	defer f.bus.mu.Unlock()
	f.bus.fails = err
}

func run(t *testing.T, c *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := c.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// What commits is told once, in the order of the commits, whoever dies meanwhile; what does not commit is not.
func TestOutbox(t *testing.T) {
	f := begin(t)
	f.buses = map[tenfold.Name]tenfold.Bus{"shop-bus": {From: map[tenfold.Name]string{"main-db": "outbox"}}}
	f.start(t, tenfold.Database{})
	f.await(t, "waiting for its table", func(r tenfold.Resource) bool {
		return strings.Contains(r.Note, "the outbox of shop-bus waits for table outbox")
	})
	c := f.connect(t)
	defer c.Close(context.Background())
	run(t, c, "create table outbox (id bigint generated always as identity primary key, detail_type text, detail jsonb, created_at timestamptz default now())",
		"create table other (n int)", "insert into outbox (detail_type, detail) values ('before', '1')")
	want := []string{"before 1"}
	if got := f.details(t, 1); !slices.Equal(got, want) {
		t.Fatal(got)
	}
	d := f.connect(t)
	defer d.Close(context.Background())
	put := func(c *pgx.Conn, detail string) {
		t.Helper()
		run(t, c, "insert into outbox (detail_type, detail) values ('paid', '"+detail+"')", "insert into other values (1)")
	}
	run(t, c, "begin")
	put(c, `{"n": 1}`)
	run(t, d, "begin")
	put(d, `{"n": 2}`)
	run(t, d, "savepoint s")
	put(d, `{"n": 3}`)
	run(t, d, "commit", "begin")
	put(d, `{"n": 4}`)
	run(t, d, "rollback")
	put(c, `{"n": 5}`)
	run(t, c, "commit", "update outbox set detail_type = 'changed'", "delete from outbox")
	want = append(want, `paid {"n": 2}`, `paid {"n": 3}`, `paid {"n": 1}`, `paid {"n": 5}`)
	if got := f.details(t, 5); !slices.Equal(got, want) {
		t.Fatalf("%q, not %q", got, want)
	}
	f.bus.mu.Lock()
	if r := f.bus.rows[1]; r.Source != "shop.outbox" || r.ID == f.bus.rows[2].ID || time.Since(r.Time) > time.Minute {
		t.Errorf("%+v", r)
	}
	f.bus.mu.Unlock()

	// A bus that takes nothing for a while, a daemon that is another one, a server that is killed.
	more := func(from, to int) {
		t.Helper()
		for n := from; n < to; n++ {
			put(c, fmt.Sprintf(`{"n": %d}`, n))
			want = append(want, fmt.Sprintf(`paid {"n": %d}`, n))
		}
	}
	f.refuse(errors.New("the disk is full"))
	more(10, 15)
	f.await(t, "stopped", func(r tenfold.Resource) bool { return strings.Contains(r.Note, "the disk is full") })
	f.refuse(nil)
	f.details(t, 10)
	f.end()
	more(15, 20)
	f.open(t)
	more(20, 25)
	f.details(t, 20)
	more(25, 30)
	units, err := f.house.List(t.Context(), unitPrefix)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(units[0].PID, syscall.SIGKILL)
	for c.Ping(t.Context()) == nil {
	}
	f.await(t, "back", func(tenfold.Resource) bool {
		c, err = pgx.Connect(t.Context(), must(f.Field(t.Context(), id, tenfold.FieldURL)))
		return err == nil
	})
	defer c.Close(context.Background())
	more(30, 35)
	if got := f.details(t, len(want)); !slices.Equal(got, want) {
		t.Fatalf("%q, not %q", got, want)
	}

	// What it was is taken away, so that the server starts without.
	f.buses = nil
	f.start(t, tenfold.Database{})
	f.await(t, "free of slots", func(tenfold.Resource) bool {
		r, _ := f.get(id.String())
		return !r.Outboxed
	})
	n := -1
	if err := c.QueryRow(t.Context(), "select (select count(*) from pg_replication_slots) + (select count(*) from pg_publication)").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d slots and publications are left, %v", n, err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A table without the names that are known is told whole; of the others what they are for is known by name.
func TestRowsAsEvents(t *testing.T) {
	o := &outbox{db: id, table: "app.orders"}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	event := func(columns []pgrepl.Column, values ...string) OutboxRow {
		r := pgrepl.Row{Of: &pgrepl.Relation{Columns: columns}}
		for _, v := range values {
			b := []byte(v)
			if v == "NULL" {
				b = nil
			}
			r.Values = append(r.Values, b)
		}
		return o.event(r, at, "0/1 0")
	}
	plain := []pgrepl.Column{{Name: "id", Type: 20}, {Name: "paid", Type: 16}, {Name: "total", Type: 1700}, {Name: "note", Type: 25}, {Name: "more", Type: 3802}}
	got := event(plain, "7", "t", "NaN", "NULL", `{"a": [1]}`)
	if got.Type != "row.inserted" || got.Source != "shop.orders" || !got.Time.Equal(at) || string(got.Detail) != `{"id":7,"more":{"a":[1]},"note":null,"paid":true,"total":"NaN"}` {
		t.Errorf("%+v %s", got, got.Detail)
	}
	if again := event(plain, "7", "f", "1", "x", `{}`); again.ID != got.ID {
		t.Error("the same row has another id")
	}
	debezium := []pgrepl.Column{{Name: "id", Type: 2950}, {Name: "aggregatetype", Type: 25}, {Name: "aggregateid", Type: 25}, {Name: "type", Type: 25}, {Name: "payload", Type: 3802}, {Name: "created_at", Type: 1184}}
	got = event(debezium, "4f1b2c3d-0000-4000-8000-000000000001", "order", "7", "OrderPaid", `{"n": 1}`, "2026-11-27 09:30:00.5+01")
	if got.ID != "4f1b2c3d-0000-4000-8000-000000000001" || got.Source != "order" || got.Type != "OrderPaid" || string(got.Detail) != `{"n": 1}` || !got.Time.Equal(time.Date(2026, 11, 27, 8, 30, 0, 5e8, time.UTC)) {
		t.Errorf("%+v %s", got, got.Detail)
	}
}
