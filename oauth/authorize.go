package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"trustpager/access"
	"trustpager/audit"
	"trustpager/problem"
	"trustpager/typeid"
)

// An AuthorizationRequest is a checked request for an authorization (RFC 6749
// §4.1.1 with RFC 7636, RFC 8707 and RFC 9207).
type AuthorizationRequest struct {
	Client      Client
	RedirectURI string
	State       string
	Challenge   string         // S256
	Resource    string         // absolute; never ""
	Workspace   string         // that client or resource fix, "" if the user chooses
	Coarse      bool           // it asks for whatever the user grants
	Scopes      []access.Scope // the fine scopes that it asks for, if it is not coarse
	Offline     bool           // it asks for offline_access
}

// A RequestError says what is wrong with an authorization request. With a
// Location the browser goes there, back to the client (RFC 6749 §4.1.2.1);
// without one the error is a page, because client or redirect URI are not
// trusted.
type RequestError struct {
	Code     string // as in RFC 6749 §4.1.2.1
	Message  string // for people: what was wrong
	Fix      string // what to do
	Location string
}

// Error returns the code and the message.
func (e *RequestError) Error() string { return e.Code + ": " + e.Message }

// An Offer is what a consent page has to show: what the user may let the client
// do in a workspace, and what they let it do so far.
type Offer struct {
	Request   AuthorizationRequest
	Workspace access.Workspace
	User      access.User   // with the role in the workspace
	Most      access.Rights // the ceiling, the user's role, and what the client asked for
	Ceiling   access.Rights // of the client alone
	Grant     *Grant        // the consent so far, nil if there is none in force
	Changed   bool          // the client's name, redirect URIs or keys are others than the user consented to
}

// maxState bounds the state of a request, which comes back in a URL.
const maxState = 4096

// Authorize checks an authorization request. user is the id of whoever is
// logged in, "" for nobody: a client's metadata document is fetched only for a
// person, so without one the request of such a client that is not known yet
// fails with [ErrLoginFirst]. It fails with a [*RequestError]; with one that goes
// back to the client, the request says which client that is.
func (s *Server) Authorize(ctx context.Context, query url.Values, user string) (AuthorizationRequest, error) {
	client, err := s.requestingClient(ctx, query["client_id"], user)
	if err != nil {
		return AuthorizationRequest{}, err
	}
	redirectURI, err := requestedRedirect(&client, query["redirect_uri"])
	if err != nil {
		return AuthorizationRequest{}, err
	}
	// From here on errors go to the client, which is known to be at the URI.
	req := AuthorizationRequest{Client: client, RedirectURI: redirectURI}
	if states := query["state"]; len(states) == 1 && len(states[0]) <= maxState && text(states[0]) {
		req.State = states[0]
	}
	if err := s.checkRequest(query, &req); err != nil {
		return req, s.goBack(req, err)
	}
	return req, nil
}

// requestingClient returns the client that a request names.
func (s *Server) requestingClient(ctx context.Context, ids []string, user string) (Client, error) {
	if len(ids) != 1 || ids[0] == "" || len(ids[0]) > maxClientID || !text(ids[0]) {
		return Client{}, &RequestError{Code: codeInvalidRequest, Message: "The request does not say which app asks.",
			Fix: "Start again from the app that you want to connect."}
	}
	if isDocumentID(ids[0]) {
		return s.documentClient(ctx, ids[0], user)
	}
	c, err := s.Store.Client(ctx, ids[0])
	if problem.Is(err, problem.NotFound) {
		return c, &RequestError{Code: codeInvalidClient, Message: "The app that asks is not known here. Perhaps it was removed because nobody used it.",
			Fix: "Remove the connection in the app, and add it again: it registers itself anew."}
	}
	return c, err
}

// requestedRedirect returns the redirect URI of a request: one of the client's,
// or its only one if none is named.
func requestedRedirect(c *Client, uris []string) (string, error) {
	switch {
	case len(uris) > 1:
		return "", &RequestError{Code: codeInvalidRequest, Message: "The request names several places where the answer should go.",
			Fix: "Report this to the maker of the app."}
	case len(uris) == 0 || uris[0] == "":
		if len(c.RedirectURIs) == 1 {
			return c.RedirectURIs[0], nil
		}
		return "", &RequestError{Code: codeInvalidRequest, Message: "The request does not say where the answer should go.",
			Fix: "Report this to the maker of the app."}
	case !text(uris[0]) || !matchRedirect(c.RedirectURIs, uris[0]):
		return "", &RequestError{Code: codeInvalidRequest, Message: "The request wants the answer to go to a place that the app has not registered.",
			Fix: "If you started this yourself, remove the connection in the app and add it again. Otherwise close this page: somebody may be trying to get your access."}
	}
	return uris[0], nil
}

