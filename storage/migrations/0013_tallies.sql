-- +goose Up
-- What is counted against a bound: messages of a credential and day, the cost of
-- models of an account and month.
CREATE TABLE tallies (
	workspace TEXT NOT NULL,
	owner     TEXT NOT NULL,
	what      TEXT NOT NULL,
	period    TEXT NOT NULL, -- as in 2026-01-31 or 2026-01
	n         BIGINT NOT NULL,
	updated   BIGINT NOT NULL,
	PRIMARY KEY (workspace, owner, what, period)
);
CREATE INDEX tallies_updated ON tallies (updated);
