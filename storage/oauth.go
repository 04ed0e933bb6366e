package storage

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"trustpager/oauth"
	"trustpager/problem"
)

var _ oauth.Store = (*DB)(nil)

// CreateCode implements [oauth.Store]. It fails with [problem.NotFound] if the
// grant is not in force.
func (db *DB) CreateCode(ctx context.Context, c oauth.AuthorizationCode) error {
	return db.step(ctx, func(tx *DB) error {
		if err := tx.useGrant(ctx, c.Workspace, c.Grant); err != nil {
			return err
		}
		if _, err := tx.q.ExecContext(ctx, `INSERT INTO oauth_codes (hash, workspace, client, user_id, grant_id, redirect_uri, challenge,
				resource, scope, created, expires, used, family)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, '')`,
			c.Hash, c.Workspace, c.Client, c.User, c.Grant, c.RedirectURI, c.Challenge, c.Resource, c.Scope,
			ms(c.CreatedAt), ms(c.ExpiresAt)); err != nil {
			return fmt.Errorf("store code: %w", err)
		}
		return nil
	})
}

// Code implements [oauth.Store].
func (db *DB) Code(ctx context.Context, hash string) (oauth.AuthorizationCode, error) {
	var c oauth.AuthorizationCode
	var created, expires, used int64
	err := db.q.QueryRowContext(ctx, `SELECT hash, workspace, client, user_id, grant_id, redirect_uri, challenge, resource, scope,
			created, expires, used, family
		FROM oauth_codes WHERE hash = $1`, hash).
		Scan(&c.Hash, &c.Workspace, &c.Client, &c.User, &c.Grant, &c.RedirectURI, &c.Challenge, &c.Resource, &c.Scope,
			&created, &expires, &used, &c.Family)
	if errors.Is(err, sql.ErrNoRows) {
		return oauth.AuthorizationCode{}, problem.Errorf(problem.NotFound, "there is no such authorization code")
	}
	if err != nil {
		return oauth.AuthorizationCode{}, fmt.Errorf("code: %w", err)
	}
	c.CreatedAt, c.ExpiresAt, c.UsedAt = at(created), at(expires), at(used)
	return c, nil
}

// TakeCode implements [oauth.Store].
func (db *DB) TakeCode(ctx context.Context, hash, family string, now time.Time) error {
	return db.step(ctx, func(tx *DB) error {
		// The grant first, as whoever revokes it does: the code's redeemer goes on
		// to store a family.
		if lock := tx.dialect.lockRow; lock != "" {
			if _, err := tx.column(ctx, `SELECT id FROM oauth_grants WHERE id = (SELECT grant_id FROM oauth_codes WHERE hash = $1)`+lock, hash); err != nil {
				return fmt.Errorf("lock grant: %w", err)
			}
		}
		n, err := affected(tx.q.ExecContext(ctx, `UPDATE oauth_codes SET used = $3, family = $2 WHERE hash = $1 AND used = 0`, hash, family, ms(now)))
		if err != nil {
			return fmt.Errorf("take code: %w", err)
		}
		if n == 1 {
			return nil
		}
		if _, err := tx.Code(ctx, hash); err != nil {
			return err
		}
		return problem.Errorf(problem.Conflict, "the authorization code has been used")
	})
}

func noFamily(id string) error {
	return problem.Errorf(problem.NotFound, "there is no family of tokens %.100q", id)
}

