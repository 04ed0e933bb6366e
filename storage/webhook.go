package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/jobs"
	"trustpager/problem"
	"trustpager/webhook"
)

var _ webhook.Store = (*DB)(nil)

const endpointColumns = `id, workspace, owner, url, events, secret, old_secret, old_until, disabled, disabled_cause, retired, created`

// SetEndpoint implements [webhook.Store].
func (db *DB) SetEndpoint(ctx context.Context, e webhook.Endpoint) (set webhook.Endpoint, err error) {
	err = db.step(ctx, func(tx *DB) error {
		set, err = scanEndpoint(tx.q.QueryRowContext(ctx, `
			INSERT INTO endpoints (id, workspace, owner, url, events, secret, old_secret, old_until, disabled, disabled_cause, retired, created)
			VALUES ($1, $2, $3, $4, $5, $6, '', $7, 0, '', 0, $8)
			ON CONFLICT (workspace, owner) DO UPDATE SET
				url = excluded.url, events = excluded.events, secret = excluded.secret,
				old_secret = CASE WHEN endpoints.url = excluded.url THEN endpoints.secret ELSE '' END,
				old_until = excluded.old_until, disabled = 0, disabled_cause = '', retired = 0
			RETURNING `+endpointColumns,
			e.ID, e.Workspace, e.Owner, e.URL, joinEvents(e.Events), e.Secret, ms(e.OldSecretUntil), ms(e.CreatedAt)))
		return err
	})
	if err != nil {
		return set, fmt.Errorf("set webhook endpoint: %w", err)
	}
	return set, nil
}

// MoveEndpoint implements [webhook.Store].
func (db *DB) MoveEndpoint(ctx context.Context, workspace, owner, url string, events []webhook.EventType) error {
	return db.one(ctx, noEndpoint, `
		UPDATE endpoints SET url = $3, events = $4, disabled = 0, disabled_cause = ''
		WHERE workspace = $1 AND owner = $2 AND retired = 0`, workspace, owner, url, joinEvents(events))
}

func joinEvents(events []webhook.EventType) string {
	texts := make([]string, len(events))
	for i, t := range events {
		texts[i] = string(t)
	}
	return strings.Join(texts, " ")
}

// RotateEndpoint implements [webhook.Store].
func (db *DB) RotateEndpoint(ctx context.Context, workspace, owner, sealed string, oldUntil time.Time) (e webhook.Endpoint, err error) {
	err = db.step(ctx, func(tx *DB) error {
		e, err = scanEndpoint(tx.q.QueryRowContext(ctx, `
			UPDATE endpoints SET old_secret = secret, old_until = $4, secret = $3
			WHERE workspace = $1 AND owner = $2 AND retired = 0
			RETURNING `+endpointColumns, workspace, owner, sealed, ms(oldUntil)))
		return err
	})
	return e, err
}

// EndpointOf implements [webhook.Outbox].
func (db *DB) EndpointOf(ctx context.Context, workspace, owner string) (webhook.Endpoint, error) {
	return scanEndpoint(db.q.QueryRowContext(ctx, `
		SELECT `+endpointColumns+` FROM endpoints
		WHERE workspace = $1 AND owner = $2 AND retired = 0`, workspace, owner))
}

// Endpoint implements [webhook.Store].
func (db *DB) Endpoint(ctx context.Context, workspace, id string) (webhook.Endpoint, error) {
	return scanEndpoint(db.q.QueryRowContext(ctx, `
		SELECT `+endpointColumns+` FROM endpoints WHERE workspace = $1 AND id = $2`, workspace, id))
}

func scanEndpoint(row scanner) (webhook.Endpoint, error) {
	var r endpointRow
	err := row.Scan(r.into()...)
	if errors.Is(err, sql.ErrNoRows) {
		return webhook.Endpoint{}, noEndpoint()
	}
	return r.value(), err
}

// endpointRow scans endpointColumns.
type endpointRow struct {
	e                                    webhook.Endpoint
	events                               string
	oldUntil, disabled, retired, created int64
}

func (r *endpointRow) into() []any {
	return []any{&r.e.ID, &r.e.Workspace, &r.e.Owner, &r.e.URL, &r.events, &r.e.Secret, &r.e.OldSecret, &r.oldUntil,
		&r.disabled, &r.e.DisabledReason, &r.retired, &r.created}
}

func (r *endpointRow) value() webhook.Endpoint {
	e := r.e
	for _, t := range strings.Fields(r.events) {
		e.Events = append(e.Events, webhook.EventType(t))
	}
	if e.OldSecret != "" {
		e.OldSecretUntil = at(r.oldUntil)
	}
	e.DisabledAt, e.RetiredAt, e.CreatedAt = at(r.disabled), at(r.retired), at(r.created)
	return e
}

func noEndpoint() error {
	return problem.Errorf(problem.NotFound, "there is no such webhook endpoint").
		WithFix("Set webhook_url on the key or client first.")
}

