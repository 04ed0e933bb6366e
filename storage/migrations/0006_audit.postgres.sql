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
);

CREATE TABLE audit_heads (
	workspace TEXT PRIMARY KEY,
	seq       BIGINT NOT NULL,
	seal      TEXT NOT NULL
);

-- +goose StatementBegin
CREATE FUNCTION audit_append_only () RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'the audit log is append-only';
END;
$$;
-- +goose StatementEnd

CREATE TRIGGER audit_entries_append_only BEFORE UPDATE OR DELETE ON audit_entries
FOR EACH ROW EXECUTE FUNCTION audit_append_only ();

CREATE TRIGGER audit_entries_no_truncate BEFORE TRUNCATE ON audit_entries
FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only ();
