package messages

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"trustpager/catalog"
	"trustpager/integrations"
)

// phone plans what sends a text message or calls somebody.
func (cr *Carrier) phone(ctx context.Context, s catalog.Store, a *catalog.Action, c catalog.Call, lock bool) (catalog.Plan, error) {
	tx := catalog.As[Store](s)
	rec, err := cr.earlier(ctx, s, a, c, lock)
	if err != nil {
		return catalog.Plan{}, err
	}
	if rec != nil {
		return cr.planAgain(a, c, *rec, func(from string) (string, catalog.PlanCheck, error) {
			account, _, check, err := cr.number(ctx, tx, c.Grant.Workspace.ID, from)
			return account, check, err
		})
	}
	in := c.Input.Values
	values := map[string]any{"direction": "out", "status": catalog.Queued, "to": in["to"]}
	for _, name := range []string{"body", "say", "contact_id", "deal_id"} {
		set(values, name, in[name])
	}
	account, from, check, err := cr.number(ctx, tx, c.Grant.Workspace.ID, str(in["sender"]))
	if err != nil {
		return catalog.Plan{}, err
	}
	set(values, "from", from)
	set(values, "account_id", account)
	whom := catalog.PlanCheck{Name: "recipient", OK: true, Text: "The number is valid."}
	if mayReadContacts(c.Grant) {
		id, name, err := cr.contactBy(ctx, s, c.Grant.Workspace.ID, "phone", str(in["to"]))
		if err != nil {
			return catalog.Plan{}, err
		}
		whom.Text = str(in["to"]) + " is the contact " + clip(name, 80) + "."
		if id == "" {
			whom.OK, whom.Text = false, "No contact has the number "+str(in["to"])+"."
		}
		if values["contact_id"] == nil {
			set(values, "contact_id", id)
		}
	}
	limit, err := cr.capCheck(ctx, tx, c)
	if err != nil {
		return catalog.Plan{}, err
	}
	p := catalog.Plan{Checks: []catalog.PlanCheck{check, whom, limit}, After: maps.Clone(values)}
	hide(p.After)
	if in["sender"] == nil && check.OK {
		p.Pinned = map[string]any{"sender": from}
	}
	p.Target.Title = a.Of().TitleOf(catalog.JSON(values))
	if a.Resource == smsResource {
		values["thread_id"] = conversation(from, str(in["to"]))
	}
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		return cr.post(ctx, catalog.As[Store](s), a, c, values)
	}
	return p, nil
}

// conversation names what two numbers say to each other.
func conversation(ours, theirs string) string {
	h := sha256.Sum256([]byte(ours + " " + theirs))
	return "conv_" + hex.EncodeToString(h[:13])
}

// number returns the account that has the number, or the default one's first
// number for "". What stands against it is told by the check.
func (cr *Carrier) number(ctx context.Context, tx Store, workspace, number string) (account, from string, check catalog.PlanCheck, err error) {
	check = catalog.PlanCheck{Name: "sender", Blocks: true}
	all, err := tx.Accounts(ctx, workspace, integrations.TwilioKind)
	if err != nil {
		return "", "", check, err
	}
	all = slices.DeleteFunc(all, func(a integrations.Account) bool { return !a.Active || len(a.Settings.Numbers) == 0 })
	var connected []string
	for _, t := range all {
		connected = append(connected, t.Settings.Numbers...)
		switch {
		case number != "" && slices.Contains(t.Settings.Numbers, number):
			account, from = t.ID, number
		case number == "" && (t.Default || len(all) == 1):
			account, from = t.ID, t.Settings.Numbers[0]
		default:
			continue
		}
		check.OK, check.Text = true, "The number "+from+" is connected."
		if t.Sealed == "" {
			check.OK, check.Text = false, "The account of the number "+from+" has no auth token: an admin enters it under Integrations."
		} else if t.State == integrations.Failing {
			check.OK, check.Blocks, check.Text = false, false, "The number "+from+" is connected, but the last check of its account failed: "+t.StateText
		}
		return account, from, check, nil
	}
	switch {
	case len(all) == 0:
		check.Text = "No telephone service with a number is connected: an admin connects one under Integrations."
	case number == "":
		check.Text = "None of the connected telephone services is the default; name a sender, which is one of " + strings.Join(connected, ", ") + "."
	default:
		check.Text = "The number " + number + " is not connected. Connected are " + strings.Join(connected, ", ") + "."
	}
	return "", number, check, nil
}

// twilio returns the client of the account, and where it is to tell what became
// of the record.
func (cr *Carrier) twilio(ctx context.Context, workspace string, values map[string]any, p carry) (integrations.Twilio, string, error) {
	account, err := cr.account(ctx, workspace, str(values["account_id"]))
	if err != nil {
		return integrations.Twilio{}, "", err
	}
	if !slices.Contains(account.Settings.Numbers, str(values["from"])) {
		return integrations.Twilio{}, "", refused("the account %s does not have the number %s any more", account.Name, str(values["from"]))
	}
	t, err := cr.Accounts.Twilio(account)
	back := cr.BaseURL + callbackPath + account.ID + "/status?" + url.Values{"id": {p.ID}, "try": {attemptOf(values)}}.Encode()
	return t, back, err
}

// attemptOf says how often a person has had the record taken out, and sentAs under
// which key it goes.
func attemptOf(values map[string]any) string {
	return strconv.FormatInt(max(integer(values["attempt"]), 1), 10)
}

func sentAs(values map[string]any, p carry) string { return cmp.Or(str(values["sent_as"]), p.ID) }

func (cr *Carrier) takeSMS(ctx context.Context, workspace string, values map[string]any, p carry) (map[string]any, error) {
	t, back, err := cr.twilio(ctx, workspace, values, p)
	if err != nil {
		return nil, err
	}
	h, err := t.SendSMS(ctx, cr.Accounts.Network, integrations.SMS{ID: sentAs(values, p), From: str(values["from"]), To: str(values["to"]), Body: str(values["body"]), StatusCallback: back})
	return map[string]any{"status": statusSent, "provider_id": h.SID, "sent_at": timestamp(cr.now())}, err
}

func (cr *Carrier) takeCall(ctx context.Context, workspace string, values map[string]any, p carry) (map[string]any, error) {
	t, back, err := cr.twilio(ctx, workspace, values, p)
	if err != nil {
		return nil, err
	}
	h, err := t.StartCall(ctx, cr.Accounts.Network, integrations.PhoneCall{ID: sentAs(values, p), From: str(values["from"]), To: str(values["to"]), Say: str(values["say"]), StatusCallback: back})
	return map[string]any{"status": statusSent, "provider_id": h.SID, "sent_at": timestamp(cr.now())}, err
}
