package messages

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/mail"
	"slices"
	"strings"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/integrations"
	"trustpager/problem"
	"trustpager/typeid"
)

// mostRecipients is how many addresses one e-mail goes to.
const mostRecipients = 20

// A draft is an e-mail that is being planned.
type draft struct {
	values      map[string]any // of its record
	target      catalog.Target // the message that it answers
	sender      string         // the address that it is to go out from, "" for the default one
	to, cc, bcc []string
}

// email plans what sends an e-mail.
func (cr *Carrier) email(ctx context.Context, s catalog.Store, a *catalog.Action, c catalog.Call, lock bool) (catalog.Plan, error) {
	tx := catalog.As[Store](s)
	rec, err := cr.earlier(ctx, s, a, c, lock)
	if err != nil {
		return catalog.Plan{}, err
	}
	if rec != nil {
		return cr.planAgain(a, c, *rec, func(address string) (string, catalog.PlanCheck, error) {
			account, _, check, err := cr.sender(ctx, tx, c.Grant.Workspace.ID, address)
			return account, check, err
		})
	}
	d, err := cr.draft(ctx, tx, a, c, lock)
	p := catalog.Plan{Target: d.target}
	if err != nil {
		return p, err
	}
	account, from, check, err := cr.sender(ctx, tx, c.Grant.Workspace.ID, d.sender)
	if err != nil {
		return p, err
	}
	set(d.values, "from", from.Address)
	set(d.values, "from_name", from.Name)
	set(d.values, "account_id", account)
	whom, contact, err := cr.recipients(ctx, s, c.Grant, slices.Concat(d.to, d.cc, d.bcc))
	if err != nil {
		return p, err
	}
	if d.values["contact_id"] == nil {
		set(d.values, "contact_id", contact)
	}
	limit, err := cr.capCheck(ctx, tx, c)
	if err != nil {
		return p, err
	}
	p.Checks = []catalog.PlanCheck{check, whom, limit}
	p.After = maps.Clone(d.values)
	hide(p.After)
	if c.Input.Values["sender"] == nil && check.OK {
		p.Pinned = map[string]any{"sender": from.Address}
	}
	if p.Target.ID == "" {
		p.Target.Title = a.Of().TitleOf(catalog.JSON(d.values))
	}
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		return cr.post(ctx, catalog.As[Store](s), a, c, d.values)
	}
	return p, nil
}

// draft reads the input: what is written to whom.
func (cr *Carrier) draft(ctx context.Context, tx Store, a *catalog.Action, c catalog.Call, lock bool) (d draft, err error) {
	in := c.Input.Values
	d.sender = str(in["sender"])
	d.values = map[string]any{"direction": "out", "status": catalog.Queued, "body": newlines(str(in["body"]))}
	for _, name := range []string{"contact_id", "deal_id", "subject"} {
		set(d.values, name, in[name])
	}
	if a.Name == "reply_to_email" {
		err = cr.answer(ctx, tx, a, c, lock, &d)
	} else {
		d.to, err = addresses(a, "to", in)
	}
	if err != nil {
		return d, err
	}
	further, err := addresses(a, "cc", in)
	if err != nil {
		return d, err
	}
	if d.bcc, err = addresses(a, "bcc", in); err != nil {
		return d, err
	}
	d.cc = without(append(d.cc, further...), d.to)
	d.bcc = without(d.bcc, slices.Concat(d.to, d.cc))
	if n := len(d.to) + len(d.cc) + len(d.bcc); n > mostRecipients {
		return d, a.Refuse("to", fmt.Sprintf("at most %d addresses with cc and bcc", mostRecipients), fmt.Sprint(n), "Send several messages.")
	}
	set(d.values, "to", tags(d.to))
	set(d.values, "cc", tags(d.cc))
	set(d.values, "bcc", tags(d.bcc))
	return d, nil
}

