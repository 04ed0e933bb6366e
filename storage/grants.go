package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/oauth"
	"trustpager/problem"
)

const grantColumns = `g.id, g.workspace, g.client, c.name, g.user_id, COALESCE(u.email, ''), COALESCE(u.name, ''), g.scopes, g.client_digest,
	g.created, g.consented, g.last_used, g.last_used_for, g.expires, g.revoked`

// grantTables are those of grantColumns. With client credentials there is no
// user.
const grantTables = ` FROM oauth_grants g JOIN oauth_clients c ON c.id = g.client LEFT JOIN users u ON u.id = g.user_id `

func scanGrant(row scanner) (oauth.Grant, error) {
	var g oauth.Grant
	var scopes string
	var created, consented, used, expires, revoked int64
	if err := row.Scan(&g.ID, &g.Workspace, &g.Client, &g.ClientName, &g.User, &g.UserEmail, &g.UserName, &scopes, &g.ClientDigest,
		&created, &consented, &used, &g.LastUsedFor, &expires, &revoked); err != nil {
		return g, err
	}
	g.CreatedAt, g.ConsentedAt, g.LastUsedAt, g.ExpiresAt, g.RevokedAt = at(created), at(consented), at(used), at(expires), at(revoked)
	var err error
	if g.Scopes, err = access.ParseScopes(scopes); err != nil {
		return g, fmt.Errorf("grant %s: %w", g.ID, err)
	}
	return g, nil
}

