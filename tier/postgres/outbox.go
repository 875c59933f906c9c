package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold"
	"tenfold/internal/pgrepl"
)

// Outboxes: rows that are inserted into a table become events of a bus, in the order of their commits.
//
// The server decodes that table's inserts from its WAL (a publication of the one table, a slot of pgoutput), so
// nothing is polled and no row is missed that committed; the app only inserts. What the bus has taken is written
// with the events, in the bus' own log: a stream that begins again leaves out what it had. A slot is its server's
// own. Another server (a failover, a new major) has none: one is made, and of the rows that its snapshot shows
// those are taken that the old one may not have sent: they are known by the transaction that wrote them.

// Outbox takes rows for a bus.
type Outbox interface {
	// Taken is the state that went with the last rows that a bus took from a database; nil: it took none.
	Taken(ctx context.Context, db tenfold.ID, bus tenfold.Name) (json.RawMessage, error)
	// Take puts rows on a bus, in their order, and keeps the state. When it returns nil both are on disk.
	Take(ctx context.Context, db tenfold.ID, bus tenfold.Name, rows []OutboxRow, state json.RawMessage) error
}

// OutboxRow is a row as an event.
type OutboxRow struct {
	ID, Source, Type string
	Time             time.Time
	Detail           json.RawMessage
}

// outboxState is how far an outbox has come.
type outboxState struct {
	System string `json:"system"` // the server's identifier
	Table  string `json:"table"`
	// Made says that the slot's beginning was taken whole, Epoch on which primary: a former one may have a slot of
	// long ago.
	Made  bool       `json:"made"`
	Epoch uint64     `json:"epoch"`
	At    pgrepl.LSN `json:"at"` // commits that end there or before it were taken
	// Before is a number of transactions, with its epoch: rows of those below it were taken.
	Before uint64 `json:"before"`
}

const (
	outboxMark   = "#outbox#"
	outboxPrefix = "tenfold_outbox_"
	outboxBatch  = 100
	// outboxLimit is how long a bus may take for a batch: past it the stream ends, since a server that is told to
	// stop waits for those who read from it.
	outboxLimit = 5 * time.Second
)

// slotOf is the name of an outbox' slot and publication.
func slotOf(bus tenfold.Name) string {
	return outboxPrefix + strings.ReplaceAll(string(bus), "-", "_")
}

// outboxKeys are the outboxes of databases that run.
func (p *Postgres) outboxKeys() []string {
	var out []string
	for key, r := range p.records.All() {
		if r.Stopped || r.Suspended || r.Serving == "" || r.Of != "" || p.cfg.Outbox == nil {
			continue
		}
		for bus := range r.Spec.Outboxes {
			out = append(out, key+outboxMark+string(bus))
		}
		if len(r.Spec.Outboxes) == 0 && r.Outboxed {
			out = append(out, key+outboxMark)
		}
	}
	return out
}

// keepOutbox streams an outbox until something ends it, and says when to try again.
func (p *Postgres) keepOutbox(ctx context.Context, at string) time.Duration {
	key, bus, _ := strings.Cut(at, outboxMark)
	r, ok := p.get(key)
	if ok && bus == "" && p.answers(key) {
		return p.endOutboxes(ctx, at, r)
	}
	if !ok || r.Spec.Outboxes[tenfold.Name(bus)] == "" || !p.answers(key) {
		return watchPace
	}
	o := &outbox{p: p, key: key, db: r.ID, bus: tenfold.Name(bus), table: r.Spec.Outboxes[tenfold.Name(bus)], r: r}
	err := o.follow(ctx)
	var pe *pgconn.PgError
	switch now, _ := p.get(key); {
	case ctx.Err() != nil || errors.Is(err, errOutboxChanged) || now.Epoch != r.Epoch:
		return answerPace
	case errors.Is(err, errNoOutboxTable):
		p.tell(at, "waits for table "+o.table)
		return watchPace
	case err == nil, errors.As(err, &pe) && pe.Code[:2] == "57", pgconn.Timeout(err): // it is being stopped
		return watchPace
	}
	p.tell(at, "has stopped: "+err.Error())
	p.alarm(at, r.ID, fmt.Sprintf("the outbox of %s has stopped: %v", bus, err), "the database serves on; up to "+walBound+" of WAL waits for it")
	return p.tries.Pause(at)
}

