package source

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhichRecordsAFunctionIsCalledWith(t *testing.T) {
	const kind = `{"body":{"kind":["order"]}}`
	for _, c := range []struct {
		match, record string
		want          bool
	}{
		{"", `{"body":"x"}`, true},
		{kind, `{"body":"{\"kind\":\"order\"}"}`, true},
		{kind, `{"body":"{\"kind\":\"mail\"}"}`, false},
		{kind, `{"body":"order"}`, false}, // no JSON, as Lambda drops it
		{kind, `{"body":"{\"kind\":"}`, false},
		{`{"body":["order"]}`, `{"body":"order"}`, true},
		{`{"messageAttributes":{"tier":{"stringValue":["gold"]}}}`, `{"body":"x","messageAttributes":{"tier":{"stringValue":"gold"}}}`, true},
		{`{"$or":[{"body":{"total":[{"numeric":[">",100]}]}},{"body":{"kind":["order"]}}]}`, `{"body":"{\"total\":101}"}`, true},
		{`{"eventName":["INSERT"],"dynamodb":{"NewImage":{"status":{"S":[{"prefix":"pa"}]}}}}`, `{"eventName":"INSERT","dynamodb":{"NewImage":{"status":{"S":"paid"}}}}`, true},
		{`{"eventName":["INSERT"]}`, `{"eventName":"MODIFY"}`, false},
	} {
		if err := CheckMatch(c.match); err != nil {
			t.Errorf("%s: %v", c.match, err)
		}
		if got := newFilter(c.match).wants(Record{Body: json.RawMessage(c.record)}); got != c.want {
			t.Errorf("%s of %s: %v", c.match, c.record, got)
		}
	}
	if CheckMatch(`{"body":"order"}`) == nil || CheckMatch(`{`) == nil || CheckMatch(`{}`) == nil {
		t.Error("a pattern that is none is taken")
	}
}

// third takes every third record of n, by its name.
func third(n int, name func(int) string) string {
	var names []string
	for i := 0; i < n; i += 3 {
		names = append(names, name(i))
	}
	b, _ := json.Marshal(map[string][]string{"messageId": names})
	return string(b)
}

// What a function is not called with is gone from a queue, and counted.
func TestWhatAFunctionIsNotCalledWithLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &shelf{timeout: 30 * time.Second}
		q.put(make([]string, 30)...)
		var got []string
		d, end := drain(q, Settings{Batch: 4, Parallel: 1, Match: third(30, strconv.Itoa)}, func(_ context.Context, e []byte) ([]byte, error) {
			got = append(got, ids(t, e)...)
			return nil, nil
		})
		time.Sleep(20 * time.Second)
		end()
		if u := d.Use(); len(q.left()) > 0 || len(got) != 10 || slices.Contains(got, "1") || u.Records != 10 || u.Filtered != 20 {
			t.Errorf("called with %v, left %v, %+v", got, q.left(), d.Use())
		}
	})
}

// A stream is read past what a function is not called with, and that is remembered.
func TestWhatAFunctionIsNotCalledWithIsReadPast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, places := &log{}, &notes{}
		l.add("a", make([]string, 31)...) // the last is not taken
		var got []string
		f, end := follow(l, Settings{Batch: 4, Start: Oldest, Match: third(30, func(i int) string { return fmt.Sprintf("a-%04d", i) })}, func(_ context.Context, e []byte) ([]byte, error) {
			got = append(got, ids(t, e)...)
			return nil, nil
		}, places, &drops{})
		time.Sleep(20 * time.Second)
		end()
		if p, _ := places.Get("a"); len(got) != 10 || p.Position != "31" || f.Use().Filtered != 21 || f.Use().Behind != 0 {
			t.Errorf("called with %v, place %+v, %+v", got, p, f.Use())
		}
	})
}

// Of a pattern that cannot be read nothing is taken for one that it does not take.
func TestAPatternThatIsNoneReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &shelf{timeout: 30 * time.Second}
		q.put("")
		d, end := drain(q, Settings{Batch: 1, Parallel: 1, Match: "{"}, func(context.Context, []byte) ([]byte, error) { return nil, nil })
		time.Sleep(5 * time.Second)
		end()
		if len(q.left()) != 1 || d.Use().Trouble == "" {
			t.Errorf("left %v, %+v", q.left(), d.Use())
		}
	})
}

func FuzzSeen(f *testing.F) {
	f.Add([]byte(`{"messageId":"1","body":"{\"a\":1}"}`))
	f.Add([]byte(`{"body":"{"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if out := seen(b); json.Valid(b) && !json.Valid(out) {
			t.Fatalf("%q became %q", b, out)
		}
	})
}
