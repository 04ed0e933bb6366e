package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/integrations"
	"trustpager/jobs"
	"trustpager/problem"
)

// NoticeKind is the kind of the one job that tells people of approvals.
//
// What is to be told is found in the database, so that asking costs nothing: the
// job looks which approvals each member may decide and has not been told of, and
// comes back when the next are due. A member's row says up to which approval
// they were told; of several nodes that send at once, one moves it, and enqueues
// the message with it.
const NoticeKind = "notice.tell"

// When people are told.
const (
	// gather is how long what is asked is gathered for one message, so that a
	// flood of requests is no flood of messages.
	gather = time.Minute
	// apart is how far apart a member's messages are at least, so that neither are
	// many requests one after the other, nor such that are asked and withdrawn.
	apart = 5 * time.Minute
	// settle is how old an approval is at least when it is told: the order of ids
	// is that of their making, and transactions that began earlier may end later.
	settle = 5 * time.Second
	// warnBefore is how long before its end people are reminded of an approval that
	// lives longer.
	warnBefore = 24 * time.Hour
	// dailyAt is the hour of the daily message.
	dailyAt = 8
	// lookAgain is how long the job sleeps at most, should nobody have woken it.
	lookAgain = 10 * time.Minute
)

// maxListed is how many approvals stand in a message; the rest is counted.
const maxListed = 20

// A Reader is a member who wants to be told of approvals, and what they have
// been told.
type Reader struct {
	User   access.User // with the role in the workspace
	Notice access.Notice
	Told   string    // id of the last approval that they were told of, "" before
	ToldAt time.Time // when they were sent the last message, zero before
	Warned time.Time // they were reminded of all approvals that end until then
}

// Notices returns how jobs of [NoticeKind] are run.
func (d *Desk) Notices() jobs.Kind {
	return jobs.Kind{Handle: d.tellAll, Workers: 1, Timeout: time.Minute, Outgoing: true,
		Retry: func(int) (time.Duration, bool) { return time.Minute, true }} // never given up: it is always there
}

// ExpectNotices sees to it that the job runs when what was asked just now is to
// be told. It costs a read unless the job sleeps longer.
func (d *Desk) ExpectNotices(ctx context.Context) error {
	at := d.now().Add(gather + settle)
	due, ok, err := d.Store.NextJobDue(ctx, NoticeKind)
	if err != nil || ok && !due.After(at) {
		return err
	}
	return d.scheduleNotices(ctx, d.Store, at)
}

// StartNotices has the job look at once, as when the server starts.
func (d *Desk) StartNotices(ctx context.Context) error {
	return d.scheduleNotices(ctx, d.Store, d.now())
}

func (d *Desk) scheduleNotices(ctx context.Context, tx jobs.Enqueuer, at time.Time) error {
	j, err := jobs.New(d.now(), "", NoticeKind, NoticeKind, struct{}{}, at)
	if err != nil {
		return err
	}
	return tx.EnqueueJob(ctx, j)
}

// SetNotice says when the person is told of approvals in one of their
// workspaces.
func (d *Desk) SetNotice(ctx context.Context, p Person, workspace string, n access.Notice) error {
	g, err := d.PersonGrant(p, workspace)
	if err != nil {
		return err
	}
	if !slices.Contains([]access.Notice{access.NoticeOff, access.NoticeImmediately, access.NoticeHourly, access.NoticeDaily}, n) {
		return refuseFields("the notices", []problem.Field{{Path: "notice", Expected: "off, immediately, hourly or daily", Got: fmt.Sprintf("%.30q", string(n))}})
	}
	return d.InTx(ctx, func(tx Store) error {
		if err := tx.SetNotice(ctx, workspace, p.User.ID, n); err != nil {
			return err
		}
		if err := d.scheduleNotices(ctx, tx, d.now()); err != nil {
			return err
		}
		return d.record(ctx, tx, g, audit.UserChanged, p.User.ID, map[string]any{"notice": n})
	})
}

