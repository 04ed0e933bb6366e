package admin

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/typeid"
	"trustpager/webhook"
)

// A ClientInput is what an admin says of an OAuth client. A nil member is left
// as it is, or as it is for a new client. Only the rungs, the limits and the
// webhook of a client that registered itself can be changed.
type ClientInput struct {
	Name              *string              `json:"name,omitempty"`
	RedirectURIs      *[]string            `json:"redirect_uris,omitempty"`
	Public            *bool                `json:"public,omitempty"`             // no secret: for programs on people's machines
	ClientCredentials *bool                `json:"client_credentials,omitempty"` // may act for itself, without a person
	Scopes            *[]string            `json:"scopes,omitempty"`             // the ceiling
	Limits            *access.Limits       `json:"limits,omitempty"`             // of each grant
	WebhookURL        *string              `json:"webhook_url,omitempty"`        // "" removes it
	WebhookEvents     *[]webhook.EventType `json:"webhook_events,omitempty"`
}

// webhook returns what the input says of the webhook, as a key's does.
func (in ClientInput) webhook() KeyInput {
	return KeyInput{WebhookURL: in.WebhookURL, WebhookEvents: in.WebhookEvents}
}

// A MadeClient is a client with the secrets that are shown only now.
type MadeClient struct {
	Client        oauth.Client
	Policy        oauth.Policy
	Secret        oauth.ClientSecret // "" unless it is new
	WebhookSecret webhook.Secret     // nil unless it is new
}

// DefaultCeiling is what a new client may do at most: act, but ask before it
// deletes and sends, and only read the Admin Only group.
func DefaultCeiling(c *catalog.Catalog) []access.Scope { return c.Scopes(catalog.PresetAct) }

// CreateClient registers a client for the workspace. The secret is in the
// answer and nowhere else.
func (d *Desk) CreateClient(ctx context.Context, g access.Grant, in ClientInput) (MadeClient, error) {
	if err := requireAdmin(g); err != nil {
		return MadeClient{}, err
	}
	now := d.now()
	made := MadeClient{
		Client: oauth.Client{ID: typeid.NewID("cli"), Workspace: g.Workspace.ID, Origin: oauth.Registered, AuthMethod: oauth.AuthBasic,
			GrantTypes: []string{oauth.GrantCode, oauth.GrantRefresh}, Maker: g.Principal, CreatedAt: now},
		Policy: oauth.Policy{Workspace: g.Workspace.ID, Ceiling: DefaultCeiling(d.Catalog), Limits: access.DefaultLimits, CreatedAt: now},
	}
	made.Policy.Client = made.Client.ID
	if l := &made.Policy.Limits; g.Principal.Kind == access.KindKey {
		l.PerMinute, l.PerDay = lower(l.PerMinute, g.Limits.PerMinute), lower(l.PerDay, g.Limits.PerDay)
	}
	target, err := d.applyClient(ctx, g, &made.Client, &made.Policy, noLimits, in)
	if err != nil {
		return MadeClient{}, err
	}
	if !made.Client.Public() {
		made.Secret = oauth.NewClientSecret()
		made.Client.SecretHash = made.Secret.Hash()
	}
	err = d.InTx(ctx, func(tx Store) error {
		if g.Principal.Kind == access.KindKey {
			// Whoever revokes the key locks it too, and so finds the client's end.
			maker, err := tx.Key(ctx, g.Workspace.ID, g.Principal.ID, true)
			if err != nil && !problem.Is(err, problem.NotFound) {
				return err
			}
			if err != nil || !maker.RevokedAt.IsZero() || !maker.FullAccess {
				return problem.Errorf(problem.InsufficientScope, "this key may not register clients any more").WithFix("Ask an admin of the workspace.")
			}
			now := g
			now.Key, now.Limits = &maker, maker.Limits
			if err := mayLimit(now, noLimits, made.Policy.Limits); err != nil {
				return err
			}
		}
		if err := tx.CreateClient(ctx, made.Client); err != nil {
			return err
		}
		if _, err := tx.EnsurePolicy(ctx, made.Policy); err != nil {
			return err
		}
		var err error
		if made.WebhookSecret, err = d.setWebhook(ctx, tx, g, made.Client.ID, in.webhook(), target); err != nil {
			return err
		}
		return d.record(ctx, tx, g, audit.ClientCreated, made.Client.ID, clientDetail(made.Client, made.Policy))
	})
	if err != nil {
		return MadeClient{}, err
	}
	return made, nil
}

