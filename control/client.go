package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tenfold"
	"tenfold/internal/unixhttp"
)

// Client calls a daemon. It implements API.
type Client struct {
	http  *http.Client
	base  string
	token string
	where string // for messages
}

var _ API = (*Client)(nil)

// Unix makes a client of the daemon behind a unix socket. Nothing is dialled yet.
func Unix(socket string) *Client {
	return &Client{http: &http.Client{Transport: unixhttp.Transport(socket)}, base: "http://tenfold", where: socket}
}

// TCP makes a client of a daemon that listens on TCP, for example "http://127.0.0.1:7070".
func TCP(base, token string) *Client {
	return &Client{http: &http.Client{Transport: &http.Transport{}}, base: strings.TrimRight(base, "/"), token: token, where: base}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	r, raw := body.(io.Reader)
	if body != nil && !raw {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, r)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	req.Header.Set("X-Tenfold", "1")
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, tenfold.Errorf(tenfold.CodeUnavailable, "no daemon answers at %s: %w", c.where, errors.Unwrap(err)).WithHint("start it with tenfold up, or name its data directory with --data")
	}
	if res.StatusCode >= 300 {
		defer res.Body.Close()
		return nil, decodeFailure(res)
	}
	return res, nil
}

func decodeFailure(res *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(res.Body, maxBody))
	var f failure
	if json.Unmarshal(b, &f) != nil || f.Error == nil {
		return tenfold.Errorf(tenfold.CodeInternal, "daemon answered %s: %s", res.Status, bytes.TrimSpace(b))
	}
	return f.Error.err()
}

// err restores the error, its message included: what Error() said over there stands in Err alone.
func (e *wireError) err() error {
	out := e.Error
	out.Op, out.Resource, out.Err = "", "", errors.New(e.Message)
	return &out
}

func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var v T
	res, err := c.send(ctx, method, path, body)
	if err != nil {
		return v, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		return v, fmt.Errorf("decode answer of %s %s: %w", method, path, err)
	}
	return v, nil
}

func do(ctx context.Context, c *Client, method, path string, body any) error {
	_, err := call[struct{}](ctx, c, method, path, body)
	return err
}

// Purge implements API.
func (c *Client) Purge(ctx context.Context, env Env, p Purge) (int, error) {
	v, err := call[struct{ Count int }](ctx, c, http.MethodPost, env.path()+"/purge", p)
	return v.Count, err
}

// GitConnect implements API.
func (c *Client) GitConnect(ctx context.Context, r GitConnect) (GitConnected, error) {
	return call[GitConnected](ctx, c, http.MethodPost, "/v1/git/connect", r)
}

// GitDisconnect implements API.
func (c *Client) GitDisconnect(ctx context.Context, app tenfold.AppName) error {
	return do(ctx, c, http.MethodDelete, "/v1/git/connect?app="+url.QueryEscape(string(app)), nil)
}

// GitKeys implements API.
func (c *Client) GitKeys(ctx context.Context) ([]GitKey, error) {
	return call[[]GitKey](ctx, c, http.MethodGet, "/v1/git/keys", nil)
}

// AddGitKey implements API.
func (c *Client) AddGitKey(ctx context.Context, name, line string) (GitKey, error) {
	return call[GitKey](ctx, c, http.MethodPost, "/v1/git/keys", map[string]string{"name": name, "line": line})
}

// RemoveGitKey implements API.
func (c *Client) RemoveGitKey(ctx context.Context, which string) error {
	return do(ctx, c, http.MethodDelete, "/v1/git/keys?which="+url.QueryEscape(which), nil)
}

// Previews implements API.
func (c *Client) Previews(ctx context.Context, app tenfold.AppName) ([]Preview, error) {
	return call[[]Preview](ctx, c, http.MethodGet, "/v1/previews?app="+url.QueryEscape(string(app)), nil)
}

// RemovePreview implements API.
func (c *Client) RemovePreview(ctx context.Context, app tenfold.AppName, name string) error {
	return do(ctx, c, http.MethodPost, "/v1/previews/remove", named{app, name})
}

// ApprovePreview implements API.
func (c *Client) ApprovePreview(ctx context.Context, app tenfold.AppName, name, commit string) (Preview, error) {
	return call[Preview](ctx, c, http.MethodPost, "/v1/previews/approve", approval{named{app, name}, commit})
}