// tellAll tells everybody who is due, and comes back for the next.
func (d *Desk) tellAll(ctx context.Context, _ jobs.Job) error {
	now := d.now()
	next := now.Add(lookAgain)
	workspaces, err := d.Store.PendingWorkspaces(ctx)
	for _, id := range workspaces {
		due, terr := d.tellWorkspace(ctx, id, now)
		if err = errors.Join(err, terr); terr == nil && !due.IsZero() && due.Before(next) {
			next = due
		}
	}
	if err != nil {
		return err // those who were told are not told again
	}
	return jobs.Again(next)
}

// tellWorkspace tells the members of a workspace who are due. It returns when
// the next is, the zero time if nobody is.
func (d *Desk) tellWorkspace(ctx context.Context, id string, now time.Time) (next time.Time, err error) {
	w, err := d.Store.Workspace(ctx, id)
	if err != nil {
		return next, err
	}
	readers, err := d.Store.Readers(ctx, id)
	if err != nil || len(readers) == 0 {
		return next, err
	}
	pending, err := d.Store.PendingApprovals(ctx, id, now)
	if err != nil {
		return next, err
	}
	for _, r := range readers {
		b, berr := d.batchOf(ctx, w, r, pending, now)
		if berr == nil && !b.due.IsZero() && !b.due.After(now) {
			berr = d.tell(ctx, b)
			b.due = now.Add(apart) // for what has come meanwhile
		}
		if err = errors.Join(err, berr); !b.due.IsZero() && (next.IsZero() || b.due.Before(next)) {
			next = b.due
		}
	}
	return next, err
}

// A batch is what one member is told at a time.
type batch struct {
	workspace access.Workspace
	reader    Reader
	due       time.Time // the zero time if there is nothing to tell
	fresh     []approvals.Approval
	ending    []approvals.Approval // told before, and about to end

	told   string // what the reader has been told then
	warned time.Time
}

// batchOf returns what the member is to be told of the pending approvals.
func (d *Desk) batchOf(ctx context.Context, w access.Workspace, r Reader, pending []approvals.Approval, now time.Time) (batch, error) {
	b := batch{workspace: w, reader: r, told: r.Told, warned: r.Warned}
	g := d.grantOf(Person{User: r.User}, access.Membership{Workspace: w, Role: r.User.Role})
	soonest := func(t time.Time) {
		if b.due.IsZero() || t.Before(b.due) {
			b.due = t
		}
	}
	for _, a := range pending {
		untold := a.ID > r.Told
		unwarned := a.ExpiresAt.Sub(a.CreatedAt) > warnBefore && a.ExpiresAt.After(r.Warned)
		ends := unwarned && !a.ExpiresAt.After(now.Add(warnBefore))
		if !untold && !ends {
			if unwarned {
				soonest(a.ExpiresAt.Add(gather - warnBefore))
			}
			continue
		}
		if may, err := d.Gate.MayDecide(ctx, g, a); err != nil || !may {
			if err != nil {
				return batch{}, err
			}
			continue
		}
		if unwarned {
			soonest(a.ExpiresAt.Add(gather - warnBefore))
		}
		if untold {
			at := tellAt(r.Notice, a.CreatedAt.Add(settle), w.TimeZone)
			if again := r.ToldAt.Add(apart); again.After(at) {
				at = again
			}
			soonest(at)
		}
		switch {
		case untold && !a.CreatedAt.After(now.Add(-settle)):
			b.fresh, b.told = append(b.fresh, a), a.ID
		case ends && !untold:
			b.ending = append(b.ending, a)
		default:
			continue
		}
		if ends && a.ExpiresAt.After(b.warned) {
			b.warned = a.ExpiresAt
		}
	}
	return b, nil
}