// UpdateClient changes a client. What it may do holds from the next request of
// each of its users.
func (d *Desk) UpdateClient(ctx context.Context, g access.Grant, id string, in ClientInput) (MadeClient, error) {
	if err := requireAdmin(g); err != nil {
		return MadeClient{}, err
	}
	// The name of a webhook's host is looked up before the transaction.
	c, p, err := client(ctx, d.Store, g.Workspace.ID, id, false)
	if err != nil {
		return MadeClient{}, err
	}
	target, err := d.applyClient(ctx, g, &c, &p, p.Limits, in)
	if err != nil {
		return MadeClient{}, err
	}
	var made MadeClient
	err = d.InTx(ctx, func(tx Store) error {
		c, p, err := client(ctx, tx, g.Workspace.ID, id, true)
		if err != nil {
			return err
		}
		before := clientDetail(c, p)
		if err := d.checkClient(g, &c, &p, p.Limits, in); err != nil {
			return err
		}
		if c.Origin == oauth.Registered {
			if !c.Public() && c.SecretHash == "" {
				made.Secret = oauth.NewClientSecret()
				c.SecretHash = made.Secret.Hash()
			}
			if err := tx.UpdateClient(ctx, c); err != nil {
				return err
			}
		}
		if err := tx.UpdatePolicy(ctx, p); err != nil {
			return err
		}
		made.Client, made.Policy = c, p
		if err := d.followGrantTypes(ctx, tx, g, c, in.ClientCredentials != nil); err != nil {
			return err
		}
		if made.WebhookSecret, err = d.setWebhook(ctx, tx, g, id, in.webhook(), target); err != nil {
			return err
		}
		after := clientDetail(c, p)
		if reflect.DeepEqual(after, before) {
			return nil // the webhook has an entry of its own
		}
		return d.record(ctx, tx, g, audit.ClientChanged, id, after)
	})
	if err != nil {
		return MadeClient{}, err
	}
	return made, nil
}

// applyClient puts what in says into c and p, and checks the webhook.
func (d *Desk) applyClient(ctx context.Context, g access.Grant, c *oauth.Client, p *oauth.Policy, had access.Limits, in ClientInput) (webhook.Target, error) {
	err := d.checkClient(g, c, p, had, in)
	if err != nil && !problem.Is(err, problem.Validation) {
		return webhook.Target{}, err
	}
	target, werr := d.checkWebhook(ctx, in.webhook())
	if err == nil {
		return target, werr
	}
	if e, ok := errors.AsType[*problem.Error](werr); ok && len(e.Fields) > 0 {
		// All that is wrong is told at once.
		return webhook.Target{}, badClient(append(problem.Of(err).Fields, e.Fields...))
	}
	return webhook.Target{}, err
}

func badClient(fields []problem.Field) error {
	return &problem.Error{Kind: problem.Validation, Message: "the client cannot be like that", Fix: "Correct the fields that are listed.", Fields: fields}
}

