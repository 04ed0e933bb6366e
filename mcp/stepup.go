package mcp

import (
	"net/http"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/oauth"
	"trustpager/problem"
)

// lacks answers a call, with an access token, of a tool that the catalog has
// and the token's rights do not reach. To a key such a tool does not exist; an
// OAuth client is told, because it can do something about it:
//
//   - a token with fine scopes is challenged to ask for more (RFC 6750 §3.1),
//   - with the coarse scope asking again would change nothing, so the model gets
//     an error that leads the user to the grant.
func (s *Server) lacks(w http.ResponseWriter, r *http.Request, c *call, t *tool) (done bool, err error) {
	token := c.grant.Token
	if token == nil {
		return false, nil
	}
	if t != nil && t.name == "call_tool" && c.selection.search {
		t, _, _ = s.inner(c) // what is wrong with it, the tool says
	}
	if t == nil || t.action == nil || t.action.Resource == "" || t.action.Level(c.grant) != access.Deny || c.id == nil {
		return false, nil
	}
	c.tool = t
	needed := t.action.Scope()
	s.Gate.AuditDenial(r.Context(), c.grant, approvals.Denial{Action: t.name, Resource: t.action.Resource, Door: "mcp"})
	refusal := problem.Errorf(problem.InsufficientScope, "%s needs the scope %s, which this client was not granted", t.name, needed)
	if wants := token.StepUp(needed); wants != "" {
		w.Header().Set("WWW-Authenticate", oauth.InsufficientScope(s.BaseURL, r.URL.Path, wants))
		return true, refusal.WithFix("Ask the user to connect again with the scope %q.", wants)
	}
	a := errorAnswer(r.Context(), refusal.WithFix("Tell the user: %s Do not retry before that.", c.grant.HowToWiden(s.BaseURL)))
	c.said, c.outcome = &a, a.outcome
	h := w.Header()
	h.Set("Content-Type", "application/json")
	w.Write(c.encode()) // fails only if the client has gone
	return true, nil
}
