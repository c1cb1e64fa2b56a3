-- The tables of Options.Search, version 1.

CREATE TABLE {s}.search (
	version int  NOT NULL,           -- of these tables
	data    text NOT NULL,
	filler  text NOT NULL DEFAULT '', -- the node that fills texts
	until   timestamptz NOT NULL DEFAULT '-infinity' -- then another may
);

-- What SEARCH finds of a content: its text, folded (package searchtext). A
-- content that is not here, or has NULL for its text, may have any.
CREATE TABLE {s}.texts (
	content bigint PRIMARY KEY REFERENCES {s}.contents ON DELETE CASCADE,
	account bigint NOT NULL,
	text    text COLLATE "C"
);
CREATE INDEX texts_known ON {s}.texts (account, content) WHERE text IS NOT NULL;
CREATE INDEX texts_text ON {s}.texts USING gin (text {trgm}.gin_trgm_ops);
