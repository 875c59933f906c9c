package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold"
	"tenfold/internal/atomicfile"
	"tenfold/internal/depot"
	"tenfold/internal/pgrepl"
)

// The archive of WAL.
//
// The daemon takes WAL by the replication protocol from a slot, as a reader does, and stores each
// segment when it is full. archive_command, the usual way, lost: it takes a restart to turn on, knows
// nothing between two segments, and when it cannot store it lets WAL pile up until the disk of the
// database is full. A slot is bounded: with the archive's disk full the database serves on, and past the
// bound there is a gap that is known, said, and ended by a new base backup.
//
// On disk, in the database's folder: archive/state.json says up to where it is safe, archive/<segment>
// is the one that is not full. In the depot: wal/<segment>, wal/<timeline>.history.

const archiveSlot = "tenfold_archive"

// archiveState is how far the archive has come. It is written after what it speaks of.
type archiveState struct {
	System   string     `json:"system"`
	Lineage  string     `json:"lineage,omitempty"` // the record's when it began
	Timeline uint32     `json:"timeline"`
	Next     pgrepl.LSN `json:"next"` // begin of the segment that is not stored yet
	Segment  uint64     `json:"segment"`
	// Gap is where the last gap ended: base backups from before it do not reach beyond it.
	Gap pgrepl.LSN `json:"gap,omitempty"`
	// Until is the latest time of which everything had arrived.
	Until time.Time `json:"until,omitzero"`
}

// archived is what is known of a running archive.
type archived struct {
	until   time.Time
	at      pgrepl.LSN
	running bool
}

func (p *Postgres) archiveDir(id tenfold.ID) string { return filepath.Join(p.home(id), "archive") }

func (p *Postgres) readArchive(id tenfold.ID) (s archiveState, err error) {
	err = atomicfile.ReadJSON(filepath.Join(p.archiveDir(id), "state.json"), &s)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	return s, err
}

func (p *Postgres) writeArchive(id tenfold.ID, s archiveState) error {
	return atomicfile.WriteJSON(filepath.Join(p.archiveDir(id), "state.json"), s, 0o600)
}

// backedUp are the databases that have backups.
func (p *Postgres) backedUp() []string {
	var out []string
	for _, key := range p.records.Keys() {
		if r, _ := p.records.Get(key); r.Spec.Backups != nil && !r.Stopped && !r.Suspended && r.Serving != "" && r.Of == "" {
			out = append(out, key)
		}
	}
	return out
}

// placeOf is the part of where backups go that is below a name.
func (p *Postgres) placeOf(ctx context.Context, of tenfold.ID, b *tenfold.Backups, below string) (depot.Place, error) {
	switch {
	case b.Bucket == "":
		return depot.Below(cmp.Or(b.To, filepath.Join(p.cfg.Dir, "backups")), below)
	case p.cfg.Bucket == nil:
		return nil, errors.New("nobody knows buckets")
	}
	bucket, err := p.cfg.Bucket(ctx, tenfold.ID{App: of.App, Env: of.Env, Kind: tenfold.KindBucket, Name: b.Bucket})
	if err != nil {
		return nil, err
	}
	return bucket.Below(below)
}

// depot is where a database's backups lie, with its keys.
func (p *Postgres) depot(ctx context.Context, r record) (depot.Depot, error) {
	b := r.Spec.Backups
	if b == nil {
		return depot.Depot{}, errNoBackups(r.ID)
	}
	place, err := p.placeOf(ctx, r.ID, b, path.Join(string(r.ID.App), strings.ReplaceAll(string(r.ID.Env), "/", "~"), string(r.ID.Name), r.Lineage))
	if err != nil {
		return depot.Depot{}, err
	}
	if b.Key == nil {
		return depot.Open(place, nil)
	}
	return depot.Open(place, func(version int64) (string, error) {
		if p.cfg.Resolve == nil {
			return "", fmt.Errorf("nobody knows secrets")
		}
		of := *b.Key
		if version > 0 {
			of.Version = version
		}
		return p.cfg.Resolve(ctx, of)
	})
}

// keepArchive takes WAL until something ends it, and says when to try again.
func (p *Postgres) keepArchive(ctx context.Context, key string) time.Duration {
	at := key + "#archive"
	r, ok := p.get(key)
	if !ok || r.Spec.Backups == nil || ctx.Err() != nil {
		return 0
	}
	if !p.answers(key) {
		return watchPace // it is the primary's own trouble, which is said elsewhere
	}
	err := p.takeWAL(ctx, key, r)
	p.mu.Lock()
	a := p.archived[key]
	a.running = false
	p.archived[key] = a
	p.mu.Unlock()
	if now, _ := p.get(key); ctx.Err() != nil || now.Epoch != r.Epoch {
		return answerPace
	}
	if errors.Is(err, depot.ErrNotYet) {
		return watchPace // it is the bucket's own trouble, if it is one
	}
	var pe *pgconn.PgError
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && (!errors.As(err, &pe) || pe.Code[:2] != "57") {
		p.alarm(at, r.ID, "the archive of WAL has stopped: "+err.Error(), "the database serves on; up to "+walBound+" of WAL waits for it")
	}
	return p.tries.Pause(at)
}

