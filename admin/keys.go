package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/problem"
	"trustpager/typeid"
	"trustpager/webhook"
)

// A KeyInput is what an admin says of a key. A nil member is left as it is, or
// as it is for a new key.
type KeyInput struct {
	Name          *string              `json:"name,omitempty"`
	FullAccess    *bool                `json:"full_access,omitempty"`
	MayDecide     *bool                `json:"may_decide,omitempty"`
	Scopes        *[]string            `json:"scopes,omitempty"`
	Limits        *access.Limits       `json:"limits,omitempty"`
	ExpiresAt     *time.Time           `json:"expires_at,omitempty"`  // the zero time means never
	WebhookURL    *string              `json:"webhook_url,omitempty"` // "" removes it
	WebhookEvents *[]webhook.EventType `json:"webhook_events,omitempty"`
}

// A MadeKey is a key with the secrets that are shown only now.
type MadeKey struct {
	Key           access.Key
	Secret        access.Secret  // "" unless it is new
	WebhookSecret webhook.Secret // nil unless it is new
}

// MaxOverlap is the longest time that the old secret of a rotated key works.
const MaxOverlap = 168 * time.Hour

// CreateKey makes a key. The secret is in the answer and nowhere else.
func (d *Desk) CreateKey(ctx context.Context, g access.Grant, in KeyInput) (MadeKey, error) {
	if err := requireAdmin(g); err != nil {
		return MadeKey{}, err
	}
	secret := access.NewSecret()
	k := access.Key{ID: typeid.NewID("key"), Workspace: g.Workspace.ID, Last4: secret.Last4(), Limits: access.DefaultLimits,
		CreatedBy: g.Principal, CreatedAt: d.now()}
	byKey := g.Principal.Kind == access.KindKey
	if byKey {
		k.Parent = g.Principal.ID
		k.Limits.PerMinute, k.Limits.PerDay = lower(k.Limits.PerMinute, g.Limits.PerMinute), lower(k.Limits.PerDay, g.Limits.PerDay)
		if g.Key != nil {
			k.ExpiresAt = g.Key.ExpiresAt
		}
	}
	target, err := d.applyKey(ctx, g, &k, in)
	if err != nil {
		return MadeKey{}, err
	}
	made := MadeKey{Key: k, Secret: secret}
	err = d.InTx(ctx, func(tx Store) error {
		if byKey {
			if err := d.lockMaker(ctx, tx, g, k); err != nil {
				return err
			}
		}
		if err := tx.CreateKey(ctx, k, secret.Hash()); err != nil {
			return err
		}
		var err error
		if made.WebhookSecret, err = d.setWebhook(ctx, tx, g, k.ID, in, target); err != nil {
			return err
		}
		return d.record(ctx, tx, g, audit.KeyCreated, k.ID, keyDetail(k))
	})
	if err != nil {
		return MadeKey{}, err
	}
	return made, nil
}

