package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"trustpager/integrations"
	"trustpager/problem"
)

var _ integrations.AccountStore = (*DB)(nil)

const accountColumns = `id, workspace, kind, name, settings, sealed, active, is_default, state, state_text, checked, read_to, version, created, updated`

func noAccount(id string) error {
	return problem.Errorf(problem.NotFound, "there is no integration %.60q", id).
		WithFix("List the integrations to find the right id.")
}

// Accounts implements [integrations.AccountStore].
func (db *DB) Accounts(ctx context.Context, workspace string, kind integrations.Kind) ([]integrations.Account, error) {
	return db.accounts(ctx, `SELECT `+accountColumns+` FROM integrations
		WHERE workspace = $1 AND ($2 = '' OR kind = $2) ORDER BY id`, workspace, string(kind))
}

// ReadableAccounts implements [integrations.AccountStore].
func (db *DB) ReadableAccounts(ctx context.Context) ([]integrations.Account, error) {
	return db.accounts(ctx, `SELECT `+accountColumns+` FROM integrations WHERE readable ORDER BY id`)
}

func (db *DB) accounts(ctx context.Context, query string, args ...any) ([]integrations.Account, error) {
	rows, err := db.q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("list integrations: %w", err)
	}
	defer rows.Close()
	var found []integrations.Account
	for rows.Next() {
		a, err := scanAccount(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, a)
	}
	return found, rows.Err()
}

// Account implements [integrations.AccountStore].
func (db *DB) Account(ctx context.Context, workspace, id string, forUpdate bool) (integrations.Account, error) {
	query := `SELECT ` + accountColumns + ` FROM integrations WHERE workspace = $1 AND id = $2`
	if forUpdate {
		query += db.dialect.lockRow
	}
	return db.account(ctx, id, query, workspace, id)
}

// AccountByID implements [integrations.AccountStore].
func (db *DB) AccountByID(ctx context.Context, id string) (integrations.Account, error) {
	return db.account(ctx, id, `SELECT `+accountColumns+` FROM integrations WHERE id = $1`, id)
}

