-- +goose Up
CREATE TABLE loans (
	id         TEXT PRIMARY KEY,
	workspace  TEXT NOT NULL REFERENCES workspaces (id),
	credential TEXT NOT NULL, -- who has it
	client     TEXT NOT NULL, -- of an OAuth credential, otherwise ''
	name       TEXT NOT NULL, -- what people call the credential
	resource   TEXT NOT NULL,
	verb       TEXT NOT NULL,
	approval   TEXT NOT NULL, -- on whose card it was lent
	lender     TEXT NOT NULL, -- JSON: the principal
	created    BIGINT NOT NULL,
	expires    BIGINT NOT NULL,
	uses       BIGINT NOT NULL,
	remaining  BIGINT NOT NULL,
	ended      BIGINT NOT NULL, -- 0 while it is in force, or was until its time or its uses were over
	why        TEXT NOT NULL -- it has ended
);
CREATE INDEX loans_live ON loans (workspace, credential, resource, verb) WHERE ended = 0;
CREATE INDEX loans_list ON loans (workspace, id);
