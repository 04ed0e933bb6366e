package mcp_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"trustpager/access"
)

// A client whose token has fine scopes is challenged to ask for more. Who would
// gain nothing by asking is led to the grant, and to a key the tool is unknown.
func TestOAuth_1_2_InsufficientScope(t *testing.T) {
	const refused, led, unknown = "challenge", "tool error", "unknown"
	for _, tt := range []struct{ token, tool, want, scope string }{
		{"fine", "create_contact", refused, "contacts:read offline_access contacts:write-approval"},
		{"fine", "delete_contact", refused, "contacts:read offline_access contacts:delete-approval"},
		{"fine", "get_deal", refused, "contacts:read offline_access deals:read"},
		{"coarse", "create_contact", led, ""},
		{"coarse", "get_task", led, ""},
		{"narrowed", "create_contact", led, ""}, // not the token lacks it, but the grant
		{"fine", "no_such_tool", unknown, ""},
		{"reader", "create_contact", unknown, ""}, // a key
	} {
		f := &gate{}
		w := post{token: tt.token, body: callBody(tt.tool, `{}`)}.do(newServer(t, f))
		var answer struct {
			Error  *struct{ Message string }
			Result *struct {
				IsError bool
				Content []struct{ Text string }
			}
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		challenge := w.Header().Get("WWW-Authenticate")
		switch tt.want {
		case refused:
			if w.Code != http.StatusForbidden || answer.Error == nil || !strings.HasPrefix(challenge, `Bearer error="insufficient_scope", scope="`+tt.scope+`", resource_metadata=`) {
				t.Errorf("%+v: got %d %q %s, want a challenge", tt, w.Code, challenge, w.Body)
			}
		case led:
			if w.Code != http.StatusOK || challenge != "" || answer.Result == nil || !answer.Result.IsError || !strings.Contains(answer.Result.Content[0].Text, "https://crm.example.com/connections/grt_1") {
				t.Errorf("%+v: got %d %q %s, want a tool error that leads to the grant", tt, w.Code, challenge, w.Body)
			}
		case unknown:
			if w.Code != http.StatusOK || challenge != "" || answer.Error == nil || len(f.denied) != 0 {
				t.Errorf("%+v: got %d %q %s, want an unknown tool", tt, w.Code, challenge, w.Body)
			}
			continue
		}
		if len(f.denied) != 1 || f.denied[0].Action != tt.tool || len(f.incoming) != 0 {
			t.Errorf("%+v: audited %+v, run %+v; want one denial", tt, f.denied, f.incoming)
		}
	}
}

// Holding only the approval rung is enough: the call is queued, and nobody is
// asked for a scope.
func TestOAuth_1_2_ApprovalRungQueues(t *testing.T) {
	grants["queues"] = delegated("contacts:write-approval", "contacts:write-approval")
	defer delete(grants, "queues")
	w := post{token: "queues", body: callBody("create_contact", `{"first_name":"Ada"}`)}.do(newServer(t, &gate{}))
	if w.Code != http.StatusOK || w.Header().Get("WWW-Authenticate") != "" || !strings.Contains(w.Body.String(), "pending_approval") {
		t.Errorf("got %d %s, want a queued call", w.Code, w.Body)
	}
}

// The resource that a token must be for is the very URL that was called.
func TestOAuth_1_3_AudienceIsTheURL(t *testing.T) {
	seen := resources(t, "/mcp", "/mcp/ws_1")
	if strings.Join(seen, " ") != "https://crm.example.com/mcp https://crm.example.com/mcp/ws_1" {
		t.Errorf("got %v, want the URLs", seen)
	}
}

// resources returns what authentication was asked for when the paths were
// called.
func resources(t *testing.T, paths ...string) []string {
	var seen []string
	s := newServer(t, &gate{})
	s.Authenticate = func(ctx context.Context, bearer, resource string) (access.Grant, error) {
		seen = append(seen, resource)
		return authenticate(ctx, bearer, resource)
	}
	for _, path := range paths {
		r := post{token: "full", body: pingBody}.request()
		r.URL.Path = path
		s.ServeHTTP(httptest.NewRecorder(), r)
	}
	return seen
}
