// Package rest offers the catalog's actions, and what admins do with approvals
// and keys, as a JSON API under /v1. Every handler only translates: it decodes
// the request, makes one call, and encodes the answer.
package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/audit"
	"trustpager/catalog"
	"trustpager/oauth"
	"trustpager/origin"
	"trustpager/problem"
	"trustpager/strictjson"
)

// maxBody is how many bytes the body of a request may have.
const maxBody = 1 << 20

// An AuditStore reads the audit log.
type AuditStore interface {
	AuditEntries(ctx context.Context, workspace string, q audit.Query) ([]audit.Entry, error)
	VerifyAudit(ctx context.Context, workspace string) (int64, error)
}

// An API is the JSON API.
type API struct {
	Gate    *approvals.Gate
	Desk    *admin.Desk
	Catalog *catalog.Catalog
	Auth    *access.Authenticator
	Limiter *access.Limiter
	Usage   *access.Usage
	Audit   AuditStore
	Origin  *origin.Guard // names of this server, and pages that may call it
	BaseURL string        // of this server, without a slash at the end: the resource that access tokens are for
	Now     func() time.Time
}

// Handler returns the API: one route for each action of the catalog, the
// routes for approvals, keys and the audit log, and the OpenAPI document.
func (api *API) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, a := range api.Catalog.Actions() {
		var query []string
		if a.Method == http.MethodDelete {
			query = []string{dryRunParameter}
		}
		mux.Handle(a.Method+" /v1"+a.Path, api.handle(a.Name, api.action(a), query...))
	}
	for _, r := range api.routes() {
		mux.Handle(r.Method+" /v1"+r.Path, api.handle(r.Name, api.audited(r)))
	}
	document, err := api.OpenAPI()
	if err != nil {
		panic(err) // a type of this package's own has no schema
	}
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(document)
	})
	mux.HandleFunc("/", fallback(mux))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		done, err := api.Origin.Check(w, r, cors)
		switch {
		case err != nil:
			problem.Write(w, r, err)
		case !done:
			mux.ServeHTTP(w, r)
		}
	})
}

// cors says what web pages may send and read.
var cors = origin.CORS{
	Methods: "GET, POST, PATCH, DELETE",
	Headers: "Authorization, Content-Type, Accept, If-Match, Idempotency-Key",
	Expose:  "ETag, Location, Retry-After, WWW-Authenticate, X-Request-Id, Idempotency-Replayed, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset",
}

// audited returns the route's handler, which records in the audit log that
// somebody asked for what they may not do. Actions are recorded by the Gate.
func (api *API) audited(r route) func(*call) error {
	return func(c *call) error {
		err := r.handle(c)
		if problem.Is(err, problem.InsufficientScope) {
			api.Gate.AuditDenial(c.r.Context(), c.g, approvals.Denial{Action: r.Name, Target: c.r.PathValue("id"), Door: "rest"})
		}
		return err
	}
}

// methods are those that some route has.
var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete}

// fallback answers what no route of mux matches: OPTIONS with what would, and
// everything else with the error envelope.
func fallback(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, method := range methods {
			other := *r
			other.Method = method
			if _, pattern := mux.Handler(&other); pattern != "/" {
				allowed = append(allowed, method)
			}
		}
		if len(allowed) == 0 {
			problem.Write(w, r, problem.Errorf(problem.NotFound, "there is no %s in this API", shown(r.URL.Path)).
				WithFix("All paths are listed in /openapi.json."))
			return
		}
		allow := strings.Join(append(allowed, http.MethodOptions), ", ")
		w.Header().Set("Allow", allow)
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		problem.Write(w, r, problem.Errorf(problem.MethodNotAllowed, "%.20q is not possible on %s", r.Method, shown(r.URL.Path)).WithFix("Use one of %s.", allow))
	}
}

// shown returns the path as an error repeats it.
func shown(path string) string {
	if len(path) > 100 {
		path = path[:100] + "…"
	}
	return strconv.Quote(strings.ToValidUTF8(path, "\ufffd"))
}

// A call is one request of an authenticated caller.
type call struct {
	w       http.ResponseWriter
	r       *http.Request
	g       access.Grant
	values  url.Values     // of the query string
	outcome access.Outcome // how a request that did not fail is counted
	needed  access.Scope   // the least that the action needs, zero if it is no action

	authenticate func() error // sets g
	now          func() time.Time
}

// dryRunParameter is what a DELETE has in its query, as its body may get lost on
// the way; others have it in the body.
const dryRunParameter = "dry_run"

