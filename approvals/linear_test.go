package approvals_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"trustpager/approvals"
	"trustpager/jobs"
	"trustpager/problem"
)

// The operations of a history, each on one approval.
const (
	opRead = iota
	opApprove
	opReject
	opWithdraw
	opExpire // once the time of the approvals is over
	opRetry
)

type input struct {
	op       int
	approval int
	over     bool // the time of the approvals is over
}

// An output is the state that was read, or whether the operation was done.
type output struct {
	state string
	done  bool
}

// model is an approval: it is pending, and then one of the others for good.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[int][]porcupine.Operation{}
		for _, o := range history {
			by[o.Input.(input).approval] = append(by[o.Input.(input).approval], o)
		}
		var parts [][]porcupine.Operation
		for _, p := range by {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() any { return "pending none" },
	Step: func(state, in, out any) (bool, any) {
		i, o := in.(input), out.(output)
		if i.op == opRead {
			return o.state == state, state
		}
		next, possible := map[int]string{opApprove: "approved done", opReject: "rejected none", opWithdraw: "withdrawn none", opExpire: "expired none"}[i.op], state == "pending none"
		if i.over && (i.op == opApprove || i.op == opReject) || i.op == opRetry {
			possible = false
		}
		if !possible {
			return !o.done, state
		}
		return o.done, next
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v → %+v", in, out) },
}

func TestDecisionsAreLinearizable(t *testing.T) {
	histories, workers, each := 20, 8, 30
	if testing.Short() {
		histories = 2
	}
	eachWorld(t, func(w *world) {
		for h := range histories {
			g := w.key(agent)
			ids := make([]string, 12)
			for i := range ids {
				ids[i] = w.ask(g, "create_contact", "", fmt.Sprintf(`{"first_name":"h%d-%d"}`, h, i)).ID
			}
			var history []porcupine.Operation
			start := time.Now()
			// The second half is played after the time of the approvals.
			for _, over := range []bool{false, true} {
				if over {
					w.clock.Advance(w.ws.Settings.ApprovalTTL)
				}
				var mu sync.Mutex
				var wg sync.WaitGroup
				for worker := range workers {
					wg.Go(func() {
						for range each {
							in := input{op: rand.IntN(6), approval: rand.IntN(len(ids)), over: over}
							if in.op == opExpire && !over {
								in.op = opRead
							}
							call := time.Since(start)
							out := w.play(in, ids[in.approval])
							o := porcupine.Operation{ClientId: worker, Input: in, Call: int64(call), Output: out, Return: int64(time.Since(start))}
							mu.Lock()
							history = append(history, o)
							mu.Unlock()
						}
					})
				}
				wg.Wait()
			}
			if result := porcupine.CheckOperationsTimeout(model, history, time.Minute); result != porcupine.Ok {
				w.t.Fatalf("history %d of %d operations: got %s, want it linearizable", h, len(history), result)
			}
			for i, id := range ids {
				a, want := w.stored(id), 0
				if a.Status == approvals.Approved {
					want = 1
				}
				if n := w.named(fmt.Sprintf("h%d-%d", h, i)); n != want {
					w.t.Errorf("%s: got %d contacts, want %d", a.Status, n, want)
				}
			}
		}
	})
}

// The checker finds what must not be.
func TestTheModelRefuses(t *testing.T) {
	op := func(op int, out output, call, ret int64) porcupine.Operation {
		return porcupine.Operation{Input: input{op: op}, Output: out, Call: call, Return: ret}
	}
	done := output{done: true}
	for name, history := range map[string][]porcupine.Operation{
		"approved twice":        {op(opApprove, done, 0, 10), op(opApprove, done, 1, 9)},
		"approved and rejected": {op(opApprove, done, 0, 10), op(opReject, done, 1, 9)},
		"a stale read":          {op(opApprove, done, 0, 1), op(opRead, output{state: "pending none"}, 2, 3)},
		"lost":                  {op(opWithdraw, output{}, 0, 1)},
	} {
		if porcupine.CheckOperations(model, history) {
			t.Errorf("%s: got it linearizable, want not", name)
		}
	}
}

// play does the operation on the approval.
func (w *world) play(in input, id string) output {
	var err error
	switch in.op {
	case opRead:
		a, err := w.gate.Approval(w.t.Context(), w.admin(), id)
		if err != nil {
			w.t.Error(err)
		}
		return output{state: fmt.Sprintf("%s %s", a.Status, a.Execution)}
	case opApprove:
		_, err = w.approve(w.admin(), id)
	case opReject:
		_, err = w.gate.Reject(w.t.Context(), w.admin(), id, "no")
	case opWithdraw:
		var a approvals.Approval
		if a, err = w.db.Approval(w.t.Context(), w.ws.ID, id); err == nil {
			g := w.admin()
			g.Principal = a.By
			_, err = w.gate.Withdraw(w.t.Context(), g, id)
		}
	case opExpire:
		// The handler says nothing when somebody was faster, so the state tells.
		j, jerr := jobs.New(w.clock.Now(), w.ws.ID, approvals.ExpireKind, id, map[string]string{"approval": id}, w.clock.Now())
		if jerr != nil {
			w.t.Error(jerr)
		}
		return w.expireOne(j)
	case opRetry:
		_, err = w.gate.Retry(w.t.Context(), w.admin(), id)
	}
	if err != nil && !problem.Is(err, problem.Conflict) {
		w.t.Error(err)
	}
	return output{done: err == nil}
}

// expireOne runs the expiry of one approval, and tells from the decision that
// its transaction made whether it was this one.
func (w *world) expireOne(j jobs.Job) output {
	decided := false
	gate := approvals.Gate{Store: w.gate.Store, Watch: w.gate.Watch, Catalog: w.gate.Catalog, Webhooks: w.gate.Webhooks, Now: w.gate.Now, BaseURL: w.gate.BaseURL}
	in := w.gate.InTx
	gate.InTx = func(ctx context.Context, fn func(tx approvals.Store) error) error {
		err := in(ctx, fn)
		decided = err == nil
		return err
	}
	if err := gate.Expire(w.t.Context(), j); err != nil {
		w.t.Error(err)
	}
	return output{done: decided}
}
