package mcp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	mcpgo "github.com/mark3labs/mcp-go/mcp"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/problem"
	"trustpager/typeid"
)

// A taskStatus is where a task stands, in the protocol's words.
type taskStatus string

const (
	taskWorking   taskStatus = "working"
	taskInput     taskStatus = "input_required"
	taskCompleted taskStatus = "completed"
	taskFailed    taskStatus = "failed"
	taskCancelled taskStatus = "cancelled"
)

// A task is a call whose result the client fetches later. A call that waits for a
// person has its approval as its task, under the same id.
type task struct {
	id       string
	status   taskStatus
	message  string // for people
	created  time.Time
	updated  time.Time
	ttl      time.Duration // 0 means it is kept
	result   *answer       // once it is over, nil if it was cancelled
	fault    *fault        // in place of a result
	requests json.RawMessage
}

func (t *task) over() bool { return t.status != taskWorking && t.status != taskInput }

// pollInterval is how often clients should ask for a task.
const pollInterval = 5 * time.Second

// A taskSource keeps tasks. The grant is who asks: a task that is not its own is
// [problem.NotFound].
type taskSource interface {
	get(ctx context.Context, g access.Grant, id string) (task, error)

	// wait returns the task when it is over, or as it stands when ctx ends.
	wait(ctx context.Context, g access.Grant, id string) (task, error)

	// cancel takes the task back. It fails with [problem.Conflict] if that is not
	// possible any more.
	cancel(ctx context.Context, g access.Grant, id string) error

	// update gives a task what it has asked its user for.
	update(ctx context.Context, g access.Grant, id string, responses map[string]json.RawMessage) error

	// list returns tasks, newest first, beginning after the one whose id ends so.
	list(ctx context.Context, g access.Grant, after string, limit int) ([]task, error)
}

// approvalTasks are the approvals that a credential has asked for, and the answers
// of what it asked for as a task and ran at once.
type approvalTasks struct{ *Server }

func (s approvalTasks) get(ctx context.Context, g access.Grant, id string) (task, error) {
	if strings.HasPrefix(id, "tsk_") {
		return s.kept(ctx, g, id)
	}
	a, err := s.Gate.Approval(ctx, g, id)
	return s.told(ctx, g, a, err)
}

func (s approvalTasks) wait(ctx context.Context, g access.Grant, id string) (task, error) {
	if strings.HasPrefix(id, "tsk_") {
		return s.kept(ctx, g, id)
	}
	a, err := s.Gate.Wait(ctx, g, id)
	return s.told(ctx, g, a, err)
}

// kept returns the answer of what ran at once.
func (s approvalTasks) kept(ctx context.Context, g access.Grant, id string) (task, error) {
	if !typeid.ValidID("tsk", id) {
		return task{}, problem.Errorf(problem.NotFound, "there is no such task")
	}
	t, err := s.Gate.Task(ctx, g, id)
	return keptTask(t), err
}

func keptTask(t approvals.Task) task {
	k := task{id: t.ID, status: taskCompleted, created: t.CreatedAt, updated: t.CreatedAt, ttl: approvals.TaskTTL, result: &answer{encoded: t.Answer, failed: t.Failed}}
	if t.Answer == nil {
		k.result.text = "What was answered is not told: this credential may not read it any more."
	}
	return k
}

// told returns the approval as a task of who has asked for it.
func (s approvalTasks) told(ctx context.Context, g access.Grant, a approvals.Approval, err error) (task, error) {
	if err == nil && a.By.ID != g.Principal.ID {
		err = problem.Errorf(problem.NotFound, "there is no such task") // an admin's key sees approvals of others, and has no tasks of theirs
	}
	if err != nil {
		return task{}, err
	}
	if err := s.Gate.Told(context.WithoutCancel(ctx), g, a); err != nil {
		return task{}, err
	}
	return s.taskOf(a)
}

