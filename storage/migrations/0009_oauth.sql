-- +goose Up
CREATE TABLE oauth_clients (
	id            TEXT PRIMARY KEY, -- cli_…, or the URL of its metadata document
	workspace     TEXT NOT NULL, -- '' for one that registered itself
	origin        TEXT NOT NULL,
	name          TEXT NOT NULL,
	uri           TEXT NOT NULL,
	redirect_uris TEXT NOT NULL, -- JSON
	auth_method   TEXT NOT NULL,
	grant_types   TEXT NOT NULL, -- separated by spaces
	scope         TEXT NOT NULL,
	secret        TEXT NOT NULL, -- SHA-256, hex; '' if it has none
	old_secret    TEXT NOT NULL,
	old_until     BIGINT NOT NULL,
	doc_digest    TEXT NOT NULL,
	doc_fetched   BIGINT NOT NULL,
	doc_fresh     BIGINT NOT NULL,
	doc_etag      TEXT NOT NULL,
	maker         TEXT NOT NULL, -- JSON: the principal that registered it; '' if it did so itself
	parent        TEXT NOT NULL, -- the key that registered it, '' if none
	created       BIGINT NOT NULL,
	consented     BOOLEAN NOT NULL DEFAULT FALSE, -- somebody has, ever; only kept of one that registered itself
	version       BIGINT NOT NULL DEFAULT 1 -- moves with every change but consented
);
CREATE INDEX oauth_clients_created ON oauth_clients (created) WHERE workspace = '';
CREATE INDEX oauth_clients_unconsented ON oauth_clients (created, id) WHERE workspace = '' AND NOT consented;

CREATE TABLE oauth_policies (
	workspace  TEXT NOT NULL REFERENCES workspaces (id),
	client     TEXT NOT NULL REFERENCES oauth_clients (id),
	ceiling    TEXT NOT NULL,
	per_minute BIGINT NOT NULL,
	per_day    BIGINT NOT NULL,
	created    BIGINT NOT NULL,
	version    BIGINT NOT NULL DEFAULT 1, -- moves with every change
	PRIMARY KEY (workspace, client)
);
CREATE INDEX oauth_policies_client ON oauth_policies (client);
CREATE INDEX oauth_policies_list ON oauth_policies (workspace, created, client);

CREATE TABLE oauth_grants (
	id            TEXT PRIMARY KEY,
	workspace     TEXT NOT NULL,
	client        TEXT NOT NULL REFERENCES oauth_clients (id),
	user_id       TEXT NOT NULL, -- '' with client credentials
	scopes        TEXT NOT NULL,
	client_digest TEXT NOT NULL,
	created       BIGINT NOT NULL,
	consented     BIGINT NOT NULL,
	expires       BIGINT NOT NULL, -- of its last refresh token; 0 if there is none
	revoked       BIGINT NOT NULL, -- 0: it is in force
	last_used     BIGINT NOT NULL,
	last_used_for TEXT NOT NULL,
	version       BIGINT NOT NULL DEFAULT 1, -- moves with every change but last_used and expires
	UNIQUE (workspace, client, user_id)
);
CREATE INDEX oauth_grants_list ON oauth_grants (workspace, id);
CREATE INDEX oauth_grants_user ON oauth_grants (workspace, user_id, id);
CREATE INDEX oauth_grants_client ON oauth_grants (client, revoked);

CREATE TABLE oauth_codes (
	hash         TEXT PRIMARY KEY, -- SHA-256, hex
	workspace    TEXT NOT NULL,
	client       TEXT NOT NULL,
	user_id      TEXT NOT NULL,
	grant_id     TEXT NOT NULL,
	redirect_uri TEXT NOT NULL,
	challenge    TEXT NOT NULL,
	resource     TEXT NOT NULL,
	scope        TEXT NOT NULL,
	created      BIGINT NOT NULL,
	expires      BIGINT NOT NULL,
	used         BIGINT NOT NULL, -- 0: it can be exchanged
	family       TEXT NOT NULL -- '' before it is used
);
CREATE INDEX oauth_codes_expires ON oauth_codes (expires);
CREATE INDEX oauth_codes_grant ON oauth_codes (grant_id);

CREATE TABLE oauth_families (
	id        TEXT PRIMARY KEY,
	workspace TEXT NOT NULL,
	grant_id  TEXT NOT NULL,
	client    TEXT NOT NULL,
	user_id   TEXT NOT NULL,
	resource  TEXT NOT NULL,
	scope     TEXT NOT NULL,
	created   BIGINT NOT NULL,
	expires   BIGINT NOT NULL, -- of its last token
	revoked   BIGINT NOT NULL -- 0: it is in force
);
CREATE INDEX oauth_families_grant ON oauth_families (grant_id);
CREATE INDEX oauth_families_expires ON oauth_families (expires);

CREATE TABLE oauth_refresh_tokens (
	hash      TEXT PRIMARY KEY, -- SHA-256, hex
	workspace TEXT NOT NULL,
	family    TEXT NOT NULL,
	created   BIGINT NOT NULL,
	expires   BIGINT NOT NULL,
	spent     BIGINT NOT NULL, -- 0: it is current
	siblings  BIGINT NOT NULL DEFAULT 0 -- that it gave after it was spent
);
CREATE INDEX oauth_refresh_tokens_family ON oauth_refresh_tokens (family);
CREATE INDEX oauth_refresh_tokens_expires ON oauth_refresh_tokens (expires);

CREATE TABLE oauth_signing_keys (
	id      TEXT PRIMARY KEY, -- kid
	after   TEXT NOT NULL UNIQUE, -- the key before it, '' for the first: each has one successor
	private TEXT NOT NULL, -- sealed
	public  TEXT NOT NULL, -- hex
	created BIGINT NOT NULL,
	active  BIGINT NOT NULL, -- it signs from then on
	retired BIGINT NOT NULL -- it verifies until then; 0 for the newest
);

CREATE TABLE sessions (
	hash    TEXT PRIMARY KEY, -- SHA-256 of the cookie's token
	data    TEXT NOT NULL, -- base64
	expires BIGINT NOT NULL
);
CREATE INDEX sessions_expires ON sessions (expires);

CREATE INDEX members_user ON members (user_id);