// answer makes the draft an answer to the target of the call.
func (cr *Carrier) answer(ctx context.Context, tx Store, a *catalog.Action, c catalog.Call, lock bool, d *draft) error {
	rec, err := a.Find(ctx, tx, c, lock)
	if err != nil {
		return err
	}
	d.target = a.Of().TargetOf(rec)
	of, err := rec.Values()
	if err != nil {
		return err
	}
	var ours string
	if d.to, d.cc, ours, err = cr.answerTo(ctx, tx, c, of, c.Input.Values["reply_all"] == true); err != nil {
		return err
	}
	d.sender = cmp.Or(d.sender, ours)
	d.values["reply_to_id"] = rec.ID
	set(d.values, "subject", replySubject(str(of["subject"])))
	for _, name := range []string{"thread_id", "contact_id", "deal_id"} {
		set(d.values, name, of[name])
	}
	return nil
}

// newlines returns the text with one kind of ends of lines.
func newlines(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// hide takes from what a card shows what says nothing to a person.
func hide(after map[string]any) {
	for name := range after {
		switch name {
		case "from", "from_name", "to", "cc", "bcc", "subject", "body", "say", "contact_id", "deal_id", "reply_to_id":
		default:
			delete(after, name)
		}
	}
}

// planAgain plans to take out once more what an earlier run has made: that is
// what is shown, and nothing of it is asked for anew. The account may have been
// connected anew since: accountOf finds that of the sender as it is now.
func (cr *Carrier) planAgain(a *catalog.Action, c catalog.Call, rec catalog.Record, accountOf func(sender string) (string, catalog.PlanCheck, error)) (catalog.Plan, error) {
	values, err := rec.Values()
	if err != nil {
		return catalog.Plan{}, err
	}
	account, check, err := accountOf(str(values["from"]))
	if err != nil {
		return catalog.Plan{}, err
	}
	p := catalog.Plan{Target: catalog.Target{Title: a.Of().TitleOf(rec.Body)}, After: maps.Clone(values), Checks: []catalog.PlanCheck{check}}
	hide(p.After)
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		changes := map[string]any{"account_id": nil}
		set(changes, "account_id", account)
		return cr.again(ctx, catalog.As[Store](s), a, c, rec, changes, nil)
	}
	return p, nil
}

// post counts the message, stores it and has it taken out.
func (cr *Carrier) post(ctx context.Context, tx Store, a *catalog.Action, c catalog.Call, values map[string]any) (catalog.Result, error) {
	r, w := a.Of(), c.Grant.Workspace.ID
	if err := cr.count(ctx, tx, c); err != nil {
		return catalog.Result{}, err
	}
	id := typeid.NewID(r.Prefix)
	values = maps.Clone(values)
	values["asked_by"] = c.Grant.Principal.ID
	set(values, "approval_id", c.Approval)
	if r.Name == emailResource {
		_, domain, _ := strings.Cut(str(values["from"]), "@") // it was checked
		values["message_id"] = id + "@" + domain
		if values["thread_id"] == nil {
			values["thread_id"] = id
		}
	}
	if values["thread_id"] != nil {
		n, err := cr.join(ctx, tx, w, r, str(values["thread_id"]), c.Now)
		if err != nil {
			return catalog.Result{}, err
		}
		values["latest"], values["thread_count"] = true, number(n)
	}
	rec, err := r.Insert(ctx, tx, w, id, values, c.Now)
	if err != nil {
		return catalog.Result{}, err
	}
	if err := cr.enqueue(ctx, tx, w, r.Name, carry{ID: id, Origin: approvals.OriginOf(a, c)}, c.Now); err != nil {
		return catalog.Result{}, err
	}
	res, err := result(r, rec)
	if answered := str(values["reply_to_id"]); err == nil && answered != "" {
		// So that another answer that was proposed to it is out of date.
		var of catalog.Record
		if of, err = tx.Record(ctx, w, r.Name, answered, true); err == nil {
			of, err = r.Change(ctx, tx, w, of, map[string]any{"answered_at": timestamp(c.Now)}, c.Now)
		}
		res.After = of.Version
	}
	return res, err
}

