package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Config is what a Receiver needs. Secret is required.
type Config struct {
	// Secret is the hook's, at least 16 bytes: the key of the signature, or GitLab's token.
	Secret []byte
	// Most is the size of a delivery in bytes that is still read: 5 MiB. GitHub sends up to 25 MB, for
	// pushes of thousands of commits.
	Most int64
	// Window is how old a delivery may be by the time in its signed payload, and how long it is
	// remembered: 72 hours, for as long as GitHub delivers again by hand.
	Window time.Duration
	// Remember bounds how many deliveries are remembered: 4096.
	Remember int
	// File is where they are remembered, so that a restart forgets none; "" for in memory alone.
	File string
}

// Receiver checks and reads the deliveries of one hook. It may be used by many at once.
type Receiver struct {
	cfg  Config
	seen *guard
}

// New makes a Receiver. It reads cfg.File and starts nothing.
func New(cfg Config) (*Receiver, error) {
	if len(cfg.Secret) < 16 {
		return nil, errors.New("new webhook receiver: the secret is shorter than 16 bytes")
	}
	if cfg.Most <= 0 {
		cfg.Most = 5 << 20
	}
	if cfg.Window <= 0 {
		cfg.Window = 72 * time.Hour
	}
	if cfg.Remember <= 0 {
		cfg.Remember = 4096
	}
	g, err := openGuard(cfg.File, cfg.Window, cfg.Remember)
	if err != nil {
		return nil, fmt.Errorf("new webhook receiver: %w", err)
	}
	return &Receiver{cfg: cfg, seen: g}, nil
}

// Received is one delivery with what it tells.
type Received struct {
	Provider Provider
	Delivery string
	Events   []Event // one for each branch: Bitbucket puts many in a delivery. May be empty
	key      string
}

// Receive checks and reads a delivery. Its error is, by errors.Is, one of ErrForged, ErrReplayed,
// ErrStale, ErrTooLarge, ErrMalformed and ErrUnsupported, or one of reading the body or of remembering
// the delivery. The signature is checked before a byte of the payload is read for its meaning.
func (r *Receiver) Receive(req *http.Request) (Received, error) {
	got, err := r.receive(req)
	if err != nil {
		return Received{}, fmt.Errorf("receive webhook: %w", err)
	}
	return got, nil
}

func (r *Receiver) receive(req *http.Request) (Received, error) {
	h, ok := hookOf(req.Header)
	if !ok || req.Method != http.MethodPost {
		return Received{}, ErrUnsupported
	}
	if req.ContentLength > r.cfg.Most {
		return Received{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, req.ContentLength, r.cfg.Most)
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, r.cfg.Most+1))
	if err != nil {
		return Received{}, err
	}
	if int64(len(body)) > r.cfg.Most {
		return Received{}, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, r.cfg.Most)
	}
	if !h.signed(r.cfg.Secret, body) {
		return Received{}, ErrForged
	}
	payload, err := payloadOf(req.Header.Get("Content-Type"), body)
	if err != nil {
		return Received{}, err
	}
	events, err := h.read(payload)
	if err != nil {
		return Received{}, err
	}
	now := time.Now()
	for i := range events {
		e := &events[i]
		e.Provider, e.Delivery = h.provider, h.delivery
		if err := e.check(); err != nil {
			return Received{}, err
		}
		if !e.At.IsZero() && now.Sub(e.At) > r.cfg.Window {
			return Received{}, fmt.Errorf("%w: it tells of %s", ErrStale, e.At.UTC().Format(time.RFC3339))
		}
	}
	got := Received{Provider: h.provider, Delivery: h.delivery, Events: events, key: keyOf(h, body)}
	if len(events) == 0 || events[0].Kind == Other {
		return got, nil // nothing comes of it, however often it is sent
	}
	fresh, err := r.seen.add(got.key, now)
	if err != nil {
		return Received{}, err
	}
	if !fresh {
		return Received{}, ErrReplayed
	}
	return got, nil
}

