package messages

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"trustpager/access"
	"trustpager/catalog"
	"trustpager/integrations"
	"trustpager/problem"
	"trustpager/typeid"
)

// callbackPath is where telephone services call back: the account's id and what
// it is about follow.
const callbackPath = "/callbacks/twilio/"

// maxCallback is how many bytes of a call-back are read.
const maxCallback = 64 << 10

// Callbacks returns the handler of what providers tell:
//
//	POST /callbacks/twilio/{account}/status?id=…   what became of a message or call
//	POST /callbacks/twilio/{account}/sms           a message that came in
//	POST /callbacks/twilio/{account}/call          a call that came in
//
// Each has to be signed with the account's secret (X-Twilio-Signature), for the
// URL under which the provider knows this server. What is told twice changes
// nothing the second time.
func (cr *Carrier) Callbacks() http.Handler {
	mux := http.NewServeMux()
	for what, do := range map[string]callback{
		"status": cr.moved,
		"sms":    cr.smsCame,
		"call":   cr.callCame,
	} {
		mux.HandleFunc("POST "+callbackPath+"{account}/"+what, func(w http.ResponseWriter, r *http.Request) {
			if err := cr.called(w, r, do); err != nil {
				problem.Write(w, r, err)
				return
			}
			// TwiML that asks for nothing further.
			w.Header().Set("Content-Type", "text/xml; charset=utf-8")
			io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?><Response></Response>`)
		})
	}
	return mux
}

// A callback stores what a call-back tells: its query and its form.
type callback func(ctx context.Context, tx Store, account integrations.Account, query, form url.Values) error

// called checks a call-back and stores what it tells.
func (cr *Carrier) called(w http.ResponseWriter, r *http.Request, do callback) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCallback))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return problem.Errorf(problem.TooLarge, "a call-back is at most %d kB long", maxCallback>>10)
		}
		return problem.Errorf(problem.InvalidBody, "the body broke off")
	}
	refused := problem.Errorf(problem.Forbidden, "the signature is not that of the account").
		WithFix("Send X-Twilio-Signature for the URL %s… and the posted form, made with the account's auth token.", cr.BaseURL+callbackPath)
	id := r.PathValue("account")
	if !typeid.ValidID("int", id) {
		return refused
	}
	account, err := cr.Store.AccountByID(r.Context(), id)
	if problem.Is(err, problem.NotFound) || err == nil && account.Kind != integrations.TwilioKind {
		return refused
	}
	if err != nil {
		return err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return problem.Errorf(problem.InvalidBody, "the body is not a form")
	}
	t, err := cr.Accounts.Twilio(account)
	if err != nil {
		return err
	}
	if t.AuthToken == "" || !t.Verify(cr.BaseURL+r.URL.RequestURI(), form, r.Header.Get("X-Twilio-Signature")) {
		return refused
	}
	return cr.InTx(r.Context(), func(tx Store) error { return do(r.Context(), tx, account, r.URL.Query(), form) })
}

// progress says which status of a message or call follows which.
var progress = map[string]int{
	catalog.Queued: 0, statusUnknown: 0, statusSent: 1, "ringing": 2, "in_progress": 3,
	"delivered": 4, "completed": 4, "busy": 4, "no_answer": 4, "cancelled": 4,
}

// follows reports whether what is told replaces what is known. Call-backs come
// late, twice and out of order: a failure is only replaced by the last word about
// a success, and no last word by a failure.
func follows(before, told string) bool {
	switch {
	case before == told:
		return false
	case before == statusFailed:
		return progress[told] == 4
	case told == statusFailed:
		return progress[before] < 4
	}
	return progress[told] > progress[before]
}

// theirs are the provider's words for statuses, of messages and calls. What is
// not among them says nothing that is worth keeping.
var theirs = map[string]string{
	"sent": statusSent, "delivered": "delivered", "read": "delivered", "undelivered": statusFailed, "failed": statusFailed,
	"ringing": "ringing", "in-progress": "in_progress", "completed": "completed", "busy": "busy", "no-answer": "no_answer", "canceled": "cancelled",
}

// moved stores what became of a message or call.
func (cr *Carrier) moved(ctx context.Context, tx Store, account integrations.Account, query, form url.Values) error {
	u, err := integrations.ParseStatus(form)
	if err != nil {
		return problem.Errorf(problem.Validation, "the call-back cannot be read: %v", err)
	}
	name := smsResource
	if u.Call {
		name = callsResource
	}
	r, w := cr.resource(name), account.Workspace
	rec, err := cr.meant(ctx, tx, w, r, account, query.Get("id"), u.SID)
	if err != nil || rec == nil {
		return err // of something that was not sent from here
	}
	values, err := rec.Values()
	if err != nil {
		return err
	}
	status, known := theirs[u.Status]
	before := str(values["status"])
	if !known || values["direction"] == "in" && name == smsResource {
		return nil
	}
	if !follows(before, status) {
		return nil
	}
	if try := query.Get("try"); try != "" && try != attemptOf(values) && progress[status] < 4 {
		return nil // of an attempt before the one that a person has asked for
	}
	changes := map[string]any{"status": status, "provider_id": clip(u.SID, 100), "error": nil}
	if u.Duration > 0 {
		changes["duration"] = number(int64(u.Duration.Seconds()))
	}
	var failure *problem.Error
	if status == statusFailed {
		text := strings.TrimSpace("the provider could not deliver it: " + line(u.ErrorCode) + " " + line(u.ErrorMessage))
		changes["error"] = clip(text, 1000)
		failure = problem.Errorf(problem.Outside, "%s", clip(text, 600)).WithFix("A person tries it again as it is, or lets it be; with other values it is asked for anew.")
	}
	if values["direction"] == "in" {
		if _, err := r.Change(ctx, tx, w, *rec, changes, cr.now()); err != nil {
			return err
		}
		return cr.Gate.Tell(ctx, tx, w, access.System, "")
	}
	o, err := cr.originOf(ctx, tx, w, r, values)
	if err != nil {
		return err
	}
	return cr.tell(ctx, tx, w, r, *rec, o, changes, failure)
}

// meant returns the record that a call-back is about, locked: that of the id
// that it was sent with, or of the provider's own.
func (cr *Carrier) meant(ctx context.Context, tx Store, workspace string, r *catalog.Resource, account integrations.Account, id, sid string) (*catalog.Record, error) {
	if !typeid.ValidID(r.Prefix, id) {
		if sid == "" {
			return nil, nil
		}
		rec, err := cr.find(ctx, tx, workspace, r, r.Lookup("provider_id", clip(sid, 100)))
		if err != nil || rec == nil {
			return nil, err
		}
		id = rec.ID
	}
	rec, err := tx.Record(ctx, workspace, r.Name, id, true)
	if problem.Is(err, problem.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	values, err := rec.Values()
	if err != nil || values["account_id"] != account.ID || values["provider_id"] != nil && values["provider_id"] != sid {
		return nil, err
	}
	return &rec, nil
}

// smsCame stores a message that came in.
func (cr *Carrier) smsCame(ctx context.Context, tx Store, account integrations.Account, _, form url.Values) error {
	m, err := integrations.ParseInboundSMS(form)
	if err != nil {
		return problem.Errorf(problem.Validation, "the call-back cannot be read: %v", err)
	}
	values := map[string]any{"body": clip(m.Body, 10_000), "thread_id": conversation(m.To, m.From)}
	return cr.came(ctx, tx, account, cr.resource(smsResource), m.SID, m.From, m.To, values)
}

// callCame stores a call that came in. What becomes of it is told as a status.
func (cr *Carrier) callCame(ctx context.Context, tx Store, account integrations.Account, _, form url.Values) error {
	m, err := integrations.ParseInboundCall(form)
	if err != nil {
		return problem.Errorf(problem.Validation, "the call-back cannot be read: %v", err)
	}
	return cr.came(ctx, tx, account, cr.resource(callsResource), m.SID, m.From, m.To, map[string]any{})
}

// came stores what came in by telephone, once. Two numbers that talk for the
// first time, and a provider that tells the same twice at once, take their
// turns by the account.
func (cr *Carrier) came(ctx context.Context, tx Store, account integrations.Account, r *catalog.Resource, sid, from, to string, values map[string]any) error {
	w := account.Workspace
	if !account.Active {
		return problem.Errorf(problem.Forbidden, "the integration is not active").WithFix("An admin activates it under Integrations.")
	}
	if _, err := tx.Account(ctx, w, account.ID, true); err != nil {
		return err
	}
	if known, err := cr.find(ctx, tx, w, r, r.Lookup("provider_id", clip(sid, 100))); err != nil || known != nil {
		return err
	}
	values["direction"], values["status"], values["sent_at"] = "in", statusReceived, timestamp(cr.now())
	values["provider_id"], values["account_id"] = clip(sid, 100), account.ID
	set(values, "from", clip(from, 40))
	set(values, "to", clip(to, 40))
	contact, _, err := cr.contactBy(ctx, tx, w, "phone", from)
	if err != nil {
		return err
	}
	set(values, "contact_id", contact)
	return cr.keep(ctx, tx, w, r, values)
}
