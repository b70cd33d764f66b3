-- Stanzas taken in under stream management, all of them done, when the stream was lost; NULL while there is a stream.
ALTER TABLE sessions ADD COLUMN received INTEGER;
