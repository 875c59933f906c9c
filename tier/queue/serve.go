package queue

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"tenfold/internal/awsapi"
)

// input are the members of all requests.
type input struct {
	QueueName, QueueUrl, QueueOwnerAWSAccountId, QueueNamePrefix, NextToken string
	Attributes                                                              map[string]string
	AttributeNames, MessageSystemAttributeNames, MessageAttributeNames      []string
	Tags                                                                    map[string]string
	TagsLower                                                               map[string]string `json:"tags"`
	TagKeys, AWSAccountIds, Actions                                         []string
	Label                                                                   string
	MaxResults, MaxNumberOfMessages, VisibilityTimeout, WaitTimeSeconds     *int
	ReceiveRequestAttemptId, ReceiptHandle                                  string
	SourceArn, DestinationArn, TaskHandle                                   string
	MaxNumberOfMessagesPerSecond                                            *int
	message
	Entries []entry
}

// message is one that is to be sent.
type message struct {
	MessageBody             *string
	DelaySeconds            *int
	MessageAttributes       map[string]attribute
	MessageSystemAttributes map[string]attribute
	// Nil: none was given. An empty one is refused.
	MessageDeduplicationId, MessageGroupId *string
}

type entry struct {
	Id                string
	ReceiptHandle     string
	VisibilityTimeout *int
	message
}

