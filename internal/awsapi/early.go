package awsapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// errNoPage is the answer to what is no request of an API at all.
var errNoPage = &Fault{Status: http.StatusNotFound, Code: "UnknownOperationException"}

// early refuses what AWS' front refuses before it looks at the signature: what is no request in JSON, and
// operations that there are not. It finds the service by the target where it can, so that the refusals after
// it are in the service's words.
func (f *Front) early(a *answer, kind, target string, raw []byte) error {
	a.json = "application/json"
	switch kind {
	case "application/x-amz-json-1.0", "application/x-amz-json-1.1":
		a.json = kind
	}
	if target == "" && len(raw) > 0 && kind != "application/json" && kind != "application/x-amz-json-1.0" {
		return errNoPage
	}
	if a.r.Method != http.MethodPost {
		return errNoPage
	}
	prefix, operation, _ := strings.Cut(target, ".")
	for _, s := range f.Services {
		if slices.Contains(s.Targets, prefix) {
			a.s = s
			break
		}
	}
	if operation == "" || a.s.Operations != nil && !a.s.Operations(operation) {
		if notJSON(a.r, raw) {
			return &Fault{Code: "SerializationException"}
		}
		return &Fault{Code: "UnknownOperationException"}
	}
	return nil
}

// notJSON says whether a body is there and no JSON, which AWS tells before everything else. What is packed is
// not looked into.
func notJSON(r *http.Request, raw []byte) bool {
	return len(raw) > 0 && r.Header.Get("Content-Encoding") == "" && !json.Valid(raw)
}

// The namespaces of what AWS' front refuses by itself.
const (
	serviceFront  = "com.amazon.coral.service#"
	validateFront = "com.amazon.coral.validate#"
)

// typeOf is what stands in __type for a code, and the member that has the message. A code that has a
// namespace keeps it. DynamoDB's clients compare all of it; what it says in "Message" and what in "message"
// follows no rule but AWS' history.
func (s *Served) typeOf(code string) (kind, message string) {
	switch {
	case strings.Contains(code, "#"):
		return code, "message"
	case code == "ValidationException":
		return validateFront + code, "message"
	case code == "SerializationException", code == "AccessDeniedException":
		return serviceFront + code, "Message"
	}
	switch code {
	case "UnknownOperationException", "MissingAuthenticationTokenException", "IncompleteSignatureException",
		"UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException":
		return serviceFront + code, "message"
	}
	return s.Namespace + code, "message"
}

// shared lets pages of other origins ask, as AWS does: whoever asks has to sign. It answers a browser's
// question whether a page may, and says so.
func shared(h http.Header, r *http.Request) (answered bool) {
	h.Set("Access-Control-Allow-Origin", "*")
	if r.Method != http.MethodOptions {
		return false
	}
	if names := r.Header.Get("Access-Control-Request-Headers"); names != "" {
		h.Set("Access-Control-Allow-Headers", names)
	}
	if methods := r.Header.Get("Access-Control-Request-Method"); methods != "" {
		h.Set("Access-Control-Allow-Methods", methods)
	}
	h.Set("Access-Control-Max-Age", "172800")
	h.Set("Content-Length", "0")
	return true
}
