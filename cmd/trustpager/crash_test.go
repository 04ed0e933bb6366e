package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"trustpager/storage/storagetest"
)

// What the callers of a server know for certain, because it was acknowledged.
type known struct {
	mu       sync.Mutex
	created  map[string]bool // e-mail addresses of contacts that were made at once
	queued   map[string]string
	approved map[string]string // approval → e-mail address
	rejected map[string]bool   // approvals
}

// The server is killed in the middle of creating, deciding and delivering, and
// started again, over and over. Nothing that was acknowledged is lost, nothing
// runs twice, and every rejection reaches its webhook.
//
// TRUSTPAGER_TEST_KILLS says how often.
func TestKilledServerLosesNothingAndRepeatsNothing(t *testing.T) {
	kills := 6
	if testing.Short() {
		kills = 2 // what is killed runs no faster under the race detector
	}
	if n, err := strconv.Atoi(os.Getenv("TRUSTPAGER_TEST_KILLS")); err == nil {
		kills = n
	}
	storagetest.EachURL(t, func(t *testing.T, url string) {
		hook, got := receiver(t)
		k := &known{created: map[string]bool{}, queued: map[string]string{}, approved: map[string]string{}, rejected: map[string]bool{}}
		delivered := map[string]string{} // approval → webhook-id
		collect := func(m told) {
			var event map[string]any
			if err := json.Unmarshal(m.body, &event); err != nil {
				t.Errorf("webhook: %v", err)
				return
			}
			approval, id := text(event, "data", "approval", "id"), m.header.Get("webhook-id")
			if first, ok := delivered[approval]; ok && first != id {
				t.Errorf("the rejection of %s was delivered under %s and %s, want one id", approval, first, id)
			}
			delivered[approval] = id
		}
		for round := range kills {
			p := demo(t, url)
			if round == 0 {
				keyID := text(p.must(200, "GET", "/v1/me", p.info.Keys.Agent, ""), "data", "key", "id")
				p.must(200, "PATCH", "/v1/keys/"+keyID, p.info.Keys.FullAccess, `{"webhook_url":"`+hook+`"}`)
			}
			k.work(p, round, 20+rand.IntN(100))
			p.kill()
		}
		// Ten minutes later, when the leases of the killed have run out.
		t.Setenv(clockAhead, "10m")
		p := demo(t, url)
		full := p.info.Keys.FullAccess
		for email := range k.created {
			if n := len(p.list("/v1/contacts?email="+email, full)); n != 1 {
				t.Errorf("contact %s was acknowledged: got %d, want 1", email, n)
			}
		}
		for id, email := range k.approved {
			a := p.must(200, "GET", "/v1/approvals/"+id, full, "")
			if text(a, "data", "status") != "approved" || text(a, "data", "execution") != "done" {
				t.Errorf("approval %s was acknowledged: got %v, want approved and done", id, a)
			}
			if n := len(p.list("/v1/contacts?email="+email, full)); n != 1 {
				t.Errorf("contact %s was approved: got %d, want 1", email, n)
			}
		}
		for id := range k.queued {
			p.must(200, "GET", "/v1/approvals/"+id, full, "")
		}
		// Whatever was decided, acknowledged or not, ran as often as it says.
		rejections := map[string]bool{}
		for _, a := range p.list("/v1/approvals", full) {
			email := text(a, "input", "email")
			if text(a, "action") != "create_contact" || email == "priya.nair@mail.example" {
				continue
			}
			want := 0
			switch text(a, "status") {
			case "approved":
				want = 1
			case "rejected":
				rejections[text(a, "id")] = true
			}
			if n := len(p.list("/v1/contacts?email="+email, full)); n != want {
				t.Errorf("approval %s is %s: got %d contacts, want %d", text(a, "id"), text(a, "status"), n, want)
			}
		}
		for id := range k.rejected {
			if !rejections[id] {
				t.Errorf("approval %s: its rejection was acknowledged and is lost", id)
			}
		}
		for len(delivered) < len(rejections) {
			collect(next(t, got))
		}
		if v := p.must(200, "GET", "/v1/audit/verify", full, ""); member(v, "data", "sound") != true {
			t.Errorf("audit log: got %v, want it sound", v)
		}
		t.Logf("%d kills: %d created, %d queued, %d approved, %d rejected, %d delivered",
			kills, len(k.created), len(k.queued), len(k.approved), len(k.rejected), len(delivered))
	})
}

// work lets eight callers create, queue and decide, and kills the server once
// so many requests were answered.
func (k *known) work(p *process, round, requests int) {
	var answered, n atomic.Int64
	var done sync.WaitGroup
	for caller := range 8 {
		done.Go(func() {
			for i := 0; ; i++ {
				email := fmt.Sprintf("r%d.c%d.n%d@example.com", round, caller, n.Add(1))
				if !k.step(p, email, i%3) {
					return
				}
				if answered.Add(1) == int64(requests) {
					p.cmd.Process.Kill()
					return
				}
			}
		})
	}
	done.Wait()
}

// step makes one contact: at once, or by an approval that is approved or
// rejected. It reports false once the server is gone.
func (k *known) step(p *process, email string, kind int) bool {
	body := `{"first_name":"Crash","email":"` + email + `"}`
	full, agent := p.info.Keys.FullAccess, p.info.Keys.Agent
	if kind == 0 {
		status, _, err := p.send("POST", "/v1/contacts", full, body)
		if err == nil && status == 201 {
			k.mu.Lock()
			k.created[email] = true
			k.mu.Unlock()
		}
		return err == nil
	}
	status, v, err := p.send("POST", "/v1/contacts", agent, body)
	if err != nil || status != 202 {
		return err == nil
	}
	id := text(v, "approval", "id")
	k.mu.Lock()
	k.queued[id] = email
	k.mu.Unlock()
	if kind == 1 {
		status, _, err = p.send("POST", "/v1/approvals/"+id+"/approve", full, "{}")
	} else {
		status, _, err = p.send("POST", "/v1/approvals/"+id+"/reject", full, `{"reason":"crash test"}`)
	}
	if err == nil && status == 200 {
		k.mu.Lock()
		if kind == 1 {
			k.approved[id] = email
		} else {
			k.rejected[id] = true
		}
		k.mu.Unlock()
	}
	return err == nil
}
