package mcp

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"trustpager/approvals"
)

// memory is what the server knows of the approvals of credentials, so that it need
// not ask the store with each call: what of theirs is open, until anything in their
// workspace changes.
type memory struct {
	mu sync.Mutex
	of map[string]*workspaceMemory
}

// A workspaceMemory forgets everything when an approval of the workspace was
// touched, on any node.
type workspaceMemory struct {
	changed <-chan struct{}
	stop    func()
	round   int                             // how often it has forgotten
	open    map[string][]approvals.Approval // by credential; an entry of none is known to have none
}

// mostRemembered is how many credentials of a workspace, and how many workspaces,
// are remembered.
const mostRemembered = 10_000

// recall returns what is known to be open of the credential, and remember, which
// keeps what was found instead, unless something has changed in between.
func (s *Server) recall(workspace, credential string) (open []approvals.Approval, known bool, remember func([]approvals.Approval)) {
	m := &s.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = map[string]*workspaceMemory{}
	}
	w := m.of[workspace]
	if w == nil {
		if len(m.of) >= mostRemembered {
			for id, other := range m.of { // any one
				other.stop()
				delete(m.of, id)
				break
			}
		}
		w = &workspaceMemory{open: map[string][]approvals.Approval{}}
		w.changed, w.stop = s.Watch(approvals.Topic(workspace))
		m.of[workspace] = w
	}
	select {
	case <-w.changed:
		clear(w.open)
		w.round++
	default:
	}
	round := w.round
	open, known = w.open[credential]
	return open, known, func(found []approvals.Approval) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if w.round != round {
			return // another call has seen that something changed, since this one has looked
		}
		if len(w.open) >= mostRemembered {
			clear(w.open)
		}
		w.open[credential] = found
	}
}

// trail adds to what a tool said how earlier requests of the same credential stand,
// as text: what is not done yet with each answer, what has ended once. about is the
// approval that the answer itself tells of, "" if none.
func (s *Server) trail(ctx context.Context, c *call, a *answer) error {
	open, known, remember := s.recall(c.grant.Workspace.ID, c.grant.Principal.ID)
	var ended []approvals.Approval
	if !known || a.about != "" { // the notice of what this very call has changed may be on its way
		news, err := s.Gate.News(context.WithoutCancel(ctx), c.grant)
		if err != nil {
			return err
		}
		open, ended = news.Open, news.Ended
		for i := range open { // what the trailer needs, and no bodies
			open[i] = approvals.Approval{ID: open[i].ID, Action: open[i].Action, Status: open[i].Status}
		}
		if !news.More {
			remember(open)
		}
	}
	a.trailer = s.trailer(open, ended, a.about)
	return nil
}

// trailer says how the approvals stand, "" if there is nothing to say.
func (s *Server) trailer(open, ended []approvals.Approval, about string) string {
	var still []approvals.Approval
	for _, a := range open {
		if a.ID != about {
			still = append(still, a)
		}
	}
	var parts []string
	if len(still) > 0 {
		parts = append(parts, fmt.Sprintf("%s still NOT executed: %s", plural(len(still), "earlier action is", "earlier actions are"), names(still)))
	}
	by := map[string][]approvals.Approval{}
	var order []string
	for _, a := range ended {
		if a.ID == about {
			continue
		}
		what := s.Gate.Answer(a).Status
		if by[what] == nil {
			order = append(order, what)
		}
		by[what] = append(by[what], a)
	}
	for _, what := range order {
		list := by[what]
		parts = append(parts, fmt.Sprintf("%s %s: %s", plural(len(list), "was", "were"), strings.ReplaceAll(what, "_", " "), names(list)))
	}
	if len(parts) == 0 {
		return ""
	}
	return "Of what you asked for before: " + strings.Join(parts, "; ") + ". get_approval tells more."
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// namedInTrailer is how many approvals a trailer names of each kind.
const namedInTrailer = 5

func names(list []approvals.Approval) string {
	var b strings.Builder
	for i, a := range list {
		if i == namedInTrailer {
			fmt.Fprintf(&b, ", … (list_my_approvals has all)")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s (%s)", a.Action, a.ID)
	}
	return b.String()
}
