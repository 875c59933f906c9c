package control

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"tenfold"
	"tenfold/internal/dbinfo"
)

// Databases is what can be asked of one database. The data is dbinfo's.
type Databases interface {
	Pools
	Database(ctx context.Context, id tenfold.ID) (dbinfo.Database, error)
	// Failover kills the primary as a crash would and returns when there is one again.
	Failover(ctx context.Context, id tenfold.ID) error
	// Switchover makes a reader the primary in order; node 0: the one that is least behind.
	Switchover(ctx context.Context, id tenfold.ID, node int) error
	Sessions(ctx context.Context, id tenfold.ID) ([]dbinfo.Session, error)
	Locks(ctx context.Context, id tenfold.ID) ([]dbinfo.Lock, error)
	// Statements are those that took most time, at most limit (0: 20).
	Statements(ctx context.Context, id tenfold.ID, limit int) ([]dbinfo.Statement, error)
	// Plan is how a statement would be run; with analyze it is run, where it only reads.
	Plan(ctx context.Context, id tenfold.ID, sql string, analyze bool) (dbinfo.Plan, error)
	// Waits is what active sessions waited for, of ten minutes at most.
	Waits(ctx context.Context, id tenfold.ID) (dbinfo.Waits, error)
	// Advice is what could be better: indexes, bloat, tables that vacuum does not come to.
	Advice(ctx context.Context, id tenfold.ID) (dbinfo.Advice, error)
	// Rotate gives the app's role a new password and restarts the services that have it.
	Rotate(ctx context.Context, id tenfold.ID) (dbinfo.Rotation, error)
	// Backup takes a base backup now; Backups lists what can be restored from.
	Backup(ctx context.Context, id tenfold.ID) (dbinfo.Backup, error)
	Backups(ctx context.Context, id tenfold.ID) ([]dbinfo.Backup, error)
	// Restore makes a new database beside the old as it was at a time (zero: as late as can be).
	Restore(ctx context.Context, id tenfold.ID, to time.Time) (tenfold.ID, error)
	// UpgradeDatabase moves a database to another major, or rehearses that, and returns when it is done. It goes on when
	// ctx ends; to ask again is to wait again.
	UpgradeDatabase(ctx context.Context, id tenfold.ID, q UpgradeQuestion) (dbinfo.Upgrade, error)
	// RestartDatabase restarts the primary in order, with clients of the pool held, and says for how long they were.
	RestartDatabase(ctx context.Context, id tenfold.ID) (time.Duration, error)
	// UpgradeBack gives an upgrade up that copies still, or goes back to the old major.
	UpgradeBack(ctx context.Context, id tenfold.ID) (dbinfo.Upgrade, error)
	// UpgradeFinish closes the way back and removes the old data.
	UpgradeFinish(ctx context.Context, id tenfold.ID) error
	// Clone makes a copy beside a running database; "" for name: the old one's with "-clone" behind it.
	Clone(ctx context.Context, id tenfold.ID, name tenfold.Name) (tenfold.ID, error)
}

