package rest

import (
	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/webhook"
)

// A route is a part of the API that is not an action of the catalog.
type route struct {
	Name    string // of the operation: in the usage counters and the OpenAPI document
	Method  string
	Path    string   // below /v1
	Summary string   // one sentence
	query   []string // parameters
	in      any      // a value of the type of the body, nil if there is none
	out     any      // a value of the type of the answer's data
	list    bool     // data is a list of out, with pagination
	status  int      // of success, 0 means 200
	handle  func(*call) error
}

// routes returns the parts of the API that are not actions of the catalog.
func (api *API) routes() []route {
	page := []string{"limit", "cursor"}
	return []route{
		{Name: "list_approvals", Method: "GET", Path: "/approvals", Summary: "List the approvals that you may see, newest first.",
			query: append([]string{"status", "execution", "requested_by", "client", "assignee", "resource"}, page...), out: approvals.View{}, list: true, handle: api.listApprovals},
		{Name: "get_approval", Method: "GET", Path: "/approvals/{id}", Summary: "Read one approval.",
			out: approvals.View{}, handle: api.one(api.Gate.Approval)},
		{Name: "get_approval_card", Method: "GET", Path: "/approvals/{id}/card", Summary: "Read what there is to know for deciding an approval: each field as it was, is and would be, and the checks.",
			out: approvals.Card{}, handle: api.card},
		{Name: "withdraw_approval", Method: "POST", Path: "/approvals/{id}/withdraw", Summary: "Take back a request of your own that nobody has decided.",
			in: empty{}, out: approvals.View{}, handle: api.one(api.Gate.Withdraw)},
		{Name: "approve", Method: "POST", Path: "/approvals/{id}/approve", Summary: "Approve, and run the action; edited replaces its input, digest proves what was looked at; stale and target_version go on with a changed target.",
			in: approveBody{}, out: approvals.View{}, handle: api.approve},
		{Name: "reject", Method: "POST", Path: "/approvals/{id}/reject", Summary: "Reject with a reason, which the agent is told.",
			in: rejectBody{}, out: approvals.View{}, handle: api.reject},
		{Name: "extend_approval", Method: "POST", Path: "/approvals/{id}/extend", Summary: "Move the expiry to 1 hour to 30 days from now.",
			in: extendBody{}, out: approvals.View{}, handle: api.extend},
		{Name: "assign_approval", Method: "POST", Path: "/approvals/{id}/assign", Summary: "Say who is to decide an approval.",
			in: assignBody{}, out: approvals.View{}, handle: api.assign},
		{Name: "retry_approval", Method: "POST", Path: "/approvals/{id}/retry", Summary: "Run an approved action again whose execution failed.",
			in: empty{}, out: approvals.View{}, handle: api.one(api.Gate.Retry)},
		{Name: "dismiss_approval", Method: "POST", Path: "/approvals/{id}/dismiss", Summary: "Let a failed execution be.",
			in: empty{}, out: approvals.View{}, handle: api.one(api.Gate.Dismiss)},
		{Name: "lend", Method: "POST", Path: "/approvals/{id}/lend", Summary: "Let the credential that asked do the same without asking, for 15, 60 or 480 minutes and at most 25 times; the approval itself stays undecided.",
			in: lendBody{}, out: approvals.Loan{}, status: 201, handle: api.lend},
		{Name: "list_loans", Method: "GET", Path: "/loans", Summary: "List what is or was lent to credentials, newest first; with status=active what is in force.",
			query: append([]string{"credential", "status"}, page...), out: approvals.Loan{}, list: true, handle: api.listLoans},
		{Name: "end_loan", Method: "POST", Path: "/loans/{id}/end", Summary: "End a loan before its time.",
			in: empty{}, out: approvals.Loan{}, handle: api.endLoan},
		{Name: "pause", Method: "POST", Path: "/pause", Summary: "Refuse the requests of a key, a grant or a client, or of all agents without credential, until a person resumes them.",
			in: pauseBody{}, out: paused{}, handle: api.pause},
		{Name: "resume", Method: "POST", Path: "/resume", Summary: "End a pause. Keys cannot: people do that, in the browser or on the command line.",
			in: pauseBody{}, out: paused{}, handle: api.resume},
		{Name: "decide_approvals", Method: "POST", Path: "/approvals/batch", Summary: "Approve or reject up to 100 approvals, each for itself, with a result for each.",
			in: batchBody{}, out: []batchResult{}, handle: api.batch},

		{Name: "me", Method: "GET", Path: "/me", Summary: "Say who you are and what you may do.",
			out: identity{}, handle: api.me},
		{Name: "list_keys", Method: "GET", Path: "/keys", Summary: "List the API keys, newest first.",
			query: page, out: keyView{}, list: true, handle: api.listKeys},
		{Name: "create_key", Method: "POST", Path: "/keys", Summary: "Create an API key; its secret and that of its webhook are shown only in this answer.",
			in: admin.KeyInput{}, out: keyView{}, status: 201, handle: api.createKey},
		{Name: "get_key", Method: "GET", Path: "/keys/{id}", Summary: "Read one API key.",
			out: keyView{}, handle: api.key},
		{Name: "update_key", Method: "PATCH", Path: "/keys/{id}", Summary: "Change an API key from its next request on. null takes the expiry or the webhook away.",
			in: admin.KeyInput{}, out: keyView{}, handle: api.updateKey},
		{Name: "delete_key", Method: "DELETE", Path: "/keys/{id}", Summary: "Delete an API key for good, with its usage history and the keys it has made.",
			out: deleted{}, handle: api.deleteKey},
		{Name: "revoke_key", Method: "POST", Path: "/keys/{id}/revoke", Summary: "Refuse an API key, and the keys it has made, from the next request on.",
			in: empty{}, out: keyView{}, handle: api.oneKey(api.Desk.RevokeKey)},
		{Name: "activate_key", Method: "POST", Path: "/keys/{id}/activate", Summary: "Accept a revoked API key again.",
			in: empty{}, out: keyView{}, handle: api.oneKey(api.Desk.ActivateKey)},
		{Name: "rotate_key", Method: "POST", Path: "/keys/{id}/rotate", Summary: "Give an API key another secret; the old one works for overlap_hours, 0 to 168.",
			in: overlap{}, out: keyView{}, handle: api.rotateKey},
		{Name: "end_key_overlap", Method: "POST", Path: "/keys/{id}/end-overlap", Summary: "Refuse the old secret of a rotated API key from the next request on.",
			in: empty{}, out: keyView{}, handle: api.oneKey(api.Desk.EndOverlap)},
		{Name: "key_usage", Method: "GET", Path: "/keys/{id}/usage", Summary: "Count an API key's requests by hour, action and outcome; of the last 7 days unless since says otherwise.",
			query: []string{"since"}, out: []access.Count{}, handle: api.keyUsage},
		{Name: "rotate_key_webhook", Method: "POST", Path: "/keys/{id}/webhook/rotate", Summary: "Give a key's webhook another secret; both sign for overlap_hours, 24 unless said.",
			in: overlap{}, out: webhookSecret{}, handle: rotateWebhook(api.Desk.RotateWebhook)},
		{Name: "test_key_webhook", Method: "POST", Path: "/keys/{id}/webhook/test", Summary: "Send a test event to a key's webhook.",
			in: empty{}, out: webhook.Delivery{}, status: 202, handle: testWebhook(api.Desk.TestWebhook)},
		{Name: "list_clients", Method: "GET", Path: "/clients", Summary: "List the OAuth clients of the workspace, the newest there first.",
			query: page, out: clientView{}, list: true, handle: api.listClients},
		{Name: "create_client", Method: "POST", Path: "/clients", Summary: "Register an OAuth client; its secret and that of its webhook are shown only in this answer.",
			in: admin.ClientInput{}, out: clientView{}, status: 201, handle: api.createClient},
		{Name: "get_client", Method: "GET", Path: "/clients/{id}", Summary: "Read one OAuth client. A client id that is a URL is percent-encoded in the path.",
			out: clientView{}, handle: api.client},
		{Name: "update_client", Method: "PATCH", Path: "/clients/{id}", Summary: "Change an OAuth client, and what it may do at most from the next request on. null takes the webhook away. One that is public no more gets a secret, which is shown only in this answer.",
			in: admin.ClientInput{}, out: clientView{}, handle: api.updateClient},
		{Name: "delete_client", Method: "DELETE", Path: "/clients/{id}", Summary: "Take an OAuth client from the workspace, with all its grants and tokens.",
			out: deleted{}, handle: api.deleteClient},
		{Name: "rotate_client", Method: "POST", Path: "/clients/{id}/rotate", Summary: "Give an OAuth client another secret; the old one works for overlap_hours, 0 to 168.",
			in: overlap{}, out: clientView{}, handle: api.rotateClient},
		{Name: "rotate_client_webhook", Method: "POST", Path: "/clients/{id}/webhook/rotate", Summary: "Give a client's webhook another secret; both sign for overlap_hours, 24 unless said.",
			in: overlap{}, out: webhookSecret{}, handle: rotateWebhook(api.Desk.RotateClientWebhook)},
		{Name: "test_client_webhook", Method: "POST", Path: "/clients/{id}/webhook/test", Summary: "Send a test event to a client's webhook.",
			in: empty{}, out: webhook.Delivery{}, status: 202, handle: testWebhook(api.Desk.TestClientWebhook)},
		{Name: "list_grants", Method: "GET", Path: "/grants", Summary: "List what users have granted to OAuth clients, newest first; with status=active without what is revoked.",
			query: append([]string{"client", "user", "status"}, page...), out: grantView{}, list: true, handle: api.listGrants},
		{Name: "get_grant", Method: "GET", Path: "/grants/{id}", Summary: "Read one grant.",
			out: grantView{}, handle: api.oneGrant(api.Desk.Grant)},
		{Name: "update_grant", Method: "PATCH", Path: "/grants/{id}", Summary: "Narrow a grant from the next request on; with a key of the user who gave it also widen it, within the client's ceiling and the user's role.",
			in: grantScopes{}, out: grantView{}, handle: api.updateGrant},
		{Name: "revoke_grant", Method: "POST", Path: "/grants/{id}/revoke", Summary: "End a grant with all its tokens, from the next request on.",
			in: empty{}, out: grantView{}, handle: api.oneGrant(api.Desk.RevokeGrant)},
		{Name: "revoke_grants", Method: "POST", Path: "/grants/revoke", Summary: "End all grants of a client, of a user, or of both.",
			in: grantChoice{}, out: revokedGrants{}, handle: api.revokeGrants},
		{Name: "list_deliveries", Method: "GET", Path: "/deliveries", Summary: "List webhook deliveries, newest first.",
			query: append([]string{"owner", "approval", "status"}, page...), out: webhook.Delivery{}, list: true, handle: api.listDeliveries},
		{Name: "resend_delivery", Method: "POST", Path: "/deliveries/{id}/resend", Summary: "Deliver once more, with the same webhook-id.",
			in: empty{}, out: webhook.Delivery{}, status: 202, handle: api.resend},

		{Name: "list_audit", Method: "GET", Path: "/audit", Summary: "List the audit log, newest first.",
			query: append([]string{"actor", "event", "target", "since", "until"}, page...), out: audit.Entry{}, list: true, handle: api.listAudit},
		{Name: "verify_audit", Method: "GET", Path: "/audit/verify", Summary: "Check the chain of the audit log.",
			out: verification{}, handle: api.verifyAudit},
	}
}
