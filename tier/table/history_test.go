package table_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"tenfold/internal/kv"
	"tenfold/internal/kv/crashtest"
	"tenfold/tier/table"
)

// What clients did is written down with when they asked and when they were answered, and a checker looks for
// one order of it all that explains every answer. Whoever heard nothing may have done it, at any time after.

// TestMain is the server of TestCrashes too.
func TestMain(m *testing.M) {
	dir := crashtest.Dir()
	if dir == "" {
		os.Exit(m.Run())
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	db, err := kv.Open(dir, kv.Options{Log: log})
	if err != nil {
		panic(err)
	}
	s, err := table.Open(db, table.Config{Log: log, Burst: 24 * time.Hour})
	if err != nil {
		panic(err)
	}
	crashtest.Serve(front(s))
}

const accounts = 3

// act is what a client asked: to set, add to or read one account, or to move between two of them or read all,
// in a transaction.
type act struct {
	kind    string
	a, b, n int
}

// result is what it heard: the balances that it saw, or that a condition did not hold.
type result struct {
	seen    [accounts]int
	refused bool
	unknown bool
}

// bank is what the checker knows of accounts: they have balances, which do not go below zero.
var bank = porcupine.Model{
	Init: func() any { return [accounts]int{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.([accounts]int), input.(act), output.(result)
		switch in.kind {
		case "set":
			s[in.a] = in.n
		case "add":
			s[in.a] += in.n
			if !out.unknown && out.seen[in.a] != s[in.a] {
				return false, s
			}
		case "read":
			return out.unknown || out.seen[in.a] == s[in.a], s
		case "all":
			return out.unknown || out.seen == s, s
		case "move":
			enough := s[in.a] >= in.n
			if !out.unknown && out.refused == enough {
				return false, s
			}
			if enough {
				s[in.a] -= in.n
				s[in.b] += in.n
			}
		}
		return true, s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
}

// history is what clients did.
type history struct {
	mu    sync.Mutex
	begun time.Time
	ops   []porcupine.Operation
}

func (h *history) now() int64 { return int64(time.Since(h.begun)) }

func accountKey(n int) item { return item{"a": str("account-" + strconv.Itoa(n))} }

// do does one thing and writes it down.
func (h *history) do(ctx context.Context, c *dynamodb.Client, who int, in act) error {
	const tab = "bank"
	at := h.now()
	var out result
	var err error
	value := func(it item) int {
		n, _ := strconv.Atoi(text(it["n"]))
		return n
	}
	switch in.kind {
	case "set":
		x := accountKey(in.a)
		x["n"] = num(in.n)
		_, err = c.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String(tab), Item: x})
	case "add":
		var got *dynamodb.UpdateItemOutput
		got, err = c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: aws.String(tab), Key: accountKey(in.a), UpdateExpression: aws.String("ADD n :n"), ExpressionAttributeValues: item{":n": num(in.n)}, ReturnValues: "ALL_NEW"})
		if err == nil {
			out.seen[in.a] = value(got.Attributes)
		}
	case "read":
		var got *dynamodb.GetItemOutput
		got, err = c.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String(tab), Key: accountKey(in.a), ConsistentRead: aws.Bool(true)})
		if err == nil {
			out.seen[in.a] = value(got.Item)
		}
	case "all":
		var gets []types.TransactGetItem
		for n := range accounts {
			gets = append(gets, types.TransactGetItem{Get: &types.Get{TableName: aws.String(tab), Key: accountKey(n)}})
		}
		var got *dynamodb.TransactGetItemsOutput
		got, err = c.TransactGetItems(ctx, &dynamodb.TransactGetItemsInput{TransactItems: gets})
		if err == nil {
			for n := range accounts {
				out.seen[n] = value(got.Responses[n].Item)
			}
		}
	case "move":
		_, err = c.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{
			{Update: &types.Update{TableName: aws.String(tab), Key: accountKey(in.a), UpdateExpression: aws.String("SET n = n - :n"), ConditionExpression: aws.String("n >= :n"), ExpressionAttributeValues: item{":n": num(in.n)}}},
			{Update: &types.Update{TableName: aws.String(tab), Key: accountKey(in.b), UpdateExpression: aws.String("ADD n :n"), ExpressionAttributeValues: item{":n": num(in.n)}}},
		}})
		var cancelled *types.TransactionCanceledException
		if errors.As(err, &cancelled) {
			out.refused, err = true, nil
		}
	}
	ret := h.now()
	if err != nil {
		out.unknown, ret = true, math.MaxInt64
		if in.kind == "read" || in.kind == "all" {
			return err
		}
	}
	h.mu.Lock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: who, Input: in, Call: at, Output: out, Return: ret})
	h.mu.Unlock()
	return err
}

