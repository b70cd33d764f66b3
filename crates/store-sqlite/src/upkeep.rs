//! What the writer does beside the changes it is given, in small steps: old dedupe keys, the logs of removed accounts,
//! archives that are being cut, rows that could not be read.

use crate::apply::{self, Tally};
use crate::fulltext;
use crate::trim::Trim;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::VecDeque;
use xmpp::Stamp;

/// Rows that one step looks at.
const STEP_ROWS: i64 = 500;
/// Records that one step deletes, and bytes of their stanzas, about: a commit that comes meanwhile waits for it.
pub const DELETED_ROWS: usize = 100;
pub const DELETED_BYTES: i64 = 256 << 10;
/// Rows of other tables of a removed account that one step deletes.
const REMOVED_ROWS: i64 = 100;
/// Keys that the sweep passes for each key written: it has been round once the table was written a quarter anew, so
/// that old keys are at most a quarter of it.
const SWEEP_PER_KEY: u64 = 4;
/// Commits after which a step for removed accounts is due, even if the writer is not idle.
const COMMITS_PER_STEP: u32 = 16;

/// A row that could not be read.
pub struct Unreadable {
    pub source: &'static str,
    pub account: i64,
    /// Within the source and the account.
    pub key: String,
    pub reason: String,
    /// If it is a record of the log: nobody can take it, so it does not stay pending.
    pub position: Option<i64>,
}

/// What is to be done; made anew at each start.
#[derive(Default)]
pub struct Upkeep {
    /// Where the sweep over the dedupe keys goes on.
    cursor: (i64, Vec<u8>),
    /// Keys that the sweep should have passed by now.
    debt: u64,
    /// Is there a removed account whose rows are not gone yet?
    removed: bool,
    /// The words of messages are to be kept.
    fulltext: bool,
    /// … and there may be messages whose words are not.
    unindexed: bool,
    /// Archives that are being cut, one after the other; each account is there once.
    trims: VecDeque<Trim>,
    commits: u32,
}

impl Upkeep {
    pub fn open(connection: &Connection, fulltext: bool) -> rusqlite::Result<Upkeep> {
        let removed = connection.query_row("SELECT EXISTS (SELECT 1 FROM removed)", [], |row| row.get(0))?;
        Ok(Upkeep { removed, fulltext, unindexed: fulltext, ..Upkeep::default() })
    }

    /// Takes notice of a commit.
    pub fn committed(&mut self, tally: &Tally, trims: Vec<Trim>) {
        for trim in trims {
            self.trims.retain(|other| other.account != trim.account);
            self.trims.push_back(trim);
        }
        self.debt += tally.keys * SWEEP_PER_KEY;
        self.removed |= tally.removed > 0;
        self.unindexed |= self.fulltext && tally.records > 0;
        self.commits += 1;
    }

    /// Is there a step to do while the writer has nothing else to do?
    pub fn waits(&self) -> bool {
        self.removed || self.unindexed || self.sweeps() || !self.trims.is_empty()
    }

    /// Must a step be done even though the writer is busy?
    pub fn due(&self) -> bool {
        let work = self.removed || self.unindexed || !self.trims.is_empty();
        self.sweeps() || work && self.commits >= COMMITS_PER_STEP
    }

    fn sweeps(&self) -> bool {
        self.debt >= STEP_ROWS as u64
    }

    /// Does one step in the transaction that is open. Its notes hold only if that is committed, which is harmless:
    /// what was not deleted comes round again.
    pub fn step(&mut self, connection: &Connection, now: Stamp, tally: &mut Tally) -> rusqlite::Result<()> {
        self.commits = 0;
        if self.sweeps() {
            self.debt -= STEP_ROWS as u64;
            self.sweep(connection, now)?;
        }
        if self.removed {
            self.removed = clear_removed(connection, tally)?;
        }
        if let Some(mut trim) = self.trims.pop_front()
            && trim.step(connection, now, tally)?
        {
            self.trims.push_front(trim);
        }
        if self.unindexed {
            self.unindexed = fulltext::step(connection)?;
        }
        Ok(())
    }

