package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
)

// schedule is one of EventBridge Scheduler: a target that is called at its times.
type schedule struct {
	Account     string         `json:"account"`
	Group       string         `json:"group"`
	Name        string         `json:"name"`
	Expression  string         `json:"expression"`
	Zone        string         `json:"zone,omitempty"`
	State       string         `json:"state"`
	Description string         `json:"description,omitempty"`
	Start       int64          `json:"start,omitempty"` // Unix milliseconds
	End         int64          `json:"end,omitempty"`
	After       string         `json:"after"`            // ActionAfterCompletion
	Window      int            `json:"window,omitempty"` // minutes; 0: OFF
	Target      scheduleTarget `json:"target"`
	Began       int64          `json:"began"` // what a rate counts from
	Created     int64          `json:"created"`
	Modified    int64          `json:"modified"`
	By          string         `json:"by,omitempty"`
	// Token is the ClientToken that it was made with: the same request again is answered as the first.
	Token string `json:"token,omitempty"`

	timer *timer
}

type scheduleTarget struct {
	Arn                   string
	RoleArn               string         `json:",omitempty"`
	Input                 string         `json:",omitempty"`
	SqsParameters         *sqsParameters `json:",omitempty"`
	EventBridgeParameters *busParameters `json:",omitempty"`
	EcsParameters         *ecsParameters `json:",omitempty"`
	RetryPolicy           *retryPolicy   `json:",omitempty"`
	DeadLetterConfig      *deadLetter    `json:",omitempty"`
}

type busParameters struct{ DetailType, Source string }

type group struct {
	Account  string            `json:"account"`
	Name     string            `json:"name"`
	Created  int64             `json:"created"`
	Modified int64             `json:"modified"`
	Tags     map[string]string `json:"tags,omitempty"`
}

// scheduleInput are the members of the Scheduler's requests.
type scheduleInput struct {
	ActionAfterCompletion, Description, GroupName, KmsKeyArn string
	ScheduleExpression, ScheduleExpressionTimezone, State    string
	ClientToken                                              string
	StartDate, EndDate                                       *float64
	FlexibleTimeWindow                                       *struct {
		Mode                   string
		MaximumWindowInMinutes int
	}
	Target *scheduleTarget
	Tags   []tag
}

func (x *schedule) id() string { return x.Account + "/" + x.Group + "/" + x.Name }

func (x *schedule) place() place { return place{x.Account, x.Group + "/" + x.Name} }

func (x *schedule) arn() string {
	return arn("scheduler", x.Account, "schedule/"+x.Group+"/"+x.Name)
}

func (g *group) arn() string { return arn("scheduler", g.Account, "schedule-group/"+g.Name) }

func (x *schedule) compile() error {
	t, err := newTimer(x.Expression, x.Zone, max(x.Began, x.Start))
	if err != nil {
		return err
	}
	x.timer = t
	return nil
}

// asTarget is the target in the words of rules.
func (t *scheduleTarget) asTarget() *target {
	return &target{ID: "t", Arn: t.Arn, SqsParameters: t.SqsParameters, EcsParameters: t.EcsParameters, RetryPolicy: t.RetryPolicy, DeadLetterConfig: t.DeadLetterConfig}
}

// delivery is what comes of a schedule that is due.
func (x *schedule) delivery(tick, now time.Time) (*delivery, error) {
	d := x.Target.asTarget().delivery(x.Account, within(now, int64(x.Window)*60))
	d.Rule = x.arn()
	at := tick.UTC().Format(eventTime)
	body := x.Target.Input
	if body == "" {
		raw, err := marshal(envelope{Version: "0", ID: d.ID, DetailType: "Scheduled Event", Source: "aws.scheduler", Account: x.Account, Time: at, Region: awsapi.Region, Resources: []string{x.arn()}, Detail: []byte(`"{}"`)})
		if err != nil {
			return nil, err
		}
		body = string(raw)
	} else {
		body = strings.NewReplacer("<aws.scheduler.schedule-arn>", x.arn(), "<aws.scheduler.scheduled-time>", at, "<aws.scheduler.execution-id>", d.ID, "<aws.scheduler.attempt-number>", "1").Replace(body)
	}
	if p := x.Target.EventBridgeParameters; p != nil {
		detail := json.RawMessage(body)
		if x.Target.Input == "" {
			detail = json.RawMessage("{}")
		}
		raw, err := marshal(envelope{Version: "0", ID: d.ID, DetailType: p.DetailType, Source: p.Source, Account: x.Account, Time: now.UTC().Format(eventTime), Region: awsapi.Region, Resources: []string{x.arn()}, Detail: detail})
		if err != nil {
			return nil, err
		}
		body = string(raw)
	}
	d.Body = body
	return d, nil
}

