// Package event makes events of HTTP requests and responses of what functions return, in the forms of
// AWS: API Gateway's payload 2.0, which function URLs have too, and that of a load balancer's target.
//
// It is pure but for the request's body, which is read by who calls. Begin at Request and Response.
// Sources: "Working with AWS Lambda proxy integrations for HTTP APIs", "Lambda function URLs" and "Lambda
// functions as targets for Application Load Balancers" of AWS' guides.
package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"tenfold/internal/awsapi"
)

// The forms.
const (
	V2  = "v2"  // API Gateway HTTP API, payload 2.0, and function URLs
	ALB = "alb" // a target of an Application Load Balancer
)

// Source is what an event says beside the request.
type Source struct {
	Form    string
	ID      string // of the request
	Account string
	API     string // names the API: the app's and environment's
	Route   string // "POST /api/:id"; "": $default
	Params  map[string]string
	Client  string // address, without port
	At      time.Time
}

type v2 struct {
	Version               string            `json:"version"`
	RouteKey              string            `json:"routeKey"`
	RawPath               string            `json:"rawPath"`
	RawQueryString        string            `json:"rawQueryString"`
	Cookies               []string          `json:"cookies,omitempty"`
	Headers               map[string]string `json:"headers"`
	QueryStringParameters map[string]string `json:"queryStringParameters,omitempty"`
	RequestContext        v2Context         `json:"requestContext"`
	PathParameters        map[string]string `json:"pathParameters,omitempty"`
	Body                  string            `json:"body,omitempty"`
	IsBase64Encoded       bool              `json:"isBase64Encoded"`
}

type v2Context struct {
	AccountID    string `json:"accountId"`
	APIID        string `json:"apiId"`
	DomainName   string `json:"domainName"`
	DomainPrefix string `json:"domainPrefix"`
	HTTP         v2HTTP `json:"http"`
	RequestID    string `json:"requestId"`
	RouteKey     string `json:"routeKey"`
	Stage        string `json:"stage"`
	Time         string `json:"time"`
	TimeEpoch    int64  `json:"timeEpoch"`
}

type v2HTTP struct {
	Method    string `json:"method"`
	Path      string `json:"path"`
	Protocol  string `json:"protocol"`
	SourceIP  string `json:"sourceIp"`
	UserAgent string `json:"userAgent"`
}

type alb struct {
	RequestContext struct {
		ELB struct {
			TargetGroupARN string `json:"targetGroupArn"`
		} `json:"elb"`
	} `json:"requestContext"`
	HTTPMethod            string            `json:"httpMethod"`
	Path                  string            `json:"path"`
	QueryStringParameters map[string]string `json:"queryStringParameters"`
	Headers               map[string]string `json:"headers"`
	Body                  string            `json:"body"`
	IsBase64Encoded       bool              `json:"isBase64Encoded"`
}

