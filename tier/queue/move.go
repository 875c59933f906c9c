package queue

import (
	"context"
	"encoding/base64"
	"strings"
	"time"

	"tenfold/internal/awsapi"
)

// move gives the messages of a dead-letter queue to another queue, or to where each came from.
type move struct {
	handle, source, to string
	rate               int
	begun              time.Time
	total              int
	cancel             context.CancelFunc

	// Under the source's mu.
	moved  int
	status string // RUNNING, COMPLETED, CANCELLING, CANCELLED, FAILED
	why    string
}

// keepMoves is how many of a queue are told of.
const keepMoves = 10

func (s *Store) startMove(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	if in.SourceArn == "" {
		return nil, missing("SourceArn")
	}
	q, err := s.source(c, in.SourceArn, "StartMessageMoveTask")
	if err != nil {
		return nil, err
	}
	dead := false
	for _, o := range s.of(c.Account) {
		o.mu.Lock()
		dead = dead || o.dead.Target == in.SourceArn
		o.mu.Unlock()
	}
	if !dead {
		return nil, invalid("Source queue must be configured as a Dead Letter Queue.")
	}
	if in.DestinationArn != "" {
		to, ok := named(in.DestinationArn, c.Account)
		if !ok || s.find(c.Account, to) == nil || to == q.m.Name {
			return nil, notFound("The resource that you specified for the DestinationArn parameter doesn't exist.")
		}
		if _, err := s.byName(c, to, "SendMessage"); err != nil {
			return nil, err
		}
	}
	rate, err := bounded(in.MaxNumberOfMessagesPerSecond, "MaxNumberOfMessagesPerSecond", 0, 1, 500)
	if err != nil {
		return nil, err
	}
	b := q.backlog()
	ctx, cancel := context.WithCancel(context.Background())
	m := &move{
		source: in.SourceArn, to: in.DestinationArn, rate: rate, begun: s.cfg.Now(), total: b.Visible, cancel: cancel, status: "RUNNING",
		handle: base64.StdEncoding.EncodeToString([]byte(makeID() + " " + in.SourceArn)),
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, o := range q.moves {
		if o.status == "RUNNING" {
			cancel()
			return nil, invalid("There is already a task running. Only one active task is allowed for a source queue arn at a given time.")
		}
	}
	q.moves = append([]*move{m}, q.moves[:min(len(q.moves), keepMoves-1)]...)
	s.done.Go(func() { s.move(ctx, q, m) })
	return map[string]any{"TaskHandle": m.handle}, nil
}

// move does a task, message by message: each is in one of the two queues at any time.
func (s *Store) move(ctx context.Context, q *queue, m *move) {
	defer m.cancel()
	end := func(status, why string) {
		q.mu.Lock()
		m.status, m.why = status, why
		q.mu.Unlock()
	}
	for range m.total {
		if m.rate > 0 {
			select {
			case <-time.After(time.Second / time.Duration(m.rate)):
			case <-ctx.Done():
			case <-s.end:
			}
		}
		select {
		case <-ctx.Done():
			end("CANCELLED", "")
			return
		case <-s.end:
			end("CANCELLED", "the house ends")
			return
		default:
		}
		all, err := q.take(1, time.Minute, "")
		if err != nil {
			end("FAILED", err.Error())
			return
		}
		if len(all) == 0 {
			break
		}
		t := all[0]
		target := m.to
		if target == "" {
			target = t.Source
		}
		name, ok := named(target, q.m.Account)
		to := s.find(q.m.Account, name)
		if !ok || to == nil || to == q {
			q.extend(t.handle, 0)
			why := "CouldNotDetermineMessageSource"
			if m.to != "" {
				why = noQueue().Query
			}
			end("FAILED", why)
			return
		}
		t.Source = ""
		for {
			q.mu.Lock()
			h := q.hidden[t.n]
			if h == nil || h.nonce != t.state.Nonce { // somebody has it
				q.mu.Unlock()
				break
			}
			if err = q.moveTo(to, t); err == nil {
				q.unhide(h)
				m.moved++
			}
			q.mu.Unlock()
			if err == nil {
				break
			}
			select { // the other queue is in use for a moment
			case <-time.After(time.Millisecond):
				continue
			case <-ctx.Done():
			case <-s.end:
			}
			q.extend(t.handle, 0)
			break
		}
	}
	end("COMPLETED", "")
}

func (s *Store) cancelMove(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	if in.TaskHandle == "" {
		return nil, missing("TaskHandle")
	}
	raw, err := base64.StdEncoding.DecodeString(in.TaskHandle)
	_, source, whole := strings.Cut(string(raw), " ")
	if err != nil || !whole {
		return nil, invalid("Value for parameter TaskHandle is invalid.")
	}
	q, err := s.source(c, source, "CancelMessageMoveTask")
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.moves {
		if m.handle == in.TaskHandle {
			if m.status != "RUNNING" {
				return nil, fault("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", "Only active tasks can be cancelled.")
			}
			m.status = "CANCELLING"
			m.cancel()
			return map[string]any{"ApproximateNumberOfMessagesMoved": m.moved}, nil
		}
	}
	return nil, notFound("Task does not exist.")
}

func noSource() error {
	return notFound("The resource that you specified for the SourceArn parameter doesn't exist.")
}

// source finds the queue whose messages are moved, by its ARN.
func (s *Store) source(c awsapi.Caller, arn, operation string) (*queue, error) {
	name, ok := named(arn, c.Account)
	if !ok || s.find(c.Account, name) == nil {
		return nil, noSource()
	}
	return s.byName(c, name, operation)
}

func (s *Store) listMoves(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	if in.SourceArn == "" {
		return nil, missing("SourceArn")
	}
	q, err := s.source(c, in.SourceArn, "ListMessageMoveTasks")
	if err != nil {
		return nil, err
	}
	most, err := bounded(in.MaxResults, "MaxResults", 1, 1, 10)
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	out := []map[string]any{}
	for _, m := range q.moves[:min(most, len(q.moves))] {
		r := map[string]any{"SourceArn": m.source, "Status": m.status, "StartedTimestamp": m.begun.UnixMilli(), "ApproximateNumberOfMessagesMoved": m.moved, "ApproximateNumberOfMessagesToMove": m.total}
		if m.to != "" {
			r["DestinationArn"] = m.to
		}
		if m.status == "RUNNING" {
			r["TaskHandle"] = m.handle
		}
		if m.rate > 0 {
			r["MaxNumberOfMessagesPerSecond"] = m.rate
		}
		if m.why != "" {
			r["FailureReason"] = m.why
		}
		out = append(out, r)
	}
	return map[string]any{"Results": out}, nil
}