// tellAt returns when a member is told of what has settled at a time.
func tellAt(n access.Notice, settled time.Time, zone string) time.Time {
	switch n {
	case access.NoticeHourly:
		return settled.Add(time.Hour)
	case access.NoticeDaily:
		at, err := time.LoadLocation(zone)
		if err != nil {
			at = time.UTC
		}
		local := settled.In(at)
		day := time.Date(local.Year(), local.Month(), local.Day(), dailyAt, 0, 0, 0, at)
		if day.Before(settled) {
			day = time.Date(local.Year(), local.Month(), local.Day()+1, dailyAt, 0, 0, 0, at)
		}
		return day
	}
	return settled.Add(gather)
}

// tell sends the message of a batch, unless another node has.
func (d *Desk) tell(ctx context.Context, b batch) error {
	if len(b.fresh)+len(b.ending) == 0 {
		return nil
	}
	msg := b.message(d.Gate, d.Gate.BaseURL)
	return d.InTx(ctx, func(tx Store) error {
		ok, err := tx.TellReader(ctx, b.workspace.ID, b.reader, b.told, b.warned, d.now())
		if err != nil || !ok {
			return err
		}
		return d.Mail.Enqueue(ctx, tx, b.workspace.ID, msg)
	})
}

// message returns the batch as a message. Nothing that agents wrote stands in
// its subject, and in its body only in quotation marks.
func (b batch) message(gate *approvals.Gate, baseURL string) integrations.Message {
	n := len(b.fresh) + len(b.ending)
	subject, first := fmt.Sprintf("%d approvals wait for you", n), "%d actions of agents wait for your decision in the workspace %s.\n"
	if n == 1 {
		subject, first = "An approval waits for you", "%d action of an agent waits for your decision in the workspace %s.\n"
	}
	if len(b.fresh) == 0 {
		subject += ", and soon no more"
	}
	at, err := time.LoadLocation(b.workspace.TimeZone)
	if err != nil {
		at = time.UTC
	}
	var text strings.Builder
	fmt.Fprintf(&text, first, n, integrations.Quote(b.workspace.Name, maxQuoted))
	until, listed := time.Time{}, 0
	for _, part := range []struct {
		heading string
		of      []approvals.Approval
	}{{"Expires within 24 hours:", b.ending}, {"New:", b.fresh}} {
		if len(part.of) > 0 && len(b.ending) > 0 && listed < maxListed {
			fmt.Fprintf(&text, "\n%s\n", part.heading)
		}
		for _, a := range part.of {
			if a.ExpiresAt.After(until) {
				until = a.ExpiresAt
			}
			if listed < maxListed {
				listed++
				fmt.Fprintf(&text, "\n%d. %s\n   expires %s\n   %s\n", listed, factsOf(a), a.ExpiresAt.In(at).Format("2 January 2006, 15:04 MST"), gate.URL(a))
			}
		}
	}
	if n > listed {
		fmt.Fprintf(&text, "\n… and %d more: %s/settings/api?tab=approvals\n", n-listed, baseURL)
	}
	fmt.Fprintf(&text, "\nYou decide after logging in. What you are told, and when, you choose at\n%s/account\n", baseURL)
	return integrations.Message{To: b.reader.User.Email, Name: b.reader.User.Name, Subject: subject, Body: text.String(),
		Member: b.reader.User.ID, Role: b.reader.User.Role, Until: until}
}

// maxQuoted is how many characters of a name or title stand in a message.
const maxQuoted = 60

// factsOf says who wants to do what: facts of the database, and names and titles
// as quotations.
func factsOf(a approvals.Approval) string {
	s := fmt.Sprintf("%s asks to %s %s (%s)", integrations.Quote(cmp.Or(a.By.Name, a.By.ID), maxQuoted), a.Verb, a.Resource, a.Action)
	switch {
	case a.Title != "":
		s += ": " + integrations.Quote(a.Title, maxQuoted)
	case a.TargetID != "":
		s += ": " + a.TargetID
	}
	return s
}
