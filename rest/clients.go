package rest

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/strictjson"
	"trustpager/webhook"
)

// A clientView is an OAuth client as the API shows it.
type clientView struct {
	ID                string            `json:"id"` // the client_id
	Name              string            `json:"name"`
	Origin            oauth.Origin      `json:"origin"` // registered, dynamic or metadata
	RedirectURIs      []string          `json:"redirect_uris"`
	Public            bool              `json:"public"`
	ClientCredentials bool              `json:"client_credentials"`
	Scopes            []string          `json:"scopes"` // the ceiling
	Limits            access.Limits     `json:"limits"`
	Grants            *int64            `json:"grants,omitempty"` // in force; in lists only
	MCPURL            string            `json:"mcp_url"`
	OldSecretUntil    time.Time         `json:"old_secret_until,omitzero"`
	CreatedBy         *maker            `json:"created_by,omitempty"`
	CreatedAt         time.Time         `json:"created_at"` // in this workspace
	LastUsedAt        time.Time         `json:"last_used_at,omitzero"`
	Webhook           *webhook.Endpoint `json:"webhook,omitempty"`
	Secret            string            `json:"client_secret,omitempty"`  // shown once
	WebhookSecret     string            `json:"webhook_secret,omitempty"` // shown once
}

func (api *API) clientView(c oauth.Client, p oauth.Policy) clientView {
	v := clientView{ID: c.ID, Name: c.Name, Origin: c.Origin, RedirectURIs: orEmpty(c.RedirectURIs), Public: c.Public(),
		ClientCredentials: slices.Contains(c.GrantTypes, oauth.GrantCredentials), Scopes: scopeNames(p.Ceiling), Limits: p.Limits,
		MCPURL: api.BaseURL + "/mcp", CreatedAt: p.CreatedAt}
	if c.OldSecretHash != "" && api.Now().Before(c.OldUntil) {
		v.OldSecretUntil = c.OldUntil
	}
	if m := c.Maker; m.Kind != "" {
		v.CreatedBy = &maker{m.Kind, m.ID, m.Name}
	}
	return v
}

func (api *API) listClients(c *call) error {
	q := c.query()
	after, limit := q.text("cursor"), q.limit()
	if err := q.err(); err != nil {
		return err
	}
	clients, err := api.Desk.Clients(c.r.Context(), c.g, after, limit+1)
	if err != nil {
		return err
	}
	clients, next := cut(clients, limit, func(c oauth.ClientInWorkspace) string { return c.Client.ID })
	views := make([]clientView, len(clients))
	for i, each := range clients {
		views[i] = api.clientView(each.Client, each.Policy)
		views[i].Grants, views[i].LastUsedAt = &each.Grants, each.LastUsedAt
	}
	return page(c, views, limit, next)
}

func (api *API) createClient(c *call) error {
	if err := c.once(); err != nil {
		return err
	}
	limits := access.DefaultLimits // for those that the body leaves out
	in := admin.ClientInput{Limits: &limits}
	if err := c.decode(&in); err != nil {
		return err
	}
	made, err := api.Desk.CreateClient(c.r.Context(), c.g, in)
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", "/v1/clients/"+url.PathEscape(made.Client.ID))
	return api.replyClient(c, http.StatusCreated, made)
}

func (api *API) replyClient(c *call, status int, made admin.MadeClient) (err error) {
	v := api.clientView(made.Client, made.Policy)
	v.Secret, v.WebhookSecret = string(made.Secret), made.WebhookSecret.Text()
	if v.Webhook, err = webhookOf(c, api.Desk.ClientWebhook, made.Client.ID, v.Secret+v.WebhookSecret != ""); err != nil {
		return err
	}
	return data(c, status, v)
}

