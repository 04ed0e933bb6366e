-- +goose Up
CREATE TABLE jobs (
	id         TEXT PRIMARY KEY,
	workspace  TEXT NOT NULL, -- '': of the whole server
	kind       TEXT NOT NULL,
	job_key    TEXT NOT NULL, -- '': none
	payload    TEXT NOT NULL, -- JSON
	state      TEXT NOT NULL, -- ready, leased, dead; a done job has no row
	run_at     BIGINT NOT NULL, -- when it is due; while leased, when the lease ends
	attempts   BIGINT NOT NULL,
	last_error TEXT NOT NULL,
	token      TEXT NOT NULL, -- of the lease
	again_at   BIGINT NOT NULL, -- enqueued anew while it was leased: due then; 0: not
	created    BIGINT NOT NULL
);
CREATE INDEX jobs_due ON jobs (kind, run_at) WHERE state <> 'dead';
CREATE UNIQUE INDEX jobs_key ON jobs (workspace, kind, job_key) WHERE job_key <> '' AND state <> 'dead';
CREATE INDEX jobs_dead ON jobs (run_at) WHERE state = 'dead';

-- While it has its row, no job that reaches outside is run.
CREATE TABLE jobs_paused (
	one   BIGINT PRIMARY KEY CHECK (one = 1),
	since BIGINT NOT NULL
);