// alarm says once what is tried again and again.
func (p *Postgres) alarm(at string, id tenfold.ID, text, hint string) {
	if p.tries.News(at, text) {
		p.cfg.Emit(tenfold.Event{ID: id, Severity: tenfold.SeverityAlarm, Text: text, Hint: hint})
	}
}

// takeWAL streams from where the archive ends.
func (p *Postgres) takeWAL(ctx context.Context, key string, r record) error {
	d, err := p.depot(ctx, r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.archiveDir(r.ID), 0o700); err != nil {
		return fmt.Errorf("make archive: %w", err)
	}
	if err := p.reload(ctx, r, r.Primary); err != nil { // it lets replication in
		return err
	}
	s, err := p.readArchive(r.ID)
	if err != nil {
		return err
	}
	if yes, err := p.recovering(ctx, r, r.Primary); err != nil || yes {
		return errors.Join(err, io.ErrUnexpectedEOF) // it is being promoted
	}
	if err := p.archiveSlot(ctx, r); err != nil {
		return err
	}
	c, err := replication(ctx, r)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	sys, err := pgrepl.Identify(ctx, c)
	if err != nil {
		return err
	}
	if s.System != sys.ID {
		if err := p.storeLast(ctx, r, s); err != nil {
			return err
		}
		s = archiveState{System: sys.ID, Lineage: r.Lineage, Timeline: sys.Timeline, Segment: sys.Segment, Next: sys.At - sys.At%pgrepl.LSN(sys.Segment)}
		if err := p.writeArchive(r.ID, s); err != nil {
			return err
		}
		p.copies.Wake() // a base backup begins after it
	}
	p.mu.Lock()
	p.archived[key] = archived{until: s.Until, at: s.Next, running: true}
	p.mu.Unlock()
	for {
		if s.Timeline != sys.Timeline {
			if err := p.nextTimeline(ctx, d, c, r, &s, sys); err != nil {
				return err
			}
		}
		in := &intake{p: p, key: key, id: r.ID, d: d, s: &s, ctx: ctx}
		ended, err := pgrepl.Stream(ctx, c, archiveSlot, s.Timeline, s.Next, in)
		in.close()
		var pe *pgconn.PgError
		if errors.As(err, &pe) && (pe.Code == "58P01" || pe.Code == "55000") {
			if gone, gerr := p.recycled(ctx, r, s); gerr == nil && gone {
				return p.gap(ctx, key, r, s, sys)
			}
		}
		if err != nil || !ended || s.Timeline == sys.Timeline {
			return err
		}
	}
}

// storeLast stores what there is of the segment that a server did not fill before an upgrade to another major, with
// the backups of that one.
func (p *Postgres) storeLast(ctx context.Context, r record, s archiveState) error {
	if s.System == "" || len(r.Lineages) == 0 {
		return nil
	}
	name := s.Next.Segment(s.Timeline, s.Segment)
	file := filepath.Join(p.archiveDir(r.ID), name)
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	defer f.Close()
	of := r
	of.Lineage = r.Lineages[len(r.Lineages)-1]
	d, err := p.depot(ctx, of)
	if err != nil {
		return err
	}
	if err := d.Put(ctx, "wal/"+name, func(w io.Writer) error {
		n, err := io.Copy(w, f)
		if err == nil && n < int64(s.Segment) { // a segment has its size whatever is in it
			_, err = io.CopyN(w, zeros{}, int64(s.Segment)-n)
		}
		return err
	}); err != nil {
		return err
	}
	return os.Remove(file)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// recycled says that the primary has no file any more of what the archive wants next.
func (p *Postgres) recycled(ctx context.Context, r record, s archiveState) (gone bool, err error) {
	err = p.ask(ctx, r, r.Primary, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, "select coalesce(min(substr(name, 9)) > $1, true) from pg_ls_waldir() where name ~ '^[0-9A-F]{24}$'", s.Next.Segment(0, s.Segment)[8:]).Scan(&gone)
	})
	return gone, err
}

// archiveSlot makes the slot at the primary: after a failover there is none. One that was given up on for
// its size is made anew.
func (p *Postgres) archiveSlot(ctx context.Context, r record) error {
	return p.ask(ctx, r, r.Primary, func(ctx context.Context, c *pgx.Conn) error {
		if _, err := c.Exec(ctx, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1 and wal_status = 'lost' and not active", archiveSlot); err != nil {
			return fmt.Errorf("make slot %s: %w", archiveSlot, err)
		}
		_, err := c.Exec(ctx, "select pg_create_physical_replication_slot($1, true) where not exists (select from pg_replication_slots where slot_name = $1)", archiveSlot)
		if err != nil {
			return fmt.Errorf("make slot %s: %w", archiveSlot, err)
		}
		return nil
	})
}

