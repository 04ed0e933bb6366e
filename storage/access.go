package storage

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/problem"
)

const workspaceColumns = `w.id, w.name, w.plan, w.time_zone, w.settings, w.created`

// workspaceRow scans workspaceColumns.
type workspaceRow struct {
	w        access.Workspace
	settings []byte
	created  int64
}

func (r *workspaceRow) into() []any {
	return []any{&r.w.ID, &r.w.Name, &r.w.Plan, &r.w.TimeZone, &r.settings, &r.created}
}

func (r *workspaceRow) value() (access.Workspace, error) {
	r.w.CreatedAt = at(r.created)
	if err := json.Unmarshal(r.settings, &r.w.Settings); err != nil {
		return r.w, fmt.Errorf("settings of workspace %s: %w", r.w.ID, err)
	}
	return r.w, nil
}

// CreateWorkspace adds a workspace, and the empty audit log that it begins
// with.
func (db *DB) CreateWorkspace(ctx context.Context, w access.Workspace) error {
	settings, err := json.Marshal(w.Settings)
	if err != nil {
		return fmt.Errorf("create workspace: %w", err)
	}
	return db.step(ctx, func(tx *DB) error {
		if _, err := tx.q.ExecContext(ctx, `INSERT INTO workspaces (id, name, plan, time_zone, settings, created)
			VALUES ($1, $2, $3, $4, $5, $6)`, w.ID, w.Name, string(w.Plan), w.TimeZone, string(settings), ms(w.CreatedAt)); err != nil {
			return fmt.Errorf("create workspace: %w", err)
		}
		if _, err := tx.q.ExecContext(ctx, `INSERT INTO audit_heads (workspace, seq, seal, mac) VALUES ($1, 0, '', $2)`, w.ID, tx.mac(w.ID, head{})); err != nil {
			return fmt.Errorf("create workspace: %w", err)
		}
		return nil
	})
}

// UpdateWorkspace stores the workspace's name, plan, time zone and settings.
func (db *DB) UpdateWorkspace(ctx context.Context, w access.Workspace) error {
	settings, err := json.Marshal(w.Settings)
	if err != nil {
		return fmt.Errorf("update workspace: %w", err)
	}
	return db.step(ctx, func(tx *DB) error {
		tx.notifyOnce(access.RightsTopic(w.ID))
		n, err := affected(tx.q.ExecContext(ctx, `UPDATE workspaces SET version = version + 1, name = $2, plan = $3, time_zone = $4, settings = $5 WHERE id = $1`,
			w.ID, w.Name, string(w.Plan), w.TimeZone, string(settings)))
		if err != nil {
			return fmt.Errorf("update workspace: %w", err)
		}
		if n == 0 {
			return noWorkspace(w.ID)
		}
		return nil
	})
}

func noWorkspace(id string) error {
	return problem.Errorf(problem.NotFound, "there is no workspace %q", id).WithFix("List them with: trustpager workspace list")
}

// Workspace returns one workspace. It fails with [problem.NotFound].
func (db *DB) Workspace(ctx context.Context, id string) (access.Workspace, error) {
	return db.workspace(ctx, id, "")
}

// LockWorkspace is Workspace that keeps others from changing it until the
// transaction ends.
func (db *DB) LockWorkspace(ctx context.Context, id string) (access.Workspace, error) {
	if db.tx != nil {
		db.tx.told = nil // what others have stored while this waited is looked at anew
	}
	return db.workspace(ctx, id, db.dialect.lockSolo)
}

func (db *DB) workspace(ctx context.Context, id, lock string) (access.Workspace, error) {
	var r workspaceRow
	err := db.q.QueryRowContext(ctx, `SELECT `+workspaceColumns+` FROM workspaces w WHERE w.id = $1`+lock, id).Scan(r.into()...)
	if errors.Is(err, sql.ErrNoRows) {
		return access.Workspace{}, noWorkspace(id)
	}
	if err != nil {
		return access.Workspace{}, fmt.Errorf("workspace: %w", err)
	}
	return r.value()
}

