-- +goose Up
CREATE TABLE workspaces (
	id        TEXT PRIMARY KEY,
	name      TEXT NOT NULL,
	plan      TEXT NOT NULL,
	time_zone TEXT NOT NULL,
	settings  TEXT NOT NULL, -- JSON
	created   BIGINT NOT NULL,
	version   BIGINT NOT NULL DEFAULT 1 -- moves with every change
);

CREATE TABLE users (
	id       TEXT PRIMARY KEY,
	email    TEXT NOT NULL UNIQUE, -- lower case
	name     TEXT NOT NULL,
	password TEXT NOT NULL, -- argon2id, '' if none
	created  BIGINT NOT NULL
);

CREATE TABLE members (
	workspace TEXT NOT NULL REFERENCES workspaces (id),
	user_id   TEXT NOT NULL REFERENCES users (id),
	role      TEXT NOT NULL,
	created   BIGINT NOT NULL,
	PRIMARY KEY (workspace, user_id)
);

CREATE TABLE keys (
	id            TEXT PRIMARY KEY,
	workspace     TEXT NOT NULL REFERENCES workspaces (id),
	name          TEXT NOT NULL,
	last4         TEXT NOT NULL,
	full_access   BOOLEAN NOT NULL,
	may_decide    BOOLEAN NOT NULL,
	scopes        TEXT NOT NULL,
	per_minute    BIGINT NOT NULL,
	per_day       BIGINT NOT NULL,
	maker         TEXT NOT NULL, -- JSON: the principal that made it
	parent        TEXT NOT NULL, -- the key that made it, '' if none
	created       BIGINT NOT NULL,
	expires       BIGINT NOT NULL, -- 0: never
	revoked       BIGINT NOT NULL, -- 0: it is active
	last_used     BIGINT NOT NULL,
	last_used_for TEXT NOT NULL,
	version       BIGINT NOT NULL DEFAULT 1 -- moves with every change but last_used
);
CREATE INDEX keys_workspace ON keys (workspace, id);
CREATE INDEX keys_parent ON keys (parent) WHERE parent <> '';

CREATE TABLE key_secrets (
	hash      TEXT PRIMARY KEY, -- SHA-256, hex
	workspace TEXT NOT NULL,
	key_id    TEXT NOT NULL REFERENCES keys (id),
	created   BIGINT NOT NULL,
	expires   BIGINT NOT NULL -- 0: with the key; otherwise the end of a rotation's overlap
);
CREATE INDEX key_secrets_key ON key_secrets (key_id);

CREATE TABLE key_usage (
	workspace  TEXT NOT NULL,
	credential TEXT NOT NULL,
	hour       BIGINT NOT NULL, -- its first millisecond
	action     TEXT NOT NULL,
	outcome    TEXT NOT NULL,
	n          BIGINT NOT NULL,
	PRIMARY KEY (workspace, credential, hour, action, outcome)
);

CREATE TABLE idempotency_keys (
	workspace   TEXT NOT NULL,
	credential  TEXT NOT NULL,
	idem_key    TEXT NOT NULL,
	fingerprint TEXT NOT NULL, -- SHA-256 over method, path and body, hex
	response    TEXT NOT NULL, -- JSON, '' if it held a secret or something was queued
	approval    TEXT NOT NULL, -- '' if nothing was queued
	created     BIGINT NOT NULL,
	PRIMARY KEY (workspace, credential, idem_key)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created);
