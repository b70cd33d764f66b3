-- On which days (of 86,400 s since 1970) an account's archive has messages with a peer: what leads to the few of a peer
-- without passing all others, and costs a message nothing but the first of its day. Rows of days that left the archive are
-- harmless.
CREATE TABLE peers (
    account INTEGER NOT NULL,
    peer TEXT NOT NULL,          -- bare JID
    day INTEGER NOT NULL,
    PRIMARY KEY (account, peer, day)
) STRICT, WITHOUT ROWID;
INSERT INTO peers (account, peer, day)
SELECT DISTINCT account, peer, position / 86400000000 FROM log WHERE archived;