// oneGrant returns the grant that a query finds, or the error of missing.
func (db *DB) oneGrant(ctx context.Context, missing func() error, query string, args ...any) (oauth.Grant, error) {
	g, err := scanGrant(db.q.QueryRowContext(ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return oauth.Grant{}, missing()
	}
	if err != nil {
		return oauth.Grant{}, fmt.Errorf("grant: %w", err)
	}
	return g, nil
}

func noGrant(id string) error {
	return problem.Errorf(problem.NotFound, "there is no grant %.100q", id).WithFix("List the grants to find the right id.")
}

// Grant returns one grant, with forUpdate locked until the transaction ends. It
// fails with [problem.NotFound].
func (db *DB) Grant(ctx context.Context, workspace, id string, forUpdate bool) (oauth.Grant, error) {
	query := `SELECT ` + grantColumns + grantTables + `WHERE g.workspace = $1 AND g.id = $2`
	if forUpdate {
		query += db.dialect.lockOnly("g")
	}
	return db.oneGrant(ctx, func() error { return noGrant(id) }, query, workspace, id)
}

// GrantOf implements [oauth.Store].
func (db *DB) GrantOf(ctx context.Context, workspace, client, user string) (oauth.Grant, error) {
	return db.oneGrant(ctx, func() error {
		return problem.Errorf(problem.NotFound, "the client %.100q has no grant of this user in the workspace", client)
	}, `SELECT `+grantColumns+grantTables+`WHERE g.workspace = $1 AND g.client = $2 AND g.user_id = $3`, workspace, client, user)
}

// Grants returns a page of the workspace's grants, newest first.
func (db *DB) Grants(ctx context.Context, workspace string, q oauth.GrantQuery) ([]oauth.Grant, error) {
	var b strings.Builder
	b.WriteString(`SELECT ` + grantColumns + grantTables + `WHERE g.workspace = $1`)
	args := []any{workspace}
	where := func(cond, v string) {
		if v != "" {
			args = append(args, v)
			fmt.Fprintf(&b, cond, len(args))
		}
	}
	where(" AND g.client = $%d", q.Client)
	where(" AND g.user_id = $%d", q.User)
	where(" AND g.id < $%d", q.Before)
	if q.InForce {
		b.WriteString(" AND g.revoked = 0")
	}
	args = append(args, q.Limit)
	fmt.Fprintf(&b, " ORDER BY g.id DESC LIMIT $%d", len(args))
	rows, err := db.q.QueryContext(ctx, b.String(), args...)
	if err != nil {
		return nil, fmt.Errorf("grants: %w", err)
	}
	defer rows.Close()
	found := []oauth.Grant{}
	for rows.Next() {
		g, err := scanGrant(rows)
		if err != nil {
			return nil, fmt.Errorf("grants: %w", err)
		}
		found = append(found, g)
	}
	return found, rows.Err()
}

// LockConsent implements [oauth.Store]. SQLite needs none of it.
func (db *DB) LockConsent(ctx context.Context, workspace, client, user string) error {
	lock := db.dialect.lockRow
	if lock == "" {
		return nil
	}
	// The client's lock also makes first consents take turns, which have no grant
	// to lock yet. Others may still add rows that refer to the client.
	if _, err := db.column(ctx, `SELECT id FROM oauth_clients WHERE id = $1`+db.dialect.lockSolo, client); err != nil {
		return fmt.Errorf("lock client: %w", err)
	}
	if _, err := db.column(ctx, `SELECT id FROM oauth_grants WHERE workspace = $1 AND client = $2 AND user_id = $3`+lock, workspace, client, user); err != nil {
		return fmt.Errorf("lock grant: %w", err)
	}
	return nil
}

// SaveGrant implements [oauth.Store]. It fails with [problem.NotFound] if there
// is no such client, or another workspace has registered it.
func (db *DB) SaveGrant(ctx context.Context, g oauth.Grant) (saved oauth.Grant, err error) {
	err = db.step(ctx, func(tx *DB) error {
		tx.notifyOnce(access.RightsTopic(g.Workspace))
		if err := tx.keepClient(ctx, g.Workspace, g.Client); err != nil {
			return err
		}
		if _, err := tx.q.ExecContext(ctx, `INSERT INTO oauth_grants (id, workspace, client, user_id, scopes, client_digest,
				created, consented, expires, revoked, last_used, last_used_for)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, '')
			ON CONFLICT (workspace, client, user_id) DO UPDATE SET version = oauth_grants.version + 1, scopes = excluded.scopes,
				client_digest = excluded.client_digest, consented = excluded.consented, revoked = 0,
				expires = CASE WHEN oauth_grants.revoked > 0 THEN excluded.expires ELSE oauth_grants.expires END`,
			g.ID, g.Workspace, g.Client, g.User, access.FormatScopes(g.Scopes), g.ClientDigest,
			ms(g.CreatedAt), ms(g.ConsentedAt), ms(g.ExpiresAt)); err != nil {
			return fmt.Errorf("save grant: %w", err)
		}
		saved, err = tx.GrantOf(ctx, g.Workspace, g.Client, g.User)
		return err
	})
	return saved, err
}

// SetGrantScopes stores what the user lets the client do. It fails with
// [problem.NotFound].
func (db *DB) SetGrantScopes(ctx context.Context, workspace, id string, scopes []access.Scope) error {
	return db.oneOfRights(ctx, func() error { return noGrant(id) }, `
		UPDATE oauth_grants SET version = version + 1, scopes = $3 WHERE workspace = $1 AND id = $2`,
		workspace, id, access.FormatScopes(scopes))
}

// RevokeGrant ends the grant with all its tokens and the codes that nobody has
// exchanged yet. Doing it twice is fine. It fails with [problem.NotFound].
func (db *DB) RevokeGrant(ctx context.Context, workspace, id string, now time.Time) error {
	return db.step(ctx, func(tx *DB) error {
		tx.notifyOnce(access.RightsTopic(workspace))
		n, err := affected(tx.q.ExecContext(ctx, `
			UPDATE oauth_grants SET version = version + 1, revoked = CASE WHEN revoked = 0 THEN $3 ELSE revoked END
			WHERE workspace = $1 AND id = $2`, workspace, id, ms(now)))
		if err != nil {
			return fmt.Errorf("revoke grant: %w", err)
		}
		if n == 0 {
			return noGrant(id)
		}
		if _, err := tx.q.ExecContext(ctx, `UPDATE oauth_families SET revoked = $3 WHERE workspace = $1 AND grant_id = $2 AND revoked = 0`,
			workspace, id, ms(now)); err != nil {
			return fmt.Errorf("revoke grant: %w", err)
		}
		if _, err := tx.q.ExecContext(ctx, `DELETE FROM oauth_codes WHERE workspace = $1 AND grant_id = $2 AND used = 0`, workspace, id); err != nil {
			return fmt.Errorf("revoke grant: %w", err)
		}
		return nil
	})
}

// useGrant fails with [problem.NotFound] unless the grant is in force, and keeps
// it so until the transaction ends: what is issued meanwhile would outlive it.
func (db *DB) useGrant(ctx context.Context, workspace, id string) error {
	var locked string
	err := db.q.QueryRowContext(ctx, `SELECT id FROM oauth_grants WHERE workspace = $1 AND id = $2 AND revoked = 0`+db.dialect.lockRow, workspace, id).Scan(&locked)
	if errors.Is(err, sql.ErrNoRows) {
		return noGrant(id)
	}
	if err != nil {
		return fmt.Errorf("lock grant: %w", err)
	}
	return nil
}

// delegationTables are what a delegation is made of; a key is there only for a
// client that acts for itself and was registered by one.
const delegationTables = ` FROM oauth_grants g
	JOIN oauth_clients c ON c.id = g.client
	JOIN oauth_policies p ON p.workspace = g.workspace AND p.client = g.client
	JOIN workspaces w ON w.id = g.workspace
	LEFT JOIN members m ON m.workspace = g.workspace AND m.user_id = g.user_id
	LEFT JOIN keys k ON k.id = c.parent AND k.workspace = g.workspace AND g.user_id = '' `

const delegationVersionColumns = `g.version, p.version, c.version, w.version`

func (v *delegationVersions) into() []any {
	return []any{&v.grant, &v.policy, &v.client, &v.workspace}
}

// standingColumns are what is read of a delegation with each request.
const standingColumns = `g.id, g.user_id, g.revoked, COALESCE(m.role, ''), c.parent, COALESCE(k.id, ''), COALESCE(k.revoked, 0), COALESCE(k.expires, 0), COALESCE(k.full_access, FALSE), ` +
	delegationVersionColumns

// standing scans standingColumns.
type standing struct {
	grant, user          string
	revoked              int64
	role                 access.Role
	parent, key          string // who registered the client, and whether that key is there
	keyRevoked, keyUntil int64
	keyFull              bool
	versions             delegationVersions
}

func (s *standing) into() []any {
	return append([]any{&s.grant, &s.user, &s.revoked, &s.role, &s.parent, &s.key, &s.keyRevoked, &s.keyUntil, &s.keyFull}, s.versions.into()...)
}

// orphaned returns since when a client that acts for itself is without the key
// that registered it, zero if it is not. Nobody knows when a key was deleted,
// or lost its full access, so that is now.
func (s *standing) orphaned(now time.Time) time.Time {
	switch {
	case s.user != "" || s.parent == "":
		return time.Time{}
	case s.key == "", !s.keyFull:
		return now
	case s.keyRevoked > 0:
		return at(s.keyRevoked)
	case s.keyUntil > 0 && s.keyUntil <= ms(now):
		return at(s.keyUntil)
	}
	return time.Time{}
}

// Delegation implements [oauth.Store]. The last use is as old as the last
// change.
func (db *DB) Delegation(ctx context.Context, workspace, family string) (d access.Delegation, alive bool, err error) {
	var s standing
	var ended int64
	err = db.q.QueryRowContext(ctx, `SELECT `+standingColumns+`, f.revoked`+delegationTables+`
		JOIN oauth_families f ON f.workspace = g.workspace AND f.grant_id = g.id
		WHERE f.workspace = $1 AND f.id = $2`, workspace, family).Scan(append(s.into(), &ended)...)
	if errors.Is(err, sql.ErrNoRows) {
		return d, false, noFamily(family)
	}
	if err != nil {
		return d, false, fmt.Errorf("look up delegation: %w", err)
	}
	d, err = db.delegation(ctx, workspace, &s)
	return d, err == nil && ended == 0 && s.orphaned(db.now()).IsZero(), err
}

// DelegationOf returns what holds now for a grant, as Delegation does for a
// family of it. It fails with [problem.NotFound].
func (db *DB) DelegationOf(ctx context.Context, workspace, grant string) (access.Delegation, error) {
	var s standing
	err := db.q.QueryRowContext(ctx, `SELECT `+standingColumns+delegationTables+`WHERE g.workspace = $1 AND g.id = $2`, workspace, grant).Scan(s.into()...)
	if errors.Is(err, sql.ErrNoRows) {
		return access.Delegation{}, noGrant(grant)
	}
	if err != nil {
		return access.Delegation{}, fmt.Errorf("look up delegation: %w", err)
	}
	return db.delegation(ctx, workspace, &s)
}

// delegation returns the delegation that stands so.
func (db *DB) delegation(ctx context.Context, workspace string, s *standing) (access.Delegation, error) {
	d, ok := db.delegations.get(s.grant, s.versions)
	if !ok {
		var err error
		if d, err = db.decodeDelegation(ctx, workspace, s.grant, &s.versions); err != nil {
			return d, err
		}
		if db.tx == nil { // what a transaction sees may be undone
			db.delegations.put(s.grant, s.versions, d)
		}
	}
	d.User.Role, d.RevokedAt = s.role, at(s.revoked)
	if d.RevokedAt.IsZero() {
		d.RevokedAt = s.orphaned(db.now())
	}
	return d, nil
}

// decodeDelegation reads all of a delegation but role and revocation, with its
// versions.
func (db *DB) decodeDelegation(ctx context.Context, workspace, grant string, v *delegationVersions) (d access.Delegation, err error) {
	var w workspaceRow
	var scopes, ceiling, parent string
	var maker []byte
	var used, joined int64
	into := append(append(w.into(), &d.ID, &d.Client, &d.ClientName, &d.User.ID, &d.User.Email, &d.User.Name, &joined,
		&scopes, &ceiling, &d.Limits.PerMinute, &d.Limits.PerDay, &parent, &maker, &used), v.into()...)
	err = db.q.QueryRowContext(ctx, `SELECT `+workspaceColumns+`, g.id, g.client, c.name, g.user_id, COALESCE(u.email, ''), COALESCE(u.name, ''), COALESCE(u.created, 0),
			g.scopes, p.ceiling, p.per_minute, p.per_day, c.parent, c.maker, g.last_used, `+delegationVersionColumns+delegationTables+`
		LEFT JOIN users u ON u.id = g.user_id
		WHERE g.workspace = $1 AND g.id = $2`, workspace, grant).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) { // deleted this moment
		return access.Delegation{}, noGrant(grant)
	}
	if err != nil {
		return d, fmt.Errorf("look up delegation: %w", err)
	}
	d.User.CreatedAt, d.LastUsedAt = at(joined), at(used)
	d.Parent = parent
	if len(maker) > 0 {
		var by access.Principal
		if err := json.Unmarshal(maker, &by); err != nil {
			return d, fmt.Errorf("maker of client %s: %w", d.Client, err)
		}
		d.Maker = by.User
	}
	if d.Scopes, err = access.ParseScopes(scopes); err != nil {
		return d, fmt.Errorf("grant %s: %w", grant, err)
	}
	if d.Ceiling, err = access.ParseScopes(ceiling); err != nil {
		return d, fmt.Errorf("policy of client %s: %w", d.Client, err)
	}
	d.Workspace, err = w.value()
	return d, err
}
