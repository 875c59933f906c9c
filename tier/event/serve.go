package event

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
	"tenfold/internal/pattern"
)

type (
	member = map[string]any
	none   struct{}
)

// input are the members of all requests in JSON.
type input struct {
	Name, NamePrefix, NextToken, EventBusName, EventSourceName, KmsKeyIdentifier string
	Limit                                                                        *int
	Description                                                                  *string
	DeadLetterConfig                                                             *deadLetter
	Tags                                                                         []tag
	TagKeys                                                                      []string
	ResourceARN                                                                  string
	Entries                                                                      []entry
	Event                                                                        string

	Rule, ScheduleExpression, State, RoleArn string
	EventPattern                             *string
	Force                                    bool
	Targets                                  []target
	Ids                                      []string
	TargetArn                                string
	StatementId, Principal, Action, Policy   string
	Condition                                *condition
	RemoveAllPermissions                     bool

	ArchiveName, EventSourceArn  string
	RetentionDays                *int
	ReplayName                   string
	EventStartTime, EventEndTime float64
	Destination                  *replayDestination
	AuthorizationType            string
	AuthParameters               *authParameters
	ConnectionState              string
	ConnectionArn                string
	InvocationEndpoint           string
	HttpMethod                   string
	InvocationRateLimitPerSecond *int
}

type tag struct{ Key, Value string }

func fault(code, format string, args ...any) *awsapi.Fault {
	return &awsapi.Fault{Code: code, Message: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) error { return fault("ValidationException", format, args...) }

func missing(format string, args ...any) error {
	return fault("ResourceNotFoundException", format, args...)
}

func exists(format string, args ...any) error {
	return fault("ResourceAlreadyExistsException", format, args...)
}

// badName says what is wrong with a name that nameOK refuses.
func badName(what, name string, most int) error {
	switch {
	case name == "":
		return invalid("1 validation error detected: Value '' at '%s' failed to satisfy constraint: Member must have length greater than or equal to 1", what)
	case nameOK(name, len(name)):
		return invalid("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must have length less than or equal to %d", cut(name, 100), what, most)
	}
	return invalid("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\.\\-_A-Za-z0-9]+", cut(name, 100), what)
}

// lengthOK refuses a list that is empty or longer than most.
func lengthOK(what string, n, most int) error {
	switch {
	case n == 0:
		return invalid("1 validation error detected: Value '[]' at '%s' failed to satisfy constraint: Member must have length greater than or equal to 1", what)
	case n > most:
		return invalid("1 validation error detected: Value at '%s' failed to satisfy constraint: Member must have length less than or equal to %d", what, most)
	}
	return nil
}

// keptError refuses to change what a manifest names.
func keptError(what, name, bus string) error {
	return fault("ManagedRuleException", "%s %s cannot be changed by a client, because tenfold.yaml names it: change it there, below events.%s, and deploy", what, name, bus)
}

func denied(c awsapi.Caller, operation, arn, need string) error {
	return awsapi.Denied(c, "events:"+operation, arn, need)
}

func nameOK(s string, most int) bool {
	return s != "" && len(s) <= most && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
	}) < 0
}

// stamp is a moment as AWS JSON has it: seconds.
func stamp(ms int64) float64 { return float64(ms) / 1000 }

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// busName reads the name or the ARN of a bus of the caller's account.
func busName(c awsapi.Caller, s string) (string, error) {
	if s == "" {
		return defaultBus, nil
	}
	if !strings.HasPrefix(s, "arn:") {
		return s, nil
	}
	service, account, rest, ok := resource(s)
	name, is := strings.CutPrefix(rest, "event-bus/")
	switch {
	case !ok || !is || service != "events":
		return "", invalid("%q is no ARN of an event bus", s)
	case account != c.Account:
		return "", fault("AccessDeniedException", "%s is of another account: an environment of an app reaches its own", s)
	}
	return name, nil
}