// fault makes an error of SQS. query is its code in the query protocol, "" for the same.
func fault(code, query, format string, args ...any) *awsapi.Fault {
	return &awsapi.Fault{Code: code, Query: query, Message: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *awsapi.Fault {
	return fault("InvalidParameterValueException", "InvalidParameterValue", format, args...)
}

func missing(name string) *awsapi.Fault {
	return fault("MissingRequiredParameterException", "MissingParameter", "The request must contain the parameter %s.", name)
}

// Refusals that the query protocol tells otherwise: in other words, or with another status.
const (
	codeNoQueue = "QueueDoesNotExist"
	codePurging = "PurgeQueueInProgress"
)

func noQueue() *awsapi.Fault {
	return fault(codeNoQueue, "AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist.")
}

// Serve implements awsapi.Service.
func (s *Store) Serve(ctx context.Context, q *awsapi.Request) ([]byte, error) {
	var in input
	if q.Form != nil {
		if err := readForm(q.Form, &in); err != nil {
			return nil, err
		}
		if in.QueueUrl == "" && strings.Count(q.HTTP.URL.Path, "/") == 2 { // the query protocol may be sent to a queue
			in.QueueUrl = q.HTTP.URL.Path
		}
	} else if err := json.Unmarshal(q.Body, &in); err != nil {
		return nil, fault("SerializationException", "", "the request is not as %s has it: %v", q.Operation, err)
	}
	op, ok := operations[q.Operation]
	if !ok {
		f := fault("UnknownOperationException", "", "The action %s is not valid for this endpoint.", q.Operation)
		if q.Form != nil {
			f.Query = "InvalidAction"
		}
		return nil, f
	}
	out, err := op(s, ctx, q.Caller, &in)
	if err != nil {
		err = told(err)
		var f *awsapi.Fault
		if q.Form != nil && errors.As(err, &f) {
			switch f.Code {
			case codeNoQueue:
				f.Message = "The specified queue does not exist for this wsdl version."
			case codePurging:
				f.Status = http.StatusForbidden
			}
		}
		return nil, err
	}
	if q.Form != nil {
		return writeXML(q.Operation, out, q.ID), nil
	}
	return json.Marshal(out)
}

// notFound is what the operations on moves say of an ARN or a task that is not there.
func notFound(format string, args ...any) error {
	f := fault("ResourceNotFoundException", "ResourceNotFoundException", format, args...)
	f.Status = http.StatusNotFound
	return f
}

// ofHandle gives an error about a receipt handle SQS' code and words, which name it.
func ofHandle(err error, handle string) error {
	switch {
	case errors.Is(err, errHandle):
		f := fault("ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", "The input receipt handle \"%s\" is not a valid receipt handle.", handle)
		f.Status = http.StatusNotFound
		return f
	case errors.Is(err, errExpired):
		return invalid("Value %s for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.", handle)
	}
	return err
}

// told gives this package's errors the codes of SQS.
func told(err error) error {
	switch {
	case errors.Is(err, errGone):
		return noQueue()
	case errors.Is(err, errNoGroup):
		return missing("MessageGroupId")
	case errors.Is(err, errNoDedupe):
		return invalid("%v", errNoDedupe)
	case errors.Is(err, errVisible):
		return fault("MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight", "%s", err)
	case errors.Is(err, errInFlight):
		return &awsapi.Fault{Status: http.StatusForbidden, Code: "OverLimit", Query: "OverLimit", Message: err.Error()}
	}
	return err
}

// operations are SQS'. An answer is a map of its members.
var operations = map[string]func(*Store, context.Context, awsapi.Caller, *input) (any, error){
	"AddPermission": (*Store).addPermission, "RemovePermission": (*Store).removePermission,
	"CreateQueue": (*Store).createQueue, "DeleteQueue": (*Store).deleteQueue, "ListQueues": (*Store).listQueues, "GetQueueUrl": (*Store).getQueueURL,
	"GetQueueAttributes": (*Store).getAttributes, "SetQueueAttributes": (*Store).setAttributes, "PurgeQueue": (*Store).purgeQueue,
	"TagQueue": (*Store).tag, "UntagQueue": (*Store).untag, "ListQueueTags": (*Store).listTags,
	"SendMessage": (*Store).send, "SendMessageBatch": (*Store).sendBatch, "ReceiveMessage": (*Store).receive,
	"DeleteMessage": (*Store).deleteMessage, "DeleteMessageBatch": (*Store).deleteBatch,
	"ChangeMessageVisibility": (*Store).changeVisibility, "ChangeMessageVisibilityBatch": (*Store).changeBatch,
	"ListDeadLetterSourceQueues": (*Store).listSources,
	"StartMessageMoveTask":       (*Store).startMove, "CancelMessageMoveTask": (*Store).cancelMove, "ListMessageMoveTasks": (*Store).listMoves,
}

// none is the answer of an operation that has none, empty that of one whose members are all left out: in the query
// protocol it still has its element, and clients look for it.
type none struct{}

var empty = map[string]any{}

// byURL finds the queue that a URL names and sees to it that the caller may use it.
func (s *Store) byURL(c awsapi.Caller, in *input, operation string) (*queue, error) {
	if in.QueueUrl == "" {
		return nil, missing("QueueUrl")
	}
	u, err := url.Parse(in.QueueUrl)
	if err != nil {
		return nil, fault("InvalidAddress", "InvalidAddress", "The address %s is not valid for this endpoint.", in.QueueUrl)
	}
	p := strings.Split(strings.Trim(u.Path, "/"), "/")
	name := p[len(p)-1] // a bare name will do
	if len(p) > 1 && p[len(p)-2] != c.Account {
		return nil, noQueue()
	}
	return s.byName(c, name, operation)
}

func (s *Store) byName(c awsapi.Caller, name, operation string) (*queue, error) {
	q := s.find(c.Account, name)
	if q == nil {
		return nil, noQueue()
	}
	if !s.may(c, q) {
		return nil, awsapi.Denied(c, "sqs:"+operation, arn(c.Account, name), strings.TrimSuffix(name, ".fifo"))
	}
	return q, nil
}

// may says whether a caller uses a queue, or made it.
func (s *Store) may(c awsapi.Caller, q *queue) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return c.May("sqs", q.m.Name) || !q.m.Kept && q.m.By == c.Of
}

func (s *Store) createQueue(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	if len(c.Uses["sqs"]) == 0 {
		return nil, awsapi.Denied(c, "sqs:CreateQueue", arn(c.Account, in.QueueName), in.QueueName)
	}
	name, fifo := strings.CutSuffix(in.QueueName, ".fifo")
	switch {
	case in.QueueName == "":
		return nil, missing("QueueName")
	case !nameOK(name) || len(in.QueueName) > 80:
		return nil, invalid("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
	case in.Attributes["FifoQueue"] == "true" && !fifo:
		return nil, invalid("The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length.")
	case fifo && in.Attributes["FifoQueue"] != "true":
		return nil, invalid("Queue name with the .fifo suffix is for FIFO queues: set the attribute FifoQueue to true")
	}
	if err := s.checkAttributes(c, in.Attributes, in.QueueName, true); err != nil {
		return nil, err
	}
	attrs := map[string]string{}
	maps.Copy(attrs, in.Attributes)
	tags := map[string]string{}
	maps.Copy(tags, in.TagsLower)
	maps.Copy(tags, in.Tags)
	q, made, err := s.create(meta{Account: c.Account, Name: in.QueueName, Attrs: attrs, Tags: tags, By: c.Of})
	if err != nil {
		return nil, err
	}
	if !made {
		if !s.may(c, q) {
			return nil, awsapi.Denied(c, "sqs:CreateQueue", arn(c.Account, in.QueueName), name)
		}
		have := s.attributesOf(q)
		for k, v := range in.Attributes {
			if have[k] != v && !(k == "RedrivePolicy" && sameJSON(have[k], v)) {
				return nil, fault("QueueNameExists", "QueueAlreadyExists", "A queue already exists with the same name and a different value for attribute %s", k)
			}
		}
	}
	return map[string]any{"QueueUrl": s.cfg.URL(c.Account, in.QueueName)}, nil
}

func sameJSON(a, b string) bool {
	var x, y redrive
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && x == y
}

func unknownAttribute(name string) error {
	return fault("InvalidAttributeName", "InvalidAttributeName", "Unknown Attribute %s.", name)
}

// checkAttributes says what is wrong with attributes that are to be set.
func (s *Store) checkAttributes(c awsapi.Caller, attrs map[string]string, name string, fresh bool) error {
	fifo := strings.HasSuffix(name, ".fifo")
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		v := attrs[k]
		if a, ok := attributes[k]; ok {
			if n, err := strconv.Atoi(v); err != nil || n < a.low || n > a.high {
				return fault("InvalidAttributeValue", "InvalidAttributeValue", "Invalid value for the parameter %s.", k)
			}
			continue
		}
		ok := true
		switch k {
		case "FifoQueue":
			switch {
			case !fifo && !fresh:
				return unknownAttribute(k)
			case v != "true" && !fresh:
				return fault("InvalidAttributeValue", "InvalidAttributeValue", "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.")
			}
			ok = v == "true"
		case "ContentBasedDeduplication":
			if !fifo {
				return unknownAttribute(k)
			}
			ok = v == "true" || v == "false"
		case "DeduplicationScope", "FifoThroughputLimit":
			if !fifo {
				return fault("InvalidAttributeName", "InvalidAttributeName", "You can specify the %s only when FifoQueue is set to true.", k)
			}
			if ok = v == "messageGroup" || v == "queue"; k == "FifoThroughputLimit" {
				ok = v == "perQueue" || v == "perMessageGroupId"
			}
		case "Policy", "KmsMasterKeyId", "SqsManagedSseEnabled", "RedriveAllowPolicy":
		case "RedrivePolicy":
			if v == "" {
				continue
			}
			if err := s.checkRedrive(c, v, fifo); err != nil {
				return err
			}
		default:
			return unknownAttribute(k)
		}
		if !ok {
			return fault("InvalidAttributeValue", "InvalidAttributeValue", "Invalid value for the parameter %s.", k)
		}
	}
	return nil
}

func (s *Store) checkRedrive(c awsapi.Caller, v string, fifo bool) error {
	wrong := func(why string) error {
		return invalid("Value %s for parameter RedrivePolicy is invalid. Reason: %s", v, why)
	}
	var r redrive
	if err := json.Unmarshal([]byte(v), &r); err != nil {
		return wrong("Redrive policy is not a valid JSON map.")
	}
	if n, err := r.Count.Int64(); err != nil || n < 1 || n > 1000 {
		return wrong("Invalid value for maxReceiveCount: " + string(r.Count) + ", valid values are from 1 to 1000 both inclusive.")
	}
	name, ok := named(r.Target, c.Account)
	dead := s.find(c.Account, name)
	switch {
	case !ok || dead == nil:
		return wrong("Dead letter target does not exist.")
	case !s.may(c, dead):
		return awsapi.Denied(c, "sqs:SendMessage", r.Target, strings.TrimSuffix(name, ".fifo"))
	case strings.HasSuffix(name, ".fifo") != fifo:
		return wrong("Dead-letter queue must be same type of queue as the source.")
	}
	return nil
}

func (s *Store) deleteQueue(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "DeleteQueue")
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	kept := q.m.Kept
	q.mu.Unlock()
	if kept {
		return nil, fault("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", "tenfold.yaml names the queue %s: take it out there and deploy, then: tenfold kept", q.m.Name)
	}
	return none{}, s.remove(q)
}

