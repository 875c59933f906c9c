package edge

import (
	"fmt"
	"net/http"
	"testing"

	"tenfold/internal/directory"
)

// The door says which function a request is for, also where a rule has rewritten its path, and shows its pass; what a
// client says there does not arrive, and services get nothing of it.
func TestFunctionsAreNamedByTheDoor(t *testing.T) {
	h := open(t)
	seen := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.URL.Path, " ", r.Header[FieldFunction], " ", r.Header[FieldPass])
	}
	fn, _ := task(t, seen)
	api, _ := task(t, seen)
	site := directory.Site{App: "shop", Env: "production", Hosts: []string{"shop.localhost"},
		Routes: []directory.Route{{Pattern: "/fn/*", Service: "notify"}, {Pattern: "/api/*", Service: "api"}},
		Rules:  []directory.Rule{{Pattern: "/v1/*", Rewrite: "/fn/*"}, {Pattern: "/fn/to-api/*", Rewrite: "/api/*"}},
		Services: []directory.Service{
			{Name: "notify", Endpoints: []directory.Endpoint{fn}, Function: "shop/production/function/notify", Pass: "p4ss"},
			{Name: "api", Endpoints: []directory.Endpoint{api}},
		}}
	if err := h.door.apply(directory.Snapshot{Version: 1 << 40, Sites: []directory.Site{site}}); err != nil {
		t.Fatal(err)
	}
	const named = " [shop/production/function/notify] [p4ss]"
	for path, want := range map[string]string{"/fn/x": "/fn/x" + named, "/v1/x": "/fn/x" + named, "/api/x": "/api/x [] []", "/fn/to-api/x": "/api/x [] []"} {
		for range 2 {
			if _, body := h.ask(t, "GET", path, ""); body != want {
				t.Errorf("%s: %q, want %q", path, body, want)
			}
		}
	}
	for range 2 {
		if _, body := h.ask(t, "GET", "/v1/x", "", FieldFunction, "shop/production/function/other", FieldPass, "guessed"); body != "/fn/x"+named {
			t.Errorf("forged: %q", body)
		}
	}
}