// checkRequest checks the parameters of a request whose client and redirect URI
// are good, and completes req.
func (s *Server) checkRequest(query url.Values, req *AuthorizationRequest) error {
	params := url.Values{}
	for name, values := range query {
		params[name] = values
	}
	if err := checkParams(params); err != nil {
		return err
	}
	switch {
	case params.Has("request"):
		return refuse("request_not_supported", "Request objects are not supported")
	case params.Has("request_uri"):
		return refuse("request_uri_not_supported", "Request objects are not supported")
	case !slices.Contains(req.Client.GrantTypes, GrantCode):
		return refuse(codeUnauthorizedClient, "The client is not registered for the grant type authorization_code")
	case len(params.Get("state")) > maxState:
		return refuse(codeInvalidRequest, fmt.Sprintf("The state is longer than %d bytes", maxState))
	case !params.Has("response_type"):
		return refuse(codeInvalidRequest, "The response_type is missing")
	case params.Get("response_type") != "code":
		return refuse("unsupported_response_type", "The response_type has to be code")
	case params.Has("response_mode") && params.Get("response_mode") != "query":
		return refuse(codeInvalidRequest, "The response_mode has to be query")
	case !params.Has("code_challenge"):
		return refuse(codeInvalidRequest, "The code_challenge is missing; PKCE is required")
	case params.Get("code_challenge_method") != "S256":
		return refuse(codeInvalidRequest, "The code_challenge_method has to be S256")
	case !validChallenge(params.Get("code_challenge")):
		return refuse(codeInvalidRequest, "The code_challenge is not a SHA-256 in base64url")
	case slices.Contains(strings.Fields(params.Get("prompt")), "none"):
		return refuse("interaction_required", "A person has to answer; prompt=none cannot be met")
	}
	if err := checkAuthorization(params); err != nil {
		return err
	}
	req.Challenge = params.Get("code_challenge")
	var ok bool
	if req.Resource, req.Workspace, ok = s.resource(params.Get("resource")); !ok {
		return refuse(codeInvalidTarget, "The resource is none of this server")
	}
	if fixed := req.Client.Workspace; fixed != "" {
		if req.Workspace != "" && req.Workspace != fixed {
			return refuse(codeInvalidTarget, "The client is of another workspace than the resource")
		}
		req.Workspace = fixed
	}
	set, err := s.scopes(params.Get("scope"))
	if err != nil {
		return refuse(codeInvalidScope, fmt.Sprintf("The scope is not valid: %v", err))
	}
	req.Coarse, req.Offline = set.coarse, set.offline
	if !set.coarse {
		req.Scopes = set.fine
	}
	return nil
}

