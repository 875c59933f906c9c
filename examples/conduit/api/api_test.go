package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

func TestTokensAreOurs(t *testing.T) {
	a, other := &api{key: []byte("one")}, &api{key: []byte("two")}
	token, err := a.token(42, "s")
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]int64{"Token " + token: 42, "Bearer " + token: 42, token: 0, "Token x": 0, "": 0} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", header)
		if got, session, err := a.viewer(r); err != nil || got != want || (session == "s") != (want != 0) {
			t.Errorf("%.12q: viewer %d of session %q, want %d: %v", header, got, session, want, err)
		}
		if got, _, _ := other.viewer(r); got != 0 {
			t.Errorf("%.12q: accepted with another key", header)
		}
	}
}

func TestSignedRoutesRefuseStrangers(t *testing.T) {
	h := (&api{key: []byte("one"), cache: &cache{}}).routes()
	for _, route := range [][2]string{{"GET", "/api/user"}, {"POST", "/api/articles"}, {"DELETE", "/api/articles/x"}, {"GET", "/api/articles/feed"}, {"GET", "/api/notices"}, {"DELETE", "/api/user/session"}} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(route[0], route[1], nil))
		if w.Code != http.StatusUnauthorized {
			t.Errorf("%s %s: %d", route[0], route[1], w.Code)
		}
	}
}

// A message that cannot be worked on stays in the queue, and no other with it.
func TestWhatFailsStaysInTheQueue(t *testing.T) {
	out, err := (&api{}).notify(t.Context(), events.SQSEvent{Records: []events.SQSMessage{{MessageId: "1", Body: "no JSON"}}})
	if err != nil || len(out.BatchItemFailures) != 1 || out.BatchItemFailures[0].ItemIdentifier != "1" {
		t.Error(out, err)
	}
	now := time.Now()
	if at := sentAt(events.SQSMessage{Attributes: map[string]string{"SentTimestamp": "1455765776637"}}, now); at.UnixMilli() != 1455765776637 {
		t.Error(at)
	}
	if at := sentAt(events.SQSMessage{}, now); !at.Equal(now) {
		t.Error(at)
	}
}

func TestSlugsAreUniqueAndClean(t *testing.T) {
	a, b := slugOf("How to train your Dragon?"), slugOf("How to train your Dragon?")
	if a == b || !regexp.MustCompile(`^how-to-train-your-dragon-[0-9a-f]{8}$`).MatchString(a) {
		t.Fatal(a, b)
	}
	if s := slugOf("???"); !regexp.MustCompile(`^[0-9a-f]{8}$`).MatchString(s) {
		t.Fatal(s)
	}
}

func TestStampsHaveMilliseconds(t *testing.T) {
	b, _ := json.Marshal(stamp(time.Date(2016, 2, 18, 3, 22, 56, 637e6, time.UTC)))
	if string(b) != `"2016-02-18T03:22:56.637Z"` {
		t.Fatal(string(b))
	}
}

func TestTagsAreCleaned(t *testing.T) {
	if got := cleanTags([]string{" b", "a", "", "b"}); len(got) != 2 || got[0] != "a" || got[1] != "b" {
		t.Fatal(got)
	}
}