func (api *API) client(c *call) error {
	if err := c.empty(); err != nil {
		return err
	}
	made, err := api.Desk.Client(c.r.Context(), c.g, c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return api.replyClient(c, http.StatusOK, made)
}

func (api *API) updateClient(c *call) error {
	if err := c.once(); err != nil { // a client that gets a secret is told it now
		return err
	}
	b, err := c.body()
	if err != nil {
		return err
	}
	id := c.r.PathValue("id")
	found, err := api.Desk.Client(c.r.Context(), c.g, id)
	if err != nil {
		return err
	}
	in := admin.ClientInput{Limits: &found.Policy.Limits}
	if err := strictjson.Decode(b, &in); err != nil {
		return err
	}
	members, err := patched(b)
	if err != nil {
		return err
	}
	if members["limits"] == nil {
		in.Limits = nil
	}
	if isNull(members["webhook_url"]) {
		in.WebhookURL = new(string)
	}
	if isNull(members["scopes"]) {
		in.Scopes = &[]string{}
	}
	if isNull(members["redirect_uris"]) {
		in.RedirectURIs = &[]string{}
	}
	made, err := api.Desk.UpdateClient(c.r.Context(), c.g, id, in)
	if err != nil {
		return err
	}
	return api.replyClient(c, http.StatusOK, made)
}

func (api *API) deleteClient(c *call) error {
	if err := c.empty(); err != nil {
		return err
	}
	id := c.r.PathValue("id")
	if err := api.Desk.DeleteClient(c.r.Context(), c.g, id); err != nil {
		return err
	}
	return data(c, http.StatusOK, deleted{id, true})
}

func (api *API) rotateClient(c *call) error {
	overlap, err := c.overlap(0)
	if err != nil {
		return err
	}
	made, err := api.Desk.RotateClient(c.r.Context(), c.g, c.r.PathValue("id"), overlap)
	if err != nil {
		return err
	}
	return api.replyClient(c, http.StatusOK, made)
}

// A grantView is a stored consent as the API shows it.
type grantView struct {
	ID          string      `json:"id"`     // of the credential
	Status      string      `json:"status"` // active, expired or revoked
	Client      grantClient `json:"client"`
	User        *grantUser  `json:"user,omitempty"` // nobody with client credentials
	Scopes      []string    `json:"scopes"`         // what the user has granted; with client credentials the client's ceiling says it
	CreatedAt   time.Time   `json:"created_at"`
	ConsentedAt time.Time   `json:"consented_at"`        // the last time
	ExpiresAt   time.Time   `json:"expires_at,omitzero"` // unless it is used before
	LastUsedAt  time.Time   `json:"last_used_at,omitzero"`
	LastUsedFor string      `json:"last_used_for,omitempty"`
	RevokedAt   time.Time   `json:"revoked_at,omitzero"`
}

type (
	grantClient struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}

	grantUser struct {
		ID    string `json:"id"`
		Email string `json:"email"`
		Name  string `json:"name"`
	}

	grantScopes struct {
		Scopes []string `json:"scopes"`
	}

	grantChoice struct {
		Client string `json:"client,omitempty"`
		User   string `json:"user,omitempty"`
	}

	revokedGrants struct {
		Revoked int `json:"revoked"` // how many were in force
	}
)

func (api *API) grantView(g oauth.Grant) grantView {
	v := grantView{ID: g.ID, Status: "active", Client: grantClient{g.Client, g.ClientName}, Scopes: scopeNames(g.Scopes),
		CreatedAt: g.CreatedAt, ConsentedAt: g.ConsentedAt, ExpiresAt: g.ExpiresAt, LastUsedAt: g.LastUsedAt, LastUsedFor: g.LastUsedFor, RevokedAt: g.RevokedAt}
	if g.User != "" {
		v.User = &grantUser{g.User, g.UserEmail, g.UserName}
	}
	switch {
	case !g.RevokedAt.IsZero():
		v.Status = "revoked"
	case !g.ExpiresAt.IsZero() && !api.Now().Before(g.ExpiresAt):
		v.Status = "expired"
	}
	return v
}

func (api *API) listGrants(c *call) error {
	q := c.query()
	query := oauth.GrantQuery{Client: q.text("client"), User: q.text("user"), Before: q.cursor("grt"), Limit: q.limit()}
	query.InForce = q.oneOf("status", "active") == "active"
	if err := q.err(); err != nil {
		return err
	}
	limit := query.Limit
	query.Limit++
	grants, err := api.Desk.Grants(c.r.Context(), c.g, query)
	if err != nil {
		return err
	}
	grants, next := cut(grants, limit, func(g oauth.Grant) string { return g.ID })
	views := make([]grantView, len(grants))
	for i, g := range grants {
		views[i] = api.grantView(g)
	}
	return page(c, views, limit, next)
}

// oneGrant answers with the grant that do returns.
func (api *API) oneGrant(do func(context.Context, access.Grant, string) (oauth.Grant, error)) func(*call) error {
	return func(c *call) error {
		if err := c.empty(); err != nil {
			return err
		}
		g, err := do(c.r.Context(), c.g, c.r.PathValue("id"))
		if err != nil {
			return err
		}
		return data(c, http.StatusOK, api.grantView(g))
	}
}

func (api *API) updateGrant(c *call) error {
	var in grantScopes
	if err := c.decode(&in); err != nil {
		return err
	}
	if in.Scopes == nil {
		return &problem.Error{Kind: problem.MissingFields, Message: "scopes are missing", Fix: `Send {"scopes": ["contacts:read"]}; an empty list leaves the client without any right.`,
			Fields: []problem.Field{{Path: "scopes", Expected: "a list of scopes", Got: "nothing"}}}
	}
	scopes, err := api.Desk.ParseScopes(in.Scopes)
	if err != nil {
		return err
	}
	g, err := api.Desk.UpdateGrant(c.r.Context(), c.g, c.r.PathValue("id"), scopes)
	if err != nil {
		return err
	}
	return data(c, http.StatusOK, api.grantView(g))
}

func (api *API) revokeGrants(c *call) error {
	var in grantChoice
	if err := c.decode(&in); err != nil {
		return err
	}
	n, err := api.Desk.RevokeGrants(c.r.Context(), c.g, in.Client, in.User)
	if err != nil {
		return err
	}
	return data(c, http.StatusOK, revokedGrants{n})
}
