-- +goose Up
-- Links by which somebody who has forgotten their password gives a new one.
CREATE TABLE reset_links (
	hash    TEXT PRIMARY KEY, -- SHA-256 of the token, hex
	user_id TEXT NOT NULL REFERENCES users (id),
	stamp   TEXT NOT NULL, -- of the password that it was made for
	expires BIGINT NOT NULL
);
CREATE INDEX reset_links_user ON reset_links (user_id, expires);
CREATE INDEX reset_links_expires ON reset_links (expires);

-- What a member is told of approvals that wait for them.
ALTER TABLE members ADD COLUMN notice TEXT NOT NULL DEFAULT 'immediately';
ALTER TABLE members ADD COLUMN told TEXT NOT NULL DEFAULT ''; -- id of the last approval that they were told of
ALTER TABLE members ADD COLUMN told_at BIGINT NOT NULL DEFAULT 0; -- when they were sent the last message
ALTER TABLE members ADD COLUMN warned BIGINT NOT NULL DEFAULT 0; -- until which end they were warned of approvals
