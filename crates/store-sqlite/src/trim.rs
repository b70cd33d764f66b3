//! What leaves an archive, in small steps between the commits of others: to weigh what is new, to find what is too many, to
//! delete from the oldest record on.

use crate::apply::{self, Tally};
use crate::upkeep::{DELETED_BYTES, DELETED_ROWS};
use rusqlite::{Connection, OptionalExtension, params};
use xmpp::Stamp;

/// Records that one step weighs.
const WEIGHED_ROWS: i64 = 500;
/// Entries of the index that one step passes.
const PASSED_ROWS: u64 = 5_000;

/// One account's archive is being cut.
#[derive(Debug)]
pub struct Trim {
    pub account: i64,
    /// What is older goes.
    before: i64,
    bytes_max: u64,
    /// So many are to be passed from the newest on (but the cursor), until what comes is too many.
    search: Option<(u64, i64)>,
    removed: usize,
}

impl Trim {
    pub fn new(account: i64, before: i64, records_max: Option<u64>, bytes_max: u64) -> Trim {
        Trim { account, before, bytes_max, search: records_max.map(|max| (max, i64::MAX)), removed: 0 }
    }

    /// Does one step in the transaction that is open. Is there more to do?
    pub fn step(&mut self, connection: &Connection, now: Stamp, tally: &mut Tally) -> rusqlite::Result<bool> {
        self.find_surplus(connection)?;
        let weighed = self.weigh(connection)?;
        let (deleted, full) = self.delete(connection, now, weighed, tally)?;
        self.removed += deleted;
        let more = full || !weighed || self.search.is_some();
        if !more && self.removed > 0 {
            self.forget_spans(connection, tally)?;
        }
        Ok(more && self.removed < store::TRIM_MAX)
    }

    /// Spans of peers before the oldest record.
    fn forget_spans(&self, connection: &Connection, tally: &mut Tally) -> rusqlite::Result<()> {
        let sql = "DELETE FROM peers WHERE account = ?1 AND span < (
                       SELECT coalesce(min(position), ?2) >> ?3 FROM log WHERE account = ?1)";
        let mut forget = connection.prepare_cached(sql)?;
        tally.spans += forget.execute([self.account, i64::MAX, apply::SPAN_BITS])? as u64;
        Ok(())
    }

    /// The newest of the records that are too many. Answered by the index alone.
    fn find_surplus(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let Some((left, cursor)) = self.search else { return Ok(()) };
        let passes = left.min(PASSED_ROWS);
        let mut find = connection.prepare_cached(
            "SELECT position FROM log WHERE account = ?1 AND archived AND position < ?2
             ORDER BY position DESC LIMIT 1 OFFSET ?3",
        )?;
        let found = find.query_row(params![self.account, cursor, passes as i64], |row| row.get::<_, i64>(0));
        self.search = match found.optional()? {
            None => None,
            Some(newest) if passes == left => {
                self.before = self.before.max(newest + 1);
                None
            }
            // (The one that was found is the next to be passed.)
            Some(next) => Some((left - passes, next + 1)),
        };
        Ok(())
    }

    /// Adds what was archived since the last time to the archive's weight. Is all of it in?
    fn weigh(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let (bytes, counted_to) = self.weight(connection)?;
        let mut newer = connection.prepare_cached(
            "SELECT total(bytes), max(position), count(*) FROM (
                 SELECT length(stanza) AS bytes, position FROM log
                 WHERE account = ?1 AND position > ?2 AND archived ORDER BY position LIMIT ?3)",
        )?;
        let (added, to, rows) = newer.query_row(params![self.account, counted_to, WEIGHED_ROWS], |row| {
            Ok((row.get::<_, f64>(0)? as i64, row.get::<_, Option<i64>>(1)?, row.get::<_, i64>(2)?))
        })?;
        if let Some(to) = to {
            self.put_weight(connection, bytes.saturating_add(added), to)?;
        }
        Ok(rows < WEIGHED_ROWS)
    }

    /// Bytes of the archived stanzas up to and including the position.
    fn weight(&self, connection: &Connection) -> rusqlite::Result<(i64, i64)> {
        let mut counted =
            connection.prepare_cached("SELECT archive_bytes, archive_counted FROM accounts WHERE id = ?1")?;
        let found = counted.query_row([self.account], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        // An account that was removed has none.
        Ok(found.unwrap_or((0, i64::MAX)))
    }

    fn put_weight(&self, connection: &Connection, bytes: i64, counted_to: i64) -> rusqlite::Result<()> {
        let sql = "UPDATE accounts SET archive_bytes = ?2, archive_counted = ?3 WHERE id = ?1";
        connection.prepare_cached(sql)?.execute([self.account, bytes.max(0), counted_to])?;
        Ok(())
    }

    /// Removes from the oldest record on; how many, and is that as many as one step may? As long as not all is weighed
    /// nothing goes for its weight.
    fn delete(
        &self,
        connection: &Connection,
        now: Stamp,
        weighed: bool,
        tally: &mut Tally,
    ) -> rusqlite::Result<(usize, bool)> {
        let (bytes_before, counted_to) = self.weight(connection)?;
        let mut bytes = bytes_before;
        // Keys that are not a day old outlive their records.
        let since = now.0 - apply::KEY_HOURS_MIN * apply::MICROSECONDS_PER_HOUR;
        let mut oldest = connection.prepare_cached(
            "SELECT arrival, position, length(stanza), dedupe FROM log AS old
             WHERE account = ?1 AND archived AND NOT EXISTS (
                 SELECT 1 FROM pending WHERE pending.account = ?1 AND pending.position = old.position)
             ORDER BY position LIMIT ?2",
        )?;
        let mut gone = Vec::new();
        let (mut bytes_gone, mut full) = (0, false);
        let limit = DELETED_ROWS.min(store::TRIM_MAX - self.removed.min(store::TRIM_MAX));
        let mut rows = oldest.query(params![self.account, limit as i64])?;
        while let Some(row) = rows.next()? {
            let position: i64 = row.get(1)?;
            let too_much = weighed && bytes as u64 > self.bytes_max;
            if position >= self.before && !too_much {
                break;
            }
            let length: i64 = row.get(2)?;
            if position <= counted_to {
                bytes = bytes.saturating_sub(length).max(0);
            }
            let key = if position > since { row.get::<_, Option<[u8; 16]>>(3)? } else { None };
            gone.push((row.get::<_, i64>(0)?, position, key));
            bytes_gone += length;
            full = gone.len() == DELETED_ROWS || bytes_gone >= DELETED_BYTES;
            if full {
                break;
            }
        }
        drop(rows);
        let mut delete = connection.prepare_cached("DELETE FROM log WHERE arrival = ?1")?;
        let mut keep = connection.prepare_cached(
            "INSERT INTO dedupe (account, key, position, hour) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?;
        for (arrival, position, key) in &gone {
            if let Some(key) = key {
                tally.keys += keep.execute(params![self.account, key, position, apply::hour(now)])? as u64;
            }
            tally.records -= delete.execute([arrival])? as i64;
        }
        if bytes != bytes_before {
            self.put_weight(connection, bytes, counted_to)?;
        }
        Ok((gone.len(), full))
    }
}
