package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/problem"
)

const approvalColumns = `id, workspace, status, execution, action, resource, verb, target, target_ver, after_ver, title, input, edited,
	reason, digest, dedupe, asked, asker, request, body, decision, result, error, created, expires, decided, executed,
	base, votes, assignee, told`

// asker is the part of an approval that says whose request it is.
type asker struct {
	By      access.Principal `json:"by"`
	Parent  string           `json:"parent,omitempty"`
	Decider access.Decider   `json:"decider"`
}

// arrival is the part of an approval's request that is not its body.
type arrival struct {
	Door   string `json:"door"`
	Method string `json:"method,omitempty"`
	Path   string `json:"path,omitempty"`
	Tool   string `json:"tool,omitempty"`
}

// verdict is the part of an approval that says who decided, and why.
type verdict struct {
	By     access.Principal `json:"by"`
	Reason string           `json:"reason,omitempty"`
}

// storedError is a problem as an approval keeps it.
type storedError struct {
	Kind    problem.Kind    `json:"kind"`
	Message string          `json:"message"`
	Fix     string          `json:"fix,omitempty"`
	Hint    string          `json:"hint,omitempty"`
	Fields  []problem.Field `json:"fields,omitempty"`
}

func encodeError(e *problem.Error) string {
	if e == nil {
		return ""
	}
	return encode(storedError{e.Kind, e.Message, e.Fix, e.Hint, e.Fields})
}

// encode returns v as JSON. It is for values that always can be encoded.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // recovered by the transaction
	}
	return string(b)
}

func scanApproval(row scanner) (approvals.Approval, error) {
	var a approvals.Approval
	var verb, input, edited, asked, request, body, decision, result, failure, base, votes string
	var created, expires, decided, executed int64
	if err := row.Scan(&a.ID, &a.Workspace, &a.Status, &a.Execution, &a.Action, &a.Resource, &verb, &a.TargetID, &a.TargetVer, &a.AfterVer,
		&a.Title, &input, &edited, &a.Reason, &a.Digest, &a.DedupeKey, &a.Asked, &asked, &request, &body, &decision,
		&result, &failure, &created, &expires, &decided, &executed, &base, &votes, &a.Assignee, &a.Told); err != nil {
		return a, err
	}
	a.CreatedAt, a.ExpiresAt, a.DecidedAt, a.ExecutedAt = at(created), at(expires), at(decided), at(executed)
	a.Base, a.Input, a.Edited, a.Result = raw(base), raw(input), raw(edited), raw(result)
	var who asker
	var how arrival
	var err error
	if a.Verb, err = access.ParseVerb(verb); err != nil {
		return a, fmt.Errorf("approval %s: %w", a.ID, err)
	}
	if err := json.Unmarshal([]byte(asked), &who); err != nil {
		return a, fmt.Errorf("approval %s: %w", a.ID, err)
	}
	if err := json.Unmarshal([]byte(request), &how); err != nil {
		return a, fmt.Errorf("approval %s: %w", a.ID, err)
	}
	a.By, a.Parent, a.Decider = who.By, who.Parent, who.Decider
	a.Request = approvals.Request{Door: how.Door, Method: how.Method, Path: how.Path, Tool: how.Tool, Body: []byte(body)}
	if votes != "" {
		if err := json.Unmarshal([]byte(votes), &a.Votes); err != nil {
			return a, fmt.Errorf("approval %s: %w", a.ID, err)
		}
	}
	if decision != "" {
		var v verdict
		if err := json.Unmarshal([]byte(decision), &v); err != nil {
			return a, fmt.Errorf("approval %s: %w", a.ID, err)
		}
		a.DecidedBy, a.DecisionReason = v.By, v.Reason
	}
	if failure != "" {
		var e storedError
		if err := json.Unmarshal([]byte(failure), &e); err != nil {
			return a, fmt.Errorf("approval %s: %w", a.ID, err)
		}
		a.Error = &problem.Error{Kind: e.Kind, Message: e.Message, Fix: e.Fix, Hint: e.Hint, Fields: e.Fields}
	}
	return a, nil
}

