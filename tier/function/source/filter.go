package source

import (
	"bytes"
	"encoding/json"
	"fmt"

	"tenfold/internal/pattern"
)

// filter says which records a function is called with. The zero value takes all.
type filter struct {
	takes *pattern.Pattern
	// unread is why the pattern cannot be read: nothing is read of the source then, or what it has would be lost.
	unread error
}

// CheckMatch says what is wrong with Settings.Match.
func CheckMatch(text string) error {
	return newFilter(text).unread
}

func newFilter(text string) (f filter) {
	if text == "" {
		return f
	}
	if f.takes, f.unread = pattern.Parse([]byte(text)); f.unread != nil {
		f.unread = fmt.Errorf("match: %w", f.unread)
	}
	return f
}

// wants says of a record whether the function is called with it.
func (f filter) wants(r Record) bool { return f.takes == nil || f.takes.Matches(seen(r.Body)) }

// seen is a record as a pattern sees it: the body of a message that is a JSON object is one, as in Lambda.
func seen(record []byte) []byte {
	var fields map[string]json.RawMessage
	var body string
	if json.Unmarshal(record, &fields) != nil || json.Unmarshal(fields["body"], &body) != nil {
		return record
	}
	text := bytes.TrimSpace([]byte(body))
	if len(text) == 0 || text[0] != '{' || !json.Valid(text) {
		return record
	}
	fields["body"] = text
	if b, err := json.Marshal(fields); err == nil {
		return b
	}
	return record
}

// sift parts records into those that the function is called with and the others.
func (f filter) sift(records []Record) (wanted, others []Record) {
	if f.takes == nil {
		return records, nil
	}
	for _, r := range records {
		if f.wants(r) {
			wanted = append(wanted, r)
		} else {
			others = append(others, r)
		}
	}
	return wanted, others
}