// Request makes an event of r, whose body is body.
func Request(r *http.Request, body []byte, s Source) ([]byte, error) {
	text, coded := encode(r.Header.Get("Content-Type"), body)
	headers := map[string]string{"host": r.Host}
	for name, values := range r.Header {
		if name != "Cookie" || s.Form == ALB {
			headers[strings.ToLower(name)] = strings.Join(values, ",")
		}
	}
	path, query, _ := strings.Cut(r.RequestURI, "?")
	if path == "" || path[0] != '/' {
		path, query = r.URL.EscapedPath(), r.URL.RawQuery
	}
	if s.Form == ALB {
		e := alb{HTTPMethod: r.Method, Path: path, QueryStringParameters: map[string]string{}, Headers: headers, Body: text, IsBase64Encoded: coded}
		e.RequestContext.ELB.TargetGroupARN = "arn:aws:elasticloadbalancing:" + awsapi.Region + ":" + s.Account + ":targetgroup/" + s.API + "/1"
		for item := range strings.SplitSeq(query, "&") { // as they were sent, the last of several
			if name, value, _ := strings.Cut(item, "="); name != "" {
				e.QueryStringParameters[name] = value
			}
		}
		return json.Marshal(e)
	}
	decoded, err := url.PathUnescape(path)
	if err != nil {
		decoded = path
	}
	key := "$default"
	if s.Route != "" {
		key = routeKey(s.Route)
	}
	host := hostname(r.Host)
	prefix, _, _ := strings.Cut(host, ".")
	e := v2{
		Version: "2.0", RouteKey: key, RawPath: decoded, RawQueryString: query, Headers: headers, PathParameters: s.Params, Body: text, IsBase64Encoded: coded,
		RequestContext: v2Context{
			AccountID: s.Account, APIID: s.API, DomainName: host, DomainPrefix: prefix, RequestID: s.ID, RouteKey: key, Stage: "$default",
			Time: s.At.UTC().Format("02/Jan/2006:15:04:05 -0700"), TimeEpoch: s.At.UnixMilli(),
			HTTP: v2HTTP{r.Method, decoded, r.Proto, s.Client, r.UserAgent()},
		},
	}
	for _, c := range r.Header["Cookie"] {
		for part := range strings.SplitSeq(c, ";") {
			if part = strings.TrimSpace(part); part != "" {
				e.Cookies = append(e.Cookies, part)
			}
		}
	}
	if values, _ := url.ParseQuery(query); len(values) > 0 {
		e.QueryStringParameters = map[string]string{}
		for name, v := range values {
			e.QueryStringParameters[name] = strings.Join(v, ",")
		}
	}
	return json.Marshal(e)
}

func hostname(host string) string {
	if i := strings.LastIndexByte(host, ':'); i > 0 && !strings.HasSuffix(host, "]") {
		return host[:i]
	}
	return host
}

// routeKey says a route as API Gateway does: "POST /api/{id}", "ANY /files/{proxy+}".
func routeKey(route string) string {
	method, path, ok := strings.Cut(route, " ")
	if !ok {
		method, path = "ANY", route
	}
	if i := strings.IndexByte(path, '/'); i > 0 {
		path = path[i:] // without the host
	}
	parts := strings.Split(path, "/")
	for i, p := range parts {
		switch {
		case strings.HasPrefix(p, ":"):
			parts[i] = "{" + p[1:] + "}"
		case p == "*" && i == len(parts)-1:
			parts[i] = "{proxy+}"
		}
	}
	return method + " " + strings.Join(parts, "/")
}

// encode gives a body as text, in base64 when it is none.
func encode(contentType string, body []byte) (text string, coded bool) {
	if len(body) == 0 {
		return "", false
	}
	if isText(contentType) && utf8.Valid(body) {
		return string(body), false
	}
	return base64.StdEncoding.EncodeToString(body), true
}

func isText(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	switch t {
	case "application/json", "application/javascript", "application/xml", "application/graphql":
		return true
	}
	return strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "+json") || strings.HasSuffix(t, "+xml")
}

// Answer is a function's answer to an HTTP event.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// scalar takes a header's value: functions return numbers and booleans too.
type scalar string

func (s *scalar) UnmarshalJSON(b []byte) error {
	var text string
	switch {
	case json.Unmarshal(b, &text) == nil:
		*s = scalar(text)
	case len(b) > 0 && (b[0] == '{' || b[0] == '['):
		return fmt.Errorf("a header's value is %.40s", b)
	default:
		*s = scalar(b)
	}
	return nil
}

