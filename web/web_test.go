package web_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"trustpager/web"
)

func TestPages(t *testing.T) {
	const id = "apr_01jz9q2n7yf3ktqw1v8h5m0xce"
	for _, tt := range []struct {
		method, url string
		status      int
		want, not   string
	}{
		{"GET", "/", 200, "trustpager approvals list", "apr_"},
		{"HEAD", "/", 200, "", ""},
		{"GET", "/settings/api?tab=approvals&approval=" + id, 200, "trustpager approvals approve " + id, ""},
		{"GET", "/settings/api", 200, "trustpager approvals list", "apr_"},
		{"GET", "/settings/api?approval=apr_%3Cscript%3Ealert(1)%3C/script%3E", 200, "trustpager approvals list", "script"},
		{"GET", "/settings/api?approval=" + id + "%0aapprove", 200, "trustpager approvals list", id},
		{"GET", "/settings/api?approval=" + id + ";rm", 200, "trustpager approvals list", id},
		{"GET", "/nothing", 404, "There is no such page", ""},
		{"POST", "/", 404, "There is no such page", ""},
		{"GET", "/%3Cscript%3E", 404, "There is no such page", "script"},
	} {
		w := httptest.NewRecorder()
		web.Handler().ServeHTTP(w, httptest.NewRequest(tt.method, tt.url, nil))
		body := w.Body.String()
		if w.Code != tt.status || !strings.Contains(body, tt.want) || tt.not != "" && strings.Contains(body, tt.not) {
			t.Errorf("%s %s: got %d %s, want %d with %q and without %q", tt.method, tt.url, w.Code, body, tt.status, tt.want, tt.not)
		}
		if got := w.Header().Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") || !strings.Contains(got, "frame-ancestors 'none'") {
			t.Errorf("%s %s: Content-Security-Policy: got %q, want nothing allowed", tt.method, tt.url, got)
		}
		if got := w.Header().Get("Content-Type"); got != "text/html; charset=utf-8" {
			t.Errorf("%s %s: Content-Type: got %q", tt.method, tt.url, got)
		}
	}
}
