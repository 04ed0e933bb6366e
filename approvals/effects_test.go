package approvals_test

import (
	"testing"

	"trustpager/approvals"
)

// A record may have a field status of its own, which says nothing about what has
// come to pass outside.
func TestStatusOfARecordIsNoOutcome(t *testing.T) {
	eachWorld(t, func(w *world) {
		for _, status := range []string{"queued", "written", "bounced"} {
			a := w.ask(w.key("vaults:write-approval"), "create_vault", "", `{"name":"`+status+`","status":"`+status+`"}`)
			done, err := w.gate.Approve(t.Context(), w.admin(), a.ID, approvals.Seen{})
			w.must(err)
			if ans := w.gate.Answer(done); ans.Status != "executed" || !ans.Executed {
				t.Errorf("a record of the status %s: got %s, executed %t, want it executed", status, ans.Status, ans.Executed)
			}
			if v := w.gate.View(done); v.Outside != "" {
				t.Errorf("a record of the status %s: got outside %q, want nothing", status, v.Outside)
			}
		}
	})
}