// raw returns s as JSON, or nil for "".
func raw(s string) json.RawMessage {
	if s == "" {
		return nil
	}
	return json.RawMessage(s)
}

// sameAsk is when an approval answers a later request for the same: while it is
// pending, and for a time after its decision, as long as the target is as it
// was asked about or as the execution has left it.
const sameAsk = `(status = 'pending' AND expires > $4 OR status IN ('approved', 'rejected') AND decided >= $5)
	AND (CAST($6 AS BIGINT) = 0 OR target_ver = CAST($6 AS BIGINT) OR after_ver = CAST($6 AS BIGINT))`

// CreateApproval stores a, unless the credential has asked the same before; see
// [approvals.Store].
func (db *DB) CreateApproval(ctx context.Context, a approvals.Approval, since time.Time, most int) (stored approvals.Approval, created bool, err error) {
	err = db.step(ctx, func(tx *DB) error {
		// One credential's requests take their turns, so that neither the cap nor
		// the look for the same request can be passed by asking twice at once.
		if err := tx.LockName(ctx, a.By.ID); err != nil {
			return err
		}
		stored, err = scanApproval(tx.q.QueryRowContext(ctx, `UPDATE approvals SET asked = asked + 1
			WHERE id = (SELECT id FROM approvals WHERE workspace = $1 AND credential = $2 AND dedupe = $3 AND `+sameAsk+`
				ORDER BY id DESC LIMIT 1) AND workspace = $1 AND `+sameAsk+`
			RETURNING `+approvalColumns,
			a.Workspace, a.By.ID, a.DedupeKey, ms(a.CreatedAt), ms(since), a.TargetVer))
		if err == nil || !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		var open int
		if err := tx.q.QueryRowContext(ctx, `SELECT COUNT(*) FROM approvals WHERE workspace = $1 AND credential = $2 AND status = 'pending'`,
			a.Workspace, a.By.ID).Scan(&open); err != nil {
			return fmt.Errorf("count open approvals: %w", err)
		}
		if open >= most {
			return problem.Errorf(problem.QueueFull, "%d approvals of this credential are open, which is the most there may be", open).
				WithFix("Wait until a person has decided some of them, or withdraw those that are no longer needed.")
		}
		_, err := tx.q.ExecContext(ctx, `INSERT INTO approvals (credential, client, user_id, owner_decides, `+approvalColumns+`)
			VALUES ($1, $23, $24, $25, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11, $12, '', $13, $14, $15, $16, $17, $18, $19, '', '', '', $20, $21, 0, 0, $22, '', '', FALSE)`,
			a.By.ID, a.ID, a.Workspace, string(a.Status), string(a.Execution), a.Action, a.Resource, a.Verb.String(), a.TargetID, a.TargetVer,
			a.Title, string(a.Input), a.Reason, a.Digest, a.DedupeKey, a.Asked,
			encode(asker{a.By, a.Parent, a.Decider}),
			encode(arrival{a.Request.Door, a.Request.Method, a.Request.Path, a.Request.Tool}), string(a.Request.Body),
			ms(a.CreatedAt), ms(a.ExpiresAt), string(a.Base), a.By.Client, a.By.User, a.Decider == access.DeciderOwner)
		if err != nil {
			return fmt.Errorf("store approval: %w", err)
		}
		tx.notifyOnce(approvals.Topic(a.Workspace))
		stored, created = a, true
		return nil
	})
	return stored, created, err
}

// LockName keeps others from locking the name until the transaction ends. On
// SQLite no transaction that writes is beside another anyway.
func (db *DB) LockName(ctx context.Context, name string) error {
	if q := db.dialect.lockName; q != "" {
		if _, err := db.q.ExecContext(ctx, q, name); err != nil {
			return fmt.Errorf("lock %s: %w", name, err)
		}
	}
	return nil
}

// SupersededBy returns the pending approvals by which the credential of a asked
// for the same earlier.
func (db *DB) SupersededBy(ctx context.Context, a approvals.Approval) ([]string, error) {
	ids, err := db.column(ctx, `SELECT id FROM approvals
		WHERE workspace = $1 AND credential = $2 AND dedupe = $3 AND status = 'pending' AND id <> $4`,
		a.Workspace, a.By.ID, a.DedupeKey, a.ID)
	if err != nil {
		return nil, fmt.Errorf("approvals that %s supersedes: %w", a.ID, err)
	}
	return ids, nil
}