// completed deletes a schedule that is not due any more and asked for that.
func (s *Store) completed(x *schedule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.schedules[x.place()] == x {
		if err := s.removeSchedule(x); err != nil {
			s.cfg.Log.Error("delete a schedule that has ended", "schedule", x.id(), "err", err)
		}
	}
}

// removeSchedule deletes a schedule. Call with mu held.
func (s *Store) removeSchedule(x *schedule) error {
	if err := s.drop(named(kindSchedule, x.place()), keyOf(kindTimer, scheduleTimer+x.id())); err != nil {
		return err
	}
	delete(s.schedules, x.place())
	delete(s.lasts, scheduleTimer+x.id())
	prod(s.tick)
	return nil
}

// Scheduler is the Scheduler's API.
type Scheduler struct{ s *Store }

// Scheduler is the store's other API.
func (s *Store) Scheduler() awsapi.Served {
	return awsapi.Served{Service: Scheduler{s}, Limit: 1 << 20, Route: schedulerRoute}
}

// schedulerRoute finds the operation of a request in REST; "": there is none.
func schedulerRoute(method, path string) string {
	kind, name, named := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	named = named && name != ""
	verb := map[string]string{http.MethodGet: "Get", http.MethodPost: "Create", http.MethodPut: "Update", http.MethodDelete: "Delete"}[method]
	switch {
	case kind == "schedules" && named && verb != "":
		return verb + "Schedule"
	case kind == "schedules" && method == http.MethodGet:
		return "ListSchedules"
	case kind == "schedule-groups" && named && verb != "" && verb != "Update":
		return verb + "ScheduleGroup"
	case kind == "schedule-groups" && method == http.MethodGet:
		return "ListScheduleGroups"
	case kind == "tags" && named:
		return map[string]string{"Get": "ListTagsForResource", "Create": "TagResource", "Delete": "UntagResource"}[verb]
	}
	return ""
}