func (s *Store) getQueueURL(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	if in.QueueName == "" {
		return nil, missing("QueueName")
	}
	if o := in.QueueOwnerAWSAccountId; o != "" && o != c.Account {
		return nil, noQueue()
	}
	q, err := s.byName(c, in.QueueName, "GetQueueUrl")
	if err != nil {
		return nil, err
	}
	return map[string]any{"QueueUrl": s.cfg.URL(c.Account, q.m.Name)}, nil
}

// page cuts a list of names by MaxResults and NextToken, which is the last name that was told.
func page(names []string, in *input) ([]string, string, error) {
	if in.NextToken != "" {
		last, err := base64.RawURLEncoding.DecodeString(in.NextToken)
		if err != nil {
			return nil, "", invalid("Invalid or expired next token.")
		}
		names = slices.DeleteFunc(names, func(n string) bool { return n <= string(last) })
	}
	most := 1000
	if in.MaxResults != nil {
		if most = *in.MaxResults; most < 1 || most > 1000 {
			return nil, "", invalid("Value %d for parameter MaxResults is invalid. Reason: Must be between 1 and 1000.", most)
		}
	}
	if len(names) <= most {
		return names, "", nil
	}
	if in.MaxResults == nil {
		return names[:most], "", nil
	}
	return names[:most], base64.RawURLEncoding.EncodeToString([]byte(names[most-1])), nil
}

func (s *Store) listed(c awsapi.Caller, in *input, member string, keep func(*queue) bool) (any, error) {
	var names []string
	for _, q := range s.of(c.Account) {
		if s.may(c, q) && keep(q) {
			names = append(names, q.m.Name)
		}
	}
	names, next, err := page(names, in)
	if err != nil {
		return nil, err
	}
	urls := []string{}
	for _, n := range names {
		urls = append(urls, s.cfg.URL(c.Account, n))
	}
	out := map[string]any{member: urls}
	if next != "" {
		out["NextToken"] = next
	}
	return out, nil
}

func (s *Store) listQueues(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	return s.listed(c, in, "QueueUrls", func(q *queue) bool { return strings.HasPrefix(q.m.Name, in.QueueNamePrefix) })
}

func (s *Store) listSources(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	to, err := s.byURL(c, in, "ListDeadLetterSourceQueues")
	if err != nil {
		return nil, err
	}
	return s.listed(c, in, "queueUrls", func(q *queue) bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.dead.Target == arn(c.Account, to.m.Name)
	})
}

