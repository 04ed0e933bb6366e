package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"trustpager/problem"
)

// CanLogIn reports whether any member of a workspace has a password.
func (db *DB) CanLogIn(ctx context.Context) (bool, error) {
	var can bool
	err := db.q.QueryRowContext(ctx, `SELECT EXISTS (
		SELECT 1 FROM users u JOIN members m ON m.user_id = u.id WHERE u.password <> '')`).Scan(&can)
	if err != nil {
		return false, fmt.Errorf("look for who can log in: %w", err)
	}
	return can, nil
}

// setUpToken is the setting that holds the hash of the token by which the first
// person sets the server up.
const setUpToken = "setup_token"

// OfferSetUp stores the hash of a set-up token. The one before it ends.
func (db *DB) OfferSetUp(ctx context.Context, hash string) error {
	return db.step(ctx, func(tx *DB) error { return tx.setSetting(ctx, setUpToken, hash) })
}

// IsSetUpToken reports whether the hash is that of the set-up token.
func (db *DB) IsSetUpToken(ctx context.Context, hash string) (bool, error) {
	have, err := db.setting(ctx, setUpToken)
	return err == nil && have != "" && have == hash, err
}

// TakeSetUpToken ends the set-up token with the hash. It reports false if that
// is not the token, or not any more: of several calls one is told true.
func (db *DB) TakeSetUpToken(ctx context.Context, hash string) (taken bool, err error) {
	err = db.step(ctx, func(tx *DB) error {
		n, err := affected(tx.q.ExecContext(ctx, `DELETE FROM settings WHERE name = $1 AND value = $2`, setUpToken, hash))
		taken = n == 1
		return err
	})
	if err != nil {
		return false, fmt.Errorf("take the set-up token: %w", err)
	}
	return taken, nil
}

// SetUserName changes what people call the user. Their OAuth credentials, which
// bear the name, are decoded anew.
func (db *DB) SetUserName(ctx context.Context, user, name string) error {
	return db.step(ctx, func(tx *DB) error {
		if _, err := tx.q.ExecContext(ctx, `UPDATE users SET name = $2 WHERE id = $1`, user, name); err != nil {
			return fmt.Errorf("rename user: %w", err)
		}
		if _, err := tx.q.ExecContext(ctx, `UPDATE oauth_grants SET version = version + 1 WHERE user_id = $1`, user); err != nil {
			return fmt.Errorf("rename user: %w", err)
		}
		return nil
	})
}

// ReplacePassword stores a new hash of the user's password if the present one
// is old, and ends the links for a new password. It fails with
// [problem.Conflict] if the password has changed.
func (db *DB) ReplacePassword(ctx context.Context, user, old, passwordHash string) error {
	return db.step(ctx, func(tx *DB) error {
		n, err := affected(tx.q.ExecContext(ctx, `UPDATE users SET password = $3 WHERE id = $1 AND password = $2`, user, old, passwordHash))
		if err != nil {
			return fmt.Errorf("replace password: %w", err)
		}
		if n == 0 {
			return problem.Errorf(problem.Conflict, "the password was changed meanwhile").WithFix("Log in with the new one.")
		}
		return tx.endResetLinks(ctx, user)
	})
}

func (db *DB) endResetLinks(ctx context.Context, user string) error {
	if _, err := db.q.ExecContext(ctx, `DELETE FROM reset_links WHERE user_id = $1`, user); err != nil {
		return fmt.Errorf("end links for a new password: %w", err)
	}
	return nil
}

// CreateResetLink stores the hash of a link by which the user gives a new
// password instead of the one with the stamp, unless most links of theirs are in
// force at now. It reports whether it did.
func (db *DB) CreateResetLink(ctx context.Context, hash, user, stamp string, now, expires time.Time, most int) (created bool, err error) {
	err = db.step(ctx, func(tx *DB) error {
		var id string
		if err := tx.q.QueryRowContext(ctx, `SELECT id FROM users WHERE id = $1`+tx.dialect.lockSolo, user).Scan(&id); err != nil {
			return err
		}
		n, err := affected(tx.q.ExecContext(ctx, `INSERT INTO reset_links (hash, user_id, stamp, expires)
			SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS BIGINT)
			WHERE (SELECT COUNT(*) FROM reset_links WHERE user_id = $2 AND expires > $5) < $6`,
			hash, user, stamp, ms(expires), ms(now), most))
		created = n == 1
		return err
	})
	if err != nil {
		return false, fmt.Errorf("create a link for a new password: %w", err)
	}
	return created, nil
}

// ResetLink returns whose link for a new password has the hash, and for which
// password it was made. It fails with [problem.NotFound], also if the link has
// ended.
func (db *DB) ResetLink(ctx context.Context, hash string, now time.Time) (user, stamp string, err error) {
	return scanResetLink(db.q.QueryRowContext(ctx, `SELECT user_id, stamp FROM reset_links WHERE hash = $1 AND expires > $2`, hash, ms(now)))
}

// TakeResetLink is ResetLink, and ends the link: of several calls one gets it.
func (db *DB) TakeResetLink(ctx context.Context, hash string, now time.Time) (user, stamp string, err error) {
	err = db.step(ctx, func(tx *DB) error {
		user, stamp, err = scanResetLink(tx.q.QueryRowContext(ctx, `DELETE FROM reset_links WHERE hash = $1 AND expires > $2 RETURNING user_id, stamp`, hash, ms(now)))
		return err
	})
	return user, stamp, err
}

func scanResetLink(row scanner) (user, stamp string, err error) {
	if err = row.Scan(&user, &stamp); errors.Is(err, sql.ErrNoRows) {
		return "", "", problem.Errorf(problem.NotFound, "the link does not hold, or not any more")
	}
	if err != nil {
		return "", "", fmt.Errorf("look up a link for a new password: %w", err)
	}
	return user, stamp, nil
}

// PurgeResetLinks forgets the links for a new password that ended before the
// given time. It returns how many, [PurgeBatch] at most.
func (db *DB) PurgeResetLinks(ctx context.Context, before time.Time) (int64, error) {
	return db.purge(ctx, `DELETE FROM reset_links WHERE hash IN (
		SELECT hash FROM reset_links WHERE expires < $1 ORDER BY expires LIMIT $2)`, before)
}
