package event

import (
	"encoding/json"
	"slices"
	"strings"

	"tenfold/internal/awsapi"
)

// maxPolicy is how long the policy of a bus may be, in bytes.
const maxPolicy = 10240

// condition is what PutPermission asks of who calls: to be of an organization.
type condition struct{ Type, Key, Value string }

// policy is what is read of a bus' policy: the statements themselves stay as they are.
type policy struct {
	Version   string
	Statement []json.RawMessage
}

// sidOf is the id of a statement.
func sidOf(statement json.RawMessage) string {
	var x struct{ Sid string }
	json.Unmarshal(statement, &x) // what is none has no id
	return x.Sid
}

// putPermission keeps who may send to a bus, as a statement of its policy or as a whole policy. It opens nothing: what
// a service may is said by `uses`.
func (s *Store) putPermission(c awsapi.Caller, in *input) (any, error) {
	b, err := s.busFor(c, "PutPermission", in.EventBusName)
	if err != nil {
		return nil, err
	}
	given := in.StatementId != "" || in.Principal != "" || in.Action != ""
	switch {
	case in.Policy != "" && given:
		return nil, invalid("The request may not contain both Policy and StatementId, Principal or Action.")
	case in.Policy != "":
		var p policy
		if err := json.Unmarshal([]byte(in.Policy), &p); err != nil || len(p.Statement) == 0 {
			return nil, invalid("Parameter Policy is not valid. Reason: it is no policy with statements.")
		}
		return none{}, s.changePolicy(b, func(p *policy) error {
			return json.Unmarshal([]byte(in.Policy), p)
		})
	case in.StatementId == "" || in.Principal == "" || in.Action == "":
		return nil, invalid("StatementId, Principal and Action are required, or a Policy.")
	case !nameOK(in.StatementId, 64) || strings.Contains(in.StatementId, "."):
		return nil, invalid("1 validation error detected: Value '%s' at 'statementId' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9-_]+", cut(in.StatementId, 100))
	}
	var who any = "*"
	if in.Principal != "*" {
		who = member{"AWS": "arn:aws:iam::" + in.Principal + ":root"}
	}
	m := struct {
		Sid, Effect      string
		Principal        any
		Action, Resource string
		Condition        member `json:",omitempty"`
	}{Sid: in.StatementId, Effect: "Allow", Principal: who, Action: in.Action, Resource: b.arn()}
	if x := in.Condition; x != nil {
		m.Condition = member{x.Type: member{x.Key: x.Value}}
	}
	raw, err := marshal(m)
	if err != nil {
		return nil, err
	}
	return none{}, s.changePolicy(b, func(p *policy) error {
		p.Statement = append(slices.DeleteFunc(p.Statement, func(x json.RawMessage) bool { return sidOf(x) == in.StatementId }), raw)
		return nil
	})
}

func (s *Store) removePermission(c awsapi.Caller, in *input) (any, error) {
	b, err := s.busFor(c, "RemovePermission", in.EventBusName)
	if err != nil {
		return nil, err
	}
	return none{}, s.changePolicy(b, func(p *policy) error {
		if in.RemoveAllPermissions {
			p.Statement = nil
			return nil
		}
		n := len(p.Statement)
		p.Statement = slices.DeleteFunc(p.Statement, func(x json.RawMessage) bool { return sidOf(x) == in.StatementId })
		if len(p.Statement) == n {
			return missing("Statement with the provided id does not exist.")
		}
		return nil
	})
}

// changePolicy writes a bus whose policy f changed; one without statements has none.
func (s *Store) changePolicy(b *bus, f func(p *policy) error) error {
	return s.changeBus(b, func(b *bus) error {
		p := policy{Version: "2012-10-17"}
		if b.Policy != "" {
			if err := json.Unmarshal([]byte(b.Policy), &p); err != nil {
				return err
			}
		}
		if err := f(&p); err != nil {
			return err
		}
		if b.Policy = ""; len(p.Statement) > 0 {
			raw, err := marshal(p)
			if err != nil {
				return err
			}
			b.Policy = string(raw)
		}
		if len(b.Policy) > maxPolicy {
			return fault("PolicyLengthExceededException", "The policy of a bus has up to %d bytes.", maxPolicy)
		}
		return nil
	})
}
