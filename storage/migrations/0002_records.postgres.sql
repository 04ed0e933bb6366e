-- +goose Up
CREATE TABLE records (
	n         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	workspace TEXT COLLATE "C" NOT NULL,
	resource  TEXT COLLATE "C" NOT NULL,
	id        TEXT COLLATE "C" NOT NULL,
	version   BIGINT NOT NULL,
	body      TEXT NOT NULL, -- JSON
	entries   TEXT NOT NULL, -- JSON: its rows of record_index
	created   BIGINT NOT NULL,
	updated   BIGINT NOT NULL
);
CREATE UNIQUE INDEX records_id ON records (workspace, resource, id);

CREATE TABLE record_index (
	workspace TEXT COLLATE "C" NOT NULL,
	resource  TEXT COLLATE "C" NOT NULL,
	field     TEXT COLLATE "C" NOT NULL,
	value     TEXT COLLATE "C" NOT NULL,
	id        TEXT COLLATE "C" NOT NULL,
	is_unique BOOLEAN NOT NULL,
	PRIMARY KEY (workspace, resource, field, value, id)
);
CREATE UNIQUE INDEX record_index_unique ON record_index (workspace, resource, field, value) WHERE is_unique;

CREATE TABLE record_search (
	n     BIGINT PRIMARY KEY,
	terms TSVECTOR NOT NULL
);
CREATE INDEX record_search_terms ON record_search USING GIN (terms);
