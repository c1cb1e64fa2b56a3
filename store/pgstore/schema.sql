-- The schema of pgstore, version 1. "{s}" stands for its name. These are plain
-- tables, meant to be read with SQL:
--
--   SELECT b.name, m.uid, m.flags & 1 AS seen, m.size, m.date
--   FROM {s}.accounts a JOIN {s}.mailboxes b ON b.account = a.num
--   JOIN {s}.messages m ON m.mailbox = b.num WHERE a.id = 'ann' ORDER BY 1, 2;

CREATE TABLE {s}.meta (
	version  int  NOT NULL,          -- of this schema
	data    text NOT NULL,          -- names the data, whoever opens it
	validity bigint NOT NULL DEFAULT 0 -- the last UIDVALIDITY given out
);

-- Every write to an account locks its row, and takes its ModSeq there: so
-- ModSeqs become visible in order, and counts and quota are exact.
CREATE TABLE {s}.accounts (
	num     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	id      text COLLATE "C" NOT NULL UNIQUE,
	modseq  bigint NOT NULL DEFAULT 0,
	quota   bigint NOT NULL DEFAULT 0, -- octets, 0 = no limit
	used    bigint NOT NULL DEFAULT 0  -- octets
) WITH (fillfactor = 50);

CREATE TABLE {s}.mailboxes (
	num         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	account     bigint NOT NULL REFERENCES {s}.accounts ON DELETE CASCADE,
	id          text COLLATE "C" NOT NULL,
	name        text COLLATE "C" NOT NULL,
	uidvalidity bigint NOT NULL,
	uidnext     bigint NOT NULL DEFAULT 1,
	recent      bigint NOT NULL DEFAULT 1, -- the first UID that nobody claimed
	modseq      bigint NOT NULL,
	horizon     bigint NOT NULL DEFAULT 0,
	special_use text[] NOT NULL DEFAULT '{}',
	keywords    text[] NOT NULL DEFAULT '{}', -- messages.keywords are indexes into it, from 1
	messages    bigint NOT NULL DEFAULT 0,
	unseen      bigint NOT NULL DEFAULT 0,
	deleted     bigint NOT NULL DEFAULT 0,
	size        bigint NOT NULL DEFAULT 0,
	deleted_size bigint NOT NULL DEFAULT 0,
	UNIQUE (account, id),
	UNIQUE (account, name) DEFERRABLE INITIALLY IMMEDIATE
) WITH (fillfactor = 50);

-- Mailboxes that were deleted.
CREATE TABLE {s}.gone (
	account bigint NOT NULL REFERENCES {s}.accounts ON DELETE CASCADE,
	id      text COLLATE "C" NOT NULL,
	modseq  bigint NOT NULL,
	PRIMARY KEY (account, modseq)
);

-- Bodies. One is shared by all messages that have it, of whatever account.
CREATE TABLE {s}.blobs (
	num     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	size    bigint NOT NULL,
	data    bytea,                     -- NULL = in chunks
	pending timestamptz                -- not NULL: to be swept if nothing uses it
);
ALTER TABLE {s}.blobs ALTER data SET STORAGE EXTERNAL;
CREATE INDEX blobs_pending ON {s}.blobs (pending) WHERE pending IS NOT NULL;
CREATE TABLE {s}.chunks (
	blob bigint NOT NULL REFERENCES {s}.blobs ON DELETE CASCADE,
	n    int    NOT NULL,
	data bytea  NOT NULL,
	PRIMARY KEY (blob, n)
);
ALTER TABLE {s}.chunks ALTER data SET STORAGE EXTERNAL;

-- From here on rows come and go with each message. That what they name is
-- there is seen to under the lock of the account's row, and of the body's:
-- foreign keys would be the greatest part of what storing a message costs.

-- What a message says, shared by its copies in the account.
CREATE TABLE {s}.contents (
	num     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	account bigint NOT NULL,           -- accounts.num
	id      text COLLATE "C" NOT NULL, -- EMAILID
	thread  text COLLATE "C" NOT NULL, -- THREADID
	size    bigint NOT NULL,           -- of head and blob
	refs    int NOT NULL,              -- rows in messages
	expunged timestamptz,              -- when refs became 0
	head    bytea,                     -- goes before the blob
	summary bytea,
	blob    bigint NOT NULL,           -- blobs.num
	UNIQUE (account, id)
);
CREATE INDEX contents_blob ON {s}.contents (blob);
CREATE INDEX contents_expunged ON {s}.contents (expunged) WHERE expunged IS NOT NULL;

CREATE TABLE {s}.messages (
	mailbox  bigint NOT NULL,          -- mailboxes.num
	uid      bigint NOT NULL,
	modseq   bigint NOT NULL,
	content  bigint NOT NULL,          -- contents.num
	id       text COLLATE "C" NOT NULL, -- the content's: lists are made of this table alone
	size     bigint NOT NULL,
	date     timestamptz NOT NULL,     -- INTERNALDATE
	saved    timestamptz NOT NULL,     -- SAVEDATE
	zone     smallint NOT NULL,        -- of date: minutes east of UTC
	flags    smallint NOT NULL,        -- 1 \Seen, 2 \Answered, 4 \Flagged, 8 \Deleted, 16 \Draft
	keywords smallint[],               -- NULL = none
	PRIMARY KEY (mailbox, uid)
) WITH (fillfactor = 90);
CREATE INDEX messages_modseq ON {s}.messages (mailbox, modseq);

-- UIDs that were expunged.
CREATE TABLE {s}.expunged (
	mailbox bigint NOT NULL,           -- mailboxes.num
	modseq  bigint NOT NULL,
	first   bigint NOT NULL,
	last    bigint NOT NULL,
	PRIMARY KEY (mailbox, modseq, first)
);

-- Which thread the messages that know a Message-ID are in.
CREATE TABLE {s}.threads (
	account bigint NOT NULL,           -- accounts.num
	hash    bytea NOT NULL,            -- of the Message-ID
	thread  text COLLATE "C" NOT NULL,
	at      timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (account, hash)
);

-- Deliveries that need not be taken again.
CREATE TABLE {s}.deliveries (
	account bigint NOT NULL,           -- accounts.num
	hash    bytea NOT NULL,            -- of Target.Once
	at      timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (account, hash)
);
CREATE INDEX deliveries_at ON {s}.deliveries (at);

CREATE TABLE {s}.subscriptions (
	account bigint NOT NULL REFERENCES {s}.accounts ON DELETE CASCADE,
	name    text COLLATE "C" NOT NULL,
	PRIMARY KEY (account, name)
);
