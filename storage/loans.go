package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/problem"
)

const loanColumns = `id, workspace, credential, client, name, resource, verb, approval, lender, created, expires, uses, remaining, ended, why`

func scanLoan(row scanner) (approvals.Loan, error) {
	var l approvals.Loan
	var lender []byte
	var created, expires, ended int64
	if err := row.Scan(&l.ID, &l.Workspace, &l.Credential, &l.Client, &l.Name, &l.Resource, &l.VerbName, &l.Approval, &lender,
		&created, &expires, &l.Uses, &l.Remaining, &ended, &l.Why); err != nil {
		return l, err
	}
	l.CreatedAt, l.ExpiresAt, l.EndedAt = at(created), at(expires), at(ended)
	if err := json.Unmarshal(lender, &l.By); err != nil {
		return l, fmt.Errorf("loan %s: %w", l.ID, err)
	}
	l.LentBy = approvals.Who{Kind: l.By.Kind, ID: l.By.ID, Name: l.By.Name, User: l.By.User, Client: l.By.Client}
	var err error
	if l.Verb, err = access.ParseVerb(l.VerbName); err != nil {
		return l, fmt.Errorf("loan %s: %w", l.ID, err)
	}
	return l, nil
}

// CreateLoan stores a loan.
func (db *DB) CreateLoan(ctx context.Context, l approvals.Loan) error {
	return db.step(ctx, func(tx *DB) error {
		if _, err := tx.q.ExecContext(ctx, `INSERT INTO loans (`+loanColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0, '')`,
			l.ID, l.Workspace, l.Credential, l.Client, l.Name, l.Resource, l.Verb.String(), l.Approval, encode(l.By),
			ms(l.CreatedAt), ms(l.ExpiresAt), l.Uses, l.Remaining); err != nil {
			return fmt.Errorf("store loan: %w", err)
		}
		tx.notifyOnce(approvals.Topic(l.Workspace))
		return nil
	})
}

// Loan returns one loan. It fails with [problem.NotFound].
func (db *DB) Loan(ctx context.Context, workspace, id string) (approvals.Loan, error) {
	l, err := scanLoan(db.q.QueryRowContext(ctx, `SELECT `+loanColumns+` FROM loans WHERE workspace = $1 AND id = $2`, workspace, id))
	if errors.Is(err, sql.ErrNoRows) {
		return l, problem.Errorf(problem.NotFound, "there is no loan %q", id).WithFix("List the loans to find the right id.")
	}
	return l, err
}

// UseLoan counts one use of a loan in force, the one that ends first; see
// [approvals.Store].
func (db *DB) UseLoan(ctx context.Context, workspace, credential, resource string, v access.Verb, now time.Time) (l approvals.Loan, used bool, err error) {
	err = db.step(ctx, func(tx *DB) error {
		const live = `workspace = $1 AND credential = $2 AND resource = $3 AND verb = $4 AND ended = 0 AND expires > $5 AND remaining > 0`
		l, err = scanLoan(tx.q.QueryRowContext(ctx, `UPDATE loans SET uses = uses + 1, remaining = remaining - 1
			WHERE id = (SELECT id FROM loans WHERE `+live+` ORDER BY expires, id LIMIT 1`+tx.dialect.lockRow+`) AND `+live+`
			RETURNING `+loanColumns, workspace, credential, resource, v.String(), ms(now)))
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		used = err == nil
		return err
	})
	return l, used, err
}

// ReturnLoan takes back one use of a loan; see [approvals.Store].
func (db *DB) ReturnLoan(ctx context.Context, workspace, id string) error {
	return db.one(ctx, func() error {
		return problem.Errorf(problem.NotFound, "there is no loan %q", id).WithFix("List the loans to find the right id.")
	}, `UPDATE loans SET uses = uses - 1, remaining = remaining + 1 WHERE workspace = $1 AND id = $2 AND uses > 0`, workspace, id)
}

// Loans returns loans, newest first.
func (db *DB) Loans(ctx context.Context, workspace string, q approvals.LoanQuery) ([]approvals.Loan, error) {
	query, args := `SELECT `+loanColumns+` FROM loans WHERE workspace = $1`, []any{workspace}
	add := func(cond string, v any) {
		args = append(args, v)
		query += cond + "$" + strconv.Itoa(len(args))
	}
	if q.Credential != "" {
		add(` AND credential = `, q.Credential)
	}
	if q.Resource != "" {
		add(` AND resource = `, q.Resource)
	}
	if q.Verb != "" {
		add(` AND verb = `, q.Verb)
	}
	if !q.InForceAt.IsZero() {
		query += ` AND ended = 0 AND remaining > 0`
		add(` AND expires > `, ms(q.InForceAt))
	}
	if q.Before != "" {
		add(` AND id < `, q.Before)
	}
	query += ` ORDER BY id DESC`
	add(` LIMIT `, q.Limit)
	return db.loans(ctx, query, args...)
}

func (db *DB) loans(ctx context.Context, query string, args ...any) ([]approvals.Loan, error) {
	rows, err := db.q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("loans: %w", err)
	}
	defer rows.Close()
	list := []approvals.Loan{}
	for rows.Next() {
		l, err := scanLoan(rows)
		if err != nil {
			return nil, fmt.Errorf("loans: %w", err)
		}
		list = append(list, l)
	}
	return list, rows.Err()
}

// EndLoans ends loans that are in force; see [approvals.Store].
func (db *DB) EndLoans(ctx context.Context, workspace, credential, id, why string, now time.Time) (ended []approvals.Loan, err error) {
	err = db.step(ctx, func(tx *DB) error {
		query := `UPDATE loans SET ended = $2, why = $3 WHERE workspace = $1 AND ended = 0 AND remaining > 0 AND expires > $2`
		args := []any{workspace, ms(now), why}
		if credential != "" {
			args = append(args, credential)
			query += ` AND (credential = $4 OR client = $4)`
		}
		if id != "" {
			args = append(args, id)
			query += ` AND id = $` + strconv.Itoa(len(args))
		}
		ended, err = tx.loans(ctx, query+` RETURNING `+loanColumns, args...)
		if len(ended) > 0 {
			tx.notifyOnce(approvals.Topic(workspace))
		}
		return err
	})
	return ended, err
}