// endOutboxes removes what a database's outboxes left in it.
func (p *Postgres) endOutboxes(ctx context.Context, at string, r record) time.Duration {
	c, err := connect(ctx, r, role(r.ID))
	if err != nil {
		return watchPace
	}
	defer c.Close(context.WithoutCancel(ctx))
	left := 0
	if err = dropOutboxes(ctx, c, []string{}); err == nil {
		err = c.QueryRow(ctx, `select count(*) from pg_replication_slots where slot_name like 'tenfold\_outbox\_%'`).Scan(&left)
	}
	if err == nil && left == 0 {
		err = p.records.Change(r.ID.String(), func(x *record) { x.Outboxed = len(x.Spec.Outboxes) > 0 })
	}
	if err != nil {
		p.alarm(at, r.ID, fmt.Sprintf("what an outbox left is still there: %v", err), "it holds up to "+walBound+" of WAL; it is tried again")
	}
	return watchPace
}

// tell keeps what people are shown of an outbox; "": it follows.
func (p *Postgres) tell(at, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outboxNotes[at] = text
}

// outboxNote is what there is to say of a database's outboxes.
func (p *Postgres) outboxNote(key string, r record) (out string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, bus := range slices.Sorted(maps.Keys(r.Spec.Outboxes)) {
		if text := p.outboxNotes[key+outboxMark+string(bus)]; text != "" {
			out += fmt.Sprintf(", the outbox of %s %s", bus, text)
		}
	}
	return out
}

var (
	errOutboxChanged = errors.New("the outbox is another one now")
	errNoOutboxTable = errors.New("the outbox' table is not there")
)

// outbox is one that is being followed.
type outbox struct {
	p     *Postgres
	key   string
	db    tenfold.ID
	bus   tenfold.Name
	table string
	r     record

	from  pgrepl.LSN  // where it stood when the stream began
	state outboxState // of take, once there is a stream
	sql   *pgx.Conn
	stop  context.CancelCauseFunc
	ended <-chan struct{}
	full  chan pgrepl.Commit // between the stream and take

	mu sync.Mutex
	// Under mu:
	waiting int        // commits that the stream gave and the bus has not taken
	taken   pgrepl.LSN // where the last one that it took ends
	// A horizon holds once everything before its position was taken.
	horizon struct {
		at     pgrepl.LSN
		before uint64
	}
}

func (o *outbox) follow(ctx context.Context) error {
	ctx, o.stop = context.WithCancelCause(ctx)
	defer o.stop(nil)
	o.ended = ctx.Done()
	var err error
	if o.sql, err = connect(ctx, o.r, role(o.db)); err != nil {
		return err
	}
	defer o.sql.Close(context.WithoutCancel(ctx))
	if err := o.publish(ctx); err != nil {
		return err
	}
	conn, err := logical(ctx, o.r, role(o.db))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := o.begin(ctx, conn); err != nil {
		return err
	}
	o.p.tell(o.key+outboxMark+string(o.bus), "")
	o.full, o.taken, o.from = make(chan pgrepl.Commit, 4*outboxBatch), o.state.At, o.state.At
	var wg sync.WaitGroup
	wg.Go(func() { o.stop(o.take(ctx)) })
	err = pgrepl.StreamRows(ctx, conn, slotOf(o.bus), slotOf(o.bus), o)
	o.stop(err)
	wg.Wait()
	return context.Cause(ctx)
}

// logical opens a connection for logical replication of a database.
func logical(ctx context.Context, r record, database string) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pgconn.Connect(ctx, dsn(r.port(), superuser, r.Super, database)+"&replication=database&application_name=tenfold_outbox")
}

// publish has the table's inserts published, and removes the slots and publications of outboxes that are gone.
func (o *outbox) publish(ctx context.Context) error {
	var oid uint32
	var plain bool
	err := o.sql.QueryRow(ctx, "select oid, relkind in ('r', 'p') and relpersistence = 'p' from pg_class where oid = to_regclass($1)", o.table).Scan(&oid, &plain)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errNoOutboxTable
	case err != nil:
		return fmt.Errorf("look for table %s: %w", o.table, err)
	case !plain:
		return fmt.Errorf("%s is no table whose rows are in the WAL: make it a plain one, or a partitioned one", o.table)
	}
	names := []string{}
	for bus := range o.r.Spec.Outboxes {
		names = append(names, slotOf(bus))
	}
	if err := dropOutboxes(ctx, o.sql, names); err != nil {
		return err
	}
	var of uint32
	name := slotOf(o.bus)
	err = o.sql.QueryRow(ctx, "select coalesce((select prrelid from pg_publication_rel where prpubid = p.oid limit 1), 0) from pg_publication p where pubname = $1", name).Scan(&of)
	var q string
	table := "select format('%s', $1::regclass)"
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		q = "create publication " + name + " for table %s with (publish = 'insert', publish_via_partition_root = true)"
	case err != nil:
		return fmt.Errorf("look for publication %s: %w", name, err)
	case of == oid:
		return nil
	default:
		q = "alter publication " + name + " set table %s"
	}
	var quoted string
	if err := o.sql.QueryRow(ctx, table, o.table).Scan(&quoted); err != nil {
		return fmt.Errorf("look for table %s: %w", o.table, err)
	}
	if _, err := o.sql.Exec(ctx, fmt.Sprintf(q, quoted)); err != nil {
		return fmt.Errorf("publish table %s: %w", o.table, err)
	}
	return nil
}