// validChallenge reports whether s has the form of a SHA-256 in base64url
// (RFC 7636 §4.2).
func validChallenge(s string) bool {
	return len(s) == 43 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// goBack turns a refusal into the redirect that tells the client of it.
func (s *Server) goBack(req AuthorizationRequest, err error) error {
	e, ok := errors.AsType[*refusal](err)
	if !ok {
		return err
	}
	return &RequestError{Code: e.code, Message: e.description, Fix: "Report this to the maker of the app.",
		Location: s.answerLocation(req, url.Values{"error": {e.code}, "error_description": {describe(e.description)}})}
}

// answerLocation returns where the browser takes an answer, which names its
// issuer so that clients of several servers cannot mix them up (RFC 9207).
func (s *Server) answerLocation(req AuthorizationRequest, params url.Values) string {
	params.Set("iss", s.Issuer)
	if req.State != "" {
		params.Set("state", req.State)
	}
	return location(req.RedirectURI, params)
}

// Offer returns what the user may let the client do in the workspace. It fails
// with a [*RequestError] if the workspace does not take the client.
func (s *Server) Offer(ctx context.Context, req AuthorizationRequest, w access.Workspace, u access.User) (Offer, error) {
	return s.offer(ctx, s.Store, req, w, u)
}

func (s *Server) offer(ctx context.Context, store Store, req AuthorizationRequest, w access.Workspace, u access.User) (Offer, error) {
	if err := s.takes(req, w, u); err != nil {
		return Offer{}, err
	}
	ceiling := s.DefaultCeiling
	p, err := store.Policy(ctx, w.ID, req.Client.ID)
	if err != nil && !problem.Is(err, problem.NotFound) {
		return Offer{}, err
	}
	if err == nil {
		ceiling = p.Ceiling
	}
	o := Offer{Request: req, Workspace: w, User: u, Ceiling: access.RightsOf(ceiling)}
	o.Most = o.Ceiling.Min(s.RoleRights(u.Role))
	if !req.Coarse {
		o.Most = o.Most.Min(access.RightsOf(req.Scopes))
	}
	g, err := store.GrantOf(ctx, w.ID, req.Client.ID, u.ID)
	if err != nil && !problem.Is(err, problem.NotFound) {
		return Offer{}, err
	}
	if err == nil && g.RevokedAt.IsZero() {
		o.Grant = &g
		o.Changed = g.ClientDigest != req.Client.Document.Digest
	}
	return o, nil
}

// takes says why the workspace does not take the client.
func (s *Server) takes(req AuthorizationRequest, w access.Workspace, u access.User) error {
	no := func(message, fix string) error {
		return &RequestError{Code: codeAccessDenied, Message: message, Fix: fix}
	}
	settings := w.Settings
	switch {
	case req.Workspace != "" && req.Workspace != w.ID, req.Client.Workspace != "" && req.Client.Workspace != w.ID:
		return no("The app asks for access to another workspace.", "Choose the workspace that it was set up for, or log in as somebody who belongs to it.")
	case u.ID == "" || u.Role == "":
		return no("You do not belong to this workspace.", "Ask one of its admins for an invitation.")
	case w.Plan != access.Pro:
		plan := problem.Of(w.NoAPI())
		return no(plan.Message+".", plan.Fix)
	case req.Client.Origin == Registered:
		return nil
	case settings.NoSelfRegistration:
		return no("This workspace takes only apps that an admin has registered.", "Ask an admin to register the app, and connect it with the client id that they give you.")
	case len(settings.ClientHosts) > 0 && !fromHosts(&req.Client, settings.ClientHosts):
		return no("This workspace does not take apps from this host.", "Ask an admin to allow the app's host, or to register the app.")
	}
	return nil
}

// fromHosts reports whether the client is of one of the hosts: its metadata
// document, which proves where it comes from, otherwise every place where it
// takes answers.
func fromHosts(c *Client, hosts []string) bool {
	uris := c.RedirectURIs
	if c.Origin == Metadata {
		uris = []string{c.ID}
	}
	for _, uri := range uris {
		host := redirectHost(uri)
		if host == "" || !slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, host) }) {
			return false
		}
	}
	return len(uris) > 0
}

// person returns the user of an offer as a principal.
func (o *Offer) person() access.Principal {
	return access.Principal{Kind: access.KindPerson, ID: o.User.ID, Name: o.User.Name, User: o.User.ID}
}

// Allow stores the user's consent to the scopes, cut to what the offer allows
// at this moment, and returns where the browser goes with the code. If a client
// that asked for certain scopes gets none of them, that is a no.
func (s *Server) Allow(ctx context.Context, o Offer, scopes []access.Scope) (string, error) {
	if err := s.CheckScopes(scopes); err != nil {
		return "", problem.Errorf(problem.Validation, "the scopes cannot be granted: %v", err).WithFix("Reload the page and choose again.")
	}
	var goTo string
	err := s.InTx(ctx, func(tx Store) error {
		now, err := s.renew(ctx, tx, o)
		if err != nil {
			return err
		}
		chosen := s.Cut(scopes, now.Most)
		if !now.Request.Coarse && len(chosen) == 0 {
			goTo, err = s.deny(ctx, tx, now)
			return err
		}
		goTo, err = s.allow(ctx, tx, now, chosen)
		return err
	})
	return goTo, err
}

// renew returns the offer as it is now, and keeps it so until the transaction
// ends: since the page was shown, the client may have been deleted or changed,
// its ceiling lowered, and the consent so far narrowed or revoked.
func (s *Server) renew(ctx context.Context, tx Store, o Offer) (Offer, error) {
	req := o.Request
	if err := tx.LockConsent(ctx, o.Workspace.ID, req.Client.ID, o.User.ID); err != nil {
		return o, err
	}
	client, err := tx.Client(ctx, req.Client.ID)
	if problem.Is(err, problem.NotFound) || err == nil && !matchRedirect(client.RedirectURIs, req.RedirectURI) {
		return o, &RequestError{Code: codeInvalidClient, Message: "The app was removed or changed in the meantime.",
			Fix: "Start again from the app that you want to connect."}
	}
	if err != nil {
		return o, err
	}
	if client.Document.Digest != req.Client.Document.Digest {
		return o, &RequestError{Code: codeInvalidRequest, Message: "The app has changed its name or where answers go in the meantime.",
			Fix: "Start again from the app, and look at what the page says."}
	}
	req.Client = client
	return s.offer(ctx, tx, req, o.Workspace, o.User)
}

