package mcp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/storage/storagetest"
	"trustpager/typeid"
)

func TestTaskOf2026IsTheApproval(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		token, _ := w.key(access.Key{}, "contacts:write-approval")
		other, _ := w.key(access.Key{}, "contacts:write-approval")
		_, decider := w.key(access.Key{FullAccess: true, MayDecide: true}, "")
		ask := func(name, client string) map[string]any {
			t.Helper()
			_, e := modernCall(token, "create_contact", fmt.Sprintf(`{"first_name":%q}`, name), client).over(t, w.url)
			return result(t, e)
		}
		get := func(token, id string) map[string]any {
			t.Helper()
			_, e := modern(token, 2, "tasks/get", fmt.Sprintf(`"taskId":%q`, id), takesTasks).over(t, w.url)
			return result(t, e)
		}

		if got := ask("Ada", ""); got["resultType"] != "complete" || got["taskId"] != nil || got["content"] == nil {
			t.Errorf("a client that takes no tasks: got %v, want a result", got)
		}
		made := ask("Bob", takesTasks)
		want(t, made, map[string]any{"resultType": "task", "status": "working", "ttlMs": nil, "pollIntervalMs": 5000})
		id, _ := made["taskId"].(string)
		if made["result"] != nil || made["task"] != nil || !strings.HasPrefix(id, "apr_") {
			t.Fatalf("got %v, want a flat task", made)
		}
		want(t, get(token, id), map[string]any{"resultType": "complete", "taskId": id, "status": "working", "result": nil})

		if _, err := w.gate.Approve(t.Context(), decider, id, approvals.Seen{}); err != nil {
			t.Fatal(err)
		}
		done := get(token, id)
		want(t, done, map[string]any{"status": "completed"})
		r, _ := done["result"].(map[string]any)
		structured, _ := r["structuredContent"].(map[string]any)
		want(t, structured, map[string]any{"status": "executed", "executed": true})
		want(t, r, map[string]any{"resultType": "complete", "isError": nil})

		id = ask("Cid", takesTasks)["taskId"].(string)
		if _, err := w.gate.Reject(t.Context(), decider, id, "We have him."); err != nil {
			t.Fatal(err)
		}
		done = get(token, id)
		r, _ = done["result"].(map[string]any)
		if done["status"] != "completed" || r["isError"] != true || !strings.Contains(fmt.Sprint(r["content"]), "We have him.") {
			t.Errorf("rejected: got %v, want a completed task with an error and the reason", done)
		}

		id = ask("Dan", takesTasks)["taskId"].(string)
		for range 2 { // the second time it is over, which is no error
			_, e := modern(token, 3, "tasks/cancel", fmt.Sprintf(`"taskId":%q`, id), takesTasks).over(t, w.url)
			if got := result(t, e); len(got) != 1 || got["resultType"] != "complete" {
				t.Errorf("cancel: got %v, want nothing but the acknowledgement", got)
			}
		}
		want(t, get(token, id), map[string]any{"status": "cancelled", "result": nil})
		if a, err := w.db.Approval(t.Context(), w.workspace.ID, id); err != nil || a.Status != approvals.Withdrawn {
			t.Errorf("cancelled: got %v, %v, want it withdrawn", a.Status, err)
		}

		for name, p := range map[string]post{
			"another's task":    modern(other, 4, "tasks/get", fmt.Sprintf(`"taskId":%q`, id), takesTasks),
			"another's cancel":  modern(other, 4, "tasks/cancel", fmt.Sprintf(`"taskId":%q`, id), takesTasks),
			"no such task":      modern(token, 4, "tasks/get", `"taskId":"apr_01890a5dac96774bbcceb302099a8057"`, takesTasks),
			"no id":             modern(token, 4, "tasks/get", `"taskId":"x"`, takesTasks),
			"no taskId":         modern(token, 4, "tasks/get", ``, takesTasks),
			"update without":    modern(token, 4, "tasks/update", fmt.Sprintf(`"taskId":%q`, id), takesTasks),
			"update of another": modern(other, 4, "tasks/update", fmt.Sprintf(`"taskId":%q,"inputResponses":{}`, id), takesTasks),
		} {
			if status, e := p.over(t, w.url); status != 400 || e.Error == nil || e.Error.Code != -32602 {
				t.Errorf("%s: got %d %+v, want 400 and invalid params", name, status, e.Error)
			}
		}
		for method, code := range map[string]int{"tasks/result": -32601, "tasks/list": -32601} {
			if status, e := modern(token, 5, method, fmt.Sprintf(`"taskId":%q`, id), takesTasks).over(t, w.url); status != 404 || e.Error == nil || e.Error.Code != code {
				t.Errorf("%s: got %d %+v, want 404 and %d", method, status, e.Error, code)
			}
		}
		if status, e := modern(token, 6, "tasks/get", fmt.Sprintf(`"taskId":%q`, id), "").over(t, w.url); status != 400 || e.Error == nil || e.Error.Code != -32021 {
			t.Errorf("without the extension: got %d %+v, want 400 and -32021", status, e.Error)
		}
		wrong := modern(token, 7, "tasks/get", fmt.Sprintf(`"taskId":%q`, id), takesTasks)
		for header, value := range map[string]string{"Mcp-Name": "apr_other", "Mcp-Method": "tools/list", "Mcp-Protocol-Version": "2025-11-25"} {
			was := wrong.header[header]
			wrong.header[header] = value
			if status, e := wrong.over(t, w.url); status != 400 || e.Error == nil || e.Error.Code != -32020 {
				t.Errorf("%s: %s: got %d %+v, want 400 and -32020", header, value, status, e.Error)
			}
			wrong.header[header] = was
		}
	})
}

