package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"trustpager/approvals"
	"trustpager/problem"
)

const subscriptionQuery = `SELECT s.id, s.workspace, s.version, s.description, s.active, s.creator, s.taker, s.created, s.updated,
	e.id, e.workspace, e.owner, e.url, e.events, e.secret, e.old_secret, e.old_until, e.disabled, e.disabled_cause, e.retired, e.created
	FROM subscriptions s JOIN endpoints e ON e.workspace = s.workspace AND e.owner = s.id WHERE s.workspace = $1`

func scanSubscription(row scanner) (approvals.Subscription, error) {
	var s approvals.Subscription
	var creator string
	var created, updated int64
	var e endpointRow
	if err := row.Scan(append([]any{&s.ID, &s.Workspace, &s.Version, &s.Description, &s.Active, &creator, &s.Taker, &created, &updated}, e.into()...)...); err != nil {
		return s, err
	}
	s.CreatedAt, s.UpdatedAt, s.Endpoint = at(created), at(updated), e.value()
	if err := json.Unmarshal([]byte(creator), &s.Creator); err != nil {
		return s, fmt.Errorf("subscription %s: %w", s.ID, err)
	}
	return s, nil
}

// anySubscription is part of the statements that change records, whose first
// parameter is the workspace: they tell on their way whether anybody has to be
// told, so that where nobody has, a write costs no statement more.
const anySubscription = `EXISTS (SELECT 1 FROM subscriptions s WHERE s.workspace = $1)`

// noteSubscribed notes for the transaction whether the workspace has subscriptions.
func (db *DB) noteSubscribed(workspace string, any bool) {
	if _, ok := db.tx.told[workspace]; !any && !ok {
		db.rememberSubscriptions(workspace, nil)
	}
}

// rememberSubscriptions remembers the subscriptions of the workspace for the transaction.
func (db *DB) rememberSubscriptions(workspace string, all []approvals.Subscription) {
	if db.tx.told == nil {
		db.tx.told = map[string][]approvals.Subscription{}
	}
	db.tx.told[workspace] = all
}

// Subscriptions returns the subscriptions of the workspace, the oldest first. A
// transaction looks once, unless it changes one itself, and not at all if a write
// has told that there are none.
func (db *DB) Subscriptions(ctx context.Context, workspace string) ([]approvals.Subscription, error) {
	if db.tx != nil {
		if found, ok := db.tx.told[workspace]; ok {
			return found, nil
		}
	}
	rows, err := db.q.QueryContext(ctx, subscriptionQuery+` ORDER BY s.id`, workspace)
	if err != nil {
		return nil, fmt.Errorf("subscriptions: %w", err)
	}
	defer rows.Close()
	var found []approvals.Subscription
	for rows.Next() {
		s, err := scanSubscription(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("subscriptions: %w", err)
	}
	if db.tx != nil {
		db.rememberSubscriptions(workspace, found)
	}
	return found, nil
}

// Subscription returns one subscription, with forUpdate locked until the
// transaction ends. It fails with [problem.NotFound].
func (db *DB) Subscription(ctx context.Context, workspace, id string, forUpdate bool) (approvals.Subscription, error) {
	query := subscriptionQuery + ` AND s.id = $2`
	if forUpdate {
		query += db.dialect.lockRow
	}
	s, err := scanSubscription(db.q.QueryRowContext(ctx, query, workspace, id))
	if errors.Is(err, sql.ErrNoRows) {
		return s, noSubscription(id)
	}
	return s, err
}

func noSubscription(id string) error {
	return problem.Errorf(problem.NotFound, "there is no webhook %.60q", id).WithFix("Find ids with list_webhooks.")
}

// CreateSubscription adds a subscription, but for its endpoint.
func (db *DB) CreateSubscription(ctx context.Context, s approvals.Subscription) error {
	return db.step(ctx, func(tx *DB) error {
		tx.tx.told = nil
		if _, err := tx.q.ExecContext(ctx, `INSERT INTO subscriptions (id, workspace, version, description, active, creator, taker, created, updated)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			s.ID, s.Workspace, s.Version, s.Description, s.Active, encode(s.Creator), s.Taker, ms(s.CreatedAt), ms(s.UpdatedAt)); err != nil {
			return fmt.Errorf("create subscription: %w", err)
		}
		return nil
	})
}

// UpdateSubscription replaces a subscription, but for its endpoint, if its stored
// version is s.Version-1. It fails with [problem.Conflict] otherwise.
func (db *DB) UpdateSubscription(ctx context.Context, s approvals.Subscription) error {
	return db.step(ctx, func(tx *DB) error {
		tx.tx.told = nil
		n, err := affected(tx.q.ExecContext(ctx, `UPDATE subscriptions SET version = $3, description = $4, active = $5, creator = $6, taker = $7, updated = $8
			WHERE workspace = $1 AND id = $2 AND version = $3 - 1`,
			s.Workspace, s.ID, s.Version, s.Description, s.Active, encode(s.Creator), s.Taker, ms(s.UpdatedAt)))
		if err != nil {
			return fmt.Errorf("update subscription: %w", err)
		}
		if n == 0 {
			return changed(s.ID)
		}
		return nil
	})
}

// DeleteSubscription removes a subscription, but for its endpoint. It fails with
// [problem.NotFound].
func (db *DB) DeleteSubscription(ctx context.Context, workspace, id string) error {
	return db.step(ctx, func(tx *DB) error {
		tx.tx.told = nil
		n, err := affected(tx.q.ExecContext(ctx, `DELETE FROM subscriptions WHERE workspace = $1 AND id = $2`, workspace, id))
		if err == nil && n == 0 {
			return noSubscription(id)
		}
		return err
	})
}
