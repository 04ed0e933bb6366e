package approvals

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"trustpager/access"
	"trustpager/catalog"
	"trustpager/problem"
)

// RequestAccess is the [catalog.Service] of the action of this name: a
// credential asks for a loan, and whoever approves it lends it, within what
// [Gate.Lend] allows. It changes nothing but what queues: what the credential
// may do at once, or not even after approval, is refused when it is asked for.
func (gate *Gate) RequestAccess(ctx context.Context, s catalog.Store, a *catalog.Action, c catalog.Call, lock bool) (catalog.Plan, error) {
	resource, v := a.About(c.Input)
	minutes, err := strconv.Atoi(fmt.Sprint(c.Input.Values["minutes"]))
	if err != nil {
		return catalog.Plan{}, fmt.Errorf("the minutes of a loan: %w", err) // Decode has looked at them
	}
	lasts := time.Duration(minutes) * time.Minute
	p := catalog.Plan{Target: catalog.Target{Title: fmt.Sprintf("%s of %s", v, resource)}}
	tx := catalog.As[Store](s)
	err = gate.Catalog.Lendable(c.Grant.Workspace, resource, v)
	if err == nil {
		err = needs(c.Grant, resource, v)
	}
	if err == nil && c.Decider.ID != "" {
		err = gate.mayLend(ctx, tx, c, resource, v)
	}
	if err != nil {
		if _, ok := errors.AsType[*problem.Error](err); !ok || c.Approval == "" {
			return p, err
		}
		p.Checks = append(p.Checks, catalog.PlanCheck{Name: "loan", Blocks: true, Text: sentence(problem.Of(err).Message)})
	} else {
		p.Checks = append(p.Checks, catalog.PlanCheck{Name: "loan", OK: true, Text: "It can be lent, and what it is for has to wait today."})
	}
	p.Run = func(ctx context.Context, s catalog.Store) (catalog.Result, error) {
		tx := catalog.As[Store](s)
		if _, err := tx.LockWorkspace(ctx, c.Grant.Workspace.ID); err != nil { // see Lend
			return catalog.Result{}, err
		}
		l, err := gate.makeLoan(ctx, tx, Loan{Workspace: c.Grant.Workspace.ID, Resource: resource, Verb: v, Approval: c.Approval, By: c.Decider,
			CreatedAt: c.Now, ExpiresAt: c.Now.Add(lasts)}, c.Grant.Principal)
		if err != nil {
			return catalog.Result{}, err
		}
		return catalog.Result{Data: catalog.JSON(map[string]any{"loan_id": l.ID, "resource": l.Resource, "verb": l.VerbName,
			"expires_at": l.ExpiresAt.Format(time.RFC3339), "uses": json.Number(strconv.FormatInt(l.Remaining, 10))})}, nil
	}
	return p, nil
}

// needs refuses to lend g what it does not have to ask for.
func needs(g access.Grant, resource string, v access.Verb) error {
	switch g.Decide(resource, v) {
	case access.Queue:
		return nil
	case access.Run:
		return problem.Errorf(problem.Conflict, "%s of %s does not have to be lent: this credential does it at once", v, resource).WithFix("Do it, without asking.")
	}
	return problem.Errorf(problem.InsufficientScope, "%s of %s cannot be lent: this credential may not do it, not even after approval", v, resource).
		WithFix("Ask an admin of the workspace to give this credential the right, if only with approval.")
}

// mayLend refuses a decider who may not do at once what is to be lent.
func (gate *Gate) mayLend(ctx context.Context, tx Store, c catalog.Call, resource string, v access.Verb) error {
	switch c.Decider.Kind {
	case access.KindOperator:
		return nil
	case access.KindPerson:
		g, err := gate.personGrant(ctx, tx, c.Grant.Workspace, c.Decider.User)
		if err == nil && g.Decide(resource, v) != access.Run {
			return notYours
		}
		return err
	}
	return problem.Errorf(problem.InsufficientScope, "only people lend what was asked for") // mayDecide lets nobody else come here
}

// lentBefore returns the id of the last loan of the same that is over, "" if there
// was none: once that changes, the same question is a new one. It fails with
// [problem.Conflict] while what is asked for is lent.
func (gate *Gate) lentBefore(ctx context.Context, tx Store, a *catalog.Action, c catalog.Call) (last string, err error) {
	resource, v := a.About(c.Input)
	loans, err := tx.Loans(ctx, c.Grant.Workspace.ID, LoanQuery{Credential: c.Grant.Principal.ID, Resource: resource, Verb: v.String(), Limit: 2})
	if err != nil {
		return "", err
	}
	for _, l := range loans {
		if !l.InForce(c.Now) {
			return l.ID, err
		}
		err = problem.Errorf(problem.Conflict, "%s of %s is lent to this credential already, until %s: %d uses are left", v, resource, l.ExpiresAt.Format(time.RFC3339), l.Remaining).
			WithFix("Use it. Ask again when it is over.")
	}
	return "", err
}

// loanFacts tells what approving would lend, or has lent.
func (c *Card) loanFacts(cat *catalog.Catalog, a Approval, effective json.RawMessage) {
	var tools []any
	for _, name := range cat.Lent(a.Resource, a.Verb) {
		tools = append(tools, name)
	}
	add := func(name string, t catalog.Type, v any) {
		c.Facts = append(c.Facts, Fact{Name: name, Type: t, Proposed: catalog.JSON(v), Changes: true})
	}
	add("lent_to", catalog.TypeString, a.By.Name)
	add("resource", catalog.TypeString, a.Resource)
	add("verb", catalog.TypeString, a.Verb.String())
	c.Facts = append(c.Facts, Fact{Name: "minutes", Type: catalog.TypeInteger, Proposed: members(effective)["minutes"], Changes: true})
	add("uses_at_most", catalog.TypeInteger, json.Number(strconv.Itoa(LoanUses)))
	add("runs_at_once", catalog.TypeTags, tools)
}
