package storage_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/integrations"
	"trustpager/jobs"
	"trustpager/messages"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/storage"
	"trustpager/storage/storagetest"
	"trustpager/webhook"
)

// notOfAWorkspace lists the methods of a DB that touch no workspace's rows, or
// are for the operator and the server itself, which see all.
var notOfAWorkspace = []string{
	"BaseURL", "SetBaseURL", "Close", "Meters", "Engine", "Ping", "Reindex", "Savepoint", "Statements", "Watch", "Notify", "LockName", "NoteChange", // the database as a whole
	"CreateUser", "UserByEmail", "UserByID", "SetPassword", "SetUserName", "ReplacePassword", "Memberships", "CanLogIn", "NoteLogin", // people, who may be in several workspaces
	"Session", "CreateSession", "UpdateSession", "DeleteSession", // theirs
	"CreateResetLink", "ResetLink", "TakeResetLink", // theirs
	"OfferSetUp", "IsSetUpToken", "TakeSetUpToken", // before there is any
	"CreateWorkspace", "Workspaces", // the operator's
	"KeyBySecret", "InvitationByHash", "TakeInvitation", "Code", "TakeCode", "RefreshToken", "SpendRefreshToken", "CountSibling", "ProlongRefreshToken", // find the workspace by a hash
	"Client", "SaveDocumentClient", // clients that all workspaces may know
	"LockConsent",                  // tells and changes nothing
	"SigningKeys", "AddSigningKey", // the server's
	"AccountByID", "ReadableAccounts", // find the workspace by an id, and for the server that reads mailboxes
	"ClaimJobs", "NextJobDue", "JobsPaused", "PauseJobs", "ResumeJobs", "DeadJobs", "PendingWorkspaces", // the runner's
	"PurgeRequests", "PurgeIdempotencyKeys", "PurgeDeadJobs", "PurgeDeliveries", "PurgeClients", "PurgeUnconsented", "PurgeTokens", "PurgeSessions", "PurgeResetLinks", "PurgeTallies", "PurgeInvitations", "PurgeMeters", "PurgeTasks", // the clean-up's
	"Raw", "Rows", "Pool", "Quick", "DropIdle", "ListQuery", "Setting", "SetSetting", "CutWriter", "CutNow", "WaitQueued", "Touch", "PurgeLocked", // of these tests
}

// seen returns an error if a read has found something.
func seen(err error, found ...any) error {
	for _, v := range found {
		if r := reflect.ValueOf(v); err == nil && r.IsValid() && !r.IsZero() && (r.Kind() != reflect.Slice || r.Len() > 0) {
			return fmt.Errorf("it has seen %+v", v)
		}
	}
	return nil
}

// A crossing calls a method for another workspace with the ids of the first
// one's rows, and returns an error if it sees them. What it stores in the other
// workspace is its own business.
type crossing func(ctx context.Context, db *storage.DB, other string, w *filled) error

// filled is a workspace with a row in each table.
type filled struct {
	key     access.Key
	pending approvals.Approval
	failed  approvals.Approval
	idem    approvals.IdempotencyKey
	contact catalog.Record
	deal    catalog.Record
	ready   jobs.Job
	leased  jobs.Job
	user    string
	loan    approvals.Loan

	invitation admin.Invitation
}

