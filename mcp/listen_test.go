package mcp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/storage/storagetest"
)

func listenTools(token, client string) post {
	return modern(token, `"l1"`, "subscriptions/listen", `"notifications":{"toolsListChanged":true}`, client)
}

func TestListenTellsWhoseToolsHaveChanged(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		token, grant := w.key(access.Key{}, "contacts:read")
		other, otherGrant := w.key(access.Key{}, "contacts:read")
		mine, theirs := listenTools(token, "").listen(t, w.url), listenTools(other, "").listen(t, w.url)
		ack := mine.next()
		params, _ := ack["params"].(map[string]any)
		meta, _ := params["_meta"].(map[string]any)
		if ack["method"] != "notifications/subscriptions/acknowledged" || meta["io.modelcontextprotocol/subscriptionId"] != "l1" ||
			fmt.Sprint(params["notifications"]) != "map[toolsListChanged:true]" {
			t.Fatalf("got %v, want the acknowledgement", ack)
		}
		theirs.next()

		set := func(g access.Grant, scopes string, revoked bool) {
			t.Helper()
			k, err := w.db.Key(t.Context(), w.workspace.ID, g.Principal.ID, false)
			if err != nil {
				t.Fatal(err)
			}
			if k.Scopes, err = access.ParseScopes(scopes); err != nil {
				t.Fatal(err)
			}
			if revoked {
				k.RevokedAt = time.Now()
			}
			if err := w.db.UpdateKey(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		}
		// The other's rights change before and after: were it told to both, the first
		// would get it thrice.
		set(otherGrant, "contacts:write", false)
		if got := theirs.method(); got != "notifications/tools/list_changed" {
			t.Errorf("the other: got %q, want that its list has changed", got)
		}
		set(grant, "contacts:write-approval", false)
		if got := mine.method(); got != "notifications/tools/list_changed" {
			t.Errorf("got %q, want that the list has changed", got)
		}
		set(otherGrant, "contacts:read", false)
		if got := theirs.method(); got != "notifications/tools/list_changed" {
			t.Errorf("the other: got %q, want that its list has changed", got)
		}
		set(grant, "contacts:write-approval", true)
		end := mine.next()
		if e, _ := end["error"].(map[string]any); end["id"] != "l1" || !strings.Contains(fmt.Sprint(e["message"]), "revoked") {
			t.Errorf("revoked: got %v, want the end of the stream with the reason", end)
		}
		if more := mine.next(); more != nil {
			t.Errorf("after the end: got %v", more)
		}
	})
}

// However a credential ends, on whichever node, its streams end.
func TestListenEndsWithItsCredential(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		key := func(g access.Grant) access.Key {
			t.Helper()
			k, err := w.db.Key(t.Context(), w.workspace.ID, g.Principal.ID, false)
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		for _, tt := range []struct {
			how, why string
			end      func(g access.Grant) error
		}{
			{"deleted", "not valid", func(g access.Grant) error { return w.db.DeleteKey(t.Context(), w.workspace.ID, g.Principal.ID) }},
			{"over", "expired", func(g access.Grant) error {
				k := key(g)
				k.ExpiresAt = time.Now().Add(-time.Second)
				return w.db.UpdateKey(t.Context(), k)
			}},
			{"rotated", "rotated", func(g access.Grant) error {
				return w.db.RotateKey(t.Context(), key(g), access.NewSecret().Hash(), time.Now().Add(-time.Second), time.Now())
			}},
			{"plan", "Pro plan", func(access.Grant) error {
				free := w.workspace
				free.Plan = access.Free
				return w.db.UpdateWorkspace(t.Context(), free)
			}},
		} {
			token, grant := w.key(access.Key{}, "contacts:write-approval")
			_, e := modernCall(token, "create_contact", `{"first_name":"Ada"}`, takesTasks).over(t, w.url)
			id, _ := result(t, e)["taskId"].(string)
			l := modern(token, 1, "subscriptions/listen", fmt.Sprintf(`"notifications":{"toolsListChanged":true,"taskIds":[%q]}`, id), takesTasks).listen(t, w.url)
			l.next()
			if err := tt.end(grant); err != nil {
				t.Fatal(err)
			}
			end := l.next()
			if e, _ := end["error"].(map[string]any); !strings.Contains(fmt.Sprint(e["message"]), tt.why) {
				t.Errorf("%s: got %v, want the end and %q", tt.how, end, tt.why)
			}
			if more := l.next(); more != nil {
				t.Errorf("%s: after the end: got %v", tt.how, more)
			}
		}
	})
}

