-- The schema of pgqueue, version 1. "{s}" stands for its name. These are plain
-- tables, meant to be read with SQL:
--
--   SELECT dest, count(*), min(due) FROM {s}.queue_entries GROUP BY dest ORDER BY 2 DESC;
--   SELECT id, recipients, attempt, due FROM {s}.queue_entries WHERE sender = 'app@example.org';

CREATE TABLE {s}.queue_meta (
	version int  NOT NULL, -- of this schema
	data    text NOT NULL  -- names the data, whoever opens it
);

-- Large bodies, and those that are being written.
CREATE TABLE {s}.queue_bodies (
	id     uuid PRIMARY KEY,
	staged timestamptz -- NULL = it is a message's
);
CREATE INDEX queue_bodies_staged ON {s}.queue_bodies (staged) WHERE staged IS NOT NULL;
CREATE TABLE {s}.queue_chunks (
	body uuid  NOT NULL REFERENCES {s}.queue_bodies ON DELETE CASCADE,
	n    int   NOT NULL,
	data bytea NOT NULL,
	PRIMARY KEY (body, n)
);
ALTER TABLE {s}.queue_chunks ALTER data SET STORAGE EXTERNAL;

CREATE TABLE {s}.queue_messages (
	id       uuid PRIMARY KEY,
	tenant   text COLLATE "C" NOT NULL,
	campaign text COLLATE "C" NOT NULL,
	size     bigint NOT NULL,        -- of head and body, in octets
	entries  int    NOT NULL,        -- that are not finished
	done     timestamptz,            -- when the last one was
	message  json   NOT NULL,        -- all of it
	head     bytea,
	data     bytea,                  -- a small body
	body     uuid REFERENCES {s}.queue_bodies -- a large one
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.02,
	autovacuum_vacuum_cost_delay = 0, toast.autovacuum_vacuum_cost_delay = 0);
ALTER TABLE {s}.queue_messages ALTER data SET STORAGE EXTERNAL;
CREATE INDEX queue_messages_body ON {s}.queue_messages (body) WHERE body IS NOT NULL;
CREATE INDEX queue_messages_done ON {s}.queue_messages (done) WHERE done IS NOT NULL;

-- Who leases. A row is the heartbeat of all that it leases.
CREATE TABLE {s}.queue_owners (
	owner    text COLLATE "C" PRIMARY KEY,
	until    timestamptz NOT NULL,
	dead     boolean NOT NULL DEFAULT false,
	delivers boolean NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE {s}.queue_entries (
	id         uuid PRIMARY KEY,
	message    uuid NOT NULL,             -- counted there: a constraint would cost as much as an index
	dest       text COLLATE "C" NOT NULL, -- the lane
	tenant     text COLLATE "C" NOT NULL,
	priority   smallint NOT NULL,
	sender     text COLLATE "C" NOT NULL, -- '' = <>
	recipients text[] NOT NULL,           -- that are not done
	due        timestamptz NOT NULL,
	alarm      timestamptz,
	held       boolean NOT NULL,
	suspended  boolean NOT NULL,          -- held by a rule
	attempt    int NOT NULL,
	owner      text COLLATE "C",          -- who leases it
	token      bigint NOT NULL DEFAULT 0, -- how often it was leased
	call       bigint,                    -- which call leased it
	entry      json NOT NULL              -- envelope, last results
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX queue_entries_lane ON {s}.queue_entries (dest, tenant, priority, due, id) WHERE owner IS NULL AND NOT held;
CREATE INDEX queue_entries_alarm ON {s}.queue_entries (alarm) WHERE owner IS NULL AND NOT held AND alarm IS NOT NULL;
CREATE INDEX queue_entries_owner ON {s}.queue_entries (owner) WHERE owner IS NOT NULL;
CREATE INDEX queue_entries_message ON {s}.queue_entries (message);

-- Changes to entries that are leased, until their lease is over.
CREATE TABLE {s}.queue_edits (
	n       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	entry   uuid NOT NULL REFERENCES {s}.queue_entries ON DELETE CASCADE,
	revokes boolean NOT NULL,
	edit    json NOT NULL
);
CREATE INDEX queue_edits_entry ON {s}.queue_edits (entry);

-- Idempotency keys.
CREATE TABLE {s}.queue_keys (
	tenant  text COLLATE "C" NOT NULL,
	key     text COLLATE "C" NOT NULL,
	message uuid NOT NULL,
	expires timestamptz NOT NULL,
	PRIMARY KEY (tenant, key)
);
CREATE INDEX queue_keys_expires ON {s}.queue_keys (expires);

-- What may not be sent.
CREATE TABLE {s}.queue_rules (
	n    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	rule text NOT NULL UNIQUE
);

-- Events that nobody has acknowledged.
CREATE TABLE {s}.queue_events (
	n     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	id    uuid NOT NULL,
	owner text COLLATE "C",
	call  bigint,
	event json NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX queue_events_id ON {s}.queue_events (id);
CREATE INDEX queue_events_owner ON {s}.queue_events (owner);
