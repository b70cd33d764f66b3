-- The words of archived messages, if the server is told to keep them. A row's id is the record's arrival; the text itself
-- is not kept twice. `owner` is one word that names the account.
CREATE VIRTUAL TABLE fulltext USING fts5(
    owner, body, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 2'
);

-- One row: all archived records up to this arrival are in it.
CREATE TABLE fulltext_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    indexed INTEGER NOT NULL
) STRICT;
INSERT INTO fulltext_state (id, indexed) VALUES (1, 0);

-- What leaves the log leaves the index. Arrivals are given again when the newest records went.
CREATE TRIGGER fulltext_delete AFTER DELETE ON log
WHEN old.arrival <= (SELECT indexed FROM fulltext_state)
BEGIN
    DELETE FROM fulltext WHERE rowid = old.arrival AND old.archived;
    UPDATE fulltext_state SET indexed = (SELECT coalesce(max(arrival), 0) FROM log)
    WHERE indexed > (SELECT coalesce(max(arrival), 0) FROM log);
END;

-- A record is written anew only when its message was retracted.
CREATE TRIGGER fulltext_update AFTER UPDATE OF stanza ON log
WHEN old.archived AND old.arrival <= (SELECT indexed FROM fulltext_state)
BEGIN
    DELETE FROM fulltext WHERE rowid = old.arrival;
END;
