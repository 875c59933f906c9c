package event

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"tenfold/internal/awsapi"
)

// endpoint is an API destination: an HTTP endpoint that takes events.
type endpoint struct {
	Account     string `json:"account"`
	Name        string `json:"name"`
	ID          string `json:"id"`
	Description string `json:"description,omitempty"`
	URL         string `json:"url"`
	Method      string `json:"method"`
	Rate        int    `json:"rate"` // a second
	// Every is a rate's other half for less than one a second, in milliseconds; 0: by Rate.
	Every      int64  `json:"every,omitempty"`
	Connection string `json:"connection"` // name
	Created    int64  `json:"created"`
	Modified   int64  `json:"modified"`
	Kept       string `json:"kept,omitempty"` // the bus of a manifest that it is of
	By         string `json:"by,omitempty"`
}

// connection is how an endpoint is told who asks.
type connection struct {
	Account     string `json:"account"`
	Name        string `json:"name"`
	ID          string `json:"id"`
	Description string `json:"description,omitempty"`
	Kind        string `json:"kind"`
	// Sealed are the authParameters, which nobody can read in the log. Those of a manifest's are not in the log
	// at all: they are handed down with it, into given.
	Sealed   []byte `json:"sealed,omitempty"`
	Created  int64  `json:"created"`
	Modified int64  `json:"modified"`
	Kept     string `json:"kept,omitempty"`
	By       string `json:"by,omitempty"`

	given *authParameters
}

type authParameters struct {
	BasicAuthParameters  *basicAuth      `json:",omitempty"`
	ApiKeyAuthParameters *keyAuth        `json:",omitempty"`
	OAuthParameters      json.RawMessage `json:",omitempty"`
	InvocationHttpParameters,
	ConnectivityParameters *callParameters `json:",omitempty"`
}

type basicAuth struct {
	Username string
	Password string `json:",omitempty"`
}

type keyAuth struct {
	ApiKeyName  string
	ApiKeyValue string `json:",omitempty"`
}

type callParameters struct {
	HeaderParameters      []callParameter `json:",omitempty"`
	QueryStringParameters []callParameter `json:",omitempty"`
	BodyParameters        []callParameter `json:",omitempty"`
}

type callParameter struct {
	Key           string
	Value         string `json:",omitempty"`
	IsValueSecret bool
}

const (
	// endpointTimeout is EventBridge's for an endpoint.
	endpointTimeout = 5 * time.Second
	defaultRate     = 300
)

func (e *endpoint) arn() string {
	return arn("events", e.Account, "api-destination/"+e.Name+"/"+e.ID)
}

func (c *connection) arn() string {
	return arn("events", c.Account, "connection/"+c.Name+"/"+c.ID)
}

// pace is the time between two calls of an endpoint; 0: as fast as they come.
func (s *Store) pace(target string) time.Duration {
	_, account, rest, _ := resource(target)
	name, ok := strings.CutPrefix(rest, "api-destination/")
	if !ok {
		return 0
	}
	name, _, _ = strings.Cut(name, "/")
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.endpoints[place{account, name}]
	switch {
	case e == nil:
		return 0
	case e.Every > 0:
		return time.Duration(e.Every) * time.Millisecond
	}
	return time.Second / time.Duration(max(1, e.Rate))
}

// auth opens what a connection says. Call with mu held for reading.
func (s *Store) auth(c *connection) (*authParameters, error) {
	switch {
	case c.given != nil:
		return c.given, nil
	case c.Sealed == nil:
		return nil, errors.New("the secret of " + c.Name + " has not been handed down yet")
	}
	if s.cfg.Seal == nil {
		return nil, errors.New("secrets cannot be opened here")
	}
	text, err := s.cfg.Seal.Open(c.Sealed)
	if err != nil {
		return nil, err
	}
	var a authParameters
	return &a, json.Unmarshal([]byte(text), &a)
}

