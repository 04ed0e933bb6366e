package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"trustpager/audit"
	"trustpager/jobs"
)

var _ jobs.Store = (*DB)(nil)

// EnqueueJob implements [jobs.Enqueuer].
func (db *DB) EnqueueJob(ctx context.Context, j jobs.Job) error {
	return db.step(ctx, func(tx *DB) error {
		_, err := tx.q.ExecContext(ctx, `
			INSERT INTO jobs (id, workspace, kind, job_key, payload, state, run_at, attempts, last_error, token, again_at, created)
			VALUES ($1, $2, $3, $4, $5, 'ready', $6, 0, '', '', 0, $7)
			ON CONFLICT (workspace, kind, job_key) WHERE job_key <> '' AND state <> 'dead' DO UPDATE SET
				payload  = excluded.payload,
				run_at   = CASE WHEN jobs.state = 'ready' THEN excluded.run_at ELSE jobs.run_at END,
				attempts = CASE WHEN jobs.state = 'ready' THEN 0 ELSE jobs.attempts END,
				again_at = CASE WHEN jobs.state = 'ready' THEN 0 ELSE excluded.run_at END`,
			j.ID, j.Workspace, j.Kind, j.Key, string(j.Payload), ms(j.RunAt), ms(j.CreatedAt))
		if err != nil {
			return fmt.Errorf("enqueue job %s: %w", j.Kind, err)
		}
		tx.tx.jobs = append(tx.tx.jobs, j)
		if j.RunAt.Sub(j.CreatedAt) < jobs.Soon { // the runners find later ones by themselves
			tx.notify(JobsTopic)
		}
		return nil
	})
}

// Doings returns the jobs that the transaction has enqueued for the workspace,
// and the entries of its log, in order; see [approvals.Store].
func (db *DB) Doings(workspace string) (enqueued []jobs.Job, entries []audit.Entry) {
	if db.tx == nil {
		return nil, nil
	}
	for _, j := range db.tx.jobs {
		if j.Workspace == workspace {
			enqueued = append(enqueued, j)
		}
	}
	for _, e := range db.tx.entries {
		if e.Workspace == workspace {
			entries = append(entries, e)
		}
	}
	return enqueued, entries
}

// CancelJobs implements [jobs.Enqueuer].
func (db *DB) CancelJobs(ctx context.Context, workspace, kind, key string) (removed bool, err error) {
	err = db.step(ctx, func(tx *DB) error {
		n, err := affected(tx.q.ExecContext(ctx, `
			DELETE FROM jobs
			WHERE workspace = $1 AND kind = $2 AND job_key = $3 AND job_key <> '' AND state = 'ready'`,
			workspace, kind, key))
		if err != nil {
			return fmt.Errorf("cancel job %s: %w", kind, err)
		}
		if removed = n > 0; removed {
			return nil
		}
		_, err = tx.q.ExecContext(ctx, `
			UPDATE jobs SET again_at = 0
			WHERE workspace = $1 AND kind = $2 AND job_key = $3 AND job_key <> '' AND state = 'leased'`,
			workspace, kind, key)
		return err
	})
	return removed, err
}