// dbRoutes are those of databases.
func (s server) dbRoutes(mux *http.ServeMux) {
	const at = "/v1/apps/{app}/{env}/databases/{name}"
	id := func(r *http.Request) tenfold.ID {
		e := envOf(r)
		return tenfold.ID{App: e.App, Env: e.Env, Kind: tenfold.KindDatabase, Name: nameOf(r)}
	}
	s.poolRoutes(mux, at, id)
	mux.HandleFunc("GET "+at, func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Database(r.Context(), id(r))) })
	mux.HandleFunc("POST "+at+"/failover", func(w http.ResponseWriter, r *http.Request) { done(w, s.api.Failover(r.Context(), id(r))) })
	mux.HandleFunc("POST "+at+"/upgrade", func(w http.ResponseWriter, r *http.Request) {
		var q UpgradeQuestion
		if read(w, r, &q) {
			reply(w)(s.api.UpgradeDatabase(r.Context(), id(r), q))
		}
	})
	mux.HandleFunc("POST "+at+"/restart", func(w http.ResponseWriter, r *http.Request) {
		reply(w)(s.api.RestartDatabase(r.Context(), id(r)))
	})
	mux.HandleFunc("POST "+at+"/upgrade/back", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.UpgradeBack(r.Context(), id(r))) })
	mux.HandleFunc("POST "+at+"/upgrade/finish", func(w http.ResponseWriter, r *http.Request) { done(w, s.api.UpgradeFinish(r.Context(), id(r))) })
	mux.HandleFunc("POST "+at+"/switchover", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Node int }
		if read(w, r, &q) {
			done(w, s.api.Switchover(r.Context(), id(r), q.Node))
		}
	})
	mux.HandleFunc("GET "+at+"/sessions", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Sessions(r.Context(), id(r))) })
	mux.HandleFunc("GET "+at+"/locks", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Locks(r.Context(), id(r))) })
	mux.HandleFunc("GET "+at+"/statements", func(w http.ResponseWriter, r *http.Request) {
		limit, _ := strconv.Atoi(r.FormValue("limit"))
		reply(w)(s.api.Statements(r.Context(), id(r), limit))
	})
	mux.HandleFunc("POST "+at+"/rotate", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Rotate(r.Context(), id(r))) })
	mux.HandleFunc("GET "+at+"/waits", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Waits(r.Context(), id(r))) })
	mux.HandleFunc("GET "+at+"/advice", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Advice(r.Context(), id(r))) })
	mux.HandleFunc("POST "+at+"/plan", func(w http.ResponseWriter, r *http.Request) {
		var q planQuestion
		if read(w, r, &q) {
			reply(w)(s.api.Plan(r.Context(), id(r), q.SQL, q.Analyze))
		}
	})
	mux.HandleFunc("GET "+at+"/backups", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Backups(r.Context(), id(r))) })
	mux.HandleFunc("POST "+at+"/backups", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Backup(r.Context(), id(r))) })
	mux.HandleFunc("POST "+at+"/clone", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Name tenfold.Name }
		if read(w, r, &q) {
			reply(w)(s.api.Clone(r.Context(), id(r), q.Name))
		}
	})
	mux.HandleFunc("POST "+at+"/restore", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ To time.Time }
		if read(w, r, &q) {
			reply(w)(s.api.Restore(r.Context(), id(r), q.To))
		}
	})
}

// UpgradeQuestion says to which major, and how.
type UpgradeQuestion struct {
	To       int           `json:"to"` // 0: its own major, to the release that is installed
	Rehearse bool          `json:"rehearse,omitempty"`
	Keep     time.Duration `json:"keep,omitempty"` // the way back; 0: a day
}

// UpgradeDatabase implements API.
func (c *Client) UpgradeDatabase(ctx context.Context, id tenfold.ID, q UpgradeQuestion) (dbinfo.Upgrade, error) {
	return call[dbinfo.Upgrade](ctx, c, http.MethodPost, dbPath(id)+"/upgrade", q)
}

// RestartDatabase implements API.
func (c *Client) RestartDatabase(ctx context.Context, id tenfold.ID) (time.Duration, error) {
	return call[time.Duration](ctx, c, http.MethodPost, dbPath(id)+"/restart", nil)
}

// UpgradeBack implements API.
func (c *Client) UpgradeBack(ctx context.Context, id tenfold.ID) (dbinfo.Upgrade, error) {
	return call[dbinfo.Upgrade](ctx, c, http.MethodPost, dbPath(id)+"/upgrade/back", nil)
}

// UpgradeFinish implements API.
func (c *Client) UpgradeFinish(ctx context.Context, id tenfold.ID) error {
	return do(ctx, c, http.MethodPost, dbPath(id)+"/upgrade/finish", nil)
}