// checkClient puts what in says into c and p, and refuses what g may not give
// beyond the limits that the client had.
func (d *Desk) checkClient(g access.Grant, c *oauth.Client, p *oauth.Policy, had access.Limits, in ClientInput) error {
	registers := in.Name != nil || in.RedirectURIs != nil || in.Public != nil || in.ClientCredentials != nil
	if registers {
		if c.Origin != oauth.Registered {
			return problem.Errorf(problem.Conflict, "the client %.100q registered itself: its name and its redirect URIs come from itself", c.ID).
				WithFix("Change only its scopes, its limits and its webhook; or register a client of your own.")
		}
		if err := ownsClient(g, *c); err != nil {
			return err
		}
	}
	var fields []problem.Field
	bad := func(path, expected, got string) {
		if len(fields) < maxFaults {
			fields = append(fields, problem.Field{Path: path, Expected: expected, Got: got})
		}
	}
	if in.Name != nil {
		c.Name = strings.TrimSpace(*in.Name)
	}
	if !validName(c.Name) && c.Origin == oauth.Registered {
		bad("name", nameForm, fmt.Sprintf("%.120q", c.Name))
	}
	if in.Public != nil {
		c.AuthMethod = oauth.AuthBasic
		if *in.Public {
			c.AuthMethod, c.SecretHash, c.OldSecretHash = oauth.AuthNone, "", ""
		}
	}
	if in.ClientCredentials != nil {
		c.GrantTypes = slices.DeleteFunc(slices.Clone(c.GrantTypes), func(t string) bool { return t == oauth.GrantCredentials })
		if *in.ClientCredentials {
			c.GrantTypes = append(c.GrantTypes, oauth.GrantCredentials)
		}
	}
	if c.Public() && slices.Contains(c.GrantTypes, oauth.GrantCredentials) {
		bad("client_credentials", "only for a client with a secret", "client_credentials with public")
	}
	if in.RedirectURIs != nil {
		c.RedirectURIs = *in.RedirectURIs
	}
	checkRedirects(*c, bad)
	if in.Scopes != nil {
		p.Ceiling = d.parseScopes(*in.Scopes, bad)
	}
	if in.Limits != nil {
		p.Limits = *in.Limits
	}
	checkLimits(p.Limits, bad)
	if len(fields) > 0 {
		return badClient(fields)
	}
	return mayLimit(g, had, p.Limits)
}

// noLimits are those that a new client had: none that it could have.
var noLimits = access.Limits{PerMinute: -1, PerDay: -1}

// mayLimit refuses a key that would give a client higher limits than it has
// itself, beyond those that the client had: it could register a client to get
// around its own.
func mayLimit(g access.Grant, had, limits access.Limits) error {
	return mayGive(g, &access.Key{Limits: had}, access.Key{Limits: limits})
}

// maxRedirects is how many redirect URIs a client may have.
const maxRedirects = 20

func checkRedirects(c oauth.Client, bad func(path, expected, got string)) {
	if c.Origin != oauth.Registered {
		return
	}
	if len(c.RedirectURIs) == 0 && !slices.Contains(c.GrantTypes, oauth.GrantCredentials) {
		bad("redirect_uris", "at least one, unless the client acts for itself with client_credentials", "none")
	}
	if len(c.RedirectURIs) > maxRedirects {
		bad("redirect_uris", fmt.Sprintf("at most %d", maxRedirects), fmt.Sprint(len(c.RedirectURIs)))
	}
	for i, uri := range c.RedirectURIs {
		if err := oauth.CheckRedirectURI(uri); err != nil {
			bad(fmt.Sprintf("redirect_uris.%d", i), err.Error(), fmt.Sprintf("%.200q", uri))
		}
	}
}

// ownsClient refuses a key that would change who a client is, or get its
// secret, unless it has registered the client itself: otherwise it could ask in
// the client's name and decide that itself.
func ownsClient(g access.Grant, c oauth.Client) error {
	if g.Principal.Kind != access.KindKey || c.Parent() == g.Principal.ID {
		return nil
	}
	return problem.Errorf(problem.InsufficientScope, "a key changes the registration of a client, or its secret, only if it has registered the client itself").
		WithFix("Ask an admin of the workspace.")
}

func clientDetail(c oauth.Client, p oauth.Policy) map[string]any {
	return map[string]any{"name": c.Name, "origin": c.Origin, "redirect_uris": c.RedirectURIs, "public": c.Public(),
		"grant_types": c.GrantTypes, "ceiling": access.FormatScopes(p.Ceiling), "limits": p.Limits}
}

