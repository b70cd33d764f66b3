-- Days are long for whoever says thousands of things a day: in which spans of positions (those that are the same but for 30
-- bits, some 18 minutes) an account's archive has messages with a peer. Rows of spans that left the archive are harmless.
DROP TABLE peers;
CREATE TABLE peers (
    account INTEGER NOT NULL,
    peer TEXT NOT NULL,          -- bare JID
    span INTEGER NOT NULL,       -- position >> 30
    PRIMARY KEY (account, peer, span)
) STRICT, WITHOUT ROWID;
INSERT INTO peers (account, peer, span)
SELECT DISTINCT account, peer, position >> 30 FROM log WHERE archived;
