-- +goose Up
-- Who was invited to a workspace and has not come yet.
CREATE TABLE invitations (
	id        TEXT PRIMARY KEY, -- inv_…
	workspace TEXT NOT NULL REFERENCES workspaces (id),
	email     TEXT NOT NULL, -- lower case
	name      TEXT NOT NULL,
	role      TEXT NOT NULL,
	hash      TEXT NOT NULL UNIQUE, -- SHA-256 of the link's token, hex
	inviter   TEXT NOT NULL, -- JSON: the principal that invited them
	created   BIGINT NOT NULL,
	expires   BIGINT NOT NULL,
	UNIQUE (workspace, email)
);
CREATE INDEX invitations_expires ON invitations (expires);

ALTER TABLE users ADD COLUMN last_login BIGINT NOT NULL DEFAULT 0;