// addresses reads a member of the input that holds e-mail addresses.
func addresses(a *catalog.Action, field string, in map[string]any) ([]string, error) {
	var all []string
	for i, text := range texts(in[field]) {
		address, ok := catalog.Email(strings.TrimSpace(text))
		if !ok {
			return nil, a.Refuse(fmt.Sprintf("%s.%d", field, i), `an e-mail address such as "ada@example.com"`, fmt.Sprintf("%.80q", text), "Send addresses without names.")
		}
		if !slices.ContainsFunc(all, func(o string) bool { return strings.EqualFold(o, address) }) {
			all = append(all, address)
		}
	}
	return all, nil
}

// without returns the addresses that are not among the others.
func without(all, others []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(a string) bool {
		return slices.ContainsFunc(others, func(o string) bool { return strings.EqualFold(a, o) })
	})
}

// answerTo returns to whom an answer goes, and the address of ours that the
// message came to or from.
func (cr *Carrier) answerTo(ctx context.Context, tx Store, c catalog.Call, of map[string]any, all bool) (to, cc []string, ours string, err error) {
	mine, err := tx.Accounts(ctx, c.Grant.Workspace.ID, integrations.EmailKind)
	if err != nil {
		return nil, nil, "", err
	}
	for _, m := range mine {
		if m.ID == str(of["account_id"]) {
			ours = m.Settings.Address
		}
	}
	if of["direction"] == "in" {
		to = []string{str(of["from"])}
		if all {
			cc = slices.Concat(texts(of["to"]), texts(of["cc"]))
		}
	} else {
		to = texts(of["to"])
		if all {
			cc = texts(of["cc"])
		}
	}
	own := []string{ours}
	for _, m := range mine {
		own = append(own, m.Settings.Address)
	}
	if to = slices.DeleteFunc(without(to, own), func(s string) bool { _, ok := catalog.Email(s); return !ok }); len(to) == 0 {
		return nil, nil, "", problem.Errorf(problem.Conflict, "the message has no address to answer to").WithFix("Write a new message with send_email.")
	}
	return to, without(cc, append(own, to...)), ours, nil
}

func replySubject(s string) string {
	if len(s) >= 3 && strings.EqualFold(s[:3], "re:") {
		return s
	}
	return clip("Re: "+s, 200)
}

// sender returns the account that sends as the address, or the default one for
// "", "" if the workspace has none and the server's own mailer sends, and what
// the address is. What stands against it is told by the check.
func (cr *Carrier) sender(ctx context.Context, tx Store, workspace, address string) (account string, from mail.Address, check catalog.PlanCheck, err error) {
	all, err := tx.Accounts(ctx, workspace, integrations.EmailKind)
	if err != nil {
		return "", from, check, err
	}
	check = catalog.PlanCheck{Name: "sender", OK: true, Blocks: true}
	if len(all) == 0 && (address == "" || strings.EqualFold(address, cr.Mail.Sender().Address)) {
		check.Text = "No mail account is connected: the server's own mail server sends it as " + cr.Mail.Sender().Address + "."
		if !cr.Mail.Sends() {
			check.Text = "No mail server is connected: it goes nowhere, but is written to the server's outbox folder."
		}
		return "", cr.Mail.Sender(), check, nil
	}
	all = slices.DeleteFunc(all, func(a integrations.Account) bool { return !a.Active })
	var chosen *integrations.Account
	var connected []string
	for i := range all {
		m := &all[i]
		connected = append(connected, m.Settings.Address)
		if address != "" && strings.EqualFold(m.Settings.Address, address) || address == "" && (m.Default || len(all) == 1) {
			chosen = m
		}
	}
	if chosen == nil {
		check.OK = false
		switch {
		case address == "":
			check.Text = "None of the connected mail accounts is the default; name a sender, which is one of " + strings.Join(connected, ", ") + "."
			if len(all) == 0 {
				check.Text = "No mail account is active: an admin activates one under Integrations."
			}
		case len(connected) == 0:
			check.Text = "The sender " + address + " is not connected, and no other is."
		default:
			check.Text = "The sender " + address + " is not connected. Connected are " + strings.Join(connected, ", ") + "; edit the sender to choose one."
		}
		return "", mail.Address{Address: address}, check, nil
	}
	check.Text = "The sender " + chosen.Settings.Address + " is connected."
	if chosen.State == integrations.Failing {
		check.OK, check.Blocks = false, false
		check.Text = "The sender " + chosen.Settings.Address + " is connected, but its last check failed: " + chosen.StateText
	}
	return chosen.ID, mail.Address{Name: chosen.Settings.SenderName, Address: chosen.Settings.Address}, check, nil
}

