package bucket

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"crypto/rand"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"tenfold"
	"tenfold/internal/awsapi"
)

// Rule says which events of a bucket go to To: a queue, a function or a bus.
type Rule struct {
	Name             string
	Created, Removed bool
	Prefix, Suffix   string
	To               tenfold.ID
}

func (r *Rule) takes(created bool, key string) bool {
	return (created && r.Created || !created && r.Removed) && strings.HasPrefix(key, r.Prefix) && strings.HasSuffix(key, r.Suffix)
}

// Event is what became of an object, as S3's notifications have it.
type Event struct {
	// Once is the same for each delivery of it.
	Once  string `json:"once"`
	Rule  string `json:"rule"`
	What  string `json:"what"` // "ObjectCreated:Put"
	At    string `json:"at"`
	By    string `json:"by,omitempty"` // an access key
	From  string `json:"from,omitempty"`
	ID    string `json:"id"` // of the request
	Owner string `json:"owner"`

	Bucket    string `json:"bucket"`
	Key       string `json:"key"`
	Size      int64  `json:"size,omitempty"`
	ETag      string `json:"etag,omitempty"`
	Version   string `json:"version,omitempty"`
	Sequencer string `json:"sequencer"`
}

// Created says whether an object was made, else one was removed.
func (e *Event) Created() bool { return strings.HasPrefix(e.What, "ObjectCreated:") }

// Notification is the event in the form in which S3 sends it to queues and functions.
func (e *Event) Notification() map[string]any {
	object := map[string]any{"key": strings.ReplaceAll(url.PathEscape(e.Key), "%20", "+"), "sequencer": e.Sequencer}
	object["key"] = strings.ReplaceAll(object["key"].(string), "%2F", "/")
	if e.Created() {
		object["size"], object["eTag"] = e.Size, e.ETag
	}
	if e.Version != "" {
		object["versionId"] = e.Version
	}
	return map[string]any{"Records": []any{map[string]any{
		"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": awsapi.Region, "eventTime": e.At, "eventName": e.What,
		"userIdentity":      map[string]any{"principalId": "AWS:" + e.By},
		"requestParameters": map[string]any{"sourceIPAddress": e.From},
		"responseElements":  map[string]any{"x-amz-request-id": e.ID, "x-amz-id-2": e.Once},
		"s3": map[string]any{"s3SchemaVersion": "1.0", "configurationId": e.Rule,
			"bucket": map[string]any{"name": e.Bucket, "ownerIdentity": map[string]any{"principalId": e.Owner}, "arn": "arn:aws:s3:::" + e.Bucket},
			"object": object},
	}}}
}

// Detail is the event in the form in which S3 puts it on a bus, and its kind there.
func (e *Event) Detail() (kind string, detail map[string]any) {
	object := map[string]any{"key": e.Key, "sequencer": e.Sequencer}
	if e.Created() {
		object["size"], object["etag"] = e.Size, e.ETag
	}
	if e.Version != "" {
		object["version-id"] = e.Version
	}
	detail = map[string]any{"version": "0", "bucket": map[string]any{"name": e.Bucket}, "object": object, "request-id": e.ID, "requester": e.By, "source-ip-address": e.From}
	family, how, _ := strings.Cut(e.What, ":")
	switch family {
	case "ObjectCreated":
		detail["reason"] = map[string]string{"Put": "PutObject", "Post": "POST Object", "Copy": "CopyObject"}[how]
		if how == "CompleteMultipartUpload" {
			detail["reason"] = how
		}
		return "Object Created", detail
	case "LifecycleExpiration":
		detail["reason"] = "Lifecycle Expiration"
	default:
		detail["reason"] = "DeleteObject"
	}
	detail["deletion-type"] = "Permanently Deleted"
	if strings.HasSuffix(how, "DeleteMarkerCreated") {
		detail["deletion-type"] = "Delete Marker Created"
	}
	return "Object Deleted", detail
}

