package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"trustpager/admin"
	"trustpager/messages"
	"trustpager/problem"
)

const invitationColumns = `id, workspace, email, name, role, inviter, created, expires`

// scanInvitation scans invitationColumns. It fails with [problem.NotFound] if
// there is no row.
func scanInvitation(row scanner) (i admin.Invitation, err error) {
	var by string
	var created, expires int64
	err = row.Scan(&i.ID, &i.Workspace, &i.Email, &i.Name, &i.Role, &by, &created, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return i, problem.Errorf(problem.NotFound, "there is no such invitation")
	}
	if err != nil {
		return i, fmt.Errorf("invitation: %w", err)
	}
	i.CreatedAt, i.ExpiresAt = at(created), at(expires)
	if err := json.Unmarshal([]byte(by), &i.By); err != nil {
		return i, fmt.Errorf("invitation %s: %w", i.ID, err)
	}
	return i, nil
}

// SaveInvitation stores an invitation with the hash of its link's token, in
// place of the one that the address has in the workspace, whose id it keeps. It
// returns it as it is stored.
func (db *DB) SaveInvitation(ctx context.Context, i admin.Invitation, hash string) (saved admin.Invitation, err error) {
	by, err := json.Marshal(i.By)
	if err != nil {
		return i, fmt.Errorf("save invitation: %w", err)
	}
	err = db.step(ctx, func(tx *DB) error {
		saved, err = scanInvitation(tx.q.QueryRowContext(ctx, `INSERT INTO invitations (id, workspace, email, name, role, hash, inviter, created, expires)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (workspace, email) DO UPDATE SET name = excluded.name, role = excluded.role, hash = excluded.hash,
				inviter = excluded.inviter, created = excluded.created, expires = excluded.expires
			RETURNING `+invitationColumns, i.ID, i.Workspace, strings.ToLower(i.Email), i.Name, string(i.Role), hash, string(by), ms(i.CreatedAt), ms(i.ExpiresAt)))
		return err
	})
	return saved, err
}

// Invitations returns the workspace's invitations, the newest first, those that
// are over too until they are purged.
func (db *DB) Invitations(ctx context.Context, workspace string) ([]admin.Invitation, error) {
	rows, err := db.q.QueryContext(ctx, `SELECT `+invitationColumns+` FROM invitations WHERE workspace = $1 ORDER BY created DESC, id DESC`, workspace)
	if err != nil {
		return nil, fmt.Errorf("invitations: %w", err)
	}
	defer rows.Close()
	found := []admin.Invitation{}
	for rows.Next() {
		i, err := scanInvitation(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, i)
	}
	return found, rows.Err()
}

// InvitationByHash returns the invitation whose link's token has the hash. It
// fails with [problem.NotFound], also if it is over.
func (db *DB) InvitationByHash(ctx context.Context, hash string, now time.Time) (admin.Invitation, error) {
	return scanInvitation(db.q.QueryRowContext(ctx, `SELECT `+invitationColumns+` FROM invitations WHERE hash = $1 AND expires > $2`, hash, ms(now)))
}

// TakeInvitation is InvitationByHash, and ends the invitation: of several calls
// one gets it.
func (db *DB) TakeInvitation(ctx context.Context, hash string, now time.Time) (i admin.Invitation, err error) {
	err = db.step(ctx, func(tx *DB) error {
		i, err = scanInvitation(tx.q.QueryRowContext(ctx, `DELETE FROM invitations WHERE hash = $1 AND expires > $2 RETURNING `+invitationColumns, hash, ms(now)))
		return err
	})
	return i, err
}

// CancelInvitation ends the invitation of the address, and returns it. It fails
// with [problem.NotFound].
func (db *DB) CancelInvitation(ctx context.Context, workspace, email string) (i admin.Invitation, err error) {
	err = db.step(ctx, func(tx *DB) error {
		i, err = scanInvitation(tx.q.QueryRowContext(ctx, `DELETE FROM invitations WHERE workspace = $1 AND email = $2 RETURNING `+invitationColumns,
			workspace, strings.ToLower(email)))
		return err
	})
	return i, err
}

