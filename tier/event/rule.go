package event

import (
	"encoding/json"
	"fmt"
	"strings"

	"tenfold/internal/pattern"
	"tenfold/tier/event/transform"
)

// rule says which events of a bus go where, or when a bus has one by itself.
type rule struct {
	Account     string            `json:"account"`
	Bus         string            `json:"bus"`
	Name        string            `json:"name"`
	Pattern     string            `json:"pattern,omitempty"`
	Expression  string            `json:"expression,omitempty"`
	Zone        string            `json:"zone,omitempty"`   // of Expression; a manifest's
	Window      int64             `json:"window,omitempty"` // seconds; a manifest's
	State       string            `json:"state"`
	Description string            `json:"description,omitempty"`
	Role        string            `json:"role,omitempty"`
	By          string            `json:"by,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Began       int64             `json:"began"` // Unix milliseconds: what a rate counts from
	Kept        bool              `json:"kept,omitempty"`
	Targets     []target          `json:"targets,omitempty"`

	takes *pattern.Pattern
	timer *timer
}

// target is where a rule's events go, as PutTargets has it.
type target struct {
	ID               string            `json:"Id"`
	Arn              string            `json:",omitempty"`
	RoleArn          string            `json:",omitempty"`
	Input            *string           `json:",omitempty"`
	InputPath        *string           `json:",omitempty"`
	InputTransformer *inputTransformer `json:",omitempty"`
	SqsParameters    *sqsParameters    `json:",omitempty"`
	HttpParameters   *httpParameters   `json:",omitempty"`
	EcsParameters    *ecsParameters    `json:",omitempty"`
	RetryPolicy      *retryPolicy      `json:",omitempty"`
	DeadLetterConfig *deadLetter       `json:",omitempty"`

	path     *transform.Path
	template *transform.Template
}

type inputTransformer struct {
	InputPathsMap map[string]string `json:",omitempty"`
	InputTemplate string
}

type sqsParameters struct {
	MessageGroupId string `json:",omitempty"`
}

type httpParameters struct {
	PathParameterValues   []string          `json:",omitempty"`
	HeaderParameters      map[string]string `json:",omitempty"`
	QueryStringParameters map[string]string `json:",omitempty"`
}

type ecsParameters struct {
	TaskDefinitionArn string `json:",omitempty"`
	TaskCount         int    `json:",omitempty"`
}

type retryPolicy struct {
	MaximumRetryAttempts     *int `json:",omitempty"`
	MaximumEventAgeInSeconds *int `json:",omitempty"`
}

type deadLetter struct {
	Arn string `json:",omitempty"`
}

const (
	enabled, disabled = "ENABLED", "DISABLED"
	// What a target has when nobody says: EventBridge's own.
	defaultRetries, defaultAge = 185, 86400
)

func (r *rule) key() []byte { return keyOf(kindRule, r.id()) }

// id is what its timer is known by.
func (r *rule) id() string { return r.Account + "/" + r.Bus + "/" + r.Name }

func (r *rule) arn() string {
	if r.Bus == defaultBus {
		return arn("events", r.Account, "rule/"+r.Name)
	}
	return arn("events", r.Account, "rule/"+r.Bus+"/"+r.Name)
}

// compile makes of the texts what is run.
func (r *rule) compile() error {
	r.takes = nil
	if r.Pattern != "" {
		p, err := pattern.Parse([]byte(r.Pattern))
		if err != nil {
			return err
		}
		r.takes = p
	}
	switch {
	case r.Expression == "":
		r.timer = nil
	case r.timer == nil || r.timer.text != r.Expression || r.timer.zone != r.Zone || r.timer.began != r.Began:
		t, err := newTimer(r.Expression, r.Zone, r.Began)
		if err != nil {
			return err
		}
		r.timer = t
	}
	for i := range r.Targets {
		if err := r.Targets[i].compile(); err != nil {
			return err
		}
	}
	return nil
}

func (t *target) compile() error {
	t.path, t.template = nil, nil
	if t.InputPath != nil && *t.InputPath != "" {
		p, err := transform.ParsePath(*t.InputPath)
		if err != nil {
			return err
		}
		t.path = &p
	}
	if x := t.InputTransformer; x != nil {
		y, err := transform.ParseTemplate(x.InputPathsMap, x.InputTemplate)
		if err != nil {
			return inWords("InputTemplate for target " + t.ID + " " + err.Error())
		}
		t.template = y
	}
	return nil
}

// input is what a target is given of an event. tree is the event, read.
func (t *target) input(event []byte, tree any, f transform.Facts) []byte {
	switch {
	case strings.Contains(t.Arn, ":event-bus/"): // which takes events
		return event
	case t.Input != nil:
		return []byte(*t.Input)
	case t.template != nil:
		return t.template.Fill(tree, f)
	case t.path != nil:
		v, ok := t.path.Get(tree)
		if !ok {
			return []byte("{}")
		}
		raw, err := json.Marshal(v)
		if err != nil {
			return []byte("{}")
		}
		return raw
	}
	return event
}

// retries and age are how a delivery to the target is tried.
func (t *target) retries() int {
	if t.RetryPolicy != nil && t.RetryPolicy.MaximumRetryAttempts != nil {
		return *t.RetryPolicy.MaximumRetryAttempts
	}
	return defaultRetries
}

func (t *target) age() int64 {
	if t.RetryPolicy != nil && t.RetryPolicy.MaximumEventAgeInSeconds != nil {
		return int64(*t.RetryPolicy.MaximumEventAgeInSeconds)
	}
	return defaultAge
}

// inWords is what is wrong with a target as a whole sentence of AWS'.
type inWords string

func (w inWords) Error() string { return string(w) }

// check says what a target cannot be: a service that there is not here, or a resource of another account.
func (t *target) check(account string) error {
	service, of, rest, ok := resource(t.Arn)
	if !ok {
		return fmt.Errorf("Provided Arn is not in correct format. Reason: %q is no ARN", t.Arn)
	}
	if of != account {
		return fmt.Errorf("%s is of another account: an environment of an app reaches its own", t.Arn)
	}
	kind, _, _ := strings.Cut(rest, "/")
	switch {
	case service == "sqs":
	case service == "lambda" && strings.HasPrefix(rest, "function:"):
	case service == "events" && (kind == "event-bus" || kind == "api-destination"):
	case service == "ecs" && (kind == "cluster" || kind == "task-definition"):
		if t.job() == "" {
			return fmt.Errorf("%s names no job: EcsParameters.TaskDefinitionArn ends in task-definition/NAME", t.Arn)
		}
	default:
		return fmt.Errorf("%s: a target is a queue, a function, an event bus, an API destination or a job (an ECS task) of this house", t.Arn)
	}
	if p := t.RetryPolicy; p != nil {
		if n := p.MaximumRetryAttempts; n != nil && (*n < 0 || *n > defaultRetries) {
			return fmt.Errorf("MaximumRetryAttempts is from 0 to %d", defaultRetries)
		}
		if n := p.MaximumEventAgeInSeconds; n != nil && (*n < 60 || *n > defaultAge) {
			return fmt.Errorf("MaximumEventAgeInSeconds is from 60 to %d", defaultAge)
		}
	}
	if d := t.DeadLetterConfig; d != nil && d.Arn != "" {
		if service, of, _, ok := resource(d.Arn); !ok || service != "sqs" || of != account {
			return fmt.Errorf("DeadLetterConfig.Arn is that of a queue of this account, not %q", d.Arn)
		}
	}
	given := 0
	for _, is := range []bool{t.Input != nil, t.InputPath != nil, t.InputTransformer != nil} {
		if is {
			given++
		}
	}
	if given > 1 {
		return inWords("Only one of Input, InputPath, or InputTransformer must be provided for target " + t.ID + ".")
	}
	if t.Input != nil && !json.Valid([]byte(*t.Input)) {
		return fmt.Errorf("JSON syntax error in input for target %s", t.ID)
	}
	return t.compile()
}

// job is the job that a target of ECS runs.
func (t *target) job() string {
	a := t.Arn
	if t.EcsParameters != nil && t.EcsParameters.TaskDefinitionArn != "" {
		a = t.EcsParameters.TaskDefinitionArn
	}
	_, _, rest, _ := resource(a)
	name, ok := strings.CutPrefix(rest, "task-definition/")
	if !ok {
		return ""
	}
	name, _, _ = strings.Cut(name, ":") // a revision
	return name
}
