// Package source feeds functions from event sources, as Lambda's event source mappings do: it takes records in
// batches, has a function called with them, and sees to what became of each.
//
// There are two kinds. A Queue gives each record to whoever asks first, and each is done by itself: a Drainer
// (drainer.go) takes batches and has several under way at once. A Stream gives records in order, shard by shard: a
// Follower (follower.go) keeps the order of each key, remembers how far it came, and halves what fails. Both are
// neutral of what they read; sqs.go and dynamo.go say how it is read at the stores' process. Nothing here starts
// by itself: a Drainer or Follower works while its Run does, and its Run ends when what was in hand is done.
// Source: "Invoking Lambda with records from" Amazon SQS and DynamoDB Streams, AWS Lambda Developer Guide.
package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Record is one thing that happened.
type Record struct {
	// ID is how a function names it in batchItemFailures: a queue's message id, a stream's sequence number.
	ID string
	// Key is what it has its order with: records of one are never worked at side by side. "": it has none.
	Key string
	// At is when it was made, or the zero time.
	At time.Time
	// Body is the record as it stands in the event.
	Body json.RawMessage
	// Handle is the source's own: a receipt handle, or the position right after the record.
	Handle string
}

// Settings are how records become batches.
type Settings struct {
	// Batch is how many records one call gets at most; Wait how long it is waited for so many, 0: not at all.
	Batch int           `json:"batch"`
	Wait  time.Duration `json:"wait,omitempty"`
	// Parallel is how many calls may be under way: of a queue in all, of a stream in each shard.
	Parallel int `json:"parallel"`
	// Match is a pattern of EventBridge; records that it does not take are passed over. "": all are taken.
	Match string `json:"match,omitempty"`

	// These are of streams. Start is where a shard is read from that was never read: Latest or Oldest.
	Start string `json:"start,omitempty"`
	// Bisect halves a batch that failed rather than trying it again whole.
	Bisect bool `json:"bisect,omitempty"`
	// Retries is how often again, negative: until Age. Age is how old a record may get; 0: any age.
	Retries int           `json:"retries,omitempty"`
	Age     time.Duration `json:"age,omitempty"`
}

// Where the reading of a stream begins.
const (
	Latest = "latest"
	Oldest = "oldest"
)

// Call has the function work at an event and gives its answer. ErrBusy: it takes none now. Another error: it failed.
type Call func(ctx context.Context, event []byte) (answer []byte, err error)

// ErrBusy says that a function was not called: it has no room, or takes nothing any more.
var ErrBusy = errors.New("the function has no room")

// Use is what a source gave, since the process began, and gives now.
type Use struct {
	Batches  uint64 `json:"batches"`
	Records  uint64 `json:"records"`  // that were done
	Failed   uint64 `json:"failed"`   // that were not, counted each time
	Dropped  uint64 `json:"dropped"`  // that were given up on; a queue does that by itself
	Filtered uint64 `json:"filtered"` // that Match did not take
	Working  int    `json:"working"`  // batches that are under way
	Throttle uint64 `json:"throttle"` // how often there was no room
	// Trouble says why nothing can be read now; "": it can. Last is the last failure of a batch.
	Trouble string `json:"trouble,omitempty"`
	Last    string `json:"last,omitempty"`
	// Behind is the age of the oldest record of a stream that is not done.
	Behind time.Duration `json:"behind,omitempty"`
}

// tally counts. Safe for concurrent use.
type tally struct {
	mu  sync.Mutex
	use Use
}

func (t *tally) count(f func(*Use)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.use)
}

// trouble notes why nothing can be read, and says whether that is new.
func (t *tally) trouble(err error) bool {
	text := ""
	if err != nil {
		text = err.Error()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fresh := t.use.Trouble != text
	t.use.Trouble = text
	return fresh
}

// most is how many bytes an event may have: Lambda's 6 MB for a call, less some for what is around the records.
const most = 6<<20 - 4096

// event is what a function is called with.
func event(records []Record) []byte {
	var b bytes.Buffer
	b.WriteString(`{"Records":[`)
	for i, r := range records {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(r.Body)
	}
	b.WriteString("]}")
	return b.Bytes()
}

// parts cuts records into what fits into one event each.
func parts(records []Record) [][]Record {
	var out [][]Record
	first, size := 0, 0
	for i, r := range records {
		if n := len(r.Body) + 1; size+n > most && i > first {
			out, first, size = append(out, records[first:i]), i, n
		} else {
			size += n
		}
	}
	if first < len(records) {
		out = append(out, records[first:])
	}
	return out
}

// failures reads which records a function says it could not do: nil for none. all says that none counts as done: what
// it said names a record that it was not given, or none ("Reporting batch item failures": complete failure). An
// answer of any other form is a success.
func failures(answer []byte, records []Record) (failed map[string]bool, all error) {
	var said struct {
		Items json.RawMessage `json:"batchItemFailures"`
	}
	trimmed := bytes.TrimSpace(answer)
	if len(trimmed) == 0 || trimmed[0] != '{' || json.Unmarshal(trimmed, &said) != nil || len(said.Items) == 0 || string(said.Items) == "null" {
		return nil, nil
	}
	var items []struct {
		ID *string `json:"itemIdentifier"`
	}
	if err := json.Unmarshal(said.Items, &items); err != nil {
		return nil, errors.New("batchItemFailures is no list of {itemIdentifier}")
	}
	for _, x := range items {
		if x.ID == nil || !slices.ContainsFunc(records, func(r Record) bool { return r.ID == *x.ID }) {
			name := "nothing"
			if x.ID != nil {
				name = fmt.Sprintf("%q", *x.ID)
			}
			return nil, fmt.Errorf("batchItemFailures names %.80s, which is no record of the batch", name)
		}
		if failed == nil {
			failed = map[string]bool{}
		}
		failed[*x.ID] = true
	}
	return failed, nil
}

// pause waits; false: ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}

// Ask asks a service of AWS for an operation, as the owner of an account. What it refuses is a *Refusal.
type Ask func(ctx context.Context, account, service, operation string, question, answer any) error

// Refusal is what a service says that it does not do: however often it is asked the same.
type Refusal struct{ Code, Message string }

func (r *Refusal) Error() string { return r.Code + ": " + r.Message }

// code is that of a refusal in err, or "".
func code(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}
