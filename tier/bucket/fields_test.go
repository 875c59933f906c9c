package bucket

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestFieldsAreWrittenAsS3WritesThem(t *testing.T) {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X-Amz-Request-Id"] = []string{"A", "A"}
		w.Header().Set("X-Amz-Meta-By-Whom", "ann")
		w.Header().Set("Content-Type", "text/plain")
	}))
	defer engine.Close()
	u, _ := url.Parse(engine.URL)
	got := httptest.NewRecorder()
	httputil.NewSingleHostReverseProxy(u).ServeHTTP(&fields{ResponseWriter: got}, httptest.NewRequest("GET", "/files/one", strings.NewReader("")))
	h := got.Result().Header
	lower := strings.ToLower(metadata + "By-Whom")
	if !slices.Equal(got.Header()[lower], []string{"ann"}) || got.Header().Get("X-Amz-Meta-By-Whom") != "" || !slices.Equal(h["X-Amz-Request-Id"], []string{"A"}) || h.Get("Content-Type") != "text/plain" {
		t.Errorf("%v", got.Header())
	}
}