// lower returns the lower of two limits, of which 0 is none.
func lower(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// lockMaker locks the key that makes another, and refuses it if it may not any
// more. Whoever revokes, deletes or demotes it locks it too, and so finds the
// keys that it has made or keeps it from making one.
func (d *Desk) lockMaker(ctx context.Context, tx Store, g access.Grant, made access.Key) error {
	maker, err := tx.Key(ctx, g.Workspace.ID, g.Principal.ID, true)
	if err != nil && !problem.Is(err, problem.NotFound) {
		return err
	}
	if err != nil || !maker.RevokedAt.IsZero() || !maker.FullAccess {
		return problem.Errorf(problem.InsufficientScope, "this key may not make keys any more").
			WithFix("Ask an admin of the workspace.")
	}
	g.Key, g.Limits = &maker, maker.Limits
	return mayGive(g, nil, made)
}

// UpdateKey changes a key. The change holds from the key's next request. What
// the key loses, the keys that it has made lose with it: without full access
// they are revoked, without "may decide" they may not either, and they expire
// no later.
func (d *Desk) UpdateKey(ctx context.Context, g access.Grant, id string, in KeyInput) (MadeKey, error) {
	if err := requireAdmin(g); err != nil {
		return MadeKey{}, err
	}
	// The name of a webhook's host is looked up before the transaction.
	k, err := key(ctx, d.Store, g.Workspace.ID, id, false)
	if err != nil {
		return MadeKey{}, err
	}
	target, err := d.applyKey(ctx, g, &k, in)
	if err != nil {
		return MadeKey{}, err
	}
	var made MadeKey
	err = d.InTx(ctx, func(tx Store) error {
		old, err := tx.Key(ctx, g.Workspace.ID, id, true)
		if err != nil {
			return err
		}
		k := old
		if err := d.checkKey(g, &k, in); err != nil {
			return err
		}
		if err := tx.UpdateKey(ctx, k); err != nil {
			return err
		}
		made.Key = k
		if made.WebhookSecret, err = d.setWebhook(ctx, tx, g, k.ID, in, target); err != nil {
			return err
		}
		if err := d.record(ctx, tx, g, audit.KeyChanged, k.ID, keyDetail(k)); err != nil {
			return err
		}
		return d.follow(ctx, tx, g, old, k)
	})
	if err != nil {
		return MadeKey{}, err
	}
	return made, nil
}

// follow takes from the keys that the key has made what it has just lost
// itself.
func (d *Desk) follow(ctx context.Context, tx Store, g access.Grant, old, k access.Key) error {
	demoted := old.FullAccess && !k.FullAccess
	undecided := old.MayDecide && !k.MayDecide
	sooner := later(old.ExpiresAt, k.ExpiresAt)
	if !demoted && !undecided && !sooner {
		return nil
	}
	children, err := descendants(ctx, tx, k.Workspace, k.ID)
	if err != nil {
		return err
	}
	for _, c := range children {
		before := keyDetail(c)
		if undecided {
			c.MayDecide = false
		}
		if sooner && later(c.ExpiresAt, k.ExpiresAt) {
			c.ExpiresAt = k.ExpiresAt
		}
		if detail := keyDetail(c); !maps.Equal(detail, before) {
			if err := tx.UpdateKey(ctx, c); err != nil {
				return err
			}
			detail["with"] = k.ID
			if err := d.record(ctx, tx, g, audit.KeyChanged, c.ID, detail); err != nil {
				return err
			}
		}
		if demoted {
			if err := d.revoke(ctx, tx, g, c, map[string]any{"with": k.ID}); err != nil {
				return err
			}
		}
	}
	return nil
}

// later reports whether expiry a is later than b. The zero time is never.
func later(a, b time.Time) bool {
	if b.IsZero() {
		return false
	}
	return a.IsZero() || a.After(b)
}

// descendants locks the keys that stem from the key, and returns them, makers
// before those that they have made. A key that is locked makes no more, so
// none is missed.
func descendants(ctx context.Context, tx Store, workspace, id string) ([]access.Key, error) {
	var keys []access.Key
	for seen := map[string]bool{}; ; {
		ids, err := tx.ChildKeys(ctx, workspace, id)
		if err != nil {
			return nil, err
		}
		before := len(seen)
		for _, child := range ids {
			if seen[child] {
				continue
			}
			seen[child] = true
			k, err := tx.Key(ctx, workspace, child, true)
			if problem.Is(err, problem.NotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			keys = append(keys, k)
		}
		if len(seen) == before {
			return keys, nil
		}
	}
}

// key reads a key. What is no id is not looked up: it may hold what the
// database refuses.
func key(ctx context.Context, s Store, workspace, id string, forUpdate bool) (access.Key, error) {
	if !typeid.ValidID("key", id) {
		return access.Key{}, problem.Errorf(problem.NotFound, "there is no key %.60q", id).WithFix("List the keys to find the right id.")
	}
	return s.Key(ctx, workspace, id, forUpdate)
}

// applyKey puts what in says into k, and checks the webhook.
func (d *Desk) applyKey(ctx context.Context, g access.Grant, k *access.Key, in KeyInput) (webhook.Target, error) {
	err := d.checkKey(g, k, in)
	if err != nil && !problem.Is(err, problem.Validation) && !problem.Is(err, problem.MissingFields) {
		return webhook.Target{}, err
	}
	target, werr := d.checkWebhook(ctx, in)
	if err == nil {
		return target, werr
	}
	if e, ok := errors.AsType[*problem.Error](werr); ok && len(e.Fields) > 0 {
		// All that is wrong is told at once.
		return webhook.Target{}, badKey(append(problem.Of(err).Fields, e.Fields...))
	}
	return webhook.Target{}, err
}

func (d *Desk) checkWebhook(ctx context.Context, in KeyInput) (webhook.Target, error) {
	var events []webhook.EventType
	if in.WebhookEvents != nil {
		events = *in.WebhookEvents
	}
	if in.WebhookURL != nil && *in.WebhookURL != "" {
		return d.Webhooks.Check(ctx, *in.WebhookURL, events)
	}
	if in.WebhookURL == nil && in.WebhookEvents != nil {
		return webhook.Target{}, &problem.Error{Kind: problem.MissingFields, Message: "webhook_events needs webhook_url",
			Fix:    "Send webhook_url with webhook_events; setting it gives the webhook a new secret.",
			Fields: []problem.Field{{Path: "webhook_url", Expected: "the https URL of a public server", Got: "nothing"}}}
	}
	return webhook.Target{}, nil
}

// maxFaults is how many of the things that are wrong with a key are told.
const maxFaults = 50

// badKey says what is wrong with a key.
func badKey(fields []problem.Field) error {
	return &problem.Error{Kind: problem.Validation, Message: "the key cannot be like that", Fix: "Correct the fields that are listed.", Fields: fields}
}

// checkKey puts what in says into k, and refuses what g may not give.
func (d *Desk) checkKey(g access.Grant, k *access.Key, in KeyInput) error {
	old := *k
	var fields []problem.Field
	bad := func(path, expected, got string) {
		if len(fields) < maxFaults {
			fields = append(fields, problem.Field{Path: path, Expected: expected, Got: got})
		}
	}
	if in.Name != nil {
		k.Name = strings.TrimSpace(*in.Name)
	}
	nameless := in.Name == nil && k.Name == ""
	switch {
	case nameless:
		bad("name", nameForm, "nothing")
	case !validName(k.Name):
		bad("name", nameForm, fmt.Sprintf("%.120q", k.Name))
	}
	if in.FullAccess != nil {
		if k.FullAccess = *in.FullAccess; k.FullAccess && in.Scopes == nil {
			k.Scopes = nil // full access holds them all
		}
		if !k.FullAccess && in.MayDecide == nil {
			k.MayDecide = false
		}
	}
	if in.Scopes != nil {
		k.Scopes = d.parseScopes(*in.Scopes, bad)
	}
	if in.MayDecide != nil {
		k.MayDecide = *in.MayDecide
	}
	if k.MayDecide && !k.FullAccess {
		bad("may_decide", "only with full_access: a key that decides may do everything", "may_decide without full_access")
	}
	if k.FullAccess && len(k.Scopes) > 0 {
		bad("scopes", "none with full_access, which holds them all", access.FormatScopes(k.Scopes))
	}
	if in.Limits != nil {
		k.Limits = *in.Limits
	}
	checkLimits(k.Limits, bad)
	if in.ExpiresAt != nil {
		k.ExpiresAt = in.ExpiresAt.UTC().Truncate(time.Millisecond)
		if !k.ExpiresAt.IsZero() && (!k.ExpiresAt.After(d.now()) || k.ExpiresAt.Year() > 9999) {
			bad("expires_at", "a time in the future, or null for never", in.ExpiresAt.Format(time.RFC3339))
		}
	}
	if nameless && len(fields) == 1 {
		return &problem.Error{Kind: problem.MissingFields, Message: "a key needs a name", Fix: `Send {"name": "…"}, with full_access or scopes.`, Fields: fields}
	}
	if len(fields) > 0 {
		return badKey(fields)
	}
	return mayGive(g, &old, *k)
}

// parseScopes returns the scopes, once each, and tells bad of those that are
// none of the catalog's.
func (d *Desk) parseScopes(texts []string, bad func(path, expected, got string)) []access.Scope {
	var scopes []access.Scope
	for i, text := range texts {
		s, err := access.ParseScope(text)
		if err == nil {
			err = d.Catalog.CheckScopes([]access.Scope{s})
		}
		if err != nil {
			bad(fmt.Sprintf("scopes.%d", i), err.Error(), fmt.Sprintf("%.100q", text))
			continue
		}
		if !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	return scopes
}

func checkLimits(l access.Limits, bad func(path, expected, got string)) {
	if n := l.PerMinute; n < 0 || n > 1_000_000 {
		bad("limits.per_minute", "0 (no limit) to 1000000", fmt.Sprint(n))
	}
	if n := l.PerDay; n < 0 || n > 1_000_000_000 {
		bad("limits.per_day", "0 (no limit) to 1000000000", fmt.Sprint(n))
	}
}

// mayGive refuses g if it would give k more than it has itself, beyond what old
// has already; a nil old means that k is new. People who are admins have
// everything. A key has its limits and its expiry, and gives the right to
// decide, or changes a key that has it or had it so far, only if it has it.
func mayGive(g access.Grant, old *access.Key, k access.Key) error {
	if g.Principal.Kind != access.KindKey {
		return nil
	}
	var me access.Key
	if g.Key != nil {
		me = *g.Key
	}
	was := access.Key{Limits: access.Limits{PerMinute: -1, PerDay: -1}, ExpiresAt: time.Unix(0, 0)} // nothing that k could be
	if old != nil {
		was = *old
	}
	more := func(was, is, mine int64) bool { return is != was && mine != 0 && (is == 0 || is > mine) }
	var what string
	switch {
	case (k.MayDecide || was.MayDecide) && !me.MayDecide:
		return problem.Errorf(problem.InsufficientScope, "this key may not decide approvals, so it cannot manage a key that may").
			WithFix("Ask an admin of the workspace.")
	case more(was.Limits.PerMinute, k.Limits.PerMinute, g.Limits.PerMinute):
		what = fmt.Sprintf("limit of %d requests a minute", g.Limits.PerMinute)
	case more(was.Limits.PerDay, k.Limits.PerDay, g.Limits.PerDay):
		what = fmt.Sprintf("limit of %d requests a day", g.Limits.PerDay)
	case !k.ExpiresAt.Equal(was.ExpiresAt) && later(k.ExpiresAt, me.ExpiresAt):
		what = "expiry at " + me.ExpiresAt.Format(time.RFC3339)
	default:
		return nil
	}
	return problem.Errorf(problem.InsufficientScope, "this key cannot give more than it has: it has a %s", what).
		WithFix("Ask for no more than that, or ask an admin of the workspace.")
}

// setWebhook stores or removes the key's webhook, if in speaks of it.
func (d *Desk) setWebhook(ctx context.Context, tx Store, g access.Grant, id string, in KeyInput, to webhook.Target) (webhook.Secret, error) {
	if in.WebhookURL == nil {
		return nil, nil
	}
	if *in.WebhookURL == "" {
		err := tx.RemoveEndpoint(ctx, g.Workspace.ID, id)
		if problem.Is(err, problem.NotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return nil, d.record(ctx, tx, g, audit.WebhookRemoved, id, nil)
	}
	e, secret, err := d.Webhooks.Set(ctx, tx, g.Workspace.ID, id, to)
	if err != nil {
		return nil, err
	}
	return secret, d.record(ctx, tx, g, audit.WebhookSet, id, map[string]any{"url": e.URL, "events": e.Events})
}

func keyDetail(k access.Key) map[string]any {
	return map[string]any{"name": k.Name, "full_access": k.FullAccess, "may_decide": k.MayDecide,
		"scopes": access.FormatScopes(k.Scopes), "limits": k.Limits, "expires_at": k.ExpiresAt}
}

// Key returns one key.
func (d *Desk) Key(ctx context.Context, g access.Grant, id string) (access.Key, error) {
	if err := requireAdmin(g); err != nil {
		return access.Key{}, err
	}
	return key(ctx, d.Store, g.Workspace.ID, id, false)
}

// Keys returns a page of keys, newest first, after the key with the given id.
func (d *Desk) Keys(ctx context.Context, g access.Grant, after string, limit int) ([]access.Key, error) {
	if err := requireAdmin(g); err != nil {
		return nil, err
	}
	return d.Store.Keys(ctx, g.Workspace.ID, after, limit)
}

// Usage returns the key's counts since the given hour.
func (d *Desk) Usage(ctx context.Context, g access.Grant, id string, since time.Time) ([]access.Count, error) {
	if _, err := d.Key(ctx, g, id); err != nil {
		return nil, err
	}
	return d.Store.UsageHistory(ctx, g.Workspace.ID, id, since)
}

// DailyUsage returns the counts of the credentials by day in UTC, since the day
// of the given time, oldest first.
func (d *Desk) DailyUsage(ctx context.Context, g access.Grant, credentials []string, since time.Time) ([]access.DayCount, error) {
	if err := requireAdmin(g); err != nil {
		return nil, err
	}
	return d.Store.DailyUsage(ctx, g.Workspace.ID, credentials, since.UTC().Truncate(24*time.Hour))
}

// WorkspaceUsage returns the counts of all credentials together by day in UTC,
// since the day of the given time, oldest first.
func (d *Desk) WorkspaceUsage(ctx context.Context, g access.Grant, since time.Time) ([]access.DayCount, error) {
	if err := requireAdmin(g); err != nil {
		return nil, err
	}
	return d.Store.WorkspaceUsage(ctx, g.Workspace.ID, since.UTC().Truncate(24*time.Hour))
}

// LastUse returns the last use of a credential, with its name. Who is no admin
// asks about the OAuth clients that act for themselves only. It is zero if there
// was none.
func (d *Desk) LastUse(ctx context.Context, g access.Grant, user string) (access.LastUse, string, error) {
	if user == "" || user != g.Principal.User {
		if err := requireAdmin(g); err != nil {
			return access.LastUse{}, "", err
		}
	}
	return d.Store.LastUse(ctx, g.Workspace.ID, user)
}

// RevokeKey refuses the key from its next request on, and every key that it
// has made. Its pending approvals stay, and cannot be approved while it is
// revoked. Revoking twice is fine.
func (d *Desk) RevokeKey(ctx context.Context, g access.Grant, id string) (access.Key, error) {
	return d.change(ctx, g, id, func(tx Store, k *access.Key) error {
		children, err := descendants(ctx, tx, g.Workspace.ID, id)
		if err != nil {
			return err
		}
		for _, c := range children {
			if err := d.revoke(ctx, tx, g, c, map[string]any{"with": id}); err != nil {
				return err
			}
		}
		if err := d.revoke(ctx, tx, g, *k, nil); err != nil {
			return err
		}
		if k.RevokedAt.IsZero() {
			k.RevokedAt = d.now()
		}
		return nil
	})
}

// revoke revokes one locked key, unless it is revoked already.
func (d *Desk) revoke(ctx context.Context, tx Store, g access.Grant, k access.Key, detail any) error {
	if !k.RevokedAt.IsZero() {
		return nil
	}
	k.RevokedAt = d.now()
	if err := tx.UpdateKey(ctx, k); err != nil {
		return err
	}
	if err := d.Gate.EndLoans(ctx, tx, k.Workspace, k.ID, "the key was revoked", g.Principal); err != nil {
		return err
	}
	return d.record(ctx, tx, g, audit.KeyRevoked, k.ID, detail)
}

// ActivateKey undoes RevokeKey. Keys that it had made stay revoked, and can be
// activated once it is active.
func (d *Desk) ActivateKey(ctx context.Context, g access.Grant, id string) (access.Key, error) {
	return d.change(ctx, g, id, func(tx Store, k *access.Key) error {
		if k.RevokedAt.IsZero() {
			return nil
		}
		if err := mayGive(g, k, *k); err != nil {
			return err
		}
		if k.Parent != "" {
			parent, err := tx.Key(ctx, g.Workspace.ID, k.Parent, false)
			if err != nil && !problem.Is(err, problem.NotFound) {
				return err
			}
			if err == nil && !parent.RevokedAt.IsZero() {
				return problem.Errorf(problem.Conflict, "the key %s was made by the key %s, which is revoked", k.ID, parent.ID).
					WithFix("Activate that key first, or make a new key.")
			}
		}
		k.RevokedAt = time.Time{}
		if err := tx.UpdateKey(ctx, *k); err != nil {
			return err
		}
		return d.record(ctx, tx, g, audit.KeyActivated, id, nil)
	})
}

// change runs fn on the key in a transaction.
func (d *Desk) change(ctx context.Context, g access.Grant, id string, fn func(tx Store, k *access.Key) error) (access.Key, error) {
	if err := requireAdmin(g); err != nil {
		return access.Key{}, err
	}
	var k access.Key
	err := d.InTx(ctx, func(tx Store) error {
		var err error
		if k, err = key(ctx, tx, g.Workspace.ID, id, true); err != nil {
			return err
		}
		return fn(tx, &k)
	})
	return k, err
}

// RotateKey gives the key another secret. The old one works for the overlap,
// at most [MaxOverlap].
func (d *Desk) RotateKey(ctx context.Context, g access.Grant, id string, overlap time.Duration) (MadeKey, error) {
	if err := checkOverlap(overlap); err != nil {
		return MadeKey{}, err
	}
	secret := access.NewSecret()
	k, err := d.change(ctx, g, id, func(tx Store, k *access.Key) error {
		if err := d.mayRotate(ctx, tx, g, k); err != nil {
			return err
		}
		now := d.now()
		k.Last4 = secret.Last4()
		if err := tx.RotateKey(ctx, *k, secret.Hash(), now.Add(overlap), now); err != nil {
			return err
		}
		return d.record(ctx, tx, g, audit.KeyRotated, id, map[string]any{"overlap_hours": overlap.Hours()})
	})
	if err != nil {
		return MadeKey{}, err
	}
	return MadeKey{Key: k, Secret: secret}, nil
}

// EndOverlap ends the overlap of a rotation: the old secret is refused from the
// next request on. Who may rotate the key may do so.
func (d *Desk) EndOverlap(ctx context.Context, g access.Grant, id string) (access.Key, error) {
	now := d.now()
	return d.change(ctx, g, id, func(tx Store, k *access.Key) error {
		if err := d.mayRotate(ctx, tx, g, k); err != nil {
			return err
		}
		if err := tx.EndOldSecrets(ctx, g.Workspace.ID, id, now); err != nil {
			return err
		}
		k.OldSecretUntil = now
		return d.record(ctx, tx, g, audit.KeyRotated, id, map[string]any{"overlap_hours": 0})
	})
}

// mayRotate refuses who may not rotate the key. A key may rotate only itself
// and keys that it has made: otherwise it could ask in another's name and
// decide that itself.
func (d *Desk) mayRotate(ctx context.Context, tx Store, g access.Grant, k *access.Key) error {
	if err := mayGive(g, k, *k); err != nil {
		return err
	}
	if g.Principal.Kind != access.KindKey || g.Principal.ID == k.ID {
		return nil
	}
	children, err := tx.ChildKeys(ctx, g.Workspace.ID, g.Principal.ID)
	if err != nil {
		return err
	}
	if !slices.Contains(children, k.ID) {
		return problem.Errorf(problem.InsufficientScope, "a key rotates only itself and keys that it has made").
			WithFix("Ask an admin of the workspace to rotate it.")
	}
	return nil
}

func checkOverlap(overlap time.Duration) error {
	if overlap >= 0 && overlap <= MaxOverlap {
		return nil
	}
	return &problem.Error{Kind: problem.Validation, Message: "the overlap is too long or negative", Fix: "Send 0 to 168 hours.",
		Fields: []problem.Field{{Path: "overlap_hours", Expected: "0 to 168", Got: fmt.Sprint(overlap.Hours())}}}
}

// DeleteKey removes the key with its usage history, and the keys that it has
// made. Their pending approvals are withdrawn; deliveries on their way finish.
func (d *Desk) DeleteKey(ctx context.Context, g access.Grant, id string) error {
	_, err := d.change(ctx, g, id, func(tx Store, k *access.Key) error {
		family, err := descendants(ctx, tx, g.Workspace.ID, id)
		if err != nil {
			return err
		}
		for _, c := range append(family, *k) {
			each := c.ID
			if _, err := d.Gate.WithdrawAll(ctx, tx, g.Workspace.ID, each, g.Principal); err != nil {
				return err
			}
			if err := tx.RetireEndpoint(ctx, g.Workspace.ID, each, d.now()); err != nil {
				return err
			}
			if err := tx.DeleteKey(ctx, g.Workspace.ID, each); err != nil {
				return err
			}
			if err := d.record(ctx, tx, g, audit.KeyDeleted, each, map[string]any{"name": c.Name}); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// Webhook returns the key's webhook.
func (d *Desk) Webhook(ctx context.Context, g access.Grant, id string) (webhook.Endpoint, error) {
	if _, err := d.Key(ctx, g, id); err != nil {
		return webhook.Endpoint{}, err
	}
	return d.Store.EndpointOf(ctx, g.Workspace.ID, id)
}

// RotateWebhook gives the key's webhook another secret; both sign for the
// overlap.
func (d *Desk) RotateWebhook(ctx context.Context, g access.Grant, id string, overlap time.Duration) (webhook.Secret, error) {
	var secret webhook.Secret
	_, err := d.change(ctx, g, id, func(tx Store, k *access.Key) error {
		if err := mayGive(g, k, *k); err != nil {
			return err
		}
		var err error
		if _, secret, err = d.Webhooks.Rotate(ctx, tx, g.Workspace.ID, id, overlap); err != nil {
			return err
		}
		return d.record(ctx, tx, g, audit.WebhookRotated, id, nil)
	})
	return secret, err
}

// TestWebhook sends a test event to the key's webhook.
func (d *Desk) TestWebhook(ctx context.Context, g access.Grant, id string) (webhook.Delivery, error) {
	var sent webhook.Delivery
	_, err := d.change(ctx, g, id, func(tx Store, k *access.Key) error {
		var err error
		if sent, err = d.Webhooks.SendTest(ctx, tx, g.Workspace.ID, id); err != nil {
			return err
		}
		return d.record(ctx, tx, g, audit.WebhookTested, id, nil)
	})
	return sent, err
}

// Resend delivers once more what was delivered or has failed for good.
func (d *Desk) Resend(ctx context.Context, g access.Grant, delivery string) (webhook.Delivery, error) {
	if err := requireAdmin(g); err != nil {
		return webhook.Delivery{}, err
	}
	var sent webhook.Delivery
	err := d.InTx(ctx, func(tx Store) error {
		var err error
		if sent, err = d.Webhooks.Resend(ctx, tx, g.Workspace.ID, delivery); err != nil {
			return err
		}
		return d.record(ctx, tx, g, audit.WebhookResent, delivery, nil)
	})
	return sent, err
}

// Deliveries returns a page of deliveries, newest first. Other credentials than
// admins see their own.
func (d *Desk) Deliveries(ctx context.Context, g access.Grant, q webhook.Query) ([]webhook.Delivery, error) {
	if !g.IsAdmin() {
		q.Owner = g.Principal.ID
	}
	return d.Store.Deliveries(ctx, g.Workspace.ID, q)
}
