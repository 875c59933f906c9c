package event

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/uuid"

	"tenfold/internal/awsapi"
	"tenfold/internal/kv"
	"tenfold/tier/event/transform"
)

const (
	maxEntries = 10
	// maxPut is how much the entries of one request have together, in bytes.
	maxPut = 1 << 20
	// maxHops is how often an event goes from one bus to another.
	maxHops = 5
)

// entry is an event as PutEvents has it.
type entry struct {
	Source, DetailType, Detail, EventBusName, TraceHeader string
	Resources                                             []string
	Time                                                  *float64
}

// size counts an entry as EventBridge does.
func (e *entry) size() int {
	n := len(e.Source) + len(e.DetailType) + len(e.Detail)
	for _, r := range e.Resources {
		n += len(r)
	}
	if e.Time != nil {
		n += 14
	}
	return n
}

// envelope is an event as rules see it, in EventBridge's order.
type envelope struct {
	Version    string          `json:"version"`
	ID         string          `json:"id"`
	DetailType string          `json:"detail-type"`
	Source     string          `json:"source"`
	Account    string          `json:"account"`
	Time       string          `json:"time"`
	Region     string          `json:"region"`
	Resources  []string        `json:"resources"`
	Detail     json.RawMessage `json:"detail"`
	Replay     string          `json:"replay-name,omitempty"`
}

// ownSource begins the sources that only AWS' own services have; codeSource refuses them to others.
const ownSource, codeSource = "aws.", "NotAuthorizedForSourceException"

const eventTime = "2006-01-02T15:04:05Z"

// check says what is wrong with an entry; code "": nothing.
func (e *entry) check() (code, message string) {
	missing := func(name string) (string, string) {
		return "InvalidArgument", "Parameter " + name + " is not valid. Reason: " + name + " is a required argument."
	}
	switch {
	case e.Source == "":
		return missing("Source")
	case strings.HasPrefix(e.Source, ownSource):
		return codeSource, "Not authorized for the source."
	case e.DetailType == "":
		return missing("DetailType")
	case len(e.Source) > 256 || len(e.DetailType) > 128:
		return "InvalidArgument", "Parameter Source or DetailType is not valid. Reason: Source has up to 256 characters, DetailType up to 128."
	case e.Detail == "":
		return missing("Detail")
	}
	d := bytes.TrimSpace([]byte(e.Detail))
	if len(d) == 0 || d[0] != '{' || !json.Valid(d) {
		return "MalformedDetail", "Detail is malformed."
	}
	return "", ""
}

func (e *entry) envelope(account string, now time.Time) ([]byte, string, error) {
	at := now
	if e.Time != nil {
		at = time.UnixMilli(int64(*e.Time * 1000))
	}
	id := uuid.NewString()
	raw, err := e.envelopeAs(account, id, at)
	return raw, id, err
}

func (e *entry) envelopeAs(account, id string, at time.Time) ([]byte, error) {
	x := envelope{Version: "0", ID: id, DetailType: e.DetailType, Source: e.Source, Account: account, Time: at.UTC().Format(eventTime),
		Region: awsapi.Region, Resources: e.Resources, Detail: json.RawMessage(e.Detail)}
	if x.Resources == nil {
		x.Resources = []string{}
	}
	return marshal(x)
}

// marshal is json.Marshal that leaves <, > and & as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// putEvents is PutEvents.
func (s *Store) putEvents(c awsapi.Caller, in *input) (any, error) {
	if err := lengthOK("entries", len(in.Entries), maxEntries); err != nil {
		return nil, err
	}
	size := 0
	for i := range in.Entries {
		size += in.Entries[i].size()
	}
	if size > maxPut {
		return nil, invalid("Total size of the entries in the request is over the limit.")
	}
	if err := s.db.Writable(); err != nil {
		return nil, err
	}
	now := time.Now()
	out, failed := make([]member, len(in.Entries)), 0
	batch := s.db.NewBatch()
	defer batch.Close()
	var all []waiting
	for i := range in.Entries {
		e := &in.Entries[i]
		name, err := busName(c, e.EventBusName)
		if err != nil {
			return nil, err
		}
		b := s.busRead(c.Account, name)
		if !s.mayBus(c, name, b) {
			return nil, denied(c, "PutEvents", arn("events", c.Account, "event-bus/"+name), name)
		}
		code, message := e.check()
		if code == codeSource && c.Of == awsapi.Owner { // the house's own services: S3's notifications
			e.Source = strings.TrimPrefix(e.Source, ownSource)
			code, message = e.check()
			e.Source = ownSource + e.Source
		}
		if code == "" && b == nil {
			code, message = "ResourceNotFoundException", "Event bus "+name+" does not exist."
		}
		if code != "" {
			out[i] = member{"ErrorCode": code, "ErrorMessage": message}
			failed++
			continue
		}
		raw, id, err := e.envelope(c.Account, now)
		if err != nil {
			return nil, err
		}
		b.uses.Puts.Add(1)
		if all, err = s.spread(batch, b, raw, spreading{at: now, made: all}); err != nil {
			return nil, err
		}
		out[i] = member{"EventId": id}
	}
	if err := s.commit(batch, all); err != nil {
		return nil, err
	}
	return member{"FailedEntryCount": failed, "Entries": out}, nil
}

