package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
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

// A browser may store what it was told to and nothing else: the URL is for one key, one type and the host that it asked.
func TestPicturesAreSignedForTheHostThatAsked(t *testing.T) {
	a := &api{key: []byte("secret")}
	a.pictures = pictures{bucket: "pictures", sign: s3.NewPresignClient(s3.New(s3.Options{Region: "us-east-1", Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "key", SecretAccessKey: "secret"}, nil
	})}))}
	ask := func(host, kind string) (string, error) {
		r := httptest.NewRequest("POST", "http://"+host+"/api/pictures", strings.NewReader(`{"picture": {"type": "`+kind+`"}}`))
		out, err := a.addPicture(r, 7)
		if err != nil {
			return "", err
		}
		p := out.(map[string]any)["picture"].(map[string]string)
		if !strings.HasPrefix(p["image"], "/api/pictures/7/") || !strings.HasPrefix(p["put"], "/pictures/"+strings.TrimPrefix(p["image"], "/api/pictures/")+"?") {
			t.Error(p)
		}
		return p["put"], nil
	}
	put, err := ask("conduit.example.com", "image/png")
	if err != nil || !strings.Contains(put, "X-Amz-SignedHeaders=content-type%3Bhost") && !strings.Contains(put, "content-length%3Bcontent-type%3Bhost") {
		t.Error(put, err)
	}
	if _, err := ask("conduit.example.com", "text/html"); err == nil {
		t.Error("a page is taken for a picture")
	}
	w := httptest.NewRecorder()
	a.routes().ServeHTTP(w, httptest.NewRequest("GET", "http://conduit.example.com/api/pictures/7/abc", nil))
	if to := w.Header().Get("Location"); w.Code != 302 || !strings.HasPrefix(to, "/pictures/7/abc?") {
		t.Error(w.Code, to)
	}
}