// call is a delivery to an endpoint.
func (s *Store) call(ctx context.Context, d *delivery, name string) error {
	s.mu.RLock()
	e := s.endpoints[place{d.Account, name}]
	var a *authParameters
	var err error
	if e != nil {
		if c := s.conns[place{d.Account, e.Connection}]; c != nil {
			a, err = s.auth(c)
		} else {
			err = errors.New("its connection " + e.Connection + " does not exist")
		}
	}
	s.mu.RUnlock()
	switch {
	case e == nil:
		return never("NO_RESOURCE", "API destination %s does not exist", name)
	case err != nil:
		return fmt.Errorf("API destination %s: %w", name, err)
	}
	r, err := e.request(d, a)
	if err != nil {
		return never("SDK_CLIENT_ERROR", "API destination %s: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, endpointTimeout)
	defer cancel()
	res, err := s.cfg.HTTP.RoundTrip(r.WithContext(ctx))
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %s", endpointTimeout)
		}
		return fmt.Errorf("API destination %s: %w", name, err)
	}
	defer res.Body.Close()
	io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // for the connection's sake
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return nil
	}
	why := fmt.Errorf("API destination %s answered %s", name, res.Status)
	switch {
	case res.StatusCode >= 500, slices.Contains([]int{401, 407, 408, 409, 429}, res.StatusCode):
		return &temporary{strconv.Itoa(res.StatusCode), retryAfter(res.Header.Get("Retry-After"), time.Now()), why}
	}
	return &lasting{strconv.Itoa(res.StatusCode), why}
}

// retryAfter reads how long an endpoint wants to be left alone: an hour at most.
func retryAfter(s string, now time.Time) time.Duration {
	d := time.Duration(0)
	if n, err := strconv.Atoi(s); err == nil {
		d = time.Duration(min(max(n, 0), 3600)) * time.Second
	} else if t, err := http.ParseTime(s); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), time.Hour)
}

// request makes the request of a delivery.
func (e *endpoint) request(d *delivery, a *authParameters) (*http.Request, error) {
	at := e.URL
	var own httpParameters
	if d.HTTP != nil {
		own = *d.HTTP
	}
	for _, v := range own.PathParameterValues {
		at = strings.Replace(at, "*", url.PathEscape(v), 1)
	}
	u, err := url.Parse(at)
	if err != nil {
		return nil, err
	}
	query := u.Query()
	for k, v := range own.QueryStringParameters {
		query.Set(k, v)
	}
	body := []byte(d.Body)
	if p := a.InvocationHttpParameters; p != nil {
		for _, x := range p.QueryStringParameters {
			query.Set(x.Key, x.Value)
		}
		body = withBody(body, p.BodyParameters)
	}
	u.RawQuery = query.Encode()
	r, err := http.NewRequest(e.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	r.Header.Set("User-Agent", "Amazon/EventBridge/ApiDestinations")
	for k, v := range own.HeaderParameters {
		r.Header.Set(k, v)
	}
	if p := a.InvocationHttpParameters; p != nil {
		for _, x := range p.HeaderParameters {
			r.Header.Set(x.Key, x.Value)
		}
	}
	if b := a.BasicAuthParameters; b != nil {
		r.SetBasicAuth(b.Username, b.Password)
	}
	if k := a.ApiKeyAuthParameters; k != nil {
		r.Header.Set(k.ApiKeyName, k.ApiKeyValue)
	}
	return r, nil
}

// withBody adds a connection's parameters to a body that is an object.
func withBody(body []byte, all []callParameter) []byte {
	var m map[string]json.RawMessage
	if len(all) == 0 || json.Unmarshal(body, &m) != nil || m == nil {
		return body
	}
	for _, p := range all {
		if v, err := json.Marshal(p.Value); err == nil {
			m[p.Key] = v
		}
	}
	out, err := marshal(m)
	if err != nil {
		return body
	}
	return out
}

// checkURL says what is wrong with an endpoint's address.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || len(s) > 2048 {
		return fmt.Errorf("%q is no address: https://partner.example.com/hook", s)
	}
	return nil
}

