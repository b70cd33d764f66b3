-- Stanzas on their way to other domains, until the other server has them or their senders an error.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,      -- grows in the order of writing
    local TEXT NOT NULL,         -- the hosted domain
    remote TEXT NOT NULL,
    accepted INTEGER NOT NULL,   -- when its sender was promised that it is kept
    stanza BLOB NOT NULL
) STRICT;

-- When a server of another domain was last spoken with.
CREATE TABLE domains (
    local TEXT NOT NULL,
    remote TEXT NOT NULL,
    reached INTEGER NOT NULL,
    PRIMARY KEY (local, remote)
) STRICT, WITHOUT ROWID;