// mayBus says whether a caller may use a bus: its `uses` names it, or it made it.
func (s *Store) mayBus(c awsapi.Caller, name string, b *bus) bool {
	return c.May("events", name) || b != nil && b.By != "" && b.By == c.Of
}

// busFor finds the bus of a request.
func (s *Store) busFor(c awsapi.Caller, operation, said string) (*bus, error) {
	name, err := busName(c, said)
	if err != nil {
		return nil, err
	}
	b := s.busRead(c.Account, name)
	if !s.mayBus(c, name, b) {
		return nil, denied(c, operation, arn("events", c.Account, "event-bus/"+name), name)
	}
	if b == nil {
		return nil, missing("Event bus %s does not exist.", name)
	}
	return b, nil
}

// mayReach says whether a caller may have something sent to a target: what it could not use by itself a rule
// must not do for it.
func (s *Store) mayReach(c awsapi.Caller, operation, a string) error {
	if c.May("events", awsapi.Every) {
		return nil
	}
	service, _, rest, _ := resource(a)
	name := rest
	switch {
	case service == "lambda":
		name, _, _ = strings.Cut(strings.TrimPrefix(rest, "function:"), ":")
	case service == "events" && strings.HasPrefix(rest, "event-bus/"):
		name = strings.TrimPrefix(rest, "event-bus/")
		if s.mayBus(c, name, s.buses[place{c.Account, name}]) {
			return nil
		}
		return denied(c, operation, a, name)
	case service == "events", service == "ecs":
		return nil
	}
	if c.May(service, name) {
		return nil
	}
	return denied(c, operation, a, strings.TrimSuffix(name, ".fifo"))
}

// Served is the store as a front has it.
func (s *Store) Served() awsapi.Served {
	return awsapi.Served{Service: s, Limit: 4 << 20, Targets: []string{"AWSEvents"}, Operations: func(name string) bool { return operationOf(name) != nil }}
}

type call func(*Store, awsapi.Caller, *input) (any, error)

func operationOf(name string) call {
	switch name {
	case "PutEvents":
		return (*Store).putEvents
	case "TestEventPattern":
		return (*Store).testPattern
	case "CreateEventBus":
		return (*Store).createBus
	case "DescribeEventBus":
		return (*Store).describeBus
	case "UpdateEventBus":
		return (*Store).updateBus
	case "DeleteEventBus":
		return (*Store).deleteBus
	case "ListEventBuses":
		return (*Store).listBuses
	case "PutPermission":
		return (*Store).putPermission
	case "RemovePermission":
		return (*Store).removePermission
	case "PutRule":
		return (*Store).putRule
	case "DeleteRule":
		return (*Store).deleteRule
	case "DescribeRule":
		return (*Store).describeRule
	case "ListRules":
		return (*Store).listRules
	case "EnableRule":
		return func(s *Store, c awsapi.Caller, in *input) (any, error) {
			return s.switchRule(c, in, "EnableRule", enabled)
		}
	case "DisableRule":
		return func(s *Store, c awsapi.Caller, in *input) (any, error) {
			return s.switchRule(c, in, "DisableRule", disabled)
		}
	case "PutTargets":
		return (*Store).putTargets
	case "RemoveTargets":
		return (*Store).removeTargets
	case "ListTargetsByRule":
		return (*Store).listTargets
	case "ListRuleNamesByTarget":
		return (*Store).rulesByTarget
	case "CreateArchive":
		return (*Store).createArchive
	case "DescribeArchive":
		return (*Store).describeArchive
	case "UpdateArchive":
		return (*Store).updateArchive
	case "DeleteArchive":
		return (*Store).deleteArchive
	case "ListArchives":
		return (*Store).listArchives
	case "StartReplay":
		return (*Store).startReplay
	case "DescribeReplay":
		return (*Store).describeReplay
	case "ListReplays":
		return (*Store).listReplays
	case "CancelReplay":
		return (*Store).cancelReplay
	case "CreateConnection":
		return (*Store).createConnection
	case "DescribeConnection":
		return (*Store).describeConnection
	case "UpdateConnection":
		return (*Store).updateConnection
	case "DeleteConnection":
		return (*Store).deleteConnection
	case "ListConnections":
		return (*Store).listConnections
	case "CreateApiDestination":
		return (*Store).createEndpoint
	case "DescribeApiDestination":
		return (*Store).describeEndpoint
	case "UpdateApiDestination":
		return (*Store).updateEndpoint
	case "DeleteApiDestination":
		return (*Store).deleteEndpoint
	case "ListApiDestinations":
		return (*Store).listEndpoints
	case "TagResource":
		return (*Store).tag
	case "UntagResource":
		return (*Store).untag
	case "ListTagsForResource":
		return (*Store).listTags
	}
	return nil
}