// Clone implements API.
func (c *Client) Clone(ctx context.Context, id tenfold.ID, name tenfold.Name) (tenfold.ID, error) {
	return call[tenfold.ID](ctx, c, http.MethodPost, dbPath(id)+"/clone", map[string]tenfold.Name{"name": name})
}

func dbPath(id tenfold.ID) string {
	return Env{App: id.App, Env: id.Env}.path() + "/databases/" + string(id.Name)
}

// Database implements API.
func (c *Client) Database(ctx context.Context, id tenfold.ID) (dbinfo.Database, error) {
	return call[dbinfo.Database](ctx, c, http.MethodGet, dbPath(id), nil)
}

// Failover implements API.
func (c *Client) Failover(ctx context.Context, id tenfold.ID) error {
	return do(ctx, c, http.MethodPost, dbPath(id)+"/failover", nil)
}

// Switchover implements API.
func (c *Client) Switchover(ctx context.Context, id tenfold.ID, node int) error {
	return do(ctx, c, http.MethodPost, dbPath(id)+"/switchover", map[string]int{"node": node})
}

// Sessions implements API.
func (c *Client) Sessions(ctx context.Context, id tenfold.ID) ([]dbinfo.Session, error) {
	return call[[]dbinfo.Session](ctx, c, http.MethodGet, dbPath(id)+"/sessions", nil)
}

// Locks implements API.
func (c *Client) Locks(ctx context.Context, id tenfold.ID) ([]dbinfo.Lock, error) {
	return call[[]dbinfo.Lock](ctx, c, http.MethodGet, dbPath(id)+"/locks", nil)
}

// Statements implements API.
func (c *Client) Statements(ctx context.Context, id tenfold.ID, limit int) ([]dbinfo.Statement, error) {
	return call[[]dbinfo.Statement](ctx, c, http.MethodGet, dbPath(id)+"/statements?limit="+strconv.Itoa(limit), nil)
}

type planQuestion struct {
	SQL     string `json:"sql"`
	Analyze bool   `json:"analyze"`
}

// Plan implements API.
func (c *Client) Plan(ctx context.Context, id tenfold.ID, sql string, analyze bool) (dbinfo.Plan, error) {
	return call[dbinfo.Plan](ctx, c, http.MethodPost, dbPath(id)+"/plan", planQuestion{sql, analyze})
}

// Rotate implements API.
func (c *Client) Rotate(ctx context.Context, id tenfold.ID) (dbinfo.Rotation, error) {
	return call[dbinfo.Rotation](ctx, c, http.MethodPost, dbPath(id)+"/rotate", nil)
}

// Waits implements API.
func (c *Client) Waits(ctx context.Context, id tenfold.ID) (dbinfo.Waits, error) {
	return call[dbinfo.Waits](ctx, c, http.MethodGet, dbPath(id)+"/waits", nil)
}

// Advice implements API.
func (c *Client) Advice(ctx context.Context, id tenfold.ID) (dbinfo.Advice, error) {
	return call[dbinfo.Advice](ctx, c, http.MethodGet, dbPath(id)+"/advice", nil)
}

// Backup implements API.
func (c *Client) Backup(ctx context.Context, id tenfold.ID) (dbinfo.Backup, error) {
	return call[dbinfo.Backup](ctx, c, http.MethodPost, dbPath(id)+"/backups", nil)
}

// Backups implements API.
func (c *Client) Backups(ctx context.Context, id tenfold.ID) ([]dbinfo.Backup, error) {
	return call[[]dbinfo.Backup](ctx, c, http.MethodGet, dbPath(id)+"/backups", nil)
}

// Restore implements API.
func (c *Client) Restore(ctx context.Context, id tenfold.ID, to time.Time) (tenfold.ID, error) {
	return call[tenfold.ID](ctx, c, http.MethodPost, dbPath(id)+"/restore", map[string]time.Time{"to": to})
}
