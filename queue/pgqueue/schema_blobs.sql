-- Bodies that are objects of Options.Blobs.
ALTER TABLE {s}.queue_bodies ADD object text COLLATE "C"; -- its name; NULL = in queue_chunks
ALTER TABLE {s}.queue_bodies ADD size bigint;             -- of the object, in octets
ALTER TABLE {s}.queue_bodies ADD sums bytea;              -- CRC-32C of each 64 KiB of it
CREATE UNIQUE INDEX queue_bodies_object ON {s}.queue_bodies (object) WHERE object IS NOT NULL;
ALTER TABLE {s}.queue_meta ADD listed timestamptz NOT NULL DEFAULT '-infinity'; -- when objects without a row were looked for

-- Objects that no body is in any more. They are deleted after an hour.
CREATE TABLE {s}.queue_dying (
	object text COLLATE "C" PRIMARY KEY,
	since  timestamptz NOT NULL
);
CREATE INDEX queue_dying_since ON {s}.queue_dying (since);
