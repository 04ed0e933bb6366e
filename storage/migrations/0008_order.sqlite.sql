-- +goose Up
CREATE INDEX records_updated ON records (workspace, resource, updated, id);
CREATE INDEX approvals_bodies ON approvals (decided) WHERE body <> '' AND decided > 0;

-- Over the workspace, seq and seal, so that the end of a log cannot be set back.
ALTER TABLE audit_heads ADD COLUMN mac TEXT NOT NULL DEFAULT '';

-- INSERT OR REPLACE would delete a row without the delete trigger.
-- +goose StatementBegin
CREATE TRIGGER audit_entries_no_replace BEFORE INSERT ON audit_entries
WHEN EXISTS (SELECT 1 FROM audit_entries WHERE workspace = NEW.workspace AND seq = NEW.seq)
BEGIN
	SELECT RAISE (ABORT, 'the audit log is append-only');
END;
-- +goose StatementEnd