// nextTimeline stores the history of a new primary and goes over to it, once all segments are there that
// end before its fork. The segment in which it forks is taken from the new history, where it stands
// whole: what the old primary alone had of it is dropped.
func (p *Postgres) nextTimeline(ctx context.Context, d depot.Depot, c *pgconn.PgConn, r record, s *archiveState, sys pgrepl.System) error {
	name, text, err := pgrepl.History(ctx, c, sys.Timeline)
	if err != nil {
		return err
	}
	if err := d.Put(ctx, "wal/"+name, func(w io.Writer) error { _, err := io.WriteString(w, text); return err }); err != nil {
		return err
	}
	forks, err := pgrepl.ParseHistory(text)
	if err != nil {
		return err
	}
	for i, f := range forks {
		begin := f.At - f.At%pgrepl.LSN(s.Segment)
		if f.Timeline != s.Timeline {
			continue
		}
		if s.Next < begin {
			return nil // of the old history first
		}
		s.Next, s.Timeline = begin, sys.Timeline
		if i+1 < len(forks) {
			s.Timeline = forks[i+1].Timeline
		}
		return p.writeArchive(r.ID, *s)
	}
	return fmt.Errorf("the history of timeline %d does not know timeline %d", sys.Timeline, s.Timeline)
}

// gap notes that WAL is lost to the archive, and has a new base backup begin after it.
func (p *Postgres) gap(ctx context.Context, key string, r record, s archiveState, sys pgrepl.System) error {
	lost := s.Next
	s.Next = sys.At - sys.At%pgrepl.LSN(s.Segment)
	s.Gap = s.Next
	if err := p.writeArchive(r.ID, s); err != nil {
		return err
	}
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityAlarm, Hint: "see what is left: tenfold db backups",
		Text: fmt.Sprintf("the archive has a gap: WAL from %s to %s is gone, nothing between %s and the next base backup can be restored", lost, s.Next, s.Until.UTC().Format(time.DateTime))})
	p.copies.Wake()
	return p.archiveSlot(ctx, r)
}

// intake is the Sink of one stream. Owned by the goroutine of takeWAL.
type intake struct {
	p   *Postgres
	key string
	id  tenfold.ID
	d   depot.Depot
	s   *archiveState
	ctx context.Context

	file  *os.File // of the segment at s.Next
	at    pgrepl.LSN
	clean bool // file is on disk as far as it goes
	noted time.Time
}

func (in *intake) path() string {
	return filepath.Join(in.p.archiveDir(in.id), in.s.Next.Segment(in.s.Timeline, in.s.Segment))
}

func (in *intake) close() {
	if in.file != nil {
		in.file.Close()
	}
}

// Write takes WAL into the segment's file, and stores it when it is full.
func (in *intake) Write(at pgrepl.LSN, b []byte) error {
	for len(b) > 0 {
		if in.file == nil {
			f, err := os.OpenFile(in.path(), os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				return fmt.Errorf("archive: %w", err)
			}
			in.file = f
		}
		end := in.s.Next + pgrepl.LSN(in.s.Segment)
		n := min(len(b), int(end-at))
		if _, err := in.file.WriteAt(b[:n], int64(at-in.s.Next)); err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		at, b, in.clean = at+pgrepl.LSN(n), b[n:], false
		in.at = at
		if at == end {
			if err := in.store(end); err != nil {
				return err
			}
		}
	}
	return nil
}

// store puts a full segment into the depot and begins the next. In this order: whatever is killed on
// the way, it is stored once more.
func (in *intake) store(end pgrepl.LSN) error {
	path := in.path()
	if err := in.file.Sync(); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if _, err := in.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if err := in.d.Put(in.ctx, "wal/"+filepath.Base(path), func(w io.Writer) error { _, err := io.Copy(w, in.file); return err }); err != nil {
		return err
	}
	in.file.Close()
	in.file, in.clean = nil, true
	in.s.Next = end
	if err := in.p.writeArchive(in.id, *in.s); err != nil {
		return err
	}
	os.Remove(path)
	in.p.mu.Lock()
	defer in.p.mu.Unlock()
	a := in.p.archived[in.key]
	a.at = end
	in.p.archived[in.key] = a
	return nil
}

// Safe has what arrived on disk.
func (in *intake) Safe() (pgrepl.LSN, error) {
	if in.file != nil && !in.clean {
		if err := in.file.Sync(); err != nil {
			return 0, fmt.Errorf("archive: %w", err)
		}
		in.clean = true
	}
	return max(in.at, in.s.Next), nil
}

// CaughtUp notes until when all is here.
func (in *intake) CaughtUp(at time.Time) {
	in.s.Until = at
	in.p.mu.Lock()
	in.p.tries.Done(in.key + "#archive")
	in.p.archived[in.key] = archived{until: at, at: max(in.at, in.s.Next), running: true}
	in.p.mu.Unlock()
	if time.Since(in.noted) > 10*time.Second {
		in.noted = time.Now()
		in.p.writeArchive(in.id, *in.s) // a note of time: the next one will do
	}
}
