package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/catalog"
	"trustpager/oauth"
	"trustpager/server"
)

type clientCmd struct {
	List   clientListCmd   `cmd:"" help:"List the OAuth clients of a workspace."`
	Create clientCreateCmd `cmd:"" help:"Register an OAuth client; its secret is shown once."`
	Edit   clientEditCmd   `cmd:"" help:"Change an OAuth client, and what it may do at most."`
	Rotate clientRotateCmd `cmd:"" help:"Give an OAuth client another secret."`
	Delete clientDeleteCmd `cmd:"" help:"Take an OAuth client from the workspace, with its grants."`
	Grants clientGrantsCmd `cmd:"" help:"List what users have granted to OAuth clients."`
	Revoke clientRevokeCmd `cmd:"" help:"End one grant, or all of a client or user."`
}

type clientListCmd struct {
	inWorkspace
	asJSON
}

// Run lists the clients, all pages.
func (c *clientListCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		all, err := every(func(after string) ([]oauth.ClientInWorkspace, error) { return s.Desk.Clients(ctx, g, after, listPage) },
			func(c oauth.ClientInWorkspace) string { return c.Client.ID })
		if err != nil {
			return err
		}
		if c.JSON {
			return e.printJSON(listed(all, shownClientOf))
		}
		var rows [][]string
		for _, each := range all {
			rows = append(rows, []string{each.Client.ID, each.Client.Name, string(each.Client.Origin), fmt.Sprint(each.Grants), stamp(each.LastUsedAt)})
		}
		return e.table("ID\tNAME\tORIGIN\tGRANTS\tLAST USED", rows)
	})
}

// listed returns the items as --json prints them, an array also if there are
// none.
func listed[T, S any](items []T, shown func(T) S) []S {
	all := make([]S, len(items))
	for i, item := range items {
		all[i] = shown(item)
	}
	return all
}

// A shownClient is a client as --json lists it.
type shownClient struct {
	ID                string        `json:"id"`
	Name              string        `json:"name"`
	Origin            oauth.Origin  `json:"origin"`
	RedirectURIs      []string      `json:"redirect_uris"`
	Public            bool          `json:"public"`
	ClientCredentials bool          `json:"client_credentials"`
	Scopes            string        `json:"scopes"` // the ceiling
	Limits            access.Limits `json:"limits"`
	Grants            int64         `json:"grants"` // in force
	CreatedAt         time.Time     `json:"created_at"`
	LastUsedAt        time.Time     `json:"last_used_at,omitzero"`
}

func shownClientOf(in oauth.ClientInWorkspace) shownClient {
	c, p := in.Client, in.Policy
	return shownClient{ID: c.ID, Name: c.Name, Origin: c.Origin, RedirectURIs: c.RedirectURIs, Public: c.Public(),
		ClientCredentials: slices.Contains(c.GrantTypes, oauth.GrantCredentials), Scopes: access.FormatScopes(p.Ceiling), Limits: p.Limits,
		Grants: in.Grants, CreatedAt: p.CreatedAt, LastUsedAt: in.LastUsedAt}
}

// listPage is how much a command reads at a time.
const listPage = 100

// every returns all items of a list that is read in pages.
func every[T any](page func(after string) ([]T, error), id func(T) string) ([]T, error) {
	var all []T
	for after := ""; ; {
		items, err := page(after)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if len(items) < listPage {
			return all, nil
		}
		after = id(items[len(items)-1])
	}
}

// clientFlags are the flags that say what a client is.
type clientFlags struct {
	RedirectURI       []string       `help:"Where the browser may return to; may be given several times. An edit replaces them all, with an empty one by none." name:"redirect-uri" sep:"none"`
	For               string         `help:"Adds the redirect URIs of a well-known client: claude, vscode or cursor." enum:",claude,vscode,cursor" default:""`
	Public            *bool          `help:"The client has no secret, as programs on people's machines." negatable:""`
	ClientCredentials *bool          `help:"The client may act for itself, without a person." negatable:""`
	Preset            catalog.Preset `help:"The most it may do: read, recommended or act." enum:",read,recommended,act" default:""`
	Scopes            []string       `help:"The most it may do, as contacts:read,deals:write-approval." sep:","`
	PerMinute         *int64         `help:"Requests a minute of each user; 0 for no limit."`
	PerDay            *int64         `help:"Requests a day of each user; 0 for no limit."`
	WebhookURL        *string        `help:"URL that is told of rejections; an empty one removes it." name:"webhook-url"`
	WebhookEvents     []string       `help:"Further events for it." sep:","`
}

