package web

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"trustpager/access"
	"trustpager/approvals"
)

// A loanRow is something that is lent to a credential.
type loanRow struct {
	ID, What string
	By       string
	Until    *moment
	Uses     int64
	Of       int64
}

// loansShown is how many loans in force a page lists.
const loansShown = 20

// lent returns what is lent to the credential now.
func (p *Pages) lent(ctx context.Context, in room, credential string) ([]loanRow, error) {
	loans, err := p.Gate.Loans(ctx, in.grant, approvals.LoanQuery{Credential: credential, InForceAt: p.Now(), Limit: loansShown})
	if err != nil {
		return nil, err
	}
	rows := make([]loanRow, len(loans))
	for i, l := range loans {
		label := l.Resource
		if r, ok := p.Catalog.Resource(l.Resource); ok {
			label = r.Label
		}
		rows[i] = loanRow{l.ID, label + ": " + l.VerbName, l.By.Name, momentOf(l.ExpiresAt, p.Now(), in.zone()), l.Uses, l.Uses + l.Remaining}
	}
	return rows, nil
}

// lendOptions are how long something can be lent.
func lendOptions() []option {
	var options []option
	for _, d := range approvals.LoanTimes {
		title := fmt.Sprintf("%d min", int(d.Minutes()))
		if d >= time.Hour {
			title = fmt.Sprintf("%d h", int(d.Hours()))
		}
		options = append(options, option{Value: fmt.Sprint(int(d.Minutes())), Title: title})
	}
	return options
}

func (p *Pages) lend(r *http.Request, in room, id string) (answer, error) {
	minutes, err := strconv.Atoi(r.PostForm.Get("minutes"))
	if err != nil {
		return answer{}, wrongField("minutes", "one of the choices", r.PostForm.Get("minutes"))
	}
	l, err := p.Gate.Lend(r.Context(), in.grant, id, time.Duration(minutes)*time.Minute)
	if err != nil {
		return p.undecided(r, id, err)
	}
	p.tell(r.Context(), fmt.Sprintf("Lent until %s, for %d uses at most. %s does it without asking meanwhile; this request itself still waits for you.",
		momentOf(l.ExpiresAt, p.Now(), in.zone()).Exact, l.Remaining, visibleText(l.Name)))
	return backTo(r, id), nil
}

func (p *Pages) endLoan(r *http.Request, in room) (answer, error) {
	l, err := p.Gate.EndLoan(r.Context(), in.grant, r.PathValue("loan"))
	if err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), visibleText(l.Name)+" asks again from its next request on.")
	return redirect(safeNext(r.PostForm.Get("next"))), nil
}

// A pausePage stops agents, and lets them go on.
type pausePage struct {
	All     *pauseRow // nil while not all are paused
	Singles []pauseRow
}

// A pauseRow is one pause.
type pauseRow struct {
	Credential string
	By         string
	At         *moment
}

func (p *Pages) pausePage(_ *http.Request, in room) (answer, error) {
	var page pausePage
	for _, pause := range in.membership.Workspace.Settings.Paused {
		if pause.With != "" {
			continue // it resumes with the key that it stems from
		}
		row := pauseRow{pause.Credential, pause.By, momentOf(pause.At, p.Now(), in.zone())}
		if pause.Credential == "" {
			page.All = &row
		} else {
			page.Singles = append(page.Singles, row)
		}
	}
	return answer{page: "pause.html", title: "Pause agents", data: page}, nil
}

// pause stops one credential, or all.
func (p *Pages) pause(r *http.Request, in room) (answer, error) {
	return p.paused(r, in, p.Admin.Pause, "Paused, from the next request on. What was asked for waits, and cannot be approved meanwhile.")
}

func (p *Pages) resume(r *http.Request, in room) (answer, error) {
	return p.paused(r, in, p.Admin.Resume, "Resumed, from the next request on.")
}

func (p *Pages) paused(r *http.Request, in room, do func(context.Context, access.Grant, string) error, says string) (answer, error) {
	if err := do(r.Context(), in.grant, r.PostForm.Get("credential")); err != nil {
		return answer{}, err
	}
	p.tell(r.Context(), says)
	if next := safeNext(r.PostForm.Get("next")); next != "/" {
		return redirect(next), nil
	}
	return redirect("/settings/pause"), nil
}