func TestTaskOf2025(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		token, _ := w.key(access.Key{}, "contacts:write-approval deals:write")
		other, _ := w.key(access.Key{}, "contacts:write-approval deals:write")
		_, decider := w.key(access.Key{FullAccess: true, MayDecide: true}, "")
		call := func(name, arguments string) map[string]any {
			t.Helper()
			_, e := old(token, "tools/call", fmt.Sprintf(`"name":%q,"arguments":%s,"task":{"ttl":60000}`, name, arguments)).over(t, w.url)
			made, _ := result(t, e)["task"].(map[string]any)
			return made
		}
		about := func(method, id string) (envelope, map[string]any) {
			t.Helper()
			_, e := old(token, method, fmt.Sprintf(`"taskId":%q`, id)).over(t, w.url)
			var m map[string]any
			json.Unmarshal(e.Result, &m)
			return e, m
		}

		made := call("create_contact", `{"first_name":"Ada"}`)
		want(t, made, map[string]any{"status": "working", "ttl": nil, "pollInterval": 5000})
		id, _ := made["taskId"].(string)
		_, got := about("tasks/get", id)
		want(t, got, map[string]any{"taskId": id, "status": "working"})

		// tasks/result waits for the person.
		results := old(token, "tasks/result", fmt.Sprintf(`"taskId":%q`, id)).listen(t, w.url)
		if _, err := w.gate.Approve(t.Context(), decider, id, approvals.Seen{}); err != nil {
			t.Fatal(err)
		}
		r, _ := results.next()["result"].(map[string]any)
		structured, _ := r["structuredContent"].(map[string]any)
		want(t, structured, map[string]any{"status": "executed"})
		if !strings.Contains(fmt.Sprint(r["_meta"]), id) || r["resultType"] != nil {
			t.Errorf("got %v, want the related task, and nothing of 2026", r)
		}
		_, got = about("tasks/get", id)
		want(t, got, map[string]any{"status": "completed"})

		// What runs at once is a task all the same, on every node.
		made = call("create_deal", `{"title":"Offer"}`)
		want(t, made, map[string]any{"status": "failed"}) // the pipeline is missing
		_, got = about("tasks/result", made["taskId"].(string))
		if got["isError"] != true || !strings.Contains(fmt.Sprint(got["content"]), "pipeline_id") {
			t.Errorf("got %v, want what was wrong", got)
		}

		rejected := call("create_contact", `{"first_name":"Bob"}`)["taskId"].(string)
		if _, err := w.gate.Reject(t.Context(), decider, rejected, "No."); err != nil {
			t.Fatal(err)
		}
		_, got = about("tasks/get", rejected)
		want(t, got, map[string]any{"status": "failed"})

		cancelled := call("create_contact", `{"first_name":"Cid"}`)["taskId"].(string)
		_, got = about("tasks/cancel", cancelled)
		want(t, got, map[string]any{"status": "cancelled"})
		if e, _ := about("tasks/cancel", cancelled); e.Error == nil || e.Error.Code != -32602 {
			t.Errorf("cancelled twice: got %+v, want invalid params", e.Error)
		}
		if _, got = about("tasks/result", cancelled); got["isError"] != true {
			t.Errorf("the result of what was cancelled: got %v, want an error", got)
		}

		_, e := old(token, "tasks/list", "").over(t, w.url)
		list, _ := result(t, e)["tasks"].([]any)
		var ids []string
		for _, each := range list {
			ids = append(ids, each.(map[string]any)["taskId"].(string))
		}
		if len(ids) != 4 || ids[0] != cancelled || ids[1] != rejected || ids[3] != id {
			t.Errorf("list: got %v, want four, newest first", ids)
		}
		if _, e := old(other, "tasks/list", "").over(t, w.url); len(result(t, e)["tasks"].([]any)) != 0 {
			t.Error("another's list has tasks that are not its own")
		}
		for _, method := range []string{"tasks/get", "tasks/result", "tasks/cancel"} {
			for _, id := range []string{id, made["taskId"].(string)} {
				if _, e := old(other, method, fmt.Sprintf(`"taskId":%q`, id)).over(t, w.url); e.Error == nil || e.Error.Code != -32602 {
					t.Errorf("%s of another's %s: got %+v, want it not known", method, id, e.Error)
				}
			}
		}
		if _, e := old(token, "tools/call", `"name":"list_contacts","arguments":{},"task":{}`).over(t, w.url); e.Error == nil || e.Error.Code != -32601 {
			t.Errorf("a tool that reads, as a task: got %+v, want it refused", e.Error)
		}
		older := old(token, "tools/call", `"name":"create_contact","arguments":{"first_name":"Dan"},"task":{}`)
		older.header["Mcp-Protocol-Version"] = "2025-06-18"
		if _, e := older.over(t, w.url); result(t, e)["task"] != nil {
			t.Errorf("a client of an older version got a task: %s", e.Result)
		}
	})
}