// ClaimJobs implements [jobs.Store].
func (db *DB) ClaimJobs(ctx context.Context, kind string, now, until time.Time, token string, limit int) (claimed []jobs.Job, err error) {
	err = db.step(ctx, func(tx *DB) error {
		claimed, err = scanJobs(tx.q.QueryContext(ctx, `
			WITH due AS MATERIALIZED (
				SELECT id FROM jobs
				WHERE kind = $1 AND state <> 'dead' AND run_at <= $2
				ORDER BY run_at LIMIT $3`+tx.dialect.lockSkip+`)
			UPDATE jobs SET state = 'leased', run_at = $4, token = $5, attempts = attempts + 1, again_at = 0
			WHERE id IN (SELECT id FROM due)
			RETURNING `+jobColumns, kind, ms(now), limit, ms(until), token))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("claim jobs %s: %w", kind, err)
	}
	slices.SortFunc(claimed, func(a, b jobs.Job) int { return strings.Compare(a.ID, b.ID) })
	return claimed, nil
}

// FinishJob implements [jobs.Store].
func (db *DB) FinishJob(ctx context.Context, j jobs.Job) error {
	return db.step(ctx, func(tx *DB) error {
		n, err := affected(tx.q.ExecContext(ctx, `
			DELETE FROM jobs
			WHERE id = $1 AND token = $2 AND workspace = $3 AND state = 'leased' AND again_at = 0`, j.ID, j.Token, j.Workspace))
		if err != nil || n == 1 {
			return err
		}
		if err := leased(tx.q.ExecContext(ctx, `
			UPDATE jobs SET state = 'ready', run_at = again_at, again_at = 0, attempts = 0, last_error = '', token = ''
			WHERE id = $1 AND token = $2 AND workspace = $3 AND state = 'leased'`, j.ID, j.Token, j.Workspace)); err != nil {
			return err
		}
		tx.notify(JobsTopic)
		return nil
	})
}

// RetryJob implements [jobs.Store].
func (db *DB) RetryJob(ctx context.Context, j jobs.Job) error {
	return db.step(ctx, func(tx *DB) error {
		return leased(tx.q.ExecContext(ctx, `
			UPDATE jobs SET state = 'ready', attempts = $3, last_error = $4, token = '', again_at = 0,
				run_at = CASE WHEN again_at > 0 AND again_at < $5 THEN again_at ELSE $5 END
			WHERE id = $1 AND token = $2 AND workspace = $6 AND state = 'leased'`,
			j.ID, j.Token, j.Attempts, j.LastError, ms(j.RunAt), j.Workspace))
	})
}

// BuryJob implements [jobs.Store]. A job that was enqueued anew meanwhile
// starts over instead.
func (db *DB) BuryJob(ctx context.Context, j jobs.Job) error {
	return db.step(ctx, func(tx *DB) error {
		return leased(tx.q.ExecContext(ctx, `
			UPDATE jobs SET last_error = $3, token = '', again_at = 0,
				state    = CASE WHEN again_at = 0 THEN 'dead' ELSE 'ready' END,
				run_at   = CASE WHEN again_at = 0 THEN run_at ELSE again_at END,
				attempts = CASE WHEN again_at = 0 THEN attempts ELSE 0 END
			WHERE id = $1 AND token = $2 AND workspace = $4 AND state = 'leased'`,
			j.ID, j.Token, j.LastError, j.Workspace))
	})
}

// leased returns [jobs.ErrLeaseLost] if a statement changed no job.
func leased(r sql.Result, err error) error {
	n, err := affected(r, err)
	if err == nil && n == 0 {
		return jobs.ErrLeaseLost
	}
	return err
}

// NextJobDue implements [jobs.Store].
func (db *DB) NextJobDue(ctx context.Context, kind string) (time.Time, bool, error) {
	var due sql.NullInt64
	err := db.q.QueryRowContext(ctx, `
		SELECT MIN(run_at) FROM jobs WHERE kind = $1 AND state <> 'dead'`, kind).Scan(&due)
	return at(due.Int64), due.Valid, err
}

// JobsPaused implements [jobs.Store].
func (db *DB) JobsPaused(ctx context.Context) (bool, error) {
	var n int
	err := db.q.QueryRowContext(ctx, `SELECT COUNT(*) FROM jobs_paused`).Scan(&n)
	return n > 0, err
}

// PauseJobs stops all nodes from starting jobs that reach outside, until
// [DB.ResumeJobs]. It is remembered across restarts. Attempts that run already
// go on.
func (db *DB) PauseJobs(ctx context.Context, now time.Time) error {
	return db.step(ctx, func(tx *DB) error {
		_, err := tx.q.ExecContext(ctx, `
			INSERT INTO jobs_paused (one, since) VALUES (1, $1) ON CONFLICT (one) DO NOTHING`, ms(now))
		return err
	})
}

// ResumeJobs undoes [DB.PauseJobs].
func (db *DB) ResumeJobs(ctx context.Context) error {
	return db.step(ctx, func(tx *DB) error {
		tx.notify(JobsTopic)
		_, err := tx.q.ExecContext(ctx, `DELETE FROM jobs_paused`)
		return err
	})
}

// DeadJobs returns the jobs of all workspaces that failed for good, the latest
// first, for the operator.
func (db *DB) DeadJobs(ctx context.Context, limit int) ([]jobs.Job, error) {
	return scanJobs(db.q.QueryContext(ctx, `
		SELECT `+jobColumns+` FROM jobs WHERE state = 'dead'
		ORDER BY run_at DESC, id DESC LIMIT $1`, limit))
}

// PurgeDeadJobs deletes the jobs that failed for good before the given time. It
// returns how many, [PurgeBatch] at most.
func (db *DB) PurgeDeadJobs(ctx context.Context, before time.Time) (int64, error) {
	return db.purge(ctx, `DELETE FROM jobs WHERE id IN (
		SELECT id FROM jobs WHERE state = 'dead' AND run_at < $1 ORDER BY run_at, id LIMIT $2)`, before)
}

const jobColumns = `id, workspace, kind, job_key, payload, state, run_at, attempts, last_error, token, created`

func scanJobs(rows *sql.Rows, err error) ([]jobs.Job, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []jobs.Job
	for rows.Next() {
		var j jobs.Job
		var payload string
		var runAt, created int64
		if err := rows.Scan(&j.ID, &j.Workspace, &j.Kind, &j.Key, &payload, &j.State, &runAt,
			&j.Attempts, &j.LastError, &j.Token, &created); err != nil {
			return nil, err
		}
		j.Payload, j.RunAt, j.CreatedAt = json.RawMessage(payload), at(runAt), at(created)
		found = append(found, j)
	}
	return found, rows.Err()
}
