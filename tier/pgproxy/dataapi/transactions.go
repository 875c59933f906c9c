package dataapi

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A transaction is open between calls, on a connection of its own.
type transaction struct {
	id   string
	who  caller
	conn *pgconn.PgConn
	// Under the Server's mu.
	busy  bool
	begun time.Time
	timer *time.Timer // of what ends it when nobody asks
}

func (t *transaction) close() {
	t.timer.Stop()
	closeConn(t.conn)
}

func requestID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// begin is BeginTransaction.
func (s *Server) begin(ctx context.Context, who caller, _ []byte) (any, error) {
	c, err := s.cfg.Open(ctx, string(who))
	if err != nil {
		return nil, err
	}
	if _, err := c.Exec(ctx, "BEGIN").ReadAll(); err != nil {
		closeConn(c)
		return nil, err
	}
	var b [48]byte
	rand.Read(b[:])
	t := &transaction{id: base64.StdEncoding.EncodeToString(b[:]), who: who, conn: c, begun: time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		closeConn(c)
		return nil, &fault{status: http.StatusServiceUnavailable, code: "ServiceUnavailableError", message: "the endpoint is being replaced: ask again"}
	}
	t.timer = time.AfterFunc(min(s.cfg.Idle, s.cfg.Life), func() { s.expire(t) })
	s.open[t.id] = t
	return map[string]string{"transactionId": t.id}, nil
}

// expire rolls a transaction back that nobody asked for long, or that is open for too long.
func (s *Server) expire(t *transaction) {
	s.mu.Lock()
	if s.open[t.id] != t || t.busy {
		s.mu.Unlock()
		return
	}
	delete(s.open, t.id)
	s.work.Add(1)
	s.mu.Unlock()
	defer s.work.Done()
	t.close()
}

// take makes a transaction the caller's for one call.
func (s *Server) take(who caller, id string) (*transaction, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.open[id]
	switch {
	case t == nil, t.who != who:
		return nil, &fault{status: http.StatusNotFound, code: "TransactionNotFoundException", message: "Transaction " + id + " is not found"}
	case t.busy:
		return nil, &fault{status: http.StatusBadRequest, code: "DatabaseErrorException", message: "Transaction is still running a query"}
	}
	t.busy = true
	t.timer.Stop()
	return t, nil
}

// back ends the call that a transaction was taken for. One whose connection is gone is gone too.
func (s *Server) back(t *transaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.busy = false
	if s.open[t.id] != t {
		return
	}
	if t.conn.IsClosed() {
		delete(s.open, t.id)
		return
	}
	t.timer.Reset(max(0, min(s.cfg.Idle, s.cfg.Life-time.Since(t.begun))))
}

// commit is CommitTransaction.
func (s *Server) commit(ctx context.Context, who caller, body []byte) (any, error) {
	return s.finish(ctx, who, body, "COMMIT", "Transaction Committed")
}

// rollback is RollbackTransaction.
func (s *Server) rollback(ctx context.Context, who caller, body []byte) (any, error) {
	return s.finish(ctx, who, body, "ROLLBACK", "Rollback Complete")
}

func (s *Server) finish(ctx context.Context, who caller, body []byte, sql, status string) (any, error) {
	var q target
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, bad("the request is no JSON of this operation: %v", err)
	}
	if q.Transaction == "" {
		return nil, bad("transactionId is required")
	}
	t, err := s.take(who, q.Transaction)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	delete(s.open, t.id)
	s.mu.Unlock()
	defer closeConn(t.conn)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Limit)
	defer cancel()
	results, err := t.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	// COMMIT of a transaction in which something failed is a rollback, and says so.
	if n := len(results); n > 0 && results[n-1].CommandTag.String() != sql {
		return nil, &fault{status: http.StatusBadRequest, code: "DatabaseErrorException", message: "ERROR: current transaction is aborted, it was rolled back; SQLState: 25P02"}
	}
	return map[string]string{"transactionStatus": status}, nil
}
