-- +goose Up
CREATE INDEX records_updated ON records (workspace, resource, updated, id);
CREATE INDEX approvals_bodies ON approvals (decided) WHERE body <> '' AND decided > 0;

-- Over the workspace, seq and seal, so that the end of a log cannot be set back.
ALTER TABLE audit_heads ADD COLUMN mac TEXT NOT NULL DEFAULT '';

-- Ids, names and keys are compared byte by byte, as SQLite does, whatever the
-- locale of the database is: the order of ids is the order in which they were
-- made. All columns change, since PostgreSQL does not compare texts of two
-- collations.
-- +goose StatementBegin
DO $$
DECLARE
	t RECORD;
BEGIN
	FOR t IN
		SELECT table_name, string_agg(format('ALTER COLUMN %I TYPE TEXT COLLATE "C"', column_name), ', ') AS changes
		FROM information_schema.columns
		WHERE table_schema = current_schema() AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'
			AND table_name IN ('workspaces', 'users', 'members', 'keys', 'key_secrets', 'key_usage', 'idempotency_keys', 'records',
				'approvals', 'jobs', 'endpoints', 'deliveries', 'audit_entries', 'audit_heads', 'settings')
		GROUP BY table_name
	LOOP
		EXECUTE format('ALTER TABLE %I %s', t.table_name, t.changes);
	END LOOP;
END;
$$;
-- +goose StatementEnd
