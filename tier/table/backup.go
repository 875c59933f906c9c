package table

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/uuid"

	"tenfold/internal/awsapi"
	"tenfold/internal/kv"
	"tenfold/tier/table/request"
)

// Backups are copies beside the tables, in the same log. Point-in-time recovery writes down, with each change,
// what the item was: a table as it was at a moment is what it is now, with the changes since undone from the
// newest to the oldest.

// recoverDays is for how long changes can be undone unless another span is asked for.
const recoverDays = 35

// backup is what is kept of a backup beside the items.
type backup struct {
	ID      string     `json:"id"`
	No      uint32     `json:"no"`
	Name    string     `json:"name"`
	Created float64    `json:"created"`
	Whole   bool       `json:"whole,omitempty"`
	Bytes   int64      `json:"bytes"`
	Items   int64      `json:"items"`
	Of      definition `json:"of"`
}

// source is what a table is made from: a backup, another table as it was at a moment, or an import.
type source struct {
	Backup uint32 `json:"backup,omitempty"`
	Table  uint32 `json:"table,omitempty"`
	At     int64  `json:"at,omitempty"` // Unix ms
	Import string `json:"import,omitempty"`
}

func (b *backup) arn() string { return b.Of.arn() + "/backup/" + b.ID }

func (b *backup) describe() member {
	status := "CREATING"
	if b.Whole {
		status = "AVAILABLE"
	}
	return member{
		"BackupArn": b.arn(), "BackupName": b.Name, "BackupStatus": status, "BackupType": "USER", "BackupCreationDateTime": b.Created, "BackupSizeBytes": b.Bytes,
	}
}

func (s *Store) saveBackup(b *backup) error {
	raw, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return s.db.Set(named(keyBackup, b.Of.Account, b.ID), raw, synced)
}

func (s *Store) createBackup(c awsapi.Caller, in *request.Input) (any, error) {
	_, d, err := s.use(c, in.TableName, in.Account, "CreateBackup")
	if err != nil {
		return nil, fault("TableNotFoundException", "Table not found: %s", in.TableName)
	}
	if err := s.db.Writable(); err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	b := &backup{ID: fmt.Sprintf("%015d-%08x", now.UnixMilli(), rand.Uint32()), Name: in.BackupName, Created: dateTime(now), Of: *d}
	var num definition
	if err := s.number(&num); err != nil {
		return nil, err
	}
	b.No = num.ID
	if err := s.settle(); err != nil {
		return nil, err
	}
	snap := s.db.NewSnapshot()
	if err := s.saveBackup(b); err != nil {
		snap.Close()
		return nil, err
	}
	out := b.describe()
	s.done.Go(func() {
		defer snap.Close()
		if err := s.copyItems(snap, key(keyItem, d.ID), key(keyCopy, b.No), &b.Items, &b.Bytes); err != nil {
			s.cfg.Log.Error("back up a table", "table", d.Name, "err", err)
			return
		}
		b.Whole = true
		if err := s.saveBackup(b); err != nil {
			s.cfg.Log.Error("back up a table", "table", d.Name, "err", err)
		}
	})
	return member{"BackupDetails": out}, nil
}

// copyItems copies what a snapshot has under one key under another.
func (s *Store) copyItems(snap *pebble.Snapshot, from, to []byte, items, size *int64) error {
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: after(from)})
	if err != nil {
		return err
	}
	defer it.Close()
	b := s.db.NewBatch()
	defer func() { b.Close() }()
	flush := func(opts *pebble.WriteOptions) error {
		if err := s.db.Writable(); err != nil {
			return err
		}
		if err := b.Commit(opts); err != nil {
			return err
		}
		b.Close()
		b = s.db.NewBatch()
		return nil
	}
	for ok := it.First(); ok; ok = it.Next() {
		b.Set(append(slices.Clone(to), it.Key()[len(from):]...), it.Value(), nil)
		*items++
		*size += int64(len(it.Value()))
		if b.Len() > 1<<20 {
			if s.stopped() {
				return errStopped
			}
			if err := flush(pebble.NoSync); err != nil {
				return err
			}
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	return flush(synced)
}

var errStopped = fmt.Errorf("the store is being closed")

// highestCopy is the highest number that a backup has. Those that a crash left half made are deleted.
func (s *Store) highestCopy() (uint32, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kv.Tables, keyBackup}, UpperBound: []byte{kv.Tables, keyBackup + 1}})
	if err != nil {
		return 0, err
	}
	defer it.Close()
	var highest uint32
	for ok := it.First(); ok; ok = it.Next() {
		var b backup
		if err := json.Unmarshal(it.Value(), &b); err != nil {
			return 0, fmt.Errorf("%s: %w", it.Key(), err)
		}
		highest = max(highest, b.No)
		if !b.Whole && s.db.Writable() == nil {
			s.cfg.Log.Warn("a backup that was not finished is deleted", "table", b.Of.Name, "backup", b.Name)
			if err := s.dropBackup(&b); err != nil {
				return 0, err
			}
		}
	}
	return highest, it.Error()
}