// Whoever has lost the right to know, or all rights, is told nothing more.
func TestTasksAreToldToWhoMayStillKnow(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		token, grant := w.key(access.Key{}, "contacts:write deals:write-approval")
		_, decider := w.key(access.Key{FullAccess: true, MayDecide: true}, "")
		set := func(edit func(k *access.Key)) {
			t.Helper()
			k, err := w.db.Key(t.Context(), w.workspace.ID, grant.Principal.ID, false)
			if err != nil {
				t.Fatal(err)
			}
			edit(&k)
			if err := w.db.UpdateKey(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		}
		call := func(name, arguments string) string {
			t.Helper()
			_, e := old(token, "tools/call", fmt.Sprintf(`"name":%q,"arguments":%s,"task":{}`, name, arguments)).over(t, w.url)
			return result(t, e)["task"].(map[string]any)["taskId"].(string)
		}
		answer := func(id string) string {
			t.Helper()
			_, e := old(token, "tasks/result", fmt.Sprintf(`"taskId":%q`, id)).over(t, w.url)
			return fmt.Sprint(result(t, e)["content"], result(t, e)["structuredContent"])
		}
		ran := call("create_contact", `{"first_name":"Ada"}`)
		if got := answer(ran); !strings.Contains(got, "Ada") {
			t.Fatalf("got %s, want the contact", got)
		}
		set(func(k *access.Key) { k.Scopes, _ = access.ParseScopes("deals:write-approval") })
		if got := answer(ran); strings.Contains(got, "Ada") || !strings.Contains(got, "not told") {
			t.Errorf("without the right to read: got %s, want it not told", got)
		}

		set(func(k *access.Key) { k.Scopes, _ = access.ParseScopes("contacts:write-approval") })
		waits := call("create_contact", `{"first_name":"Bob"}`)
		results := old(token, "tasks/result", fmt.Sprintf(`"taskId":%q`, waits)).listen(t, w.url)
		set(func(k *access.Key) { k.RevokedAt = time.Now() })
		if _, err := w.gate.Reject(t.Context(), decider, waits, "Bob is known."); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(results.next()); strings.Contains(got, "Bob") || !strings.Contains(got, "revoked") {
			t.Errorf("revoked while it waited: got %s, want why it ends", got)
		}
	})
}

