-- One row: what wrote this file, and how often it was opened for serving.
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    schema INTEGER NOT NULL,
    producer TEXT NOT NULL,      -- version of the waft that last changed the schema
    created INTEGER NOT NULL,    -- microseconds since 1970, like all times here
    epoch INTEGER NOT NULL
) STRICT;

-- Ids are never used again: rows of a removed account that still wait to be deleted belong to nobody.
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    host TEXT NOT NULL,
    local TEXT NOT NULL,         -- empty for the domain itself
    partition INTEGER NOT NULL,
    created INTEGER NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0,
    roster_version INTEGER NOT NULL DEFAULT 0,
    left_at INTEGER,
    left_status TEXT,
    archive_bytes INTEGER NOT NULL DEFAULT 0, -- of archived stanzas in the log, up to and including this position
    archive_counted INTEGER NOT NULL DEFAULT 0,
    UNIQUE (host, local)
) STRICT;

-- Accounts whose log and dedupe keys are being deleted in small steps.
CREATE TABLE removed (
    account INTEGER PRIMARY KEY
) STRICT;

CREATE TABLE credentials (
    account INTEGER NOT NULL,
    mechanism TEXT NOT NULL,     -- SCRAM-SHA-1, SCRAM-SHA-256
    salt BLOB NOT NULL,
    iterations INTEGER NOT NULL,
    stored_key BLOB NOT NULL,
    server_key BLOB NOT NULL,
    PRIMARY KEY (account, mechanism)
) STRICT, WITHOUT ROWID;

CREATE TABLE roster (
    account INTEGER NOT NULL,
    contact TEXT NOT NULL,
    name TEXT,
    groups TEXT NOT NULL,        -- each as length:text, one after the other
    subscription INTEGER NOT NULL, -- 1 to, 2 from, 4 pending out, 8 pending in, 16 approved
    listed INTEGER NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (account, contact)
) STRICT, WITHOUT ROWID;

CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    contact TEXT NOT NULL,
    stanza BLOB NOT NULL,
    received INTEGER NOT NULL,
    UNIQUE (account, contact)
) STRICT;

CREATE TABLE blocks (
    account INTEGER NOT NULL,
    jid TEXT NOT NULL,
    PRIMARY KEY (account, jid)
) STRICT, WITHOUT ROWID;

-- The inbox log: a heap in order of arrival; the order within an account is the index, which also covers the filters
-- of the archive and the dedupe keys. A second index would halve the throughput.
CREATE TABLE log (
    arrival INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    position INTEGER NOT NULL,
    peer TEXT NOT NULL,          -- bare JID
    resource TEXT,               -- of the peer
    outgoing INTEGER NOT NULL,
    archived INTEGER NOT NULL,
    expires INTEGER,
    dedupe BLOB,
    stanza BLOB NOT NULL
) STRICT;
CREATE INDEX log_by_account ON log (account, position, peer, archived, dedupe);

CREATE TABLE pending (
    account INTEGER NOT NULL,
    position INTEGER NOT NULL,
    arrival INTEGER NOT NULL,    -- in log
    archived INTEGER NOT NULL,
    bytes INTEGER NOT NULL,      -- of the stanza
    PRIMARY KEY (account, position)
) STRICT, WITHOUT ROWID;

-- Dedupe keys that may outlive their record in the log.
CREATE TABLE dedupe (
    account INTEGER NOT NULL,
    key BLOB NOT NULL,
    position INTEGER NOT NULL,
    hour INTEGER NOT NULL,       -- since 1970; when it was written
    PRIMARY KEY (account, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    account INTEGER NOT NULL,
    resource TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    resume_id_hash BLOB NOT NULL,
    presence BLOB NOT NULL,
    directed TEXT NOT NULL,      -- each as length:text
    since INTEGER NOT NULL,
    PRIMARY KEY (account, resource)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    account INTEGER NOT NULL,
    client TEXT NOT NULL,
    mechanism TEXT NOT NULL,
    secret BLOB NOT NULL,
    expires INTEGER NOT NULL,
    previous BLOB,
    previous_expires INTEGER,
    count INTEGER NOT NULL,
    PRIMARY KEY (account, client, mechanism)
) STRICT, WITHOUT ROWID;

CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    space TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    UNIQUE (account, space, key)
) STRICT;

-- Rows that could not be read: named here, left where they are, passed over by every read.
CREATE TABLE quarantine (
    source TEXT NOT NULL,        -- table
    account INTEGER NOT NULL,
    key TEXT NOT NULL,           -- within the table and account
    reason TEXT NOT NULL,
    found INTEGER NOT NULL,
    PRIMARY KEY (source, account, key)
) STRICT, WITHOUT ROWID;
