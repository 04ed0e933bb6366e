package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/audit"
	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/strictjson"
	"trustpager/webhook"
)

// A keyView is a key as the API shows it.
type keyView struct {
	access.Key
	Status        string            `json:"status"` // active, revoked or expired
	Scopes        []string          `json:"scopes"`
	CreatedBy     maker             `json:"created_by"`
	Webhook       *webhook.Endpoint `json:"webhook,omitempty"`
	Secret        string            `json:"secret,omitempty"`         // shown once
	WebhookSecret string            `json:"webhook_secret,omitempty"` // shown once
}

type maker struct {
	Kind access.Kind `json:"kind"`
	ID   string      `json:"id"`
	Name string      `json:"name"`
}

func (api *API) keyView(k access.Key) keyView {
	v := keyView{Key: k, Status: "active", Scopes: scopeNames(k.Scopes), CreatedBy: maker{k.CreatedBy.Kind, k.CreatedBy.ID, k.CreatedBy.Name}}
	switch {
	case !k.RevokedAt.IsZero():
		v.Status = "revoked"
	case !k.ExpiresAt.IsZero() && !api.Now().Before(k.ExpiresAt):
		v.Status = "expired"
	}
	return v
}

func scopeNames(scopes []access.Scope) []string {
	names := make([]string, len(scopes))
	for i, s := range scopes {
		names[i] = s.String()
	}
	return names
}

// An identity says who is asking.
type (
	identity struct {
		Kind       access.Kind       `json:"kind"`
		Key        *keyIdentity      `json:"key,omitempty"`    // of kind key
		Client     *clientIdentity   `json:"client,omitempty"` // of kind oauth
		User       *userIdentity     `json:"user,omitempty"`   // whom the client acts for
		Workspace  workspaceIdentity `json:"workspace"`
		FullAccess bool              `json:"full_access"`
		MayDecide  bool              `json:"may_decide"`
		Scopes     []string          `json:"scopes"`
		Limits     access.Limits     `json:"limits"`
	}

	keyIdentity struct {
		ID        string    `json:"id"`
		Name      string    `json:"name"`
		Last4     string    `json:"last4"`
		ExpiresAt time.Time `json:"expires_at,omitzero"`
	}

	clientIdentity struct {
		ID    string `json:"id"`
		Name  string `json:"name"`
		Grant string `json:"grant"` // the credential
	}

	userIdentity struct {
		ID string `json:"id"`
	}

	workspaceIdentity struct {
		ID       string      `json:"id"`
		Name     string      `json:"name"`
		Plan     access.Plan `json:"plan"`
		TimeZone string      `json:"time_zone"`
	}
)

// me says who is asking.
func (api *API) me(c *call) error {
	if err := c.empty(); err != nil {
		return err
	}
	w := c.g.Workspace
	me := identity{Kind: c.g.Principal.Kind, Workspace: workspaceIdentity{w.ID, w.Name, w.Plan, w.TimeZone}, MayDecide: c.g.MayDecide, Limits: c.g.Limits}
	if k := c.g.Key; k != nil {
		me.Key = &keyIdentity{k.ID, k.Name, k.Last4, k.ExpiresAt}
		me.FullAccess, me.Scopes = k.FullAccess, scopeNames(k.Scopes)
	} else {
		me.Client = &clientIdentity{c.g.Principal.Client, c.g.Principal.Name, c.g.Principal.ID}
		if u := c.g.Principal.User; u != "" {
			me.User = &userIdentity{u}
		}
		me.Scopes = scopeNames(api.Catalog.ScopesOf(c.g.Rights))
	}
	return data(c, http.StatusOK, me)
}

func (api *API) listKeys(c *call) error {
	q := c.query()
	after, limit := q.cursor("key"), q.limit()
	if err := q.err(); err != nil {
		return err
	}
	keys, err := api.Desk.Keys(c.r.Context(), c.g, after, limit+1)
	if err != nil {
		return err
	}
	keys, next := cut(keys, limit, func(k access.Key) string { return k.ID })
	views := make([]keyView, len(keys))
	for i, k := range keys {
		views[i] = api.keyView(k)
	}
	return page(c, views, limit, next)
}

func (api *API) createKey(c *call) error {
	if err := c.once(); err != nil {
		return err
	}
	limits := access.DefaultLimits // for those that the body leaves out
	in := admin.KeyInput{Limits: &limits}
	if err := c.decode(&in); err != nil {
		return err
	}
	made, err := api.Desk.CreateKey(c.r.Context(), c.g, in)
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", "/v1/keys/"+made.Key.ID)
	return api.replyKey(c, http.StatusCreated, made)
}

// once refuses an Idempotency-Key: the answer holds a secret, which is never
// stored, so it could not be given again.
func (c *call) once() error {
	if c.r.Header.Get("Idempotency-Key") == "" {
		return nil
	}
	return problem.Errorf(problem.Validation, "Idempotency-Key is not possible here: the answer holds a secret that is shown only once").
		WithFix("Send the request without it. If an answer was lost, read the list to see what was done, and delete or rotate what was made.")
}