// commit has a batch on disk, then has its deliveries made.
func (s *Store) commit(b *pebble.Batch, all []waiting) error {
	if b.Empty() {
		return nil
	}
	if err := s.db.Commit(b); err != nil {
		return err
	}
	s.take(all)
	return nil
}

// take has deliveries made that are on disk.
func (s *Store) take(all []waiting) {
	if len(all) == 0 {
		return
	}
	s.pending.Lock()
	s.arrived = append(s.arrived, all...)
	s.pending.Unlock()
	prod(s.news)
}

// spreading is how an event is given to a bus.
type spreading struct {
	at   time.Time
	hops int
	// rules are those that may take it, by ARN; nil: all. replay: it is played again, and not archived again.
	rules  map[string]bool
	replay bool
	made   []waiting
}

// spread adds to a batch what becomes of an event on a bus: what archives keep, and a delivery for each
// target. It returns the deliveries, which are to be taken once the batch is on disk.
func (s *Store) spread(batch *pebble.Batch, b *bus, event []byte, o spreading) ([]waiting, error) {
	var tree any
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !o.replay {
		for _, a := range s.archives {
			if a.Account != b.Account || a.Bus != b.Name || a.takes != nil && !a.takes.Matches(event) {
				continue
			}
			if err := batch.Set(historyKey(a.Number, o.at.UnixMilli(), s.next.Add(1)), event, nil); err != nil {
				return nil, err
			}
		}
	}
	for _, r := range b.rules {
		if r.State == disabled || r.takes == nil || o.rules != nil && !o.rules[r.arn()] || !r.takes.Matches(event) {
			continue
		}
		b.uses.Matched.Add(1)
		if tree == nil {
			v, err := transform.Decode(event)
			if err != nil {
				return nil, fmt.Errorf("read an event: %w", err)
			}
			tree = v
		}
		var err error
		if o.made, err = s.fire(batch, b, r, event, tree, o); err != nil {
			return nil, err
		}
	}
	return o.made, nil
}

// fire adds the deliveries of an event to a rule's targets. Call with mu held for reading.
func (s *Store) fire(batch *pebble.Batch, b *bus, r *rule, event []byte, tree any, o spreading) ([]waiting, error) {
	f := transform.Facts{RuleARN: r.arn(), RuleName: r.Name, Ingested: o.at.UTC().Format("2006-01-02T15:04:05.000Z")}
	for i := range r.Targets {
		t := &r.Targets[i]
		d := t.delivery(r.Account, o.at)
		d.Body, d.Rule, d.Bus, d.Hops = string(t.input(event, tree, f)), r.arn(), r.Bus, o.hops
		b.uses.Triggered.Add(1)
		w, err := s.add(batch, d)
		if err != nil {
			return nil, err
		}
		o.made = append(o.made, w)
	}
	return o.made, nil
}

// delivery is one to the target, that is due at once.
func (t *target) delivery(account string, at time.Time) *delivery {
	d := &delivery{ID: uuid.NewString(), Account: account, Arn: t.Arn, Target: t.ID, HTTP: t.HttpParameters, Job: t.job(), Retries: t.retries(), Age: t.age(), At: at.UnixMilli(), Due: at.UnixMilli()}
	if t.SqsParameters != nil {
		d.Group = t.SqsParameters.MessageGroupId
	}
	if t.DeadLetterConfig != nil {
		d.Dead = t.DeadLetterConfig.Arn
	}
	return d
}

// add writes a delivery into a batch.
func (s *Store) add(batch *pebble.Batch, d *delivery) (waiting, error) {
	n := s.next.Add(1)
	return d.waiting(n), set(batch, deliveryKey(n), d)
}

func historyKey(archive uint64, ms int64, n uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{kv.Events, kindHistory}, archive)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(ms)), n)
}