// attributesOf are all attributes of a queue.
func (s *Store) attributesOf(q *queue) map[string]string {
	b := q.backlog()
	q.mu.Lock()
	defer q.mu.Unlock()
	out := map[string]string{
		"QueueArn": arn(q.m.Account, q.m.Name), "CreatedTimestamp": strconv.FormatInt(q.m.Created, 10), "LastModifiedTimestamp": strconv.FormatInt(q.m.Modified, 10),
		"ApproximateNumberOfMessages": strconv.Itoa(b.Visible), "ApproximateNumberOfMessagesNotVisible": strconv.Itoa(b.InFlight), "ApproximateNumberOfMessagesDelayed": strconv.Itoa(b.Delayed),
		"SqsManagedSseEnabled": "false",
	}
	for _, k := range []string{"DelaySeconds", "MaximumMessageSize", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds", "VisibilityTimeout"} {
		out[k] = strconv.Itoa(attributes[k].deflt)
	}
	if q.fifo() {
		out["ContentBasedDeduplication"], out["DeduplicationScope"], out["FifoThroughputLimit"] = "false", "queue", "perQueue"
	}
	maps.Copy(out, q.m.Attrs)
	if p := q.m.policy(); p != "" && out["Policy"] == "" {
		out["Policy"] = p
	}
	return out
}

// policy is the document that AWS makes of what AddPermission was told; "": of nothing.
func (m *meta) policy() string {
	if len(m.Policy) == 0 {
		return ""
	}
	type principal struct{ AWS any }
	type statement struct {
		Sid, Effect string
		Principal   principal
		Action      any
		Resource    string
	}
	all := []statement{}
	for _, label := range slices.Sorted(maps.Keys(m.Policy)) {
		g := m.Policy[label]
		var who, what []string
		for _, a := range g.Accounts {
			who = append(who, "arn:aws:iam::"+a+":root")
		}
		for _, a := range g.Actions {
			what = append(what, "SQS:"+a)
		}
		all = append(all, statement{label, "Allow", principal{single(who)}, single(what), arn(m.Account, m.Name)})
	}
	b, err := json.Marshal(struct {
		Version, Id string
		Statement   []statement
	}{"2008-10-17", arn(m.Account, m.Name) + "/SQSDefaultPolicy", all})
	if err != nil { // strings alone
		panic(err)
	}
	return string(b)
}

// single is a list of one as a policy has it: without the list.
func single(all []string) any {
	if len(all) == 1 {
		return all[0]
	}
	return all
}

func (s *Store) getAttributes(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "GetQueueAttributes")
	if err != nil {
		return nil, err
	}
	all := s.attributesOf(q)
	out := map[string]string{}
	for _, n := range in.AttributeNames {
		if n == "All" {
			out = all
			break
		}
		_, known := attributes[n]
		if v, ok := all[n]; ok {
			out[n] = v
		} else if !known && !slices.Contains([]string{"Policy", "RedrivePolicy", "RedriveAllowPolicy", "KmsMasterKeyId", "FifoQueue", "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit"}, n) {
			return nil, unknownAttribute(n)
		}
	}
	if len(out) == 0 {
		return empty, nil
	}
	return map[string]any{"Attributes": out}, nil
}

// change alters what is kept of a queue.
func (s *Store) change(q *queue, f func(*meta)) error {
	if err := s.db.Writable(); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return errGone
	}
	was := q.m
	q.m.Attrs, q.m.Tags, q.m.Policy = maps.Clone(was.Attrs), maps.Clone(was.Tags), maps.Clone(was.Policy)
	if q.m.Attrs == nil {
		q.m.Attrs = map[string]string{}
	}
	if q.m.Tags == nil {
		q.m.Tags = map[string]string{}
	}
	if q.m.Policy == nil {
		q.m.Policy = map[string]grant{}
	}
	f(&q.m)
	q.m.Modified = s.cfg.Now().Unix()
	if err := q.save(); err != nil {
		q.m = was
		return err
	}
	q.settle()
	return nil
}

func (s *Store) setAttributes(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "SetQueueAttributes")
	if err != nil {
		return nil, err
	}
	if len(in.Attributes) == 0 {
		return nil, missing("Attributes")
	}
	if err := s.checkAttributes(c, in.Attributes, q.m.Name, false); err != nil {
		return nil, err
	}
	return none{}, s.change(q, func(m *meta) {
		for k, v := range in.Attributes {
			if v == "" {
				delete(m.Attrs, k)
			} else {
				m.Attrs[k] = v
			}
		}
	})
}

func (s *Store) purgeQueue(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "PurgeQueue")
	if err != nil {
		return nil, err
	}
	return none{}, q.purge()
}

func (s *Store) tag(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "TagQueue")
	switch {
	case err != nil:
		return nil, err
	case len(in.Tags) == 0:
		return nil, missing("Tags")
	}
	q.mu.Lock()
	after := maps.Clone(in.Tags)
	maps.Copy(after, q.m.Tags)
	q.mu.Unlock()
	if len(after) > 50 {
		return nil, invalid("Too many tags added for queue %s.", q.m.Name)
	}
	return none{}, s.change(q, func(m *meta) { maps.Copy(m.Tags, in.Tags) })
}

func (s *Store) untag(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "UntagQueue")
	if err != nil {
		return nil, err
	}
	if len(in.TagKeys) == 0 {
		return nil, missing("TagKeys")
	}
	return none{}, s.change(q, func(m *meta) {
		maps.DeleteFunc(m.Tags, func(k, _ string) bool { return slices.Contains(in.TagKeys, k) })
	})
}

func (s *Store) listTags(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "ListQueueTags")
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.m.Tags) == 0 {
		return empty, nil
	}
	return map[string]any{"Tags": maps.Clone(q.m.Tags)}, nil
}

