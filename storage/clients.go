package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/oauth"
	"trustpager/problem"
)

const clientColumns = `c.id, c.workspace, c.origin, c.name, c.uri, c.redirect_uris, c.auth_method, c.grant_types, c.scope,
	c.secret, c.old_secret, c.old_until, c.doc_digest, c.doc_fetched, c.doc_fresh, c.doc_etag, c.maker, c.created`

// clientRow scans clientColumns.
type clientRow struct {
	c                                 oauth.Client
	uris, maker                       []byte
	grants                            string
	oldUntil, fetched, fresh, created int64
}

func (r *clientRow) into() []any {
	return []any{&r.c.ID, &r.c.Workspace, &r.c.Origin, &r.c.Name, &r.c.URI, &r.uris, &r.c.AuthMethod, &r.grants, &r.c.Scope,
		&r.c.SecretHash, &r.c.OldSecretHash, &r.oldUntil, &r.c.Document.Digest, &r.fetched, &r.fresh, &r.c.Document.ETag, &r.maker, &r.created}
}

func (r *clientRow) value() (oauth.Client, error) {
	c := r.c
	c.OldUntil, c.CreatedAt = at(r.oldUntil), at(r.created)
	c.Document.FetchedAt, c.Document.FreshTill = at(r.fetched), at(r.fresh)
	c.GrantTypes = strings.Fields(r.grants)
	if err := json.Unmarshal(r.uris, &c.RedirectURIs); err != nil {
		return c, fmt.Errorf("client %s: %w", c.ID, err)
	}
	if len(r.maker) > 0 {
		if err := json.Unmarshal(r.maker, &c.Maker); err != nil {
			return c, fmt.Errorf("client %s: %w", c.ID, err)
		}
	}
	return c, nil
}

const policyColumns = `p.workspace, p.client, p.ceiling, p.per_minute, p.per_day, p.created`

// policyRow scans policyColumns.
type policyRow struct {
	p       oauth.Policy
	ceiling string
	created int64
}

func (r *policyRow) into() []any {
	return []any{&r.p.Workspace, &r.p.Client, &r.ceiling, &r.p.Limits.PerMinute, &r.p.Limits.PerDay, &r.created}
}

func (r *policyRow) value() (oauth.Policy, error) {
	p := r.p
	p.CreatedAt = at(r.created)
	var err error
	if p.Ceiling, err = access.ParseScopes(r.ceiling); err != nil {
		return p, fmt.Errorf("policy of client %s: %w", p.Client, err)
	}
	return p, nil
}

func noClient(id string) error {
	return problem.Errorf(problem.NotFound, "there is no client %.100q", id).WithFix("List the clients to find the right id.")
}

// Client implements [oauth.Store].
func (db *DB) Client(ctx context.Context, id string) (oauth.Client, error) {
	var r clientRow
	err := db.q.QueryRowContext(ctx, `SELECT `+clientColumns+` FROM oauth_clients c WHERE c.id = $1`, id).Scan(r.into()...)
	if errors.Is(err, sql.ErrNoRows) {
		return oauth.Client{}, noClient(id)
	}
	if err != nil {
		return oauth.Client{}, fmt.Errorf("client: %w", err)
	}
	return r.value()
}

const insertClient = `INSERT INTO oauth_clients (id, workspace, origin, name, uri, redirect_uris, auth_method, grant_types, scope,
		secret, old_secret, old_until, doc_digest, doc_fetched, doc_fresh, doc_etag, maker, created, parent)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)`

// clientValues returns the parameters of insertClient.
func clientValues(c oauth.Client) []any {
	maker := ""
	if c.Maker != (access.Principal{}) {
		maker = encode(c.Maker)
	}
	return []any{c.ID, c.Workspace, string(c.Origin), c.Name, c.URI, encode(c.RedirectURIs), c.AuthMethod, strings.Join(c.GrantTypes, " "), c.Scope,
		c.SecretHash, c.OldSecretHash, ms(c.OldUntil), c.Document.Digest, ms(c.Document.FetchedAt), ms(c.Document.FreshTill), c.Document.ETag,
		maker, ms(c.CreatedAt), c.Parent()}
}

