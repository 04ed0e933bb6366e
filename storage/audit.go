package storage

import (
	"context"
	"crypto/hmac"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"trustpager/audit"
)

// head is the end of a workspace's chain.
type head struct {
	seq   int64
	seal  string
	moved bool
}

// mac authenticates the head, so that nobody without the key can set it back to
// an earlier entry and remove what follows.
func (db *DB) mac(workspace string, h head) string {
	return audit.Seal(db.auditKey, "head of "+workspace, []byte(strconv.FormatInt(h.seq, 10)+" "+h.seal))
}

// Audit records e in the same transaction as what it tells of. Its number and
// seal are given just before the commit.
func (db *DB) Audit(ctx context.Context, e audit.Entry) error {
	return db.step(ctx, func(tx *DB) error {
		tx.tx.entries = append(tx.tx.entries, e)
		return nil
	})
}

// chain writes the entries of the transaction, each sealed over the one before.
func (db *DB) chain(ctx context.Context) error {
	// Heads are locked in one order, so that no two transactions that tell of
	// several workspaces wait for each other.
	slices.SortStableFunc(db.tx.entries, func(a, b audit.Entry) int { return strings.Compare(a.Workspace, b.Workspace) })
	moved := map[string]head{}
	for _, e := range db.tx.entries {
		h, ok := moved[e.Workspace]
		if !ok {
			h, ok = db.tx.heads[e.Workspace]
		}
		if !ok {
			err := db.q.QueryRowContext(ctx, `SELECT seq, seal FROM audit_heads WHERE workspace = $1`+db.dialect.lockRow, e.Workspace).
				Scan(&h.seq, &h.seal)
			if err != nil {
				return fmt.Errorf("read the head of the audit log of %q: %w", e.Workspace, err)
			}
		}
		e.Seq = h.seq + 1
		stored, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode audit entry: %w", err)
		}
		h = head{e.Seq, audit.Seal(db.auditKey, h.seal, stored), true}
		if _, err := db.q.ExecContext(ctx, `
			INSERT INTO audit_entries (workspace, seq, at, actor, event, target, stored, seal)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			e.Workspace, e.Seq, ms(e.Time), e.Actor.ID, string(e.Event), e.Target, string(stored), h.seal); err != nil {
			return fmt.Errorf("write audit entry: %w", err)
		}
		moved[e.Workspace] = h
	}
	for w, h := range moved {
		db.tx.heads[w] = h
	}
	return nil
}

// saveHeads stores where the chains end. A group of transactions does it once.
func (db *DB) saveHeads(ctx context.Context, q queryer, heads map[string]head) error {
	for w, h := range heads {
		if !h.moved {
			continue
		}
		if _, err := q.ExecContext(ctx, `
			UPDATE audit_heads SET seq = $2, seal = $3, mac = $4 WHERE workspace = $1`, w, h.seq, h.seal, db.mac(w, h)); err != nil {
			return fmt.Errorf("write the head of the audit log: %w", err)
		}
	}
	return nil
}

// AuditEntries returns a page of the workspace's log, newest first.
func (db *DB) AuditEntries(ctx context.Context, workspace string, q audit.Query) ([]audit.Entry, error) {
	var b strings.Builder
	b.WriteString(`SELECT stored FROM audit_entries WHERE workspace = $1`)
	args := []any{workspace}
	where := func(cond string, v any) {
		args = append(args, v)
		fmt.Fprintf(&b, cond, len(args))
	}
	if q.Before > 0 {
		where(" AND seq < $%d", q.Before)
	}
	if q.Actor != "" {
		where(" AND actor = $%d", q.Actor)
	}
	if q.Event != "" {
		where(" AND event = $%d", string(q.Event))
	}
	if q.Target != "" {
		where(" AND target = $%d", q.Target)
	}
	if !q.Since.IsZero() {
		where(" AND at >= $%d", ms(q.Since))
	}
	if !q.Until.IsZero() {
		where(" AND at < $%d", ms(q.Until))
	}
	where(" ORDER BY seq DESC LIMIT $%d", q.Limit)
	rows, err := db.q.QueryContext(ctx, b.String(), args...)
	if err != nil {
		return nil, fmt.Errorf("list audit entries: %w", err)
	}
	defer rows.Close()
	entries := []audit.Entry{}
	for rows.Next() {
		var stored string
		if err := rows.Scan(&stored); err != nil {
			return nil, err
		}
		var e audit.Entry
		if err := json.Unmarshal([]byte(stored), &e); err != nil {
			return nil, fmt.Errorf("audit entry: %w", err)
		}
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

// VerifyAudit checks the workspace's whole chain and returns how many entries
// are sound. An error says which is the first that is not.
func (db *DB) VerifyAudit(ctx context.Context, workspace string) (int64, error) {
	var n int64
	// One snapshot, so that entries written meanwhile do not look like faults.
	tx, err := db.pool.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: db.dialect.snapshot})
	if err != nil {
		return 0, fmt.Errorf("verify audit log: %w", err)
	}
	defer tx.Rollback()
	var h head
	var mac string
	err = tx.QueryRowContext(ctx, `SELECT seq, seal, mac FROM audit_heads WHERE workspace = $1`, workspace).Scan(&h.seq, &h.seal, &mac)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("the audit log of %q has no head: it was removed, or there is no such workspace", workspace)
	}
	if err != nil {
		return 0, fmt.Errorf("verify audit log: %w", err)
	}
	epochs, err := db.epochs(ctx, tx, workspace)
	if err != nil {
		return 0, err
	}
	rows, err := tx.QueryContext(ctx, `SELECT seq, stored, seal FROM audit_entries WHERE workspace = $1 ORDER BY seq`, workspace)
	if err != nil {
		return 0, fmt.Errorf("verify audit log: %w", err)
	}
	defer rows.Close()
	v := audit.Verifier{}
	for rows.Next() {
		var r audit.Row
		if err := rows.Scan(&r.Seq, &r.Stored, &r.Seal); err != nil {
			return n, err
		}
		v.Key = db.auditKey
		for _, e := range slices.Backward(epochs) {
			if r.Seq <= e.seq {
				v.Key = e.key
			}
		}
		if err := v.Next(r); err != nil {
			return n, err
		}
		n++
	}
	if err := rows.Err(); err != nil {
		return n, err
	}
	if err := v.End(h.seq, h.seal); err != nil {
		return n, err
	}
	if !hmac.Equal([]byte(mac), []byte(db.mac(workspace, h))) {
		return n, fmt.Errorf("the log ends at entry %d, but its head was changed: entries may have been removed at the end, or the secret key is not the one it was sealed with", n)
	}
	return n, nil
}

// An epoch is a part of a log that was sealed with an earlier secret key. Nobody
// can change it with that key: the first entry after it is sealed over its last
// one, with a later key.
type epoch struct {
	seq int64 // of its last entry
	key []byte
}

// epochPlace is the context that the key of an epoch is sealed for.
func epochPlace(workspace string, seq string) string { return "audit epoch " + workspace + " " + seq }

// epochs returns those of the workspace's log, the earliest first.
func (db *DB) epochs(ctx context.Context, q queryer, workspace string) ([]epoch, error) {
	rows, err := q.QueryContext(ctx, `SELECT seq, audit_key FROM audit_epochs WHERE workspace = $1 ORDER BY seq`, workspace)
	if err != nil {
		return nil, fmt.Errorf("verify audit log: %w", err)
	}
	defer rows.Close()
	var all []epoch
	for rows.Next() {
		var e epoch
		var sealed string
		if err := rows.Scan(&e.seq, &sealed); err != nil {
			return nil, err
		}
		if e.key, err = db.key.Open(sealed, epochPlace(workspace, strconv.FormatInt(e.seq, 10))); err != nil {
			return nil, fmt.Errorf("the key of the audit log's entries up to %d was changed: %w", e.seq, err)
		}
		all = append(all, e)
	}
	return all, rows.Err()
}