// grantable are what a permission may be of: the operations on one queue, and all of them.
var grantable = []string{"*", "AddPermission", "ChangeMessageVisibility", "ChangeMessageVisibilityBatch", "CreateQueue", "DeleteMessage", "DeleteMessageBatch", "DeleteQueue", "GetQueueAttributes", "GetQueueUrl",
	"ListDeadLetterSourceQueues", "ListQueues", "ListQueueTags", "PurgeQueue", "ReceiveMessage", "RemovePermission", "SendMessage", "SendMessageBatch", "SetQueueAttributes", "TagQueue", "UntagQueue"}

// Permissions are kept and told of. They open nothing: what a service may is said by `uses` alone.
func (s *Store) addPermission(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "AddPermission")
	switch {
	case err != nil:
		return nil, err
	case !nameOK(in.Label):
		return nil, invalid("Value %s for parameter Label is invalid. Reason: Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length.", in.Label)
	case len(in.AWSAccountIds) == 0:
		return nil, missing("AWSAccountIds")
	case len(in.Actions) == 0:
		return nil, missing("Actions")
	case len(in.Actions) > 7:
		f := fault("OverLimit", "OverLimit", "%d Actions were found, maximum allowed is 7.", len(in.Actions))
		f.Status = http.StatusForbidden
		return nil, f
	}
	for _, a := range in.Actions {
		if !slices.Contains(grantable, a) {
			return nil, invalid("Value SQS:%s for parameter ActionName is invalid. Reason: Please refer to the appropriate WSDL for a list of valid actions. ", a)
		}
	}
	q.mu.Lock()
	_, there := q.m.Policy[in.Label]
	q.mu.Unlock()
	if there {
		return nil, invalid("Value %s for parameter Label is invalid. Reason: Already exists.", in.Label)
	}
	return none{}, s.change(q, func(m *meta) { m.Policy[in.Label] = grant{in.AWSAccountIds, in.Actions} })
}

func (s *Store) removePermission(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "RemovePermission")
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	_, there := q.m.Policy[in.Label]
	q.mu.Unlock()
	if !there {
		return nil, invalid("Value %s for parameter Label is invalid. Reason: can't find label.", in.Label)
	}
	return none{}, s.change(q, func(m *meta) { delete(m.Policy, in.Label) })
}

// No regular expressions: a bounded repetition costs each process of the house its memory from the start.

// made says whether s has 1 to most bytes, all of which ok takes.
func made(s string, most int, ok func(c byte) bool) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func word(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// nameOK says whether s is a queue's name without ".fifo", a label or a batch entry's id.
func nameOK(s string) bool { return made(s, 80, word) }

// idOK says whether s is a message group's or a deduplication id.
func idOK(s string) bool { return made(s, 128, func(c byte) bool { return c > ' ' && c <= '~' }) }

func attributeName(s string) bool {
	return made(s, 256, func(c byte) bool { return word(c) || c == '.' })
}

func attributeType(s string) bool {
	kind, label, found := strings.Cut(s, ".")
	return (kind == "String" || kind == "Number" || kind == "Binary") && (!found || made(label, 249, func(c byte) bool { return c >= ' ' && c <= '~' }))
}

// prepare makes what is stored of a message.
func (s *Store) prepare(q *queue, c awsapi.Caller, m *message) (x *stored, key string, size int, err error) {
	if m.MessageBody == nil || *m.MessageBody == "" {
		return nil, "", 0, missing("MessageBody")
	}
	body := *m.MessageBody
	switch {
	case !utf8.ValidString(body) || strings.ContainsFunc(body, func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff
	}):
		return nil, "", 0, fault("InvalidMessageContents", "InvalidMessageContents", "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF")
	case len(m.MessageAttributes) > 10:
		return nil, "", 0, invalid("Number of message attributes [%d] exceeds the allowed maximum [10].", len(m.MessageAttributes))
	}
	size = len(body)
	for name, a := range m.MessageAttributes {
		lower := strings.ToLower(name)
		switch {
		case !attributeName(name) || name[0] == '.' || name[len(name)-1] == '.' || strings.Contains(name, "..") || strings.HasPrefix(lower, "aws.") || strings.HasPrefix(lower, "amazon."):
			return nil, "", 0, invalid("The message attribute name '%s' is invalid.", name)
		case !attributeType(a.DataType):
			return nil, "", 0, invalid("The type of message attribute '%s' is invalid. You must use only the following supported type prefixes: Binary, Number, String.", name)
		case strings.HasPrefix(a.DataType, "Binary") && len(a.BinaryValue) == 0, !strings.HasPrefix(a.DataType, "Binary") && (a.StringValue == nil || *a.StringValue == ""):
			return nil, "", 0, invalid("Message (user) attribute '%s' must contain a non-empty value of type '%s'.", name, a.DataType)
		case strings.HasPrefix(a.DataType, "Number"):
			if _, err := strconv.ParseFloat(*a.StringValue, 64); err != nil && !errors.Is(err, strconv.ErrRange) {
				return nil, "", 0, invalid("Can't cast the value of message attribute '%s' to a number.", name)
			}
		}
		size += len(name) + len(a.DataType) + len(a.BinaryValue)
		if a.StringValue != nil {
			size += len(*a.StringValue)
		}
	}
	for name, a := range m.MessageSystemAttributes {
		if name != "AWSTraceHeader" || a.DataType != "String" || a.StringValue == nil {
			return nil, "", 0, invalid("Message system attribute name '%s' is invalid.", name)
		}
	}
	q.mu.Lock()
	most, delay := q.attr("MaximumMessageSize"), q.attr("DelaySeconds")
	content, perGroup := q.m.Attrs["ContentBasedDeduplication"] == "true", q.m.Attrs["DeduplicationScope"] == "messageGroup"
	q.mu.Unlock()
	if size > most {
		return nil, "", 0, invalid("One or more parameters are invalid. Reason: Message must be shorter than %d bytes.", most)
	}
	if m.DelaySeconds != nil {
		if q.fifo() && *m.DelaySeconds != 0 {
			return nil, "", 0, invalid("Value %d for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for this queue type.", *m.DelaySeconds)
		}
		if delay = *m.DelaySeconds; delay < 0 || delay > 900 {
			return nil, "", 0, invalid("Value %d for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900.", delay)
		}
	}
	now := s.cfg.Now()
	x = &stored{ID: makeID(), Body: body, Attrs: m.MessageAttributes, System: m.MessageSystemAttributes, Sent: now.UnixMilli(), By: c.Of}
	if delay > 0 {
		x.Seen = now.Add(time.Duration(delay) * time.Second).UnixMilli()
	}
	if x.Group, err = given("MessageGroupId", m.MessageGroupId); err != nil {
		return nil, "", 0, err
	}
	if !q.fifo() {
		if m.MessageDeduplicationId != nil {
			return nil, "", 0, invalid("Value %s for parameter MessageDeduplicationId is invalid. Reason: The request includes a parameter that is not valid for this queue type.", *m.MessageDeduplicationId)
		}
		return x, "", size, nil
	}
	if x.Group == "" {
		return nil, "", 0, errNoGroup
	}
	if x.Dedupe, err = given("MessageDeduplicationId", m.MessageDeduplicationId); err != nil {
		return nil, "", 0, err
	}
	if x.Dedupe == "" {
		if !content {
			return nil, "", 0, errNoDedupe
		}
		sum := sha256.Sum256([]byte(body))
		x.Dedupe = hex.EncodeToString(sum[:])
	}
	if key = x.Dedupe; perGroup {
		key = x.Group + "\x00" + key
	}
	return x, key, size, nil
}