func (a *authParameters) check(kind string) error {
	switch kind {
	case "BASIC":
		if a == nil || a.BasicAuthParameters == nil || a.BasicAuthParameters.Username == "" {
			return errors.New("BasicAuthParameters with Username and Password are required for BASIC")
		}
	case "API_KEY":
		if a == nil || a.ApiKeyAuthParameters == nil || a.ApiKeyAuthParameters.ApiKeyName == "" {
			return errors.New("ApiKeyAuthParameters with ApiKeyName and ApiKeyValue are required for API_KEY")
		}
	case "OAUTH_CLIENT_CREDENTIALS":
		return errors.New("OAUTH_CLIENT_CREDENTIALS is not served by Tenfold; use BASIC or API_KEY (ApiKeyName Authorization, ApiKeyValue \"Bearer …\")")
	default:
		return fmt.Errorf("1 validation error detected: Value '%s' at 'authorizationType' failed to satisfy constraint: Member must satisfy enum value set: [BASIC, OAUTH_CLIENT_CREDENTIALS, API_KEY]", cut(kind, 100))
	}
	return nil
}

// shown are the parameters without what is secret.
func (a *authParameters) shown() *authParameters {
	out := &authParameters{}
	if b := a.BasicAuthParameters; b != nil {
		out.BasicAuthParameters = &basicAuth{Username: b.Username}
	}
	if k := a.ApiKeyAuthParameters; k != nil {
		out.ApiKeyAuthParameters = &keyAuth{ApiKeyName: k.ApiKeyName}
	}
	if p := a.InvocationHttpParameters; p != nil {
		hide := func(all []callParameter) []callParameter {
			all = slices.Clone(all)
			for i := range all {
				if all[i].IsValueSecret {
					all[i].Value = ""
				}
			}
			return all
		}
		out.InvocationHttpParameters = &callParameters{hide(p.HeaderParameters), hide(p.QueryStringParameters), hide(p.BodyParameters)}
	}
	return out
}

func (s *Store) seal(a *authParameters) ([]byte, error) {
	raw, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	if s.cfg.Seal == nil {
		return nil, errors.New("secrets cannot be kept here")
	}
	return s.cfg.Seal.Seal(string(raw))
}

