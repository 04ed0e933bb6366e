package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/catalog"
	"trustpager/server"
	"trustpager/webhook"
)

type keyCmd struct {
	List     keyListCmd     `cmd:"" help:"List the API keys of a workspace."`
	Create   keyCreateCmd   `cmd:"" help:"Make an API key; its secret is shown once."`
	Edit     keyEditCmd     `cmd:"" help:"Change an API key from its next request on."`
	Revoke   keyRevokeCmd   `cmd:"" help:"Refuse an API key from its next request on."`
	Activate keyActivateCmd `cmd:"" help:"Accept a revoked API key again."`
	Rotate   keyRotateCmd   `cmd:"" help:"Give an API key another secret."`
	Delete   keyDeleteCmd   `cmd:"" help:"Delete an API key for good, with its usage history."`
	Webhook  keyWebhookCmd  `cmd:"" help:"Test an API key's webhook, or give it another secret."`
}

type keyListCmd struct {
	inWorkspace
	asJSON
}

// Run lists the keys, all pages.
func (c *keyListCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		all, err := every(func(after string) ([]access.Key, error) { return s.Desk.Keys(ctx, g, after, listPage) }, func(k access.Key) string { return k.ID })
		if err != nil {
			return err
		}
		var rows [][]string
		for _, k := range all {
			status := "active"
			if !k.RevokedAt.IsZero() {
				status = "revoked"
			} else if !k.ExpiresAt.IsZero() && time.Now().After(k.ExpiresAt) {
				status = "expired"
			}
			level := access.FormatScopes(k.Scopes)
			if k.FullAccess {
				level = "full access"
				if k.MayDecide {
					level += ", may decide"
				}
			} else if len(level) > 50 {
				level = level[:49] + "…"
			}
			rows = append(rows, []string{k.ID, k.Name, "…" + k.Last4, status, stamp(k.LastUsedAt), level})
		}
		if c.JSON {
			return e.printJSON(all)
		}
		return e.table("ID\tNAME\tSECRET\tSTATUS\tLAST USED\tMAY", rows)
	})
}

// keyRights are the flags that say what a key may do.
type keyRights struct {
	FullAccess    *bool          `help:"All that an admin may do." negatable:""`
	MayDecide     *bool          `help:"Also decide approvals that others asked for; only with --full-access." negatable:""`
	Preset        catalog.Preset `help:"read, recommended (for AI agents) or act." enum:",read,recommended,act" default:""`
	Scopes        []string       `help:"Scopes, as contacts:read,deals:write-approval." sep:","`
	PerMinute     *int64         `help:"Requests a minute; 0 for no limit."`
	PerDay        *int64         `help:"Requests a day; 0 for no limit."`
	Expires       *time.Duration `help:"How long from now it is valid; 0 for ever."`
	WebhookURL    *string        `help:"URL that is told of rejections; an empty one removes it." name:"webhook-url"`
	WebhookEvents []string       `help:"Further events for it." sep:","`
}

// input returns the flags as the desk takes them. limits are those to start
// from.
func (r keyRights) input(c *catalog.Catalog, limits access.Limits) admin.KeyInput {
	in := admin.KeyInput{FullAccess: r.FullAccess, MayDecide: r.MayDecide, WebhookURL: r.WebhookURL}
	if r.Preset != "" || r.Scopes != nil {
		scopes := r.Scopes
		for _, s := range c.Scopes(r.Preset) {
			scopes = append(scopes, s.String())
		}
		in.Scopes = &scopes
	}
	if r.PerMinute != nil || r.PerDay != nil {
		set(&limits.PerMinute, r.PerMinute)
		set(&limits.PerDay, r.PerDay)
		in.Limits = &limits
	}
	if r.Expires != nil {
		in.ExpiresAt = &time.Time{}
		if *r.Expires > 0 {
			*in.ExpiresAt = time.Now().Add(*r.Expires)
		}
	}
	if r.WebhookEvents != nil {
		events := make([]webhook.EventType, len(r.WebhookEvents))
		for i, ev := range r.WebhookEvents {
			events[i] = webhook.EventType(ev)
		}
		in.WebhookEvents = &events
	}
	return in
}

// webhookNets are needed where a webhook's address is checked.
type webhookNets struct {
	AllowWebhookNet []string `help:"Network (CIDR) that webhooks may reach although it is not public." placeholder:"CIDR" env:"TRUSTPAGER_ALLOW_WEBHOOK_NET"`
}

// withNets is env.with for commands that check a webhook's address.
func (e *env) withNets(nets webhookNets, workspace string, fn func(ctx context.Context, s *server.Server, g access.Grant) error) error {
	allowed, err := webhook.ParseNets(strings.Join(nets.AllowWebhookNet, ","))
	if err != nil {
		return err
	}
	s, err := e.open(false, server.Config{WebhookNets: allowed})
	if err != nil {
		return err
	}
	defer s.DB.Close()
	g, err := in(e.ctx, s, workspace)
	if err != nil {
		return err
	}
	return fn(e.ctx, s, g)
}