// taskOf returns the approval as a task.
func (s *Server) taskOf(a approvals.Approval) (task, error) {
	t := task{id: a.ID, status: taskWorking, created: a.CreatedAt, updated: a.CreatedAt}
	for _, at := range []time.Time{a.DecidedAt, a.ExecutedAt} {
		if at.After(t.updated) {
			t.updated = at
		}
	}
	result, err := s.approvalAnswer(a)
	if err != nil {
		return t, err
	}
	ans := s.Gate.Answer(a)
	t.message = ans.Message
	switch {
	case !s.Gate.Over(a):
	case a.Status == approvals.Withdrawn:
		t.status = taskCancelled
	default:
		t.status, t.result = taskCompleted, &result
		result.failed = !ans.Executed && ans.Status != "written"
	}
	return t, nil
}

func (s approvalTasks) cancel(ctx context.Context, g access.Grant, id string) error {
	t, err := s.get(ctx, g, id)
	if err != nil {
		return err
	}
	if t.over() {
		return problem.Errorf(problem.Conflict, "the task is over: it is %s", t.status)
	}
	_, err = s.Gate.Withdraw(ctx, g, id)
	return err
}

// update: a person decides on a page, so no task asks for anything.
func (s approvalTasks) update(ctx context.Context, g access.Grant, id string, _ map[string]json.RawMessage) error {
	_, err := s.get(ctx, g, id)
	return err
}

