package origin_test

import (
	"net/http/httptest"
	"testing"

	"trustpager/origin"
	"trustpager/problem"
)

func TestCheck(t *testing.T) {
	g, err := origin.New("https://pager.example.com", []string{"pager.internal"}, []string{"https://app.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host, origin string
		want         bool
	}{
		{"pager.example.com", "", true},
		{"PAGER.example.com:8443", "", true},
		{"pager.internal", "", true},
		{"localhost:8080", "", true},
		{"127.0.0.1:8080", "", true},
		{"[::1]:8080", "", true},
		{"evil.example", "", false},
		{"pager.example.com.evil.example", "", false},
		{"", "", false},
		{"pager.example.com", "https://pager.example.com", true},
		{"pager.example.com", "https://app.example.com", true},
		{"localhost:8080", "http://localhost:8080", true},
		{"localhost:8080", "http://localhost:9090", false},
		{"pager.example.com", "https://evil.example", false},
		{"pager.example.com", "https://app.example.com.evil.example", false},
		{"pager.example.com", "evil://pager.example.com", false},
		{"pager.example.com", "://pager.example.com", false},
		{"pager.example.com", "null", false},
	} {
		r := httptest.NewRequest("GET", "/v1/me", nil)
		r.Host = tt.host
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
		}
		_, err := g.Check(httptest.NewRecorder(), r, origin.CORS{})
		if got := err == nil; got != tt.want || !got && !problem.Is(err, problem.Forbidden) {
			t.Errorf("Check(host %q, origin %q): got %v, want allowed %v", tt.host, tt.origin, err, tt.want)
		}
	}
	for _, base := range []string{"", "pager.example.com", "ftp://pager.example.com", "https://"} {
		if _, err := origin.New(base, nil, nil); err == nil {
			t.Errorf("New(%q): got no error, want it refused", base)
		}
	}
}
