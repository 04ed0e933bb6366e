package mcp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/mcp"
	"trustpager/problem"
)

// Two principals use one node with the same JSON-RPC ids, cancel each other's
// requests and listen: nothing of one reaches the other.
func TestNothingOfOnePrincipalReachesAnother(t *testing.T) {
	rounds := 10_000
	if testing.Short() {
		rounds = 1_000
	}
	// What "left" may do changes all the time, what "right" may do never does.
	var wide atomic.Bool
	scopes := map[bool]access.Rights{}
	for w, text := range map[bool]string{true: "contacts:write-approval deals:read", false: "contacts:write-approval"} {
		s, err := access.ParseScopes(text)
		if err != nil {
			t.Fatal(err)
		}
		scopes[w] = access.RightsOf(s)
	}
	authenticate := func(_ context.Context, bearer, _ string) (access.Grant, error) {
		g := access.Grant{Principal: access.Principal{Kind: access.KindKey, ID: "key_" + bearer, Name: bearer}, Workspace: access.Workspace{ID: "ws_1"}}
		switch bearer {
		case "left":
			g.Rights = scopes[wide.Load()]
		case "right":
			g.Rights = scopes[false]
		default:
			return g, problem.Errorf(problem.Unauthorized, "no such key")
		}
		return g, nil
	}
	var mu sync.Mutex
	watchers := map[string][]chan struct{}{}
	watch := func(topic string) (<-chan struct{}, func()) {
		ch := make(chan struct{}, 1)
		mu.Lock()
		defer mu.Unlock()
		watchers[topic] = append(watchers[topic], ch)
		return ch, func() {}
	}
	touch := func(topic string) {
		mu.Lock()
		defer mu.Unlock()
		for _, ch := range watchers[topic] {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
	g := &gate{do: func(ctx context.Context, g access.Grant, a *catalog.Action, in approvals.Incoming) (approvals.Outcome, error) {
		if err := ctx.Err(); err != nil {
			return approvals.Outcome{}, err // somebody has cancelled it
		}
		if a.Verb == access.Write {
			return approvals.Outcome{Approval: &approvals.Approval{ID: "apr_" + g.Principal.Name, By: g.Principal, Status: approvals.Pending}}, nil
		}
		return approvals.Outcome{Result: catalog.Result{Data: json.RawMessage(`{"by":"` + g.Principal.Name + `"}`)}}, nil
	}}
	s, err := mcp.New(mcp.Config{Catalog: loadCatalog(t), Gate: g, Authenticate: authenticate, Watch: watch, StateKey: []byte("k"),
		BaseURL: "https://crm.example.com", Origin: newOrigin(t), Version: "test", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	defer srv.Close()
	defer s.Close()

	// Both listen under the same id, all the time.
	listens := map[string]*listener{}
	for _, who := range []string{"left", "right"} {
		listens[who] = modern(who, 1, "subscriptions/listen", `"notifications":{"toolsListChanged":true}`, "").listen(t, srv.URL)
		if m := listens[who].method(); m != "notifications/subscriptions/acknowledged" {
			t.Fatalf("%s: got %q, want the acknowledgement", who, m)
		}
	}
	var changes atomic.Int64 // that left was told of
	var reading sync.WaitGroup
	for who, l := range listens {
		reading.Go(func() {
			for {
				m := l.next()
				switch {
				case m == nil || m["result"] != nil: // the end
					return
				case who == "left" && m["method"] == "notifications/tools/list_changed":
					changes.Add(1)
				default:
					t.Errorf("%s was told %v", who, m)
				}
			}
		})
	}

	var sent sync.WaitGroup
	for _, who := range []string{"left", "right"} {
		other := map[string]string{"left": "right", "right": "left"}[who]
		sent.Go(func() {
			for i := range rounds {
				calls := []post{
					{token: who, body: fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"get_contact","arguments":{"id":"con_1"}}}`, i)},
					modern(who, i, "tools/call", `"name":"get_contact","arguments":{"id":"con_1"}`, ""),
					modern(who, i, "tools/call", `"name":"create_contact","arguments":{"first_name":"A"}`, takesTasks),
				}
				p := calls[i%len(calls)]
				var cancelling sync.WaitGroup
				cancelling.Go(func() {
					post{token: who, body: fmt.Sprintf(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}`, i)}.do(s)
				})
				body := p.do(s).Body.String()
				cancelling.Wait()
				if !strings.Contains(body, who) || strings.Contains(body, other) || !strings.Contains(body, fmt.Sprintf(`"id":%d`, i)) || strings.Contains(body, `"error"`) {
					t.Errorf("round %d of %s: got %s", i, who, body)
					return
				}
				if i%100 == 0 && who == "left" {
					wide.Store(!wide.Load())
					touch(access.RightsTopic("ws_1"))
				}
				if i%500 == 0 { // a listen that its client gives up
					ctx, cancel := context.WithCancel(t.Context())
					resp := modern(who, i, "subscriptions/listen", `"notifications":{"toolsListChanged":true}`, "").send(t, ctx, srv.URL)
					cancel()
					resp.Body.Close()
				}
			}
		})
	}
	sent.Wait()
	s.Close()
	reading.Wait()
	if changes.Load() == 0 {
		t.Error("left was told of no change, so nothing is proved of right")
	}
}