// tell puts the events of a request that succeeded into the outbox.
func (s *Store) tell(d *door, a *asked, res *http.Response) error {
	w := s.wanted(d.account.id, a.bucket)
	if w == nil || len(w.Events) == 0 || s.outbox.deliver == nil {
		return nil
	}
	h := res.Header
	base := Event{By: cmp.Or(a.access, "anonymous"), From: res.Request.RemoteAddr, ID: h.Get("X-Amz-Request-Id"), Bucket: a.bucket, Key: a.key, Version: h.Get("X-Amz-Version-Id"), ETag: strings.Trim(h.Get("Etag"), `"`)}
	switch a.operation {
	case "PutObject":
		base.What = "ObjectCreated:Put"
	case "CopyObject":
		base.What = "ObjectCreated:Copy"
	case "PostObject":
		base.What = "ObjectCreated:Post"
		l, err := url.Parse(h.Get("Location"))
		if err != nil {
			return fmt.Errorf("read where the object of a form is: %w", err)
		}
		base.Key = keyOf(l.Path)
		if q := l.Query(); res.StatusCode == http.StatusSeeOther {
			base.Key, base.ETag = q.Get("key"), strings.Trim(q.Get("etag"), `"`)
		}
	case "CompleteMultipartUpload":
		base.What = "ObjectCreated:CompleteMultipartUpload"
		body, err := peek(res)
		if err != nil || bytes.Contains(body, []byte("<Error>")) {
			return err
		}
	case "DeleteObject":
		base.What = "ObjectRemoved:Delete"
		if h.Get("X-Amz-Delete-Marker") == "true" && res.Request.URL.Query().Get("versionId") == "" {
			base.What = "ObjectRemoved:DeleteMarkerCreated"
		}
	case "DeleteObjects":
		return s.tellMany(d, w, base, res)
	default:
		return nil
	}
	return s.post(d, w, base)
}

// keyOf is the key in a path of a bucket.
func keyOf(path string) string {
	_, key, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return key
}

// manyAtMost bounds the answer to a DeleteObjects: a thousand keys of a thousand bytes, escaped.
const manyAtMost = 8 << 20

// peek reads an answer and puts it back.
func peek(res *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(res.Body, manyAtMost))
	if err != nil {
		return nil, err
	}
	rest := res.Body
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), rest), rest}
	return body, nil
}

// removed are the objects that an answer to a DeleteObjects names.
type removed struct {
	Deleted []struct {
		Key, VersionId        string
		DeleteMarker          bool
		DeleteMarkerVersionId string
	}
}

func (s *Store) tellMany(d *door, w *Wanted, base Event, res *http.Response) error {
	body, err := peek(res)
	if err != nil {
		return err
	}
	var all removed
	if err := xml.Unmarshal(body, &all); err != nil {
		return fmt.Errorf("read what was deleted: %w", err)
	}
	for _, x := range all.Deleted {
		e := base
		e.What, e.Key, e.Version = "ObjectRemoved:Delete", x.Key, x.VersionId
		if x.DeleteMarker && x.VersionId == "" {
			e.What, e.Version = "ObjectRemoved:DeleteMarkerCreated", x.DeleteMarkerVersionId
		}
		if err := s.post(d, w, e); err != nil {
			return err
		}
	}
	return nil
}

// post writes an event down for each rule that takes it.
func (s *Store) post(d *door, w *Wanted, e Event) error {
	for i := range w.Events {
		r := &w.Events[i]
		if !r.takes(e.Created(), e.Key) {
			continue
		}
		now := time.Now().UTC()
		if e.Created() && e.Size == 0 {
			if out, err := d.account.HeadObject(s.engineContext(), &s3.HeadObjectInput{Bucket: &e.Bucket, Key: &e.Key}); err == nil {
				e.Size, e.ETag = *out.ContentLength, strings.Trim(cmp.Or(e.ETag, deref(out.ETag)), `"`)
			}
		}
		e.Once, e.Rule, e.At, e.Owner = rand.Text(), r.Name, now.Format("2006-01-02T15:04:05.000Z"), w.account
		e.Sequencer = strings.ToUpper(strconv.FormatInt(now.UnixNano(), 16))
		if err := s.outbox.put(posted{Account: w.account, To: r.To, Event: e, Since: now}); err != nil {
			return refuse(http.StatusServiceUnavailable, "ServiceUnavailable", "The object is changed, and its event could not be kept. Please try again.")
		}
	}
	return nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