func (s *Store) createConnection(c awsapi.Caller, in *input) (any, error) {
	if err := in.AuthParameters.check(in.AuthorizationType); err != nil {
		return nil, invalid("%v", err)
	}
	if !nameOK(in.Name, 64) {
		return nil, badName("name", in.Name, 64)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{c.Account, in.Name}
	if s.conns[p] != nil {
		return nil, exists("Connection %s already exists.", in.Name)
	}
	sealed, err := s.seal(in.AuthParameters)
	if err != nil {
		return nil, err
	}
	now := time.Now().UnixMilli()
	x := &connection{Account: c.Account, Name: in.Name, ID: uuid.NewString(), Description: text(in.Description), Kind: in.AuthorizationType, Sealed: sealed, Created: now, Modified: now, By: c.Of}
	if err := s.put(named(kindConnection, p), x); err != nil {
		return nil, err
	}
	s.conns[p] = x
	return x.state(), nil
}

func (c *connection) state() member {
	return member{"ConnectionArn": c.arn(), "ConnectionState": "AUTHORIZED", "CreationTime": stamp(c.Created), "LastModifiedTime": stamp(c.Modified), "LastAuthorizedTime": stamp(c.Modified)}
}

func noConnection(name string) error {
	return missing("Failed to describe the connection(s). Connection '%s' does not exist.", name)
}

// ownConnection finds a connection that clients may change: one that no manifest keeps. Call with mu held.
func (s *Store) ownConnection(p place) (*connection, error) {
	x := s.conns[p]
	switch {
	case x == nil:
		return nil, noConnection(p.name)
	case x.Kept != "":
		return nil, keptError("Connection", p.name, x.Kept)
	}
	return x, nil
}

func (s *Store) describeConnection(c awsapi.Caller, in *input) (any, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	x := s.conns[place{c.Account, in.Name}]
	if x == nil {
		return nil, noConnection(in.Name)
	}
	out := x.state()
	out["Name"], out["AuthorizationType"] = x.Name, x.Kind
	if x.Description != "" {
		out["Description"] = x.Description
	}
	if a, err := s.auth(x); err == nil {
		out["AuthParameters"] = a.shown()
	}
	return out, nil
}

func (s *Store) updateConnection(c awsapi.Caller, in *input) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{c.Account, in.Name}
	x, err := s.ownConnection(p)
	if err != nil {
		return nil, err
	}
	next := *x
	if in.AuthorizationType != "" {
		next.Kind = in.AuthorizationType
	}
	if in.Description != nil {
		next.Description = *in.Description
	}
	if in.AuthParameters != nil {
		if err := in.AuthParameters.check(next.Kind); err != nil {
			return nil, invalid("%v", err)
		}
		sealed, err := s.seal(in.AuthParameters)
		if err != nil {
			return nil, err
		}
		next.Sealed = sealed
	} else if next.Kind != x.Kind {
		return nil, invalid("AuthParameters are required with another AuthorizationType")
	}
	next.Modified = time.Now().UnixMilli()
	if err := s.put(named(kindConnection, p), &next); err != nil {
		return nil, err
	}
	s.conns[p] = &next
	return next.state(), nil
}

func (s *Store) deleteConnection(c awsapi.Caller, in *input) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{c.Account, in.Name}
	x, err := s.ownConnection(p)
	if err != nil {
		return nil, err
	}
	if err := s.drop(named(kindConnection, p)); err != nil {
		return nil, err
	}
	delete(s.conns, p)
	out := x.state()
	out["ConnectionState"] = "DELETING"
	return out, nil
}

func (s *Store) listConnections(c awsapi.Caller, in *input) (any, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := []member{}
	for _, x := range of(s.conns, c.Account) {
		if !strings.HasPrefix(x.Name, in.NamePrefix) || in.ConnectionState != "" && in.ConnectionState != "AUTHORIZED" {
			continue
		}
		m := x.state()
		m["Name"], m["AuthorizationType"] = x.Name, x.Kind
		out = append(out, m)
	}
	return paged("Connections", out, in)
}

// connectionOf finds a connection by its ARN. Call with mu held.
func (s *Store) connectionOf(account, a string) *connection {
	service, of, rest, ok := resource(a)
	name, is := strings.CutPrefix(rest, "connection/")
	if !ok || !is || service != "events" || of != account {
		return nil
	}
	name, _, _ = strings.Cut(name, "/")
	return s.conns[place{account, name}]
}

func (s *Store) changeEndpoint(e *endpoint, in *input) error {
	if in.InvocationEndpoint != "" {
		if err := checkURL(in.InvocationEndpoint); err != nil {
			return invalid("%v", err)
		}
		e.URL = in.InvocationEndpoint
	}
	if in.HttpMethod != "" {
		if !slices.Contains([]string{"POST", "GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"}, in.HttpMethod) {
			return invalid("HttpMethod %q is not known", in.HttpMethod)
		}
		e.Method = in.HttpMethod
	}
	if in.Description != nil {
		e.Description = *in.Description
	}
	if n := in.InvocationRateLimitPerSecond; n != nil {
		if *n < 1 || *n > 300 {
			return invalid("InvocationRateLimitPerSecond is from 1 to 300")
		}
		e.Rate = *n
	}
	if in.ConnectionArn != "" {
		x := s.connectionOf(e.Account, in.ConnectionArn)
		if x == nil {
			return missing("Connection %s does not exist.", in.ConnectionArn)
		}
		e.Connection = x.Name
	}
	e.Modified = time.Now().UnixMilli()
	return nil
}

