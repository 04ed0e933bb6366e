-- +goose Up
-- The outside services that workspaces use.
CREATE TABLE integrations (
	id         TEXT PRIMARY KEY,
	workspace  TEXT NOT NULL REFERENCES workspaces (id),
	kind       TEXT NOT NULL,
	purpose    TEXT NOT NULL, -- the kind's
	name       TEXT NOT NULL,
	settings   TEXT NOT NULL, -- JSON
	sealed     TEXT NOT NULL, -- the secrets; '' if it has none
	active     BOOLEAN NOT NULL,
	is_default BOOLEAN NOT NULL, -- it is used where none is named
	state      TEXT NOT NULL, -- what the last check found; '': none was made
	state_text TEXT NOT NULL,
	checked    BIGINT NOT NULL, -- 0: never
	read_to    TEXT NOT NULL, -- JSON: where its mailbox was read to; '': it was not
	readable   BOOLEAN NOT NULL, -- its mailbox is to be read
	version    BIGINT NOT NULL, -- moves with every change but of state and read_to
	created    BIGINT NOT NULL,
	updated    BIGINT NOT NULL
);
CREATE INDEX integrations_list ON integrations (workspace, id);
CREATE UNIQUE INDEX integrations_default ON integrations (workspace, purpose) WHERE is_default;
CREATE INDEX integrations_readable ON integrations (id) WHERE readable;

-- The ends of the parts of an audit log that were sealed with earlier secret
-- keys, each with the key of its seals.
CREATE TABLE audit_epochs (
	workspace TEXT NOT NULL,
	seq       BIGINT NOT NULL, -- of the last entry of the part
	audit_key TEXT NOT NULL, -- sealed
	PRIMARY KEY (workspace, seq)
);
