-- Bodies that are objects of Options.Blobs.
ALTER TABLE {s}.blobs ADD object text COLLATE "C"; -- its name; NULL = in data or in chunks
ALTER TABLE {s}.blobs ADD sums bytea;              -- CRC-32C of each 64 KiB of it
CREATE UNIQUE INDEX blobs_object ON {s}.blobs (object) WHERE object IS NOT NULL;
ALTER TABLE {s}.meta ADD listed timestamptz NOT NULL DEFAULT '-infinity'; -- when objects without a row were looked for

-- Objects that no body is in any more. They are deleted after the grace.
CREATE TABLE {s}.dying (
	object text COLLATE "C" PRIMARY KEY,
	since  timestamptz NOT NULL
);
CREATE INDEX dying_since ON {s}.dying (since);
