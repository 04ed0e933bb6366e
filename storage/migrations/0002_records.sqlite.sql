-- +goose Up
CREATE TABLE records (
	n         INTEGER PRIMARY KEY,
	workspace TEXT NOT NULL,
	resource  TEXT NOT NULL,
	id        TEXT NOT NULL,
	version   BIGINT NOT NULL,
	body      TEXT NOT NULL, -- JSON
	entries   TEXT NOT NULL, -- JSON: its rows of record_index
	created   BIGINT NOT NULL,
	updated   BIGINT NOT NULL
);
CREATE UNIQUE INDEX records_id ON records (workspace, resource, id);

CREATE TABLE record_index (
	workspace TEXT NOT NULL,
	resource  TEXT NOT NULL,
	field     TEXT NOT NULL,
	value     TEXT NOT NULL,
	id        TEXT NOT NULL,
	is_unique BOOLEAN NOT NULL,
	PRIMARY KEY (workspace, resource, field, value, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX record_index_unique ON record_index (workspace, resource, field, value) WHERE is_unique;

CREATE VIRTUAL TABLE record_search USING fts5 (terms, content = '', contentless_delete = 1, tokenize = 'ascii');