// Serve implements awsapi.Service.
func (s *Store) Serve(_ context.Context, q *awsapi.Request) ([]byte, error) {
	if out, ok, err := s.rows(q); ok {
		if err != nil {
			return nil, err
		}
		return marshal(out)
	}
	op := operationOf(q.Operation)
	if op == nil {
		return nil, fault("UnknownOperationException", "EventBridge's %s is not served", q.Operation)
	}
	var in input
	if err := json.Unmarshal(q.Body, &in); err != nil {
		return nil, fault("SerializationException", "the request is not as %s has it: %v", q.Operation, err)
	}
	if len(q.Caller.Uses["events"]) == 0 {
		return nil, denied(q.Caller, q.Operation, arn("events", q.Caller.Account, "event-bus/"+defaultBus), "a bus")
	}
	if err := s.writable(q.Operation); err != nil {
		return nil, err
	}
	out, err := op(s, q.Caller, &in)
	if err != nil {
		var p *pattern.Error
		if errors.As(err, &p) {
			return nil, fault("InvalidEventPatternException", "%s", p)
		}
		return nil, err
	}
	return marshal(out)
}

// writable refuses what would write to a full disk, in words.
func (s *Store) writable(operation string) error {
	for _, read := range []string{"Describe", "List", "Get", "Test"} {
		if strings.HasPrefix(operation, read) {
			return nil
		}
	}
	if err := s.db.Writable(); err != nil {
		return &awsapi.Fault{Status: http.StatusServiceUnavailable, Code: "InternalException", Message: err.Error()}
	}
	return nil
}

// paged gives one page of a list. A token is where the next begins.
func paged[T any](name string, all []T, in *input) (any, error) {
	from, most := 0, 100
	if in.Limit != nil {
		if most = *in.Limit; most < 1 || most > 100 {
			return nil, invalid("Limit is from 1 to 100")
		}
	}
	if in.NextToken != "" {
		raw, err := base64.RawURLEncoding.DecodeString(in.NextToken)
		if err == nil {
			_, err = fmt.Sscanf(string(raw), "%d", &from)
		}
		if err != nil || from < 0 {
			return nil, invalid("NextToken is not one that was given out")
		}
	}
	from = min(from, len(all))
	out := member{name: all[from:min(from+most, len(all))]}
	if from+most < len(all) {
		out["NextToken"] = base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d", from+most))
	}
	return out, nil
}

func (s *Store) testPattern(_ awsapi.Caller, in *input) (any, error) {
	if in.EventPattern == nil {
		return nil, invalid("EventPattern is required")
	}
	p, err := pattern.Parse([]byte(*in.EventPattern))
	if err != nil {
		return nil, err
	}
	var m map[string]json.RawMessage
	if json.Unmarshal([]byte(in.Event), &m) != nil || m == nil {
		return nil, invalid("Parameter Event is not valid.")
	}
	for _, k := range []string{"id", "account", "source", "time", "region", "resources", "detail-type"} {
		if m[k] == nil {
			return nil, invalid("Parameter Event is not valid. Reason: %s is required.", k)
		}
	}
	return member{"Result": p.Matches([]byte(in.Event))}, nil
}

