package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"trustpager/access"
	"trustpager/problem"
)

// The limits of credentials are counted in PostgreSQL by all nodes together, and
// by its clock. With SQLite there is one server process, which counts in its
// memory (see [access.Limiter]).
//
// The statements are transactions of their own, on connections whose commits do
// not wait for the disk, and the table is unlogged. What a crash of the database
// loses is the minute, and of the day what was not in key_usage yet, which is
// about a second.

// Meters returns what counts the limits for all nodes, or nil if the database is
// for one process.
func (db *DB) Meters() access.Meters {
	if db.quick == nil {
		return nil
	}
	return meters{counted{db.quick, &db.statements}}
}

// openQuick prepares the connections whose commits do not wait for the disk. None
// but the meters may use them.
func (db *DB) openQuick(pool *sql.DB) {
	db.quick = pool
	pool.SetMaxOpenConns(maxQuick)
	pool.SetMaxIdleConns(maxQuick)
	pool.SetConnMaxIdleTime(5 * time.Minute)
}

const (
	maxQuick   = 8               // connections
	countingTo = 5 * time.Second // how long counting a request may take, with the wait for a connection
)

// meters implements [access.Meters].
type meters struct{ q queryer }

// clock is the database's time in nanoseconds since 1970, and the day.
const clock = `WITH clock AS (SELECT n.now, n.now / 86400000000000 AS day FROM (SELECT (EXTRACT(EPOCH FROM now()) * 1000000)::BIGINT * 1000 AS now) n) `

// Count implements [access.Meters]. It is one statement if the request is within
// the limits: the row decides, so concurrent ones take their turns.
func (m meters) Count(ctx context.Context, workspace, credential string, l access.Limits) (access.Reading, error) {
	// A caller that goes away does not break the connection.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countingTo)
	defer cancel()
	gap, burst := l.GCRA()
	// A new row takes two tries; a third one is for a row that is purged or a
	// limit that is whole again just between two statements.
	for range 3 {
		r, err := m.read(ctx, clock+`UPDATE meters m SET tat = GREATEST(m.tat, clock.now) + $3, day = GREATEST(m.day, clock.day),
				used = CASE WHEN m.day < clock.day THEN 0 ELSE m.used END + 1
			FROM clock WHERE m.workspace = $1 AND m.credential = $2
				AND (CAST($3 AS BIGINT) = 0 OR GREATEST(m.tat, clock.now) + $3 <= clock.now + $4) AND (CAST($5 AS BIGINT) = 0 OR m.day < clock.day OR m.used < $5)
			RETURNING m.tat, m.day, m.used, clock.now`, workspace, credential, int64(gap), int64(burst), l.PerDay)
		if err == nil {
			r.Within = true
			return r, nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return r, uncountable(err)
		}
		// It is over a limit, or there is no row. If the clock was set back, nobody
		// waits for it to come round again.
		r, err = m.read(ctx, clock+`UPDATE meters m SET tat = LEAST(m.tat, clock.now + 60000000000), day = LEAST(m.day, clock.day + 1)
			FROM clock WHERE m.workspace = $1 AND m.credential = $2
			RETURNING m.tat, m.day, CASE WHEN m.day < clock.day THEN 0 ELSE m.used END, clock.now`, workspace, credential)
		if err == nil && !r.Fits(l) {
			return r, nil
		}
		if errors.Is(err, sql.ErrNoRows) {
			err = m.begin(ctx, workspace, credential)
		}
		if err != nil {
			return r, uncountable(err)
		}
	}
	return access.Reading{}, uncountable(errors.New("the row comes and goes"))
}

// read runs a statement that returns a credential's tat, day and used, and now.
func (m meters) read(ctx context.Context, query string, args ...any) (r access.Reading, err error) {
	var tat, day, now int64
	if err := m.q.QueryRowContext(ctx, query, args...).Scan(&tat, &day, &r.Used, &now); err != nil {
		return r, err
	}
	const aDay = int64(24 * time.Hour)
	r.Ahead, r.Rest = time.Duration(max(0, tat-now)), time.Duration((max(day, now/aDay)+1)*aDay-now)
	return r, nil
}

// begin makes the row of a credential with what it has used today.
func (m meters) begin(ctx context.Context, workspace, credential string) error {
	_, err := m.q.ExecContext(ctx, clock+`INSERT INTO meters (workspace, credential, tat, day, used)
		SELECT $1, $2, 0, clock.day, (SELECT COALESCE(SUM(n), 0) FROM key_usage
			WHERE workspace = $1 AND credential = $2 AND hour >= clock.day * 86400000 AND outcome <> 'limited')
		FROM clock ON CONFLICT (workspace, credential) DO NOTHING`, workspace, credential)
	return err
}

// uncountable is the error of a request of which nobody can tell whether it is
// within the limits. It does not pass.
func uncountable(err error) error {
	return fmt.Errorf("count a request: %w: %w", err, problem.Errorf(problem.Unavailable, "the database cannot count this request against the limits now; nothing was done").
		WithFix("Send the request again in a few seconds."))
}

// forgetMeters forgets what credentials without limits had used when they had
// some: it is not counted on meanwhile, and taken from key_usage when they have
// limits again. The query, of a workspace and $2, tells which.
func (db *DB) forgetMeters(ctx context.Context, workspace, of, unlimited string) error {
	if db.quick == nil {
		return nil
	}
	_, err := db.q.ExecContext(ctx, `DELETE FROM meters WHERE workspace = $1 AND credential IN (`+unlimited+`)`, workspace, of)
	if err != nil {
		return fmt.Errorf("forget meters: %w", err)
	}
	return nil
}

// PurgeMeters forgets what credentials have used that have not been used today or
// yesterday, by the database's clock: it limits them no more. It returns how many
// rows, [PurgeBatch] at most.
func (db *DB) PurgeMeters(ctx context.Context) (n int64, err error) {
	if db.quick == nil {
		return 0, nil
	}
	err = db.step(ctx, func(tx *DB) error {
		n, err = affected(tx.q.ExecContext(ctx, clock+`DELETE FROM meters m USING clock WHERE m.day < clock.day - 1
			AND (m.workspace, m.credential) IN (SELECT workspace, credential FROM meters WHERE day < (SELECT day FROM clock) - 1 LIMIT $1)`, PurgeBatch))
		if err != nil {
			return fmt.Errorf("purge: %w", err)
		}
		return nil
	})
	return n, err
}
