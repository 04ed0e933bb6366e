package mcp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	mcpgo "github.com/mark3labs/mcp-go/mcp"

	"trustpager/access"
	"trustpager/problem"
)

// maxFollowed is how many tasks one stream can follow.
const maxFollowed = 50

// listen answers subscriptions/listen: it tells the client that its list of tools
// has changed, and how the tasks stand that it names. Whether the list has changed
// is seen by what the credential may do at that moment, so nobody else is told.
func (s *Server) listen(w http.ResponseWriter, r *http.Request, c *call) error {
	if err := c.checkHeaders(r.Header, ""); err != nil {
		return err
	}
	if !c.client.modern {
		return c.faultOf(http.StatusNotFound, mcpgo.METHOD_NOT_FOUND, methodListen+" is not part of this version of the protocol")
	}
	if c.id == nil {
		return c.faultOf(http.StatusBadRequest, mcpgo.INVALID_REQUEST, methodListen+" needs an id")
	}
	var want struct {
		Tools bool     `json:"toolsListChanged"`
		Tasks []string `json:"taskIds"`
	}
	if c.notifications == nil || jsonv2.Unmarshal(c.notifications, &want) != nil {
		return c.invalidParams(`notifications is missing or no object: send such as {"toolsListChanged":true}`)
	}
	if len(want.Tasks) > 0 && !c.client.tasks {
		return missingTasks()
	}
	if len(want.Tasks) > maxFollowed {
		return c.invalidParams(fmt.Sprintf("taskIds names %d tasks: name at most %d", len(want.Tasks), maxFollowed))
	}
	slices.Sort(want.Tasks)
	want.Tasks = slices.Compact(want.Tasks)

	// Watched before it is looked at, so that no change falls between.
	rights, stop := s.Watch(access.RightsTopic(c.grant.Workspace.ID))
	defer stop()
	seen := s.shape(c.grant, c.selection)
	f, err := s.follow(r.Context(), c.grant, want.Tasks)
	if err != nil {
		return c.taskFault(err)
	}
	defer f.stop()
	out, err := s.open(w, r, c)
	if err != nil {
		return err
	}
	defer out.close()

	ack, _ := json.Marshal(struct { // cannot fail: plain values
		Tools bool     `json:"toolsListChanged,omitempty"`
		Tasks []string `json:"taskIds,omitempty"`
	}{want.Tools, want.Tasks})
	if !out.event(c.notification("notifications/subscriptions/acknowledged", fmt.Appendf(nil, `"notifications":%s`, ack))) {
		return nil
	}
	if !want.Tools && len(want.Tasks) == 0 {
		s.endListen(out, c)
		return nil
	}
	for _, id := range f.over {
		if !s.tellTask(out, c, id) {
			return nil
		}
	}
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	for {
		var changed string
		select {
		case <-out.ctx.Done():
			s.endListen(out, c)
			return nil
		case <-rights:
		case changed = <-f.changed:
		case <-beat.C:
			if !out.beat() {
				return nil
			}
		}
		// Whatever is sent, it is to somebody who may still know it.
		err := s.again(out.ctx, c)
		if out.ctx.Err() != nil {
			continue
		}
		if err != nil {
			if problem.Of(err).Status() >= http.StatusInternalServerError {
				continue // the database's trouble; the next beat looks again
			}
			out.fail(c.id, err)
			return nil
		}
		if now := s.shape(c.grant, c.selection); want.Tools && now != seen {
			seen = now
			if !out.event(c.notification(mcpgo.MethodNotificationToolsListChanged, nil)) {
				return nil
			}
		}
		if changed != "" && !s.tellTask(out, c, changed) {
			return nil
		}
	}
}

// tellTask tells how a task stands, and reports whether the client is still there.
func (s *Server) tellTask(out *stream, c *call, id string) bool {
	t, err := s.tasks.get(out.ctx, c.grant, id)
	if err != nil {
		return out.ctx.Err() == nil // it is not known: the client sees by asking
	}
	return out.event(c.notification("notifications/tasks", appendDetail(nil, t)))
}

// endListen ends the stream as the protocol wants it: with the request's result.
func (s *Server) endListen(out *stream, c *call) {
	b := append(append([]byte(`{"jsonrpc":"2.0","id":`), c.id...), `,"result":{"resultType":"complete","_meta":`...)
	out.event(append(append(b, c.subscription()...), "}}"...))
}

// subscription is the _meta by which the client knows the stream: the id of its
// request.
func (c *call) subscription() []byte {
	return fmt.Appendf(nil, `{%q:%s}`, mcpgo.MetaKeySubscriptionID, c.id)
}

func (c *call) notification(method string, members []byte) []byte {
	b := fmt.Appendf(nil, `{"jsonrpc":"2.0","method":%q,"params":{"_meta":%s`, method, c.subscription())
	if len(members) > 0 {
		b = append(append(b, ','), members...)
	}
	return append(b, "}}"...)
}

// shape returns what the list of tools of the grant is made of: two lists of the
// same shape are the same.
func (s *Server) shape(g access.Grant, sel selection) string {
	b := make([]byte, len(s.tools))
	for i, t := range s.tools {
		b[i] = byte(s.level(g, sel, t))
	}
	return string(b)
}

// following is what has become of tasks since they were last looked at.
type following struct {
	changed chan string // ids
	over    []string    // ids of those that were over from the start
	stop    func()
}

// follow watches tasks. It fails with [problem.NotFound] if one is not the
// grant's.
func (s *Server) follow(ctx context.Context, g access.Grant, ids []string) (following, error) {
	ctx, cancel := context.WithCancel(ctx)
	f := following{changed: make(chan string), stop: cancel}
	for _, id := range ids {
		touched, stop := s.Watch(id)
		t, err := s.tasks.get(ctx, g, id)
		if err != nil || t.over() {
			stop()
			if err != nil {
				cancel()
				return f, err
			}
			f.over = append(f.over, id)
			continue
		}
		go func() {
			defer stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-touched:
				}
				select {
				case <-ctx.Done():
					return
				case f.changed <- id:
				}
			}
		}()
	}
	return f, nil
}
