package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"trustpager/approvals"
	"trustpager/problem"
)

// UntoldApprovals returns what the credential has asked for and has not been told
// the end of; see [approvals.Store].
func (db *DB) UntoldApprovals(ctx context.Context, workspace, credential string, since time.Time, limit int) ([]approvals.Approval, error) {
	rows, err := db.q.QueryContext(ctx, `SELECT `+approvalColumns+` FROM approvals
		WHERE workspace = $1 AND credential = $2 AND NOT told AND (decided = 0 OR decided >= $3) ORDER BY id LIMIT $4`,
		workspace, credential, ms(since), limit)
	if err != nil {
		return nil, fmt.Errorf("approvals not told: %w", err)
	}
	defer rows.Close()
	var list []approvals.Approval
	for rows.Next() {
		a, err := scanApproval(rows)
		if err != nil {
			return nil, fmt.Errorf("approvals not told: %w", err)
		}
		list = append(list, a)
	}
	return list, rows.Err()
}

// TellApprovals notes that the credential has been told how its approvals ended;
// see [approvals.Store].
func (db *DB) TellApprovals(ctx context.Context, workspace, credential string, ids []string) (told []string, err error) {
	err = db.step(ctx, func(tx *DB) error {
		args := []any{workspace, credential}
		for _, id := range ids {
			args = append(args, id)
		}
		told, err = tx.column(ctx, `UPDATE approvals SET told = TRUE
			WHERE workspace = $1 AND credential = $2 AND NOT told AND status <> 'pending' AND id IN (`+parameters(3, len(ids))+`)
			RETURNING id`, args...)
		if err != nil {
			return fmt.Errorf("tell approvals: %w", err)
		}
		return nil
	})
	return told, err
}

const taskColumns = `id, workspace, credential, action, answer, failed, created`

func scanTask(row scanner) (approvals.Task, error) {
	var t approvals.Task
	var answer string
	var created int64
	err := row.Scan(&t.ID, &t.Workspace, &t.Credential, &t.Action, &answer, &t.Failed, &created)
	t.Answer, t.CreatedAt = raw(answer), at(created)
	return t, err
}

// SaveTask stores the task; see [approvals.Store].
func (db *DB) SaveTask(ctx context.Context, t approvals.Task, since time.Time, most int) error {
	return db.step(ctx, func(tx *DB) error {
		var kept int
		err := tx.q.QueryRowContext(ctx, `SELECT COUNT(*) FROM tasks WHERE workspace = $1 AND credential = $2 AND created >= $3`,
			t.Workspace, t.Credential, ms(since)).Scan(&kept)
		if err == nil && kept >= most {
			return problem.Errorf(problem.QueueFull, "%d answers of this credential are kept as tasks, which is the most there can be", most).
				WithFix("Call without task.")
		}
		if err == nil {
			_, err = tx.q.ExecContext(ctx, `INSERT INTO tasks (`+taskColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
				t.ID, t.Workspace, t.Credential, t.Action, string(t.Answer), t.Failed, ms(t.CreatedAt))
		}
		if err != nil {
			return fmt.Errorf("store task: %w", err)
		}
		return nil
	})
}

// Task returns one task of the credential; see [approvals.Store].
func (db *DB) Task(ctx context.Context, workspace, credential, id string, since time.Time) (approvals.Task, error) {
	t, err := scanTask(db.q.QueryRowContext(ctx, `SELECT `+taskColumns+` FROM tasks
		WHERE workspace = $1 AND credential = $2 AND id = $3 AND created >= $4`, workspace, credential, id, ms(since)))
	if errors.Is(err, sql.ErrNoRows) {
		return t, problem.Errorf(problem.NotFound, "there is no task %q", id).WithFix("Use an id that a call has answered.")
	}
	return t, err
}

// Tasks returns a page of the credential's tasks, newest first; see
// [approvals.Store].
func (db *DB) Tasks(ctx context.Context, workspace, credential, before string, since time.Time, limit int) ([]approvals.Task, error) {
	rows, err := db.q.QueryContext(ctx, `SELECT `+taskColumns+` FROM tasks
		WHERE workspace = $1 AND credential = $2 AND created >= $3 AND ($4 = '' OR id < $4) ORDER BY id DESC LIMIT $5`,
		workspace, credential, ms(since), before, limit)
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	defer rows.Close()
	var list []approvals.Task
	for rows.Next() {
		t, err := scanTask(rows)
		if err != nil {
			return nil, fmt.Errorf("list tasks: %w", err)
		}
		list = append(list, t)
	}
	return list, rows.Err()
}

// PurgeTasks forgets tasks that were made before the given time, in all
// workspaces. It returns how many, [PurgeBatch] at most.
func (db *DB) PurgeTasks(ctx context.Context, before time.Time) (int64, error) {
	return db.purge(ctx, `DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE created < $1 ORDER BY created LIMIT $2)`, before)
}