func (s *Store) createBus(c awsapi.Caller, in *input) (any, error) {
	if !nameOK(in.Name, 256) || in.Name == defaultBus {
		if in.Name == defaultBus {
			return nil, exists("Event bus default already exists.")
		}
		return nil, badName("name", in.Name, 256)
	}
	if in.EventSourceName != "" {
		return nil, invalid("EventSourceName: there are no partners' event sources here")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{c.Account, in.Name}
	if s.buses[p] != nil {
		return nil, exists("Event bus %s already exists.", in.Name)
	}
	now := time.Now().UnixMilli()
	b := &bus{Account: c.Account, Name: in.Name, Description: text(in.Description), Tags: tagsOf(in.Tags), Created: now, Modified: now, By: c.Of}
	if in.DeadLetterConfig != nil {
		b.Dead = in.DeadLetterConfig.Arn
	}
	if err := s.put(named(kindBus, p), b); err != nil {
		return nil, err
	}
	s.addBus(b)
	out := member{"EventBusArn": b.arn()}
	if b.Description != "" {
		out["Description"] = b.Description
	}
	return out, nil
}

func (b *bus) state() member {
	m := member{"Name": b.Name, "Arn": b.arn()}
	if b.Created > 0 {
		m["CreationTime"], m["LastModifiedTime"] = stamp(b.Created), stamp(b.Modified)
	}
	if b.Description != "" {
		m["Description"] = b.Description
	}
	if b.Policy != "" {
		m["Policy"] = b.Policy
	}
	return m
}

func (s *Store) describeBus(c awsapi.Caller, in *input) (any, error) {
	b, err := s.busFor(c, "DescribeEventBus", in.Name)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	m := b.state()
	if b.Dead != "" {
		m["DeadLetterConfig"] = deadLetter{b.Dead}
	}
	return m, nil
}

// changeBus writes a bus that f changed.
func (s *Store) changeBus(b *bus, f func(b *bus) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *b
	if err := f(&next); err != nil {
		return err
	}
	next.Modified = time.Now().UnixMilli()
	if next.Created == 0 {
		next.Created = next.Modified
	}
	if err := s.put(named(kindBus, place{b.Account, b.Name}), &next); err != nil {
		return err
	}
	*b = next
	return nil
}

func (s *Store) updateBus(c awsapi.Caller, in *input) (any, error) {
	b, err := s.busFor(c, "UpdateEventBus", in.Name)
	if err != nil {
		return nil, err
	}
	err = s.changeBus(b, func(b *bus) error {
		if in.Description != nil {
			b.Description = *in.Description
		}
		if in.DeadLetterConfig != nil {
			b.Dead = in.DeadLetterConfig.Arn
		}
		return nil
	})
	out := member{"Arn": b.arn(), "Name": b.Name}
	if b.Description != "" {
		out["Description"] = b.Description
	}
	return out, err
}

func (s *Store) deleteBus(c awsapi.Caller, in *input) (any, error) {
	name, err := busName(c, in.Name)
	if err != nil {
		return nil, err
	}
	if name == defaultBus {
		return nil, invalid("Cannot delete event bus default.")
	}
	b := s.busRead(c.Account, name)
	if !s.mayBus(c, name, b) {
		return nil, denied(c, "DeleteEventBus", arn("events", c.Account, "event-bus/"+name), name)
	}
	if b == nil { // as on AWS
		return none{}, nil
	}
	if b.Kept {
		return nil, fault("ConcurrentModificationException", "Event bus %s cannot be deleted by a client, because tenfold.yaml names it: remove it there, deploy, then tenfold kept", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(b.rules) > 0 {
		return nil, invalid("Event bus can't be deleted since it has rules.")
	}
	return none{}, s.removeBus(b)
}

// removeBus deletes a bus with its rules and archives. Call with mu held.
func (s *Store) removeBus(b *bus) error {
	p := place{b.Account, b.Name}
	keys := [][]byte{named(kindBus, p)}
	for _, r := range b.rules {
		keys = append(keys, r.key(), keyOf(kindTimer, ruleTimer+r.id()))
	}
	outboxes := keyOf(kindOutbox, b.Account+"/"+b.Name+"/")
	if err := s.write(func(x *pebble.Batch) error {
		err := x.DeleteRange(outboxes, append(bytes.Clone(outboxes), 0xff), nil)
		for _, k := range keys {
			err = errors.Join(err, x.Delete(k, nil))
		}
		return err
	}); err != nil {
		return err
	}
	for _, a := range s.archives {
		if a.Account == b.Account && a.Bus == b.Name {
			if err := s.removeArchive(a); err != nil {
				return err
			}
		}
	}
	delete(s.buses, p)
	prod(s.tick)
	return nil
}

func (s *Store) listBuses(c awsapi.Caller, in *input) (any, error) {
	s.busRead(c.Account, defaultBus)
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := []member{}
	for _, b := range of(s.buses, c.Account) {
		if strings.HasPrefix(b.Name, in.NamePrefix) {
			out = append(out, b.state())
		}
	}
	return paged("EventBuses", out, in)
}

func tagsOf(all []tag) map[string]string {
	out := map[string]string{}
	for _, t := range all {
		out[t.Key] = t.Value
	}
	return out
}

func shownTags(m map[string]string) []tag {
	out := []tag{}
	for k, v := range m {
		out = append(out, tag{k, v})
	}
	slices.SortFunc(out, func(a, b tag) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// tagged finds what an ARN names and may be tagged: a bus, or a rule.
func (s *Store) tagged(c awsapi.Caller, operation, a string) (*bus, *rule, error) {
	service, account, rest, ok := resource(a)
	kind, name, _ := strings.Cut(rest, "/")
	if !ok || service != "events" || account != c.Account || kind != "event-bus" && kind != "rule" {
		return nil, nil, missing("Resource %s does not exist.", a)
	}
	if kind == "event-bus" {
		b, err := s.busFor(c, operation, name)
		return b, nil, err
	}
	of, rname, two := strings.Cut(name, "/")
	if !two {
		of, rname = defaultBus, name
	}
	b, err := s.busFor(c, operation, of)
	if err != nil {
		return nil, nil, err
	}
	r, err := s.ruleOf(b, rname)
	return b, r, err
}

func (s *Store) retag(c awsapi.Caller, operation string, in *input, f func(m map[string]string)) (any, error) {
	b, r, err := s.tagged(c, operation, in.ResourceARN)
	if err != nil {
		return nil, err
	}
	change := func(m map[string]string) map[string]string {
		out := map[string]string{}
		for k, v := range m {
			out[k] = v
		}
		f(out)
		return out
	}
	if r == nil {
		return none{}, s.changeBus(b, func(b *bus) error { b.Tags = change(b.Tags); return nil })
	}
	return none{}, s.changeRule(b, r.Name, func(r *rule) error { r.Tags = change(r.Tags); return nil })
}

func (s *Store) tag(c awsapi.Caller, in *input) (any, error) {
	return s.retag(c, "TagResource", in, func(m map[string]string) {
		for _, t := range in.Tags {
			m[t.Key] = t.Value
		}
	})
}

func (s *Store) untag(c awsapi.Caller, in *input) (any, error) {
	return s.retag(c, "UntagResource", in, func(m map[string]string) {
		for _, k := range in.TagKeys {
			delete(m, k)
		}
	})
}

func (s *Store) listTags(c awsapi.Caller, in *input) (any, error) {
	b, r, err := s.tagged(c, "ListTagsForResource", in.ResourceARN)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if r != nil {
		return member{"Tags": shownTags(r.Tags)}, nil
	}
	return member{"Tags": shownTags(b.Tags)}, nil
}
