package main

import (
	"fmt"
	"sync"
	"testing"

	"trustpager/storage/storagetest"
)

// Sixteen deciders go for each approval at once, over two processes on one
// database: half of them approve, half reject. One wins, and the action runs
// once or not at all.
func TestDecidersOverTwoProcessesOnlyOneWins(t *testing.T) {
	const approvals, deciders = 15, 16
	storagetest.EachURL(t, func(t *testing.T, url string) {
		first := demo(t, url)
		full := first.info.Keys.FullAccess
		agent := first.info.Keys.Agent
		second := serveBeside(t, url)

		for i := range approvals {
			email := fmt.Sprintf("race%d@example.com", i)
			id := text(first.must(202, "POST", "/v1/contacts", agent, `{"first_name":"Race","email":"`+email+`"}`), "approval", "id")
			var mu sync.Mutex
			var done sync.WaitGroup
			won := map[string]int{}
			for d := range deciders {
				p := []*process{first, second}[d%2]
				path, body := "/approve", "{}"
				if d/2%2 == 1 {
					path, body = "/reject", `{"reason":"race"}`
				}
				done.Go(func() {
					status, v, err := p.send("POST", "/v1/approvals/"+id+path, full, body)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err != nil || status != 200 && status != 409:
						t.Errorf("decide: got %d %v %v, want 200 or 409", status, v, err)
					case status == 200:
						won[path]++
					}
				})
			}
			done.Wait()
			if won["/approve"]+won["/reject"] != 1 {
				t.Errorf("winners: got %v, want one", won)
			}
			if n := len(second.list("/v1/contacts?email="+email, full)); n != won["/approve"] {
				t.Errorf("contacts after %v: got %d, want %d", won, n, won["/approve"])
			}
		}
		if v := first.must(200, "GET", "/v1/audit/verify", full, ""); member(v, "data", "sound") != true {
			t.Errorf("audit log: got %v, want it sound", v)
		}
	})
}

// serveBeside starts a second server on the database of a first one.
func serveBeside(t *testing.T, url string) *process {
	t.Helper()
	return launch(t, url, "serve", "--json", "--listen", "127.0.0.1:0", "--allow-webhook-net", "127.0.0.0/8")
}
