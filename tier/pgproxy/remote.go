package pgproxy

import (
	"context"
	"net/http"
	"time"

	"tenfold/internal/pooldir"
	"tenfold/internal/unixhttp"
)

// Remote is a pool in another process, as the daemon sees it.
type Remote struct{ client *http.Client }

// NewRemote is for the pool whose Config.Control is socket. It connects when it is asked.
func NewRemote(socket string) *Remote {
	return &Remote{unixhttp.Once(socket)}
}

// Close lets go of its connections.
func (r *Remote) Close() { r.client.CloseIdleConnections() }

// Put hands down a directory and gives the report by it.
func (r *Remote) Put(ctx context.Context, s pooldir.Snapshot) (rep pooldir.Report, err error) {
	return rep, r.ask(ctx, http.MethodPut, "/directory", s, &rep)
}

// Report asks how databases are used, and gives the answer after wait, or at once when there is what
// cannot wait.
func (r *Remote) Report(ctx context.Context, wait time.Duration) (rep pooldir.Report, err error) {
	return rep, r.ask(ctx, http.MethodGet, "/report?wait="+wait.String(), nil, &rep)
}

// Stats asks for the counts of each database, by ID.
func (r *Remote) Stats(ctx context.Context) (st map[string]Stats, err error) {
	return st, r.ask(ctx, http.MethodGet, "/stats", nil, &st)
}

// View asks what was seen of each database, by ID.
func (r *Remote) View(ctx context.Context) (v map[string]pooldir.View, err error) {
	return v, r.ask(ctx, http.MethodGet, "/view", nil, &v)
}

func (r *Remote) ask(ctx context.Context, method, path string, question, answer any) error {
	return unixhttp.Ask(ctx, r.client, "the pool", method, path, question, answer)
}