// dropOutboxes removes all outboxes of a database but those named.
func dropOutboxes(ctx context.Context, c *pgx.Conn, but []string) error {
	if _, err := c.Exec(ctx, `select pg_drop_replication_slot(slot_name) from pg_replication_slots
		where slot_name like 'tenfold\_outbox\_%' and database = current_database() and not active and slot_name <> all($1)`, but); err != nil && !inUse(err) {
		return fmt.Errorf("drop slots: %w", err)
	}
	rows, err := c.Query(ctx, `select pubname from pg_publication where pubname like 'tenfold\_outbox\_%' and pubname <> all($1)`, but)
	if err != nil {
		return fmt.Errorf("look for publications: %w", err)
	}
	gone, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for publications: %w", err)
	}
	for _, name := range gone {
		if _, err := c.Exec(ctx, "drop publication if exists "+pgx.Identifier{name}.Sanitize()); err != nil {
			return fmt.Errorf("drop publication: %w", err)
		}
	}
	return nil
}

// begin finds the slot where the state left it, or makes one and takes what it does not bring.
func (o *outbox) begin(ctx context.Context, conn *pgconn.PgConn) error {
	raw, err := o.p.cfg.Outbox.Taken(ctx, o.db, o.bus)
	if err != nil {
		return fmt.Errorf("ask bus %s how far it is: %w", o.bus, err)
	}
	if raw != nil {
		if err := json.Unmarshal(raw, &o.state); err != nil {
			return fmt.Errorf("read how far bus %s is: %w", o.bus, err)
		}
	}
	sys, err := pgrepl.Identify(ctx, conn)
	if err != nil {
		return err
	}
	if o.state.Table != o.table || o.state.System != sys.ID { // nothing is known of these rows
		o.state = outboxState{System: sys.ID, Table: o.table}
	}
	slot := slotOf(o.bus)
	var there, lost bool
	if err := o.sql.QueryRow(ctx, "select count(*) > 0, coalesce(bool_or(wal_status = 'lost'), false) from pg_replication_slots where slot_name = $1", slot).Scan(&there, &lost); err != nil {
		return fmt.Errorf("look for slot %s: %w", slot, err)
	}
	if there && !lost && o.state.Made && o.state.Epoch == o.r.Epoch {
		return nil
	}
	if lost {
		o.p.cfg.Emit(tenfold.Event{ID: o.db, Severity: tenfold.SeverityWarning, Text: fmt.Sprintf("the outbox of %s was behind by more WAL than is kept (%s): its table is read instead", o.bus, walBound), Hint: "rows that were deleted meanwhile are no events"})
	}
	o.state.Made = false
	if err := o.put(ctx, nil); err != nil {
		return err
	}
	if err := o.p.records.Change(o.key, func(x *record) { x.Outboxed = true }); err != nil {
		return err
	}
	if there {
		if _, err := o.sql.Exec(ctx, "select pg_drop_replication_slot($1)", slot); err != nil {
			return fmt.Errorf("drop slot %s: %w", slot, err)
		}
	}
	return o.make(ctx, conn, slot)
}

// make makes the slot, and takes the rows that were there before it.
func (o *outbox) make(ctx context.Context, conn *pgconn.PgConn, slot string) error {
	results, err := conn.Exec(ctx, "CREATE_REPLICATION_SLOT "+slot+" LOGICAL pgoutput EXPORT_SNAPSHOT").ReadAll()
	if err != nil || len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 3 {
		return fmt.Errorf("make slot %s: %w", slot, cmp.Or(err, errors.New("the server answers with no row")))
	}
	row := results[0].Rows[0]
	at, err := pgrepl.ParseLSN(string(row[1]))
	if err != nil {
		return err
	}
	tx, err := o.sql.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, "set transaction snapshot '"+string(row[2])+"'"); err != nil {
		return fmt.Errorf("take the snapshot of slot %s: %w", slot, err)
	}
	before, err := horizon(ctx, tx)
	if err != nil {
		return err
	}
	if err := o.takeTable(ctx, tx); err != nil {
		return err
	}
	o.state.Made, o.state.Epoch, o.state.At, o.state.Before = true, o.r.Epoch, at, before
	return o.put(ctx, nil)
}