func noDelivery(id string) error {
	return problem.Errorf(problem.NotFound, "there is no delivery %.100q; deliveries are deleted after 30 days", id)
}

// DisableEndpoint implements [webhook.Store].
func (db *DB) DisableEndpoint(ctx context.Context, workspace, id, reason string, now time.Time) error {
	return db.one(ctx, noEndpoint, `
		UPDATE endpoints SET disabled = $3, disabled_cause = $4 WHERE workspace = $1 AND id = $2`,
		workspace, id, ms(now), reason)
}

// EnableEndpoint implements [webhook.Store].
func (db *DB) EnableEndpoint(ctx context.Context, workspace, id string) error {
	return db.one(ctx, noEndpoint, `
		UPDATE endpoints SET disabled = 0, disabled_cause = '' WHERE workspace = $1 AND id = $2`, workspace, id)
}

// RetireEndpoint implements [webhook.Store].
func (db *DB) RetireEndpoint(ctx context.Context, workspace, owner string, now time.Time) error {
	return db.one(ctx, nil, `
		UPDATE endpoints SET retired = $3 WHERE workspace = $1 AND owner = $2 AND retired = 0`,
		workspace, owner, ms(now))
}

// RemoveEndpoint implements [webhook.Store].
func (db *DB) RemoveEndpoint(ctx context.Context, workspace, owner string) error {
	return db.step(ctx, func(tx *DB) error {
		var id string
		err := tx.q.QueryRowContext(ctx, `
			DELETE FROM endpoints WHERE workspace = $1 AND owner = $2 RETURNING id`, workspace, owner).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return noEndpoint()
		}
		if err != nil {
			return err
		}
		_, err = tx.q.ExecContext(ctx, `
			UPDATE deliveries SET state = 'dead', next_at = 0, last_error = 'the endpoint was removed'
			WHERE workspace = $1 AND endpoint = $2 AND state = 'ready'`, workspace, id)
		return err
	})
}

// one runs a statement that changes one row. If it changes none, the error is
// that of missing, or nil if missing is nil.
func (db *DB) one(ctx context.Context, missing func() error, query string, args ...any) error {
	return db.step(ctx, func(tx *DB) error {
		n, err := affected(tx.q.ExecContext(ctx, query, args...))
		if err == nil && n == 0 && missing != nil {
			return missing()
		}
		return err
	})
}

// oneOfRights is one for what changes the rights of credentials of the workspace,
// $1.
func (db *DB) oneOfRights(ctx context.Context, missing func() error, query, workspace string, args ...any) error {
	return db.step(ctx, func(tx *DB) error {
		tx.notifyOnce(access.RightsTopic(workspace))
		return tx.one(ctx, missing, query, append([]any{workspace}, args...)...)
	})
}

const deliveryColumns = `id, workspace, endpoint, owner, url, event, approval, state, attempts,
	last_status, last_response, last_error, next_at, created, delivered`