func (db *DB) account(ctx context.Context, id, query string, args ...any) (integrations.Account, error) {
	a, err := scanAccount(db.q.QueryRowContext(ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return integrations.Account{}, noAccount(id)
	}
	return a, err
}

func scanAccount(row scanner) (integrations.Account, error) {
	var a integrations.Account
	var settings, readTo string
	var checked, created, updated int64
	if err := row.Scan(&a.ID, &a.Workspace, &a.Kind, &a.Name, &settings, &a.Sealed, &a.Active, &a.Default, &a.State, &a.StateText,
		&checked, &readTo, &a.Version, &created, &updated); err != nil {
		return a, err
	}
	if err := json.Unmarshal([]byte(settings), &a.Settings); err != nil {
		return a, fmt.Errorf("settings of %s: %w", a.ID, err)
	}
	if readTo != "" {
		a.Cursor = json.RawMessage(readTo)
	}
	a.CheckedAt, a.CreatedAt, a.UpdatedAt = at(checked), at(created), at(updated)
	return a, nil
}

// CreateAccount implements [integrations.AccountStore].
func (db *DB) CreateAccount(ctx context.Context, a integrations.Account) error {
	settings, err := json.Marshal(a.Settings)
	if err != nil {
		return fmt.Errorf("settings of %s: %w", a.ID, err)
	}
	return db.step(ctx, func(tx *DB) error {
		if err := tx.yieldDefault(ctx, a); err != nil {
			return err
		}
		_, err := tx.q.ExecContext(ctx, `INSERT INTO integrations (`+accountColumns+`, readable, purpose)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)`,
			a.ID, a.Workspace, string(a.Kind), a.Name, string(settings), a.Sealed, a.Active, a.Default, a.State, a.StateText,
			ms(a.CheckedAt), string(a.Cursor), a.Version, ms(a.CreatedAt), ms(a.UpdatedAt), readable(a), a.Kind.Purpose())
		tx.notify(integrations.AccountTopic(a.Workspace))
		return db.accountError(a, "store", err)
	})
}

// UpdateAccount implements [integrations.AccountStore].
func (db *DB) UpdateAccount(ctx context.Context, a integrations.Account) error {
	settings, err := json.Marshal(a.Settings)
	if err != nil {
		return fmt.Errorf("settings of %s: %w", a.ID, err)
	}
	return db.step(ctx, func(tx *DB) error {
		if err := tx.yieldDefault(ctx, a); err != nil {
			return err
		}
		n, err := affected(tx.q.ExecContext(ctx, `UPDATE integrations SET name = $4, settings = $5, sealed = $6, active = $7, is_default = $8,
				state = $9, state_text = $10, checked = $11, updated = $12, readable = $13, version = version + 1
			WHERE workspace = $1 AND id = $2 AND version = $3`,
			a.Workspace, a.ID, a.Version-1, a.Name, string(settings), a.Sealed, a.Active, a.Default,
			a.State, a.StateText, ms(a.CheckedAt), ms(a.UpdatedAt), readable(a)))
		if err == nil && n == 0 {
			return changed(a.ID)
		}
		tx.notify(integrations.AccountTopic(a.Workspace))
		return db.accountError(a, "update", err)
	})
}

// yieldDefault takes the default of its purpose from the account that has it, if
// a is to be it.
func (db *DB) yieldDefault(ctx context.Context, a integrations.Account) error {
	if !a.Default {
		return nil
	}
	_, err := db.q.ExecContext(ctx, `UPDATE integrations SET is_default = FALSE, version = version + 1, updated = $4
		WHERE workspace = $1 AND purpose = $2 AND id <> $3 AND is_default`, a.Workspace, a.Kind.Purpose(), a.ID, ms(a.UpdatedAt))
	if err != nil {
		return fmt.Errorf("take the default from others: %w", err)
	}
	return nil
}

// accountError returns err with what was tried; two that become the default at
// once are in each other's way.
func (db *DB) accountError(a integrations.Account, tried string, err error) error {
	switch {
	case err == nil:
		return nil
	case db.dialect.isUnique(err):
		return problem.Errorf(problem.Conflict, "another integration has just become the default").WithFix("Look at the list, then try again.")
	}
	return fmt.Errorf("%s %s: %w", tried, a.ID, err)
}

// readable reports whether the mailbox of the account is to be read.
func readable(a integrations.Account) bool {
	return a.Active && a.Kind == integrations.EmailKind && a.Settings.IMAPHost != ""
}

// DeleteAccount implements [integrations.AccountStore].
func (db *DB) DeleteAccount(ctx context.Context, workspace, id string, version int64) error {
	return db.step(ctx, func(tx *DB) error {
		tx.notify(integrations.AccountTopic(workspace))
		return tx.one(ctx, func() error { return changed(id) }, `
			DELETE FROM integrations WHERE workspace = $1 AND id = $2 AND version = $3`, workspace, id, version)
	})
}

// SetAccountState implements [integrations.AccountStore].
func (db *DB) SetAccountState(ctx context.Context, workspace, id, state, text string, at time.Time) error {
	return db.step(ctx, func(tx *DB) error {
		tx.notify(integrations.AccountTopic(workspace))
		return tx.one(ctx, func() error { return noAccount(id) }, `
			UPDATE integrations SET state = $3, state_text = $4, checked = $5 WHERE workspace = $1 AND id = $2`,
			workspace, id, state, text, ms(at))
	})
}

// SetAccountCursor implements [integrations.AccountStore].
func (db *DB) SetAccountCursor(ctx context.Context, workspace, id string, version int64, cursor json.RawMessage) error {
	return db.one(ctx, func() error { return changed(id) }, `
		UPDATE integrations SET read_to = $4 WHERE workspace = $1 AND id = $2 AND version = $3`, workspace, id, version, string(cursor))
}