// Not even an admin's key has the tasks of others, whom it may see the approvals of,
// and no workspace has those of another.
func TestTasksAreNobodyElses(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		token, _ := w.key(access.Key{}, "contacts:write")
		queues, _ := w.key(access.Key{}, "contacts:write-approval")
		admin, _ := w.key(access.Key{FullAccess: true, MayDecide: true}, "")
		far := *w
		far.workspace.ID = typeid.NewID("ws")
		if err := w.db.CreateWorkspace(t.Context(), far.workspace); err != nil {
			t.Fatal(err)
		}
		stranger, _ := far.key(access.Key{FullAccess: true, MayDecide: true}, "")
		made := func(token string) string {
			t.Helper()
			_, e := old(token, "tools/call", `"name":"create_contact","arguments":{"first_name":"Ada"},"task":{}`).over(t, w.url)
			return result(t, e)["task"].(map[string]any)["taskId"].(string)
		}
		ran, waits := made(token), made(queues)
		for who, other := range map[string]string{"admin": admin, "stranger": stranger} {
			for _, id := range []string{ran, waits} {
				for _, p := range []post{
					old(other, "tasks/get", fmt.Sprintf(`"taskId":%q`, id)),
					old(other, "tasks/result", fmt.Sprintf(`"taskId":%q`, id)),
					old(other, "tasks/cancel", fmt.Sprintf(`"taskId":%q`, id)),
					modern(other, 1, "tasks/get", fmt.Sprintf(`"taskId":%q`, id), takesTasks),
					modern(other, 1, "tasks/cancel", fmt.Sprintf(`"taskId":%q`, id), takesTasks),
					modern(other, 1, "tasks/update", fmt.Sprintf(`"taskId":%q,"inputResponses":{}`, id), takesTasks),
					modern(other, 1, "subscriptions/listen", fmt.Sprintf(`"notifications":{"taskIds":[%q]}`, id), takesTasks),
				} {
					if _, e := p.over(t, w.url); e.Error == nil || e.Error.Code != -32602 || strings.Contains(e.Error.Message, "over") {
						t.Errorf("%s: %.90s: got %s %+v, want that there is no such task", who, p.body, e.Result, e.Error)
					}
				}
			}
			if _, e := old(other, "tasks/list", "").over(t, w.url); len(result(t, e)["tasks"].([]any)) != 0 {
				t.Errorf("%s: got %s, want no tasks", who, e.Result)
			}
		}
		if a, err := w.db.Approval(t.Context(), w.workspace.ID, waits); err != nil || a.Status != approvals.Pending {
			t.Errorf("got %v, %v, want it still pending", a.Status, err)
		}
	})
}

// A leaving gate ends the rights of who waits.
type leavingGate struct {
	*gate
	leave func()
}

func (g leavingGate) Wait(ctx context.Context, of access.Grant, id string) (approvals.Approval, error) {
	g.leave()
	return g.gate.Wait(ctx, of, id)
}

