package cache

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tenfold"
	"tenfold/internal/cacheinfo"
	"tenfold/internal/depot"
	"tenfold/internal/engines"
)

// Backups lie in the depot: dump/<name>/data.rdb is what the server sent, dump/<name>/backup says when and
// how much. That is written last: without it there is no backup, whatever was killed on the way.

const nameForm = "20060102T150405.000Z"

// base is what dump/<name>/backup holds.
type base struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Begun   time.Time `json:"begun"`
	Ended   time.Time `json:"ended"`
	Bytes   int64     `json:"bytes"`
	Sum     string    `json:"sum"` // SHA-256
}

func partOf(name, part string) string { return "dump/" + name + "/" + part }

// placeOf is the part of where backups go that is below a name.
func (c *Cache) placeOf(ctx context.Context, of tenfold.ID, b *tenfold.Backups, below string) (depot.Place, error) {
	switch {
	case b.Bucket == "":
		return depot.Below(cmp.Or(b.To, filepath.Join(c.cfg.Dir, "backups")), below)
	case c.cfg.Bucket == nil:
		return nil, errors.New("nobody knows buckets")
	}
	bucket, err := c.cfg.Bucket(ctx, tenfold.ID{App: of.App, Env: of.Env, Kind: tenfold.KindBucket, Name: b.Bucket})
	if err != nil {
		return nil, err
	}
	return bucket.Below(below)
}

// depot is where a cache's backups lie.
func (c *Cache) depot(ctx context.Context, r record) (depot.Depot, error) {
	b := r.Spec.Backups
	switch {
	case r.Spec.memcached():
		return depot.Depot{}, errMemcached(r.ID, "backups")
	case b == nil:
		return depot.Depot{}, tenfold.Errorf(tenfold.CodeConflict, "%s has no backups", r.ID.Short()).WithHint("write backups: 7d under it in tenfold.yaml and deploy")
	}
	place, err := c.placeOf(ctx, r.ID, b, path.Join(string(r.ID.App), strings.ReplaceAll(string(r.ID.Env), "/", "~"), string(r.ID.Name)))
	if err != nil {
		return depot.Depot{}, err
	}
	if b.Key == nil {
		return depot.Open(place, nil)
	}
	return depot.Open(place, func(version int64) (string, error) {
		if c.cfg.Resolve == nil {
			return "", errors.New("nobody knows secrets")
		}
		of := *b.Key
		if version > 0 {
			of.Version = version
		}
		return c.cfg.Resolve(ctx, of)
	})
}

// Backup takes a backup now. CodeConflict when the manifest asks for none.
func (c *Cache) Backup(ctx context.Context, id tenfold.ID) (cacheinfo.Backup, error) {
	r, err := c.served(id)
	if err != nil {
		return cacheinfo.Backup{}, err
	}
	d, err := c.depot(ctx, r)
	if err != nil {
		return cacheinfo.Backup{}, err
	}
	b, err := c.backup(ctx, r, d)
	return told(b, d), err
}

func told(b base, d depot.Depot) cacheinfo.Backup {
	return cacheinfo.Backup{Name: b.Name, Begun: b.Begun, Ended: b.Ended, Bytes: b.Bytes, Encrypted: d.Key != ""}
}

// summed counts and sums what is written or read through it.
type summed struct {
	sum hash.Hash
	n   int64
}

func (s *summed) Write(p []byte) (int, error) {
	s.n += int64(len(p))
	return s.sum.Write(p)
}

// backup takes one, of a reader that follows where there is one: the fork that a dump needs is not the
// primary's then.
func (c *Cache) backup(ctx context.Context, r record, d depot.Depot) (base, error) {
	c.dumping.Lock()
	defer c.dumping.Unlock()
	n := r.Primary
	c.mu.Lock()
	for _, x := range r.staying() {
		if s := c.seen[r.ID.String()].Nodes[x.N]; s.full() && s.LinkUp {
			n = x.N
		}
	}
	c.mu.Unlock()
	b := base{Begun: time.Now().UTC(), Version: r.Version}
	b.Name = b.Begun.Format(nameForm)
	count := &summed{sum: sha256.New()}
	if err := d.Put(ctx, partOf(b.Name, "data.rdb"), func(w io.Writer) error { return c.dump(ctx, r, n, io.MultiWriter(w, count)) }); err != nil {
		d.Place.Delete(context.WithoutCancel(ctx), d.Name(partOf(b.Name, "data.rdb")))
		return base{}, fmt.Errorf("back up %s: %w", r.ID.Short(), err)
	}
	b.Ended, b.Bytes, b.Sum = time.Now().UTC(), count.n, hex.EncodeToString(count.sum.Sum(nil))
	return b, d.PutJSON(ctx, partOf(b.Name, "backup"), b)
}