// CreateFamily implements [oauth.Store]. It fails with [problem.NotFound] if the
// grant is not in force.
func (db *DB) CreateFamily(ctx context.Context, f oauth.Family) error {
	return db.step(ctx, func(tx *DB) error {
		if err := tx.useGrant(ctx, f.Workspace, f.Grant); err != nil {
			return err
		}
		if _, err := tx.q.ExecContext(ctx, `INSERT INTO oauth_families (id, workspace, grant_id, client, user_id, resource, scope, created, expires, revoked)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			f.ID, f.Workspace, f.Grant, f.Client, f.User, f.Resource, f.Scope, ms(f.CreatedAt), ms(f.ExpiresAt), ms(f.RevokedAt)); err != nil {
			return fmt.Errorf("store family: %w", err)
		}
		return nil
	})
}

const familyColumns = `f.id, f.workspace, f.grant_id, f.client, f.user_id, f.resource, f.scope, f.created, f.expires, f.revoked`

// familyRow scans familyColumns.
type familyRow struct {
	f                         oauth.Family
	created, expires, revoked int64
}

func (r *familyRow) into() []any {
	return []any{&r.f.ID, &r.f.Workspace, &r.f.Grant, &r.f.Client, &r.f.User, &r.f.Resource, &r.f.Scope, &r.created, &r.expires, &r.revoked}
}

func (r *familyRow) value() oauth.Family {
	f := r.f
	f.CreatedAt, f.ExpiresAt, f.RevokedAt = at(r.created), at(r.expires), at(r.revoked)
	return f
}

// Family implements [oauth.Store].
func (db *DB) Family(ctx context.Context, workspace, id string) (oauth.Family, error) {
	var r familyRow
	err := db.q.QueryRowContext(ctx, `SELECT `+familyColumns+` FROM oauth_families f WHERE f.workspace = $1 AND f.id = $2`, workspace, id).Scan(r.into()...)
	if errors.Is(err, sql.ErrNoRows) {
		return oauth.Family{}, noFamily(id)
	}
	if err != nil {
		return oauth.Family{}, fmt.Errorf("family: %w", err)
	}
	return r.value(), nil
}

// RevokeFamily implements [oauth.Store].
func (db *DB) RevokeFamily(ctx context.Context, workspace, id string, now time.Time) error {
	return db.oneOfRights(ctx, func() error { return noFamily(id) }, `
		UPDATE oauth_families SET revoked = CASE WHEN revoked = 0 THEN $3 ELSE revoked END WHERE workspace = $1 AND id = $2`,
		workspace, id, ms(now))
}

// CreateRefreshToken implements [oauth.Store]. It fails with
// [problem.NotFound] if the family is not in force.
func (db *DB) CreateRefreshToken(ctx context.Context, t oauth.RefreshToken) error {
	return db.step(ctx, func(tx *DB) error {
		if err := tx.prolong(ctx, t.Workspace, t.Family, t.ExpiresAt); err != nil {
			return err
		}
		if _, err := tx.q.ExecContext(ctx, `INSERT INTO oauth_refresh_tokens (hash, workspace, family, created, expires, spent)
			VALUES ($1, $2, $3, $4, $5, $6)`,
			t.Hash, t.Workspace, t.Family, ms(t.CreatedAt), ms(t.ExpiresAt), ms(t.SpentAt)); err != nil {
			return fmt.Errorf("store refresh token: %w", err)
		}
		return nil
	})
}

// prolong moves the expiry of a family that is in force, and of its grant, if
// that is earlier. Until the transaction ends both stay.
func (db *DB) prolong(ctx context.Context, workspace, family string, until time.Time) error {
	if _, err := db.q.ExecContext(ctx, `UPDATE oauth_grants SET expires = CASE WHEN expires < $3 THEN $3 ELSE expires END
		WHERE workspace = $1 AND id = (SELECT f.grant_id FROM oauth_families f WHERE f.workspace = $1 AND f.id = $2)`,
		workspace, family, ms(until)); err != nil {
		return fmt.Errorf("prolong grant: %w", err)
	}
	n, err := affected(db.q.ExecContext(ctx, `UPDATE oauth_families SET expires = CASE WHEN expires < $3 THEN $3 ELSE expires END
		WHERE workspace = $1 AND id = $2 AND revoked = 0`, workspace, family, ms(until)))
	if err != nil {
		return fmt.Errorf("prolong family: %w", err)
	}
	if n == 0 {
		return noFamily(family)
	}
	return nil
}

func noRefreshToken() error {
	return problem.Errorf(problem.NotFound, "there is no such refresh token")
}

// RefreshToken implements [oauth.Store]. The family's grant is locked too.
func (db *DB) RefreshToken(ctx context.Context, hash string) (oauth.RefreshToken, oauth.Family, error) {
	var t oauth.RefreshToken
	var f familyRow
	var created, expires, spent int64
	into := append([]any{&t.Hash, &t.Workspace, &t.Family, &created, &expires, &spent}, f.into()...)
	// PostgreSQL locks in the order of the tables: the grant first, as whoever
	// revokes it does.
	err := db.q.QueryRowContext(ctx, `SELECT t.hash, t.workspace, t.family, t.created, t.expires, t.spent, `+familyColumns+`
		FROM oauth_grants g
		JOIN oauth_families f ON f.workspace = g.workspace AND f.grant_id = g.id
		JOIN oauth_refresh_tokens t ON t.workspace = f.workspace AND t.family = f.id
		WHERE t.hash = $1`+db.dialect.lockRow, hash).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return oauth.RefreshToken{}, oauth.Family{}, noRefreshToken()
	}
	if err != nil {
		return oauth.RefreshToken{}, oauth.Family{}, fmt.Errorf("refresh token: %w", err)
	}
	t.CreatedAt, t.ExpiresAt, t.SpentAt = at(created), at(expires), at(spent)
	return t, f.value(), nil
}

// SpendRefreshToken implements [oauth.Store].
func (db *DB) SpendRefreshToken(ctx context.Context, hash string, now time.Time) error {
	return db.step(ctx, func(tx *DB) error {
		n, err := affected(tx.q.ExecContext(ctx, `UPDATE oauth_refresh_tokens SET spent = $2 WHERE hash = $1 AND spent = 0`, hash, ms(now)))
		if err != nil {
			return fmt.Errorf("spend refresh token: %w", err)
		}
		if n == 1 {
			return nil
		}
		var known int
		if err := tx.q.QueryRowContext(ctx, `SELECT COUNT(*) FROM oauth_refresh_tokens WHERE hash = $1`, hash).Scan(&known); err != nil {
			return fmt.Errorf("spend refresh token: %w", err)
		}
		if known == 0 {
			return noRefreshToken()
		}
		return problem.Errorf(problem.Conflict, "the refresh token has been used")
	})
}

// CountSibling implements [oauth.Store].
func (db *DB) CountSibling(ctx context.Context, hash string, most int) error {
	return db.one(ctx, func() error {
		return problem.Errorf(problem.Conflict, "the refresh token has %d siblings, or is not spent", most)
	}, `UPDATE oauth_refresh_tokens SET siblings = siblings + 1 WHERE hash = $1 AND spent > 0 AND siblings < $2`, hash, most)
}

// ProlongRefreshToken implements [oauth.Store]. It never moves an expiry back,
// and fails with [problem.NotFound] if the family is not in force.
func (db *DB) ProlongRefreshToken(ctx context.Context, hash string, until time.Time) error {
	return db.step(ctx, func(tx *DB) error {
		var workspace, family string
		err := tx.q.QueryRowContext(ctx, `SELECT workspace, family FROM oauth_refresh_tokens WHERE hash = $1`, hash).Scan(&workspace, &family)
		if errors.Is(err, sql.ErrNoRows) {
			return noRefreshToken()
		}
		if err != nil {
			return fmt.Errorf("prolong refresh token: %w", err)
		}
		if err := tx.prolong(ctx, workspace, family, until); err != nil {
			return err
		}
		if _, err := tx.q.ExecContext(ctx, `UPDATE oauth_refresh_tokens SET expires = $3 WHERE hash = $1 AND workspace = $2 AND expires < $3`,
			hash, workspace, ms(until)); err != nil {
			return fmt.Errorf("prolong refresh token: %w", err)
		}
		return nil
	})
}

// SigningKeys implements [oauth.Store].
func (db *DB) SigningKeys(ctx context.Context, now time.Time) ([]oauth.SigningKey, error) {
	rows, err := db.q.QueryContext(ctx, `SELECT id, private, public, created, active, retired FROM oauth_signing_keys
		WHERE retired = 0 OR retired > $1 ORDER BY active, created, id`, ms(now))
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	defer rows.Close()
	keys := []oauth.SigningKey{}
	for rows.Next() {
		var k oauth.SigningKey
		var public string
		var created, active, retired int64
		if err := rows.Scan(&k.ID, &k.Private, &public, &created, &active, &retired); err != nil {
			return nil, err
		}
		if k.Public, err = hex.DecodeString(public); err != nil {
			return nil, fmt.Errorf("signing key %s: %w", k.ID, err)
		}
		k.CreatedAt, k.ActiveAt, k.RetiredAt = at(created), at(active), at(retired)
		keys = append(keys, k)
	}
	return keys, rows.Err()
}

// AddSigningKey implements [oauth.Store].
func (db *DB) AddSigningKey(ctx context.Context, k oauth.SigningKey, after string, retire time.Time) (added bool, err error) {
	err = db.step(ctx, func(tx *DB) error {
		n, err := affected(tx.q.ExecContext(ctx, `INSERT INTO oauth_signing_keys (id, after, private, public, created, active, retired)
			VALUES ($1, $2, $3, $4, $5, $6, 0) ON CONFLICT (after) DO NOTHING`,
			k.ID, after, k.Private, hex.EncodeToString(k.Public), ms(k.CreatedAt), ms(k.ActiveAt)))
		if err != nil {
			return fmt.Errorf("store signing key: %w", err)
		}
		if added = n == 1; !added || after == "" {
			return nil
		}
		if n, err = affected(tx.q.ExecContext(ctx, `UPDATE oauth_signing_keys SET retired = $2 WHERE id = $1`, after, ms(retire))); err != nil {
			return fmt.Errorf("retire signing key: %w", err)
		}
		if n == 0 {
			return problem.Errorf(problem.NotFound, "there is no signing key %.100q", after)
		}
		return nil
	})
	return added && err == nil, err
}

// purgeTokens are the statements of PurgeTokens: what is older than $1, at most
// $2 rows. Each looks at the row's own expiry again when it has the row, which
// may have been prolonged meanwhile.
var purgeTokens = []string{
	`DELETE FROM oauth_codes WHERE expires < $1 AND hash IN (
		SELECT hash FROM oauth_codes WHERE expires < $1 ORDER BY expires LIMIT $2)`,
	`DELETE FROM oauth_refresh_tokens WHERE expires < $1 AND hash IN (
		SELECT hash FROM oauth_refresh_tokens WHERE expires < $1 ORDER BY expires LIMIT $2)`,
	// No token of a family outlives it, so its tokens went before.
	`DELETE FROM oauth_families WHERE expires < $1 AND id IN (
		SELECT f.id FROM oauth_families f WHERE f.expires < $1
			AND NOT EXISTS (SELECT 1 FROM oauth_refresh_tokens t WHERE t.family = f.id)
		ORDER BY f.expires LIMIT $2)`,
	`DELETE FROM oauth_signing_keys WHERE id IN (
		SELECT id FROM oauth_signing_keys WHERE retired > 0 AND retired < $1 ORDER BY retired LIMIT $2)`,
}

// PurgeTokens forgets authorization codes, refresh tokens and families of tokens
// that expired before the given time, revoked or not, in all workspaces, and
// signing keys that have not verified since. It returns how many rows,
// [PurgeBatch] at most.
func (db *DB) PurgeTokens(ctx context.Context, before time.Time) (n int64, err error) {
	err = db.step(ctx, func(tx *DB) error {
		n = 0 // a deadlock may run this twice
		for _, q := range purgeTokens {
			gone, err := affected(tx.q.ExecContext(ctx, q, ms(before), PurgeBatch-n))
			if err != nil {
				return fmt.Errorf("purge tokens: %w", err)
			}
			n += gone
		}
		return nil
	})
	return n, err
}
