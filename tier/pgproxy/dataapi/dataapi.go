// Package dataapi answers the RDS Data API for one database: SQL over HTTP, for functions and others that
// hold no connection. The shapes, limits and errors are those of AWS (docs/protocols/rds-data.md), so that
// its SDKs need another endpoint and nothing else.
//
// It opens connections by a function that it is given, each for one call or one transaction: what a session
// keeps goes with it. Begin at New and Server.ServeHTTP; statement.go runs SQL, params.go reads what is
// bound, values.go writes what comes back, transactions.go keeps what is open between calls.
package dataapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"tenfold/internal/pooldir"
	"tenfold/internal/sigv4"
)

// Limits, as AWS has them.
const (
	maxRequest     = 4 << 20
	maxResponse    = 1 << 20
	statementLimit = 45 * time.Second
	idleLimit      = 3 * time.Minute // of a transaction, between calls
	lifeLimit      = 24 * time.Hour  // of a transaction
)

// service is what requests are signed for.
const service = "rds-data"

// Config is what a Server needs.
type Config struct {
	// Open gives a connection to the database, logged in, in which nothing was done yet. service is whose
	// it is, for statistics. Required.
	Open func(ctx context.Context, service string) (*pgconn.PgConn, error)
	// Limit is how long a statement may take; 0: 45 s.
	Limit time.Duration
	// Idle is how long nobody may ask a transaction anything, and Life how long it may be open; 0: 3 min, 24 h.
	Idle, Life time.Duration
}

// Server answers for one database. ServeHTTP may be called by many; what it started is gone after Close.
type Server struct {
	cfg    Config
	signed sigv4.Verifier
	life   context.Context
	end    context.CancelFunc
	work   sync.WaitGroup // statements that go on after their call, and the clearing of transactions

	mu   sync.Mutex
	api  pooldir.API
	open map[string]*transaction // under mu, by ID
}

// New makes a Server that knows no key; see Set. It starts nothing.
func New(cfg Config) *Server {
	for _, x := range []struct {
		at  *time.Duration
		std time.Duration
	}{{&cfg.Limit, statementLimit}, {&cfg.Idle, idleLimit}, {&cfg.Life, lifeLimit}} {
		if *x.at <= 0 {
			*x.at = x.std
		}
	}
	s := &Server{cfg: cfg, open: map[string]*transaction{}}
	s.signed.Keys = s.secretOf
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Set says who may ask, and by which names.
func (s *Server) Set(api pooldir.API) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.api = api
}

func (s *Server) secretOf(key string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.api.Keys {
		if k.ID == key {
			return k.Secret, true
		}
	}
	return "", false
}

// Close rolls back what is open and waits until everything is gone.
func (s *Server) Close() {
	s.end()
	s.mu.Lock()
	open := s.open
	s.open = map[string]*transaction{}
	s.mu.Unlock()
	for _, t := range open {
		t.close()
	}
	s.work.Wait()
}

// fault is an error as SDKs know it.
type fault struct {
	status  int
	code    string
	message string
	conn    uint32 // of a timeout
}

func (f *fault) Error() string { return f.code + ": " + f.message }

func bad(format string, args ...any) *fault {
	return &fault{status: http.StatusBadRequest, code: "BadRequestException", message: fmt.Sprintf(format, args...)}
}

// caller is who asks: the service whose key signed the request.
type caller string

// target is what each request names.
type target struct {
	Resource    string `json:"resourceArn"`
	Secret      string `json:"secretArn"`
	Database    string `json:"database"`
	Schema      string `json:"schema"`
	Transaction string `json:"transactionId"`
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := s.answer(r)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Amzn-Requestid", requestID())
	var f *fault
	if err != nil {
		f = faultOf(err)
	}
	var body []byte
	if f == nil {
		if body, err = json.Marshal(answer); err != nil {
			f = &fault{status: http.StatusInternalServerError, code: "InternalServerErrorException", message: err.Error()}
		} else if len(body) > maxResponse {
			f = tooLarge()
		}
	}
	if f != nil {
		w.Header().Set("X-Amzn-Errortype", f.code)
		w.WriteHeader(f.status)
		said := map[string]any{"message": f.message}
		if f.code == "StatementTimeoutException" {
			said["dbConnectionId"] = f.conn
		}
		body, _ = json.Marshal(said) // strings and a number
	}
	w.Write(body)
}

func tooLarge() *fault { return bad("Database returned more than the allowed response size limit") }

