package mcp_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/storage/storagetest"
)

// said calls a tool and returns its texts: the answer, and the trailer or "".
func said(t *testing.T, url, token, name, arguments string) (text, trailer string) {
	t.Helper()
	_, e := old(token, "tools/call", fmt.Sprintf(`"name":%q,"arguments":%s`, name, arguments)).over(t, url)
	content, _ := result(t, e)["content"].([]any)
	for i, each := range content {
		s, _ := each.(map[string]any)["text"].(string)
		if i == 0 {
			text = s
		} else {
			trailer += s
		}
	}
	return text, trailer
}

func TestTrailerTellsHowEarlierRequestsStand(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		token, _ := w.key(access.Key{}, "contacts:write-approval")
		other, _ := w.key(access.Key{}, "contacts:write-approval")
		_, decider := w.key(access.Key{FullAccess: true, MayDecide: true}, "")
		ask := func(name string) (id, trailer string) {
			t.Helper()
			text, trailer := said(t, w.url, token, "create_contact", fmt.Sprintf(`{"first_name":%q}`, name))
			_, id, _ = strings.Cut(text, "approval: ")
			id, _, _ = strings.Cut(id, "\n")
			return id, trailer
		}
		read := func() string {
			t.Helper()
			_, trailer := said(t, w.url, token, "list_contacts", `{}`)
			return trailer
		}

		if got := read(); got != "" {
			t.Errorf("nothing was asked: got %q, want nothing", got)
		}
		first, trailer := ask("Ada")
		if trailer != "" {
			t.Errorf("the answer itself says it: got %q besides, want nothing", trailer)
		}
		second, trailer := ask("Bob")
		if !strings.Contains(trailer, "1 earlier action is still NOT executed: create_contact ("+first+")") {
			t.Errorf("got %q, want the first only", trailer)
		}
		if got := waitTrailer(t, read, second); !strings.Contains(got, "2 earlier actions are still NOT executed: create_contact ("+first+"), create_contact ("+second+")") {
			t.Errorf("got %q, want both", got)
		}
		if _, got := said(t, w.url, other, "list_contacts", `{}`); got != "" {
			t.Errorf("another credential: got %q, want nothing", got)
		}

		if _, err := w.gate.Reject(t.Context(), decider, first, "No."); err != nil {
			t.Fatal(err)
		}
		got := waitTrailer(t, read, "rejected")
		if !strings.Contains(got, "1 was rejected: create_contact ("+first+")") || !strings.Contains(got, "1 earlier action is still NOT executed") {
			t.Errorf("got %q, want what was rejected and what is open", got)
		}
		if got := read() + read(); strings.Contains(got, "was rejected") {
			t.Errorf("once more: got %q, want each outcome once", got)
		}
		if _, err := w.gate.Approve(t.Context(), decider, second, approvals.Seen{}); err != nil {
			t.Fatal(err)
		}
		if text, trailer := said(t, w.url, token, "get_approval", fmt.Sprintf(`{"id":%q}`, second)); trailer != "" || !strings.Contains(text, "status: executed") {
			t.Errorf("got %q and %q, want the outcome in the answer only", text, trailer)
		}
		if got := waitTrailer(t, read, ""); got != "" {
			t.Errorf("what was asked about is told: got %q, want nothing", got)
		}

		text, _ := said(t, w.url, token, "list_my_approvals", `{"status":"rejected"}`)
		if !strings.Contains(text, first) || strings.Contains(text, second) || !strings.Contains(text, `"decision_reason":"No."`) {
			t.Errorf("list_my_approvals: got %s, want the rejected one with its reason", text)
		}
		text, _ = said(t, w.url, token, "list_my_approvals", `{"limit":1}`)
		if !strings.Contains(text, second) || !strings.Contains(text, `"next_cursor":"`+second) {
			t.Errorf("list_my_approvals: got %s, want the newest and a cursor", text)
		}
		if text, _ = said(t, w.url, other, "list_my_approvals", `{}`); !strings.Contains(text, `"data":[]`) {
			t.Errorf("another's list: got %s, want none", text)
		}
		if text, _ = said(t, w.url, token, "list_my_approvals", `{"limit":0,"status":"done","x":1}`); strings.Count(text, "\n- ") != 3 {
			t.Errorf("got %s, want three wrong arguments", text)
		}
	})
}