// Forget lets a delivery be received again: after a failure that is ours, before answering with 500,
// so that the provider's next attempt is not taken for a replay.
func (r *Receiver) Forget(got Received) error { return r.seen.remove(got.key) }

// keyOf tells deliveries apart by what is signed, the body: who recorded one can change its headers.
// So a branch of Gitea or Bitbucket that is forced back and forth within the window is believed once.
// GitLab signs nothing: who recorded a delivery has the token and needs no replay, so its ID counts too
// and only means to find what was sent twice.
func keyOf(h hook, body []byte) string {
	head := string(h.provider) + "\x00"
	if h.provider == GitLab {
		head += h.delivery + "\x00"
	}
	sum := sha256.Sum256(append([]byte(head), body...))
	return hex.EncodeToString(sum[:16])
}

// payloadOf is the JSON of a delivery: GitHub, Gitea and Forgejo can send it as a field of a form.
func payloadOf(contentType string, body []byte) ([]byte, error) {
	if !strings.HasPrefix(contentType, "application/x-www-form-urlencoded") {
		return body, nil
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("payload") == "" {
		return nil, fmt.Errorf("%w: a form without a payload", ErrMalformed)
	}
	return []byte(form.Get("payload")), nil
}

// hook is what the headers of a delivery say.
type hook struct {
	provider  Provider
	event     string
	delivery  string
	signature string // hexadecimal HMAC-SHA256 of the body, or GitLab's token
}

// hookOf tells the provider by its headers. Forgejo sends those of Gitea too, and both those of GitHub.
//
// Sources: GitHub "Validating webhook deliveries", Gitea and Forgejo "Webhooks", GitLab "Webhooks" and
// "Webhook events", Bitbucket Cloud "Event payloads" and "Manage webhooks".
func hookOf(h http.Header) (hook, bool) {
	switch {
	case h.Get("X-Forgejo-Event") != "":
		return hook{Gitea, h.Get("X-Forgejo-Event"), h.Get("X-Forgejo-Delivery"), h.Get("X-Forgejo-Signature")}, true
	case h.Get("X-Gitea-Event") != "":
		return hook{Gitea, h.Get("X-Gitea-Event"), h.Get("X-Gitea-Delivery"), h.Get("X-Gitea-Signature")}, true
	case h.Get("X-Gitlab-Event") != "":
		return hook{GitLab, h.Get("X-Gitlab-Event"), h.Get("X-Gitlab-Event-UUID"), h.Get("X-Gitlab-Token")}, true
	case h.Get("X-Event-Key") != "":
		return hook{Bitbucket, h.Get("X-Event-Key"), h.Get("X-Request-UUID"), prefixed(h.Get("X-Hub-Signature"))}, true
	case h.Get("X-GitHub-Event") != "":
		return hook{GitHub, h.Get("X-GitHub-Event"), h.Get("X-GitHub-Delivery"), prefixed(h.Get("X-Hub-Signature-256"))}, true
	}
	return hook{}, false
}

// prefixed is the signature behind "sha256="; another method's is none.
func prefixed(s string) string {
	sig, ok := strings.CutPrefix(s, "sha256=")
	if !ok {
		return ""
	}
	return sig
}

// signed compares in constant time.
func (h hook) signed(secret, body []byte) bool {
	if h.provider == GitLab {
		// Hashed first: the comparison then tells nothing of the length either.
		got, want := sha256.Sum256([]byte(h.signature)), sha256.Sum256(secret)
		return subtle.ConstantTimeCompare(got[:], want[:]) == 1
	}
	got, err := hex.DecodeString(h.signature)
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return hmac.Equal(got, mac.Sum(nil))
}

func (h hook) read(payload []byte) ([]Event, error) {
	switch h.provider {
	case GitLab:
		return readGitLab(payload)
	case Bitbucket:
		return readBitbucket(h.event, payload)
	}
	return readGitHub(h.provider, h.event, payload)
}