// What a queue in order must be told of a message. A batch in which one lacks it is refused whole.
var (
	errNoGroup  = errors.New("The request must contain the parameter MessageGroupId.")
	errNoDedupe = errors.New("The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly")
)

// given reads a message group's or a deduplication id; "": none was given.
func given(name string, p *string) (string, error) {
	switch {
	case p == nil:
		return "", nil
	case !idOK(*p):
		return "", invalid("Value %s for parameter %s is invalid. Reason: %s can only include alphanumeric and punctuation characters. 1 to 128 in length.", *p, name, name)
	}
	return *p, nil
}

// sent is the answer about one message.
func sent(m *message, id string, number uint64, fifo bool) map[string]any {
	sum := md5.Sum([]byte(*m.MessageBody))
	out := map[string]any{"MessageId": id, "MD5OfMessageBody": hex.EncodeToString(sum[:])}
	if len(m.MessageAttributes) > 0 {
		out["MD5OfMessageAttributes"] = attributesMD5(m.MessageAttributes)
	}
	if len(m.MessageSystemAttributes) > 0 {
		out["MD5OfMessageSystemAttributes"] = attributesMD5(m.MessageSystemAttributes)
	}
	if fifo {
		out["SequenceNumber"] = sequence(number)
	}
	return out
}

// sequence writes a number as AWS does: 20 digits, so that they sort as text.
func sequence(n uint64) string { return fmt.Sprintf("%020d", n) }

