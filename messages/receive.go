package messages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/integrations"
	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/typeid"
)

// The kinds of the jobs by which mailboxes are read: one that looks which there
// are, and one for each.
const (
	readKind  = "email.read"
	watchKind = "email.watch"
)

// readEvery is how often a mailbox is read.
const readEvery = time.Minute

// readBatch is how many e-mails are fetched at a time.
const readBatch = 20

// Start has mailboxes read from now on.
func (cr *Carrier) Start(ctx context.Context) error {
	now := cr.now()
	j, err := jobs.New(now, "", watchKind, watchKind, struct{}{}, now)
	if err != nil {
		return err
	}
	return cr.InTx(ctx, func(tx Store) error { return tx.EnqueueJob(ctx, j) })
}

// watch has each mailbox read that there is.
func (cr *Carrier) watch(ctx context.Context, _ jobs.Job) error {
	now := cr.now()
	accounts, err := cr.Store.ReadableAccounts(ctx)
	if err != nil {
		return jobs.RetryAt(now.Add(readEvery), err)
	}
	for _, a := range accounts {
		j, err := jobs.New(now, a.Workspace, readKind, a.ID, readPayload{a.ID}, now)
		if err != nil {
			return err
		}
		if err := cr.InTx(ctx, func(tx Store) error { return tx.EnqueueJob(ctx, j) }); err != nil {
			return jobs.RetryAt(now.Add(readEvery), err)
		}
	}
	return jobs.Again(now.Add(readEvery))
}

type readPayload struct {
	Account string `json:"account"`
}