// input returns the flags as the desk takes them. limits and uris are those to
// start from.
func (f clientFlags) input(c *catalog.Catalog, limits access.Limits, uris []string) admin.ClientInput {
	// What a client has in common with a key is read as a key's flags are.
	key := keyRights{Preset: f.Preset, Scopes: f.Scopes, PerMinute: f.PerMinute, PerDay: f.PerDay, WebhookURL: f.WebhookURL, WebhookEvents: f.WebhookEvents}.input(c, limits)
	in := admin.ClientInput{Public: f.Public, ClientCredentials: f.ClientCredentials,
		Scopes: key.Scopes, Limits: key.Limits, WebhookURL: key.WebhookURL, WebhookEvents: key.WebhookEvents}
	if f.RedirectURI != nil {
		uris = slices.DeleteFunc(f.RedirectURI, func(uri string) bool { return uri == "" })
	}
	if f.RedirectURI != nil || f.For != "" {
		all := slices.Clone(uris)
		for _, uri := range oauth.KnownRedirects(f.For) {
			if !slices.Contains(all, uri) {
				all = append(all, uri)
			}
		}
		in.RedirectURIs = &all
	}
	return in
}

type clientCreateCmd struct {
	Name string `help:"What people call it." required:""`
	clientFlags
	webhookNets
	inWorkspace
	asJSON
}

// Run registers a client.
func (c *clientCreateCmd) Run(e *env) error {
	return e.withNets(c.webhookNets, c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		in := c.input(s.Catalog, access.DefaultLimits, nil)
		in.Name = &c.Name
		made, err := s.Desk.CreateClient(ctx, g, in)
		if err != nil {
			return err
		}
		return e.printClient(ctx, s, made, c.JSON)
	})
}

// printClient prints a client with the secrets that are shown only now.
func (e *env) printClient(ctx context.Context, s *server.Server, made admin.MadeClient, asJSON bool) error {
	base, err := s.DB.BaseURL(ctx)
	if err != nil {
		return err
	}
	shown := map[string]any{"id": made.Client.ID, "name": made.Client.Name, "redirect_uris": made.Client.RedirectURIs}
	lines := []string{"Client " + printable(made.Client.Name), "  client id:      " + printable(made.Client.ID)}
	if made.Secret != "" {
		shown["client_secret"] = string(made.Secret)
		lines = append(lines, "  client secret:  "+string(made.Secret)+"   (shown only now)")
	}
	if made.WebhookSecret != nil {
		shown["webhook_secret"] = made.WebhookSecret.Text()
		lines = append(lines, "  webhook secret: "+made.WebhookSecret.Text()+"   (shown only now)")
	}
	if base != "" {
		shown["mcp_url"] = base + "/mcp"
		lines = append(lines, "  MCP URL:        "+base+"/mcp")
	}
	if asJSON {
		return e.printJSON(shown)
	}
	_, err = fmt.Fprintln(e.stdout, strings.Join(lines, "\n"))
	return err
}

type clientEditCmd struct {
	ID   string  `arg:"" help:"Id of the client."`
	Name *string `help:"What people call it."`
	clientFlags
	webhookNets
	inWorkspace
	asJSON
}

// Run changes a client.
func (c *clientEditCmd) Run(e *env) error {
	return e.withNets(c.webhookNets, c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		found, err := s.Desk.Client(ctx, g, c.ID)
		if err != nil {
			return err
		}
		in := c.input(s.Catalog, found.Policy.Limits, found.Client.RedirectURIs)
		in.Name = c.Name
		made, err := s.Desk.UpdateClient(ctx, g, c.ID, in)
		if err != nil {
			return err
		}
		return e.printClient(ctx, s, made, c.JSON)
	})
}