// CreateClient implements [oauth.Store]. It fails with [problem.Conflict] if the
// id is taken. For a client that registers itself it makes room.
func (db *DB) CreateClient(ctx context.Context, c oauth.Client) error {
	return db.step(ctx, func(tx *DB) error {
		_, err := tx.q.ExecContext(ctx, insertClient, clientValues(c)...)
		if tx.dialect.isUnique(err) {
			return problem.Errorf(problem.Conflict, "there is a client %.100q already", c.ID)
		}
		if err != nil {
			return fmt.Errorf("create client: %w", err)
		}
		if c.Workspace != "" {
			return nil
		}
		return tx.makeRoom(ctx, c.ID)
	})
}

// roomBatch is how many clients make room at a time: more than one, so that
// what was registered at the same moment on several nodes is caught up with.
const roomBatch = 16

// makeRoom removes the oldest clients that nobody has consented to, beyond
// [oauth.MaxUnconsented], except the new one. Those that somebody else removes
// or consents to this moment are passed over, so it waits for nobody.
func (db *DB) makeRoom(ctx context.Context, newest string) error {
	oldest, err := db.column(ctx, `SELECT id FROM oauth_clients WHERE workspace = '' AND NOT consented
		ORDER BY created DESC, id DESC LIMIT $1 OFFSET $2`, roomBatch, oauth.MaxUnconsented)
	if err != nil {
		return fmt.Errorf("make room for clients: %w", err)
	}
	_, err = db.deleteUnconsented(ctx, slices.DeleteFunc(oldest, func(id string) bool { return id == newest }))
	return err
}

// deleteUnconsented removes those of the clients that still nobody has consented
// to, and returns how many. They have neither policies nor grants. It passes
// over those whose rows are locked.
func (db *DB) deleteUnconsented(ctx context.Context, ids []string) (n int64, err error) {
	for _, id := range ids {
		gone, err := affected(db.q.ExecContext(ctx, `DELETE FROM oauth_clients WHERE id IN (
			SELECT id FROM oauth_clients WHERE id = $1 AND workspace = '' AND NOT consented`+db.dialect.lockSkip+`)`, id))
		if err != nil {
			return n, fmt.Errorf("delete client: %w", err)
		}
		n += gone
	}
	return n, nil
}

// PurgeUnconsented removes the clients that registered themselves, or whose
// document was last fetched, before the given time, and that nobody has ever
// consented to. It returns how many, [PurgeBatch] at most.
func (db *DB) PurgeUnconsented(ctx context.Context, before time.Time) (n int64, err error) {
	err = db.step(ctx, func(tx *DB) error {
		ids, err := tx.column(ctx, `SELECT id FROM oauth_clients WHERE workspace = '' AND NOT consented AND created < $1 AND doc_fetched < $1
			ORDER BY created, id LIMIT $2`, ms(before), PurgeBatch)
		if err != nil {
			return fmt.Errorf("purge clients without consent: %w", err)
		}
		n, err = tx.deleteUnconsented(ctx, ids)
		return err
	})
	return n, err
}

// SaveDocumentClient implements [oauth.Store]. A known client keeps the time
// when it was first seen. For a new one it makes room.
func (db *DB) SaveDocumentClient(ctx context.Context, c oauth.Client) error {
	return db.step(ctx, func(tx *DB) error {
		n, err := affected(tx.q.ExecContext(ctx, insertClient+`
			ON CONFLICT (id) DO UPDATE SET version = oauth_clients.version + 1, name = excluded.name, uri = excluded.uri,
				redirect_uris = excluded.redirect_uris, auth_method = excluded.auth_method, grant_types = excluded.grant_types,
				scope = excluded.scope, doc_digest = excluded.doc_digest, doc_fetched = excluded.doc_fetched,
				doc_fresh = excluded.doc_fresh, doc_etag = excluded.doc_etag
			WHERE oauth_clients.origin = 'metadata'`, clientValues(c)...))
		if err != nil {
			return fmt.Errorf("save client: %w", err)
		}
		if n == 0 {
			return problem.Errorf(problem.Conflict, "the client %.100q is not known by a metadata document", c.ID)
		}
		return tx.makeRoom(ctx, c.ID)
	})
}

// UpdateClient stores what can be edited of a client that the workspace has
// registered: name, redirect URIs, how it authenticates, its grant types and
// its secrets. It fails with [problem.NotFound].
func (db *DB) UpdateClient(ctx context.Context, c oauth.Client) error {
	return db.one(ctx, func() error { return noClient(c.ID) }, `
		UPDATE oauth_clients SET version = version + 1, name = $3, redirect_uris = $4, auth_method = $5, grant_types = $6,
			secret = $7, old_secret = $8, old_until = $9
		WHERE id = $1 AND workspace = $2`,
		c.ID, c.Workspace, c.Name, encode(c.RedirectURIs), c.AuthMethod, strings.Join(c.GrantTypes, " "),
		c.SecretHash, c.OldSecretHash, ms(c.OldUntil))
}