// What has ended is not used up by an answer that has no room to tell it: a task, or
// a question to the user.
func TestTrailerIsToldWhereThereIsRoom(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		token, _ := w.key(access.Key{}, "contacts:write-approval")
		_, decider := w.key(access.Key{FullAccess: true, MayDecide: true}, "")
		for i, asTask := range []post{
			modernCall(token, "create_contact", `{"first_name":"Bob"}`, takesTasks),
			old(token, "tools/call", `"name":"create_contact","arguments":{"first_name":"Cid"},"task":{}`),
		} {
			_, e := modernCall(token, "create_contact", fmt.Sprintf(`{"first_name":"A%d"}`, i), takesTasks).over(t, w.url)
			id := result(t, e)["taskId"].(string)
			if _, err := w.gate.Reject(t.Context(), decider, id, "No."); err != nil {
				t.Fatal(err)
			}
			asTask.over(t, w.url)
			read := func() string { _, trailer := said(t, w.url, token, "list_contacts", `{}`); return trailer }
			if got := waitTrailer(t, read, "1 was rejected: create_contact ("+id+")"); !strings.Contains(got, "rejected") {
				t.Errorf("%d: got %q, want the rejection", i, got)
			}
		}
	})
}

// waitTrailer reads until the notice of a change has come around, which on
// PostgreSQL takes a moment.
func waitTrailer(t *testing.T, read func() string, want string) string {
	t.Helper()
	for range 1000 {
		if got := read(); want == "" && got == "" || want != "" && strings.Contains(got, want) {
			return got
		}
	}
	return read()
}

// Of many calls at once one tells each outcome, on PostgreSQL of two nodes.
func TestTrailerTellsEachOutcomeOnce(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		token, _ := w.key(access.Key{}, "contacts:write-approval")
		_, decider := w.key(access.Key{FullAccess: true, MayDecide: true}, "")
		const n = 10
		for i := range n {
			said(t, w.url, token, "create_contact", fmt.Sprintf(`{"first_name":"C%d"}`, i))
		}
		list, err := w.db.ListApprovals(t.Context(), w.workspace.ID, approvals.Query{Status: approvals.Pending, Limit: n})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			if _, err := w.gate.Reject(t.Context(), decider, a.ID, "No."); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		told := 0
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 50 {
					_, trailer := said(t, w.url, token, "list_contacts", `{}`)
					mu.Lock()
					if strings.Contains(trailer, "were rejected") || strings.Contains(trailer, "was rejected") {
						told++
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if told != 1 {
			t.Errorf("%d rejections were told by %d answers, want one", n, told)
		}
	})
}

// Of more than is looked at once the rest is told with the next answer, although
// nothing has changed since.
func TestTrailerTellsTheRestWithTheNextAnswer(t *testing.T) {
	w := newWorld(t, t.TempDir()+"/test.db")
	token, grant := w.key(access.Key{}, "contacts:write-approval")
	_, decider := w.key(access.Key{FullAccess: true, MayDecide: true}, "")
	create, _ := w.gate.Catalog.Find("create_contact")
	ask := func(i int) string {
		t.Helper()
		out, err := w.gate.Do(t.Context(), grant, create, approvals.Incoming{Input: fmt.Appendf(nil, `{"first_name":"C%d"}`, i), Request: approvals.Request{Door: "rest"}})
		if err != nil {
			t.Fatal(err)
		}
		return out.Approval.ID
	}
	const most = 100
	for i := range most {
		if _, err := w.gate.Reject(t.Context(), decider, ask(i), "No."); err != nil {
			t.Fatal(err)
		}
	}
	open := ask(most)
	if _, got := said(t, w.url, token, "list_contacts", `{}`); !strings.Contains(got, "100 were rejected") || strings.Contains(got, open) {
		t.Errorf("got %q, want the rejected ones", got)
	}
	if _, got := said(t, w.url, token, "list_contacts", `{}`); !strings.Contains(got, "1 earlier action is still NOT executed: create_contact ("+open+")") {
		t.Errorf("then got %q, want the open one", got)
	}
}
