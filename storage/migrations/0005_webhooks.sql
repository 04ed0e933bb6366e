-- +goose Up
CREATE TABLE endpoints (
	id             TEXT PRIMARY KEY,
	workspace      TEXT NOT NULL,
	owner          TEXT NOT NULL, -- the credential
	url            TEXT NOT NULL,
	events         TEXT NOT NULL, -- separated by spaces
	secret         TEXT NOT NULL, -- sealed
	old_secret     TEXT NOT NULL, -- sealed; '' if there is none
	old_until      BIGINT NOT NULL,
	disabled       BIGINT NOT NULL, -- 0: it is enabled
	disabled_cause TEXT NOT NULL,
	retired        BIGINT NOT NULL, -- the owner is gone since; 0: it is not
	created        BIGINT NOT NULL,
	UNIQUE (workspace, owner)
);

CREATE TABLE deliveries (
	id            TEXT PRIMARY KEY, -- the webhook-id
	workspace     TEXT NOT NULL,
	endpoint      TEXT NOT NULL,
	owner         TEXT NOT NULL, -- the endpoint's
	url           TEXT NOT NULL,
	event         TEXT NOT NULL,
	approval      TEXT NOT NULL, -- '' of a test
	body          TEXT NOT NULL,
	state         TEXT NOT NULL, -- ready, done, dead
	attempts      BIGINT NOT NULL,
	last_status   BIGINT NOT NULL, -- 0: no response
	last_response TEXT NOT NULL,
	last_error    TEXT NOT NULL,
	next_at       BIGINT NOT NULL,
	created       BIGINT NOT NULL,
	delivered     BIGINT NOT NULL -- 0: not
);
CREATE INDEX deliveries_list ON deliveries (workspace, id);
CREATE INDEX deliveries_owner ON deliveries (workspace, owner, id);
CREATE INDEX deliveries_endpoint ON deliveries (workspace, endpoint, id);
CREATE INDEX deliveries_approval ON deliveries (workspace, approval, id) WHERE approval <> '';
CREATE INDEX deliveries_created ON deliveries (created);
