package approvals

import (
	"encoding/json"
	"time"

	"trustpager/access"
	"trustpager/problem"
)

// A Status says what became of the question that an approval puts to a person.
// It leaves [Pending] once, for good.
type Status string

// The statuses.
const (
	Pending   Status = "pending"
	Approved  Status = "approved"
	Rejected  Status = "rejected"
	Expired   Status = "expired"
	Withdrawn Status = "withdrawn"
)

// An Execution says what became of an approved action. Approved and executed
// are different facts.
type Execution string

// The executions.
const (
	NotExecuted Execution = "none"
	Done        Execution = "done"
	Failed      Execution = "failed"
	Dismissed   Execution = "dismissed" // it failed, and a person has let it be
)

// An Approval is an action that waits, or has waited, for a person.
type Approval struct {
	ID        string
	Workspace string
	Status    Status
	Execution Execution

	Action    string      // create_contact
	Resource  string      // contacts
	Verb      access.Verb // write
	TargetID  string      // "" if the action has no target
	TargetVer int64       // the target's version when it was asked
	AfterVer  int64       // the target's version after the execution, 0 before
	Title     string      // what the target was called then

	Base   json.RawMessage // the target's body when it was asked, nil if there was none or it is forgotten
	Input  json.RawMessage // validated and canonical: what will run
	Edited json.RawMessage // what the decider made of it, nil if nothing
	Reason string          // the agent's own words, unverified
	Digest string          // SHA-256 of action, target and what will run, hex: what a decider has seen

	Request   Request          // as it arrived
	By        access.Principal // whose request it is
	Parent    string           // the key that made that key
	Decider   access.Decider
	Votes     []Vote // of those who have approved while more have to
	Assignee  string // the user who is to decide it, "" if nobody in particular
	Asked     int64  // how often the same was asked
	DedupeKey string
	Told      bool // the credential that asked has been told how it ended

	DecidedBy      access.Principal // zero while pending
	DecisionReason string           // why it was rejected
	Result         json.RawMessage  // of the execution
	Error          *problem.Error   // of the failed execution

	CreatedAt  time.Time
	ExpiresAt  time.Time
	DecidedAt  time.Time // zero while pending
	ExecutedAt time.Time // zero before
}

// A Request is how an action arrived, kept so that a rejection can give it
// back.
type Request struct {
	Door           string // "rest", "mcp", "web" or "cli"
	Method         string // HTTP method, of REST
	Path           string // HTTP path, of REST
	Tool           string // tool name, of MCP
	Body           []byte // byte for byte: the REST body, or the MCP params.arguments
	IdempotencyKey string // the caller's own, "" if none; not kept
}