// tear leaves the newest log as if the machine had died in the middle of a write: something of it is there.
func tear(t *testing.T, dir string, round int) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatal(err, "there is no log in ", dir)
	}
	slices.Sort(logs)
	last := logs[len(logs)-1]
	raw, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(last, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	torn := make([]byte, 1+round*37)
	for i := range torn {
		torn[i] = byte(rand.IntN(256))
	}
	// Behind what was written come the zeros that the file was made of.
	if _, err := f.WriteAt(torn, int64(len(bytes.TrimRight(raw, "\x00")))); err != nil {
		t.Fatal(err)
	}
}

func randomAct() act {
	a := rand.IntN(accounts)
	switch n := rand.IntN(10); {
	case n < 1:
		return act{kind: "set", a: a, n: rand.IntN(50)}
	case n < 4:
		return act{kind: "add", a: a, n: 1 + rand.IntN(9)}
	case n < 6:
		return act{kind: "read", a: a}
	case n < 7:
		return act{kind: "all"}
	}
	return act{kind: "move", a: a, b: (a + 1 + rand.IntN(accounts-1)) % accounts, n: rand.IntN(40)}
}

func (h *history) check(t *testing.T) {
	t.Helper()
	if got := porcupine.CheckOperationsTimeout(bank, h.ops, 3*time.Minute); got != porcupine.Ok {
		t.Errorf("%d operations: %s: no order of them explains what clients saw", len(h.ops), got)
	}
	t.Logf("%d operations have an order that explains them", len(h.ops))
}

// Items are linearizable and transactions serializable, among many clients.
func TestHistories(t *testing.T) {
	h := serve(t, table.Config{})
	h.make(t, "bank", "")
	for range 5 {
		x := &history{begun: time.Now()}
		for n := range accounts {
			if err := x.do(t.Context(), h.Client, 99, act{kind: "set", a: n}); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for w := range 6 {
			wg.Go(func() {
				for range 60 {
					if err := x.do(t.Context(), h.Client, w, randomAct()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		x.check(t)
	}
}

// Nothing acknowledged is lost by kill -9 with a torn last write, and what was seen before stays: indexes and stream say what the
// table says, and the whole history, deaths included, has one order.
func TestCrashes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	x := &history{begun: time.Now()}
	acked := map[int]int{} // by worker: the last that was acknowledged
	for round := range 20 {
		at, cmd := crashtest.Start(t, dir)
		h := &house{Client: client(at, "ALL"), at: at}
		ctx := context.Background()
		if round == 0 {
			h.make(t, "bank", "")
			h.make(t, "many", "b", byC, withStream)
			for n := range accounts {
				if err := x.do(ctx, h.Client, 99, act{kind: "set", a: n}); err != nil {
					t.Fatal(err)
				}
			}
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		for w := range 3 {
			wg.Go(func() {
				for n := 0; n < 40 && x.do(ctx, h.Client, round*10+w, randomAct()) == nil; n++ {
				}
			})
			wg.Go(func() {
				mu.Lock()
				n := acked[w]
				mu.Unlock()
				for {
					n++
					_, err := h.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String("many"), Item: item{"a": str(fmt.Sprint("w", w)), "b": num(n), "c": str(fmt.Sprint(n % 5))}})
					if err != nil {
						return
					}
					mu.Lock()
					acked[w] = n
					mu.Unlock()
				}
			})
		}
		time.AfterFunc(time.Duration(60+round*7)*time.Millisecond, func() { cmd.Process.Kill() })
		wg.Wait()
		cmd.Wait()
		tear(t, dir, round)
	}
	s, stop := open(t, dir, table.Config{})
	defer stop()
	srv := httptest.NewServer(front(s))
	defer srv.Close()
	h := &house{Store: s, Client: client(srv.URL, "ALL"), at: srv.URL}
	if err := x.do(t.Context(), h.Client, 9999, act{kind: "all"}); err != nil {
		t.Fatal(err)
	}
	x.check(t)
	total := 0
	for w, last := range acked {
		total += last
		for n := 1; n <= last; n++ {
			if h.get(t, "many", item{"a": str(fmt.Sprint("w", w)), "b": num(n)}) == nil {
				t.Errorf("item %d of %d of worker %d was acknowledged and is lost", n, last, w)
			}
		}
	}
	v := whole(t, s)
	if total < 100 || v[1].Records < int64(total) {
		t.Errorf("%d acknowledged, %d records", total, v[1].Records)
	}
	t.Logf("20 deaths, each in the middle of a write: all of %d acknowledged items are there, with index and stream", total)
}
