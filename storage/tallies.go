package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"trustpager/messages"
)

// AddTally counts n more for the period, unless that would make it more than
// most, and returns what is counted then. It reports whether it did: of
// concurrent calls no more succeed than there is room for.
func (db *DB) AddTally(ctx context.Context, workspace string, t messages.Tally, n, most int64, now time.Time) (total int64, added bool, err error) {
	err = db.step(ctx, func(tx *DB) error {
		if n <= most {
			err := tx.q.QueryRowContext(ctx, `INSERT INTO tallies (workspace, owner, what, period, n, updated) VALUES ($1, $2, $3, $4, $5, $6)
				ON CONFLICT (workspace, owner, what, period) DO UPDATE SET n = tallies.n + excluded.n, updated = excluded.updated
					WHERE tallies.n + excluded.n <= $7
				RETURNING n`, workspace, t.Owner, t.What, t.Period, n, ms(now), most).Scan(&total)
			if err == nil {
				added = true
				return nil
			}
			if !errors.Is(err, sql.ErrNoRows) {
				return fmt.Errorf("count %s: %w", t.What, err)
			}
		}
		total, err = tx.Tally(ctx, workspace, t)
		return err
	})
	return total, added, err
}

// Tally returns what is counted for the period.
func (db *DB) Tally(ctx context.Context, workspace string, t messages.Tally) (n int64, err error) {
	err = db.q.QueryRowContext(ctx, `SELECT n FROM tallies WHERE workspace = $1 AND owner = $2 AND what = $3 AND period = $4`,
		workspace, t.Owner, t.What, t.Period).Scan(&n)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("tally %s: %w", t.What, err)
	}
	return n, nil
}

// Tallies returns what is counted of a kind in the period, by owner.
func (db *DB) Tallies(ctx context.Context, workspace, what, period string) (map[string]int64, error) {
	rows, err := db.q.QueryContext(ctx, `SELECT owner, n FROM tallies WHERE workspace = $1 AND what = $2 AND period = $3`, workspace, what, period)
	if err != nil {
		return nil, fmt.Errorf("tallies of %s: %w", what, err)
	}
	defer rows.Close()
	all := map[string]int64{}
	for rows.Next() {
		var owner string
		var n int64
		if err := rows.Scan(&owner, &n); err != nil {
			return nil, fmt.Errorf("tallies of %s: %w", what, err)
		}
		all[owner] = n
	}
	return all, rows.Err()
}

// PurgeTallies forgets what was last counted before the given time. It returns
// how many rows, [PurgeBatch] at most.
func (db *DB) PurgeTallies(ctx context.Context, before time.Time) (int64, error) {
	return db.purge(ctx, `DELETE FROM tallies WHERE (workspace, owner, what, period) IN (
		SELECT workspace, owner, what, period FROM tallies WHERE updated < $1 ORDER BY updated LIMIT $2)`, before)
}

// Notify tells the watchers of the topic, on every node, after the commit.
func (db *DB) Notify(topic string) { db.notify(topic) }