type clientRotateCmd struct {
	ID      string        `arg:"" help:"Id of the client."`
	Overlap time.Duration `help:"How long the old secret works besides, at most 168h." default:"0"`
	inWorkspace
	asJSON
}

// Run gives a client another secret.
func (c *clientRotateCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		made, err := s.Desk.RotateClient(ctx, g, c.ID, c.Overlap)
		if err != nil {
			return err
		}
		return e.printClient(ctx, s, made, c.JSON)
	})
}

type clientDeleteCmd struct {
	ID string `arg:"" help:"Id of the client."`
	inWorkspace
}

// Run takes a client from the workspace.
func (c *clientDeleteCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		return s.Desk.DeleteClient(ctx, g, c.ID)
	})
}

type clientGrantsCmd struct {
	Client string `help:"Only those of this client."`
	User   string `help:"Only those of this user, by id."`
	inWorkspace
	asJSON
}

// Run lists the grants, all pages.
func (c *clientGrantsCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		all, err := every(func(before string) ([]oauth.Grant, error) {
			return s.Desk.Grants(ctx, g, oauth.GrantQuery{Client: c.Client, User: c.User, Before: before, Limit: listPage})
		}, func(g oauth.Grant) string { return g.ID })
		if err != nil {
			return err
		}
		shown := listed(all, e.shownGrantOf)
		if c.JSON {
			return e.printJSON(shown)
		}
		var rows [][]string
		for i, gr := range all {
			user := gr.UserEmail
			if gr.User == "" {
				user = "(the client itself)"
			}
			rows = append(rows, []string{gr.ID, gr.ClientName, user, shown[i].Status, stamp(gr.LastUsedAt)})
		}
		return e.table("ID\tCLIENT\tUSER\tSTATUS\tLAST USED", rows)
	})
}

// A shownGrant is a grant as --json lists it.
type shownGrant struct {
	ID         string    `json:"id"`
	Status     string    `json:"status"` // active, expired or revoked
	Client     string    `json:"client"`
	User       string    `json:"user,omitempty"` // "" if the client acts for itself
	Email      string    `json:"email,omitempty"`
	Scopes     string    `json:"scopes"`
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at,omitzero"`
	ExpiresAt  time.Time `json:"expires_at,omitzero"`
	RevokedAt  time.Time `json:"revoked_at,omitzero"`
}

func (e *env) shownGrantOf(g oauth.Grant) shownGrant {
	s := shownGrant{ID: g.ID, Status: "active", Client: g.Client, User: g.User, Email: g.UserEmail, Scopes: access.FormatScopes(g.Scopes),
		CreatedAt: g.CreatedAt, LastUsedAt: g.LastUsedAt, ExpiresAt: g.ExpiresAt, RevokedAt: g.RevokedAt}
	switch {
	case !g.RevokedAt.IsZero():
		s.Status = "revoked"
	case !g.ExpiresAt.IsZero() && !e.now().Before(g.ExpiresAt):
		s.Status = "expired"
	}
	return s
}

type clientRevokeCmd struct {
	Grant  string `arg:"" optional:"" help:"Id of one grant."`
	Client string `help:"All grants of this client."`
	User   string `help:"All grants of this user, by id."`
	inWorkspace
}

// Run ends grants with all their tokens.
func (c *clientRevokeCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		choice := c.Client != "" || c.User != ""
		if (c.Grant != "") == choice {
			return errors.New("say what to end: the id of one grant, or --client, --user or both for all of those")
		}
		if c.Grant != "" {
			_, err := s.Desk.RevokeGrant(ctx, g, c.Grant)
			return err
		}
		n, err := s.Desk.RevokeGrants(ctx, g, c.Client, c.User)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(e.stdout, "Revoked %d.\n", n)
		return err
	})
}