// read fetches what is new in one mailbox. A failure shows on the account, and
// the mailbox is read again with the next round.
func (cr *Carrier) read(ctx context.Context, j jobs.Job) error {
	var p readPayload
	if err := json.Unmarshal(j.Payload, &p); err != nil {
		return jobs.Permanent(fmt.Errorf("payload: %w", err))
	}
	for {
		account, err := cr.Store.Account(ctx, j.Workspace, p.Account, false)
		if problem.Is(err, problem.NotFound) || err == nil && (!account.Active || account.Settings.IMAPHost == "") {
			return nil
		}
		if err != nil {
			return err
		}
		more, err := cr.fetch(ctx, account)
		if _, ok := errors.AsType[*integrations.Failure](err); ok {
			text := "The mailbox could not be read: " + clip(err.Error(), 500)
			if account.State == integrations.Failing && account.StateText == text {
				return nil
			}
			return cr.Store.SetAccountState(ctx, j.Workspace, account.ID, integrations.Failing, text, cr.now())
		}
		if err != nil {
			return err
		}
		if account.State == integrations.Failing && strings.HasPrefix(account.StateText, "The mailbox could not be read") {
			if err := cr.Store.SetAccountState(ctx, j.Workspace, account.ID, integrations.Working, "The mailbox is read again.", cr.now()); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

// fetch stores the next e-mails of a mailbox, and how far it was read, at once.
func (cr *Carrier) fetch(ctx context.Context, account integrations.Account) (more bool, err error) {
	var at integrations.Cursor
	if account.Cursor != nil {
		if err := json.Unmarshal(account.Cursor, &at); err != nil {
			return false, fmt.Errorf("cursor of %s: %w", account.ID, err)
		}
	}
	imap, err := cr.Accounts.IMAP(account)
	if err != nil {
		return false, err
	}
	got, next, more, err := imap.Fetch(ctx, cr.Accounts.Network, at, readBatch)
	if err != nil || next == at && len(got) == 0 {
		return false, err
	}
	cursor, err := json.Marshal(next)
	if err != nil {
		return false, err
	}
	err = cr.InTx(ctx, func(tx Store) error {
		// Two mailboxes of a workspace may hold the same message.
		if err := tx.LockName(ctx, "mail "+account.Workspace); err != nil {
			return err
		}
		for _, m := range got {
			if err := cr.receive(ctx, tx, account, m); err != nil {
				return err
			}
		}
		return tx.SetAccountCursor(ctx, account.Workspace, account.ID, account.Version, cursor)
	})
	if problem.Is(err, problem.Conflict) {
		return false, nil // the account was changed meanwhile; the next round sees it as it is
	}
	return more, err
}

// receive stores one e-mail that came in, once.
func (cr *Carrier) receive(ctx context.Context, tx Store, account integrations.Account, m integrations.Received) error {
	r, w := cr.resource(emailResource), account.Workspace
	if m.Bounce != nil {
		return cr.bounced(ctx, tx, w, r, *m.Bounce)
	}
	if cr.Mail.Wrote(m.MessageID) {
		return nil // to one person, perhaps with a link that lets them in
	}
	id := clip(m.MessageID, 500)
	if id == "" {
		id = fmt.Sprintf("%d@%s.mailbox", m.UID, account.ID) // it has none of its own
	}
	known, taken, err := cr.known(ctx, tx, w, r, id, m.From.Address)
	if err != nil || known {
		return err // ours, by way of a list or a copy; or the mailbox has begun anew
	}
	var warnings []string
	if taken {
		id = fmt.Sprintf("%d@%s.mailbox", m.UID, account.ID)
		warnings = append(warnings, "Its Message-ID is that of somebody else's message.")
	}
	values := map[string]any{"direction": "in", "status": statusReceived, "message_id": id, "account_id": account.ID, "sent_at": timestamp(cr.now())}
	if m.Date.Year() > 1970 && m.Date.Before(cr.now()) {
		values["sent_at"] = timestamp(m.Date)
	}
	if from, ok := catalog.Email(m.From.Address); ok {
		values["from"] = from
	}
	text, cut := withoutLinks(m.Text)
	if cut {
		warnings = append(warnings, "Links of this server that let somebody in were taken out of it.")
	}
	set(values, "from_name", line(m.From.Name))
	set(values, "subject", line(m.Subject))
	set(values, "body", clip(text, 100_000))
	var to, cc []string
	for _, a := range m.To {
		to = append(to, a.Address)
	}
	for _, a := range m.CC {
		cc = append(cc, a.Address)
	}
	set(values, "to", tags(to[:min(len(to), 50)]))
	set(values, "cc", tags(cc[:min(len(cc), 50)]))
	switch {
	case m.Truncated:
		warnings = append(warnings, "It is longer than what is kept of it.")
	case m.HTMLOnly:
		warnings = append(warnings, "It came as HTML; this is its text.")
	}
	strange, err := cr.thread(ctx, tx, w, r, m, values)
	if err != nil {
		return err
	}
	if strange {
		warnings = append(warnings, "Who wrote this had no part in what it answers.")
	}
	set(values, "warning", strings.Join(warnings, " "))
	if values["contact_id"] == nil && values["from"] != nil {
		contact, _, err := cr.contactBy(ctx, tx, w, "email", str(values["from"]))
		if err != nil {
			return err
		}
		set(values, "contact_id", contact)
	}
	return cr.keep(ctx, tx, w, r, values)
}

// known reports whether the message of the id is here already, and whether only
// the id is: anybody can use the id of somebody else's message.
func (cr *Carrier) known(ctx context.Context, tx Store, workspace string, r *catalog.Resource, id, from string) (known, taken bool, err error) {
	recs, _, err := tx.ListRecords(ctx, workspace, r.Name, catalog.Query{Filters: []catalog.Filter{r.Lookup("message_id", id)}, Limit: 20})
	if err != nil {
		return false, false, err
	}
	for _, rec := range recs {
		values, err := rec.Values()
		if err != nil {
			return false, false, err
		}
		if values["message_id"] == id && strings.EqualFold(str(values["from"]), from) {
			return true, false, nil
		}
	}
	return false, len(recs) > 0, nil
}

// keep stores what came in as the newest of its thread.
func (cr *Carrier) keep(ctx context.Context, tx Store, workspace string, r *catalog.Resource, values map[string]any) error {
	now, id := cr.now(), typeid.NewID(r.Prefix)
	if r.Name != callsResource {
		if values["thread_id"] == nil {
			values["thread_id"] = id
		}
		n, err := cr.join(ctx, tx, workspace, r, str(values["thread_id"]), now)
		if err != nil {
			return err
		}
		values["latest"], values["thread_count"] = true, number(n)
	}
	if _, err := r.Insert(ctx, tx, workspace, id, values, now); err != nil {
		return err
	}
	return cr.Gate.Tell(ctx, tx, workspace, access.System, "")
}

// thread finds the thread that an e-mail belongs to, by what it answers. Its
// subject says nothing: anybody can write one. It reports whether the writer had
// no part in what they answer: then the thread's contact and deal are not theirs.
func (cr *Carrier) thread(ctx context.Context, tx Store, workspace string, r *catalog.Resource, m integrations.Received, values map[string]any) (strange bool, err error) {
	ids := append([]string{}, m.References...)
	slices.Reverse(ids) // the nearest first
	ids = append([]string{m.InReplyTo}, ids...)
	for _, id := range ids[:min(len(ids), 10)] {
		if id == "" {
			continue
		}
		rec, err := cr.find(ctx, tx, workspace, r, r.Lookup("message_id", clip(id, 500)))
		if err != nil {
			return false, err
		}
		if rec == nil {
			continue
		}
		of, err := rec.Values()
		if err != nil {
			return false, err
		}
		values["thread_id"], values["reply_to_id"] = of["thread_id"], rec.ID
		if !takesPart(of, m.From.Address) {
			return true, nil
		}
		set(values, "contact_id", of["contact_id"])
		set(values, "deal_id", of["deal_id"])
		return false, nil
	}
	return false, nil
}

// takesPart reports whether the address stands on a message.
func takesPart(of map[string]any, address string) bool {
	all := append([]string{str(of["from"])}, slices.Concat(texts(of["to"]), texts(of["cc"]), texts(of["bcc"]))...)
	return slices.ContainsFunc(all, func(a string) bool { return strings.EqualFold(a, address) })
}

// bounced notes that a message of ours has not arrived. Reports about others, and
// about delays, say nothing to anybody here.
func (cr *Carrier) bounced(ctx context.Context, tx Store, workspace string, r *catalog.Resource, b integrations.Bounce) error {
	if !b.Final || b.MessageID == "" {
		return nil
	}
	rec, err := cr.find(ctx, tx, workspace, r, r.Lookup("message_id", clip(b.MessageID, 500)))
	if err != nil || rec == nil {
		return err
	}
	values, err := rec.Values()
	if err != nil || values["direction"] != "out" || values["status"] != statusSent || !takesPart(values, b.Recipient) {
		return err
	}
	// What the report says in words is not repeated: anybody can send one.
	text := fmt.Sprintf("a mail server reports that %s did not get it (status %s)", line(b.Recipient), line(b.Status))
	failure := problem.Errorf(problem.Outside, "it came back: %s", clip(text, 600)).WithFix("A person lets it be; with another address it is asked for anew.")
	o, err := cr.originOf(ctx, tx, workspace, r, values)
	if err != nil {
		return err
	}
	return cr.tell(ctx, tx, workspace, r, *rec, o, map[string]any{"status": statusBounced, "error": clip(text, 1000)}, failure)
}

// originOf rebuilds where a message came from that went out some time ago.
func (cr *Carrier) originOf(ctx context.Context, tx Store, workspace string, r *catalog.Resource, values map[string]any) (approvals.Origin, error) {
	o := approvals.Origin{Approval: str(values["approval_id"])}
	input := map[string]any{"sender": values["from"]}
	take := func(names ...string) {
		for _, name := range names {
			set(input, name, values[name])
		}
	}
	take("contact_id", "deal_id")
	switch {
	case r.Name == smsResource:
		o.Action = "send_sms"
		take("to", "body")
	case r.Name == callsResource:
		o.Action = "initiate_call"
		take("to", "say")
	case values["reply_to_id"] != nil:
		o.Action, o.Target = "reply_to_email", str(values["reply_to_id"])
		input = map[string]any{"id": o.Target, "body": values["body"], "sender": values["from"]}
		take("cc")
	default:
		o.Action = "send_email"
		take("to", "cc", "bcc", "subject", "body")
	}
	o.Input = catalog.JSON(input)
	var err error
	o.By, o.Parent, err = cr.asker(ctx, tx, workspace, str(values["asked_by"]))
	return o, err
}

// asker returns who a credential is, as far as it still exists.
func (cr *Carrier) asker(ctx context.Context, tx Store, workspace, id string) (access.Principal, string, error) {
	by := access.Principal{Kind: access.KindKey, ID: id, Name: "a credential that is gone"}
	switch {
	case typeid.ValidID("key", id):
	case typeid.ValidID("grt", id):
		by.Kind = access.KindOAuth
	default:
		return access.Principal{Kind: access.KindPerson, ID: id, Name: id, User: id}, "", nil
	}
	g, err := cr.Gate.Requester(ctx, tx, workspace, by)
	if problem.Is(err, problem.NotFound) {
		return by, "", nil
	}
	return g.Principal, g.Parent, err
}

// door is a link of this server by which somebody comes in: a new password, an
// invitation, the set-up; as it is, encoded once more by what rewrites links, and
// broken at the end of a line by what quotes them.
var door = regexp.MustCompile(`(?i)(reset|invite|setup)(\?|%3F|&#63;)token(=|%3D|&#61;)([\w%.~-]{40,}|[\w%.~-]*(=?\s+[>|\s]*[\w%.~-]+)?)`)

// withoutLinks takes the links out of a text that let somebody in. Whoever may
// read the messages of a mailbox is not to come in as the one that it belongs to.
func withoutLinks(text string) (without string, cut bool) {
	without = door.ReplaceAllString(text, "$1 [link taken out]")
	return without, without != text
}

// line returns a text on one line without what is no character of it.
func line(s string) string {
	return clip(strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)), " "), 500)
}
