package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
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
		// The user before the link, as everybody who ends links does: of many who
		// come with links of one user each waits for one other, and not in a ring.
		whose := `SELECT id FROM users WHERE id = (SELECT user_id FROM reset_links WHERE hash = $1)` + tx.dialect.lockSolo
		if err := tx.q.QueryRowContext(ctx, whose, hash).Scan(&user); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("lock whose link it is: %w", err)
		}
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

// SetNotice says when the member is told of approvals that wait for them. It
// fails with [problem.NotFound] if the user is no member of the workspace.
func (db *DB) SetNotice(ctx context.Context, workspace, user string, n access.Notice) error {
	return db.one(ctx, func() error {
		return problem.Errorf(problem.NotFound, "the user %q is no member of the workspace", user)
	}, `UPDATE members SET notice = $3 WHERE workspace = $1 AND user_id = $2`, workspace, user, string(n))
}

// PendingWorkspaces returns the workspaces in which approvals are pending.
func (db *DB) PendingWorkspaces(ctx context.Context) ([]string, error) {
	ids, err := db.column(ctx, `SELECT DISTINCT workspace FROM approvals WHERE status = 'pending' ORDER BY workspace`)
	if err != nil {
		return nil, fmt.Errorf("workspaces with pending approvals: %w", err)
	}
	return ids, nil
}

// PendingApprovals returns the approvals that are pending and not over at now,
// the oldest first, with what a notice tells of them: without what is asked for
// exactly, which may be large.
func (db *DB) PendingApprovals(ctx context.Context, workspace string, now time.Time) ([]approvals.Approval, error) {
	rows, err := db.q.QueryContext(ctx, `SELECT id, action, resource, verb, target, title, asker, created, expires FROM approvals
		WHERE workspace = $1 AND status = 'pending' AND expires > $2 ORDER BY id`, workspace, ms(now))
	if err != nil {
		return nil, fmt.Errorf("pending approvals: %w", err)
	}
	defer rows.Close()
	var found []approvals.Approval
	for rows.Next() {
		a := approvals.Approval{Workspace: workspace, Status: approvals.Pending, Execution: approvals.NotExecuted}
		var verb, asked string
		var created, expires int64
		if err := rows.Scan(&a.ID, &a.Action, &a.Resource, &verb, &a.TargetID, &a.Title, &asked, &created, &expires); err != nil {
			return nil, err
		}
		var who asker
		if a.Verb, err = access.ParseVerb(verb); err == nil {
			err = json.Unmarshal([]byte(asked), &who)
		}
		if err != nil {
			return nil, fmt.Errorf("approval %s: %w", a.ID, err)
		}
		a.By, a.Parent, a.Decider, a.CreatedAt, a.ExpiresAt = who.By, who.Parent, who.Decider, at(created), at(expires)
		found = append(found, a)
	}
	return found, rows.Err()
}

// Readers returns the members of the workspace that want to be told of
// approvals, in the order of their ids.
func (db *DB) Readers(ctx context.Context, workspace string) ([]admin.Reader, error) {
	rows, err := db.q.QueryContext(ctx, `SELECT u.id, u.email, u.name, m.role, m.notice, m.told, m.told_at, m.warned FROM members m
		JOIN users u ON u.id = m.user_id WHERE m.workspace = $1 AND m.notice <> 'off' ORDER BY u.id`, workspace)
	if err != nil {
		return nil, fmt.Errorf("readers of notices: %w", err)
	}
	defer rows.Close()
	var found []admin.Reader
	for rows.Next() {
		var r admin.Reader
		var toldAt, warned int64
		if err := rows.Scan(&r.User.ID, &r.User.Email, &r.User.Name, &r.User.Role, &r.Notice, &r.Told, &toldAt, &warned); err != nil {
			return nil, err
		}
		r.ToldAt, r.Warned = at(toldAt), at(warned)
		found = append(found, r)
	}
	return found, rows.Err()
}

// TellReader notes of what the member has been told at now, unless that has moved on
// from r or they do not want to be told any more. It reports whether it did: of
// several calls one is told true.
func (db *DB) TellReader(ctx context.Context, workspace string, r admin.Reader, told string, warned, now time.Time) (noted bool, err error) {
	err = db.step(ctx, func(tx *DB) error {
		n, err := affected(tx.q.ExecContext(ctx, `UPDATE members SET told = $3, warned = $4, told_at = $8
			WHERE workspace = $1 AND user_id = $2 AND told = $5 AND warned = $6 AND notice = $7`,
			workspace, r.User.ID, told, ms(warned), r.Told, ms(r.Warned), string(r.Notice), ms(now)))
		noted = n == 1
		return err
	})
	if err != nil {
		return false, fmt.Errorf("note what a member was told: %w", err)
	}
	return noted, nil
}