// client reads a client. What is no id is not looked up: it may hold what the
// database refuses.
func client(ctx context.Context, s Store, workspace, id string, forUpdate bool) (oauth.Client, oauth.Policy, error) {
	if !typeid.ValidID("cli", id) && (!strings.HasPrefix(id, "https://") || !utf8.ValidString(id) || strings.ContainsRune(id, 0)) {
		return oauth.Client{}, oauth.Policy{}, problem.Errorf(problem.NotFound, "there is no client %.100q", id).
			WithFix("List the clients to find the right id.")
	}
	return s.ClientOf(ctx, workspace, id, forUpdate)
}

// Client returns one client of the workspace.
func (d *Desk) Client(ctx context.Context, g access.Grant, id string) (MadeClient, error) {
	if err := requireAdmin(g); err != nil {
		return MadeClient{}, err
	}
	c, p, err := client(ctx, d.Store, g.Workspace.ID, id, false)
	return MadeClient{Client: c, Policy: p}, err
}

// Clients returns a page of the workspace's clients, the newest there first,
// after the client of the given id.
func (d *Desk) Clients(ctx context.Context, g access.Grant, after string, limit int) ([]oauth.ClientInWorkspace, error) {
	if err := requireAdmin(g); err != nil {
		return nil, err
	}
	return d.Store.Clients(ctx, g.Workspace.ID, after, limit)
}

// RotateClient gives the client another secret. The old one works for the
// overlap, at most [MaxOverlap]. A client that acts for itself, and whose access
// was revoked, has it again.
func (d *Desk) RotateClient(ctx context.Context, g access.Grant, id string, overlap time.Duration) (MadeClient, error) {
	if err := checkOverlap(overlap); err != nil {
		return MadeClient{}, err
	}
	if err := requireAdmin(g); err != nil {
		return MadeClient{}, err
	}
	made := MadeClient{Secret: oauth.NewClientSecret()}
	err := d.InTx(ctx, func(tx Store) error {
		c, p, err := client(ctx, tx, g.Workspace.ID, id, true)
		if err != nil {
			return err
		}
		if c.Origin != oauth.Registered || c.Public() {
			return problem.Errorf(problem.Conflict, "the client %.100q has no secret of this workspace's", id).
				WithFix("Only a client that an admin has registered with a secret can get another.")
		}
		if err := ownsClient(g, c); err != nil {
			return err
		}
		c.OldSecretHash, c.OldUntil, c.SecretHash = c.SecretHash, d.now().Add(overlap), made.Secret.Hash()
		if err := tx.UpdateClient(ctx, c); err != nil {
			return err
		}
		made.Client, made.Policy = c, p
		if err := d.record(ctx, tx, g, audit.ClientRotated, id, map[string]any{"overlap_hours": overlap.Hours()}); err != nil {
			return err
		}
		return d.revive(ctx, tx, g, c)
	})
	if err != nil {
		return MadeClient{}, err
	}
	return made, nil
}