// Response reads what a function returned. A payload 2.0 without statusCode is a body by itself.
func Response(payload []byte, form string) (Answer, error) {
	a := Answer{Status: http.StatusOK, Header: http.Header{}}
	var out struct {
		StatusCode        *json.RawMessage    `json:"statusCode"`
		Headers           map[string]scalar   `json:"headers"`
		MultiValueHeaders map[string][]scalar `json:"multiValueHeaders"`
		Cookies           []string            `json:"cookies"`
		Body              *string             `json:"body"`
		IsBase64Encoded   bool                `json:"isBase64Encoded"`
	}
	trimmed := bytes.TrimSpace(payload)
	err := json.Unmarshal(payload, &out)
	if len(trimmed) == 0 || trimmed[0] != '{' || err == nil && out.StatusCode == nil {
		if form == ALB {
			return a, fmt.Errorf("what the function returned has no statusCode")
		}
		return bare(trimmed)
	}
	if err != nil {
		return a, fmt.Errorf("what the function returned is no response: %w", err)
	}
	status, err := strconv.Atoi(strings.Trim(string(*out.StatusCode), `"`))
	if err != nil || status < 200 || status > 999 {
		return a, fmt.Errorf("what the function returned has the statusCode %.20s", *out.StatusCode)
	}
	a.Status = status
	if err := a.headers(out.Headers, out.MultiValueHeaders, out.Cookies); err != nil {
		return a, err
	}
	if out.Body != nil {
		a.Body = []byte(*out.Body)
		if out.IsBase64Encoded {
			if a.Body, err = base64.StdEncoding.DecodeString(*out.Body); err != nil {
				return a, fmt.Errorf("what the function returned has a body that is not base64: %w", err)
			}
		}
	}
	if form != ALB && a.Header.Get("Content-Type") == "" && len(a.Body) > 0 {
		a.Header.Set("Content-Type", "application/json")
	}
	return a, nil
}

// bare is an answer that is a body alone.
func bare(payload []byte) (Answer, error) {
	a := Answer{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: payload}
	var text string
	if len(payload) > 0 && payload[0] == '"' && json.Unmarshal(payload, &text) == nil {
		a.Body = []byte(text)
	}
	return a, nil
}

func (a *Answer) headers(one map[string]scalar, many map[string][]scalar, cookies []string) error {
	for _, name := range slices.Sorted(maps.Keys(one)) {
		if err := a.add(name, string(one[name])); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(many)) {
		a.Header.Del(name)
		for _, v := range many[name] {
			if err := a.add(name, string(v)); err != nil {
				return err
			}
		}
	}
	for _, c := range cookies {
		if err := a.add("Set-Cookie", c); err != nil {
			return err
		}
	}
	return nil
}

// add appends a field that may stand in a response. What is about the connection is the door's.
func (a *Answer) add(name, value string) error {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 127 || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return fmt.Errorf("what the function returned has a header named %.60q", name)
		}
	}
	if name == "" || strings.ContainsAny(value, "\r\n\x00") {
		return fmt.Errorf("what the function returned has a header %.60q with a line break", name)
	}
	switch name = textproto.CanonicalMIMEHeaderKey(name); name {
	case "Connection", "Transfer-Encoding", "Content-Length", "Keep-Alive", "Upgrade", "Trailer":
	default:
		a.Header.Add(name, value)
	}
	return nil
}

// Prelude begins a streamed response over HTTP: metadata in JSON, then eight zero bytes, then the body.
const Prelude = "application/vnd.awslambda.http-integration-response"

// PreludeMost bounds the metadata, in bytes.
const PreludeMost = 16 << 10

var separator = make([]byte, 8)

// CutPrelude finds the metadata at the beginning of b. ok is false when more has to come.
func CutPrelude(b []byte) (a Answer, rest []byte, ok bool, err error) {
	i := bytes.Index(b, separator)
	if i < 0 {
		if len(b) > PreludeMost {
			return a, nil, false, fmt.Errorf("a streamed response has no end of its metadata within %d bytes", PreludeMost)
		}
		return a, nil, false, nil
	}
	meta := b[:i]
	if len(bytes.TrimSpace(meta)) == 0 {
		meta = []byte(`{"statusCode":200}`)
	}
	var probe map[string]json.RawMessage
	if json.Unmarshal(meta, &probe) == nil && probe != nil && probe["statusCode"] == nil {
		probe["statusCode"] = json.RawMessage("200")
		meta, _ = json.Marshal(probe)
	}
	a, err = Response(meta, V2)
	return a, b[i+len(separator):], true, err
}
