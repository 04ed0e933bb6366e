package approvals

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/catalog"
	"trustpager/problem"
)

// An Answer tells whoever asked for an action how its approval stands. Each
// way in which it can end has a status of its own, so that waiting, a refusal
// and a failure cannot be taken for each other or for success.
type Answer struct {
	Status   string          `json:"status"` // pending_approval, approved, sending, executed, executed_with_edits, rejected, expired, withdrawn, written, failed, unknown
	Executed bool            `json:"executed"`
	Approval Pointer         `json:"approval"`
	Message  string          `json:"message"`
	Reason   string          `json:"decision_reason,omitempty"` // the decider's
	Data     json.RawMessage `json:"data,omitempty"`            // what the action answered
	Input    json.RawMessage `json:"input,omitempty"`           // if a person edited it: what was asked for
	Edited   json.RawMessage `json:"edited_input,omitempty"`    // and what was done
	Error    *problem.Error  `json:"error,omitempty"`           // of an execution that failed
}

// A Pointer says where an approval is.
type Pointer struct {
	ID        string    `json:"id"`
	URL       string    `json:"url"` // the page for people
	ExpiresAt time.Time `json:"expires_at"`
	Status    Status    `json:"status"`
}

// The fixed sentences of answers: no wording of a caller's can make a model
// believe that something is done.
const (
	pendingMessage = "NOT executed: a person must approve this first. Do not retry it, and do not report it as done. " +
		"Tell the user that it waits for approval, with the url; wait_for_approval tells the outcome."
	adminDecides     = " An admin of the workspace decides."
	ownerDecides     = " The user may decide it themselves."
	rejectedMessage  = "NOT executed: this was rejected, for the reason given. It is final: do not retry it, and do not ask for the same in other words."
	expiredMessage   = "NOT executed: nobody decided before it expired. That is no rejection: ask again only if it is still wanted."
	withdrawnMessage = "NOT executed: the request was taken back before anybody decided. It is final."
	doneMessage      = "Executed: this was approved, and it is done."
	lentMessage      = "Lent: until expires_at, calls of this verb of this resource run at once, as often as uses says. Then they wait again, and it can end before."
	editedMessage    = "Executed with edits: this was approved with other values. What was done is edited_input, not the input that was asked for."
	approvedMessage  = "NOT executed yet: this was approved, and is about to be done. Do not retry it; ask again with get_approval."
	failedMessage    = "NOT executed: this was approved, but it failed with the error given. A person may retry it; do not retry it yourself."
	sendingMessage   = "NOT done yet: this was approved and is on its way outside, where nobody has taken it so far. Do not do it again; " +
		"wait_for_approval tells how it ends."
	writtenMessage = "NOT sent: this was approved, and nothing is connected that it could go out by. Tell the user; an admin connects it."
	unknownMessage = "OUTCOME UNKNOWN: this was approved and tried, and the answer got lost: it may have been done. " +
		"A person looks at it; do not do it again, and do not report it as done."
	bouncedMessage = "HANDED OVER, AND CAME BACK: this was approved and sent, and did not arrive, with the error given. " +
		"A person may retry it; do not retry it yourself."
	unknownDismissedMessage = "OUTCOME UNKNOWN: this was approved and tried, and the answer got lost: it may have been done. " +
		"A person has let it be. Do not do it again unless the user asks for it, and do not report it as done."
	dismissedMessage = "NOT executed: this was approved, it failed with the error given, and a person has let it be. It is final."
)

// Answer returns how the approval stands, with secret fields masked.
func (gate *Gate) Answer(a Approval) Answer {
	ans := Answer{Approval: Pointer{a.ID, gate.URL(a), a.ExpiresAt, a.Status}}
	switch a.Status {
	case Pending:
		ans.Status, ans.Message = "pending_approval", pendingMessage+adminDecides
		if a.Decider == access.DeciderOwner {
			ans.Message = pendingMessage + ownerDecides
		}
	case Rejected:
		ans.Status, ans.Message, ans.Reason = "rejected", rejectedMessage, a.DecisionReason
	case Expired:
		ans.Status, ans.Message = "expired", expiredMessage
	case Withdrawn:
		ans.Status, ans.Message = "withdrawn", withdrawnMessage
	case Approved:
		gate.answerExecution(&ans, a)
	}
	return ans
}

// answerExecution tells what became of an approved action: approved and
// executed are different facts, stored by the same transaction.
func (gate *Gate) answerExecution(ans *Answer, a Approval) {
	switch a.Execution {
	case Done:
		switch gate.Outside(a) {
		case catalog.Queued:
			ans.Status, ans.Message, ans.Data = "sending", sendingMessage, a.Result
			return
		case catalog.Written:
			ans.Status, ans.Message, ans.Data = "written", writtenMessage, a.Result
			return
		}
		ans.Status, ans.Message, ans.Executed, ans.Data = "executed", doneMessage, true, a.Result
		if gate.asksForLoan(a) {
			ans.Message = lentMessage
		}
		if a.Edited != nil {
			ans.Status, ans.Message = "executed_with_edits", editedMessage
			ans.Input, ans.Edited = gate.mask(a, a.Input), gate.mask(a, a.Edited)
		}
	case NotExecuted:
		ans.Status, ans.Message = "approved", approvedMessage
	case Dismissed:
		ans.Status, ans.Message, ans.Error = "failed", dismissedMessage, a.Error
		if a.Error != nil && a.Error.Kind == problem.Unknown {
			ans.Status, ans.Message = "unknown", unknownDismissedMessage
		}
	default:
		ans.Status, ans.Message, ans.Error = "failed", failedMessage, a.Error
		if a.Error != nil && a.Error.Kind == problem.Unknown {
			ans.Status, ans.Message = "unknown", unknownMessage
		} else if gate.Outside(a) == catalog.Bounced {
			ans.Message = bouncedMessage
		}
	}
}

// Text returns the answer for who reads only text.
func (ans *Answer) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nstatus: %s\napproval: %s\nurl: %s", ans.Message, ans.Status, ans.Approval.ID, ans.Approval.URL)
	if ans.Approval.Status == Pending {
		b.WriteString("\nexpires_at: " + ans.Approval.ExpiresAt.Format(time.RFC3339))
	}
	if ans.Reason != "" {
		b.WriteString("\ndecision_reason: " + ans.Reason)
	}
	for _, part := range []struct {
		name  string
		value json.RawMessage
	}{{"input", ans.Input}, {"edited_input", ans.Edited}, {"data", ans.Data}} {
		if part.value != nil {
			fmt.Fprintf(&b, "\n%s: %s", part.name, part.value)
		}
	}
	if ans.Error != nil {
		b.WriteString("\nerror: " + ans.Error.Error())
		if ans.Error.Fix != "" {
			b.WriteString(" Fix: " + ans.Error.Fix)
		}
	}
	return b.String()
}