// attributesMD5 is the digest by which clients check attributes: "Calculating the MD5 message digest for
// message attributes", SQS Developer Guide.
func attributesMD5(attrs map[string]attribute) string {
	h := md5.New()
	put := func(s string) {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		a := attrs[name]
		put(name)
		put(a.DataType)
		if a.StringValue != nil {
			h.Write([]byte{1})
			put(*a.StringValue)
		} else {
			h.Write([]byte{2})
			put(string(a.BinaryValue))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// store sends prepared messages: those of a queue in order that were sent before are not stored again.
func (s *Store) store(q *queue, all []*stored, keys []string) (ids []string, numbers []uint64, err error) {
	ids, numbers = make([]string, len(all)), make([]uint64, len(all))
	if !q.fifo() {
		for i, x := range all {
			ids[i] = x.ID
		}
		numbers, err = q.put(all, nil)
		return ids, numbers, err
	}
	unique := slices.Compact(slices.Sorted(slices.Values(keys)))
	defer q.reserve(unique)()
	var fresh []*stored
	var freshKeys []string
	at := map[string]int{} // place in fresh
	where := make([]int, len(all))
	for i, x := range all {
		where[i] = -1
		n, id, known, err := q.known(keys[i])
		if err != nil {
			return nil, nil, err
		}
		if known {
			ids[i], numbers[i] = id, n
			continue
		}
		j, twice := at[keys[i]]
		if !twice {
			j = len(fresh)
			at[keys[i]], fresh, freshKeys = j, append(fresh, x), append(freshKeys, keys[i])
		}
		where[i], ids[i] = j, fresh[j].ID
	}
	if len(fresh) == 0 {
		return ids, numbers, nil
	}
	got, err := q.put(fresh, freshKeys)
	if err != nil {
		return nil, nil, err
	}
	for i, j := range where {
		if j >= 0 {
			numbers[i] = got[j]
		}
	}
	return ids, numbers, nil
}

func (s *Store) send(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "SendMessage")
	if err != nil {
		return nil, err
	}
	x, key, _, err := s.prepare(q, c, &in.message)
	if err != nil {
		return nil, err
	}
	ids, numbers, err := s.store(q, []*stored{x}, []string{key})
	if err != nil {
		return nil, err
	}
	return sent(&in.message, ids[0], numbers[0], q.fifo()), nil
}

// batch checks the entries of a batch; operation is what they are of.
func batch(in *input, operation string) error {
	switch {
	case len(in.Entries) == 0:
		return fault("EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest", "There should be at least one %sRequestEntry in the request.", operation)
	case len(in.Entries) > 10:
		return fault("TooManyEntriesInBatchRequest", "AWS.SimpleQueueService.TooManyEntriesInBatchRequest", "Maximum number of entries per request are 10. You have sent %d.", len(in.Entries))
	}
	seen := map[string]bool{}
	for _, e := range in.Entries {
		if !nameOK(e.Id) {
			return fault("InvalidBatchEntryId", "AWS.SimpleQueueService.InvalidBatchEntryId", "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.")
		}
		if seen[e.Id] {
			return fault("BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct", "Id %s repeated.", e.Id)
		}
		seen[e.Id] = true
	}
	return nil
}

// failed is what is told of an entry that was refused.
func failed(id string, err error) map[string]any {
	f := &awsapi.Fault{Code: "InternalFailure", Message: err.Error()}
	sender := errors.As(told(err), &f)
	code := f.Query
	if code == "" {
		code = f.Code
	}
	return map[string]any{"Id": id, "SenderFault": sender, "Code": code, "Message": f.Message}
}

func results(good, bad []map[string]any) map[string]any {
	if good == nil {
		good = []map[string]any{}
	}
	if bad == nil {
		bad = []map[string]any{}
	}
	return map[string]any{"Successful": good, "Failed": bad}
}

func (s *Store) sendBatch(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "SendMessageBatch")
	if err != nil {
		return nil, err
	}
	if err := batch(in, "SendMessageBatch"); err != nil {
		return nil, err
	}
	var all []*stored
	var keys []string
	var entries []*entry
	var good, bad []map[string]any
	total := 0
	for i := range in.Entries {
		e := &in.Entries[i]
		x, key, size, err := s.prepare(q, c, &e.message)
		if errors.Is(err, errNoGroup) || errors.Is(err, errNoDedupe) {
			return nil, invalid("%v", err)
		}
		if total += size; err != nil {
			bad = append(bad, failed(e.Id, err))
			continue
		}
		all, keys, entries = append(all, x), append(keys, key), append(entries, e)
	}
	if total > maxMessage {
		return nil, fault("BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong", "Batch requests cannot be longer than %d bytes. You have sent %d bytes.", maxMessage, total)
	}
	if len(all) > 0 {
		ids, numbers, err := s.store(q, all, keys)
		if err != nil {
			return nil, err
		}
		for i, e := range entries {
			r := sent(&e.message, ids[i], numbers[i], q.fifo())
			r["Id"] = e.Id
			good = append(good, r)
		}
	}
	return results(good, bad), nil
}

func bounded(p *int, name string, deflt, low, high int) (int, error) {
	if p == nil {
		return deflt, nil
	}
	if *p < low || *p > high {
		return 0, invalid("Value %d for parameter %s is invalid. Reason: Must be between %d and %d, if provided.", *p, name, low, high)
	}
	return *p, nil
}

// systemAttributes are those of a message that ReceiveMessage may be asked for.
var systemAttributes = []string{"All", "SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SequenceNumber", "MessageDeduplicationId", "MessageGroupId", "AWSTraceHeader", "DeadLetterQueueSourceArn"}

func (s *Store) receive(ctx context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "ReceiveMessage")
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	visible, pause := q.attr("VisibilityTimeout"), q.attr("ReceiveMessageWaitTimeSeconds")
	q.mu.Unlock()
	count, err := bounded(in.MaxNumberOfMessages, "MaxNumberOfMessages", 1, 1, 10)
	if err != nil {
		return nil, err
	}
	if visible, err = bounded(in.VisibilityTimeout, "VisibilityTimeout", visible, 0, 43200); err != nil {
		return nil, err
	}
	if p := in.WaitTimeSeconds; p != nil {
		if pause = *p; pause < 0 || pause > 20 {
			return nil, invalid("Value %d for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20, if provided.", pause)
		}
	}
	for _, n := range append(in.AttributeNames, in.MessageSystemAttributeNames...) {
		if !slices.Contains(systemAttributes, n) {
			return nil, unknownAttribute(n)
		}
	}
	all, err := q.await(ctx, count, time.Duration(visible)*time.Second, time.Duration(pause)*time.Second, in.ReceiveRequestAttemptId)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return empty, nil
	}
	out := []map[string]any{}
	for _, t := range all {
		out = append(out, shown(t, append(in.AttributeNames, in.MessageSystemAttributeNames...), in.MessageAttributeNames))
	}
	return map[string]any{"Messages": out}, nil
}