func (s *Store) createEndpoint(c awsapi.Caller, in *input) (any, error) {
	if !nameOK(in.Name, 64) {
		return nil, badName("name", in.Name, 64)
	}
	if in.InvocationEndpoint == "" || in.HttpMethod == "" || in.ConnectionArn == "" {
		return nil, invalid("InvocationEndpoint, HttpMethod and ConnectionArn are required")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{c.Account, in.Name}
	if s.endpoints[p] != nil {
		return nil, exists("An api-destination '%s' already exists.", in.Name)
	}
	e := &endpoint{Account: c.Account, Name: in.Name, ID: uuid.NewString(), Rate: defaultRate, Created: time.Now().UnixMilli(), By: c.Of}
	if err := s.changeEndpoint(e, in); err != nil {
		return nil, err
	}
	if err := s.put(named(kindEndpoint, p), e); err != nil {
		return nil, err
	}
	s.endpoints[p] = e
	return e.state(), nil
}

func (e *endpoint) state() member {
	return member{"ApiDestinationArn": e.arn(), "ApiDestinationState": "ACTIVE", "CreationTime": stamp(e.Created), "LastModifiedTime": stamp(e.Modified)}
}

func (s *Store) shownEndpoint(e *endpoint) member {
	m := e.state()
	m["Name"], m["InvocationEndpoint"], m["HttpMethod"], m["InvocationRateLimitPerSecond"] = e.Name, e.URL, e.Method, e.Rate
	if c := s.conns[place{e.Account, e.Connection}]; c != nil {
		m["ConnectionArn"] = c.arn()
	}
	return m
}

func noEndpoint(name string) error {
	return missing("Failed to describe the api-destination(s). An api-destination '%s' does not exist.", name)
}

// ownEndpoint finds an API destination that clients may change: one that no manifest keeps. Call with mu held.
func (s *Store) ownEndpoint(p place) (*endpoint, error) {
	e := s.endpoints[p]
	switch {
	case e == nil:
		return nil, noEndpoint(p.name)
	case e.Kept != "":
		return nil, keptError("API destination", p.name, e.Kept)
	}
	return e, nil
}

func (s *Store) describeEndpoint(c awsapi.Caller, in *input) (any, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.endpoints[place{c.Account, in.Name}]
	if e == nil {
		return nil, noEndpoint(in.Name)
	}
	m := s.shownEndpoint(e)
	if e.Description != "" {
		m["Description"] = e.Description
	}
	return m, nil
}

func (s *Store) updateEndpoint(c awsapi.Caller, in *input) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{c.Account, in.Name}
	e, err := s.ownEndpoint(p)
	if err != nil {
		return nil, err
	}
	next := *e
	if err := s.changeEndpoint(&next, in); err != nil {
		return nil, err
	}
	if err := s.put(named(kindEndpoint, p), &next); err != nil {
		return nil, err
	}
	s.endpoints[p] = &next
	return next.state(), nil
}

func (s *Store) deleteEndpoint(c awsapi.Caller, in *input) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{c.Account, in.Name}
	if _, err := s.ownEndpoint(p); err != nil {
		return nil, err
	}
	if err := s.drop(named(kindEndpoint, p)); err != nil {
		return nil, err
	}
	delete(s.endpoints, p)
	return none{}, nil
}

func (s *Store) listEndpoints(c awsapi.Caller, in *input) (any, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := []member{}
	for _, e := range of(s.endpoints, c.Account) {
		if strings.HasPrefix(e.Name, in.NamePrefix) && (in.ConnectionArn == "" || s.connectionOf(c.Account, in.ConnectionArn) == s.conns[place{c.Account, e.Connection}]) {
			out = append(out, s.shownEndpoint(e))
		}
	}
	return paged("ApiDestinations", out, in)
}
