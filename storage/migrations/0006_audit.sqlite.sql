-- +goose Up
CREATE TABLE audit_entries (
	workspace TEXT NOT NULL,
	seq       BIGINT NOT NULL,
	at        BIGINT NOT NULL,
	actor     TEXT NOT NULL,
	event     TEXT NOT NULL,
	target    TEXT NOT NULL,
	stored    TEXT NOT NULL, -- JSON: the whole entry, as it was sealed
	seal      TEXT NOT NULL,
	PRIMARY KEY (workspace, seq)
) WITHOUT ROWID;

CREATE TABLE audit_heads (
	workspace TEXT PRIMARY KEY,
	seq       BIGINT NOT NULL,
	seal      TEXT NOT NULL
);

-- +goose StatementBegin
CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries
BEGIN
	SELECT RAISE (ABORT, 'the audit log is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries
BEGIN
	SELECT RAISE (ABORT, 'the audit log is append-only');
END;
-- +goose StatementEnd