// Workspaces returns all workspaces, for the operator.
func (db *DB) Workspaces(ctx context.Context) ([]access.Workspace, error) {
	rows, err := db.q.QueryContext(ctx, `SELECT `+workspaceColumns+` FROM workspaces w ORDER BY w.id`)
	if err != nil {
		return nil, fmt.Errorf("workspaces: %w", err)
	}
	defer rows.Close()
	var all []access.Workspace
	for rows.Next() {
		var r workspaceRow
		if err := rows.Scan(r.into()...); err != nil {
			return nil, err
		}
		w, err := r.value()
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, rows.Err()
}

// CreateUser adds a person who can log in, with a hash of their password. It
// fails with [problem.Conflict] if the e-mail address is taken.
func (db *DB) CreateUser(ctx context.Context, u access.User, passwordHash string) error {
	return db.step(ctx, func(tx *DB) error {
		_, err := tx.q.ExecContext(ctx, `INSERT INTO users (id, email, name, password, created) VALUES ($1, $2, $3, $4, $5)`,
			u.ID, strings.ToLower(u.Email), u.Name, passwordHash, ms(u.CreatedAt))
		if tx.dialect.isUnique(err) {
			return problem.Errorf(problem.Conflict, "there is a user with the e-mail address %s already", u.Email).
				WithFix("Add that user to the workspace instead.")
		}
		if err != nil {
			return fmt.Errorf("create user: %w", err)
		}
		return nil
	})
}

// UserByEmail returns a person and the hash of their password. It fails with
// [problem.NotFound].
func (db *DB) UserByEmail(ctx context.Context, email string) (access.User, string, error) {
	u, hash, err := scanUser(db.q.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE email = $1`, strings.ToLower(email)))
	if errors.Is(err, sql.ErrNoRows) {
		return u, "", problem.Errorf(problem.NotFound, "there is no user with the e-mail address %q", email)
	}
	return u, hash, err
}

// UserByID returns a person and the hash of their password. It fails with
// [problem.NotFound].
func (db *DB) UserByID(ctx context.Context, id string) (u access.User, passwordHash string, err error) {
	u, passwordHash, err = scanUser(db.q.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return u, "", problem.Errorf(problem.NotFound, "there is no user %q", id)
	}
	return u, passwordHash, err
}

const userColumns = `id, email, name, password, created`

// scanUser scans userColumns.
func scanUser(row scanner) (u access.User, passwordHash string, err error) {
	var created int64
	err = row.Scan(&u.ID, &u.Email, &u.Name, &passwordHash, &created)
	u.CreatedAt = at(created)
	return u, passwordHash, err
}

// Memberships returns the workspaces that the user belongs to, ordered by name
// and id.
func (db *DB) Memberships(ctx context.Context, user string) ([]access.Membership, error) {
	rows, err := db.q.QueryContext(ctx, `SELECT `+workspaceColumns+`, m.role, m.notice FROM members m
		JOIN workspaces w ON w.id = m.workspace WHERE m.user_id = $1 ORDER BY w.name, w.id`, user)
	if err != nil {
		return nil, fmt.Errorf("memberships: %w", err)
	}
	defer rows.Close()
	found := []access.Membership{}
	for rows.Next() {
		var r workspaceRow
		var m access.Membership
		if err := rows.Scan(append(r.into(), &m.Role, &m.Notice)...); err != nil {
			return nil, err
		}
		if m.Workspace, err = r.value(); err != nil {
			return nil, err
		}
		found = append(found, m)
	}
	return found, rows.Err()
}

// SetPassword stores a new hash of the user's password, and ends the links for a
// new one.
func (db *DB) SetPassword(ctx context.Context, user, passwordHash string) error {
	return db.step(ctx, func(tx *DB) error {
		if _, err := tx.q.ExecContext(ctx, `UPDATE users SET password = $2 WHERE id = $1`, user, passwordHash); err != nil {
			return err
		}
		return tx.endResetLinks(ctx, user)
	})
}

// SetMember gives the user a role in the workspace. It fails with
// [problem.Conflict] if that would take away its last owner.
func (db *DB) SetMember(ctx context.Context, workspace, user string, role access.Role, now time.Time) error {
	return db.step(ctx, func(tx *DB) error {
		tx.notifyOnce(access.RightsTopic(workspace))
		if err := tx.lockOwners(ctx, workspace); err != nil {
			return fmt.Errorf("set member: %w", err)
		}
		n, err := affected(tx.q.ExecContext(ctx, `INSERT INTO members (workspace, user_id, role, created) VALUES ($1, $2, $3, $4)
			ON CONFLICT (workspace, user_id) DO UPDATE SET role = excluded.role
			WHERE members.role <> 'owner' OR excluded.role = 'owner' OR EXISTS (
				SELECT 1 FROM members m WHERE m.workspace = $1 AND m.role = 'owner' AND m.user_id <> $2)`, workspace, user, string(role), ms(now)))
		if err != nil {
			return fmt.Errorf("set member: %w", err)
		}
		if n == 0 {
			return problem.Errorf(problem.Conflict, "the user is the workspace's last owner").
				WithFix("Make somebody else an owner first.")
		}
		return nil
	})
}

// lockOwners makes those who change the owners of a workspace take their turns,
// so that two who go at once do not leave it without any.
func (db *DB) lockOwners(ctx context.Context, workspace string) error {
	var id string
	err := db.q.QueryRowContext(ctx, `SELECT id FROM workspaces WHERE id = $1`+db.dialect.lockSolo, workspace).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return noWorkspace(workspace)
	}
	return err
}

// RemoveMember ends the user's membership of the workspace, unless they are
// its last owner.
func (db *DB) RemoveMember(ctx context.Context, workspace, user string) error {
	return db.step(ctx, func(tx *DB) error {
		tx.notifyOnce(access.RightsTopic(workspace))
		if err := tx.lockOwners(ctx, workspace); err != nil {
			return fmt.Errorf("remove member: %w", err)
		}
		n, err := affected(tx.q.ExecContext(ctx, `DELETE FROM members WHERE workspace = $1 AND user_id = $2 AND (role <> 'owner' OR EXISTS (
			SELECT 1 FROM members m WHERE m.workspace = $1 AND m.role = 'owner' AND m.user_id <> $2))`, workspace, user))
		if err != nil {
			return fmt.Errorf("remove member: %w", err)
		}
		if n == 0 {
			return problem.Errorf(problem.Conflict, "the user is not a member of the workspace, or is its last owner").
				WithFix("Make somebody else an owner first.")
		}
		return nil
	})
}

// Users returns the members of the workspace, ordered by name and id.
func (db *DB) Users(ctx context.Context, workspace string) ([]access.User, error) {
	rows, err := db.q.QueryContext(ctx, `SELECT u.id, u.email, u.name, m.role, u.created, u.last_login FROM members m
		JOIN users u ON u.id = m.user_id WHERE m.workspace = $1 ORDER BY u.name, u.id`, workspace)
	if err != nil {
		return nil, fmt.Errorf("users: %w", err)
	}
	defer rows.Close()
	users := []access.User{}
	for rows.Next() {
		var u access.User
		var created, login int64
		if err := rows.Scan(&u.ID, &u.Email, &u.Name, &u.Role, &created, &login); err != nil {
			return nil, err
		}
		u.CreatedAt, u.LastLogin = at(created), at(login)
		users = append(users, u)
	}
	return users, rows.Err()
}

const keyColumns = `k.id, k.workspace, k.name, k.last4, k.full_access, k.may_decide, k.scopes, k.per_minute, k.per_day,
	k.maker, k.parent, k.created, k.expires, k.revoked, k.last_used, k.last_used_for,
	(SELECT COALESCE(MAX(old.expires), 0) FROM key_secrets old WHERE old.key_id = k.id)`

// keyRow scans keyColumns.
type keyRow struct {
	k                                access.Key
	scopes                           string
	maker                            []byte
	created, expires, revoked, lastU int64
	oldUntil                         int64
}

func (r *keyRow) into() []any {
	return []any{&r.k.ID, &r.k.Workspace, &r.k.Name, &r.k.Last4, &r.k.FullAccess, &r.k.MayDecide, &r.scopes,
		&r.k.Limits.PerMinute, &r.k.Limits.PerDay, &r.maker, &r.k.Parent, &r.created, &r.expires, &r.revoked, &r.lastU, &r.k.LastUsedFor, &r.oldUntil}
}

func (r *keyRow) value() (access.Key, error) {
	k := r.k
	k.CreatedAt, k.ExpiresAt, k.RevokedAt, k.LastUsedAt, k.OldSecretUntil = at(r.created), at(r.expires), at(r.revoked), at(r.lastU), at(r.oldUntil)
	var err error
	if k.Scopes, err = access.ParseScopes(r.scopes); err != nil {
		return k, fmt.Errorf("key %s: %w", k.ID, err)
	}
	if err := json.Unmarshal(r.maker, &k.CreatedBy); err != nil {
		return k, fmt.Errorf("key %s: %w", k.ID, err)
	}
	return k, nil
}

// KeyBySecret returns the key that has a secret of the given hash, with its
// workspace. It fails with [problem.NotFound]. The key's last use is as old as
// the key's last change.
func (db *DB) KeyBySecret(ctx context.Context, hash string) (access.Shown, error) {
	var superseded int64
	var v keyVersions
	err := db.q.QueryRowContext(ctx, `SELECT s.expires, k.version, w.version FROM key_secrets s
		JOIN keys k ON k.id = s.key_id AND k.workspace = s.workspace
		JOIN workspaces w ON w.id = s.workspace
		WHERE s.hash = $1`, hash).Scan(&superseded, &v.key, &v.workspace)
	if errors.Is(err, sql.ErrNoRows) {
		return access.Shown{}, problem.Errorf(problem.NotFound, "there is no such key")
	}
	if err != nil {
		return access.Shown{}, fmt.Errorf("look up key: %w", err)
	}
	shown, ok := db.keys.get(hash, v)
	if !ok {
		if shown, err = db.decodeKey(ctx, hash, &v); err != nil {
			return shown, err
		}
		if db.tx == nil { // what a transaction sees may be undone
			db.keys.put(hash, v, shown)
		}
	}
	shown.Superseded = at(superseded)
	return shown, nil
}

// decodeKey reads all of a key and its workspace, with their versions.
func (db *DB) decodeKey(ctx context.Context, hash string, v *keyVersions) (shown access.Shown, err error) {
	var k keyRow
	var w workspaceRow
	into := append(append(k.into(), w.into()...), &v.key, &v.workspace)
	err = db.q.QueryRowContext(ctx, `SELECT `+keyColumns+`, `+workspaceColumns+`, k.version, w.version FROM key_secrets s
		JOIN keys k ON k.id = s.key_id AND k.workspace = s.workspace
		JOIN workspaces w ON w.id = s.workspace
		WHERE s.hash = $1`, hash).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) { // deleted this moment
		return shown, problem.Errorf(problem.NotFound, "there is no such key")
	}
	if err != nil {
		return shown, fmt.Errorf("look up key: %w", err)
	}
	if shown.Key, err = k.value(); err != nil {
		return shown, err
	}
	shown.Workspace, err = w.value()
	return shown, err
}

// Key returns one key. It fails with [problem.NotFound].
func (db *DB) Key(ctx context.Context, workspace, id string, forUpdate bool) (access.Key, error) {
	query := `SELECT ` + keyColumns + ` FROM keys k WHERE k.workspace = $1 AND k.id = $2`
	if forUpdate {
		query += db.dialect.lockRow
	}
	var r keyRow
	err := db.q.QueryRowContext(ctx, query, workspace, id).Scan(r.into()...)
	if errors.Is(err, sql.ErrNoRows) {
		return access.Key{}, noKey(id)
	}
	if err != nil {
		return access.Key{}, fmt.Errorf("key: %w", err)
	}
	return r.value()
}

func noKey(id string) error {
	return problem.Errorf(problem.NotFound, "there is no key %q", id).WithFix("List the keys to find the right id.")
}

// RequesterGrant returns what the credential of an approval may do today. It
// fails with [problem.NotFound] if the credential is gone.
func (db *DB) RequesterGrant(ctx context.Context, workspace, credential string) (access.Grant, error) {
	k, err := db.Key(ctx, workspace, credential, false)
	if err != nil {
		return access.Grant{}, err
	}
	w, err := db.Workspace(ctx, workspace)
	if err != nil {
		return access.Grant{}, err
	}
	return k.Grant(w), nil
}

// Keys returns a page of the workspace's keys, newest first. after is the id
// of the last key seen, "" to begin.
func (db *DB) Keys(ctx context.Context, workspace, after string, limit int) ([]access.Key, error) {
	query, args := `SELECT `+keyColumns+` FROM keys k WHERE k.workspace = $1 ORDER BY k.id DESC LIMIT $2`, []any{workspace, limit}
	if after != "" {
		query, args = `SELECT `+keyColumns+` FROM keys k WHERE k.workspace = $1 AND k.id < $3 ORDER BY k.id DESC LIMIT $2`, append(args, after)
	}
	rows, err := db.q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	defer rows.Close()
	keys := []access.Key{}
	for rows.Next() {
		var r keyRow
		if err := rows.Scan(r.into()...); err != nil {
			return nil, err
		}
		k, err := r.value()
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, rows.Err()
}

// CreateKey adds a key with the hash of its secret.
func (db *DB) CreateKey(ctx context.Context, k access.Key, hash string) error {
	maker, err := json.Marshal(k.CreatedBy)
	if err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	return db.step(ctx, func(tx *DB) error {
		if _, err := tx.q.ExecContext(ctx, `INSERT INTO keys (id, workspace, name, last4, full_access, may_decide, scopes,
				per_minute, per_day, maker, parent, created, expires, revoked, last_used, last_used_for)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0, 0, '')`,
			k.ID, k.Workspace, k.Name, k.Last4, k.FullAccess, k.MayDecide, access.FormatScopes(k.Scopes),
			k.Limits.PerMinute, k.Limits.PerDay, string(maker), k.Parent, ms(k.CreatedAt), ms(k.ExpiresAt)); err != nil {
			return fmt.Errorf("create key: %w", err)
		}
		return tx.addSecret(ctx, k, hash, k.CreatedAt)
	})
}

func (db *DB) addSecret(ctx context.Context, k access.Key, hash string, now time.Time) error {
	if _, err := db.q.ExecContext(ctx, `INSERT INTO key_secrets (hash, workspace, key_id, created, expires) VALUES ($1, $2, $3, $4, 0)`,
		hash, k.Workspace, k.ID, ms(now)); err != nil {
		return fmt.Errorf("store secret: %w", err)
	}
	return nil
}

// UpdateKey stores what an admin can edit of a key: name, rights, limits,
// expiry, and whether it is revoked.
func (db *DB) UpdateKey(ctx context.Context, k access.Key) error {
	return db.step(ctx, func(tx *DB) error {
		tx.notifyOnce(access.RightsTopic(k.Workspace))
		if err := tx.forgetMeters(ctx, k.Workspace, k.ID, `SELECT id FROM keys WHERE workspace = $1 AND id = $2 AND per_minute = 0 AND per_day = 0`); err != nil {
			return err
		}
		n, err := affected(tx.q.ExecContext(ctx, `UPDATE keys SET version = version + 1, name = $3, full_access = $4, may_decide = $5, scopes = $6,
				per_minute = $7, per_day = $8, expires = $9, revoked = $10
			WHERE workspace = $1 AND id = $2`,
			k.Workspace, k.ID, k.Name, k.FullAccess, k.MayDecide, access.FormatScopes(k.Scopes),
			k.Limits.PerMinute, k.Limits.PerDay, ms(k.ExpiresAt), ms(k.RevokedAt)))
		if err != nil {
			return fmt.Errorf("update key: %w", err)
		}
		if n == 0 {
			return noKey(k.ID)
		}
		return nil
	})
}

// RotateKey gives the key another secret. The ones before work until the given
// time.
func (db *DB) RotateKey(ctx context.Context, k access.Key, hash string, until, now time.Time) error {
	return db.step(ctx, func(tx *DB) error {
		tx.notifyOnce(access.RightsTopic(k.Workspace))
		n, err := affected(tx.q.ExecContext(ctx, `UPDATE keys SET version = version + 1, last4 = $3 WHERE workspace = $1 AND id = $2`, k.Workspace, k.ID, k.Last4))
		if err != nil {
			return fmt.Errorf("rotate key: %w", err)
		}
		if n == 0 {
			return noKey(k.ID)
		}
		if _, err := tx.q.ExecContext(ctx, `UPDATE key_secrets SET expires = $3 WHERE workspace = $1 AND key_id = $2 AND (expires = 0 OR expires > $3)`,
			k.Workspace, k.ID, ms(until)); err != nil {
			return fmt.Errorf("rotate key: %w", err)
		}
		return tx.addSecret(ctx, k, hash, now)
	})
}

// EndOldSecrets ends the overlap of the key's rotations.
func (db *DB) EndOldSecrets(ctx context.Context, workspace, id string, now time.Time) error {
	return db.step(ctx, func(tx *DB) error {
		tx.notifyOnce(access.RightsTopic(workspace))
		n, err := affected(tx.q.ExecContext(ctx, `UPDATE keys SET version = version + 1 WHERE workspace = $1 AND id = $2`, workspace, id))
		if err != nil {
			return fmt.Errorf("end old secrets: %w", err)
		}
		if n == 0 {
			return noKey(id)
		}
		if _, err := tx.q.ExecContext(ctx, `UPDATE key_secrets SET expires = $3 WHERE workspace = $1 AND key_id = $2 AND expires > $3`, workspace, id, ms(now)); err != nil {
			return fmt.Errorf("end old secrets: %w", err)
		}
		return nil
	})
}

// ChildKeys returns the ids of the keys that the key has made, and those that
// they have made.
func (db *DB) ChildKeys(ctx context.Context, workspace, id string) ([]string, error) {
	ids, err := db.column(ctx, `WITH RECURSIVE children (id) AS (
			SELECT k.id FROM keys k WHERE k.workspace = $1 AND k.parent = $2 AND k.parent <> ''
			UNION
			SELECT k.id FROM keys k JOIN children c ON k.parent = c.id WHERE k.workspace = $1 AND k.parent <> ''
		) SELECT id FROM children ORDER BY id`, workspace, id)
	if err != nil {
		return nil, fmt.Errorf("keys made by %s: %w", id, err)
	}
	return ids, nil
}

// DeleteKey removes the key with its secrets and its usage history.
func (db *DB) DeleteKey(ctx context.Context, workspace, id string) error {
	return db.step(ctx, func(tx *DB) error {
		tx.notifyOnce(access.RightsTopic(workspace))
		for _, q := range []string{
			`DELETE FROM key_secrets WHERE workspace = $1 AND key_id = $2`,
			`DELETE FROM key_usage WHERE workspace = $1 AND credential = $2`,
			`DELETE FROM idempotency_keys WHERE workspace = $1 AND credential = $2`,
			`DELETE FROM tasks WHERE workspace = $1 AND credential = $2`,
		} {
			if _, err := tx.q.ExecContext(ctx, q, workspace, id); err != nil {
				return fmt.Errorf("delete key: %w", err)
			}
		}
		n, err := affected(tx.q.ExecContext(ctx, `DELETE FROM keys WHERE workspace = $1 AND id = $2`, workspace, id))
		if err != nil {
			return fmt.Errorf("delete key: %w", err)
		}
		if n == 0 {
			return noKey(id)
		}
		return nil
	})
}

// AddUsage adds the counts to what is stored, and notes the last uses with the
// keys and grants.
func (db *DB) AddUsage(ctx context.Context, counts []access.Count, last []access.LastUse) error {
	// In one order, so that two nodes do not wait for each other.
	counts, last = slices.Clone(counts), slices.Clone(last)
	slices.SortFunc(counts, func(a, b access.Count) int {
		return cmp.Or(strings.Compare(a.Credential, b.Credential), a.Hour.Compare(b.Hour),
			strings.Compare(a.Action, b.Action), strings.Compare(string(a.Outcome), string(b.Outcome)))
	})
	slices.SortFunc(last, func(a, b access.LastUse) int { return strings.Compare(a.Credential, b.Credential) })
	return db.step(ctx, func(tx *DB) error {
		counts := counts // a deadlock may run this twice
		const most = 100 // rows in one statement
		for len(counts) > 0 {
			n := min(len(counts), most)
			var b strings.Builder
			b.WriteString(`INSERT INTO key_usage (workspace, credential, hour, action, outcome, n) VALUES `)
			args := make([]any, 0, 6*n)
			for i, c := range counts[:n] {
				if i > 0 {
					b.WriteString(", ")
				}
				b.WriteString("(" + parameters(6*i+1, 6) + ")")
				args = append(args, c.Workspace, c.Credential, ms(c.Hour), c.Action, string(c.Outcome), c.N)
			}
			b.WriteString(` ON CONFLICT (workspace, credential, hour, action, outcome) DO UPDATE SET n = key_usage.n + excluded.n`)
			if _, err := tx.q.ExecContext(ctx, b.String(), args...); err != nil {
				return fmt.Errorf("add usage: %w", err)
			}
			counts = counts[n:]
		}
		for _, l := range last {
			note := `UPDATE keys SET last_used = $3, last_used_for = $4 WHERE workspace = $1 AND id = $2 AND last_used < $3`
			if strings.HasPrefix(l.Credential, "grt_") {
				note = `UPDATE oauth_grants SET last_used = $3, last_used_for = $4 WHERE workspace = $1 AND id = $2 AND last_used < $3`
			}
			if _, err := tx.q.ExecContext(ctx, note,
				l.Workspace, l.Credential, ms(l.At), l.Action); err != nil {
				return fmt.Errorf("note last use: %w", err)
			}
			tx.notifyOnce(access.CallsTopic(l.Workspace))
		}
		return nil
	})
}

// parameters returns n parameters of a statement, the first being $from.
func parameters(from, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("$" + strconv.Itoa(from+i))
	}
	return b.String()
}

// UsedSince returns how many requests of the credential were counted since the
// given hour. Refused ones do not count.
func (db *DB) UsedSince(ctx context.Context, workspace, credential string, since time.Time) (int64, error) {
	var n int64
	err := db.q.QueryRowContext(ctx, `SELECT COALESCE(SUM(n), 0) FROM key_usage
		WHERE workspace = $1 AND credential = $2 AND hour >= $3 AND outcome <> 'limited'`, workspace, credential, ms(since)).Scan(&n)
	return n, err
}

// DailyUsage returns the counts of the credentials by day, since the given
// day, oldest first.
func (db *DB) DailyUsage(ctx context.Context, workspace string, credentials []string, since time.Time) ([]access.DayCount, error) {
	if len(credentials) == 0 {
		return nil, nil
	}
	args := []any{workspace, ms(since)}
	for _, c := range credentials {
		args = append(args, c)
	}
	return db.days(ctx, `SELECT credential, hour / 86400000, SUM(n), SUM(CASE WHEN outcome IN ('ok', 'queued') THEN 0 ELSE n END)
		FROM key_usage WHERE workspace = $1 AND hour >= $2 AND credential IN (`+parameters(3, len(credentials))+`)
		GROUP BY credential, hour / 86400000 ORDER BY credential, hour / 86400000`, args...)
}

// days reads counts by day.
func (db *DB) days(ctx context.Context, query string, args ...any) ([]access.DayCount, error) {
	rows, err := db.q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("daily usage: %w", err)
	}
	defer rows.Close()
	var counts []access.DayCount
	for rows.Next() {
		var c access.DayCount
		var day int64
		if err := rows.Scan(&c.Credential, &day, &c.Calls, &c.Errors); err != nil {
			return nil, err
		}
		c.Day = at(day * 86400000)
		counts = append(counts, c)
	}
	return counts, rows.Err()
}

// WorkspaceUsage returns the counts of all credentials of the workspace
// together, by day, since the given day, oldest first.
func (db *DB) WorkspaceUsage(ctx context.Context, workspace string, since time.Time) ([]access.DayCount, error) {
	return db.days(ctx, `SELECT '', hour / 86400000, SUM(n), SUM(CASE WHEN outcome IN ('ok', 'queued') THEN 0 ELSE n END)
		FROM key_usage WHERE workspace = $1 AND hour >= $2
		GROUP BY hour / 86400000 ORDER BY hour / 86400000`, workspace, ms(since))
}

// LastUse returns the last use of a credential of the workspace, and the name
// that people know it by; of one that acts for the user only, unless user is "".
// It is zero if none was ever used.
func (db *DB) LastUse(ctx context.Context, workspace, user string) (access.LastUse, string, error) {
	query := `SELECT id, name, last_used, last_used_for FROM (
			SELECT id, name, last_used, last_used_for FROM keys WHERE workspace = $1
			UNION ALL
			SELECT g.id, c.name, g.last_used, g.last_used_for FROM oauth_grants g JOIN oauth_clients c ON c.id = g.client WHERE g.workspace = $1
		) used WHERE last_used > 0 ORDER BY last_used DESC LIMIT 1`
	args := []any{workspace}
	if user != "" {
		query = `SELECT g.id, c.name, g.last_used, g.last_used_for FROM oauth_grants g JOIN oauth_clients c ON c.id = g.client
			WHERE g.workspace = $1 AND g.user_id = $2 AND g.last_used > 0 ORDER BY g.last_used DESC LIMIT 1`
		args = append(args, user)
	}
	use, name, used := access.LastUse{Workspace: workspace}, "", int64(0)
	err := db.q.QueryRowContext(ctx, query, args...).Scan(&use.Credential, &name, &used, &use.Action)
	if errors.Is(err, sql.ErrNoRows) {
		return access.LastUse{}, "", nil
	}
	use.At = at(used)
	return use, name, err
}

// decided are the outcomes of calls that were decided about; see
// [access.PastCalls].
const decided = `outcome IN ('ok', 'queued', 'denied')`

// PastCalls returns the calls of the credential since the given hour, by action.
func (db *DB) PastCalls(ctx context.Context, workspace, credential string, since time.Time) ([]access.PastCalls, error) {
	return db.pastCalls(ctx, `SELECT '', '', 0, action, SUM(n) FROM key_usage
		WHERE workspace = $1 AND credential = $2 AND hour >= $3 AND `+decided+` GROUP BY action ORDER BY action`, workspace, credential, ms(since))
}

// PastCallsOfClient returns the calls of the client's grants that are in force,
// of the given number of those that were used last, since the given hour, by
// action and by what their users have granted and are.
func (db *DB) PastCallsOfClient(ctx context.Context, workspace, client string, since time.Time, most int) ([]access.PastCalls, error) {
	// CROSS JOIN has SQLite begin with the grants; otherwise it reads the usage of
	// the whole workspace.
	return db.pastCalls(ctx, `SELECT g.scopes, COALESCE(m.role, ''), CASE WHEN g.user_id = '' THEN 1 ELSE 0 END, u.action, SUM(u.n)
		FROM (SELECT k.credential, k.action, SUM(k.n) AS n
				FROM (SELECT workspace, id FROM oauth_grants
					WHERE workspace = $1 AND client = $2 AND revoked = 0 ORDER BY last_used DESC, id LIMIT $4) l
				CROSS JOIN key_usage k
				WHERE k.workspace = l.workspace AND k.credential = l.id AND k.hour >= $3 AND k.`+decided+`
				GROUP BY k.credential, k.action) u
			JOIN oauth_grants g ON g.id = u.credential
			LEFT JOIN members m ON m.workspace = g.workspace AND m.user_id = g.user_id
		GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4`, workspace, client, ms(since), most)
}

func (db *DB) pastCalls(ctx context.Context, query string, args ...any) ([]access.PastCalls, error) {
	rows, err := db.q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("past calls: %w", err)
	}
	defer rows.Close()
	var calls []access.PastCalls
	for rows.Next() {
		var c access.PastCalls
		var scopes string
		var itself int64
		if err := rows.Scan(&scopes, &c.Role, &itself, &c.Action, &c.N); err != nil {
			return nil, fmt.Errorf("past calls: %w", err)
		}
		if c.Scopes, err = access.ParseScopes(scopes); err != nil {
			return nil, fmt.Errorf("past calls: %w", err)
		}
		c.Itself = itself == 1
		calls = append(calls, c)
	}
	return calls, rows.Err()
}

// UsageHistory returns the credential's counts since the given hour, oldest
// first.
func (db *DB) UsageHistory(ctx context.Context, workspace, credential string, since time.Time) ([]access.Count, error) {
	rows, err := db.q.QueryContext(ctx, `SELECT hour, action, outcome, n FROM key_usage
		WHERE workspace = $1 AND credential = $2 AND hour >= $3 ORDER BY hour, action, outcome`, workspace, credential, ms(since))
	if err != nil {
		return nil, fmt.Errorf("usage: %w", err)
	}
	defer rows.Close()
	counts := []access.Count{}
	for rows.Next() {
		c := access.Count{Workspace: workspace, Credential: credential}
		var hour int64
		if err := rows.Scan(&hour, &c.Action, &c.Outcome, &c.N); err != nil {
			return nil, err
		}
		c.Hour = at(hour)
		counts = append(counts, c)
	}
	return counts, rows.Err()
}
