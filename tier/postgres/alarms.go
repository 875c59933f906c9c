package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"tenfold"
)

// Alarms: what will stop a database if nobody does anything. Each is an event when it begins and one when
// it is over; the record has those that are on, so that a daemon that comes back does not say them again.

const alarmPace = time.Minute

// limits are what an alarm is raised beyond; it is over at nine tenths of that, so that none flaps.
type limits struct {
	age       float64 // of transaction IDs; at 2.1 billion a server takes no writes
	retained  float64 // share of what a slot may keep
	unbounded float64 // bytes that a slot may keep where nothing bounds it
	running   time.Duration
	full      float64 // see fullness
}

var usualLimits = limits{age: 1.2e9, retained: 0.8, unbounded: 10 << 30, running: time.Hour, full: 1}

// trouble is one alarm.
type trouble struct{ text, hint string }

// ailing looks for what calls for an alarm, by a key that stays the same as long as it is the same trouble.
func (p *Postgres) ailing(ctx context.Context, c *pgx.Conn, r record, l limits) (map[string]trouble, error) {
	out := map[string]trouble{}
	over := func(key string, value, limit float64) bool { return beyond(r.Alarms[key] != "", value, limit) }
	rows, err := c.Query(ctx, "select datname, age(datfrozenxid)::float8, mxid_age(datminmxid)::float8 from pg_database where datallowconn order by datname")
	var name string
	var age, multi float64
	if err := each(rows, err, []any{&name, &age, &multi}, func() error {
		for key, n := range map[string]float64{"transaction IDs": age, "multixact IDs": multi} {
			if over(key+" of "+name, n, l.age) {
				out[key+" of "+name] = trouble{fmt.Sprintf("%s of database %s are %.2f billion old: at 2.1 billion it takes no more writes", key, name, n/1e9),
					"end what is old (tenfold db activity), then: tenfold db psql -- -c 'vacuum (freeze)'"}
			}
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look at transaction IDs: %w", err)
	}
	rows, err = c.Query(ctx, `select s.slot_name, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::float8, coalesce(s.wal_status, '') = 'lost', k.setting::float8 * 1024 * 1024
		from pg_replication_slots s, pg_settings k where k.name = 'max_slot_wal_keep_size'`)
	var retained, bound float64
	var lost bool
	if err := each(rows, err, []any{&name, &retained, &lost, &bound}, func() error {
		ours := name == archiveSlot || strings.HasPrefix(name, "node_")
		key, limit := "slot "+name, l.unbounded
		if bound >= 0 {
			limit = bound * l.retained
		}
		switch {
		case lost && !ours: // of ours, who was behind says it and begins again
			out[key] = trouble{fmt.Sprintf("slot %s was away for more WAL than is kept, and can not go on", name), fmt.Sprintf("make it anew, or drop it: select pg_drop_replication_slot('%s')", name)}
		case !lost && over(key, retained, limit):
			hint := "see what reads from it, or drop it: select pg_drop_replication_slot('" + name + "')"
			if ours {
				hint = "see the readers and the archive: tenfold db nodes, tenfold db backups"
			}
			out[key] = trouble{fmt.Sprintf("slot %s keeps %d MB of WAL; what it needs is dropped beyond %s", name, int64(retained)>>20, boundText(bound)), hint}
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look at slots: %w", err)
	}
	rows, err = c.Query(ctx, `select pid, coalesce(usename, ''), coalesce(state, ''), extract(epoch from now() - xact_start)::float8, extract(epoch from xact_start)::bigint from pg_stat_activity
		where datname = $1 and backend_type = 'client backend' and usename <> current_user and extract(epoch from now() - xact_start) > $2::float8 order by xact_start limit 5`, role(r.ID), l.running.Seconds())
	var pid int32
	var user, state string
	var since float64
	var begun int64
	if err := each(rows, err, []any{&pid, &user, &state, &since, &begun}, func() error {
		what := "runs one statement or several in a transaction"
		if strings.HasPrefix(state, "idle") {
			what = "is " + state
		}
		out[fmt.Sprintf("session %d %d", pid, begun)] = trouble{fmt.Sprintf("session %d of %s %s for %s: dead rows stay meanwhile, and its locks", pid, user, what, seconds(since).Round(time.Second)),
			fmt.Sprintf("see it: tenfold db activity; end it: select pg_terminate_backend(%d)", pid)}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look at sessions: %w", err)
	}
	for _, n := range r.Nodes {
		dir := p.homeOf(r.ID, n.N)
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) != nil {
			continue // of a node that is being made
		}
		key := fmt.Sprintf("disk %x", st.Fsid.Val)
		if free := float64(st.Bavail) * float64(st.Bsize); over(key, fullness(float64(st.Blocks)*float64(st.Bsize), free), l.full) {
			out[key] = trouble{fmt.Sprintf("the disk that its data lies on is nearly full: %d MB are free; when none is, writes fail", int64(free)>>20), "make room around " + dir}
		}
	}
	return out, nil
}

// beyond says whether an alarm, which is on or not, is to be.
func beyond(on bool, value, limit float64) bool {
	if on {
		limit *= 0.9
	}
	return value > limit
}

func boundText(bytes float64) string {
	if bytes < 0 {
		return "no bound: the disk fills up"
	}
	return fmt.Sprintf("%d MB", int64(bytes)>>20)
}

// fullness of a disk is above 1 when less than a tenth of it is free, or less than 5 GB where that is less.
func fullness(total, free float64) float64 { return min(total/10, 5<<30) / max(free, 1) }

// ring says what is new and what is over.
func (p *Postgres) ring(key string, found map[string]trouble) {
	r, ok := p.get(key)
	if !ok {
		return
	}
	now := map[string]string{}
	for k, t := range found {
		if now[k] = r.Alarms[k]; now[k] == "" {
			now[k] = t.text
		}
	}
	if maps.Equal(now, r.Alarms) {
		return
	}
	// The record first: said twice is worse than said late.
	if err := p.records.Change(key, func(x *record) { x.Alarms = now }); err != nil {
		return // found again in a minute
	}
	for _, k := range slices.Sorted(maps.Keys(found)) {
		if r.Alarms[k] == "" {
			p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityAlarm, Text: found[k].text, Hint: found[k].hint})
		}
	}
	for _, k := range slices.Sorted(maps.Keys(r.Alarms)) {
		if _, still := found[k]; !still {
			p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: "over: " + r.Alarms[k]})
		}
	}
}
