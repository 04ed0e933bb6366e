// Package audit is the log of who did what. Entries are only ever appended,
// and each is sealed by an HMAC over itself and the seal of the one before it,
// so that a removed, changed or reordered entry shows.
package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// An Actor is who did it.
type Actor struct {
	Kind string `json:"kind"` // as of access.Kind
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	User string `json:"user,omitempty"` // the person behind it
}

// An Event says what happened, as "noun.verb".
type Event string

// The events.
const (
	ActionRun           Event = "action.run"         // an action was performed at once
	ActionQueued        Event = "action.queued"      // an action became an approval
	ActionDenied        Event = "action.denied"      // a credential asked for what it may not do
	ActionTried         Event = "action.dry_run"     // what an action would do was worked out, and undone
	ApprovalApproved    Event = "approval.approved"  //
	ApprovalRejected    Event = "approval.rejected"  //
	ApprovalExpired     Event = "approval.expired"   //
	ApprovalWithdrawn   Event = "approval.withdrawn" //
	ApprovalVoted       Event = "approval.voted"     // a yes where more are needed
	ApprovalAssigned    Event = "approval.assigned"
	LoanMade            Event = "loan.made"
	LoanEnded           Event = "loan.ended"    // before its time and its uses were over
	AgentsPaused        Event = "agents.paused" // one credential, or all
	AgentsResumed       Event = "agents.resumed"
	ApprovalExtended    Event = "approval.extended"  //
	ApprovalRetried     Event = "approval.retried"   // a failed execution ran again
	ApprovalDismissed   Event = "approval.dismissed" // a failed execution was let be
	EffectDone          Event = "effect.done"        // what an action had set going outside has come to pass
	EffectFailed        Event = "effect.failed"      // it has not, or nobody knows
	KeyCreated          Event = "key.created"
	KeyChanged          Event = "key.changed"
	KeyRevoked          Event = "key.revoked"
	KeyActivated        Event = "key.activated"
	KeyRotated          Event = "key.rotated"
	KeyDeleted          Event = "key.deleted"
	WebhookSet          Event = "webhook.set"
	WebhookRemoved      Event = "webhook.removed"
	WebhookRotated      Event = "webhook.rotated"
	WebhookResent       Event = "webhook.resent"
	WebhookTested       Event = "webhook.tested"
	WorkspaceCreated    Event = "workspace.created"
	WorkspaceChanged    Event = "workspace.changed"
	UserCreated         Event = "user.created"
	UserChanged         Event = "user.changed"
	UserRemoved         Event = "user.removed"
	UserInvited         Event = "user.invited"
	UserJoined          Event = "user.joined" // somebody has accepted an invitation
	PersonLogin         Event = "person.login"
	InvitationCancelled Event = "invitation.cancelled"
	PersonRefused       Event = "person.login_refused" // a wrong password
	PersonLogout        Event = "person.logout"
	PersonForgot        Event = "person.forgot"    // a link for a new password was sent
	ClientCreated       Event = "client.created"   // an admin registered an OAuth client
	ClientConnected     Event = "client.connected" // a client that registered itself came to the workspace
	ClientChanged       Event = "client.changed"
	ClientRotated       Event = "client.rotated" // a new secret
	ClientDeleted       Event = "client.deleted"
	ConsentGiven        Event = "consent.given"
	ConsentDenied       Event = "consent.denied"
	GrantChanged        Event = "grant.changed" // its scopes, after the consent
	GrantRevoked        Event = "grant.revoked"
	TokenIssued         Event = "token.issued"    // for a code, or with client credentials
	TokenRefreshed      Event = "token.refreshed" //
	TokenRevoked        Event = "token.revoked"   // by its client
	TokenReused         Event = "token.reused"    // a code or refresh token a second time: its family has ended
	ServerRestored      Event = "server.restored"
	JobsPaused          Event = "server.jobs_paused" // nothing is sent outside
	JobsResumed         Event = "server.jobs_resumed"

	KeyFileRotated     Event = "server.key_rotated" // the server's secret key was changed
	IntegrationCreated Event = "integration.created"
	IntegrationChanged Event = "integration.changed"
	IntegrationDeleted Event = "integration.deleted"
	IntegrationTested  Event = "integration.tested"
)

// An Entry is one line of the log.
type Entry struct {
	Workspace string    `json:"workspace"`
	Seq       int64     `json:"seq"` // 1, 2, 3 … within the workspace
	Time      time.Time `json:"time"`
	Actor     Actor     `json:"actor"`
	Event     Event     `json:"event"`

	Action   string          `json:"action,omitempty"`   // create_contact
	Resource string          `json:"resource,omitempty"` // contacts
	Target   string          `json:"target,omitempty"`   // id of what it was done to
	Level    string          `json:"level,omitempty"`    // run, queue or deny: the rung's answer
	Approval string          `json:"approval,omitempty"`
	Asker    string          `json:"asker,omitempty"`   // of a decision: the credential that had asked
	Outcome  string          `json:"outcome,omitempty"` // done, failed …
	Door     string          `json:"door,omitempty"`    // rest, mcp, web, cli
	Millis   int64           `json:"duration_ms,omitempty"`
	Request  string          `json:"request_id,omitempty"`
	Detail   json.RawMessage `json:"detail,omitempty"`
}

// Seal returns the hex HMAC-SHA256 over the entry as it is stored and the seal
// of the entry before it.
func Seal(key []byte, prev string, stored []byte) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(prev))
	m.Write([]byte{'\n'})
	m.Write(stored)
	return hex.EncodeToString(m.Sum(nil))
}

// A Row is an entry as it is stored.
type Row struct {
	Seq    int64
	Stored []byte // the entry's JSON
	Seal   string
}

// A Verifier checks a workspace's rows in the order of their numbers.
type Verifier struct {
	Key  []byte
	seq  int64
	prev string
}

// Next checks one more row. An error names the first row that is not as it was
// written, and nothing after it can be trusted.
func (v *Verifier) Next(r Row) error {
	if r.Seq != v.seq+1 {
		return fmt.Errorf("entry %d follows entry %d: entries were removed or reordered", r.Seq, v.seq)
	}
	var e Entry
	if err := json.Unmarshal(r.Stored, &e); err != nil || e.Seq != r.Seq {
		return fmt.Errorf("entry %d was changed: it does not hold its own number", r.Seq)
	}
	if !hmac.Equal([]byte(r.Seal), []byte(Seal(v.Key, v.prev, r.Stored))) {
		return fmt.Errorf("entry %d was changed, or the secret key is not the one it was sealed with", r.Seq)
	}
	v.seq, v.prev = r.Seq, r.Seal
	return nil
}

// End checks that the last row is the one that the chain's head names, so that
// entries missing at the end show too.
func (v *Verifier) End(seq int64, seal string) error {
	if v.seq != seq || v.prev != seal {
		return fmt.Errorf("the log ends at entry %d, but entry %d was written: entries were removed at the end", v.seq, seq)
	}
	return nil
}

// A Query selects entries, newest first. Its zero members mean any.
type Query struct {
	Actor  string
	Event  Event
	Target string
	Since  time.Time // at or after
	Until  time.Time // before
	Before int64     // only entries with a smaller number: where the next page goes on
	Limit  int
}
