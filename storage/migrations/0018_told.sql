-- +goose Up
-- Whether the credential that asked has been told how the approval ended.
ALTER TABLE approvals ADD COLUMN told BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE approvals SET told = TRUE WHERE status <> 'pending';
CREATE INDEX approvals_untold ON approvals (workspace, credential, id) WHERE NOT told;

-- What calls answered that MCP clients have made as tasks and that ran at once.
-- Calls that wait have their approval as their task.
CREATE TABLE tasks (
	id         TEXT PRIMARY KEY,
	workspace  TEXT NOT NULL REFERENCES workspaces (id),
	credential TEXT NOT NULL, -- whose call it was
	action     TEXT NOT NULL,
	answer     TEXT NOT NULL, -- JSON: the result of tools/call
	failed     BOOLEAN NOT NULL, -- the result is marked as an error
	created    BIGINT NOT NULL
);
CREATE INDEX tasks_list ON tasks (workspace, credential, id);
CREATE INDEX tasks_old ON tasks (created);