var crossings = map[string]crossing{
	"Workspace": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Workspace(ctx, other)
		if err == nil && got.ID != other {
			return fmt.Errorf("it has seen %+v", got)
		}
		return err
	},
	"AddTally": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		n, _, err := db.AddTally(ctx, other, messages.Tally{Owner: "key_1", What: "sends", Period: "2026-01-31"}, 1, 100, time.Now())
		if n != 1 {
			return fmt.Errorf("it has counted on from %d", n)
		}
		return err
	},
	"Tallies": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		all, err := db.Tallies(ctx, other, "sends", "2026-01-31")
		return seen(err, len(all))
	},
	"Tally": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		n, err := db.Tally(ctx, other, messages.Tally{Owner: "key_1", What: "sends", Period: "2026-01-31"})
		return seen(err, n)
	},
	"UpdateWorkspace": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return db.UpdateWorkspace(ctx, access.Workspace{ID: other, Name: "other", Plan: access.Free})
	},
	"SetMember": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return db.SetMember(ctx, other, w.user, access.Member, now)
	},
	"RemoveMember": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		db.RemoveMember(ctx, other, w.user)
		return nil
	},
	"SaveInvitation": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		i := w.invitation
		i.ID, i.Workspace = "inv_other", other
		got, err := db.SaveInvitation(ctx, i, "hash other")
		if err == nil && got.ID != "inv_other" {
			return fmt.Errorf("it has found the other's invitation: %+v", got)
		}
		return err
	},
	"Invitations": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Invitations(ctx, other)
		return seen(err, got)
	},
	"CancelInvitation": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.CancelInvitation(ctx, other, w.invitation.Email)
		return seen(err, got.ID)
	},
	"Stock": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Stock(ctx, other, now)
		return seen(err, got)
	},
	"Consumption": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Consumption(ctx, other, time.Time{}, now, 10)
		return seen(err, got)
	},
	"Users": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Users(ctx, other)
		return seen(err, got)
	},
	"Key": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Key(ctx, other, w.key.ID, false)
		return seen(err, got.ID)
	},
	"RequesterGrant": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.RequesterGrant(ctx, other, w.key.ID)
		return seen(err, got.Principal)
	},
	"Keys": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Keys(ctx, other, "", 10)
		return seen(err, got)
	},
	"CreateKey": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		k := w.key
		k.Workspace = other
		if err := db.CreateKey(ctx, k, "hash"); err == nil {
			return fmt.Errorf("it has stored a key with an id that is taken")
		}
		return nil
	},
	"UpdateKey": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		k := w.key
		k.Workspace, k.Name = other, "changed"
		return seen(db.UpdateKey(ctx, k), "an update")
	},
	"RotateKey": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		k := w.key
		k.Workspace = other
		return seen(db.RotateKey(ctx, k, "hash2", now, now), "a rotation")
	},
	"EndOldSecrets": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.EndOldSecrets(ctx, other, w.key.ID, now), "the end of an overlap")
	},
	"ChildKeys": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.ChildKeys(ctx, other, w.key.ID)
		return seen(err, got)
	},
	"DeleteKey": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.DeleteKey(ctx, other, w.key.ID), "a deletion")
	},
	"AddUsage": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return db.AddUsage(ctx, []access.Count{{Workspace: other, Credential: w.key.ID, Hour: now, Action: "a", Outcome: access.OutcomeOK, N: 7}},
			[]access.LastUse{{Workspace: other, Credential: w.key.ID, At: now.Add(time.Hour), Action: "a"}, {Workspace: other, Credential: "grt_1", At: now.Add(time.Hour), Action: "a"}})
	},
	"UsedSince": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.UsedSince(ctx, other, w.key.ID, time.Time{})
		return seen(err, got)
	},
	"DailyUsage": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.DailyUsage(ctx, other, []string{w.key.ID}, time.Time{})
		return seen(err, got)
	},
	"WorkspaceUsage": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.WorkspaceUsage(ctx, other, time.Time{})
		return seen(err, got)
	},
	"LastUse": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, _, err := db.LastUse(ctx, other, "")
		return seen(err, got.Credential)
	},
	"PastCalls": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.PastCalls(ctx, other, w.key.ID, time.Time{})
		return seen(err, got)
	},
	"PastCallsOfClient": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.PastCallsOfClient(ctx, other, "cli_1", time.Time{}, 10)
		return seen(err, got)
	},
	"UsageHistory": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.UsageHistory(ctx, other, w.key.ID, time.Time{})
		return seen(err, got)
	},
	"CreateApproval": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		a := approval(other, w.key.ID)
		a.DedupeKey = w.pending.DedupeKey
		_, created, err := db.CreateApproval(ctx, a, time.Time{}, 1)
		if err == nil && !created {
			return fmt.Errorf("it has found the other's approval")
		}
		return err
	},
	"SupersededBy": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		a := w.pending
		a.Workspace, a.ID = other, "apr_other"
		got, err := db.SupersededBy(ctx, a)
		return seen(err, got)
	},
	"Approval": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Approval(ctx, other, w.pending.ID)
		return seen(err, got.ID)
	},
	"ListApprovals": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.ListApprovals(ctx, other, approvals.Query{Limit: 10})
		return seen(err, got)
	},
	"UntoldApprovals": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.UntoldApprovals(ctx, other, w.pending.By.ID, time.Time{}, 10)
		return seen(err, got)
	},
	"TellApprovals": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.TellApprovals(ctx, other, w.failed.By.ID, []string{w.failed.ID})
		return seen(err, got)
	},
	"SaveTask": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.SaveTask(ctx, approvals.Task{ID: "tsk_1", Workspace: other, CreatedAt: now}, now, 1), "an id that is taken")
	},
	"Task": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Task(ctx, other, "key_1", "tsk_1", time.Time{})
		return seen(err, got.ID)
	},
	"Tasks": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Tasks(ctx, other, "key_1", "", time.Time{}, 10)
		return seen(err, got)
	},
	"DecideApproval": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.DecideApproval(ctx, other, w.pending.ID, approvals.Decision{Status: approvals.Rejected, At: now})
		return seen(err, got.ID)
	},
	"MoveExecution": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.MoveExecution(ctx, other, w.failed.ID, approvals.Failed, approvals.Ran{Execution: approvals.Done, At: now})
		return seen(err, got.ID)
	},
	"ExtendApproval": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.ExtendApproval(ctx, other, w.pending.ID, now.Add(99*time.Hour))
		return seen(err, got.ID)
	},
	"CountWaiting": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.CountWaiting(ctx, other, "")
		return seen(err, got)
	},
	"VoteApproval": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.VoteApproval(ctx, other, w.pending.ID, nil, approvals.Voted{Votes: []approvals.Vote{{At: now}}, Digest: "d"})
		return seen(err, got.ID)
	},
	"AssignApproval": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.AssignApproval(ctx, other, w.pending.ID, "usr_1")
		return seen(err, got.ID)
	},
	"LockWorkspace": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.LockWorkspace(ctx, other)
		if err == nil && got.ID != other {
			return fmt.Errorf("it has seen %+v", got)
		}
		return err
	},
	"CreateLoan": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		l := w.loan
		l.ID, l.Workspace, l.Resource = "loan_other", other, "deals"
		return db.CreateLoan(ctx, l)
	},
	"Loan": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		_, err := db.Loan(ctx, other, w.loan.ID)
		return seen(err, "a loan")
	},
	"UseLoan": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		_, used, err := db.UseLoan(ctx, other, w.loan.Credential, w.loan.Resource, w.loan.Verb, now)
		if used {
			return fmt.Errorf("it has used the loan")
		}
		return err
	},
	"Loans": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Loans(ctx, other, approvals.LoanQuery{Limit: 10})
		got = slices.DeleteFunc(got, func(l approvals.Loan) bool { return l.ID == "loan_other" })
		return seen(err, got)
	},
	"EndLoans": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.EndLoans(ctx, other, "", w.loan.ID, "why", now)
		return seen(err, got)
	},
	"TakeIdempotencyKey": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		_, used, err := db.TakeIdempotencyKey(ctx, other, w.idem)
		return seen(err, used)
	},
	"FinishIdempotencyKey": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return db.FinishIdempotencyKey(ctx, other, w.idem, approvals.Replay{Approval: "changed"})
	},
	"Audit": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return db.Audit(ctx, audit.Entry{Workspace: other, Time: now, Event: audit.ActionRun})
	},
	"AuditEntries": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.AuditEntries(ctx, other, audit.Query{Target: w.contact.ID, Limit: 10})
		return seen(err, got)
	},
	"VerifyAudit": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		before, err := db.VerifyAudit(ctx, other)
		if err != nil {
			return err
		}
		got, err := db.AuditEntries(ctx, other, audit.Query{Limit: 1000})
		if int64(len(got)) != before {
			return fmt.Errorf("it has counted %d entries, want %d", before, len(got))
		}
		return err
	},
	"Record": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Record(ctx, other, "contacts", w.contact.ID, false)
		return seen(err, got.ID)
	},
	"ListRecords": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		for _, q := range []catalog.Query{{}, {SortField: "first_name"}, {SortField: "updated_at"}, {Terms: []string{"alpha"}},
			{Filters: []catalog.Filter{{Field: "first_name", Op: catalog.Equal, Value: "alpha"}}},
			{Filters: []catalog.Filter{{Field: "first_name", Op: catalog.After, Value: "a"}}}} {
			q.Limit = 10
			got, _, err := db.ListRecords(ctx, other, "contacts", q)
			if err := seen(err, got); err != nil {
				return err
			}
		}
		return nil
	},
	"MissingRefs": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.MissingRefs(ctx, other, []catalog.Ref{{Resource: "contacts", ID: w.contact.ID}, {Resource: "users", ID: w.user}})
		if err == nil && len(got) != 2 {
			return fmt.Errorf("it misses %v, want both", got)
		}
		return err
	},
	"Referrers": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Referrers(ctx, other, w.contact.ID, []catalog.Ref{{Resource: "deals", Field: "contact_id"}})
		return seen(err, got)
	},
	"InsertRecord": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		r := w.contact
		return db.InsertRecord(ctx, other, r, []catalog.Entry{{Field: "email", Value: "alpha@example.com", Unique: true}}, []string{"beta"})
	},
	"UpdateRecord": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		r := w.deal
		r.Version++
		return seen(db.UpdateRecord(ctx, other, r, nil, nil), "an update")
	},
	"DeleteRecord": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.DeleteRecord(ctx, other, "deals", w.deal.ID, 1), "a deletion")
	},
	"SumByField": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.SumByField(ctx, other, "deals", "contact_id", w.contact.ID, "stage", "value")
		return seen(err, got)
	},
	"Records": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Records(ctx, other, "contacts", []string{w.contact.ID})
		return seen(err, got)
	},
	"ReturnLoan": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.ReturnLoan(ctx, other, w.loan.ID), "a change")
	},
	"SetNotice": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.SetNotice(ctx, other, w.user, access.NoticeOff), "a change")
	},
	"PendingApprovals": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.PendingApprovals(ctx, other, now)
		return seen(err, got)
	},
	"Readers": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Readers(ctx, other)
		return seen(err, got)
	},
	"TellReader": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.TellReader(ctx, other, admin.Reader{User: access.User{ID: w.user}, Notice: access.NoticeImmediately}, "apv_9", now, now)
		return seen(err, got)
	},
	"Accounts": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Accounts(ctx, other, "")
		return seen(err, got)
	},
	"Account": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Account(ctx, other, "int_1", true)
		return seen(err, got.ID)
	},
	"CreateAccount": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return db.CreateAccount(ctx, integrations.Account{ID: "int_other", Workspace: other, Kind: integrations.EmailKind, Default: true, Version: 1})
	},
	"UpdateAccount": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.UpdateAccount(ctx, integrations.Account{ID: "int_1", Workspace: other, Kind: integrations.EmailKind, Default: true, Version: 2}), "an update")
	},
	"DeleteAccount": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.DeleteAccount(ctx, other, "int_1", 1), "a deletion")
	},
	"SetAccountState": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.SetAccountState(ctx, other, "int_1", integrations.Working, "", now), "a change")
	},
	"SetAccountCursor": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.SetAccountCursor(ctx, other, "int_1", 1, []byte(`{}`)), "a change")
	},
	"EnqueueJob": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		j := w.ready
		j.ID, j.Workspace, j.Payload = "job_other", other, []byte(`"changed"`)
		return db.EnqueueJob(ctx, j)
	},
	"CancelJobs": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		db.CancelJobs(ctx, other, w.leased.Kind, w.leased.Key)
		got, err := db.CancelJobs(ctx, other, "none", w.ready.Key)
		return seen(err, got)
	},
	"FinishJob": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		j := w.leased
		j.Workspace = other
		return seen(db.FinishJob(ctx, j), "an end")
	},
	"RetryJob": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		j := w.leased
		j.Workspace = other
		return seen(db.RetryJob(ctx, j), "an end")
	},
	"BuryJob": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		j := w.leased
		j.Workspace = other
		return seen(db.BuryJob(ctx, j), "an end")
	},
	"SetEndpoint": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.SetEndpoint(ctx, webhook.Endpoint{ID: "wh_other", Workspace: other, Owner: w.key.ID, URL: "https://other/", Secret: "s"})
		if err == nil && (got.ID != "wh_other" || got.OldSecret != "") {
			return fmt.Errorf("it has found the other's endpoint: %+v", got)
		}
		db.RemoveEndpoint(ctx, other, w.key.ID)
		return err
	},
	"RotateEndpoint": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.RotateEndpoint(ctx, other, w.key.ID, "s", now)
		return seen(err, got.ID)
	},
	"EndpointOf": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.EndpointOf(ctx, other, w.key.ID)
		return seen(err, got.ID)
	},
	"Endpoint": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Endpoint(ctx, other, "wh_1")
		return seen(err, got.ID)
	},
	"DisableEndpoint": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.DisableEndpoint(ctx, other, "wh_1", "r", now), "a change")
	},
	"EnableEndpoint": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.EnableEndpoint(ctx, other, "wh_1"), "a change")
	},
	"RetireEndpoint": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return db.RetireEndpoint(ctx, other, w.key.ID, now)
	},
	"RemoveEndpoint": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.RemoveEndpoint(ctx, other, w.key.ID), "a removal")
	},
	"InsertDelivery": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return db.InsertDelivery(ctx, webhook.Delivery{ID: "msg_other", Workspace: other, Endpoint: "wh_x", Owner: "key_x", State: jobs.Ready, Body: []byte("{}"), CreatedAt: now})
	},
	"MoveEndpoint": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.MoveEndpoint(ctx, other, w.key.ID, "https://other/", nil), "a change")
	},
	"LastDeliveries": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.LastDeliveries(ctx, other, []string{w.key.ID})
		return seen(err, got)
	},
	"Subscriptions": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Subscriptions(ctx, other)
		return seen(err, got)
	},
	"Subscription": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Subscription(ctx, other, "whs_1", true)
		return seen(err, got.ID)
	},
	"CreateSubscription": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.CreateSubscription(ctx, approvals.Subscription{ID: "whs_1", Workspace: other}), "an id that is taken")
	},
	"UpdateSubscription": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.UpdateSubscription(ctx, approvals.Subscription{ID: "whs_1", Workspace: other, Version: 2}), "an update")
	},
	"DeleteSubscription": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.DeleteSubscription(ctx, other, "whs_1"), "a removal")
	},
	"TakeChanges": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return storage.InTx[approvals.Store](db)(ctx, func(tx approvals.Store) error {
			tx.NoteChange("wsp_1", catalog.Change{Op: catalog.OpCreate})
			return seen(nil, tx.TakeChanges(other))
		})
	},
	"Doings": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return storage.InTx[approvals.Store](db)(ctx, func(tx approvals.Store) error {
			j, err := jobs.New(now, "wsp_1", "test", "once", nil, now)
			if err != nil {
				return err
			}
			if err := tx.EnqueueJob(ctx, j); err != nil {
				return err
			}
			enqueued, entries := tx.Doings(other)
			if err := seen(nil, enqueued, entries); err != nil {
				return err
			}
			_, err = tx.CancelJobs(ctx, "wsp_1", "test", "once")
			return err
		})
	},
	"Delivery": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Delivery(ctx, other, "msg_1")
		return seen(err, got.ID)
	},
	"Deliveries": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Deliveries(ctx, other, webhook.Query{Endpoint: "wh_1", Limit: 10})
		return seen(err, got)
	},
	"RecordAttempt": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return db.RecordAttempt(ctx, other, "msg_1", webhook.Attempt{At: now})
	},
	"PutOffDelivery": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return db.PutOffDelivery(ctx, other, "msg_1", now.Add(time.Hour))
	},
	"BuryDelivery": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return db.BuryDelivery(ctx, other, "msg_1", "r")
	},
	"CreateClient": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		if err := db.CreateClient(ctx, oauth.Client{ID: "cli_1", Workspace: other}); !problem.Is(err, problem.Conflict) {
			return fmt.Errorf("it has stored a client with an id that is taken: %v", err)
		}
		return nil
	},
	"UpdateClient": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.UpdateClient(ctx, oauth.Client{ID: "cli_1", Workspace: other, Name: "changed"}), "an update")
	},
	"ClientOf": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		for _, id := range []string{"cli_1", "cli_all"} {
			got, _, err := db.ClientOf(ctx, other, id, true)
			if err := seen(err, got.ID); err != nil {
				return err
			}
		}
		return nil
	},
	"Clients": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Clients(ctx, other, "", 10)
		return seen(err, got)
	},
	"EnsurePolicy": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.EnsurePolicy(ctx, oauth.Policy{Workspace: other, Client: "cli_all"})
		if err == nil && len(got.Ceiling) > 0 {
			return fmt.Errorf("it has found the other's policy: %+v", got)
		}
		if err == nil {
			got, err = db.EnsurePolicy(ctx, oauth.Policy{Workspace: other, Client: "cli_1"})
			return seen(err, got.Client)
		}
		return err
	},
	"Policy": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Policy(ctx, other, "cli_1")
		return seen(err, got.Client)
	},
	"UpdatePolicy": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.UpdatePolicy(ctx, oauth.Policy{Workspace: other, Client: "cli_1"}), "an update")
	},
	"RemoveClient": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		for _, id := range []string{"cli_1", "cli_all"} {
			if err := seen(db.RemoveClient(ctx, other, id), "a removal"); err != nil {
				return err
			}
		}
		return nil
	},
	"GrantOf": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.GrantOf(ctx, other, "cli_1", w.user)
		return seen(err, got.ID)
	},
	"SaveGrant": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.SaveGrant(ctx, oauth.Grant{ID: "grt_other", Workspace: other, Client: "cli_all", User: w.user})
		if err == nil && got.ID != "grt_other" {
			return fmt.Errorf("it has found the other's grant: %+v", got)
		}
		if err == nil {
			got, err = db.SaveGrant(ctx, oauth.Grant{ID: "grt_x", Workspace: other, Client: "cli_1", User: w.user})
			return seen(err, got.ID)
		}
		return err
	},
	"Grant": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Grant(ctx, other, "grt_1", true)
		return seen(err, got.ID)
	},
	"Grants": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Grants(ctx, other, oauth.GrantQuery{User: w.user, Client: "cli_1", Limit: 10})
		return seen(err, got)
	},
	"SetGrantScopes": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.SetGrantScopes(ctx, other, "grt_1", nil), "an update")
	},
	"RevokeGrant": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.RevokeGrant(ctx, other, "grt_1", now), "a change")
	},
	"CreateCode": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.CreateCode(ctx, oauth.AuthorizationCode{Hash: "code other", Workspace: other, Client: "cli_1", Grant: "grt_1"}), "a code for the other's grant")
	},
	"CreateFamily": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.CreateFamily(ctx, oauth.Family{ID: "fam_other", Workspace: other, Grant: "grt_1"}), "a family of the other's grant")
	},
	"Family": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.Family(ctx, other, "fam_1")
		return seen(err, got.ID)
	},
	"RevokeFamily": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.RevokeFamily(ctx, other, "fam_1", now), "a change")
	},
	"CreateRefreshToken": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		return seen(db.CreateRefreshToken(ctx, oauth.RefreshToken{Hash: "token other", Workspace: other, Family: "fam_1", ExpiresAt: now.Add(99 * time.Hour)}), "a token of the other's family")
	},
	"Delegation": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, alive, err := db.Delegation(ctx, other, "fam_1")
		return seen(err, got.ID, alive)
	},
	"DelegationOf": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.DelegationOf(ctx, other, "grt_1")
		return seen(err, got.ID)
	},
	"ReviveDelivery": func(ctx context.Context, db *storage.DB, other string, w *filled) error {
		got, err := db.ReviveDelivery(ctx, other, "msg_2", now)
		return seen(err, got.ID)
	},
}

