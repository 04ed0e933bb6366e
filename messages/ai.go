package messages

import (
	"context"
	"fmt"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/integrations"
	"trustpager/problem"
	"trustpager/typeid"
)

// ai plans what a language model is asked, or reads what it has written.
func (cr *Carrier) ai(ctx context.Context, s catalog.Store, a *catalog.Action, c catalog.Call, lock bool) (catalog.Plan, error) {
	if a.Name == "get_ai_result" {
		return cr.planResult(ctx, s, a, c, lock)
	}
	tx := catalog.As[Store](s)
	in := c.Input.Values
	prompt := &integrations.Prompt{System: system}
	var kind, title string
	var err error
	switch a.Name {
	case "ai_draft_email":
		kind = "draft_email"
		prompt.Task = "Write the text of an e-mail, without subject line, as follows: " + str(in["instructions"])
		for _, m := range []struct{ field, resource string }{{"contact_id", "contacts"}, {"deal_id", "deals"}, {"email_id", emailResource}} {
			if id := str(in[m.field]); id != "" && err == nil {
				_, err = cr.show(ctx, s, c, prompt, m.resource, id, m.field)
			}
		}
	case "ai_summarize_record":
		kind = "summary"
		prompt.Task = "Summarize the record in a few sentences."
		if look := str(in["instructions"]); look != "" {
			prompt.Task += " Look above all for this: " + look
		}
		title, err = cr.showAny(ctx, s, a, c, prompt, str(in["resource"]), str(in["record_id"]))
	case "ai_edit_text":
		kind = "edit"
		prompt.Task = "Rewrite the text, and answer with nothing but the new text. Do this with it: " + str(in["instructions"])
		prompt.Data = []integrations.Material{{Name: "text", Text: str(in["text"])}}
	default:
		return catalog.Plan{}, fmt.Errorf("there is no AI action %s", a.Name)
	}
	if err != nil {
		return catalog.Plan{}, err
	}
	account, check, spent, err := cr.model(ctx, tx, c)
	if err != nil {
		return catalog.Plan{}, err
	}
	prompt.MaxTokens = account.Settings.MaxTokens
	if title == "" {
		title = clip(line(str(in["instructions"])), 80)
	}
	p := catalog.Plan{
		Target: catalog.Target{Title: title},
		After:  map[string]any{"kind": kind},
		Checks: []catalog.PlanCheck{check, spent},
	}
	set(p.After, "model", account.Settings.Model)
	set(p.After, "text", in["text"]) // it leaves the house
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		tx := catalog.As[Store](s)
		if rec, err := cr.earlier(ctx, s, a, c, true); err != nil {
			return catalog.Result{}, err
		} else if rec != nil {
			return cr.again(ctx, tx, a, c, *rec, map[string]any{"account_id": account.ID}, prompt)
		}
		r, w := a.Of(), c.Grant.Workspace.ID
		id := typeid.NewID(r.Prefix)
		values := map[string]any{"kind": kind, "status": catalog.Queued, "account_id": account.ID, "asked_by": c.Grant.Principal.ID}
		set(values, "approval_id", c.Approval)
		rec, err := r.Insert(ctx, tx, w, id, values, c.Now)
		if err != nil {
			return catalog.Result{}, err
		}
		if err := cr.enqueue(ctx, tx, w, r.Name, carry{id, approvals.OriginOf(a, c), prompt}, c.Now); err != nil {
			return catalog.Result{}, err
		}
		return result(r, rec)
	}
	return p, nil
}

// system is what every model is told first.
const system = "You write texts for the staff of a business, who read and check them before they use them. " +
	"Answer with the text that is asked for and nothing else: no preamble, no explanation. " +
	"Do not invent facts, names, numbers or promises; where something is missing, leave a gap in square brackets."

// show gives the model a record that the caller may read, and returns what it is
// called; the reference to it has been checked.
func (cr *Carrier) show(ctx context.Context, s catalog.Store, c catalog.Call, p *integrations.Prompt, resource, id, field string) (title string, err error) {
	r := cr.resource(resource)
	rec, err := s.Record(ctx, c.Grant.Workspace.ID, resource, id, false)
	if err != nil {
		return "", err
	}
	data, err := r.Answer(rec)
	if err != nil {
		return "", err
	}
	p.Data = append(p.Data, integrations.Material{Name: strings.TrimSuffix(field, "_id"), Text: string(data)})
	return r.TitleOf(rec.Body), nil
}

// showAny is show for a record that the caller names by its resource.
func (cr *Carrier) showAny(ctx context.Context, s catalog.Store, a *catalog.Action, c catalog.Call, p *integrations.Prompt, resource, id string) (title string, err error) {
	r, ok := cr.Catalog.Resource(resource)
	var may []string
	for _, each := range cr.Catalog.Resources() {
		if each.Keeps && c.Grant.Decide(each.Name, access.Read) == access.Run {
			may = append(may, each.Name)
		}
	}
	if !ok || !r.Keeps || c.Grant.Decide(resource, access.Read) != access.Run {
		return "", a.Refuse("resource", "a resource that you may read, one of "+strings.Join(may, ", "), fmt.Sprintf("%.60q", resource), "")
	}
	if !typeid.ValidID(r.Prefix, id) {
		return "", r.NotFound(id)
	}
	title, err = cr.show(ctx, s, c, p, resource, id, r.Singular)
	if problem.Is(err, problem.NotFound) {
		return "", r.NotFound(id)
	}
	return title, err
}