// Approval returns one approval. It fails with [problem.NotFound].
func (db *DB) Approval(ctx context.Context, workspace, id string) (approvals.Approval, error) {
	a, err := scanApproval(db.q.QueryRowContext(ctx, `SELECT `+approvalColumns+` FROM approvals WHERE workspace = $1 AND id = $2`, workspace, id))
	if errors.Is(err, sql.ErrNoRows) {
		return a, noApproval(id)
	}
	return a, err
}

func noApproval(id string) error {
	return problem.Errorf(problem.NotFound, "there is no approval %q", id).WithFix("List the approvals to find the right id.")
}

// ListApprovals returns a page, newest first.
func (db *DB) ListApprovals(ctx context.Context, workspace string, q approvals.Query) ([]approvals.Approval, error) {
	var b strings.Builder
	b.WriteString(`SELECT ` + approvalColumns + ` FROM approvals WHERE workspace = $1`)
	args := []any{workspace}
	where := func(cond, v string) {
		if v != "" {
			args = append(args, v)
			b.WriteString(cond + "$" + strconv.Itoa(len(args)))
		}
	}
	where(` AND status = `, string(q.Status))
	where(` AND execution = `, string(q.Execution))
	where(` AND credential = `, q.Credential)
	where(` AND client = `, q.Client)
	where(` AND user_id <> '' AND user_id = `, q.User)
	where(` AND assignee <> '' AND assignee = `, q.Assignee)
	where(` AND resource = `, q.Resource)
	where(` AND id < `, q.Before)
	if q.Decided {
		b.WriteString(` AND status <> 'pending'`)
	}
	if q.IDs != nil {
		b.WriteString(` AND id IN (` + parameters(len(args)+1, len(q.IDs)) + `)`)
		for _, id := range q.IDs {
			args = append(args, id)
		}
	}
	args = append(args, q.Limit)
	b.WriteString(` ORDER BY id DESC LIMIT $` + strconv.Itoa(len(args)))
	rows, err := db.q.QueryContext(ctx, b.String(), args...)
	if err != nil {
		return nil, fmt.Errorf("list approvals: %w", err)
	}
	defer rows.Close()
	list := []approvals.Approval{}
	for rows.Next() {
		a, err := scanApproval(rows)
		if err != nil {
			return nil, fmt.Errorf("list approvals: %w", err)
		}
		list = append(list, a)
	}
	return list, rows.Err()
}

// DecideApproval moves the approval from pending to d.Status. It fails with
// [problem.Conflict] if the approval is not pending.
func (db *DB) DecideApproval(ctx context.Context, workspace, id string, d approvals.Decision) (a approvals.Approval, err error) {
	err = db.step(ctx, func(tx *DB) error {
		a, err = scanApproval(tx.q.QueryRowContext(ctx, `UPDATE approvals SET status = $3, edited = $4, decision = $5, decided = $6,
				target_ver = CASE WHEN CAST($7 AS BIGINT) = 0 THEN target_ver ELSE CAST($7 AS BIGINT) END,
				base = CASE WHEN $8 = '' THEN base ELSE $8 END
			WHERE workspace = $1 AND id = $2 AND status = 'pending'
			RETURNING `+approvalColumns,
			workspace, id, string(d.Status), string(d.Edited), encode(verdict{d.By, d.Reason}), ms(d.At), d.TargetVer, string(d.Base)))
		return tx.moved(ctx, workspace, id, err)
	})
	return a, err
}

// moved says why a conditional update found no row, and tells the watchers if
// it did.
func (db *DB) moved(ctx context.Context, workspace, id string, err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		a, err := db.Approval(ctx, workspace, id)
		if err != nil {
			return err
		}
		if a.Status == approvals.Approved {
			return problem.Errorf(problem.Conflict, "approval %s is approved, and its execution is %q", a.ID, a.Execution).
				WithFix("Only what is pending can be decided, and only what failed can be tried again or dismissed.")
		}
		return approvals.NotPending(a)
	}
	if err != nil {
		return fmt.Errorf("approval %s: %w", id, err)
	}
	db.notify(id)
	db.notifyOnce(approvals.Topic(workspace))
	return nil
}