// restError is an error of the Scheduler, with its status.
func restError(status int, code, format string, args ...any) error {
	return &awsapi.Fault{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

func noSchedule(name string) error {
	return restError(404, "ResourceNotFoundException", "Schedule %s does not exist.", name)
}

func noGroup(name string) error {
	return restError(404, "ResourceNotFoundException", "Schedule group %s does not exist.", name)
}

// Serve implements awsapi.Service.
func (h Scheduler) Serve(_ context.Context, q *awsapi.Request) ([]byte, error) {
	s, c := h.s, q.Caller
	if len(c.Uses["events"])+len(c.Uses["scheduler"]) == 0 {
		f := awsapi.Denied(c, "scheduler:"+q.Operation, arn("scheduler", c.Account, "schedule-group/default"), "a bus")
		f.Status = http.StatusForbidden
		return nil, f
	}
	var in scheduleInput
	query, name := url.Values{}, ""
	if q.HTTP != nil && q.HTTP.URL != nil {
		query = q.HTTP.URL.Query()
		_, name, _ = strings.Cut(strings.TrimPrefix(q.HTTP.URL.Path, "/"), "/")
	}
	if err := json.Unmarshal(q.Body, &in); err != nil {
		return nil, restError(400, "ValidationException", "the request is not as %s has it: %v", q.Operation, err)
	}
	if !strings.HasPrefix(q.Operation, "Get") && !strings.HasPrefix(q.Operation, "List") {
		if err := s.db.Writable(); err != nil {
			return nil, restError(503, "InternalServerException", "%v", err)
		}
	}
	in.GroupName = or(or(in.GroupName, query.Get("groupName")), defaultGroup)
	out, err := h.do(c, q.Operation, name, &in, query)
	if err != nil {
		return nil, err
	}
	return marshal(out)
}

const defaultGroup = "default"

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (h Scheduler) do(c awsapi.Caller, operation, name string, in *scheduleInput, query url.Values) (any, error) {
	s := h.s
	switch operation {
	case "CreateSchedule", "UpdateSchedule":
		return s.putSchedule(c, name, in, operation == "CreateSchedule")
	case "GetSchedule":
		s.mu.RLock()
		defer s.mu.RUnlock()
		x := s.schedules[place{c.Account, in.GroupName + "/" + name}]
		if x == nil {
			return nil, noSchedule(name)
		}
		return x.shown(), nil
	case "DeleteSchedule":
		s.mu.Lock()
		defer s.mu.Unlock()
		x := s.schedules[place{c.Account, in.GroupName + "/" + name}]
		if x == nil {
			return nil, noSchedule(name)
		}
		return none{}, s.removeSchedule(x)
	case "ListSchedules":
		return s.listSchedules(c, query)
	case "CreateScheduleGroup":
		return s.createGroup(c, name, in)
	case "GetScheduleGroup":
		s.mu.RLock()
		defer s.mu.RUnlock()
		g := s.group(c.Account, name)
		if g == nil {
			return nil, noGroup(name)
		}
		return g.shown(), nil
	case "DeleteScheduleGroup":
		return s.deleteGroup(c, name)
	case "ListScheduleGroups":
		s.mu.RLock()
		defer s.mu.RUnlock()
		out := []member{}
		if strings.HasPrefix(defaultGroup, query.Get("NamePrefix")) {
			out = append(out, s.group(c.Account, defaultGroup).shown())
		}
		for _, g := range of(s.groups, c.Account) {
			if strings.HasPrefix(g.Name, query.Get("NamePrefix")) && g.Name != defaultGroup {
				out = append(out, g.shown())
			}
		}
		return restPage("ScheduleGroups", out, query)
	case "TagResource", "UntagResource", "ListTagsForResource":
		return s.tagGroup(c, operation, name, in, query)
	}
	return nil, restError(404, "UnknownOperationException", "the Scheduler's %s is not served", operation)
}

func restPage(name string, all []member, query url.Values) (any, error) {
	in := &input{NextToken: query.Get("NextToken")}
	if v := query.Get("MaxResults"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, invalid("MaxResults is from 1 to 100")
		}
		in.Limit = &n
	}
	return paged(name, all, in)
}

// group finds a group; "default" is there in every account. Call with mu held.
func (s *Store) group(account, name string) *group {
	if g := s.groups[place{account, name}]; g != nil || name != defaultGroup {
		return g
	}
	return &group{Account: account, Name: name}
}

func (g *group) shown() member {
	return member{"Arn": g.arn(), "Name": g.Name, "State": "ACTIVE", "CreationDate": stamp(g.Created), "LastModificationDate": stamp(g.Modified)}
}

func (s *Store) createGroup(c awsapi.Caller, name string, in *scheduleInput) (any, error) {
	if !nameOK(name, 64) {
		return nil, badName("name", name, 64)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.group(c.Account, name) != nil {
		return nil, restError(409, "ConflictException", "Schedule group %s already exists.", name)
	}
	now := time.Now().UnixMilli()
	g := &group{Account: c.Account, Name: name, Created: now, Modified: now, Tags: tagsOf(in.Tags)}
	p := place{c.Account, name}
	if err := s.put(named(kindGroup, p), g); err != nil {
		return nil, err
	}
	s.groups[p] = g
	return member{"ScheduleGroupArn": g.arn()}, nil
}

func (s *Store) deleteGroup(c awsapi.Caller, name string) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{c.Account, name}
	switch {
	case name == defaultGroup:
		return nil, restError(400, "ValidationException", "The default schedule group cannot be deleted.")
	case s.groups[p] == nil:
		return nil, noGroup(name)
	}
	if err := s.write(func(b *pebble.Batch) error {
		for _, x := range s.schedules {
			if x.Account != c.Account || x.Group != name {
				continue
			}
			if err := b.Delete(named(kindSchedule, x.place()), nil); err != nil {
				return err
			}
			if err := b.Delete(keyOf(kindTimer, scheduleTimer+x.id()), nil); err != nil {
				return err
			}
		}
		return b.Delete(named(kindGroup, p), nil)
	}); err != nil {
		return nil, err
	}
	for at, x := range s.schedules {
		if x.Account == c.Account && x.Group == name {
			delete(s.schedules, at)
			delete(s.lasts, scheduleTimer+x.id())
		}
	}
	delete(s.groups, p)
	prod(s.tick)
	return none{}, nil
}

func (s *Store) tagGroup(c awsapi.Caller, operation, a string, in *scheduleInput, query url.Values) (any, error) {
	service, account, rest, ok := resource(a)
	name, is := strings.CutPrefix(rest, "schedule-group/")
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.group(account, name)
	if !ok || !is || service != "scheduler" || account != c.Account || g == nil {
		return nil, restError(404, "ResourceNotFoundException", "Resource %s does not exist.", a)
	}
	if operation == "ListTagsForResource" {
		return member{"Tags": shownTags(g.Tags)}, nil
	}
	next := *g
	next.Tags = map[string]string{}
	for k, v := range g.Tags {
		next.Tags[k] = v
	}
	for _, t := range in.Tags {
		next.Tags[t.Key] = t.Value
	}
	for _, k := range query["TagKeys"] {
		delete(next.Tags, k)
	}
	p := place{account, name}
	if err := s.put(named(kindGroup, p), &next); err != nil {
		return nil, err
	}
	s.groups[p] = &next
	return none{}, nil
}

// putSchedule makes a schedule, or replaces one.
func (s *Store) putSchedule(c awsapi.Caller, name string, in *scheduleInput, create bool) (any, error) {
	x, err := in.schedule(c, name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	arns := []string{x.Target.Arn}
	if d := x.Target.DeadLetterConfig; d != nil && d.Arn != "" {
		arns = append(arns, d.Arn)
	}
	for _, a := range arns {
		if err := s.mayReach(c, "PutTargets", a); err != nil {
			var f *awsapi.Fault
			if errors.As(err, &f) {
				f.Status = http.StatusForbidden
			}
			return nil, err
		}
	}
	if s.group(c.Account, x.Group) == nil {
		return nil, noGroup(x.Group)
	}
	was := s.schedules[x.place()]
	switch {
	case create && was != nil && x.Token != "" && x.Token == was.Token:
		return member{"ScheduleArn": was.arn()}, nil
	case create && was != nil:
		return nil, restError(409, "ConflictException", "Schedule %s already exists.", name)
	case !create && was == nil:
		return nil, noSchedule(name)
	case was != nil:
		x.Created, x.By, x.Token = was.Created, was.By, was.Token
		if was.Expression == x.Expression && was.Zone == x.Zone && was.Start == x.Start && was.State == x.State {
			x.Began = was.Began
		}
	}
	if err := x.compile(); err != nil {
		return nil, restError(400, "ValidationException", "Invalid Schedule Expression %s. %v", x.Expression, err)
	}
	if err := s.put(named(kindSchedule, x.place()), x); err != nil {
		return nil, err
	}
	s.schedules[x.place()] = x
	prod(s.tick)
	return member{"ScheduleArn": x.arn()}, nil
}

// schedule is what a request describes, checked.
func (in *scheduleInput) schedule(c awsapi.Caller, name string) (*schedule, error) {
	now := time.Now().UnixMilli()
	bad := func(format string, args ...any) (*schedule, error) {
		return nil, restError(400, "ValidationException", format, args...)
	}
	x := &schedule{Account: c.Account, Group: in.GroupName, Name: name, Expression: in.ScheduleExpression, Zone: in.ScheduleExpressionTimezone, State: or(in.State, enabled),
		Description: in.Description, After: or(in.ActionAfterCompletion, "NONE"), Token: in.ClientToken, Began: now, Created: now, Modified: now, By: c.Of}
	if in.StartDate != nil {
		x.Start = int64(*in.StartDate * 1000)
	}
	if in.EndDate != nil {
		x.End = int64(*in.EndDate * 1000)
	}
	switch {
	case !nameOK(name, 64) || !nameOK(in.GroupName, 64):
		return nil, badName("name", name, 64)
	case in.FlexibleTimeWindow == nil:
		return bad("FlexibleTimeWindow is required: {\"Mode\": \"OFF\"}")
	case in.Target == nil || in.Target.Arn == "":
		return bad("Target with Arn is required")
	case x.State != enabled && x.State != disabled:
		return bad("State is ENABLED or DISABLED, not %q", x.State)
	case x.After != "NONE" && x.After != "DELETE":
		return bad("ActionAfterCompletion is NONE or DELETE, not %q", x.After)
	case x.End > 0 && x.End <= max(now, x.Start):
		return bad("The EndDate you specify must be in the future and after StartDate.")
	}
	switch w := in.FlexibleTimeWindow; w.Mode {
	case "OFF":
	case "FLEXIBLE":
		if x.Window = w.MaximumWindowInMinutes; x.Window < 1 || x.Window > 1440 {
			return bad("MaximumWindowInMinutes is from 1 to 1440")
		}
	default:
		return bad("FlexibleTimeWindow.Mode is OFF or FLEXIBLE, not %q", w.Mode)
	}
	if !expressionForm.MatchString(x.Expression) {
		return bad("Invalid Schedule Expression %s.", cut(x.Expression, 100))
	}
	x.Target = *in.Target
	if strings.HasPrefix(x.Target.Arn, "arn:aws:scheduler:::aws-sdk:") {
		return bad("Target.Arn %s: universal targets are not served; name the queue, the function, the event bus or the job itself", x.Target.Arn)
	}
	if err := x.Target.asTarget().check(c.Account); err != nil {
		return bad("Target: %v", err)
	}
	if p := x.Target.EventBridgeParameters; p != nil {
		e := entry{Source: p.Source, DetailType: p.DetailType, Detail: or(x.Target.Input, "{}")}
		if code, message := e.check(); code != "" {
			return bad("Target.EventBridgeParameters: %s", message)
		}
	} else if strings.Contains(x.Target.Arn, ":event-bus/") {
		return bad("Target.EventBridgeParameters with DetailType and Source is required for an event bus")
	}
	return x, nil
}

func (x *schedule) shown() member {
	window := member{"Mode": "OFF"}
	if x.Window > 0 {
		window = member{"Mode": "FLEXIBLE", "MaximumWindowInMinutes": x.Window}
	}
	target, retries, age := x.Target, x.Target.asTarget().retries(), int(x.Target.asTarget().age())
	target.RetryPolicy = &retryPolicy{MaximumRetryAttempts: &retries, MaximumEventAgeInSeconds: &age}
	m := member{"Arn": x.arn(), "Name": x.Name, "GroupName": x.Group, "State": x.State, "ScheduleExpression": x.Expression, "ScheduleExpressionTimezone": or(x.Zone, "UTC"),
		"FlexibleTimeWindow": window, "Target": target, "ActionAfterCompletion": x.After, "CreationDate": stamp(x.Created), "LastModificationDate": stamp(x.Modified)}
	if x.Description != "" {
		m["Description"] = x.Description
	}
	if x.Start > 0 {
		m["StartDate"] = stamp(x.Start)
	}
	if x.End > 0 {
		m["EndDate"] = stamp(x.End)
	}
	return m
}

func (s *Store) listSchedules(c awsapi.Caller, query url.Values) (any, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if g := query.Get("ScheduleGroup"); g != "" && s.group(c.Account, g) == nil {
		return nil, noGroup(g)
	}
	out := []member{}
	for _, x := range of(s.schedules, c.Account) {
		if g := query.Get("ScheduleGroup"); g != "" && g != x.Group || !strings.HasPrefix(x.Name, query.Get("NamePrefix")) || query.Get("State") != "" && query.Get("State") != x.State {
			continue
		}
		out = append(out, member{"Arn": x.arn(), "Name": x.Name, "GroupName": x.Group, "State": x.State, "Target": member{"Arn": x.Target.Arn}, "CreationDate": stamp(x.Created), "LastModificationDate": stamp(x.Modified)})
	}
	return restPage("Schedules", out, query)
}
