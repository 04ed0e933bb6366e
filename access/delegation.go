package access

import (
	"strings"
	"time"
)

// ScopeWorkspace is the coarse scope: whatever the user grants. Clients that
// ask for it are narrowed without ever seeing a scope taken away.
const ScopeWorkspace = "workspace"

// ScopeOffline is asked for by clients that want a refresh token. It gives no
// rights.
const ScopeOffline = "offline_access"

// A Token is what an access token says.
type Token struct {
	ID        string // jti
	Grant     string // grt_…
	Family    string // fam_…: the tokens that stem from one authorization
	Client    string
	User      string // "" with client credentials
	Workspace string
	Scope     string // as in the token: names separated by spaces
	ExpiresAt time.Time
}

// Coarse reports whether the token has the scope [ScopeWorkspace], so that only
// the user's grant narrows it.
func (t *Token) Coarse() bool {
	for name := range strings.FieldsSeq(t.Scope) {
		if name == ScopeWorkspace {
			return true
		}
	}
	return false
}

// FineScopes returns the scopes of the form resource:rung that the token has.
func (t *Token) FineScopes() []Scope {
	var fine []Scope
	for name := range strings.FieldsSeq(t.Scope) {
		if s, err := ParseScope(name); err == nil {
			fine = append(fine, s)
		}
	}
	return fine
}

// Rights returns what the token by itself allows.
func (t *Token) Rights() Rights {
	if t.Coarse() {
		return FullRights
	}
	return RightsOf(t.FineScopes())
}

// StepUp returns the scopes that a client should ask for, separated by spaces,
// to get what needed gives too. It returns "" if asking again would change
// nothing: because the token is coarse, or because not the token but the grant,
// the client's ceiling or the user's role lacks it.
func (t *Token) StepUp(needed Scope) string {
	verbs, own := needed.Levels(), t.Rights()
	missing := false
	for v, l := range verbs {
		missing = missing || l > Deny && own.Level(needed.Resource, Verb(v)) == Deny
	}
	if !missing {
		return ""
	}
	return strings.TrimSpace(t.Scope + " " + needed.String())
}

// A Delegation is what the store knows of an OAuth credential: one client that
// acts for one user in one workspace, or for itself with client credentials.
type Delegation struct {
	ID         string // grt_…
	Client     string // its id
	ClientName string
	User       User // with the role in the workspace, "" if no longer a member; zero with client credentials
	Workspace  Workspace
	Scopes     []Scope // what the user has granted; nothing with client credentials
	Ceiling    []Scope // what the workspace's admins let the client do at most
	Limits     Limits
	Parent     string    // the key that registered the client, "" if none: it knows the client's secret
	Maker      string    // the user who registered the client, "" if none did
	RevokedAt  time.Time // zero while it is in force
	LastUsedAt time.Time
}

// Grant returns what the client may do: the minimum of the token that it
// showed, of what the user granted, of the client's ceiling and of the user's
// role, which roleRights translates. Without a token, as for a request that was
// made earlier, the other three count. A revoked delegation may do nothing.
func (d Delegation) Grant(token *Token, roleRights func(Role) Rights) Grant {
	g := Grant{
		Principal: Principal{Kind: KindOAuth, ID: d.ID, Name: d.ClientName, User: d.User.ID, Client: d.Client},
		Workspace: d.Workspace,
		Limits:    d.Limits,
		Parent:    d.Parent,
		Token:     token,
	}
	if d.User.ID != "" {
		g.Principal.Name = d.ClientName + " for " + d.User.Name
	}
	if !d.RevokedAt.IsZero() {
		return g
	}
	g.Unnarrowed = RightsOf(d.Ceiling)
	g.Rights = g.Unnarrowed
	if d.User.ID != "" {
		g.Unnarrowed = g.Unnarrowed.Min(roleRights(d.User.Role))
		g.Rights = g.Unnarrowed.Min(RightsOf(d.Scopes))
	}
	if token != nil {
		g.Rights = g.Rights.Min(token.Rights())
	}
	return g
}

// HowToWiden says how an OAuth client comes to more rights where asking for a
// token with more scopes would change nothing. baseURL is the server's.
func (g Grant) HowToWiden(baseURL string) string {
	if g.Principal.User == "" {
		return "An admin of the workspace can change the scopes of the client " + g.Principal.Client + ", which acts for itself."
	}
	return "The user can let this client do it at " + baseURL + "/connections/" + g.Principal.ID + ", as far as an admin of the workspace allows."
}