// Granted returns what the client is granted if the user chooses these scopes:
// what it did not ask for now is not what this consent is about, and stays.
func (o Offer) Granted(chosen []access.Scope) []access.Scope {
	scopes := slices.Clone(chosen)
	if o.Request.Coarse || o.Grant == nil {
		return scopes
	}
	for _, sc := range o.Grant.Scopes {
		if !slices.ContainsFunc(o.Request.Scopes, func(asked access.Scope) bool { return asked.Resource == sc.Resource }) {
			scopes = append(scopes, sc)
		}
	}
	return scopes
}

// allow stores the consent and its code.
func (s *Server) allow(ctx context.Context, tx Store, o Offer, chosen []access.Scope) (string, error) {
	if err := s.connect(ctx, tx, o); err != nil {
		return "", err
	}
	req, now := o.Request, s.Now()
	scopes := o.Granted(chosen)
	g, err := tx.SaveGrant(ctx, Grant{ID: typeid.NewID("grt"), Workspace: o.Workspace.ID, Client: req.Client.ID, ClientName: req.Client.Name,
		User: o.User.ID, UserEmail: o.User.Email, UserName: o.User.Name, Scopes: scopes, ClientDigest: req.Client.Document.Digest,
		CreatedAt: now, ConsentedAt: now})
	if err != nil {
		return "", err
	}
	scope := scopeSet{coarse: req.Coarse, offline: req.Offline, fine: chosen}.String()
	x := &exchange{Server: s, tx: tx, client: req.Client, now: now,
		family: Family{Workspace: g.Workspace, Grant: g.ID, Client: g.Client, User: g.User, Resource: req.Resource}}
	code, err := x.authorize(ctx, req.RedirectURI, req.Challenge, scope)
	if err != nil {
		return "", err
	}
	err = record(ctx, tx, now, "web", audit.ConsentGiven, o.person(), o.Workspace.ID, g.ID, map[string]any{
		"client": req.Client.ID, "client_name": req.Client.Name, "redirect_uri": req.RedirectURI, "resource": req.Resource,
		"scopes": access.FormatScopes(scopes), "token_scope": scope})
	if err != nil {
		return "", err
	}
	return s.answerLocation(req, url.Values{"code": {code}}), nil
}

// connect makes sure that the workspace has a policy for the client. With the
// first one a client that registered itself is noted.
func (s *Server) connect(ctx context.Context, tx Store, o Offer) error {
	c, now := o.Request.Client, s.Now()
	_, err := tx.Policy(ctx, o.Workspace.ID, c.ID)
	if !problem.Is(err, problem.NotFound) {
		return err
	}
	p := Policy{Workspace: o.Workspace.ID, Client: c.ID, Ceiling: s.DefaultCeiling, Limits: access.DefaultLimits, CreatedAt: now}
	if _, err := tx.EnsurePolicy(ctx, p); err != nil {
		return err
	}
	return record(ctx, tx, now, "web", audit.ClientConnected, o.person(), o.Workspace.ID, c.ID, map[string]any{
		"client_name": c.Name, "origin": c.Origin, "redirect_uris": c.RedirectURIs, "ceiling": access.FormatScopes(p.Ceiling)})
}

// Deny records that the user said no, and returns where the browser goes.
func (s *Server) Deny(ctx context.Context, o Offer) (string, error) {
	var goTo string
	err := s.InTx(ctx, func(tx Store) error {
		now, err := s.renew(ctx, tx, o)
		if err != nil {
			return err
		}
		goTo, err = s.deny(ctx, tx, now)
		return err
	})
	return goTo, err
}

func (s *Server) deny(ctx context.Context, tx Store, o Offer) (string, error) {
	req := o.Request
	err := record(ctx, tx, s.Now(), "web", audit.ConsentDenied, o.person(), o.Workspace.ID, req.Client.ID, map[string]any{
		"client_name": req.Client.Name, "redirect_uri": req.RedirectURI})
	if err != nil {
		return "", err
	}
	return s.answerLocation(req, url.Values{"error": {codeAccessDenied}, "error_description": {"The user did not allow it"}}), nil
}
