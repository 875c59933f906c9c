//go:build scenario

package test

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// emailer works at a queue by its API alone: it signs what it asks as AWS' SDKs do, and takes half a second for each
// message.
const emailer = `import datetime, hashlib, hmac, json, os, signal, sys, time, urllib.parse, urllib.request

url, region = os.environ["AWS_ENDPOINT_URL_SQS"], os.environ["AWS_REGION"]
host = urllib.parse.urlparse(url).netloc

def ask(operation, body):
    data, now = json.dumps(body).encode(), datetime.datetime.now(datetime.timezone.utc)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    head = {"content-type": "application/x-amz-json-1.0", "host": host, "x-amz-date": stamp, "x-amz-target": "AmazonSQS." + operation}
    names, digest = ";".join(head), hashlib.sha256(data).hexdigest()
    canonical = "\n".join(["POST", "/", "", *(k + ":" + v for k, v in head.items()), "", names, digest])
    scope = "/".join([day, region, "sqs", "aws4_request"])
    key = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
    for part in (day, region, "sqs", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    sign = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    head["authorization"] = f"AWS4-HMAC-SHA256 Credential={os.environ['AWS_ACCESS_KEY_ID']}/{scope}, SignedHeaders={names}, Signature={sign}"
    return json.load(urllib.request.urlopen(urllib.request.Request(url + "/", data, head)))

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
queue = os.environ["EMAILS_QUEUE_URL"]
print("works", flush=True)
while True:
    for m in ask("ReceiveMessage", {"QueueUrl": queue, "MaxNumberOfMessages": 1, "WaitTimeSeconds": 5}).get("Messages", []):
        time.sleep(0.5)
        print("sent", m["Body"], flush=True)
        ask("DeleteMessage", {"QueueUrl": queue, "ReceiptHandle": m["ReceiptHandle"]})
`

// A worker has a task for each so many messages, sleeps while its queue is empty, and wakes by a message. No message
// is lost over it. Most of it is a minute without messages, so it runs beside others.
func TestScalesWithABacklog(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{
		"api/emailer.py": emailer,
		"tenfold.yaml": `app: post
services:
  api: {runtime: python, build: false, command: exec python3 emailer.py, uses: [emails], scale: {min: 0, max: 4, backlog: {emails: 20}}, routes: false}
queues: {emails: {timeout: 5s}}
`,
	})
	h.up(dir)
	for range 8 {
		args := []string{"queue", "send", "emails"}
		for range 10 {
			h.must(dir, append(args, "m-more")...)
		}
	}
	eventually(t, "more tasks", 60*time.Second, func() bool {
		l := h.scaled(dir)
		return strings.Contains(l, "2 of 0-4") || strings.Contains(l, "3 of 0-4") || strings.Contains(l, "4 of 0-4")
	})
	if l := h.scaled(dir); !strings.Contains(l, "in emails, 20 per task") {
		t.Errorf("status: %s", l)
	}
	eventually(t, "all messages", 90*time.Second, func() bool {
		return strings.Count(h.must(dir, "logs", "api", "--tail", "1000"), "sent m-more") >= 80
	})
	eventually(t, "sleep", 200*time.Second, func() bool { return strings.Contains(h.scaled(dir), "asleep") })
	h.must(dir, "queue", "send", "emails", "m-last")
	eventually(t, "waking by a message", 30*time.Second, func() bool { return strings.Contains(h.must(dir, "logs", "api", "--tail", "1000"), "sent m-last") })
	// The last task may have received it while it was stopped: then it is at work for 5 s more.
	if log := h.must(dir, "events"); !regexp.MustCompile(`scaled from 0 to 1 task: emails: (1 waiting, 0|0 waiting, 1) at work, 20 per task`).MatchString(log) {
		t.Errorf("no event says why:\n%s", log)
	}
	if out := h.must(dir, "queue", "receive", "emails-dead"); strings.Contains(out, "m-") {
		t.Errorf("given up on: %s", out)
	}
}