// fill makes a row in each table for the workspace.
func fill(t *testing.T, db *storage.DB, id string) *filled {
	t.Helper()
	ctx, cat := t.Context(), defaultCatalog(t)
	w := &filled{user: "usr_1"}
	workspace(t, db, id)
	must(t, db.CreateUser(ctx, access.User{ID: w.user, Email: "alpha@example.com", Name: "alpha", CreatedAt: now}, "hash"))
	must(t, db.SetMember(ctx, id, w.user, access.Owner, now))
	w.invitation = admin.Invitation{ID: "inv_1", Workspace: id, Email: "grace@example.com", Role: access.Member, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	_, err := db.SaveInvitation(ctx, w.invitation, "invitation hash")
	must(t, err)
	w.key, _ = key(t, db, id, "key_1")
	child := access.Key{ID: "key_2", Workspace: id, Name: "alpha child", Parent: "key_1", CreatedAt: now}
	must(t, db.CreateKey(ctx, child, "child hash"))
	must(t, db.AddUsage(ctx, []access.Count{{Workspace: id, Credential: "key_1", Hour: now, Action: "a", Outcome: access.OutcomeOK, N: 3}},
		[]access.LastUse{{Workspace: id, Credential: "key_1", At: now, Action: "a"}}))
	w.pending = ask(t, db, approval(id, "key_1"))
	w.failed = ask(t, db, approval(id, "key_1"))
	_, err = db.DecideApproval(ctx, id, w.failed.ID, approvals.Decision{Status: approvals.Approved, At: now})
	must(t, err)
	_, err = db.MoveExecution(ctx, id, w.failed.ID, approvals.NotExecuted, approvals.Ran{Execution: approvals.Failed, At: now})
	must(t, err)
	w.loan = approvals.Loan{ID: "loan_" + id, Workspace: id, Credential: "key_1", Resource: "contacts", Verb: access.Write, CreatedAt: now, ExpiresAt: now.Add(time.Hour), Remaining: 5}
	must(t, db.CreateLoan(ctx, w.loan))
	w.idem = approvals.IdempotencyKey{Credential: "key_1", Key: "k", Fingerprint: "f", Now: now, Since: now.Add(-time.Hour)}
	_, _, err = db.TakeIdempotencyKey(ctx, id, w.idem)
	must(t, err)
	w.contact = insert(t, db, cat, id, "contacts", "con_1", `{"email":"alpha@example.com","first_name":"Alpha"}`)
	w.deal = insert(t, db, cat, id, "deals", "dea_1", `{"contact_id":"con_1","stage":"New","title":"Alpha","value":5}`)
	must(t, db.Audit(ctx, audit.Entry{Workspace: id, Time: now, Event: audit.ActionRun, Target: "con_1"}))
	for _, j := range []*jobs.Job{&w.ready, &w.leased} {
		*j, err = jobs.New(now, id, "ready", "alpha", 1, now)
		must(t, err)
		if j == &w.leased {
			j.Kind = "leased"
		}
		must(t, db.EnqueueJob(ctx, *j))
	}
	w.leased = claimOne(t, db, "leased", "token", 0)
	connect(t, db, id, "cli_1", w.user, "1")
	must(t, db.CreateClient(ctx, oauth.Client{ID: "cli_all", Origin: oauth.Dynamic, CreatedAt: now}))
	_, err = db.EnsurePolicy(ctx, oauth.Policy{Workspace: id, Client: "cli_all", Ceiling: w.key.Scopes, CreatedAt: now})
	must(t, err)
	must(t, db.CreateAccount(ctx, integrations.Account{ID: "int_1", Workspace: id, Kind: integrations.EmailKind, Name: "alpha", Sealed: "s",
		Settings: integrations.Settings{IMAPHost: "alpha"}, Active: true, Default: true, Version: 1, CreatedAt: now, UpdatedAt: now}))
	_, _, err = db.AddTally(ctx, id, messages.Tally{Owner: "key_1", What: "sends", Period: "2026-01-31"}, 7, 100, now)
	must(t, err)
	epoch, err := storagetest.Key.Seal([]byte("k"), "audit epoch "+id+" 0")
	must(t, err)
	must(t, db.Raw(ctx, `INSERT INTO audit_epochs (workspace, seq, audit_key) VALUES ($1, 0, $2)`, id, epoch))
	setEndpoint(t, db, "wh_1", id, "key_1", "https://alpha/", "s")
	setEndpoint(t, db, "wh_2", id, "whs_1", "https://alpha/events", "s")
	must(t, db.CreateSubscription(ctx, approvals.Subscription{ID: "whs_1", Workspace: id, Version: 1, Active: true, Creator: access.Principal{Kind: access.KindKey, ID: "key_1"}}))
	must(t, db.SaveTask(ctx, approvals.Task{ID: "tsk_1", Workspace: id, Credential: "key_1", Action: "create_contact", Answer: []byte("{}"), CreatedAt: now}, now, 1))
	insertDelivery(t, db, webhook.Delivery{ID: "msg_1", Workspace: id, Endpoint: "wh_1", Owner: "key_1", Event: webhook.Test, Body: []byte("{}")})
	insertDelivery(t, db, webhook.Delivery{ID: "msg_2", Workspace: id, Endpoint: "wh_1", Owner: "key_1", Event: webhook.Test, Body: []byte("{}"), State: jobs.Dead})
	return w
}

// serverTables are those whose rows are of no workspace.
var serverTables = []string{"jobs_paused", "settings", "oauth_signing_keys", "sessions", "reset_links"}

func TestNoMethodReachesIntoAnotherWorkspace(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := fill(t, db, "wsp_1")
		before := dump(t, db, "wsp_1")
		for _, table := range tables {
			if !slices.Contains(serverTables, table) && !strings.Contains(before, table+" ") {
				t.Errorf("the first workspace has no row in %s, so nothing is proved of it", table)
			}
		}
		for m := range reflect.TypeFor[*storage.DB]().Methods() {
			cross, ok := crossings[m.Name]
			if ok == slices.Contains(notOfAWorkspace, m.Name) {
				t.Errorf("%s is in none or both of the tables of this test: add it to one of them", m.Name)
			}
			if !ok {
				continue
			}
			other := workspace(t, db, "wsp_"+m.Name).ID // so that none sees what another has stored
			if err := cross(t.Context(), db, other, w); err != nil {
				t.Errorf("%s for another workspace: %v", m.Name, err)
			}
			if after := dump(t, db, "wsp_1"); after != before {
				t.Errorf("%s for another workspace: the first one's rows have changed:\n%s", m.Name, changedLines(before, after))
				before = after
			}
		}
	})
}

// changedLines returns the lines that are in one text only.
func changedLines(before, after string) string {
	var b strings.Builder
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, l := range was {
		if !slices.Contains(is, l) {
			b.WriteString("- " + l + "\n")
		}
	}
	for _, l := range is {
		if !slices.Contains(was, l) {
			b.WriteString("+ " + l + "\n")
		}
	}
	return b.String()
}
