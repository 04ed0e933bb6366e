-- +goose Up
-- Nothing: the one server process of a SQLite database counts in its memory.
SELECT 1;
