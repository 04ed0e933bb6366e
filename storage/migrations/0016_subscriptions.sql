-- +goose Up
-- What tells servers of the workspace's own of records and approvals. The URL, the
-- events and the secret are those of the endpoint whose owner it is.
CREATE TABLE subscriptions (
	id          TEXT PRIMARY KEY,
	workspace   TEXT NOT NULL REFERENCES workspaces (id),
	version     BIGINT NOT NULL,
	description TEXT NOT NULL,
	active      BOOLEAN NOT NULL,
	creator     TEXT NOT NULL, -- JSON: the principal whose rights hold
	taker       TEXT NOT NULL, -- the credential that may take the secret, which nobody was shown; '' if none
	created     BIGINT NOT NULL,
	updated     BIGINT NOT NULL
);
CREATE INDEX subscriptions_list ON subscriptions (workspace, id);