// InsertDelivery implements [webhook.Outbox].
func (db *DB) InsertDelivery(ctx context.Context, d webhook.Delivery) error {
	err := db.one(ctx, nil, `
		INSERT INTO deliveries (`+deliveryColumns+`, body)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
		d.ID, d.Workspace, d.Endpoint, d.Owner, d.URL, string(d.Event), d.Approval, string(d.State), d.Attempts,
		d.LastStatus, d.LastResponse, d.LastError, ms(d.NextAt), ms(d.CreatedAt), ms(d.DeliveredAt), string(d.Body))
	if err != nil {
		return fmt.Errorf("store delivery: %w", err)
	}
	return nil
}

// Delivery implements [webhook.Store].
func (db *DB) Delivery(ctx context.Context, workspace, id string) (webhook.Delivery, error) {
	var body string
	d, err := scanDelivery(db.q.QueryRowContext(ctx, `
		SELECT `+deliveryColumns+`, body FROM deliveries WHERE workspace = $1 AND id = $2`, workspace, id), &body)
	if errors.Is(err, sql.ErrNoRows) {
		return d, noDelivery(id)
	}
	d.Body = []byte(body)
	return d, err
}

// Deliveries implements [webhook.Store].
func (db *DB) Deliveries(ctx context.Context, workspace string, q webhook.Query) ([]webhook.Delivery, error) {
	var b strings.Builder
	b.WriteString(`SELECT ` + deliveryColumns + ` FROM deliveries WHERE workspace = $1`)
	args := []any{workspace}
	where := func(cond, v string) {
		if v != "" {
			args = append(args, v)
			fmt.Fprintf(&b, cond, len(args))
		}
	}
	where(" AND owner = $%d", q.Owner)
	where(" AND endpoint = $%d", q.Endpoint)
	where(" AND approval = $%d", q.Approval)
	where(" AND state = $%d", string(q.State))
	where(" AND id < $%d", q.Before)
	args = append(args, q.Limit)
	fmt.Fprintf(&b, " ORDER BY id DESC LIMIT $%d", len(args))
	rows, err := db.q.QueryContext(ctx, b.String(), args...)
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	defer rows.Close()
	found := []webhook.Delivery{}
	for rows.Next() {
		d, err := scanDelivery(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, d)
	}
	return found, rows.Err()
}

// LastDeliveries implements [webhook.Store].
func (db *DB) LastDeliveries(ctx context.Context, workspace string, owners []string) ([]webhook.Delivery, error) {
	if len(owners) == 0 {
		return nil, nil
	}
	args := []any{workspace}
	for _, o := range owners {
		args = append(args, o)
	}
	rows, err := db.q.QueryContext(ctx, `SELECT `+deliveryColumns+` FROM deliveries WHERE workspace = $1 AND id IN (
		SELECT MAX(id) FROM deliveries WHERE workspace = $1 AND owner IN (`+parameters(2, len(owners))+`) GROUP BY owner)`, args...)
	if err != nil {
		return nil, fmt.Errorf("last deliveries: %w", err)
	}
	defer rows.Close()
	var last []webhook.Delivery
	for rows.Next() {
		d, err := scanDelivery(rows)
		if err != nil {
			return nil, err
		}
		last = append(last, d)
	}
	return last, rows.Err()
}

func scanDelivery(row scanner, more ...any) (webhook.Delivery, error) {
	var d webhook.Delivery
	var next, created, delivered int64
	err := row.Scan(append([]any{&d.ID, &d.Workspace, &d.Endpoint, &d.Owner, &d.URL, &d.Event, &d.Approval, &d.State, &d.Attempts,
		&d.LastStatus, &d.LastResponse, &d.LastError, &next, &created, &delivered}, more...)...)
	d.NextAt, d.CreatedAt, d.DeliveredAt = at(next), at(created), at(delivered)
	return d, err
}

// RecordAttempt implements [webhook.Store].
func (db *DB) RecordAttempt(ctx context.Context, workspace, id string, a webhook.Attempt) error {
	state, delivered := jobs.Ready, time.Time{}
	if a.Error == "" {
		state, delivered = webhook.Done, a.At
	}
	return db.one(ctx, nil, `
		UPDATE deliveries SET state = $3, url = $4, attempts = attempts + 1,
			last_status = $5, last_response = $6, last_error = $7, next_at = 0,
			delivered = CASE WHEN CAST($8 AS BIGINT) > 0 THEN $8 ELSE delivered END
		WHERE workspace = $1 AND id = $2 AND state = 'ready'`,
		workspace, id, string(state), a.URL, a.Status, a.Response, a.Error, ms(delivered))
}

// PutOffDelivery implements [webhook.Store].
func (db *DB) PutOffDelivery(ctx context.Context, workspace, id string, next time.Time) error {
	return db.one(ctx, nil, `
		UPDATE deliveries SET next_at = $3
		WHERE workspace = $1 AND id = $2 AND state = 'ready'`, workspace, id, ms(next))
}

// BuryDelivery implements [webhook.Store].
func (db *DB) BuryDelivery(ctx context.Context, workspace, id, reason string) error {
	return db.one(ctx, nil, `
		UPDATE deliveries SET state = 'dead', next_at = 0, last_error = CASE WHEN $3 = '' THEN last_error ELSE $3 END
		WHERE workspace = $1 AND id = $2 AND state = 'ready'`, workspace, id, reason)
}

// ReviveDelivery implements [webhook.Store].
func (db *DB) ReviveDelivery(ctx context.Context, workspace, id string, now time.Time) (d webhook.Delivery, err error) {
	err = db.step(ctx, func(tx *DB) error {
		n, err := affected(tx.q.ExecContext(ctx, `
			UPDATE deliveries SET state = 'ready', next_at = $3
			WHERE workspace = $1 AND id = $2 AND state <> 'ready'`, workspace, id, ms(now)))
		if err != nil {
			return err
		}
		d, err = tx.Delivery(ctx, workspace, id)
		if err == nil && n == 0 {
			return problem.Errorf(problem.Conflict, "the delivery is still on its way").
				WithFix("Wait until it has been delivered or has failed for good.")
		}
		return err
	})
	return d, err
}

// PurgeDeliveries implements [webhook.Store].
func (db *DB) PurgeDeliveries(ctx context.Context, before time.Time) (n int64, err error) {
	err = db.step(ctx, func(tx *DB) error {
		n, err = tx.purge(ctx, `DELETE FROM deliveries WHERE id IN (
			SELECT id FROM deliveries WHERE created < $1 AND state <> 'ready' ORDER BY created LIMIT $2)`, before)
		if err != nil {
			return err
		}
		_, err = tx.q.ExecContext(ctx, `
			DELETE FROM endpoints WHERE retired > 0 AND NOT EXISTS (
				SELECT 1 FROM deliveries d WHERE d.workspace = endpoints.workspace AND d.endpoint = endpoints.id)`)
		return err
	})
	return n, err
}
