package event

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"tenfold/internal/awsapi"
)

const (
	maxRules   = 300
	maxTargets = 5
)

func (s *Store) ruleOf(b *bus, name string) (*rule, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if r := b.rules[name]; r != nil {
		return r, nil
	}
	return nil, missing("Rule %s does not exist on EventBus %s.", name, b.Name)
}

// changeRule writes a rule that f changed. A rule in use is never written to: another takes its place.
func (s *Store) changeRule(b *bus, name string, f func(r *rule) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := b.rules[name]
	if r == nil {
		return missing("Rule %s does not exist on EventBus %s.", name, b.Name)
	}
	next := *r
	next.Targets = slices.Clone(r.Targets)
	if err := f(&next); err != nil {
		return err
	}
	return s.putRuleAs(b, &next)
}

// putRuleAs has a rule on disk and in use. Call with mu held.
func (s *Store) putRuleAs(b *bus, r *rule) error {
	if err := r.compile(); err != nil {
		return asFault(err)
	}
	if err := s.put(r.key(), r); err != nil {
		return err
	}
	b.rules[r.Name] = r
	prod(s.tick)
	return nil
}

func (s *Store) putRule(c awsapi.Caller, in *input) (any, error) {
	b, err := s.busFor(c, "PutRule", in.EventBusName)
	if err != nil {
		return nil, err
	}
	if !nameOK(in.Name, 64) {
		return nil, badName("name", in.Name, 64)
	}
	if text(in.EventPattern) == "" && in.ScheduleExpression == "" {
		return nil, invalid("Parameter(s) EventPattern or ScheduleExpression must be specified.")
	}
	if in.ScheduleExpression != "" && b.Name != defaultBus {
		return nil, invalid("ScheduleExpression is supported only on the default event bus.")
	}
	state := in.State
	switch state {
	case "":
		state = enabled
	case enabled, disabled, "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS":
	default:
		return nil, invalid("State is ENABLED or DISABLED, not %q", state)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was := b.rules[in.Name]
	next := &rule{Account: c.Account, Bus: b.Name, Name: in.Name, By: c.Of, Tags: tagsOf(in.Tags)}
	switch {
	case was == nil && len(b.rules) >= maxRules:
		return nil, fault("LimitExceededException", "The requested resource exceeds the maximum number allowed: a bus has up to %d rules.", maxRules)
	case was != nil && was.Kept:
		return nil, keptError("Rule", in.Name, b.Name)
	case was != nil:
		*next = *was
	}
	next.Pattern, next.State, next.Role, next.Description = text(in.EventPattern), state, in.RoleArn, text(in.Description)
	if was == nil || next.Expression != in.ScheduleExpression || was.State == disabled && state == enabled {
		next.Began = time.Now().UnixMilli()
	}
	next.Expression = in.ScheduleExpression
	if err := s.putRuleAs(b, next); err != nil {
		return nil, err
	}
	return member{"RuleArn": next.arn()}, nil
}

// asFault gives what is wrong with a rule the code that AWS has for it.
func asFault(err error) error {
	if e, ok := err.(*expressionError); ok {
		return invalid("Parameter ScheduleExpression is not valid. Reason: %s", e.reason)
	}
	return err
}

func (s *Store) deleteRule(c awsapi.Caller, in *input) (any, error) {
	b, err := s.busFor(c, "DeleteRule", in.EventBusName)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := b.rules[in.Name]
	switch {
	case r == nil: // as on AWS
		return none{}, nil
	case r.Kept:
		return nil, keptError("Rule", r.Name, b.Name)
	case len(r.Targets) > 0:
		return nil, invalid("Rule can't be deleted since it has targets.")
	}
	return none{}, s.removeRule(b, r)
}

// removeRule deletes a rule. Call with mu held.
func (s *Store) removeRule(b *bus, r *rule) error {
	if err := s.drop(r.key(), keyOf(kindTimer, ruleTimer+r.id())); err != nil {
		return err
	}
	delete(b.rules, r.Name)
	prod(s.tick)
	return nil
}

func (r *rule) state() member {
	m := member{"Name": r.Name, "Arn": r.arn(), "State": r.State, "EventBusName": r.Bus}
	for name, v := range map[string]string{"EventPattern": r.Pattern, "ScheduleExpression": r.Expression, "Description": r.Description, "RoleArn": r.Role} {
		if v != "" {
			m[name] = v
		}
	}
	if r.Kept {
		m["ManagedBy"] = "tenfold.yaml"
	}
	return m
}

func (s *Store) describeRule(c awsapi.Caller, in *input) (any, error) {
	b, err := s.busFor(c, "DescribeRule", in.EventBusName)
	if err != nil {
		return nil, err
	}
	r, err := s.ruleOf(b, in.Name)
	if err != nil {
		return nil, err
	}
	m := r.state()
	m["CreatedBy"] = r.Account
	return m, nil
}

func (s *Store) rulesOf(b *bus) []*rule {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*rule
	for _, r := range b.rules {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *rule) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (s *Store) listRules(c awsapi.Caller, in *input) (any, error) {
	b, err := s.busFor(c, "ListRules", in.EventBusName)
	if err != nil {
		return nil, err
	}
	out := []member{}
	for _, r := range s.rulesOf(b) {
		if strings.HasPrefix(r.Name, in.NamePrefix) {
			out = append(out, r.state())
		}
	}
	return paged("Rules", out, in)
}

func (s *Store) switchRule(c awsapi.Caller, in *input, operation, state string) (any, error) {
	b, err := s.busFor(c, operation, in.EventBusName)
	if err != nil {
		return nil, err
	}
	return none{}, s.changeRule(b, in.Name, func(r *rule) error {
		if r.Kept {
			return keptError("Rule", r.Name, b.Name)
		}
		if r.State == disabled && state == enabled { // what it missed meanwhile nobody waits for
			r.Began = time.Now().UnixMilli()
		}
		r.State = state
		return nil
	})
}

func (s *Store) putTargets(c awsapi.Caller, in *input) (any, error) {
	b, err := s.busFor(c, "PutTargets", in.EventBusName)
	if err != nil {
		return nil, err
	}
	if err := lengthOK("targets", len(in.Targets), 100); err != nil {
		return nil, err
	}
	for i := range in.Targets {
		t := &in.Targets[i]
		if !nameOK(t.ID, 64) {
			return nil, badName("targets."+itoa(i+1)+".member.id", t.ID, 64)
		}
		if err := t.check(c.Account); err != nil {
			if w, ok := err.(inWords); ok {
				return nil, invalid("%s", w)
			}
			return nil, invalid("Parameter %s is not valid. Reason: %v", t.ID, err)
		}
		arns := []string{t.Arn}
		if t.DeadLetterConfig != nil && t.DeadLetterConfig.Arn != "" {
			arns = append(arns, t.DeadLetterConfig.Arn)
		}
		for _, a := range arns {
			s.mu.RLock()
			err := s.mayReach(c, "PutTargets", a)
			s.mu.RUnlock()
			if err != nil {
				return nil, err
			}
		}
	}
	err = s.changeRule(b, in.Rule, func(r *rule) error {
		if r.Kept {
			return keptError("Rule", r.Name, b.Name)
		}
		for _, t := range in.Targets {
			if i := slices.IndexFunc(r.Targets, func(x target) bool { return x.ID == t.ID }); i >= 0 {
				r.Targets[i] = t
			} else {
				r.Targets = append(r.Targets, t)
			}
		}
		if len(r.Targets) > maxTargets {
			return fault("LimitExceededException", "The requested resource exceeds the maximum number allowed: a rule has up to %d targets.", maxTargets)
		}
		return nil
	})
	return member{"FailedEntryCount": 0, "FailedEntries": []member{}}, err
}

func (s *Store) removeTargets(c awsapi.Caller, in *input) (any, error) {
	b, err := s.busFor(c, "RemoveTargets", in.EventBusName)
	if err != nil {
		return nil, err
	}
	failed := []member{}
	if err := lengthOK("ids", len(in.Ids), 100); err != nil {
		return nil, err
	}
	err = s.changeRule(b, in.Rule, func(r *rule) error {
		if r.Kept {
			return keptError("Rule", r.Name, b.Name)
		}
		for _, id := range in.Ids {
			n := len(r.Targets)
			r.Targets = slices.DeleteFunc(r.Targets, func(t target) bool { return t.ID == id })
			if len(r.Targets) == n {
				failed = append(failed, member{"TargetId": id, "ErrorCode": "ResourceNotFoundException", "ErrorMessage": "Target " + id + " does not exist."})
			}
		}
		return nil
	})
	return member{"FailedEntryCount": len(failed), "FailedEntries": failed}, err
}

func (s *Store) listTargets(c awsapi.Caller, in *input) (any, error) {
	b, err := s.busFor(c, "ListTargetsByRule", in.EventBusName)
	if err != nil {
		return nil, err
	}
	r, err := s.ruleOf(b, in.Rule)
	if err != nil {
		return nil, err
	}
	return paged("Targets", append([]target{}, r.Targets...), in)
}

func (s *Store) rulesByTarget(c awsapi.Caller, in *input) (any, error) {
	b, err := s.busFor(c, "ListRuleNamesByTarget", in.EventBusName)
	if err != nil {
		return nil, err
	}
	out := []string{}
	for _, r := range s.rulesOf(b) {
		if slices.ContainsFunc(r.Targets, func(t target) bool { return t.Arn == in.TargetArn }) {
			out = append(out, r.Name)
		}
	}
	return paged("RuleNames", out, in)
}

func itoa(n int) string { return strconv.Itoa(n) }
