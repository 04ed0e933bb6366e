-- +goose Up
ALTER TABLE approvals ADD COLUMN base TEXT NOT NULL DEFAULT ''; -- JSON: the target when it was asked; '' if there was none, or once purged
ALTER TABLE approvals ADD COLUMN votes TEXT NOT NULL DEFAULT ''; -- JSON: who has approved while more have to
ALTER TABLE approvals ADD COLUMN assignee TEXT NOT NULL DEFAULT ''; -- the user who is to decide
ALTER TABLE approvals ADD COLUMN client TEXT NOT NULL DEFAULT ''; -- of the requester, '' if it is no OAuth client
ALTER TABLE approvals ADD COLUMN user_id TEXT NOT NULL DEFAULT ''; -- whom the requester acts for
ALTER TABLE approvals ADD COLUMN owner_decides BOOLEAN NOT NULL DEFAULT FALSE; -- that user may decide it too
CREATE INDEX approvals_user ON approvals (workspace, user_id, status, id) WHERE user_id <> '';
CREATE INDEX approvals_all ON approvals (workspace, id);
CREATE INDEX approvals_assignee ON approvals (workspace, assignee, status, id) WHERE assignee <> '';
DROP INDEX approvals_bodies;
CREATE INDEX approvals_bodies ON approvals (decided) WHERE (body <> '' OR base <> '') AND decided > 0;