// followGrantTypes ends what a client does for itself once it may not any more,
// and brings it back when somebody says that it may.
func (d *Desk) followGrantTypes(ctx context.Context, tx Store, g access.Grant, c oauth.Client, said bool) error {
	if slices.Contains(c.GrantTypes, oauth.GrantCredentials) {
		if said {
			return d.revive(ctx, tx, g, c)
		}
		return nil
	}
	gr, err := tx.GrantOf(ctx, g.Workspace.ID, c.ID, "")
	if problem.Is(err, problem.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = d.endGrant(ctx, tx, g, &gr, nil)
	return err
}

// revive lets a client that acts for itself get tokens again, after its access
// was revoked. There is no user who could consent anew.
func (d *Desk) revive(ctx context.Context, tx Store, g access.Grant, c oauth.Client) error {
	gr, err := tx.GrantOf(ctx, g.Workspace.ID, c.ID, "")
	if problem.Is(err, problem.NotFound) || err == nil && gr.RevokedAt.IsZero() {
		return nil
	}
	if err != nil {
		return err
	}
	gr.ConsentedAt = d.now()
	if gr, err = tx.SaveGrant(ctx, gr); err != nil {
		return err
	}
	return d.record(ctx, tx, g, audit.GrantChanged, gr.ID, map[string]any{"client": c.ID, "in_force": true})
}

// DeleteClient takes the client from the workspace, with all its grants and
// their usage history. Their pending approvals are withdrawn; deliveries on
// their way finish. A client that registered itself may come back, unless the
// workspace forbids that.
func (d *Desk) DeleteClient(ctx context.Context, g access.Grant, id string) error {
	if err := requireAdmin(g); err != nil {
		return err
	}
	return d.InTx(ctx, func(tx Store) error {
		c, _, err := client(ctx, tx, g.Workspace.ID, id, true)
		if err != nil {
			return err
		}
		if err := eachGrant(ctx, tx, g.Workspace.ID, oauth.GrantQuery{Client: id}, func(gr oauth.Grant) error {
			_, err := d.Gate.WithdrawAll(ctx, tx, g.Workspace.ID, gr.ID, g.Principal)
			return err
		}); err != nil {
			return err
		}
		if err := tx.RetireEndpoint(ctx, g.Workspace.ID, id, d.now()); err != nil {
			return err
		}
		if err := tx.RemoveClient(ctx, g.Workspace.ID, id); err != nil {
			return err
		}
		return d.record(ctx, tx, g, audit.ClientDeleted, id, map[string]any{"name": c.Name})
	})
}

const grantPage = 100

// eachGrant calls fn for each grant that q selects.
func eachGrant(ctx context.Context, tx Store, workspace string, q oauth.GrantQuery, fn func(oauth.Grant) error) error {
	q.Limit = grantPage
	for {
		grants, err := tx.Grants(ctx, workspace, q)
		if err != nil {
			return err
		}
		for _, gr := range grants {
			if err := fn(gr); err != nil {
				return err
			}
			q.Before = gr.ID
		}
		if len(grants) < grantPage {
			return nil
		}
	}
}

// ClientWebhook returns the client's webhook.
func (d *Desk) ClientWebhook(ctx context.Context, g access.Grant, id string) (webhook.Endpoint, error) {
	if _, err := d.Client(ctx, g, id); err != nil {
		return webhook.Endpoint{}, err
	}
	return d.Store.EndpointOf(ctx, g.Workspace.ID, id)
}

// RotateClientWebhook gives the client's webhook another secret; both sign for
// the overlap.
func (d *Desk) RotateClientWebhook(ctx context.Context, g access.Grant, id string, overlap time.Duration) (webhook.Secret, error) {
	var secret webhook.Secret
	err := d.ofClient(ctx, g, id, func(tx Store) error {
		var err error
		if _, secret, err = d.Webhooks.Rotate(ctx, tx, g.Workspace.ID, id, overlap); err != nil {
			return err
		}
		return d.record(ctx, tx, g, audit.WebhookRotated, id, nil)
	})
	return secret, err
}

// TestClientWebhook sends a test event to the client's webhook.
func (d *Desk) TestClientWebhook(ctx context.Context, g access.Grant, id string) (webhook.Delivery, error) {
	var sent webhook.Delivery
	err := d.ofClient(ctx, g, id, func(tx Store) error {
		var err error
		if sent, err = d.Webhooks.SendTest(ctx, tx, g.Workspace.ID, id); err != nil {
			return err
		}
		return d.record(ctx, tx, g, audit.WebhookTested, id, nil)
	})
	return sent, err
}

// ofClient runs fn in a transaction that has locked the client.
func (d *Desk) ofClient(ctx context.Context, g access.Grant, id string, fn func(tx Store) error) error {
	if err := requireAdmin(g); err != nil {
		return err
	}
	return d.InTx(ctx, func(tx Store) error {
		if _, _, err := client(ctx, tx, g.Workspace.ID, id, true); err != nil {
			return err
		}
		return fn(tx)
	})
}