type keyCreateCmd struct {
	Name string `help:"What people call it." required:""`
	keyRights
	webhookNets
	inWorkspace
	asJSON
}

// Run makes a key.
func (c *keyCreateCmd) Run(e *env) error {
	return e.withNets(c.webhookNets, c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		in := c.input(s.Catalog, access.DefaultLimits)
		in.Name = &c.Name
		if in.Scopes == nil && in.FullAccess == nil {
			return errors.New("say what the key may do: --preset recommended, --scopes contacts:read,… or --full-access")
		}
		made, err := s.Desk.CreateKey(ctx, g, in)
		if err != nil {
			return err
		}
		return e.printMade(made, c.JSON)
	})
}

// printMade prints a key with the secrets that are shown only now.
func (e *env) printMade(made admin.MadeKey, inJSON bool) error {
	hook := ""
	if made.WebhookSecret != nil {
		hook = made.WebhookSecret.Text()
	}
	if inJSON {
		return e.printJSON(map[string]any{"id": made.Key.ID, "name": made.Key.Name, "secret": string(made.Secret), "webhook_secret": hook})
	}
	fmt.Fprintf(e.stdout, "%s  %s\n", made.Key.ID, printable(made.Key.Name))
	if made.Secret != "" {
		fmt.Fprintf(e.stdout, "Secret (shown once): %s\n", string(made.Secret))
	}
	if hook != "" {
		fmt.Fprintf(e.stdout, "Webhook secret (shown once): %s\n", hook)
	}
	return nil
}

type keyEditCmd struct {
	ID   string  `arg:"" help:"Id of the key."`
	Name *string `help:"What people call it."`
	keyRights
	webhookNets
	inWorkspace
	asJSON
}

// Run changes a key.
func (c *keyEditCmd) Run(e *env) error {
	return e.withNets(c.webhookNets, c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		k, err := s.Desk.Key(ctx, g, c.ID)
		if err != nil {
			return err
		}
		in := c.input(s.Catalog, k.Limits)
		in.Name = c.Name
		made, err := s.Desk.UpdateKey(ctx, g, c.ID, in)
		if err != nil {
			return err
		}
		return e.printMade(made, c.JSON)
	})
}

// keyRevokeCmd revokes a key.
type keyRevokeCmd struct {
	ID string `arg:"" help:"Id of the key."`
	inWorkspace
}

// Run revokes the key, and those it has made.
func (c *keyRevokeCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		_, err := s.Desk.RevokeKey(ctx, g, c.ID)
		return err
	})
}

type keyActivateCmd struct {
	ID string `arg:"" help:"Id of the key."`
	inWorkspace
}

// Run activates a key.
func (c *keyActivateCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		_, err := s.Desk.ActivateKey(ctx, g, c.ID)
		return err
	})
}

type keyRotateCmd struct {
	ID      string        `arg:"" help:"Id of the key."`
	Overlap time.Duration `help:"How long the old secret works, 0 to 168h." default:"0s"`
	inWorkspace
	asJSON
}

// Run gives a key another secret.
func (c *keyRotateCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		made, err := s.Desk.RotateKey(ctx, g, c.ID, c.Overlap)
		if err != nil {
			return err
		}
		return e.printMade(made, c.JSON)
	})
}

type keyDeleteCmd struct {
	ID      string `arg:"" help:"Id of the key."`
	Confirm string `help:"The key's name, to be sure." required:""`
	inWorkspace
}

// Run deletes a key.
func (c *keyDeleteCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		k, err := s.Desk.Key(ctx, g, c.ID)
		if err != nil {
			return err
		}
		if k.Name != c.Confirm {
			return fmt.Errorf("the key's name is %q, not %q: nothing was deleted", k.Name, c.Confirm)
		}
		return s.Desk.DeleteKey(ctx, g, c.ID)
	})
}

type keyWebhookCmd struct {
	Test   webhookTestCmd   `cmd:"" help:"Send a test event."`
	Rotate webhookRotateCmd `cmd:"" help:"Give the webhook another secret, shown once."`
}

type webhookTestCmd struct {
	ID string `arg:"" help:"Id of the key."`
	inWorkspace
}

// Run sends a test event.
func (c *webhookTestCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		d, err := s.Desk.TestWebhook(ctx, g, c.ID)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(e.stdout, "The delivery %s is on its way; the running server sends it.\n", d.ID)
		return err
	})
}

type webhookRotateCmd struct {
	ID      string        `arg:"" help:"Id of the key."`
	Overlap time.Duration `help:"How long the old secret signs too, 0 to 168h." default:"24h"`
	inWorkspace
}

// Run gives the webhook another secret.
func (c *webhookRotateCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		secret, err := s.Desk.RotateWebhook(ctx, g, c.ID, c.Overlap)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(e.stdout, "Webhook secret (shown once): %s\n", secret.Text())
		return err
	})
}