// named is a thing of an app, or of the only app that has one of the name.
type named struct {
	App  tenfold.AppName `json:"app,omitempty"`
	Name string          `json:"name"`
}

// approval is of one commit.
type approval struct {
	named
	Commit string `json:"commit,omitempty"`
}

// Explain implements API.
func (c *Client) Explain(ctx context.Context, env Env, q Question) (Explanation, error) {
	return call[Explanation](ctx, c, http.MethodPost, env.path()+"/explain", q)
}

// Upload implements API.
func (c *Client) Upload(ctx context.Context, origin string, files io.Reader) (string, error) {
	v, err := call[struct{ Dir string }](ctx, c, http.MethodPost, "/v1/sources?origin="+url.QueryEscape(origin), files)
	return v.Dir, err
}

// follow reads a stream of T until it ends, yield errs, or ctx ends.
func follow[T any](ctx context.Context, c *Client, method, path string, body any, yield func(T) error) error {
	res, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var f failure
		if bytes.HasPrefix(lines.Bytes(), []byte(`{"error":`)) && json.Unmarshal(lines.Bytes(), &f) == nil && f.Error != nil {
			return f.Error.err()
		}
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return fmt.Errorf("decode stream of %s: %w", path, err)
		}
		if err := yield(v); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return lines.Err()
}

func (e Env) path() string {
	return "/v1/apps/" + url.PathEscape(string(e.App)) + "/" + url.PathEscape(string(e.Env))
}

func name[T ~string](n T) string { return url.PathEscape(string(n)) }

// House implements API.
func (c *Client) House(ctx context.Context) (House, error) {
	return call[House](ctx, c, "GET", "/v1/house", nil)
}

// Deploy implements API.
func (c *Client) Deploy(ctx context.Context, r DeployRequest) (Deployed, error) {
	return call[Deployed](ctx, c, "POST", "/v1/deploys", r)
}

// Wait implements API.
func (c *Client) Wait(ctx context.Context, e Env, n tenfold.Revision) (Revision, error) {
	return call[Revision](ctx, c, "GET", fmt.Sprintf("%s/revisions/%d/outcome", e.path(), n), nil)
}

// Status implements API.
func (c *Client) Status(ctx context.Context, e Env) (Status, error) {
	return call[Status](ctx, c, "GET", e.path(), nil)
}

// Revisions implements API.
func (c *Client) Revisions(ctx context.Context, e Env) ([]Revision, error) {
	return call[[]Revision](ctx, c, "GET", e.path()+"/revisions", nil)
}

// Rollback implements API.
func (c *Client) Rollback(ctx context.Context, e Env, to tenfold.Revision) (Deployed, error) {
	return call[Deployed](ctx, c, "POST", e.path()+"/rollback", struct{ To tenfold.Revision }{to})
}

// Decide implements API.
func (c *Client) Decide(ctx context.Context, e Env, promote bool, actor string) (string, error) {
	d, err := call[decided](ctx, c, "POST", e.path()+"/decide", decision{promote, actor})
	return d.Text, err
}

// Down implements API.
func (c *Client) Down(ctx context.Context, e Env) error {
	return do(ctx, c, "POST", e.path()+"/down", nil)
}

// RemoveData implements API.
func (c *Client) RemoveData(ctx context.Context, id tenfold.ID) error {
	return do(ctx, c, "DELETE", Env{id.App, id.Env}.path()+"/data/"+name(id.Kind)+"/"+name(id.Name), nil)
}

// Kept implements API.
func (c *Client) Kept(ctx context.Context) ([]Kept, error) {
	return call[[]Kept](ctx, c, "GET", "/v1/kept", nil)
}

// Scale implements API.
func (c *Client) Scale(ctx context.Context, e Env, service tenfold.Name, b tenfold.Bounds) error {
	return do(ctx, c, "PUT", e.path()+"/scale/"+name(service), b)
}

// Releases implements API.
func (c *Client) Releases(ctx context.Context, e Env, frontend tenfold.Name) ([]Release, error) {
	return call[[]Release](ctx, c, "GET", e.path()+"/releases/"+name(frontend), nil)
}