// handle authenticates and counts a request, and lets fn answer it. query are the
// parameters that may follow a path whose method usually has none.
func (api *API) handle(name string, fn func(*call) error, query ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		c := &call{w: w, r: r, outcome: access.OutcomeOK}
		// Several headers are none: who checks one and uses another is fooled.
		token, err := access.BearerToken(strings.Join(r.Header.Values("Authorization"), ", "))
		c.now, c.authenticate = api.Now, func() (err error) {
			c.g, err = api.Auth.Authenticate(r.Context(), token, api.BaseURL)
			return err
		}
		if err == nil {
			err = c.authenticate()
		}
		if err != nil {
			if problem.Is(err, problem.Unauthorized) {
				w.Header().Set("WWW-Authenticate", oauth.Challenge(api.BaseURL, "", token != ""))
			}
			problem.Write(w, r, err)
			return
		}
		quota, err := api.Limiter.Allow(r.Context(), c.g)
		quota.Header(w.Header())
		if err == nil {
			err = c.checkURL(query)
		}
		if err == nil {
			err = protect(c, fn)
		}
		if err != nil {
			c.outcome = outcomeOf(err)
			problem.Write(w, r, api.stepUp(c, err))
		}
		api.Usage.Add(c.g, name, c.outcome)
	})
}

// stepUp returns the error of a request that an access token has no right to.
// With fine scopes the client is challenged to ask for more (RFC 6750 §3.1);
// with the coarse scope, where asking again would change nothing, it is led to
// the grant.
func (api *API) stepUp(c *call, err error) error {
	if c.g.Token == nil || c.needed.Resource == "" || !problem.Is(err, problem.InsufficientScope) {
		return err
	}
	if wants := c.g.Token.StepUp(c.needed); wants != "" {
		c.w.Header().Set("WWW-Authenticate", oauth.InsufficientScope(api.BaseURL, "", wants))
		return err
	}
	return problem.Of(err).WithFix("%s", c.g.HowToWiden(api.BaseURL))
}

// checkURL refuses ids and query strings that the database could not keep, and
// query strings that nothing would look at. allowed are the parameters that a
// method other than GET may have.
func (c *call) checkURL(allowed []string) error {
	if path := c.r.URL.Path; !storable(path) {
		return problem.Errorf(problem.NotFound, "there is no %s in this API", shown(path)).
			WithFix("Use ids as answers hold them.")
	}
	var err error
	if c.values, err = url.ParseQuery(c.r.URL.RawQuery); err != nil {
		return problem.Errorf(problem.Validation, "the query string is malformed: %s", strings.ToValidUTF8(err.Error(), "\ufffd")).
			WithFix("Encode it as name=value&name=value, with %%XX for what is no letter or digit.")
	}
	if c.r.Method == http.MethodGet || c.r.Method == http.MethodHead {
		return nil
	}
	for name := range c.values {
		if !slices.Contains(allowed, name) {
			return problem.Errorf(problem.Validation, "%s takes no query string here", c.r.Method).WithFix("Send the values as JSON in the body.")
		}
	}
	return nil
}

// storable reports whether every database can keep the text.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// protect turns a panic of fn into an error.
func protect(c *call, fn func(*call) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(c)
}

func outcomeOf(err error) access.Outcome {
	switch e := problem.Of(err); {
	case e.Kind == problem.InsufficientScope:
		return access.OutcomeDenied
	case e.Kind == problem.RateLimited:
		return access.OutcomeLimited
	case e.Status() >= 500:
		return access.OutcomeFailed
	}
	return access.OutcomeInvalid
}

// action returns the handler of an action of the catalog.
func (api *API) action(a *catalog.Action) func(*call) error {
	return func(c *call) error {
		in := approvals.Incoming{ID: c.r.PathValue("id"),
			Request: approvals.Request{Door: "rest", Method: c.r.Method, Path: c.r.URL.EscapedPath()}}
		var err error
		if a.Method == http.MethodGet {
			in.Input, err = a.DecodeQuery(c.values)
		} else {
			q := c.query()
			in.DryRun = q.boolean(dryRunParameter)
			if err := q.err(); err != nil {
				return err
			}
			in.Input, err = c.body()
			in.Request.Body = in.Input
		}
		if err != nil {
			return err
		}
		if in.IfVersion, err = ifMatch(c.r.Header); err != nil {
			return err
		}
		if in.Request.IdempotencyKey, err = idempotencyKey(c.r.Header); err != nil {
			return err
		}
		c.needed = a.Scope()
		out, err := api.Gate.Do(c.r.Context(), c.g, a, in)
		if err != nil {
			return err
		}
		if out.DryRun != nil {
			return reply(c.w, http.StatusOK, out.DryRun)
		}
		if out.Replayed {
			c.w.Header().Set("Idempotency-Replayed", "true")
		}
		if out.Approval != nil {
			return api.queued(c, *out.Approval)
		}
		status := http.StatusOK
		if a.Op == catalog.OpCreate {
			status = http.StatusCreated
			c.w.Header().Set("Location", "/v1"+a.Path+"/"+out.Result.Target.ID)
		}
		if v := out.Result.Target.Version; v > 0 {
			c.w.Header().Set("ETag", `"`+strconv.FormatInt(v, 10)+`"`)
		}
		return replyResult(c.w, status, out.Result)
	}
}

