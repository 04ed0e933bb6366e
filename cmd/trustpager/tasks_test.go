package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"trustpager/storage/storagetest"
)

const taskClient = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},` +
	`"io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}`

// mcp sends a request of 2026-07-28, from a client that takes tasks.
func (p *process) mcp(ctx context.Context, key, method, name, params string) *http.Response {
	p.t.Helper()
	r, err := http.NewRequestWithContext(ctx, "POST", p.info.MCPURL, strings.NewReader(
		fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":{%s,%s}}`, method, params, taskClient)))
	if err != nil {
		p.t.Fatal(err)
	}
	for k, v := range map[string]string{"Authorization": "Bearer " + key, "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
		"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": method, "Mcp-Name": name} {
		if v != "" {
			r.Header.Set(k, v)
		}
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp
}

func (p *process) task(key, method, name, params string) map[string]any {
	p.t.Helper()
	resp := p.mcp(p.t.Context(), key, method, name, params)
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	var v map[string]any
	if err := json.Unmarshal(body, &v); err != nil || v["error"] != nil {
		p.t.Fatalf("%s: got %d %s", method, resp.StatusCode, body)
	}
	return v["result"].(map[string]any)
}

// A task is acknowledged by a node that is then killed; another one tells how it
// stands, follows it, and has its result when a person has approved it.
func TestTaskSurvivesTheNodeThatMadeIt(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		first := demo(t, url)
		agent, full := first.info.Keys.Agent, first.info.Keys.FullAccess
		second := serveBeside(t, url)
		made := first.task(agent, "tools/call", "create_contact", `"name":"create_contact","arguments":{"first_name":"Ada","email":"task@example.com"}`)
		id, _ := made["taskId"].(string)
		if made["resultType"] != "task" || id == "" {
			t.Fatalf("got %v, want a task", made)
		}
		first.kill()

		about := fmt.Sprintf(`"taskId":%q`, id)
		if got := second.task(agent, "tasks/get", id, about); got["status"] != "working" {
			t.Errorf("on the other node: got %v, want it working", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		stream := second.mcp(ctx, agent, "subscriptions/listen", "", fmt.Sprintf(`"notifications":{"taskIds":[%q]}`, id))
		defer stream.Body.Close()
		lines := bufio.NewScanner(stream.Body)
		for lines.Scan() && !strings.Contains(lines.Text(), "acknowledged") {
		}
		second.must(200, "POST", "/v1/approvals/"+id+"/approve", full, "{}")
		told := false
		for !told && lines.Scan() {
			told = strings.Contains(lines.Text(), `"status":"completed"`)
		}
		if !told {
			t.Errorf("the stream ended without the outcome: %v", lines.Err())
		}
		cancel()
		got := second.task(agent, "tasks/get", id, about)
		if got["status"] != "completed" || !strings.Contains(fmt.Sprint(got["result"]), "executed:true") {
			t.Errorf("approved: got %v, want it completed with its result", got)
		}
		if n := len(second.list("/v1/contacts?email=task@example.com", full)); n != 1 {
			t.Errorf("got %d contacts, want one", n)
		}
	})
}

// A server with listeners on it ends at once.
func TestShutdownDoesNotWaitForListeners(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, url string) {
		p := demo(t, url)
		var open []*http.Response
		for range 20 {
			resp := p.mcp(t.Context(), p.info.Keys.Agent, "subscriptions/listen", "", `"notifications":{"toolsListChanged":true}`)
			defer resp.Body.Close()
			if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "event: message\n" {
				t.Fatalf("got %q, %v, want the acknowledgement", line, err)
			}
			open = append(open, resp)
		}
		begun := time.Now()
		if code := p.stop(); code != 0 {
			t.Errorf("exit status %d", code)
		}
		t.Logf("%d listeners, ended after %v", len(open), time.Since(begun))
	})
}