// ClientOf returns a client that has a policy in the workspace, with that
// policy; with forUpdate both are locked until the transaction ends. It fails
// with [problem.NotFound].
func (db *DB) ClientOf(ctx context.Context, workspace, id string, forUpdate bool) (oauth.Client, oauth.Policy, error) {
	query := `SELECT ` + clientColumns + `, ` + policyColumns + ` FROM oauth_clients c
		JOIN oauth_policies p ON p.client = c.id WHERE p.workspace = $1 AND p.client = $2`
	if forUpdate {
		query += db.dialect.lockRow
	}
	var c clientRow
	var p policyRow
	err := db.q.QueryRowContext(ctx, query, workspace, id).Scan(append(c.into(), p.into()...)...)
	if errors.Is(err, sql.ErrNoRows) {
		return oauth.Client{}, oauth.Policy{}, noClient(id)
	}
	if err != nil {
		return oauth.Client{}, oauth.Policy{}, fmt.Errorf("client: %w", err)
	}
	return bothOf(&c, &p)
}

func bothOf(c *clientRow, p *policyRow) (oauth.Client, oauth.Policy, error) {
	client, err := c.value()
	if err != nil {
		return client, oauth.Policy{}, err
	}
	policy, err := p.value()
	return client, policy, err
}

// Clients returns a page of the clients that have a policy in the workspace,
// the newest policy first. after is the id of the last client seen, "" to
// begin; it fails with [problem.NotFound] if that one is gone and nothing is
// known to follow.
func (db *DB) Clients(ctx context.Context, workspace, after string, limit int) ([]oauth.ClientInWorkspace, error) {
	query, args := clientList+clientOrder, []any{workspace, limit}
	if after != "" {
		query, args = clientList+` AND (p.created, p.client) <
			(SELECT a.created, a.client FROM oauth_policies a WHERE a.workspace = $1 AND a.client = $3)`+clientOrder, append(args, after)
	}
	found, err := db.scanClients(ctx, query, args)
	if err == nil && len(found) == 0 && after != "" {
		_, err = db.Policy(ctx, workspace, after) // a page that is empty for want of its beginning is no end
	}
	return found, err
}

const clientList = `SELECT ` + clientColumns + `, ` + policyColumns + `,
		(SELECT COUNT(*) FROM oauth_grants g WHERE g.workspace = p.workspace AND g.client = p.client AND g.revoked = 0),
		(SELECT COALESCE(MAX(g.last_used), 0) FROM oauth_grants g WHERE g.workspace = p.workspace AND g.client = p.client)
	FROM oauth_policies p JOIN oauth_clients c ON c.id = p.client WHERE p.workspace = $1`

const clientOrder = ` ORDER BY p.created DESC, p.client DESC LIMIT $2`

func (db *DB) scanClients(ctx context.Context, query string, args []any) ([]oauth.ClientInWorkspace, error) {
	rows, err := db.q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("clients: %w", err)
	}
	defer rows.Close()
	found := []oauth.ClientInWorkspace{}
	for rows.Next() {
		var c clientRow
		var p policyRow
		var in oauth.ClientInWorkspace
		var used int64
		if err := rows.Scan(append(append(c.into(), p.into()...), &in.Grants, &used)...); err != nil {
			return nil, err
		}
		if in.Client, in.Policy, err = bothOf(&c, &p); err != nil {
			return nil, err
		}
		in.LastUsedAt = at(used)
		found = append(found, in)
	}
	return found, rows.Err()
}

// keepClient fails with [problem.NotFound] unless the client is one that the
// workspace may know, notes that somebody consents to it, and keeps it from
// being removed until the transaction ends.
//
// Whoever changes a client's rows locks the client first, then its grants in
// the order of their ids, then families, then tokens and codes.
func (db *DB) keepClient(ctx context.Context, workspace, client string) error {
	// The stronger lock first: two that share the row could not both change it.
	if _, err := db.q.ExecContext(ctx, `UPDATE oauth_clients SET consented = TRUE WHERE id = $1 AND workspace = '' AND NOT consented`, client); err != nil {
		return fmt.Errorf("note consent: %w", err)
	}
	var id string
	err := db.q.QueryRowContext(ctx, `SELECT id FROM oauth_clients WHERE id = $1 AND workspace IN ('', $2)`+db.dialect.lockShared, client, workspace).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return noClient(client)
	}
	if err != nil {
		return fmt.Errorf("lock client: %w", err)
	}
	return nil
}