// queued answers with an approval: 202 while it waits or has ended without the
// action, 200 once the action was executed.
func (api *API) queued(c *call, a approvals.Approval) error {
	c.w.Header().Set("Location", "/v1/approvals/"+a.ID)
	status := http.StatusAccepted
	if a.Execution == approvals.Done {
		status = http.StatusOK
	} else {
		c.outcome = access.OutcomeQueued
	}
	return reply(c.w, status, api.Gate.Answer(a))
}

// read returns the bytes of the request's body.
func (c *call) read() ([]byte, error) {
	begun := c.now()
	b, err := strictjson.ReadBody(c.r, maxBody)
	if err == nil && c.now().Sub(begun) > access.SlowBody {
		err = c.authenticate()
	}
	return b, err
}

// body returns the request's body, which is nothing or strict JSON.
func (c *call) body() (json.RawMessage, error) {
	b, err := c.read()
	if err != nil || len(b) == 0 {
		return nil, err
	}
	return b, strictjson.Check(b)
}

// decode stores the request's body in v.
func (c *call) decode(v any) error {
	b, err := c.read()
	if err != nil {
		return err
	}
	return strictjson.Decode(b, v)
}

// empty refuses a request that says more than its route: a query string, or a
// body other than {}.
func (c *call) empty() error {
	if err := c.query().err(); err != nil || c.r.Method == http.MethodGet || c.r.Method == http.MethodHead {
		return err
	}
	return c.decode(&empty{})
}

// ifMatch returns the version that the request demands, 0 if any will do. Only
// one strong tag of ours is understood (RFC 9110 §13.1.1).
func ifMatch(h http.Header) (int64, error) {
	tag := strings.Join(h.Values("If-Match"), ", ")
	if tag == "" || tag == "*" {
		return 0, nil
	}
	if text, ok := strings.CutPrefix(tag, `"`); ok {
		if text, ok = strings.CutSuffix(text, `"`); ok {
			if v, err := strconv.ParseInt(text, 10, 64); err == nil && v > 0 {
				return v, nil
			}
		}
	}
	return 0, problem.Errorf(problem.Validation, "the header If-Match is not a version").
		WithFix(`Send the record's version in quotes, as in If-Match: "3".`)
}

// idempotencyKey returns the caller's own name for the request, "" if none.
func idempotencyKey(h http.Header) (string, error) {
	key := strings.Join(h.Values("Idempotency-Key"), "\n") // several are refused
	if len(key) > 255 || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", problem.Errorf(problem.Validation, "the header Idempotency-Key is too long or holds characters that are not printable ASCII").
			WithFix("Send 1 to 255 printable ASCII characters, as a UUID is.")
	}
	return key, nil
}

// reply answers with v as JSON. It encodes v before it writes, so that an error
// can still become a proper answer.
func reply(w http.ResponseWriter, status int, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // the URLs in answers are to be copied
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	write(w, status, b.Bytes())
	return nil
}

func write(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	w.Write(body) // fails only if the client has gone
}

// replyResult answers with what an action returned. The data is JSON already.
func replyResult(w http.ResponseWriter, status int, r catalog.Result) error {
	shown := r.Shown()
	body := make([]byte, 0, len(shown)+128)
	body = append(body, `{"data":`...)
	body = append(body, shown...)
	if r.Pagination != nil {
		p, err := json.Marshal(r.Pagination)
		if err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		body = append(append(body, `,"pagination":`...), p...)
	}
	write(w, status, append(body, '}'))
	return nil
}

// data answers with v as the envelope's data.
func data(c *call, status int, v any) error {
	return reply(c.w, status, struct {
		Data any `json:"data"`
	}{v})
}

// page answers with one page of a list. next is where it goes on, "" at the
// end.
func page[T any](c *call, items []T, limit int, next string) error {
	return reply(c.w, http.StatusOK, struct {
		Data       []T                `json:"data"`
		Pagination catalog.Pagination `json:"pagination"`
	}{orEmpty(items), catalog.Pagination{Limit: limit, HasMore: next != "", NextCursor: next}})
}

// orEmpty returns items, which encode as an array also if there are none.
func orEmpty[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// cut returns the first limit of items, of which one more was asked for, and
// the cursor of the rest.
func cut[T any](items []T, limit int, id func(T) string) ([]T, string) {
	if len(items) <= limit {
		return items, ""
	}
	return items[:limit], id(items[limit-1])
}