func (s *Store) dropBackup(b *backup) error {
	x := s.db.NewBatch()
	defer x.Close()
	x.Delete(named(keyBackup, b.Of.Account, b.ID), nil)
	k := key(keyCopy, b.No)
	x.DeleteRange(k, after(k), nil)
	return x.Commit(synced)
}

// backupOf finds a backup by its ARN.
func (s *Store) backupOf(c awsapi.Caller, arn, operation string) (*backup, error) {
	_, id, _ := strings.Cut(arn, "/backup/")
	missing := fault("BackupNotFoundException", "Backup not found: %s", arn)
	raw, closer, err := s.db.Get(named(keyBackup, c.Account, id))
	if err == pebble.ErrNotFound || id == "" {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	b := &backup{}
	if err := json.Unmarshal(raw, b); err != nil {
		return nil, err
	}
	if b.arn() != arn {
		return nil, missing
	}
	if !may(c, &b.Of) {
		return nil, awsapi.Denied(c, "dynamodb:"+operation, arn, b.Of.Name)
	}
	return b, nil
}

// describeWhole is a BackupDescription.
func (b *backup) describeWhole() member {
	d := &b.Of
	var sort []string
	if d.Sort != "" {
		sort = []string{d.Sort}
	}
	mode := "PAY_PER_REQUEST"
	if d.Provisioned {
		mode = "PROVISIONED"
	}
	return member{
		"BackupDetails": b.describe(),
		"SourceTableDetails": member{
			"TableName": d.Name, "TableId": d.UUID, "TableArn": d.arn(), "TableSizeBytes": b.Bytes, "ItemCount": b.Items, "KeySchema": keySchema([]string{d.Hash}, sort),
			"TableCreationDateTime": d.Created, "BillingMode": mode, "ProvisionedThroughput": member{"ReadCapacityUnits": d.Capacity.Read, "WriteCapacityUnits": d.Capacity.Write},
		},
		"SourceTableFeatureDetails": member{},
	}
}

func (s *Store) describeBackup(c awsapi.Caller, in *request.Input) (any, error) {
	b, err := s.backupOf(c, in.BackupArn, "DescribeBackup")
	if err != nil {
		return nil, err
	}
	return member{"BackupDescription": b.describeWhole()}, nil
}

func (s *Store) deleteBackup(c awsapi.Caller, in *request.Input) (any, error) {
	b, err := s.backupOf(c, in.BackupArn, "DeleteBackup")
	if err != nil {
		return nil, err
	}
	if !b.Whole {
		return nil, fault("BackupInUseException", "Backup is being created: %s", in.BackupArn)
	}
	if err := s.db.Writable(); err != nil {
		return nil, err
	}
	for _, t := range s.of(c.Account) {
		if from := t.def.Load().Restoring; from != nil && from.Backup == b.No {
			return nil, fault("BackupInUseException", "Backup is being restored: %s", in.BackupArn)
		}
	}
	if err := s.dropBackup(b); err != nil {
		return nil, err
	}
	out := b.describeWhole()
	out["BackupDetails"].(member)["BackupStatus"] = "DELETED"
	return member{"BackupDescription": out}, nil
}

func (s *Store) listBackups(c awsapi.Caller, in *request.Input) (any, error) {
	prefix := named(keyBackup, c.Account, "")
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	most := cmp.Or(in.Limit, 100)
	list := []member{}
	out := member{}
	passed := in.ExclusiveStartBackupArn == ""
	for ok := it.First(); ok; ok = it.Next() {
		var b backup
		if err := json.Unmarshal(it.Value(), &b); err != nil {
			return nil, err
		}
		at := time.UnixMilli(int64(b.Created * 1000))
		switch {
		case !passed:
			passed = b.arn() == in.ExclusiveStartBackupArn
			continue
		case !may(c, &b.Of), in.TableName != "" && in.TableName != b.Of.Name, in.BackupType == "SYSTEM" || in.BackupType == "AWS_BACKUP",
			!in.TimeRangeLowerBound.IsZero() && at.Before(in.TimeRangeLowerBound), !in.TimeRangeUpperBound.IsZero() && !at.Before(in.TimeRangeUpperBound):
			continue
		}
		if len(list) == most {
			out["LastEvaluatedBackupArn"] = list[most-1]["BackupArn"]
			break
		}
		m := b.describe()
		m["TableName"], m["TableId"], m["TableArn"] = b.Of.Name, b.Of.UUID, b.Of.arn()
		list = append(list, m)
	}
	out["BackupSummaries"] = list
	return out, it.Error()
}

// target makes the definition of a table that is restored.
func (s *Store) target(c awsapi.Caller, of *definition, in *request.Input, from source, summary member) (*table, *definition, error) {
	if len(c.Uses["dynamodb"]) == 0 {
		return nil, nil, awsapi.Denied(c, "dynamodb:RestoreTable", tableARN(c.Account, in.TargetTableName), in.TargetTableName)
	}
	if s.find(c.Account, in.TargetTableName) != nil {
		return nil, nil, fault("TableAlreadyExistsException", "Table already exists: %s", in.TargetTableName)
	}
	d := of.clone()
	d.Name, d.UUID, d.Created, d.By, d.Kept = in.TargetTableName, uuid.NewString(), s.moment(), c.Of, false
	// As on AWS, these are not restored.
	d.Stream, d.Label, d.Began, d.TTL, d.Dating, d.Recover, d.RecoverDays, d.Tags, d.Protected = "", "", 0, "", false, 0, 0, nil, false
	d.Restoring, d.Restored = &from, summary
	if m := in.BillingModeOverride; m != "" {
		d.Provisioned, d.Billed = m == "PROVISIONED", true
		if !d.Provisioned {
			d.Capacity, d.ModeSince = throughput{}, d.Created
		}
	}
	if in.ProvisionedThroughputOverride != nil {
		d.Capacity = capacityOf(in.ProvisionedThroughputOverride)
	}
	// Overrides may leave indexes out, and not bring new ones.
	keep := func(given []request.Index, local bool) {
		if given == nil {
			return
		}
		d.Indexes = slices.DeleteFunc(d.Indexes, func(x index) bool {
			return x.Local == local && !slices.ContainsFunc(given, func(y request.Index) bool { return y.IndexName == x.Name })
		})
	}
	keep(in.GlobalSecondaryIndexOverride, false)
	keep(in.LocalSecondaryIndexOverride, true)
	d.Indexes = slices.DeleteFunc(d.Indexes, func(x index) bool { return x.Leaving })
	for i := range d.Indexes {
		d.Indexes[i].Filling = true
	}
	t, err := s.make(d)
	if err != nil {
		return nil, nil, err
	}
	return t, d, nil
}

func (s *Store) restoreBackup(c awsapi.Caller, in *request.Input) (any, error) {
	b, err := s.backupOf(c, in.BackupArn, "RestoreTableFromBackup")
	if err != nil {
		return nil, err
	}
	if !b.Whole {
		return nil, fault("BackupInUseException", "Backup is being created: %s", in.BackupArn)
	}
	t, d, err := s.target(c, &b.Of, in, source{Backup: b.No}, member{
		"SourceBackupArn": b.arn(), "SourceTableArn": b.Of.arn(), "RestoreDateTime": b.Created, "RestoreInProgress": false,
	})
	if err != nil {
		return nil, err
	}
	s.resume(t)
	return member{"TableDescription": t.describe(d, "CREATING")}, nil
}

func (s *Store) earliest(d *definition) time.Time {
	days := cmp.Or(d.RecoverDays, recoverDays)
	kept := s.cfg.Now().Add(-time.Duration(days) * 24 * time.Hour)
	if began := time.UnixMilli(d.Recover); began.After(kept) {
		return began
	}
	return kept
}

func (s *Store) continuous(d *definition) member {
	point := member{"PointInTimeRecoveryStatus": "DISABLED"}
	if d.Recover != 0 {
		point = member{
			"PointInTimeRecoveryStatus": "ENABLED", "RecoveryPeriodInDays": cmp.Or(d.RecoverDays, recoverDays),
			"EarliestRestorableDateTime": dateTime(s.earliest(d)), "LatestRestorableDateTime": s.moment(),
		}
	}
	return member{"ContinuousBackupsDescription": member{"ContinuousBackupsStatus": "ENABLED", "PointInTimeRecoveryDescription": point}}
}

func (s *Store) describeContinuous(c awsapi.Caller, in *request.Input) (any, error) {
	_, d, err := s.use(c, in.TableName, in.Account, "DescribeContinuousBackups")
	if err != nil {
		return nil, fault("TableNotFoundException", "Table not found: %s", in.TableName)
	}
	return s.continuous(d), nil
}

func (s *Store) updateContinuous(c awsapi.Caller, in *request.Input) (any, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	t, d, err := s.use(c, in.TableName, in.Account, "UpdateContinuousBackups")
	if err != nil {
		return nil, fault("TableNotFoundException", "Table not found: %s", in.TableName)
	}
	spec := in.PointInTimeRecoverySpecification
	if d.Kept && !spec.PointInTimeRecoveryEnabled && d.Recover != 0 {
		return nil, invalid("tenfold.yaml has the backups of table %s: write backups: false there", d.Name)
	}
	if err := s.setRecover(t, spec.PointInTimeRecoveryEnabled, spec.RecoveryPeriodInDays); err != nil {
		return nil, err
	}
	return s.continuous(t.def.Load()), nil
}

// setRecover has changes be undoable for some days, or not. changing is held.
func (s *Store) setRecover(t *table, on bool, days int) error {
	d := t.def.Load().clone()
	d.RecoverDays = cmp.Or(days, d.RecoverDays)
	switch {
	case on && d.Recover == 0:
		// Every change from the next millisecond on can be undone: those that know nothing of it end before.
		d.Recover = s.cfg.Now().UnixMilli() + 1
	case !on:
		d.Recover, d.RecoverDays = 0, 0
	}
	if err := s.save(t, d); err != nil {
		return err
	}
	if on {
		return nil
	}
	s.barrier()
	k := key(keyUndo, d.ID)
	return s.db.DeleteRange(k, after(k), synced)
}

func (s *Store) restorePoint(c awsapi.Caller, in *request.Input) (any, error) {
	_, d, err := s.use(c, in.TableName, in.Account, "RestoreTableToPointInTime")
	if err != nil {
		return nil, fault("TableNotFoundException", "Table not found: %s", in.TableName)
	}
	if d.Recover == 0 {
		return nil, fault("PointInTimeRecoveryUnavailableException", "Point in time recovery is not enabled for table '%s'", d.Name)
	}
	now := s.cfg.Now()
	at := in.RestoreDateTime
	if in.UseLatestRestorableTime || at.IsZero() {
		at = now
	}
	if at.After(now) || at.Before(s.earliest(d)) {
		return nil, fault("InvalidRestoreTimeException", "The restore time %s is not between %s and %s", at.UTC().Format(time.RFC3339), s.earliest(d).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	t, e, err := s.target(c, d, in, source{Table: d.ID, At: at.UnixMilli()}, member{
		"SourceTableArn": d.arn(), "RestoreDateTime": dateTime(at), "RestoreInProgress": false,
	})
	if err != nil {
		return nil, err
	}
	s.resume(t)
	return member{"TableDescription": t.describe(e, "CREATING")}, nil
}

// restore gives a table the items of what it is made from, then fills its indexes. It begins anew where a
// process ended before it was done.
func (s *Store) restore(t *table) {
	d := t.def.Load()
	if err := s.restoreItems(t, d); err != nil {
		if errors.Is(err, errStopped) {
			return
		}
		s.cfg.Log.Error("restore a table", "table", d.Name, "err", err)
		if d.Restoring.Import != "" { // it is told by DescribeImport, and can be tried again under the same name
			s.changing.Lock()
			defer s.changing.Unlock()
			if err := s.drop(t); err != nil {
				s.cfg.Log.Error("delete a table whose import failed", "table", d.Name, "err", err)
			}
		}
		return
	}
	for i := range d.Indexes {
		s.fill(t, d.Indexes[i])
	}
	snap := s.db.NewSnapshot()
	defer snap.Close()
	t.count.items.Store(0)
	t.count.bytes.Store(0)
	s.countSpan(snap, key(keyItem, d.ID), &t.count)
	if s.stopped() {
		return
	}
	s.finish(t, func(d *definition) { d.Restoring = nil })
}

func (s *Store) restoreItems(t *table, d *definition) error {
	to := key(keyItem, d.ID)
	if err := s.db.DeleteRange(to, after(to), synced); err != nil {
		return err
	}
	if err := s.settle(); err != nil {
		return err
	}
	snap := s.db.NewSnapshot()
	defer snap.Close()
	var items, size int64
	from := d.Restoring
	if from.Import != "" {
		return s.importItems(d, from.Import, to)
	}
	if from.Backup != 0 {
		return s.copyItems(snap, key(keyCopy, from.Backup), to, &items, &size)
	}
	if err := s.copyItems(snap, key(keyItem, from.Table), to, &items, &size); err != nil {
		return err
	}
	return s.undo(snap, from, to)
}

// undo takes back the changes of a table since a moment, from the newest to the oldest, in a copy of it.
func (s *Store) undo(snap *pebble.Snapshot, from *source, to []byte) error {
	return s.changes(snap, from.Table, from.At+1, 0, true, func(b *pebble.Batch, _ int64, item, was []byte) {
		if k := slices.Concat(to, item); len(was) == 0 {
			b.Delete(k, nil)
		} else {
			b.Set(k, was, nil)
		}
	})
}