// lookedUp is how many recipients are looked up among the contacts.
const lookedUp = 5

// recipients says which of the addresses the workspace knows, as far as the
// caller may know that, and returns the first contact that has one.
func (cr *Carrier) recipients(ctx context.Context, s catalog.Store, g access.Grant, all []string) (catalog.PlanCheck, string, error) {
	check := catalog.PlanCheck{Name: "recipient", OK: true, Text: "The addresses are valid."}
	if !mayReadContacts(g) {
		return check, "", nil
	}
	var known, strange []string
	var contact string
	for _, address := range all[:min(len(all), lookedUp)] {
		id, name, err := cr.contactBy(ctx, s, g.Workspace.ID, "email", address)
		switch {
		case err != nil:
			return check, "", err
		case id == "":
			strange = append(strange, address)
			continue
		case contact == "":
			contact = id
		}
		known = append(known, fmt.Sprintf("%s is the contact %s", address, clip(name, 80)))
	}
	if strange != nil {
		check.OK = false
		check.Text = "No contact has the address " + strings.Join(strange, " or ") + "."
		return check, contact, nil
	}
	check.Text = strings.Join(known, "; ") + "."
	return check, contact, nil
}

// takeEmail hands the message to its mail server, or writes it to the outbox.
func (cr *Carrier) takeEmail(ctx context.Context, workspace string, values map[string]any, p carry) (map[string]any, error) {
	l := integrations.Letter{
		MessageID: str(values["message_id"]),
		Date:      cr.now(),
		From:      mail.Address{Name: str(values["from_name"]), Address: str(values["from"])},
		To:        texts(values["to"]), CC: texts(values["cc"]), BCC: texts(values["bcc"]),
		Subject: str(values["subject"]), Text: str(values["body"]),
	}
	if answered := str(values["reply_to_id"]); answered != "" {
		rec, err := cr.Store.Record(ctx, workspace, emailResource, answered, false)
		if err == nil {
			of, err := rec.Values()
			if err != nil {
				return nil, err
			}
			l.InReplyTo = str(of["message_id"])
			l.References = []string{l.InReplyTo}
		} else if !problem.Is(err, problem.NotFound) {
			return nil, err
		}
		if l.InReplyTo == "" {
			l.References = nil
		}
	}
	done := map[string]any{"status": statusSent, "sent_at": timestamp(cr.now())}
	id := str(values["account_id"])
	if id == "" {
		written, err := cr.Mail.Post(ctx, l)
		if written {
			done["status"] = statusWritten
			done["warning"] = "It has gone nowhere: no mail server is connected, so it was written to the server's outbox folder."
		}
		return done, err
	}
	account, err := cr.account(ctx, workspace, id)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(account.Settings.Address, l.From.Address) {
		return nil, refused("the account %s does not send as %s any more", account.Name, l.From.Address)
	}
	smtp, err := cr.Accounts.SMTP(account)
	if err != nil {
		return nil, err
	}
	return done, smtp.Send(ctx, cr.Accounts.Network, l)
}

// account returns an account that may be used now.
func (cr *Carrier) account(ctx context.Context, workspace, id string) (integrations.Account, error) {
	account, err := cr.Store.Account(ctx, workspace, id, false)
	switch {
	case problem.Is(err, problem.NotFound):
		return account, refused("the account that it was to go out by is not connected any more")
	case err == nil && !account.Active:
		return account, refused("the account %s is not active", account.Name)
	}
	return account, err
}