// horizon is a number below which all transactions have ended, those within others too.
func horizon(ctx context.Context, c interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}) (uint64, error) {
	var text string
	if err := c.QueryRow(ctx, "select pg_snapshot_xmin(pg_current_snapshot())::text").Scan(&text); err != nil {
		return 0, fmt.Errorf("ask which transactions have ended: %w", err)
	}
	return strconv.ParseUint(text, 10, 64)
}

// takeTable takes the rows of the table that the state does not cover, oldest transaction first.
func (o *outbox) takeTable(ctx context.Context, tx pgx.Tx) error {
	// xmin has no epoch: it is counted back from the newest number.
	var key []string
	if err := tx.QueryRow(ctx, "select coalesce(array_agg(attname::text), '{}') from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey) where i.indrelid = to_regclass($1) and i.indisprimary", o.table).Scan(&key); err != nil {
		return fmt.Errorf("look for the key of table %s: %w", o.table, err)
	}
	const number = "(m - ((m - x.xmin::text::bigint) & 4294967295))"
	rows, err := tx.Query(ctx, fmt.Sprintf("select x.* from %s x, (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint m) s where %s >= $1::bigint order by %s, x.ctid", o.quoted(), number, number), pgx.QueryExecModeSimpleProtocol, int64(o.state.Before))
	if err != nil {
		return fmt.Errorf("read table %s: %w", o.table, err)
	}
	defer rows.Close()
	rel := &pgrepl.Relation{}
	var batch []OutboxRow
	for n := 0; rows.Next(); n++ {
		if rel.Columns == nil {
			for _, f := range rows.FieldDescriptions() {
				rel.Columns = append(rel.Columns, pgrepl.Column{Name: f.Name, Type: f.DataTypeOID, Key: slices.Contains(key, f.Name)})
			}
		}
		batch = append(batch, o.event(pgrepl.Row{Of: rel, Values: rows.RawValues()}, time.Now(), "table "+strconv.Itoa(n)))
		if len(batch) == outboxBatch {
			if err := o.put(ctx, batch); err != nil {
				return err
			}
			batch = nil
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read table %s: %w", o.table, err)
	}
	if len(batch) == 0 {
		return nil
	}
	return o.put(ctx, batch)
}

// quoted is the table's name in SQL: schema.table or table.
func (o *outbox) quoted() string { return pgx.Identifier(strings.SplitN(o.table, ".", 2)).Sanitize() }

func (o *outbox) put(ctx context.Context, rows []OutboxRow) error {
	ctx, cancel := context.WithTimeout(ctx, outboxLimit)
	defer cancel()
	raw, err := json.Marshal(o.state)
	if err == nil {
		err = o.p.cfg.Outbox.Take(ctx, o.db, o.bus, rows, raw)
	}
	if err != nil {
		return fmt.Errorf("give rows to bus %s: %w", o.bus, err)
	}
	return nil
}

// Commit implements pgrepl.RowSink.
func (o *outbox) Commit(c pgrepl.Commit) error {
	if c.End <= o.from {
		return nil // it was taken, and the server did not hear of it
	}
	o.mu.Lock()
	o.waiting++
	o.mu.Unlock()
	select {
	case o.full <- c:
		return nil
	case <-o.ended:
		return errOutboxChanged
	}
}

// Safe implements pgrepl.RowSink. It ends the stream when the outbox is no longer what it was.
func (o *outbox) Safe(seen pgrepl.LSN) (pgrepl.LSN, error) {
	if now, ok := o.p.get(o.key); !ok || now.Stopped || now.Epoch != o.r.Epoch || now.Spec.Outboxes[o.bus] != o.table {
		return 0, errOutboxChanged
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting == 0 {
		o.taken = max(o.taken, seen)
	}
	return o.taken, nil
}

// take gives the bus what the stream brings: all that has come meanwhile at once.
func (o *outbox) take(ctx context.Context) error {
	look := time.NewTicker(time.Second)
	defer look.Stop()
	dirty := false // something was taken since the last horizon
	for {
		var all []pgrepl.Commit
		n := 0
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			if dirty {
				held, err := o.look(ctx)
				if err != nil {
					return err
				}
				dirty = !held
			}
			continue
		case c := <-o.full:
			all, n = append(all, c), len(c.Rows)
		}
		for n < outboxBatch && len(o.full) > 0 {
			c := <-o.full
			all, n = append(all, c), n+len(c.Rows)
		}
		if err := o.takeCommits(ctx, all); err != nil {
			return err
		}
		dirty = true
	}
}

// takeCommits gives whole transactions: a state is never of the middle of one.
func (o *outbox) takeCommits(ctx context.Context, all []pgrepl.Commit) error {
	var rows []OutboxRow
	for _, c := range all {
		for i, r := range c.Rows {
			rows = append(rows, o.event(r, c.At, c.End.String()+" "+strconv.Itoa(i)))
		}
	}
	for len(rows) > 10*outboxBatch { // a large transaction comes in parts; the state is still of before it
		if err := o.put(ctx, rows[:outboxBatch]); err != nil {
			return err
		}
		rows = rows[outboxBatch:]
	}
	o.state.At = all[len(all)-1].End
	if err := o.put(ctx, rows); err != nil {
		return err
	}
	o.mu.Lock()
	o.taken = max(o.taken, o.state.At)
	o.waiting -= len(all)
	o.mu.Unlock()
	return nil
}

// look moves the horizon: it asks for one, and keeps it when everything before was taken. held: it was kept.
func (o *outbox) look(ctx context.Context) (held bool, err error) {
	o.mu.Lock()
	taken, h := o.taken, o.horizon
	o.mu.Unlock()
	if h.at != 0 && taken >= h.at {
		o.state.Before, o.horizon.at = h.before, 0
		return true, o.put(ctx, nil)
	}
	if h.at != 0 {
		return false, nil
	}
	before, err := horizon(ctx, o.sql)
	if err != nil {
		return false, err
	}
	var text string
	if err := o.sql.QueryRow(ctx, "select pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		return false, fmt.Errorf("ask where the WAL ends: %w", err)
	}
	at, err := pgrepl.ParseLSN(text)
	if err != nil {
		return false, err
	}
	o.mu.Lock()
	o.horizon.at, o.horizon.before = at, before
	o.mu.Unlock()
	return false, nil
}

// outboxColumns are the names by which columns are known; the first that a table has.
var outboxColumns = struct{ id, source, kind, detail, time []string }{
	[]string{"id", "event_id"},
	[]string{"source", "aggregatetype", "aggregate_type"},
	[]string{"detail_type", "type", "event_type"},
	[]string{"detail", "payload"},
	[]string{"time", "created_at", "occurred_at"},
}

// event makes a row an event. nth tells rows apart that have no id.
func (o *outbox) event(r pgrepl.Row, at time.Time, nth string) OutboxRow {
	used := map[int]bool{}
	text := func(names []string) string {
		for _, name := range names {
			for i, c := range r.Of.Columns {
				if c.Name == name && r.Values[i] != nil {
					used[i] = true
					return string(r.Values[i])
				}
			}
		}
		return ""
	}
	table := o.table[strings.IndexByte(o.table, '.')+1:]
	out := OutboxRow{Time: at, ID: text(outboxColumns.id)}
	if _, err := uuid.Parse(out.ID); err != nil {
		if out.ID == "" {
			for i, c := range r.Of.Columns {
				if c.Key {
					out.ID += strconv.Quote(string(r.Values[i]))
				}
			}
		}
		out.ID = cmp.Or(out.ID, nth)
		out.ID = uuid.NewSHA1(uuid.NameSpaceURL, []byte(o.db.String()+" "+o.table+" "+out.ID)).String()
	}
	out.Source = cmp.Or(text(outboxColumns.source), string(o.db.App)+"."+table)
	out.Type = cmp.Or(text(outboxColumns.kind), "row.inserted")
	for _, layout := range []string{"2006-01-02 15:04:05.999999-07", "2006-01-02 15:04:05.999999-07:00", "2006-01-02 15:04:05.999999"} {
		if t, err := time.Parse(layout, text(outboxColumns.time)); err == nil {
			out.Time = t
			break
		}
	}
	if detail := text(outboxColumns.detail); detail != "" {
		out.Detail = json.RawMessage(detail)
		return out
	}
	whole := map[string]any{}
	for i, c := range r.Of.Columns {
		whole[c.Name] = valueOf(c.Type, r.Values[i])
	}
	out.Detail, _ = json.Marshal(whole)
	return out
}

// valueOf is a value of a column in JSON: numbers, truth values and JSON as such, everything else as text.
func valueOf(oid uint32, v []byte) any {
	switch {
	case v == nil:
		return nil
	case oid == 16:
		return string(v) == "t"
	case slices.Contains([]uint32{20, 21, 23, 114, 700, 701, 1700, 3802}, oid) && json.Valid(v): // NaN is none
		return json.RawMessage(v)
	}
	return string(v)
}