// CountWaiting returns how many approvals are pending or have failed; see
// [approvals.Store].
func (db *DB) CountWaiting(ctx context.Context, workspace, user string) (int, error) {
	query := `SELECT (SELECT COUNT(*) FROM approvals WHERE workspace = $1 AND status = 'pending')
		+ (SELECT COUNT(*) FROM approvals WHERE workspace = $1 AND execution = 'failed')`
	args := []any{workspace}
	if user != "" {
		query = `SELECT (SELECT COUNT(*) FROM approvals WHERE workspace = $1 AND user_id <> '' AND user_id = $2 AND status = 'pending' AND owner_decides)
			+ (SELECT COUNT(*) FROM approvals WHERE workspace = $1 AND user_id <> '' AND user_id = $2 AND status = 'approved' AND execution = 'failed' AND owner_decides)`
		args = append(args, user)
	}
	var n int
	err := db.q.QueryRowContext(ctx, query, args...).Scan(&n)
	return n, err
}

// VoteApproval stores the votes of a pending approval; see [approvals.Store].
func (db *DB) VoteApproval(ctx context.Context, workspace, id string, before []approvals.Vote, v approvals.Voted) (a approvals.Approval, err error) {
	old := ""
	if before != nil {
		old = encode(before)
	}
	err = db.step(ctx, func(tx *DB) error {
		a, err = scanApproval(tx.q.QueryRowContext(ctx, `UPDATE approvals SET votes = $3, edited = $4, digest = $5,
				target_ver = CASE WHEN CAST($6 AS BIGINT) = 0 THEN target_ver ELSE CAST($6 AS BIGINT) END
			WHERE workspace = $1 AND id = $2 AND status = 'pending' AND votes = $7
			RETURNING `+approvalColumns, workspace, id, encode(v.Votes), string(v.Edited), v.Digest, v.TargetVer, old))
		if errors.Is(err, sql.ErrNoRows) {
			if now, err := tx.Approval(ctx, workspace, id); err == nil && now.Status == approvals.Pending {
				return problem.Errorf(problem.Conflict, "somebody else has just approved %s", id).WithFix("Look at it again, and approve if you still agree.")
			}
		}
		return tx.moved(ctx, workspace, id, err)
	})
	return a, err
}

// AssignApproval names who is to decide an approval; see [approvals.Store].
func (db *DB) AssignApproval(ctx context.Context, workspace, id, user string) (a approvals.Approval, err error) {
	err = db.step(ctx, func(tx *DB) error {
		a, err = scanApproval(tx.q.QueryRowContext(ctx, `UPDATE approvals SET assignee = $3
			WHERE workspace = $1 AND id = $2 AND (status = 'pending' OR execution = 'failed')
			RETURNING `+approvalColumns, workspace, id, user))
		return tx.moved(ctx, workspace, id, err)
	})
	return a, err
}

// MoveExecution moves the execution of an approved approval. It fails with
// [problem.Conflict] if it is not in from.
func (db *DB) MoveExecution(ctx context.Context, workspace, id string, from approvals.Execution, to approvals.Ran) (a approvals.Approval, err error) {
	err = db.step(ctx, func(tx *DB) error {
		a, err = scanApproval(tx.q.QueryRowContext(ctx, `UPDATE approvals SET execution = $4, result = $5, error = $6, executed = $7, after_ver = $8,
				told = told AND $4 NOT IN ('done', 'failed')
			WHERE workspace = $1 AND id = $2 AND status = 'approved' AND execution = $3
			RETURNING `+approvalColumns,
			workspace, id, string(from), string(to.Execution), string(to.Result), encodeError(to.Error), ms(to.At), to.TargetVer))
		return tx.moved(ctx, workspace, id, err)
	})
	return a, err
}