    /// Passes the next keys and deletes the old ones among them.
    fn sweep(&mut self, connection: &Connection, now: Stamp) -> rusqlite::Result<()> {
        let (account, key) = &self.cursor;
        let mut end = connection.prepare_cached(
            "SELECT account, key FROM dedupe WHERE (account, key) > (?1, ?2) ORDER BY account, key LIMIT 1 OFFSET ?3",
        )?;
        let end: Option<(i64, Vec<u8>)> =
            end.query_row(params![account, key, STEP_ROWS - 1], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let old = apply::hour(now) - apply::KEY_HOURS_MIN;
        match end {
            Some((last_account, last_key)) => {
                connection
                    .prepare_cached(
                        "DELETE FROM dedupe
                         WHERE (account, key) > (?1, ?2) AND (account, key) <= (?3, ?4) AND hour < ?5",
                    )?
                    .execute(params![account, key, last_account, last_key, old])?;
                self.cursor = (last_account, last_key);
            }
            None => {
                connection
                    .prepare_cached("DELETE FROM dedupe WHERE (account, key) > (?1, ?2) AND hour < ?3")?
                    .execute(params![account, key, old])?;
                self.cursor = Default::default();
            }
        }
        Ok(())
    }
}

/// Deletes some rows of one removed account. Are there more?
fn clear_removed(connection: &Connection, tally: &mut Tally) -> rusqlite::Result<bool> {
    let mut next = connection.prepare_cached("SELECT account FROM removed LIMIT 1")?;
    let Some(account) = next.query_row([], |row| row.get::<_, i64>(0)).optional()? else {
        return Ok(false);
    };
    let arrivals = first_records(connection, account)?;
    // What leaves is overwritten, not only given up.
    connection.pragma_update(None, "secure_delete", true)?;
    let mut delete = connection.prepare_cached("DELETE FROM log WHERE arrival = ?1")?;
    let mut records = 0;
    for arrival in arrivals {
        records += delete.execute([arrival])?;
    }
    tally.records -= records as i64;
    connection.pragma_update(None, "secure_delete", false)?;
    let keys = connection
        .prepare_cached(
            "DELETE FROM dedupe WHERE account = ?1 AND key IN (SELECT key FROM dedupe WHERE account = ?1 LIMIT ?2)",
        )?
        .execute([account, REMOVED_ROWS])?;
    let peers = connection
        .prepare_cached(
            "DELETE FROM peers WHERE account = ?1 AND (peer, span) IN (
                 SELECT peer, span FROM peers WHERE account = ?1 LIMIT ?2)",
        )?
        .execute([account, REMOVED_ROWS])?;
    if records + keys + peers == 0 {
        connection.prepare_cached("DELETE FROM removed WHERE account = ?1")?.execute([account])?;
    }
    Ok(true)
}

/// Records of an account, as many as one step deletes.
fn first_records(connection: &Connection, account: i64) -> rusqlite::Result<Vec<i64>> {
    let mut first = connection.prepare_cached("SELECT arrival, length(stanza) FROM log WHERE account = ?1 LIMIT ?2")?;
    let mut rows = first.query(params![account, DELETED_ROWS as i64])?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while bytes < DELETED_BYTES
        && let Some(row) = rows.next()?
    {
        found.push(row.get(0)?);
        bytes += row.get::<_, i64>(1)?;
    }
    Ok(found)
}

/// Notes rows that could not be read; how many of them are new.
pub fn quarantine(connection: &Connection, rows: &[Unreadable], now: Stamp) -> rusqlite::Result<u64> {
    let mut new = 0;
    for row in rows {
        let noted = connection
            .prepare_cached(
                "INSERT INTO quarantine (source, account, key, reason, found) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![row.source, row.account, row.key, row.reason, now.0])?;
        if noted == 0 {
            continue;
        }
        new += 1;
        let Unreadable { source, account, key, reason, .. } = row;
        tracing::error!(source, account, key, reason, "a row cannot be read and is passed over from now on");
        if let Some(position) = row.position {
            connection
                .prepare_cached("DELETE FROM pending WHERE account = ?1 AND position = ?2")?
                .execute([row.account, position])?;
        }
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(records: usize, bytes: usize) -> Connection {
        let log = Connection::open_in_memory().expect("memory");
        log.execute_batch("CREATE TABLE log (arrival INTEGER PRIMARY KEY, account INTEGER, stanza BLOB)")
            .expect("a table");
        for _ in 0..records {
            log.execute("INSERT INTO log (account, stanza) VALUES (1, zeroblob(?1))", [bytes as i64]).expect("a row");
        }
        log
    }

    #[test]
    fn one_step_deletes_so_many_records_or_so_many_bytes() {
        let small = first_records(&log_of(2 * DELETED_ROWS, 100), 1).expect("read");
        assert_eq!(small.len(), DELETED_ROWS);
        let large = first_records(&log_of(20, DELETED_BYTES as usize / 4), 1).expect("read");
        assert_eq!(large, [1, 2, 3, 4]);
        let larger = first_records(&log_of(2, 2 * DELETED_BYTES as usize), 1).expect("read");
        assert_eq!(larger, [1], "at least one, whatever its size");
        assert_eq!(first_records(&log_of(2, 1), 2).expect("read"), [0_i64; 0], "another account's stay");
    }
}