// answer checks who asks and does what is asked.
func (s *Server) answer(r *http.Request) (any, error) {
	does := map[string]func(context.Context, caller, []byte) (any, error){
		"/Execute": s.execute, "/BatchExecute": s.batch, "/BeginTransaction": s.begin, "/CommitTransaction": s.commit, "/RollbackTransaction": s.rollback,
	}[r.URL.Path]
	if does == nil || r.Method != http.MethodPost {
		return nil, &fault{status: http.StatusNotFound, code: "UnknownOperationException", message: "no operation is at " + r.Method + " " + r.URL.Path}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	if err != nil {
		return nil, bad("read the request: %v", err)
	}
	if len(body) > maxRequest {
		return nil, &fault{status: http.StatusRequestEntityTooLarge, code: "BadRequestException", message: "the request is longer than 4 MiB"}
	}
	s.mu.Lock()
	api := s.api
	s.mu.Unlock()
	who, err := s.caller(r, body, api.Keys)
	if err != nil {
		return nil, err
	}
	var t target
	if err := json.Unmarshal(body, &t); err != nil {
		return nil, bad("the request is no JSON of this operation: %v", err)
	}
	switch {
	case t.Resource == "" || t.Secret == "":
		return nil, bad("resourceArn and secretArn are required")
	case t.Resource != api.Resource:
		return nil, &fault{status: http.StatusNotFound, code: "DatabaseNotFoundException", message: "no database here is " + t.Resource}
	case t.Secret != api.Secret:
		return nil, &fault{status: http.StatusForbidden, code: "ForbiddenException", message: "the secret " + t.Secret + " is not of this database"}
	case t.Database != "" && t.Database != api.Database:
		return nil, &fault{status: http.StatusBadRequest, code: "DatabaseErrorException", message: `FATAL: database "` + t.Database + `" does not exist; SQLState: 3D000`}
	case t.Schema != "":
		return nil, bad("The schema parameter isn't supported")
	}
	return does(r.Context(), who, body)
}

// caller is who signed a request: all of it, the body too.
func (s *Server) caller(r *http.Request, body []byte, keys []pooldir.Key) (caller, error) {
	refused := func(code, message string) error {
		return &fault{status: http.StatusForbidden, code: code, message: message}
	}
	if r.Header.Get("Authorization") == "" { // a signature in the URL covers no body
		return "", refused(sigv4.CodeMissing, "Missing Authentication Token")
	}
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	if said := r.Header.Get("X-Amz-Content-Sha256"); said != "" && !strings.EqualFold(said, hash) {
		return "", refused(sigv4.CodeInvalid, "The body is not the one that was signed.")
	}
	scope, err := s.signed.Verify(r, hash)
	var e *sigv4.Error
	switch {
	case errors.As(err, &e):
		return "", refused(e.Code, e.Message)
	case err != nil:
		return "", err
	case scope.Service != service:
		return "", refused(sigv4.CodeInvalid, "Credential should be scoped to correct service: '"+service+"'.")
	}
	for _, k := range keys {
		if k.ID == scope.AccessKey {
			return caller(k.Service), nil
		}
	}
	return "", refused(sigv4.CodeUnknown, "The security token included in the request is invalid.")
}

// faultOf makes of any error what SDKs know.
func faultOf(err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return &fault{status: http.StatusGatewayTimeout, code: "DatabaseUnavailableException", message: err.Error()}
	}
	switch {
	case e.Code == "57P03":
		return &fault{status: http.StatusGatewayTimeout, code: "DatabaseUnavailableException", message: e.Message}
	case e.Code == "53300":
		return &fault{status: http.StatusServiceUnavailable, code: "ServiceUnavailableError", message: e.Message}
	case e.Code == "42601" && strings.HasPrefix(e.Message, "cannot insert multiple commands"):
		return bad("Multistatements aren't supported")
	}
	text := "ERROR: " + e.Message
	if e.Detail != "" {
		text += "; Detail: " + e.Detail
	}
	if e.Hint != "" {
		text += "; Hint: " + e.Hint
	}
	if e.Position > 0 {
		text += fmt.Sprintf("; Position: %d", e.Position)
	}
	return &fault{status: http.StatusBadRequest, code: "DatabaseErrorException", message: text + "; SQLState: " + e.Code}
}

// Peek gives the resource that a request names, and its body to be read again.
func Peek(r *http.Request) (resource string, body io.ReadCloser, err error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	body = io.NopCloser(bytes.NewReader(b))
	if err != nil {
		return "", body, err
	}
	var t struct {
		Resource string `json:"resourceArn"`
	}
	err = json.Unmarshal(b, &t)
	return t.Resource, body, err
}