// ExtendApproval moves the expiry of a pending approval. It fails with
// [problem.Conflict] if it is not pending.
func (db *DB) ExtendApproval(ctx context.Context, workspace, id string, until time.Time) (a approvals.Approval, err error) {
	err = db.step(ctx, func(tx *DB) error {
		a, err = scanApproval(tx.q.QueryRowContext(ctx, `UPDATE approvals SET expires = $3
			WHERE workspace = $1 AND id = $2 AND status = 'pending'
			RETURNING `+approvalColumns, workspace, id, ms(until)))
		return tx.moved(ctx, workspace, id, err)
	})
	return a, err
}

// PurgeRequests forgets the request bodies of approvals that were decided
// before the given time, in all workspaces. It returns how many, [PurgeBatch] at
// most.
func (db *DB) PurgeRequests(ctx context.Context, before time.Time) (int64, error) {
	return db.purge(ctx, `UPDATE approvals SET body = '', base = '' WHERE id IN (
		SELECT id FROM approvals WHERE decided > 0 AND decided < $1 AND (body <> '' OR base <> '') ORDER BY decided LIMIT $2)`, before)
}

// PurgeBatch is how many rows a Purge method changes at most, so that no
// transaction is long. Its caller calls it again until it returns 0.
const PurgeBatch = 1000

// purge runs a statement that forgets what is older than the time $1, at most
// $2 rows.
func (db *DB) purge(ctx context.Context, query string, before time.Time) (n int64, err error) {
	err = db.step(ctx, func(tx *DB) error {
		if n, err = affected(tx.q.ExecContext(ctx, query, ms(before), PurgeBatch)); err != nil {
			return fmt.Errorf("purge: %w", err)
		}
		return nil
	})
	return n, err
}

// TakeIdempotencyKey reserves the key, or returns what it stands for; see
// [approvals.Store].
func (db *DB) TakeIdempotencyKey(ctx context.Context, workspace string, k approvals.IdempotencyKey) (r approvals.Replay, used bool, err error) {
	err = db.step(ctx, func(tx *DB) error {
		n, err := affected(tx.q.ExecContext(ctx, `INSERT INTO idempotency_keys (workspace, credential, idem_key, fingerprint, response, approval, created)
			VALUES ($1, $2, $3, $4, '', '', $5)
			ON CONFLICT (workspace, credential, idem_key) DO UPDATE SET fingerprint = excluded.fingerprint,
				response = '', approval = '', created = excluded.created
			WHERE idempotency_keys.created < $6`,
			workspace, k.Credential, k.Key, k.Fingerprint, ms(k.Now), ms(k.Since)))
		if err != nil {
			return fmt.Errorf("take idempotency key: %w", err)
		}
		if n == 1 {
			return nil
		}
		used = true
		var response string
		if err := tx.q.QueryRowContext(ctx, `SELECT fingerprint, response, approval FROM idempotency_keys
			WHERE workspace = $1 AND credential = $2 AND idem_key = $3`, workspace, k.Credential, k.Key).
			Scan(&r.Fingerprint, &response, &r.Approval); err != nil {
			return fmt.Errorf("read idempotency key: %w", err)
		}
		r.Response = raw(response)
		return nil
	})
	return r, used, err
}

// FinishIdempotencyKey stores the answer that a later use of the key gets.
func (db *DB) FinishIdempotencyKey(ctx context.Context, workspace string, k approvals.IdempotencyKey, r approvals.Replay) error {
	return db.step(ctx, func(tx *DB) error {
		if _, err := tx.q.ExecContext(ctx, `UPDATE idempotency_keys SET response = $4, approval = $5
			WHERE workspace = $1 AND credential = $2 AND idem_key = $3`, workspace, k.Credential, k.Key, string(r.Response), r.Approval); err != nil {
			return fmt.Errorf("store answer: %w", err)
		}
		return nil
	})
}

// PurgeIdempotencyKeys forgets the keys that were used before the given time,
// in all workspaces. It returns how many, [PurgeBatch] at most.
func (db *DB) PurgeIdempotencyKeys(ctx context.Context, before time.Time) (int64, error) {
	return db.purge(ctx, `DELETE FROM idempotency_keys WHERE (workspace, credential, idem_key) IN (
		SELECT workspace, credential, idem_key FROM idempotency_keys WHERE created < $1 ORDER BY created LIMIT $2)`, before)
}
