package storage

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"trustpager/problem"
)

// Session returns what is kept for the cookie whose token has the hash, and
// when it ends, which may have been. It fails with [problem.NotFound].
func (db *DB) Session(ctx context.Context, hash string) (data []byte, expires time.Time, err error) {
	var text string
	var end int64
	err = db.q.QueryRowContext(ctx, `SELECT data, expires FROM sessions WHERE hash = $1`, hash).Scan(&text, &end)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, time.Time{}, problem.Errorf(problem.NotFound, "there is no such session")
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("session: %w", err)
	}
	if data, err = base64.StdEncoding.DecodeString(text); err != nil {
		return nil, time.Time{}, fmt.Errorf("session: %w", err)
	}
	return data, at(end), nil
}

// CreateSession stores a new session.
func (db *DB) CreateSession(ctx context.Context, hash string, data []byte, expires time.Time) error {
	return db.step(ctx, func(tx *DB) error {
		if _, err := tx.q.ExecContext(ctx, `INSERT INTO sessions (hash, data, expires) VALUES ($1, $2, $3)`,
			hash, base64.StdEncoding.EncodeToString(data), ms(expires)); err != nil {
			return fmt.Errorf("create session: %w", err)
		}
		return nil
	})
}

// UpdateSession changes a session. One that is gone stays gone.
func (db *DB) UpdateSession(ctx context.Context, hash string, data []byte, expires time.Time) error {
	return db.step(ctx, func(tx *DB) error {
		if _, err := tx.q.ExecContext(ctx, `UPDATE sessions SET data = $2, expires = $3 WHERE hash = $1`,
			hash, base64.StdEncoding.EncodeToString(data), ms(expires)); err != nil {
			return fmt.Errorf("update session: %w", err)
		}
		return nil
	})
}

// DeleteSession ends a session. It is fine if there is none.
func (db *DB) DeleteSession(ctx context.Context, hash string) error {
	return db.one(ctx, nil, `DELETE FROM sessions WHERE hash = $1`, hash)
}

// PurgeSessions forgets the sessions that ended before the given time. It
// returns how many, [PurgeBatch] at most.
func (db *DB) PurgeSessions(ctx context.Context, before time.Time) (int64, error) {
	return db.purge(ctx, `DELETE FROM sessions WHERE expires < $1 AND hash IN (
		SELECT hash FROM sessions WHERE expires < $1 ORDER BY expires LIMIT $2)`, before)
}