// SwitchRelease implements API.
func (c *Client) SwitchRelease(ctx context.Context, e Env, frontend tenfold.Name, id tenfold.ReleaseID) error {
	return do(ctx, c, "PUT", e.path()+"/releases/"+name(frontend), struct{ ID tenfold.ReleaseID }{id})
}

// Secrets implements API.
func (c *Client) Secrets(ctx context.Context, app tenfold.AppName) ([]Secret, error) {
	return call[[]Secret](ctx, c, "GET", "/v1/secrets/"+name(app), nil)
}

// SetSecret implements API.
func (c *Client) SetSecret(ctx context.Context, app tenfold.AppName, n tenfold.Name, value string) (int64, error) {
	v, err := call[struct{ Version int64 }](ctx, c, "PUT", "/v1/secrets/"+name(app)+"/"+name(n), struct{ Value string }{value})
	return v.Version, err
}

// RemoveSecret implements API.
func (c *Client) RemoveSecret(ctx context.Context, app tenfold.AppName, n tenfold.Name) error {
	return do(ctx, c, "DELETE", "/v1/secrets/"+name(app)+"/"+name(n), nil)
}

// Events implements API.
func (c *Client) Events(ctx context.Context, q EventQuery, yield func(tenfold.Event) error) error {
	v := url.Values{"app": {string(q.App)}, "env": {string(q.Env.Env)}, "after": {strconv.FormatInt(q.After, 10)}, "tail": {strconv.Itoa(q.Tail)}, "follow": {strconv.FormatBool(q.Follow)}}
	return follow(ctx, c, "GET", "/v1/events?"+v.Encode(), nil, yield)
}

// Audit implements API.
func (c *Client) Audit(ctx context.Context, app tenfold.AppName, limit int) ([]Entry, error) {
	v := url.Values{"app": {string(app)}, "limit": {strconv.Itoa(limit)}}
	return call[[]Entry](ctx, c, "GET", "/v1/audit?"+v.Encode(), nil)
}

// Logs implements API.
func (c *Client) Logs(ctx context.Context, q LogQuery, yield func(LogLine) error) error {
	v := url.Values{"name": {string(q.Name)}, "tail": {strconv.Itoa(q.Tail)}, "since": {q.Since.String()}, "until": {q.Until.String()}, "follow": {strconv.FormatBool(q.Follow)}, "grep": {q.Grep}}
	return follow(ctx, c, "GET", q.path()+"/logs?"+v.Encode(), nil, yield)
}

// Runs implements API.
func (c *Client) Runs(ctx context.Context, env Env, job tenfold.Name) ([]JobRun, error) {
	return call[[]JobRun](ctx, c, "GET", env.path()+"/runs?job="+url.QueryEscape(string(job)), nil)
}

// Run implements API.
func (c *Client) Run(ctx context.Context, r RunRequest, yield func(LogLine) error) error {
	return follow(ctx, c, "POST", "/v1/run", r, yield)
}

// Environ implements API.
func (c *Client) Environ(ctx context.Context, id tenfold.ID, tool string) (Process, error) {
	return call[Process](ctx, c, "GET", Env{id.App, id.Env}.path()+"/environ/"+name(id.Kind)+"/"+name(id.Name)+"?tool="+url.QueryEscape(tool), nil)
}

// Metrics implements API.
func (c *Client) Metrics(ctx context.Context, w io.Writer) error {
	res, err := c.send(ctx, "GET", "/v1/metrics", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(w, res.Body)
	return err
}

// Upgrade implements API.
func (c *Client) Upgrade(ctx context.Context, binary string, linger time.Duration) error {
	return do(ctx, c, "POST", "/v1/house/upgrade", upgrade{binary, linger})
}

type upgrade struct {
	Binary string
	Linger time.Duration
}

// Shutdown implements API.
func (c *Client) Shutdown(ctx context.Context) error {
	return do(ctx, c, "POST", "/v1/house/shutdown", nil)
}

// Ready waits until the daemon answers, at most for the time that ctx allows.
func (c *Client) Ready(ctx context.Context) (House, error) {
	for {
		h, err := c.House(ctx)
		if err == nil || ctx.Err() != nil {
			return h, err
		}
		select {
		case <-ctx.Done():
			return h, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