// EnsurePolicy implements [oauth.Store]. It fails with [problem.NotFound] if
// there is no such client, or another workspace has registered it.
func (db *DB) EnsurePolicy(ctx context.Context, p oauth.Policy) (holds oauth.Policy, err error) {
	err = db.step(ctx, func(tx *DB) error {
		if err := tx.keepClient(ctx, p.Workspace, p.Client); err != nil {
			return err
		}
		if _, err := tx.q.ExecContext(ctx, `INSERT INTO oauth_policies (workspace, client, ceiling, per_minute, per_day, created)
			VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (workspace, client) DO NOTHING`,
			p.Workspace, p.Client, access.FormatScopes(p.Ceiling), p.Limits.PerMinute, p.Limits.PerDay, ms(p.CreatedAt)); err != nil {
			return fmt.Errorf("ensure policy: %w", err)
		}
		holds, err = tx.Policy(ctx, p.Workspace, p.Client)
		return err
	})
	return holds, err
}

// Policy implements [oauth.Store].
func (db *DB) Policy(ctx context.Context, workspace, client string) (oauth.Policy, error) {
	var r policyRow
	err := db.q.QueryRowContext(ctx, `SELECT `+policyColumns+` FROM oauth_policies p WHERE p.workspace = $1 AND p.client = $2`, workspace, client).
		Scan(r.into()...)
	if errors.Is(err, sql.ErrNoRows) {
		return oauth.Policy{}, noClient(client)
	}
	if err != nil {
		return oauth.Policy{}, fmt.Errorf("policy: %w", err)
	}
	return r.value()
}

// UpdatePolicy stores the ceiling and the limits of a client in a workspace. It
// fails with [problem.NotFound].
func (db *DB) UpdatePolicy(ctx context.Context, p oauth.Policy) error {
	return db.step(ctx, func(tx *DB) error {
		tx.notifyOnce(access.RightsTopic(p.Workspace))
		if err := tx.forgetMeters(ctx, p.Workspace, p.Client, `SELECT g.id FROM oauth_grants g JOIN oauth_policies p ON p.workspace = g.workspace AND p.client = g.client
			WHERE g.workspace = $1 AND g.client = $2 AND p.per_minute = 0 AND p.per_day = 0`); err != nil {
			return err
		}
		return tx.one(ctx, func() error { return noClient(p.Client) }, `
			UPDATE oauth_policies SET version = version + 1, ceiling = $3, per_minute = $4, per_day = $5 WHERE workspace = $1 AND client = $2`,
			p.Workspace, p.Client, access.FormatScopes(p.Ceiling), p.Limits.PerMinute, p.Limits.PerDay)
	})
}

// RemoveClient removes what the workspace has of a client: its policy, its
// grants with their tokens and usage history, and the client itself if the
// workspace has registered it. It fails with [problem.NotFound].
func (db *DB) RemoveClient(ctx context.Context, workspace, client string) error {
	return db.step(ctx, func(tx *DB) error {
		tx.notifyOnce(access.RightsTopic(workspace))
		var owner string
		err := tx.q.QueryRowContext(ctx, `SELECT workspace FROM oauth_clients WHERE id = $1 AND workspace IN ('', $2)`+tx.dialect.lockRow, client, workspace).Scan(&owner)
		if errors.Is(err, sql.ErrNoRows) {
			return noClient(client)
		}
		if err != nil {
			return fmt.Errorf("remove client: %w", err)
		}
		n, err := tx.leave(ctx, workspace, client)
		if err != nil {
			return err
		}
		if owner == "" {
			if n == 0 {
				return noClient(client)
			}
			return nil
		}
		if _, err := tx.q.ExecContext(ctx, `DELETE FROM oauth_clients WHERE id = $1 AND workspace = $2`, client, workspace); err != nil {
			return fmt.Errorf("remove client: %w", err)
		}
		return nil
	})
}

