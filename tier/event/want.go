package event

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/google/uuid"
)

// Wanted is a bus as a manifest has it.
type Wanted struct {
	Name    string
	Archive time.Duration // 0: none
	Rules   []WantedRule
}

// WantedRule is a rule as a manifest has it.
type WantedRule struct {
	Name     string
	Pattern  string // JSON; "": by Schedule
	Schedule string // rate(…), at(…), or the five fields of cron
	Zone     string
	Window   time.Duration
	Retries  int
	Age      time.Duration
	Dead     string // a queue; "": none
	Paths    map[string]string
	Template string // "": the event as it is
	Targets  []WantedTarget
}

// WantedTarget is where a rule's events go. One of Queue, Function, Job, Bus and URL is set.
type WantedTarget struct {
	Queue, Function, Job, Bus string

	URL string
	// Header is set to Secret; with User it is basic authentication, and with neither a bearer token. "": nothing.
	Header, User, Secret string
	// Keyed says that there has to be a Secret: without it nothing is sent, until it is handed down.
	Keyed bool
	Every time.Duration // between two calls; 0: none
}

// manifestArchive is the name of a bus' archive that a manifest asks for.
func manifestArchive(bus string) string { return cut(bus, 40) + "-archive" }

// Want makes the buses that a manifest names in an account, with their rules; those that it names no longer
// are a client's from now on, and their rules of the manifest go. The errors are by name.
func (s *Store) Want(_ context.Context, account string, all []Wanted) map[string]error {
	errs := map[string]error{}
	wanted := map[string]bool{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range all {
		wanted[w.Name] = true
		if err := s.want(account, w); err != nil {
			errs[w.Name] = err
		}
	}
	for _, b := range of(s.buses, account) {
		if b.Kept && !wanted[b.Name] {
			if err := s.letGo(b); err != nil {
				s.cfg.Log.Error("let go of an event bus", "bus", b.Name, "err", err)
			}
		}
	}
	return errs
}

func (s *Store) letGo(b *bus) error {
	for _, r := range b.rules {
		if r.Kept {
			if err := s.removeRule(b, r); err != nil {
				return err
			}
		}
	}
	if err := s.dropEndpoints(b, nil); err != nil {
		return err
	}
	next := *b
	next.Kept = false
	if err := s.put(named(kindBus, place{b.Account, b.Name}), &next); err != nil {
		return err
	}
	*b = next
	return nil
}

// want makes one bus. Call with mu held.
func (s *Store) want(account string, w Wanted) error {
	p := place{account, w.Name}
	now := time.Now().UnixMilli()
	b := s.buses[p]
	if b == nil || !b.Kept {
		next := bus{Account: account, Name: w.Name, Created: now, Modified: now}
		if b != nil {
			next = *b
		}
		next.Kept = true
		if next.Created == 0 {
			next.Created, next.Modified = now, now
		}
		if err := s.put(named(kindBus, p), &next); err != nil {
			return err
		}
		if b == nil {
			b = &next
			s.addBus(b)
		} else {
			*b = next
		}
	}
	if err := s.wantArchive(b, w.Archive); err != nil {
		return err
	}
	names, ends := map[string]bool{}, map[string]bool{}
	for _, x := range w.Rules {
		names[x.Name] = true
		if err := s.wantRule(b, x, ends); err != nil {
			return fmt.Errorf("rule %s: %w", x.Name, err)
		}
	}
	for _, r := range b.rules {
		if r.Kept && !names[r.Name] {
			if err := s.removeRule(b, r); err != nil {
				return err
			}
		}
	}
	return s.dropEndpoints(b, ends)
}

// dropEndpoints deletes a bus' endpoints of the manifest but those named.
func (s *Store) dropEndpoints(b *bus, but map[string]bool) error {
	for p, e := range s.endpoints {
		if e.Account != b.Account || e.Kept != b.Name || but[e.Name] {
			continue
		}
		if err := s.drop(named(kindEndpoint, p), named(kindConnection, p)); err != nil {
			return err
		}
		delete(s.endpoints, p)
		delete(s.conns, p)
	}
	return nil
}

func (s *Store) wantRule(b *bus, w WantedRule, ends map[string]bool) error {
	r := &rule{Account: b.Account, Bus: b.Name, Name: w.Name, Pattern: w.Pattern, Expression: w.Schedule, Zone: w.Zone, Window: int64(w.Window / time.Second), State: enabled, Kept: true}
	was := b.rules[w.Name]
	if was != nil && was.Expression == r.Expression && was.Zone == r.Zone {
		r.Began = was.Began
	} else {
		r.Began = time.Now().UnixMilli()
	}
	if was != nil {
		r.Tags = was.Tags
	}
	age := int(w.Age / time.Second)
	for i, x := range w.Targets {
		t := target{ID: "t" + itoa(i+1), RetryPolicy: &retryPolicy{&w.Retries, &age}}
		if w.Dead != "" {
			t.DeadLetterConfig = &deadLetter{arn("sqs", b.Account, w.Dead)}
		}
		if w.Template != "" {
			t.InputTransformer = &inputTransformer{w.Paths, w.Template}
		}
		switch {
		case x.Queue != "":
			t.Arn = arn("sqs", b.Account, x.Queue)
		case x.Function != "":
			t.Arn = arn("lambda", b.Account, "function:"+x.Function)
		case x.Job != "":
			t.Arn = arn("ecs", b.Account, "task-definition/"+x.Job)
		case x.Bus != "":
			t.Arn = arn("events", b.Account, "event-bus/"+x.Bus)
		default:
			e, err := s.wantEndpoint(b, b.Name+"-"+w.Name+"-"+itoa(i+1), x)
			if err != nil {
				return err
			}
			ends[e.Name] = true
			t.Arn = e.arn()
		}
		if err := t.check(b.Account); err != nil {
			return err
		}
		r.Targets = append(r.Targets, t)
	}
	if was != nil {
		x, _ := json.Marshal(was)
		y, _ := json.Marshal(r)
		if string(x) == string(y) {
			return nil
		}
	}
	return s.putRuleAs(b, r)
}

// wantEndpoint makes an endpoint and its connection, whose secret stays in memory.
func (s *Store) wantEndpoint(b *bus, name string, w WantedTarget) (*endpoint, error) {
	if err := checkURL(w.URL); err != nil {
		return nil, err
	}
	now := time.Now().UnixMilli()
	p := place{b.Account, name}
	c := &connection{Account: b.Account, Name: name, ID: uuid.NewString(), Kind: "API_KEY", Created: now, Modified: now, Kept: b.Name, given: &authParameters{}}
	switch {
	case w.Keyed && w.Secret == "":
		c.given = nil
	case w.Secret == "":
	case w.User != "":
		c.Kind, c.given.BasicAuthParameters = "BASIC", &basicAuth{w.User, w.Secret}
	case w.Header != "":
		c.given.ApiKeyAuthParameters = &keyAuth{w.Header, w.Secret}
	default:
		c.given.ApiKeyAuthParameters = &keyAuth{"Authorization", "Bearer " + w.Secret}
	}
	e := &endpoint{Account: b.Account, Name: name, ID: uuid.NewString(), URL: w.URL, Method: "POST", Rate: defaultRate, Every: w.Every.Milliseconds(), Connection: name, Created: now, Modified: now, Kept: b.Name}
	if was := s.conns[p]; was != nil {
		c.ID, c.Created, c.Modified = was.ID, was.Created, was.Modified
	}
	if was := s.endpoints[p]; was != nil {
		e.ID, e.Created, e.Modified = was.ID, was.Created, was.Modified
	}
	if was := s.conns[p]; was == nil || was.Kind != c.Kind || was.Kept != c.Kept {
		if err := s.put(named(kindConnection, p), c); err != nil {
			return nil, err
		}
	}
	if was := s.endpoints[p]; was == nil || !reflect.DeepEqual(was, e) {
		if err := s.put(named(kindEndpoint, p), e); err != nil {
			return nil, err
		}
	}
	s.conns[p], s.endpoints[p] = c, e
	return e, nil
}

// Remove deletes a bus with its rules and archives; one that is not there is no error.
func (s *Store) Remove(_ context.Context, account, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buses[place{account, name}]; b != nil {
		return s.removeBus(b)
	}
	return nil
}

// Use is what happened on a bus since the process began, under CloudWatch's names.
type Use struct {
	PutEvents             int64 `json:"putEvents"`
	MatchedEvents         int64 `json:"matchedEvents"`
	TriggeredRules        int64 `json:"triggeredRules"`
	Invocations           int64 `json:"invocations"`
	SuccessfulInvocations int64 `json:"successfulInvocations"`
	FailedInvocations     int64 `json:"failedInvocations"`
	RetryInvocations      int64 `json:"retryInvocations"`
	InvocationsSentToDLQ  int64 `json:"invocationsSentToDlq"`
	InvocationsDropped    int64 `json:"invocationsDropped"`
	// OutboxRows became events; OutboxRowsRefused are none, Refused says why of the last.
	OutboxRows             int64  `json:"outboxRows,omitempty"`
	OutboxRowsRefused      int64  `json:"outboxRowsRefused,omitempty"`
	Refused                string `json:"refused,omitempty"`
	Rules                  int    `json:"rules"`
	DeliveriesWaitingInAll int64  `json:"deliveriesWaitingInAll"` // of all accounts
}

// Uses are those of an account's buses, by name.
func (s *Store) Uses(account string) map[string]Use {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := map[string]Use{}
	for _, b := range of(s.buses, account) {
		u := b.uses
		x := Use{PutEvents: u.Puts.Load(), MatchedEvents: u.Matched.Load(), TriggeredRules: u.Triggered.Load(), Invocations: u.Invocations.Load(), SuccessfulInvocations: u.Delivered.Load(),
			FailedInvocations: u.Failed.Load(), RetryInvocations: u.Retried.Load(), InvocationsSentToDLQ: u.Buried.Load(), InvocationsDropped: u.Dropped.Load(),
			OutboxRows: u.rows.taken.Load(), OutboxRowsRefused: u.rows.refused.Load(), Rules: len(b.rules), DeliveriesWaitingInAll: s.counts.waiting.Load()}
		if p := u.rows.last.Load(); p != nil {
			x.Refused = *p
		}
		out[b.Name] = x
	}
	return out
}