// bases lists the backups that are whole, oldest first. faults are those that cannot be read.
func bases(ctx context.Context, d depot.Depot) (out []base, faults map[string]error, err error) {
	names, err := d.Place.List(ctx, "dump/")
	if err != nil {
		return nil, nil, err
	}
	faults = map[string]error{}
	for _, stored := range names {
		parts := strings.Split(stored, "/")
		if len(parts) != 3 || stored != d.Name(partOf(parts[1], "backup")) {
			continue
		}
		var b base
		if err := d.GetJSON(ctx, partOf(parts[1], "backup"), &b); err != nil {
			faults[parts[1]] = err
			continue
		}
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b base) int { return strings.Compare(a.Name, b.Name) })
	return out, faults, nil
}

// Backups lists what can be restored from, the newest first.
func (c *Cache) Backups(ctx context.Context, id tenfold.ID) ([]cacheinfo.Backup, error) {
	r, ok := c.get(id.String())
	if !ok {
		return nil, errNone(id)
	}
	d, err := c.depot(ctx, r)
	if err != nil {
		return nil, err
	}
	all, faults, err := bases(ctx, d)
	if err != nil {
		return nil, err
	}
	out := []cacheinfo.Backup{}
	for _, b := range all {
		out = append(out, told(b, d))
	}
	for name, err := range faults {
		out = append(out, cacheinfo.Backup{Name: name, Fault: err.Error(), Encrypted: d.Key != ""})
	}
	slices.SortFunc(out, func(a, b cacheinfo.Backup) int { return strings.Compare(b.Name, a.Name) })
	return out, nil
}

func errNone(id tenfold.ID) error {
	return tenfold.Errorf(tenfold.CodeNotFound, "no %s of %s", id.Short(), id.App).WithHint("list what there is: tenfold status")
}

