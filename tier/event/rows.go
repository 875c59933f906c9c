package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
)

// Operations of Tenfold's own, of an environment's owner: rows of a database's table that become events.
const (
	// TakeRows puts rows on a bus and keeps a state of whom they are from, both or none. Its input is a RowsTaken.
	TakeRows = "TenfoldTakeRows"
	// TakenRows gives the state that was kept last, as the State of a RowsTaken.
	TakenRows = "TenfoldTakenRows"
)

// RowsTaken is what TakeRows is told.
type RowsTaken struct {
	Bus   string          `json:"bus"`
	From  string          `json:"from"`
	Rows  []Row           `json:"rows,omitempty"`
	State json.RawMessage `json:"state,omitempty"`
}

// Row is a row as an event.
type Row struct {
	ID     string    `json:"id"`
	Source string    `json:"source"`
	Type   string    `json:"type"`
	Time   time.Time `json:"time"`
	// Detail is JSON as the row has it, in text: it may be none.
	Detail string `json:"detail"`
}

// rowCounts are of a bus.
type rowCounts struct {
	taken, refused atomic.Int64
	last           atomic.Pointer[string] // why a row was refused
}

func rowsKey(account string, x *RowsTaken) []byte {
	return named(kindOutbox, place{account, x.Bus + "/" + x.From})
}

// rows serves TakeRows and TakenRows; ok: it is one of them.
func (s *Store) rows(q *awsapi.Request) (out any, ok bool, err error) {
	if q.Operation != TakeRows && q.Operation != TakenRows {
		return nil, false, nil
	}
	var x RowsTaken
	if err := json.Unmarshal(q.Body, &x); err != nil {
		return nil, true, invalid("%v", err)
	}
	if q.Operation == TakeRows {
		return none{}, true, s.takeRows(q.Caller.Account, &x)
	}
	raw, closer, err := s.db.Get(rowsKey(q.Caller.Account, &x))
	if errors.Is(err, pebble.ErrNotFound) {
		return RowsTaken{}, true, nil
	}
	if err != nil {
		return nil, true, err
	}
	defer closer.Close()
	return RowsTaken{State: append(json.RawMessage{}, raw...)}, true, nil
}

func (s *Store) takeRows(account string, x *RowsTaken) error {
	if err := s.db.Writable(); err != nil {
		return err
	}
	b := s.busRead(account, x.Bus)
	if b == nil {
		return missing("Event bus %s does not exist.", x.Bus)
	}
	now := time.Now()
	batch := s.db.NewBatch()
	defer batch.Close()
	var all []waiting
	for _, r := range x.Rows {
		e := entry{Source: r.Source, DetailType: r.Type, Detail: r.Detail}
		if _, wrong := e.check(); wrong != "" || e.size() > maxPut {
			// It stays in its table. To wait for it to be another one would hold up all that come after.
			if wrong == "" {
				wrong = fmt.Sprintf("it has more than %d bytes", maxPut)
			}
			text := fmt.Sprintf("row %s: %s", r.ID, wrong)
			b.uses.rows.refused.Add(1)
			b.uses.rows.last.Store(&text)
			s.cfg.Log.Error("a row of an outbox is no event", "bus", x.Bus, "from", x.From, "row", r.ID, "err", wrong)
			continue
		}
		raw, err := e.envelopeAs(account, r.ID, r.Time)
		if err != nil {
			return err
		}
		b.uses.Puts.Add(1)
		b.uses.rows.taken.Add(1)
		if all, err = s.spread(batch, b, raw, spreading{at: now, made: all}); err != nil {
			return err
		}
	}
	if err := batch.Set(rowsKey(account, x), x.State, nil); err != nil {
		return err
	}
	return s.commit(batch, all)
}