// model returns the account that is asked, with what stands against it.
func (cr *Carrier) model(ctx context.Context, tx Store, c catalog.Call) (integrations.Account, catalog.PlanCheck, catalog.PlanCheck, error) {
	check := catalog.PlanCheck{Name: "model", Blocks: true}
	spent := catalog.PlanCheck{Name: "cost", OK: true, Blocks: true, Text: "No monthly limit is set."}
	account, err := (&integrations.Accounts{Store: tx}).Default(ctx, c.Grant.Workspace.ID, integrations.ModelPurpose)
	if problem.Is(err, problem.Conflict) {
		e := problem.Of(err)
		check.Text = "No language model can be asked: " + e.Message + ". " + e.Fix
		return account, check, spent, nil
	}
	if err != nil {
		return account, check, spent, err
	}
	check.OK, check.Text = true, fmt.Sprintf("%s is asked, by the integration %s.", account.Settings.Model, account.Name)
	if account.Sealed == "" {
		check.OK, check.Text = false, fmt.Sprintf("The integration %s has no API key: an admin enters it under Integrations.", account.Name)
	} else if account.State == integrations.Failing {
		check.OK, check.Blocks = false, false
		check.Text += " Its last check failed: " + account.StateText
	}
	n, err := tx.Tally(ctx, c.Grant.Workspace.ID, costOf(account, c.Now))
	if err != nil {
		return account, check, spent, err
	}
	if most := account.Settings.MonthlyLimit; most > 0 {
		spent.OK = n < most*integrations.CostParts
		spent.Text = fmt.Sprintf("This month %s of %s are spent.", amount(n/integrations.CostParts, account.Settings.Currency), amount(most, account.Settings.Currency))
		if !spent.OK {
			spent.Text = fmt.Sprintf("The month's limit of %s for the integration %s is spent. An admin raises it under Integrations.", amount(most, account.Settings.Currency), account.Name)
		}
	}
	return account, check, spent, nil
}

func amount(minor int64, currency string) string {
	return strings.TrimSpace(fmt.Sprintf("%d.%02d %s", minor/100, minor%100, currency))
}

// planResult reads what came of a question, for whoever has asked it.
func (cr *Carrier) planResult(ctx context.Context, s catalog.Store, a *catalog.Action, c catalog.Call, lock bool) (catalog.Plan, error) {
	r := a.Of()
	rec, err := a.Find(ctx, s, c, lock)
	if err != nil {
		return catalog.Plan{}, err
	}
	values, err := rec.Values()
	if err != nil {
		return catalog.Plan{}, err
	}
	if values["asked_by"] != c.Grant.Principal.ID && !c.Grant.IsAdmin() {
		return catalog.Plan{}, r.NotFound(c.Input.ID)
	}
	return catalog.Plan{Target: r.TargetOf(rec), Run: func(context.Context, catalog.Store) (catalog.Result, error) { return result(r, rec) }}, nil
}

// takeAI asks the model.
func (cr *Carrier) takeAI(ctx context.Context, workspace string, values map[string]any, p carry) (map[string]any, error) {
	account, err := cr.account(ctx, workspace, str(values["account_id"]))
	if err != nil {
		return nil, err
	}
	if p.Prompt == nil {
		return nil, refused("the question is missing")
	}
	model, err := cr.Accounts.Model(account)
	if err != nil {
		return nil, err
	}
	prompt := *p.Prompt
	prompt.ID = p.ID
	done, err := model.Complete(ctx, prompt)
	if integrations.OutcomeOf(err) == integrations.Unknown {
		// Nothing but a bill comes of a question, so it may be put again.
		return nil, &integrations.Failure{Outcome: integrations.Temporary, Err: err}
	}
	if err != nil {
		return nil, err
	}
	if done.Stop == integrations.StopRefusal {
		return nil, refused("the model declined to write this")
	}
	set := account.Settings
	price := done.InputTokens*set.InputPrice + done.OutputTokens*set.OutputPrice // in millionths of a minor unit
	if _, _, err := cr.Store.AddTally(context.WithoutCancel(ctx), workspace, costOf(account, cr.now()), price, maxCost, cr.now()); err != nil {
		return nil, err
	}
	changes := map[string]any{"status": statusDone, "text": clip(done.Text, 100_000), "model": clip(done.Model, 200),
		"input_tokens": number(done.InputTokens), "output_tokens": number(done.OutputTokens)}
	if price > 0 {
		changes["cost"] = number((price + integrations.CostParts - 1) / integrations.CostParts)
	}
	if done.Stop == integrations.StopLength {
		changes["warning"] = fmt.Sprintf("It was cut off after %d tokens, the most that the integration allows.", done.OutputTokens)
	}
	return changes, nil
}

// costOf names what an account costs in the month, in millionths of a minor unit
// of its currency.
func costOf(a integrations.Account, now time.Time) Tally {
	return Tally{a.ID, integrations.CostTally, integrations.Month(now)}
}