// leave removes all that the workspace has of a client whose row is locked. It
// returns how many policies that were, 0 or 1.
func (db *DB) leave(ctx context.Context, workspace, client string) (policies int64, err error) {
	const grants = `(SELECT g.id FROM oauth_grants g WHERE g.workspace = $1 AND g.client = $2)`
	if err := db.lockGrants(ctx, workspace, client); err != nil {
		return 0, err
	}
	for _, q := range []string{
		`DELETE FROM oauth_refresh_tokens WHERE workspace = $1 AND family IN (
			SELECT f.id FROM oauth_families f WHERE f.workspace = $1 AND f.grant_id IN ` + grants + `)`,
		`DELETE FROM oauth_families WHERE workspace = $1 AND grant_id IN ` + grants,
		`DELETE FROM oauth_codes WHERE workspace = $1 AND grant_id IN ` + grants,
		`DELETE FROM key_usage WHERE workspace = $1 AND credential IN ` + grants,
		`DELETE FROM idempotency_keys WHERE workspace = $1 AND credential IN ` + grants,
		`DELETE FROM oauth_grants WHERE workspace = $1 AND client = $2`,
	} {
		if _, err := db.q.ExecContext(ctx, q, workspace, client); err != nil {
			return 0, fmt.Errorf("remove client: %w", err)
		}
	}
	if policies, err = affected(db.q.ExecContext(ctx, `DELETE FROM oauth_policies WHERE workspace = $1 AND client = $2`, workspace, client)); err != nil {
		return 0, fmt.Errorf("remove client: %w", err)
	}
	return policies, nil
}

// lockGrants locks the grants of the client in the workspace, in the order that
// everybody takes. SQLite needs none of it.
func (db *DB) lockGrants(ctx context.Context, workspace, client string) error {
	if db.dialect.lockRow == "" {
		return nil
	}
	if _, err := db.column(ctx, `SELECT id FROM oauth_grants WHERE workspace = $1 AND client = $2 ORDER BY id`+db.dialect.lockRow, workspace, client); err != nil {
		return fmt.Errorf("lock grants: %w", err)
	}
	return nil
}

// inUse is when a client c that registered itself stays: while a grant is in
// force whose consent, last use or last refresh token is not older than $1, and
// while the admins of a workspace have decided about the client, which would be
// forgotten with it.
const inUse = `(EXISTS (SELECT 1 FROM oauth_grants g WHERE g.client = c.id AND g.revoked = 0
		AND (g.expires >= $1 OR g.consented >= $1 OR g.last_used >= $1))
	OR EXISTS (SELECT 1 FROM oauth_policies p WHERE p.client = c.id AND p.version > 1))`

// PurgeClients removes the clients that registered themselves before the given
// time and are not in use since: no grant that is in force was used or could be
// refreshed, and no policy was edited. It returns how many, [PurgeBatch] at
// most.
func (db *DB) PurgeClients(ctx context.Context, before time.Time) (n int64, err error) {
	err = db.step(ctx, func(tx *DB) error {
		n = 0 // a deadlock may run this twice
		// Those that somebody consents to this moment are passed over.
		unused, err := tx.column(ctx, `SELECT c.id FROM oauth_clients c WHERE c.workspace = '' AND c.created < $1 AND NOT `+inUse+`
			ORDER BY c.created LIMIT $2`+tx.dialect.lockSkip, ms(before), PurgeBatch)
		if err != nil {
			return fmt.Errorf("purge clients: %w", err)
		}
		for _, id := range unused {
			gone, err := tx.purgeClient(ctx, id, before)
			if err != nil {
				return err
			}
			if gone {
				n++
			}
		}
		return nil
	})
	return n, err
}

// purgeClient removes a client whose row is locked, unless it is in use: a
// consent may have been stored between the look for such clients and the lock.
func (db *DB) purgeClient(ctx context.Context, id string, before time.Time) (gone bool, err error) {
	var used bool
	if err := db.q.QueryRowContext(ctx, `SELECT `+inUse+` FROM oauth_clients c WHERE c.id = $2`, ms(before), id).Scan(&used); err != nil || used {
		return false, err
	}
	workspaces, err := db.column(ctx, `SELECT workspace FROM oauth_policies WHERE client = $1
		UNION SELECT workspace FROM oauth_grants WHERE client = $1 ORDER BY workspace`, id)
	if err != nil {
		return false, fmt.Errorf("purge clients: %w", err)
	}
	for _, w := range workspaces {
		if _, err := db.leave(ctx, w, id); err != nil {
			return false, err
		}
	}
	if _, err := db.q.ExecContext(ctx, `DELETE FROM oauth_clients WHERE id = $1 AND workspace = ''`, id); err != nil {
		return false, fmt.Errorf("purge clients: %w", err)
	}
	return true, nil
}
