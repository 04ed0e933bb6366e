-- +goose Up
CREATE TABLE approvals (
	id         TEXT PRIMARY KEY,
	workspace  TEXT NOT NULL,
	credential TEXT NOT NULL, -- whose request it is
	status     TEXT NOT NULL,
	execution  TEXT NOT NULL,
	action     TEXT NOT NULL,
	resource   TEXT NOT NULL,
	verb       TEXT NOT NULL,
	target     TEXT NOT NULL, -- '' if it has none
	target_ver BIGINT NOT NULL, -- when it was asked
	after_ver  BIGINT NOT NULL, -- after it was executed, 0 before
	title      TEXT NOT NULL,
	input      TEXT NOT NULL, -- JSON, canonical
	edited     TEXT NOT NULL, -- JSON, '' if the decider changed nothing
	reason     TEXT NOT NULL,
	digest     TEXT NOT NULL,
	dedupe     TEXT NOT NULL,
	asked      BIGINT NOT NULL,
	asker      TEXT NOT NULL, -- JSON: the principal, its parent, who may decide
	request    TEXT NOT NULL, -- JSON: door, method, path, tool
	body       TEXT NOT NULL, -- as it was sent; '' once purged
	decision   TEXT NOT NULL, -- JSON: who, and why; '' while pending
	result     TEXT NOT NULL, -- JSON, '' if none
	error      TEXT NOT NULL, -- JSON, '' if none
	created    BIGINT NOT NULL,
	expires    BIGINT NOT NULL,
	decided    BIGINT NOT NULL, -- 0 while pending
	executed   BIGINT NOT NULL -- 0 before
);
CREATE INDEX approvals_list ON approvals (workspace, status, id);
CREATE INDEX approvals_asked ON approvals (workspace, credential, dedupe, id);
CREATE INDEX approvals_open ON approvals (workspace, credential) WHERE status = 'pending';
CREATE INDEX approvals_failed ON approvals (workspace, id) WHERE execution = 'failed';
