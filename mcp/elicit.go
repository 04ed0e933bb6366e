package mcp

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/approvals"
)

// question is the key of the one thing that a call asks its user: to open the page
// of the approval.
const question = "approval"

// stateTime is how long a client may take to come back with its user's answer.
const stateTime = time.Hour

// asks reports whether the call is answered with a question to its user: the client
// can open a page for them, and they may decide there themselves.
func (c *call) asks(a approvals.Approval) bool {
	return c.client.urls && c.state == nil && a.Status == approvals.Pending && a.Decider == access.DeciderOwner
}

// ask returns the members of the result that has the client lead its user to the
// page of the approval, and call again.
func (s *Server) ask(c *call, a approvals.Approval) json.RawMessage {
	ans := s.Gate.Answer(a)
	params, _ := json.Marshal(map[string]any{ // cannot fail: texts
		"mode": "url", "url": ans.Approval.URL,
		"message": fmt.Sprintf("%s waits for your approval. Open its page to see what would be done, and to approve, edit or reject it.", a.Action),
	})
	b := fmt.Appendf(nil, `"resultType":"input_required","inputRequests":{%q:{"method":"elicitation/create","params":%s}},"requestState":`, question, params)
	return appendString(b, s.signState(c, a.ID, s.Now().Add(stateTime)))
}

// signState returns what the client brings back with its user's answer: which
// approval of which credential it is about, for which arguments, and until when.
func (s *Server) signState(c *call, id string, until time.Time) string {
	head := id + "." + strconv.FormatInt(until.Unix(), 36)
	return head + "." + base64.RawURLEncoding.EncodeToString(s.mac(c, head))
}

func (s *Server) mac(c *call, head string) []byte {
	m := hmac.New(sha256.New, s.StateKey)
	for _, part := range []string{head, c.grant.Workspace.ID, c.grant.Principal.ID, c.tool.name, string(c.arguments)} {
		fmt.Fprintf(m, "%d:%s", len(part), part)
	}
	return m.Sum(nil)
}

// stated returns the approval that the client has come back for. It fails with a
// fault if this server has not given the state for this call of this credential.
func (s *Server) stated(c *call) (id string, err error) {
	var state string
	_ = json.Unmarshal(c.state, &state) // what is no string is no state
	head, sent := state, ""
	if i := strings.LastIndexByte(state, '.'); i >= 0 {
		head, sent = state[:i], state[i+1:]
	}
	id, until, _ := strings.Cut(head, ".")
	mac, _ := base64.RawURLEncoding.DecodeString(sent)
	over, _ := strconv.ParseInt(until, 36, 64)
	if !hmac.Equal(mac, s.mac(c, head)) || s.Now().Unix() > over {
		return "", c.invalidParams("requestState was not given for this call, or is over: call again without it")
	}
	return id, nil
}

// answered waits for the decision of the user, whom the client has led to the page,
// and returns the approval as it then stands. A user who has not gone there is not
// waited for.
func (s *Server) answered(ctx context.Context, c *call) (approvals.Approval, error) {
	id, err := s.stated(c)
	if err != nil {
		return approvals.Approval{}, err
	}
	var responses map[string]struct {
		Action string `json:"action"`
	}
	if c.responses == nil || json.Unmarshal(c.responses, &responses) != nil || responses[question].Action == "" {
		return approvals.Approval{}, c.invalidParams(fmt.Sprintf("inputResponses lacks %q: send what the user did, such as {%q:{\"action\":\"accept\"}}", question, question))
	}
	if responses[question].Action != "accept" {
		return s.Gate.Approval(ctx, c.grant, id)
	}
	return s.waitFor(ctx, c, id, maxWait)
}
