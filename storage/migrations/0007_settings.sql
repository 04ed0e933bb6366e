-- +goose Up
-- What the program notes about the database itself.
CREATE TABLE settings (
	name  TEXT PRIMARY KEY,
	value TEXT NOT NULL
);