// await takes messages, and waits for them when there are none.
func (q *queue) await(ctx context.Context, count int, timeout, pause time.Duration, try string) ([]taken, error) {
	out, err := q.take(count, timeout, try)
	if err != nil || len(out) > 0 || pause <= 0 {
		return out, err
	}
	woken := make(chan struct{}, 1)
	q.mu.Lock()
	q.waiters[woken] = true
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		delete(q.waiters, woken)
		if q.available() { // what woke this one is still there: another may have it
			q.wakeAll()
		}
		q.mu.Unlock()
	}()
	over := time.NewTimer(pause)
	defer over.Stop()
	for {
		// Once more after it is known as one that waits: nothing that came between is missed.
		if out, err = q.take(count, timeout, try); err != nil || len(out) > 0 {
			return out, err
		}
		select {
		case <-woken:
		case <-over.C:
			return nil, nil
		case <-q.s.leaving:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// shown is a message as a client gets it.
func shown(t taken, system, own []string) map[string]any {
	sum := md5.Sum([]byte(t.Body))
	out := map[string]any{"MessageId": t.ID, "ReceiptHandle": t.handle, "MD5OfBody": hex.EncodeToString(sum[:]), "Body": t.Body}
	all := map[string]string{
		"SenderId": strings.ReplaceAll(t.By, " ", ":"), "SentTimestamp": strconv.FormatInt(t.Sent, 10),
		"ApproximateReceiveCount": strconv.Itoa(t.state.Count), "ApproximateFirstReceiveTimestamp": strconv.FormatInt(t.state.First, 10),
	}
	if t.Group != "" {
		all["MessageGroupId"] = t.Group
	}
	if t.SentSeq != 0 {
		all["MessageDeduplicationId"], all["SequenceNumber"] = t.Dedupe, sequence(t.SentSeq)
	}
	if t.Source != "" {
		all["DeadLetterQueueSourceArn"] = t.Source
	}
	for k, a := range t.System {
		all[k] = *a.StringValue
	}
	if !slices.Contains(system, "All") {
		maps.DeleteFunc(all, func(k, _ string) bool { return !slices.Contains(system, k) })
	}
	if len(all) > 0 {
		out["Attributes"] = all
	}
	attrs := map[string]attribute{}
	for k, a := range t.Attrs {
		if slices.ContainsFunc(own, func(n string) bool {
			return n == "All" || n == k || strings.HasSuffix(n, ".*") && strings.HasPrefix(k, n[:len(n)-1])
		}) {
			attrs[k] = a
		}
	}
	if len(attrs) > 0 {
		out["MessageAttributes"], out["MD5OfMessageAttributes"] = attrs, attributesMD5(attrs)
	}
	return out
}

func (s *Store) deleteMessage(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "DeleteMessage")
	if err != nil {
		return nil, err
	}
	if in.ReceiptHandle == "" {
		return nil, missing("ReceiptHandle")
	}
	_, err = q.remove(in.ReceiptHandle)
	return none{}, ofHandle(err, in.ReceiptHandle)
}

// eachEntry has f done for the entries of a batch, side by side: they share what the disk costs.
func eachEntry(in *input, operation string, f func(e *entry) error) (any, error) {
	if err := batch(in, operation); err != nil {
		return nil, err
	}
	errs := make([]error, len(in.Entries))
	ends := make(chan int)
	for i := range in.Entries {
		go func() { errs[i] = f(&in.Entries[i]); ends <- i }()
	}
	for range in.Entries {
		<-ends
	}
	var good, bad []map[string]any
	for i, err := range errs {
		if err != nil {
			bad = append(bad, failed(in.Entries[i].Id, err))
		} else {
			good = append(good, map[string]any{"Id": in.Entries[i].Id})
		}
	}
	return results(good, bad), nil
}

func (s *Store) deleteBatch(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "DeleteMessageBatch")
	if err != nil {
		return nil, err
	}
	return eachEntry(in, "DeleteMessageBatch", func(e *entry) error {
		_, err := q.remove(e.ReceiptHandle)
		return ofHandle(err, e.ReceiptHandle)
	})
}

func visibility(p *int) (time.Duration, error) {
	if p == nil {
		return 0, missing("VisibilityTimeout")
	}
	if *p < 0 || *p > 43200 {
		return 0, invalid("Value %d for parameter VisibilityTimeout is invalid. Reason: VisibilityTimeout must be an integer between 0 and 43200.", *p)
	}
	return time.Duration(*p) * time.Second, nil
}

func (s *Store) changeVisibility(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "ChangeMessageVisibility")
	if err != nil {
		return nil, err
	}
	if in.ReceiptHandle == "" {
		return nil, missing("ReceiptHandle")
	}
	d, err := visibility(in.VisibilityTimeout)
	if err != nil {
		return nil, err
	}
	return none{}, ofHandle(q.extend(in.ReceiptHandle, d), in.ReceiptHandle)
}

func (s *Store) changeBatch(_ context.Context, c awsapi.Caller, in *input) (any, error) {
	q, err := s.byURL(c, in, "ChangeMessageVisibilityBatch")
	if err != nil {
		return nil, err
	}
	return eachEntry(in, "ChangeMessageVisibilityBatch", func(e *entry) error {
		d, err := visibility(e.VisibilityTimeout)
		if err != nil {
			return err
		}
		return ofHandle(q.extend(e.ReceiptHandle, d), e.ReceiptHandle)
	})
}