func (s approvalTasks) list(ctx context.Context, g access.Grant, after string, limit int) ([]task, error) {
	before := func(prefix string) string {
		if after == "" {
			return ""
		}
		return prefix + "_" + after
	}
	own, err := s.Gate.Own(ctx, g, approvals.Query{Before: before("apr"), Limit: limit})
	if err != nil {
		return nil, err
	}
	kept, err := s.Gate.Tasks(ctx, g, before("tsk"), limit)
	if err != nil {
		return nil, err
	}
	var list []task
	for _, a := range own {
		t, err := s.taskOf(a)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	for _, t := range kept {
		list = append(list, keptTask(t))
	}
	// What follows the prefix of an id is in the order of its making.
	slices.SortFunc(list, func(a, b task) int { return strings.Compare(suffix(b.id), suffix(a.id)) })
	return list[:min(len(list), limit)], nil
}

func suffix(id string) string {
	_, s, _ := strings.Cut(id, "_")
	return s
}

// appendTask appends the members of the task, which have other names since
// 2026-07-28.
func appendTask(b []byte, t task, modern bool) []byte {
	status := t.status
	if t.fault != nil || !modern && t.result != nil && t.result.failed {
		status = taskFailed // which the newer version keeps for errors of the protocol
	}
	ttl, interval := "ttlMs", "pollIntervalMs"
	if !modern {
		ttl, interval = "ttl", "pollInterval"
	}
	b = fmt.Appendf(b, `"taskId":%s,"status":%q`, appendString(nil, t.id), status)
	if t.message != "" {
		b = appendString(append(b, `,"statusMessage":`...), t.message)
	}
	b = fmt.Appendf(b, `,"createdAt":%q,"lastUpdatedAt":%q`, t.created.UTC().Format(time.RFC3339Nano), t.updated.UTC().Format(time.RFC3339Nano))
	if t.ttl > 0 {
		b = fmt.Appendf(b, `,%q:%d`, ttl, t.ttl.Milliseconds())
	} else {
		b = fmt.Appendf(b, `,%q:null`, ttl)
	}
	return fmt.Appendf(b, `,%q:%d`, interval, pollInterval.Milliseconds())
}

// appendDetail appends the members of the task as tasks/get of 2026-07-28 and its
// notifications tell them.
func appendDetail(b []byte, t task) []byte {
	b = appendTask(b, t, true)
	switch {
	case t.fault != nil:
		e, _ := json.Marshal(map[string]any{"code": t.fault.code, "message": t.fault.message}) // cannot fail: plain values
		b = append(append(b, `,"error":`...), e...)
	case t.status == taskInput:
		b = append(append(b, `,"inputRequests":`...), t.requests...)
	case t.status == taskCompleted:
		b = append(b, `,"result":`...)
		b = t.result.appendResult(b, `"resultType":"complete"`)
	}
	return b
}

// answerTask answers a call with the task that it has become.
func (c *call) answerTask(w http.ResponseWriter, t task) {
	b := append(append([]byte(`{"jsonrpc":"2.0","id":`), c.id...), `,"result":{`...)
	if c.client.modern {
		b = append(appendTask(append(b, `"resultType":"task",`...), t, true), "}}\n"...)
	} else {
		b = append(appendTask(append(b, `"task":{`...), t, false), '}')
		if t.message != "" { // for the model, while its client looks after the task
			b = appendString(append(b, `,"_meta":{"`+mcpgo.ModelImmediateResponseMetaKey+`":`...), t.message)
			b = append(b, '}')
		}
		b = append(b, "}}\n"...)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b) // fails only if the client has gone
}

// answerResult answers with a result of which the members are given.
func (c *call) answerResult(w http.ResponseWriter, members []byte) {
	b := append(append([]byte(`{"jsonrpc":"2.0","id":`), c.id...), `,"result":{`...)
	if c.client.modern {
		b = append(b, `"resultType":"complete"`...)
		if len(members) > 0 {
			b = append(b, ',')
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(append(b, members...), "}}\n"...)) // fails only if the client has gone
}

// asTask reports whether a client of 2025-11-25 wants the call as a task.
func (c *call) asTask() bool { return c.client.tasks && !c.client.modern }

// becomeTask turns what a tool said into the task that the client of 2025-11-25
// asked for: the approval, or the answer, which is stored before anybody is told
// its id. An answer that holds a secret becomes none, nor does one too many.
func (s *Server) becomeTask(ctx context.Context, c *call) (task, error) {
	if c.said.task != nil {
		return *c.said.task, nil
	}
	t := approvals.Task{ID: typeid.NewID("tsk"), Workspace: c.grant.Workspace.ID, Credential: c.grant.Principal.ID, Action: c.tool.name,
		Answer: c.said.appendResult(nil, ""), Failed: c.said.failed, CreatedAt: s.Now().UTC()}
	if err := s.Gate.KeepTask(context.WithoutCancel(ctx), t); err != nil {
		return task{}, err
	}
	return keptTask(t), nil
}

// answerTasks answers tasks/….
func (s *Server) answerTasks(w http.ResponseWriter, r *http.Request, c *call) error {
	var id string
	if c.method != methodTasksList {
		if c.taskID == nil || json.Unmarshal(c.taskID, &id) != nil || id == "" {
			return c.invalidParams("taskId is missing: send the id of a task, as a call has answered it")
		}
	}
	if err := c.checkHeaders(r.Header, id); err != nil {
		return err
	}
	switch {
	case c.client.modern && (c.method == methodTasksResult || c.method == methodTasksList), !c.client.modern && c.method == methodTasksUpdate:
		return c.faultOf(http.StatusNotFound, mcpgo.METHOD_NOT_FOUND, c.method+" is not part of this version of the protocol")
	case c.client.modern && !c.client.tasks:
		return missingTasks()
	case c.id == nil:
		w.WriteHeader(http.StatusAccepted) // a notification, which asks for nothing
		return nil
	}
	ctx, g := r.Context(), c.grant
	switch c.method {
	case methodTasksList:
		return s.listTasks(w, r, c)
	case methodTasksResult:
		return s.taskResult(w, r, c, id)
	case methodTasksUpdate:
		responses := map[string]json.RawMessage{}
		if c.responses == nil || json.Unmarshal(c.responses, &responses) != nil {
			return c.invalidParams("inputResponses is missing: send an object with an answer under the key of each question")
		}
		if err := s.tasks.update(ctx, g, id, responses); err != nil {
			return c.taskFault(err)
		}
		c.answerResult(w, nil)
		return nil
	case methodTasksCancel:
		err := s.tasks.cancel(ctx, g, id)
		if c.client.modern {
			if err != nil && !problem.Is(err, problem.Conflict) { // that it is over, tasks/get tells
				return c.taskFault(err)
			}
			c.answerResult(w, nil)
			return nil
		}
		if err != nil {
			return c.taskFault(err)
		}
	}
	t, err := s.tasks.get(ctx, g, id)
	if err != nil {
		return c.taskFault(err)
	}
	if c.client.modern {
		c.answerResult(w, appendDetail(nil, t))
	} else {
		c.answerResult(w, appendTask(nil, t, false))
	}
	return nil
}

// missingTasks is the fault of a client that has not said that it takes tasks.
func missingTasks() *fault {
	return &fault{status: http.StatusBadRequest, code: mcpgo.MISSING_REQUIRED_CLIENT_CAPABILITY,
		message: "this needs the client's extension " + tasksExtension + ": declare it in the clientCapabilities of _meta",
		data:    map[string]any{"requiredCapabilities": map[string]any{"extensions": map[string]any{tasksExtension: struct{}{}}}}}
}

// taskFault returns what the client is told of an error about its task.
func (c *call) taskFault(err error) error {
	if e := problem.Of(err); e.Kind == problem.NotFound || e.Kind == problem.Conflict {
		return c.invalidParams(e.Message)
	}
	return err
}

// taskPage is how many tasks a page of tasks/list has.
const taskPage = 50

func (s *Server) listTasks(w http.ResponseWriter, r *http.Request, c *call) error {
	after := ""
	if c.page != nil && string(c.page) != "null" && string(c.page) != `""` {
		if json.Unmarshal(c.page, &after) != nil || !typeid.ValidID("apr", "apr_"+after) {
			return c.invalidParams("there is no such cursor: send the nextCursor of the last page, or none")
		}
	}
	list, err := s.tasks.list(r.Context(), c.grant, after, taskPage+1)
	if err != nil {
		return err
	}
	b := []byte(`"tasks":[`)
	for i, t := range list[:min(len(list), taskPage)] {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendTask(append(b, '{'), t, false), '}')
	}
	b = append(b, ']')
	if len(list) > taskPage {
		b = appendString(append(b, `,"nextCursor":`...), suffix(list[taskPage-1].id))
	}
	c.answerResult(w, b)
	return nil
}

// taskResult answers tasks/result, which waits until the task is over, as a stream:
// a person may take longer than any answer may. When the server closes, the client
// asks another one again.
func (s *Server) taskResult(w http.ResponseWriter, r *http.Request, c *call, id string) error {
	t, err := s.tasks.get(r.Context(), c.grant, id)
	if err != nil {
		return c.taskFault(err)
	}
	var out *stream
	for !t.over() {
		if out == nil {
			if out, err = s.open(w, r, c); err != nil {
				return err
			}
			defer out.close()
			if !out.beat() {
				return nil
			}
		}
		ctx, cancel := context.WithTimeout(out.ctx, streamBeat)
		_, err = s.tasks.wait(ctx, c.grant, id)
		cancel()
		if err == nil { // whoever waits may have lost its rights meanwhile
			err = s.again(r.Context(), c)
		}
		if err == nil {
			t, err = s.tasks.get(context.WithoutCancel(r.Context()), c.grant, id)
		}
		if out.ctx.Err() != nil || err != nil && out.fail(c.id, err) || !t.over() && !out.beat() {
			return nil
		}
	}
	b := append(append([]byte(`{"jsonrpc":"2.0","id":`), c.id...), `,"result":`...)
	related := fmt.Sprintf(`"_meta":{%q:{"taskId":%s}}`, mcpgo.RelatedTaskMetaKey, appendString(nil, t.id))
	switch {
	case t.result != nil:
		b = append(t.result.appendResult(b, related), '}')
	default: // cancelled
		gone := errorAnswer(r.Context(), problem.Errorf(problem.Conflict, "the task was cancelled: the request was taken back, and nothing was done"))
		b = append(gone.appendResult(b, related), '}')
	}
	if out != nil {
		out.event(b)
		return nil
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(b, '\n')) // fails only if the client has gone
	return nil
}