// backedUp are the caches that backups are taken of.
func (c *Cache) backedUp() (out []string) {
	for key, r := range c.records.All() {
		if r.Spec.Backups != nil && !r.Stopped {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// keepCopies takes backups when they are due and removes what is too old.
func (c *Cache) keepCopies(ctx context.Context, key string) time.Duration {
	at := key + "#copies"
	r, ok := c.get(key)
	if !ok || r.Spec.Backups == nil || r.Serving == "" || !c.answers(key) || ctx.Err() != nil {
		return 0
	}
	again, err := c.copyOnce(ctx, r, time.Now())
	if errors.Is(err, depot.ErrNotYet) {
		return lookPace // it is the bucket's own trouble, if it is one
	}
	if err != nil && ctx.Err() == nil {
		c.say(at, r.ID, "backup: "+err.Error())
		return max(c.tries.Pause(at), time.Second)
	}
	c.say(at, r.ID, "")
	c.tries.Done(at)
	return again
}

func (c *Cache) copyOnce(ctx context.Context, r record, now time.Time) (time.Duration, error) {
	d, err := c.depot(ctx, r)
	if err != nil {
		return 0, err
	}
	all, _, err := bases(ctx, d)
	if err != nil {
		return 0, err
	}
	due := now
	if n := len(all); n > 0 {
		due = all[n-1].Begun.Add(r.Spec.Backups.Every)
	}
	if !due.After(now) {
		b, err := c.backup(ctx, r, d)
		if err != nil {
			return 0, err
		}
		c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("backup %s, %s", b.Name, sizeOf(b.Bytes)), Took: b.Ended.Sub(b.Begun)})
		return answerPace, nil
	}
	for _, b := range expired(all, r.Spec.Backups.Keep, now) {
		for _, part := range []string{"backup", "data.rdb"} { // without the first it is none
			if err := d.Place.Delete(ctx, d.Name(partOf(b.Name, part))); err != nil {
				return 0, err
			}
		}
	}
	return min(due.Sub(now), time.Hour), nil
}

// expired are the backups that are older than the time kept. The newest always stays.
func expired(all []base, keep time.Duration, now time.Time) (out []base) {
	for i, b := range all {
		if i < len(all)-1 && b.Ended.Before(now.Add(-keep)) {
			out = append(out, b)
		}
	}
	return out
}

// Restore makes a new cache beside the old with what a backup has, the newest from before a time (zero: of
// all), and returns its name. The old one is not touched. CodeNotFound when there is none.
func (c *Cache) Restore(ctx context.Context, id tenfold.ID, to time.Time) (tenfold.ID, error) {
	begun := time.Now()
	r, ok := c.get(id.String())
	if !ok {
		return tenfold.ID{}, errNone(id)
	}
	d, err := c.depot(ctx, r)
	if err != nil {
		return tenfold.ID{}, err
	}
	b, err := choose(ctx, r.ID, d, to)
	if err != nil {
		return tenfold.ID{}, err
	}
	// It starts without persistence: a server that is to keep its data reads no dump.
	made := record{ID: c.beside(id), Spec: r.Spec, Goal: "restored", Of: id.String(), Begun: time.Now()}
	made.Spec.Readers, made.Spec.Backups, made.Spec.Persist = tenfold.Bounds{}, nil, false
	if err := c.fill(ctx, d, b, made.ID); err != nil {
		return tenfold.ID{}, errors.Join(err, os.RemoveAll(c.home(made.ID)))
	}
	if err := c.records.Update(made.ID.String(), func(x *record) { *x = made }); err != nil {
		return tenfold.ID{}, err
	}
	c.wake()
	var last record
	if err := c.until(ctx, made.ID, func() bool {
		last, _ = c.get(made.ID.String())
		return last.Serving == made.Goal || last.Failed == made.Goal
	}); err != nil || last.Failed != "" {
		err = errors.Join(err, errors.New(last.Reason))
		return tenfold.ID{}, errors.Join(err, c.Destroy(context.WithoutCancel(ctx), made.ID))
	}
	if r.Spec.Persist {
		if err := c.records.Change(made.ID.String(), func(x *record) { x.Spec.Persist = true }); err != nil {
			return tenfold.ID{}, err
		}
		c.wake()
	}
	c.cfg.Emit(tenfold.Event{ID: made.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("restored from backup %s of %s", b.Name, id.Name), Took: time.Since(begun)})
	return made.ID, nil
}

// choose is the newest backup that ended before a time.
func choose(ctx context.Context, id tenfold.ID, d depot.Depot, to time.Time) (base, error) {
	all, faults, err := bases(ctx, d)
	if err != nil {
		return base{}, err
	}
	for _, b := range slices.Backward(all) {
		if to.IsZero() || b.Ended.Before(to) {
			return b, nil
		}
	}
	switch {
	case len(faults) > 0:
		for name, err := range faults {
			return base{}, tenfold.Errorf(tenfold.CodeFailed, "backup %s of %s cannot be read: %w", name, id.Short(), err).WithHint("another time may have another backup: tenfold cache backups")
		}
	case len(all) == 0:
		return base{}, tenfold.Errorf(tenfold.CodeNotFound, "%s has no backup yet", id.Short()).WithHint("take one: tenfold cache backup")
	}
	return base{}, tenfold.Errorf(tenfold.CodeNotFound, "the oldest backup of %s is of %s", id.Short(), all[0].Ended.UTC().Format(time.DateTime)).WithHint("restore to a later time: tenfold cache backups")
}

// fill writes a backup where a server finds it when it starts, and checks all of it first.
func (c *Cache) fill(ctx context.Context, d depot.Depot, b base, id tenfold.ID) error {
	home := c.homeOf(id, 1)
	if err := os.MkdirAll(home, 0o755); err != nil {
		return fmt.Errorf("restore cache: %w", err)
	}
	path := filepath.Join(home, dumpFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("restore cache: %w", err)
	}
	count := &summed{sum: sha256.New()}
	err = d.Get(ctx, partOf(b.Name, "data.rdb"), func(r io.Reader) error {
		_, err := io.Copy(io.MultiWriter(f, count), r)
		return err
	})
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("restore cache: %w", err)
	}
	if hex.EncodeToString(count.sum.Sum(nil)) != b.Sum {
		return tenfold.Errorf(tenfold.CodeFailed, "backup %s is not what was backed up", b.Name).WithHint("restore another: tenfold cache backups")
	}
	if uid, gid := engines.RunAs(); uid > 0 {
		if err := errors.Join(os.Chown(home, uid, gid), os.Chown(path, uid, gid)); err != nil {
			return fmt.Errorf("restore cache: %w", err)
		}
	}
	return nil
}

// beside is a name for a cache made from another that nothing has.
func (c *Cache) beside(id tenfold.ID) tenfold.ID {
	for i := 1; ; i++ {
		out := id
		if out.Name += "-restored"; i > 1 {
			out.Name += tenfold.Name(fmt.Sprintf("-%d", i))
		}
		if _, taken := c.records.Get(out.String()); !taken {
			return out
		}
	}
}

// dumpFile is what a server without persistence reads when it starts. Where one is left, a crash would bring
// back what was true long ago.
const dumpFile = "dump.rdb"

// forget removes a dump that a server has read.
func (c *Cache) forget(r record, n int) error {
	if r.Spec.Persist {
		return nil
	}
	if err := os.Remove(filepath.Join(c.homeOf(r.ID, n), dumpFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove dump: %w", err)
	}
	return nil
}