// PurgeInvitations forgets the invitations that ended before the given time. It
// returns how many, [PurgeBatch] at most.
func (db *DB) PurgeInvitations(ctx context.Context, before time.Time) (int64, error) {
	return db.purge(ctx, `DELETE FROM invitations WHERE id IN (
		SELECT id FROM invitations WHERE expires < $1 ORDER BY expires LIMIT $2)`, before)
}

// NoteLogin notes when the user has logged in.
func (db *DB) NoteLogin(ctx context.Context, user string, now time.Time) error {
	return db.step(ctx, func(tx *DB) error {
		if _, err := tx.q.ExecContext(ctx, `UPDATE users SET last_login = $2 WHERE id = $1 AND last_login < $2`, user, ms(now)); err != nil {
			return fmt.Errorf("note login: %w", err)
		}
		return nil
	})
}

// Stock counts what the workspace has at now.
func (db *DB) Stock(ctx context.Context, workspace string, now time.Time) (s admin.Stock, err error) {
	err = db.q.QueryRowContext(ctx, `SELECT
			(SELECT COUNT(*) FROM members WHERE workspace = $1),
			(SELECT COUNT(*) FROM invitations WHERE workspace = $1 AND expires > $2),
			(SELECT COUNT(*) FROM keys WHERE workspace = $1 AND revoked = 0 AND (expires = 0 OR expires > $2)),
			(SELECT COUNT(*) FROM oauth_grants WHERE workspace = $1 AND revoked = 0),
			(SELECT COUNT(*) FROM records WHERE workspace = $1),
			(SELECT COUNT(*) FROM approvals WHERE workspace = $1 AND status = 'pending')`, workspace, ms(now)).
		Scan(&s.Members, &s.Invitations, &s.Keys, &s.Connections, &s.Records, &s.OpenApprovals)
	if err != nil {
		return s, fmt.Errorf("count what there is: %w", err)
	}
	return s, nil
}

// Consumption returns, of the credentials in force that have called since the
// given hour or have approvals open, how much, the busiest first.
func (db *DB) Consumption(ctx context.Context, workspace string, since, now time.Time, most int) ([]admin.Consumption, error) {
	rows, err := db.q.QueryContext(ctx, `SELECT c.id, c.name, c.per_day, c.calls, c.waiting, c.sends FROM (
			SELECT a.id, a.name, a.per_day,
				(SELECT COALESCE(SUM(u.n), 0) FROM key_usage u WHERE u.workspace = $1 AND u.credential = a.id AND u.hour >= $2 AND u.outcome <> 'limited') AS calls,
				(SELECT COUNT(*) FROM approvals p WHERE p.workspace = $1 AND p.credential = a.id AND p.status = 'pending') AS waiting,
				(SELECT COALESCE(SUM(t.n), 0) FROM tallies t WHERE t.workspace = $1 AND t.owner = a.id AND t.what = $5 AND t.period = $6) AS sends
			FROM (
				SELECT id, name, per_day FROM keys WHERE workspace = $1 AND revoked = 0 AND (expires = 0 OR expires > $3)
				UNION ALL
				SELECT g.id, o.name, p.per_day FROM oauth_grants g JOIN oauth_clients o ON o.id = g.client
					JOIN oauth_policies p ON p.workspace = g.workspace AND p.client = g.client
					WHERE g.workspace = $1 AND g.revoked = 0
			) a
		) c WHERE c.calls > 0 OR c.waiting > 0 OR c.sends > 0 ORDER BY c.calls DESC, c.waiting DESC, c.id LIMIT $4`, workspace, ms(since), ms(now), most, messages.Sends, messages.Day(since))
	if err != nil {
		return nil, fmt.Errorf("what credentials use: %w", err)
	}
	defer rows.Close()
	found := []admin.Consumption{}
	for rows.Next() {
		var c admin.Consumption
		if err := rows.Scan(&c.ID, &c.Name, &c.CallsPerDay, &c.CallsToday, &c.OpenApprovals, &c.SendsToday); err != nil {
			return nil, err
		}
		found = append(found, c)
	}
	return found, rows.Err()
}
