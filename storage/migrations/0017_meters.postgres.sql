-- +goose Up
-- What a credential has used of its limits, counted by the database's clock. A
-- crash of the database empties it, and then it begins anew from key_usage. No
-- index but the key and room on each page, so that an update stays on its page.
CREATE UNLOGGED TABLE meters (
	workspace  TEXT NOT NULL,
	credential TEXT NOT NULL,
	tat        BIGINT NOT NULL, -- theoretical arrival time of GCRA, nanoseconds since 1970
	day        BIGINT NOT NULL, -- days since 1970
	used       BIGINT NOT NULL, -- requests of that day
	PRIMARY KEY (workspace, credential)
) WITH (fillfactor = 50);