func TestListenFollowsTasks(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		token, _ := w.key(access.Key{}, "contacts:write-approval")
		other, _ := w.key(access.Key{}, "contacts:write-approval")
		_, decider := w.key(access.Key{FullAccess: true, MayDecide: true}, "")
		made := func(name string) string {
			_, e := modernCall(token, "create_contact", fmt.Sprintf(`{"first_name":%q}`, name), takesTasks).over(t, w.url)
			return result(t, e)["taskId"].(string)
		}
		over, id := made("Ada"), made("Bob")
		if _, err := w.gate.Reject(t.Context(), decider, over, "No."); err != nil {
			t.Fatal(err)
		}
		follow := func(token string, ids ...string) post {
			return modern(token, 1, "subscriptions/listen", fmt.Sprintf(`"notifications":{"taskIds":["%s"]}`, strings.Join(ids, `","`)), takesTasks)
		}
		l := follow(token, over, id).listen(t, w.url)
		l.next()
		task := func() map[string]any {
			m := l.next()
			if m["method"] != "notifications/tasks" {
				t.Errorf("got %v, want how a task stands", m)
			}
			params, _ := m["params"].(map[string]any)
			return params
		}
		want(t, task(), map[string]any{"taskId": over, "status": "completed"}) // it was over before
		if _, err := w.gate.Approve(t.Context(), decider, id, approvals.Seen{}); err != nil {
			t.Fatal(err)
		}
		told := task()
		for told["status"] == "working" { // a decision may be told before its execution
			told = task()
		}
		want(t, told, map[string]any{"taskId": id, "status": "completed"})
		if r, _ := told["result"].(map[string]any); r["content"] == nil {
			t.Errorf("got %v, want the result with it", told)
		}
		if status, e := follow(other, id).over(t, w.url); status != 400 || e.Error == nil || e.Error.Code != -32602 {
			t.Errorf("another's task: got %d %+v, want it not known", status, e.Error)
		}
		p := follow(token, id)
		p.body = strings.Replace(p.body, takesTasks, "{}", 1)
		if status, e := p.over(t, w.url); status != 400 || e.Error == nil || e.Error.Code != -32021 {
			t.Errorf("without the extension: got %d %+v, want -32021", status, e.Error)
		}
	})
}

func TestListenIsBounded(t *testing.T) {
	w := newWorld(t, t.TempDir()+"/test.db")
	token, _ := w.key(access.Key{}, "contacts:read")
	other, _ := w.key(access.Key{}, "contacts:read")
	var open []*listener
	for range 32 {
		l := listenTools(token, "").listen(t, w.url)
		l.next()
		open = append(open, l)
	}
	if status, e := listenTools(token, "").over(t, w.url); status != 429 || e.Error == nil || !strings.Contains(e.Error.Message, "32 streams") {
		t.Errorf("one more: got %d %+v, want 429 and how many there are", status, e.Error)
	}
	listenTools(other, "").listen(t, w.url).next() // others have their own

	begun := time.Now()
	w.server.Close()
	for _, l := range open {
		if m := l.next(); m["result"] == nil {
			t.Errorf("the server closes: got %v, want the stream's result", m)
		}
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestListenIsOfItsVersion(t *testing.T) {
	s := newServer(t, &gate{})
	if e := envelopeOf(t, old("full", "subscriptions/listen", `"notifications":{}`).do(s)); e.Error == nil || e.Error.Code != -32601 {
		t.Errorf("in 2025-11-25: got %+v, want method not found", e.Error)
	}
	for params, code := range map[string]int{``: -32602, `"notifications":7`: -32602, `"notifications":{"taskIds":7}`: -32602} {
		if w := modern("full", 1, "subscriptions/listen", params, takesTasks).do(s); w.Code != 400 || envelopeOf(t, w).Error.Code != code {
			t.Errorf("%q: got %d %s, want 400 and %d", params, w.Code, w.Body, code)
		}
	}
	w := modern("full", 1, "subscriptions/listen", `"notifications":{"promptsListChanged":true}`, "").do(s)
	if !strings.Contains(w.Body.String(), `"notifications":{}`) || !strings.Contains(w.Body.String(), `"result":`) {
		t.Errorf("nothing that is offered: got %s, want an empty acknowledgement and the end", w.Body)
	}
}