func TestWhoIsRevokedWhileItWaitsIsNotTold(t *testing.T) {
	s := newServer(t, leavingGate{&gate{approvals: map[string]approvals.Approval{
		"apr_1": {ID: "apr_1", Status: approvals.Rejected, DecisionReason: "Bob is known."}}}, func() { delete(grants, "leaver") }})
	for _, p := range []post{
		{body: callBody("wait_for_approval", `{"id":"apr_1"}`)},
		modernCall("", "wait_for_approval", `{"id":"apr_1"}`, ""),
	} {
		grants["leaver"] = grantOf("key_leaver", "contacts:write-approval")
		p.token = "leaver"
		w := p.do(s)
		if w.Code != 401 || strings.Contains(w.Body.String(), "Bob") || !strings.Contains(w.Header().Get("WWW-Authenticate"), "invalid_token") {
			t.Errorf("got %d %q %s, want 401 with the challenge", w.Code, w.Header().Get("WWW-Authenticate"), w.Body)
		}
	}
}

// What is shown once is not kept for a client that comes back for it.
func TestSecretsBecomeNoTasks(t *testing.T) {
	var once json.RawMessage
	g := &gate{do: func(context.Context, access.Grant, *catalog.Action, approvals.Incoming) (approvals.Outcome, error) {
		return approvals.Outcome{Result: catalog.Result{Data: json.RawMessage(`{"id":"whs_1"}`), Once: once}}, nil
	}}
	s := newServer(t, g)
	call := func() map[string]any {
		t.Helper()
		return result(t, envelopeOf(t, old("full", "tools/call", `"name":"create_webhook","arguments":{},"task":{}`).do(s)))
	}
	if got := call(); got["task"] == nil || len(g.kept) != 1 {
		t.Errorf("without a secret: got %v and %d kept, want a task", got, len(g.kept))
	}
	once = json.RawMessage(`{"secret":"whsec_x"}`)
	if got := call(); got["task"] != nil || len(g.kept) != 1 || !strings.Contains(fmt.Sprint(got["content"]), "whsec_x") {
		t.Errorf("with a secret: got %v and %d kept, want it shown and not kept", got, len(g.kept))
	}
}

func TestTasksGoThroughManyPages(t *testing.T) {
	storagetest.EachURL(t, testManyTasks)
}

func testManyTasks(t *testing.T, url string) {
	w := newWorld(t, url)
	token, grant := w.key(access.Key{}, "contacts:write-approval deals:write")
	const n = 120
	for i := range n {
		if i%2 == 0 {
			if err := w.gate.KeepTask(t.Context(), approvals.Task{ID: typeid.NewID("tsk"), Workspace: w.workspace.ID, Credential: grant.Principal.ID,
				Action: "create_deal", Answer: json.RawMessage(`{"content":[]}`), CreatedAt: time.Now()}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		old(token, "tools/call", fmt.Sprintf(`"name":"create_contact","arguments":{"first_name":"C%d"}`, i)).over(t, w.url)
	}
	seen, cursor := map[string]bool{}, ""
	for range 5 {
		_, e := old(token, "tasks/list", `"cursor":"`+cursor+`"`).over(t, w.url)
		page := result(t, e)
		for _, each := range page["tasks"].([]any) {
			seen[each.(map[string]any)["taskId"].(string)] = true
		}
		if cursor, _ = page["nextCursor"].(string); cursor == "" {
			break
		}
	}
	// One answer too many is given at once: what was asked for is done.
	for range approvals.MaxTasks - n/2 {
		if err := w.gate.KeepTask(t.Context(), approvals.Task{ID: typeid.NewID("tsk"), Workspace: w.workspace.ID, Credential: grant.Principal.ID,
			Action: "create_deal", Answer: json.RawMessage(`{"content":[]}`), CreatedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	_, e := old(token, "tools/call", `"name":"create_deal","arguments":{"title":"Offer"},"task":{}`).over(t, w.url)
	if got := result(t, e); got["task"] != nil || !strings.Contains(fmt.Sprint(got["content"]), "pipeline_id") {
		t.Errorf("one too many: got %v, want the answer itself", got)
	}
	if len(seen) != n/2+approvals.MaxOpen || cursor != "" {
		t.Errorf("got %d tasks and the cursor %q, want all %d", len(seen), cursor, n/2+approvals.MaxOpen)
	}
}