func (api *API) replyKey(c *call, status int, made admin.MadeKey) (err error) {
	v := api.keyView(made.Key)
	v.Secret, v.WebhookSecret = string(made.Secret), made.WebhookSecret.Text()
	if v.Webhook, err = webhookOf(c, api.Desk.Webhook, made.Key.ID, v.Secret+v.WebhookSecret != ""); err != nil {
		return err
	}
	return data(c, status, v)
}

// webhookOf returns the webhook that read finds, nil if there is none. With
// secrets in the answer, which are shown now or never, a fault only goes to the
// log.
func webhookOf(c *call, read func(context.Context, access.Grant, string) (webhook.Endpoint, error), id string, secrets bool) (*webhook.Endpoint, error) {
	e, err := read(c.r.Context(), c.g, id)
	switch {
	case err == nil:
		return &e, nil
	case problem.Is(err, problem.NotFound):
		return nil, nil
	case secrets:
		problem.Report(c.r.Context(), err)
		return nil, nil
	}
	return nil, err
}

func (api *API) key(c *call) error {
	if err := c.empty(); err != nil {
		return err
	}
	k, err := api.Desk.Key(c.r.Context(), c.g, c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return api.replyKey(c, http.StatusOK, admin.MadeKey{Key: k})
}

func (api *API) updateKey(c *call) error {
	b, err := c.body()
	if err != nil {
		return err
	}
	id := c.r.PathValue("id")
	k, err := api.Desk.Key(c.r.Context(), c.g, id)
	if err != nil {
		return err
	}
	in := admin.KeyInput{Limits: &k.Limits}
	if err := decodeKeyPatch(b, &in); err != nil {
		return err
	}
	made, err := api.Desk.UpdateKey(c.r.Context(), c.g, id, in)
	if err != nil {
		return err
	}
	return api.replyKey(c, http.StatusOK, made)
}

// oneKey answers with the key that do returns.
func (api *API) oneKey(do func(context.Context, access.Grant, string) (access.Key, error)) func(*call) error {
	return func(c *call) error {
		if err := c.empty(); err != nil {
			return err
		}
		k, err := do(c.r.Context(), c.g, c.r.PathValue("id"))
		if err != nil {
			return err
		}
		return api.replyKey(c, http.StatusOK, admin.MadeKey{Key: k})
	}
}

func (api *API) deleteKey(c *call) error {
	if err := c.empty(); err != nil {
		return err
	}
	id := c.r.PathValue("id")
	if err := api.Desk.DeleteKey(c.r.Context(), c.g, id); err != nil {
		return err
	}
	return data(c, http.StatusOK, deleted{id, true})
}

// The bodies and answers of requests about keys.
type (
	overlap struct {
		Hours float64 `json:"overlap_hours,omitempty"` // how long the old secret works
	}

	deleted struct {
		ID      string `json:"id"`
		Deleted bool   `json:"deleted"`
	}

	webhookSecret struct {
		Secret string `json:"webhook_secret"`
	}

	verification struct {
		Entries int64  `json:"entries"` // how many are sound
		Sound   bool   `json:"sound"`
		Fault   string `json:"fault,omitempty"` // what is wrong with the first that is not
	}
)

// duration returns the overlap, which is at most a week.
func (o overlap) duration() (time.Duration, error) {
	if most := admin.MaxOverlap.Hours(); o.Hours < 0 || o.Hours > most {
		return 0, &problem.Error{Kind: problem.Validation, Message: "the overlap is too long or negative", Fix: "Send 0 to 168 hours.",
			Fields: []problem.Field{{Path: "overlap_hours", Expected: "0 to 168", Got: fmt.Sprint(o.Hours)}}}
	}
	return time.Duration(o.Hours * float64(time.Hour)), nil
}

// overlap returns the overlap that the body asks for, or the one that is usual.
func (c *call) overlap(usual time.Duration) (time.Duration, error) {
	if err := c.once(); err != nil {
		return 0, err
	}
	in := overlap{Hours: usual.Hours()}
	if err := c.decode(&in); err != nil {
		return 0, err
	}
	return in.duration()
}

func (api *API) rotateKey(c *call) error {
	overlap, err := c.overlap(0)
	if err != nil {
		return err
	}
	made, err := api.Desk.RotateKey(c.r.Context(), c.g, c.r.PathValue("id"), overlap)
	if err != nil {
		return err
	}
	return api.replyKey(c, http.StatusOK, made)
}

// rotateWebhook answers with the new secret of a webhook that do rotates.
func rotateWebhook(do func(context.Context, access.Grant, string, time.Duration) (webhook.Secret, error)) func(*call) error {
	return func(c *call) error {
		overlap, err := c.overlap(webhook.DefaultOverlap)
		if err != nil {
			return err
		}
		secret, err := do(c.r.Context(), c.g, c.r.PathValue("id"), overlap)
		if err != nil {
			return err
		}
		return data(c, http.StatusOK, webhookSecret{secret.Text()})
	}
}

// testWebhook answers with the test delivery that do sends.
func testWebhook(do func(context.Context, access.Grant, string) (webhook.Delivery, error)) func(*call) error {
	return func(c *call) error {
		if err := c.empty(); err != nil {
			return err
		}
		d, err := do(c.r.Context(), c.g, c.r.PathValue("id"))
		if err != nil {
			return err
		}
		return data(c, http.StatusAccepted, d)
	}
}

func (api *API) keyUsage(c *call) error {
	q := c.query()
	since := q.time("since")
	if err := q.err(); err != nil {
		return err
	}
	if since.IsZero() {
		since = api.Now().Add(-7 * 24 * time.Hour)
	}
	counts, err := api.Desk.Usage(c.r.Context(), c.g, c.r.PathValue("id"), since.Truncate(time.Hour))
	if err != nil {
		return err
	}
	return data(c, http.StatusOK, orEmpty(counts))
}

var deliveryStates = []string{string(jobs.Ready), string(webhook.Done), string(jobs.Dead)}

func (api *API) listDeliveries(c *call) error {
	q := c.query()
	query := webhook.Query{Owner: q.text("owner"), Approval: q.text("approval"),
		State:  jobs.State(q.oneOf("status", deliveryStates...)),
		Before: q.cursor("msg"), Limit: q.limit()}
	if err := q.err(); err != nil {
		return err
	}
	limit := query.Limit
	query.Limit++
	list, err := api.Desk.Deliveries(c.r.Context(), c.g, query)
	if err != nil {
		return err
	}
	list, next := cut(list, limit, func(d webhook.Delivery) string { return d.ID })
	return page(c, list, limit, next)
}

func (api *API) resend(c *call) error {
	if err := c.empty(); err != nil {
		return err
	}
	d, err := api.Desk.Resend(c.r.Context(), c.g, c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return data(c, http.StatusAccepted, d)
}

func (api *API) listAudit(c *call) error {
	if !c.g.IsAdmin() {
		return problem.Errorf(problem.InsufficientScope, "only admins and full-access keys read the audit log").
			WithFix("Use a full-access key, or ask an admin of the workspace.")
	}
	q := c.query()
	query := audit.Query{Actor: q.text("actor"), Event: audit.Event(q.text("event")), Target: q.text("target"),
		Since: q.time("since"), Until: q.time("until"), Limit: q.limit()}
	if cursor := q.text("cursor"); cursor != "" {
		var err error
		if query.Before, err = strconv.ParseInt(cursor, 10, 64); err != nil || query.Before <= 0 {
			q.bad("cursor", "the next_cursor of an earlier answer")
		}
	}
	if err := q.err(); err != nil {
		return err
	}
	limit := query.Limit
	query.Limit++
	entries, err := api.Audit.AuditEntries(c.r.Context(), c.g.Workspace.ID, query)
	if err != nil {
		return err
	}
	entries, next := cut(entries, limit, func(e audit.Entry) string { return strconv.FormatInt(e.Seq, 10) })
	return page(c, entries, limit, next)
}

func (api *API) verifyAudit(c *call) error {
	if !c.g.IsAdmin() {
		return problem.Errorf(problem.InsufficientScope, "only admins and full-access keys verify the audit log").
			WithFix("Use a full-access key, or ask an admin of the workspace.")
	}
	if err := c.empty(); err != nil {
		return err
	}
	n, err := api.Audit.VerifyAudit(c.r.Context(), c.g.Workspace.ID)
	if c.r.Context().Err() != nil || errors.Unwrap(err) != nil {
		return err // what the database failed with is no fault of the log
	}
	result := verification{Entries: n, Sound: err == nil}
	if err != nil {
		result.Fault = err.Error()
	}
	return data(c, http.StatusOK, result)
}

// decodeKeyPatch reads a merge patch (RFC 7396) of a key into in, whose limits
// are those that the key has: null takes the expiry, the webhook or the scopes
// away.
func decodeKeyPatch(b []byte, in *admin.KeyInput) error {
	if err := strictjson.Decode(b, in); err != nil {
		return err
	}
	members, err := patched(b)
	if err != nil {
		return err
	}
	if members["limits"] == nil {
		in.Limits = nil
	}
	if isNull(members["expires_at"]) {
		in.ExpiresAt = &time.Time{}
	}
	if isNull(members["webhook_url"]) {
		in.WebhookURL = new(string)
	}
	if isNull(members["scopes"]) {
		in.Scopes = &[]string{}
	}
	return nil
}

// patched returns the members of a merge patch.
func patched(b []byte) (members map[string]json.RawMessage, err error) {
	if len(b) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(b, &members); err != nil {
		return nil, fmt.Errorf("decode the patch: %w", err)
	}
	return members, nil
}

func isNull(value json.RawMessage) bool { return string(value) == "null" }
