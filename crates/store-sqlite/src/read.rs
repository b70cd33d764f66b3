//! The readers: two threads, each with a connection that only reads.

use crate::apply::{SCRAM_SHA_1, SCRAM_SHA_256};
use crate::fulltext;
use crate::rows::{self, Decoded};
use crate::upkeep::Unreadable;
use crate::writer::Shared;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::*;
use tokio::sync::mpsc;
use xmpp::{BareJid, Stamp};

/// Reads that may wait; whoever asks for more waits for room.
pub const JOBS_MAX: usize = 1_024;

pub type Job = Box<dyn FnOnce(&Reader) + Send>;

pub struct Reader {
    pub connection: Connection,
    pub shared: Arc<Shared>,
}

impl Reader {
    /// Until the store is closed and all that waits is read.
    pub fn run(&self, jobs: &Mutex<mpsc::Receiver<Job>>) {
        loop {
            // One reader waits for a job, the other for the lock: each gets the next.
            let job = jobs.lock().blocking_recv();
            match job {
                Some(job) => job(self),
                None => return,
            }
        }
    }

    /// Reads in one transaction: a later commit is not seen half.
    pub fn transaction<T>(&self, read: impl FnOnce(&Reader) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let read = || {
            // Rolled back at its end: there is nothing to commit.
            let _transaction = self.connection.unchecked_transaction()?;
            read(self)
        };
        read().map_err(|error: rusqlite::Error| StoreError::Damaged(error.to_string()))
    }

    fn id(&self, account: &BareJid) -> rusqlite::Result<Option<i64>> {
        let mut find = self.connection.prepare_cached("SELECT id FROM accounts WHERE host = ?1 AND local = ?2")?;
        find.query_row(params![account.domain(), account.local().unwrap_or_default()], |row| row.get(0)).optional()
    }

    /// Rows that can be read, as long as more are `wanted`; the others are passed over and told to the writer. `key` names a row
    /// within its account.
    fn rows<T>(
        &self,
        sql: &'static str,
        values: impl Params,
        mut wanted: impl FnMut(&[T]) -> bool,
        decode: impl Fn(&Row<'_>) -> Decoded<T>,
        blame: impl Fn(&Row<'_>, String) -> Option<Unreadable>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        let mut read = Vec::new();
        while wanted(&read) {
            let Some(row) = rows.next()? else { break };
            match decode(row) {
                Ok(value) => read.push(value),
                Err(reason) => {
                    if let Some(unreadable) = blame(row, reason) {
                        self.shared.unreadable(unreadable);
                    }
                }
            }
        }
        Ok(read)
    }

    /// All rows of an account in a table whose first column names them.
    fn owned<T>(
        &self,
        source: &'static str,
        sql: &'static str,
        account: i64,
        decode: impl Fn(&Row<'_>) -> Decoded<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let blame = |row: &Row<'_>, reason| {
            let key = rows::text(row, 0).unwrap_or("?").into();
            Some(Unreadable { source, account, key, reason, position: None })
        };
        self.rows(sql, [account], |_| true, decode, blame)
    }

    fn records(
        &self,
        sql: &'static str,
        values: impl Params,
        account: i64,
        limit: usize,
    ) -> rusqlite::Result<Vec<Record>> {
        self.records_while(sql, values, account, |read| read.len() < limit)
    }

    /// So many records of the page, and one more that says that there are others, or as many as it has bytes for.
    fn records_of(
        &self,
        sql: &'static str,
        values: impl Params,
        account: i64,
        query: &PageQuery,
    ) -> rusqlite::Result<Page> {
        let (limit, mut bytes) = (query.limit.saturating_add(1), 0);
        let mut counted = 0;
        let wanted = |read: &[Record]| {
            bytes += read[counted..].iter().map(|record| record.stanza.len()).sum::<usize>();
            counted = read.len();
            read.len() < limit && query.has_room(bytes)
        };
        let mut records = self.records_while(sql, values, account, wanted)?;
        let complete = records.len() <= query.limit && query.has_room(bytes);
        records.truncate(query.limit);
        if query.backwards {
            records.reverse();
        }
        Ok(Page { records, complete, ..Page::default() })
    }

    fn records_while(
        &self,
        sql: &'static str,
        values: impl Params,
        account: i64,
        wanted: impl FnMut(&[Record]) -> bool,
    ) -> rusqlite::Result<Vec<Record>> {
        let blame = |row: &Row<'_>, reason| {
            let key = rows::integer(row, rows::RECORD_COLUMNS - 1).unwrap_or_default().to_string();
            Some(Unreadable { source: "log", account, key, reason, position: rows::integer(row, 0).ok() })
        };
        self.rows(sql, values, wanted, rows::record, blame)
    }

    pub fn load_account(&self, account: &BareJid) -> rusqlite::Result<Option<AccountRecord>> {
        let Some(id) = self.id(account)? else {
            return Ok(None);
        };
        let mut found = self.connection.prepare_cached(
            "SELECT created, disabled, roster_version, left_at, left_status FROM accounts WHERE id = ?1",
        )?;
        let mut loaded = found.query_row([id], |row| {
            let status = row.get_ref(4)?.as_str_or_null().ok().flatten().unwrap_or_default();
            Ok(AccountRecord {
                created: Stamp(row.get(0)?),
                disabled: row.get(1)?,
                roster_version: row.get::<_, i64>(2)?.max(0) as u64,
                last_activity: row.get::<_, Option<i64>>(3)?.map(|left| (Stamp(left), status.into())),
                ..AccountRecord::default()
            })
        })?;
        loaded.roster = self.owned(
            "roster",
            "SELECT contact, name, groups, subscription, listed, version FROM roster WHERE account = ?1 ORDER BY contact",
            id,
            rows::roster_item,
        )?;
        loaded.requests = self.owned(
            "requests",
            "SELECT contact, stanza, received FROM requests WHERE account = ?1 ORDER BY contact",
            id,
            rows::request,
        )?;
        loaded.blocks = self.owned("blocks", "SELECT jid FROM blocks WHERE account = ?1 ORDER BY jid", id, |row| {
            rows::jid(rows::text(row, 0)?)
        })?;
        loaded.sessions = self.owned(
            "sessions",
            "SELECT resource, epoch, resume_id_hash, presence, directed, since, received FROM sessions
             WHERE account = ?1 ORDER BY resource",
            id,
            rows::session,
        )?;
        loaded.sessions.retain(|row| row.epoch < self.shared.epoch);
        let mut last = self.connection.prepare_cached("SELECT max(position) FROM log WHERE account = ?1")?;
        loaded.last_position = last.query_row([id], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0);
        let mut pending = self
            .connection
            .prepare_cached("SELECT position, bytes FROM pending WHERE account = ?1 ORDER BY position")?;
        let mut marks = pending.query([id])?;
        while let Some(mark) = marks.next()? {
            loaded.pending.push(mark.get(0)?);
            loaded.pending_bytes += mark.get::<_, i64>(1)?.max(0) as u64;
        }
        let photo_hash = self.blob_of(id, PHOTO_HASH.0, PHOTO_HASH.1)?;
        loaded.photo_hash = photo_hash.and_then(|hash| String::from_utf8(hash).ok()).map(Into::into);
        let mut settings = self
            .connection
            .prepare_cached("SELECT key, value FROM blobs WHERE account = ?1 AND space = ?2 ORDER BY key")?;
        let mut rows = settings.query(params![id, SETTINGS])?;
        while let Some(row) = rows.next()? {
            loaded.settings.push((row.get::<_, String>(0)?.into(), row.get(1)?));
        }
        Ok(Some(loaded))
    }

    pub fn login(&self, account: &BareJid) -> rusqlite::Result<Option<Login>> {
        let Some(id) = self.id(account)? else {
            return Ok(None);
        };
        let sql = "SELECT mechanism, salt, iterations, stored_key, server_key FROM credentials WHERE account = ?1";
        let keys = self.owned("credentials", sql, id, |row| {
            rows::scram(row).map(|(mechanism, keys)| (mechanism.to_owned(), keys))
        })?;
        let mut credentials = Credentials { scram_sha1: None, scram_sha256: None };
        for (mechanism, keys) in keys {
            match mechanism.as_str() {
                SCRAM_SHA_1 => credentials.scram_sha1 = Some(keys),
                SCRAM_SHA_256 => credentials.scram_sha256 = Some(keys),
                // Of a later version.
                _ => {}
            }
        }
        let mut found = self.connection.prepare_cached("SELECT disabled FROM accounts WHERE id = ?1")?;
        let disabled = found.query_row([id], |row| row.get(0))?;
        Ok(Some(Login { credentials, disabled }))
    }

    pub fn tokens(&self, account: &BareJid, client: &str) -> rusqlite::Result<Vec<Token>> {
        let Some(id) = self.id(account)? else {
            return Ok(Vec::new());
        };
        let blame = |row: &Row<'_>, reason| {
            let key = [client, " ", rows::text(row, 1).unwrap_or("?")].concat();
            Some(Unreadable { source: "tokens", account: id, key, reason, position: None })
        };
        let sql = "SELECT client, mechanism, secret, expires, previous, previous_expires, count FROM tokens
                   WHERE account = ?1 AND client = ?2 ORDER BY mechanism";
        self.rows(sql, params![id, client], |_| true, rows::token, blame)
    }

    pub fn inbox_after(
        &self,
        account: &BareJid,
        after: i64,
        only_pending: bool,
        limit: usize,
    ) -> rusqlite::Result<Vec<Record>> {
        const ALL: &str = "
            SELECT log.position, outgoing, peer, resource, stanza, pending.position IS NOT NULL, log.archived, dedupe,
                expires, log.arrival
            FROM log LEFT JOIN pending ON pending.account = log.account AND pending.position = log.position
            WHERE log.account = ?1 AND log.position > ?2 ORDER BY log.position";
        let Some(id) = self.id(account)? else {
            return Ok(Vec::new());
        };
        self.records(if only_pending { PENDING } else { ALL }, [id, after], id, limit)
    }

    /// See [`Store::overdue`].
    pub fn overdue(
        &self,
        behind: Option<WaitingPlace>,
        limit: usize,
        now: Stamp,
        before: Stamp,
    ) -> rusqlite::Result<Overdue> {
        let behind = behind.unwrap_or(WaitingPlace { account: i64::MIN, position: i64::MIN });
        let mut page = self.connection.prepare_cached(WAITING)?;
        let mut rows = page.query(params![behind.account, behind.position, limit as i64, now.0, before.0])?;
        let (mut seen, mut last, mut over) = (0, None, Vec::new());
        while let Some(row) = rows.next()? {
            seen += 1;
            let place = WaitingPlace { account: row.get(0)?, position: row.get(1)? };
            last = Some(place);
            if row.get::<_, bool>(2)? {
                over.push(place);
            }
        }
        let mut records = Vec::with_capacity(over.len());
        let mut name = self.connection.prepare_cached("SELECT local, host FROM accounts WHERE id = ?1")?;
        for WaitingPlace { account, position } in over {
            // (What belongs to a removed account waits to be deleted.)
            let named = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
            let Some((local, host)) = name.query_row([account], named).optional()? else { continue };
            let Ok(jid) = rows::account(&local, &host) else { continue };
            let found = self.records(PENDING, [account, position - 1], account, 1)?;
            records.extend(found.into_iter().filter(|it| it.position == position).map(|record| (jid.clone(), record)));
        }
        Ok(Overdue { records, next: last.filter(|_| seen == limit) })
    }

    /// XEP-0313 §4.
    pub fn inbox_page(&self, account: &BareJid, query: &PageQuery) -> rusqlite::Result<Page> {
        let empty = Page { complete: true, ..Page::default() };
        let Some(id) = self.id(account)? else {
            return Ok(empty);
        };
        if !query.ids.is_empty() {
            return self.page_of_ids(id, query);
        }
        if let Some(text) = &query.text {
            return self.page_of_words(id, query, text);
        }
        let mut page = self.page_of_range(id, query)?;
        if query.want_count {
            page.count = self.count(id, query, query.last_position())?;
            let unbounded = query.after.is_none() && query.before.is_none();
            page.first_index = match (page.count, page.records.first()) {
                (Some(count), Some(_)) if unbounded && query.backwards => {
                    Some(count.saturating_sub(page.records.len() as u64))
                }
                (Some(_), Some(_)) if unbounded => Some(0),
                (Some(_), Some(first)) => self.count(id, query, first.position - 1)?,
                _ => None,
            };
        }
        Ok(page)
    }

    fn page_of_range(&self, id: i64, query: &PageQuery) -> rusqlite::Result<Page> {
        let page = Page { complete: true, ..Page::default() };
        // No position lies behind the greatest number, or before the least.
        let first = query.after.map_or(Some(i64::MIN), |after| after.checked_add(1));
        let last = query.before.map_or(Some(i64::MAX), |before| before.checked_sub(1));
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(page);
        };
        let (first, last) = (first.max(query.first_position()), last.min(query.last_position()));
        let (peer, resource) = with(query);
        match (peer, query.backwards) {
            (None, false) => self.records_of(FORWARDS, [id, first, last], id, query),
            (None, true) => self.records_of(BACKWARDS, [id, first, last], id, query),
            (Some(peer), backwards) => {
                let sql = if backwards { BACKWARDS_WITH } else { FORWARDS_WITH };
                self.records_of(sql, params![id, first, last, peer, resource], id, query)
            }
        }
    }

    /// XEP-0431. The index gives its rows in the order of arrival, which within an account is that of positions.
    fn page_of_words(&self, id: i64, query: &PageQuery, text: &str) -> rusqlite::Result<Page> {
        const FORWARDS: &str = "
            SELECT log.position, outgoing, peer, resource, stanza, pending.position IS NOT NULL, log.archived, dedupe,
                expires, log.arrival
            FROM fulltext CROSS JOIN log ON log.arrival = fulltext.rowid
            LEFT JOIN pending ON pending.account = log.account AND pending.position = log.position
            WHERE fulltext MATCH ?6 AND log.account = ?1 AND log.position BETWEEN ?2 AND ?3 AND log.archived
                AND (?4 IS NULL OR peer = ?4) AND (?5 IS NULL OR resource = ?5)
            ORDER BY fulltext.rowid";
        const BACKWARDS: &str = "
            SELECT log.position, outgoing, peer, resource, stanza, pending.position IS NOT NULL, log.archived, dedupe,
                expires, log.arrival
            FROM fulltext CROSS JOIN log ON log.arrival = fulltext.rowid
            LEFT JOIN pending ON pending.account = log.account AND pending.position = log.position
            WHERE fulltext MATCH ?6 AND log.account = ?1 AND log.position BETWEEN ?2 AND ?3 AND log.archived
                AND (?4 IS NULL OR peer = ?4) AND (?5 IS NULL OR resource = ?5)
            ORDER BY fulltext.rowid DESC";
        let page = Page { complete: true, ..Page::default() };
        let first = query.after.map_or(Some(i64::MIN), |after| after.checked_add(1));
        let last = query.before.map_or(Some(i64::MAX), |before| before.checked_sub(1));
        let (Some(first), Some(last), Some(words)) = (first, last, fulltext::expression(id, text)) else {
            return Ok(page);
        };
        let (first, last) = (first.max(query.first_position()), last.min(query.last_position()));
        let (peer, resource) = with(query);
        let sql = if query.backwards { BACKWARDS } else { FORWARDS };
        self.records_of(sql, params![id, first, last, peer, resource, words], id, query)
    }

    /// How many match up to a position; `None` if too much had to be looked at for that.
    fn count(&self, id: i64, query: &PageQuery, last: i64) -> rusqlite::Result<Option<u64>> {
        let (peer, resource) = with(query);
        let most = match resource {
            Some(_) => COUNT_MAX / COUNT_RESOURCE_SHARE,
            None => COUNT_MAX,
        } as i64;
        let first = query.first_position();
        let numbers = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let (seen, counted) = match (peer, resource) {
            (None, _) => self.connection.prepare_cached(COUNT)?.query_row([id, first, last, most + 1], numbers)?,
            (Some(peer), None) => {
                let mut count = self.connection.prepare_cached(COUNT_WITH)?;
                count.query_row(params![id, first, last, peer, most + 1], numbers)?
            }
            (Some(peer), Some(resource)) => {
                let mut count = self.connection.prepare_cached(COUNT_WITH_RESOURCE)?;
                count.query_row(params![id, first, last, peer, most + 1, resource], numbers)?
            }
        };
        Ok((seen <= most).then_some(counted as u64))
    }

    fn page_of_ids(&self, id: i64, query: &PageQuery) -> rusqlite::Result<Page> {
        const ONE: &str = "
            SELECT log.position, outgoing, peer, resource, stanza, pending.position IS NOT NULL, log.archived, dedupe,
                expires, log.arrival
            FROM log LEFT JOIN pending ON pending.account = log.account AND pending.position = log.position
            WHERE log.account = ?1 AND log.position = ?2 AND log.archived";
        let mut ids = query.ids.clone();
        ids.sort_unstable();
        ids.dedup();
        let mut matches = Vec::new();
        for position in ids {
            matches
                .extend(self.records(ONE, [id, position], id, 1)?.into_iter().filter(|record| query.matches(record)));
        }
        let count = matches.len() as u64;
        let before =
            matches.iter().take_while(|record| query.after.is_some_and(|after| record.position <= after)).count();
        let mut records: Vec<Record> = matches.into_iter().filter(|record| query.pages(record.position)).collect();
        let complete = records.len() <= query.limit;
        let dropped = if query.backwards { records.len().saturating_sub(query.limit) } else { 0 };
        records.drain(..dropped);
        records.truncate(query.limit);
        let first_index = (query.want_count && !records.is_empty()).then_some((before + dropped) as u64);
        Ok(Page { records, complete, count: query.want_count.then_some(count), first_index })
    }

    pub fn blob(&self, account: &BareJid, space: &str, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
        let Some(id) = self.id(account)? else {
            return Ok(None);
        };
        self.blob_of(id, space, key)
    }

    fn blob_of(&self, id: i64, space: &str, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
        let sql = "SELECT value FROM blobs WHERE account = ?1 AND space = ?2 AND key = ?3";
        self.connection.prepare_cached(sql)?.query_row(params![id, space, key], |row| row.get(0)).optional()
    }

    pub fn accounts(&self, host: &str, after: &str, limit: usize) -> rusqlite::Result<Vec<AccountSummary>> {
        const FIRST: &str = "
            SELECT host, local, created, disabled, left_at, id FROM accounts
            WHERE host = ?1 AND local >= ?2 ORDER BY local";
        const NEXT: &str = "
            SELECT host, local, created, disabled, left_at, id FROM accounts
            WHERE host = ?1 AND local > ?2 ORDER BY local";
        let after = after.split('@').next().unwrap_or_default();
        let decode = |row: &Row<'_>| {
            Ok(AccountSummary {
                account: rows::account(rows::text(row, 1)?, rows::text(row, 0)?)?,
                created: Stamp(rows::integer(row, 2)?),
                disabled: rows::flag(row, 3)?,
                last_activity: rows::optional(row, 4, rows::integer)?.map(Stamp),
            })
        };
        let sql = if after.is_empty() { FIRST } else { NEXT };
        self.rows(
            sql,
            params![host, after],
            |read| read.len() < limit,
            decode,
            |row, reason| account_unreadable(row, 5, reason),
        )
    }

    pub fn key_figures(&self) -> rusqlite::Result<BTreeMap<Box<str>, KeyFigures>> {
        let sql = "
            SELECT sha1, sha256, count(*), host FROM (
                SELECT account, max(mechanism = ?1) AS sha1, max(mechanism = ?2) AS sha256 FROM credentials
                GROUP BY account)
            JOIN accounts ON accounts.id = account GROUP BY host, sha1, sha256";
        let mut figures: BTreeMap<Box<str>, KeyFigures> = BTreeMap::new();
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![SCRAM_SHA_1, SCRAM_SHA_256])?;
        while let Some(row) = rows.next()? {
            let of_host = figures.entry(row.get(3)?).or_default();
            of_host.add(row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs());
        }
        Ok(figures)
    }

    pub fn session_ledger(&self) -> rusqlite::Result<Vec<(BareJid, SessionRow)>> {
        let decode =
            |row: &Row<'_>| Ok((rows::account(rows::text(row, 8)?, rows::text(row, 7)?)?, rows::session(row)?));
        let blame = |row: &Row<'_>, reason| {
            let key = rows::text(row, 0).unwrap_or("?").into();
            let account = rows::integer(row, 9).unwrap_or_default();
            Some(Unreadable { source: "sessions", account, key, reason, position: None })
        };
        let sql = "SELECT resource, epoch, resume_id_hash, presence, directed, since, received, host, local, id
                   FROM sessions JOIN accounts ON accounts.id = sessions.account
                   WHERE epoch < ?1 ORDER BY sessions.account, resource";
        self.rows(sql, [self.shared.epoch as i64], |_| true, decode, blame)
    }
}

impl Reader {
    pub fn outbox(&self, after: i64, limit: usize) -> rusqlite::Result<Vec<OutboxRow>> {
        let sql = "SELECT id, local, remote, accepted, stanza FROM outbox WHERE id > ?1 ORDER BY id";
        let blame = |row: &Row<'_>, reason| {
            let key = rows::integer(row, 0).unwrap_or_default().to_string();
            Some(Unreadable { source: "outbox", account: 0, key, reason, position: None })
        };
        self.rows(sql, [after], |read| read.len() < limit, rows::outbox, blame)
    }

    pub fn domains_reached(&self) -> rusqlite::Result<Vec<(BareJid, Box<str>, Stamp)>> {
        let sql = "SELECT local, remote, reached FROM domains";
        let blame = |row: &Row<'_>, reason| {
            let key = rows::text(row, 1).unwrap_or("?").into();
            Some(Unreadable { source: "domains", account: 0, key, reason, position: None })
        };
        self.rows(sql, [], |_| true, rows::domain, blame)
    }
}

/// What waits in an account, behind a position.
const PENDING: &str = "
    SELECT log.position, outgoing, peer, resource, stanza, 1, log.archived, dedupe, expires, log.arrival
    FROM pending CROSS JOIN log ON log.arrival = pending.arrival
    WHERE pending.account = ?1 AND pending.position > ?2 ORDER BY pending.position";
/// What waits in any, and whether for too long.
const WAITING: &str = "
    SELECT pending.account, pending.position, pending.position < ?5 OR coalesce(expires <= ?4, 0)
    FROM pending CROSS JOIN log ON log.arrival = pending.arrival
    WHERE (pending.account, pending.position) > (?1, ?2) ORDER BY pending.account, pending.position LIMIT ?3";
/// A page of an archive: account, first and last position.
const FORWARDS: &str = "
    SELECT log.position, outgoing, peer, resource, stanza, pending.position IS NOT NULL, log.archived, dedupe,
        expires, log.arrival
    FROM log LEFT JOIN pending ON pending.account = log.account AND pending.position = log.position
    WHERE log.account = ?1 AND log.position BETWEEN ?2 AND ?3 AND log.archived
    ORDER BY log.position";
const BACKWARDS: &str = "
    SELECT log.position, outgoing, peer, resource, stanza, pending.position IS NOT NULL, log.archived, dedupe,
        expires, log.arrival
    FROM log LEFT JOIN pending ON pending.account = log.account AND pending.position = log.position
    WHERE log.account = ?1 AND log.position BETWEEN ?2 AND ?3 AND log.archived
    ORDER BY log.position DESC";
/// The same with one peer: only the spans in which it is there are looked at.
const FORWARDS_WITH: &str = "
    SELECT log.position, outgoing, log.peer, resource, stanza, pending.position IS NOT NULL, log.archived, dedupe,
        expires, log.arrival
    FROM peers CROSS JOIN log ON log.account = ?1
        AND log.position BETWEEN max(?2, peers.span << 30) AND min(?3, (peers.span << 30) + 1073741823)
    LEFT JOIN pending ON pending.account = log.account AND pending.position = log.position
    WHERE peers.account = ?1 AND peers.peer = ?4 AND peers.span BETWEEN ?2 >> 30 AND ?3 >> 30
        AND log.archived AND log.peer = ?4 AND (?5 IS NULL OR resource = ?5)
    ORDER BY peers.span, log.position";
const BACKWARDS_WITH: &str = "
    SELECT log.position, outgoing, log.peer, resource, stanza, pending.position IS NOT NULL, log.archived, dedupe,
        expires, log.arrival
    FROM peers CROSS JOIN log ON log.account = ?1
        AND log.position BETWEEN max(?2, peers.span << 30) AND min(?3, (peers.span << 30) + 1073741823)
    LEFT JOIN pending ON pending.account = log.account AND pending.position = log.position
    WHERE peers.account = ?1 AND peers.peer = ?4 AND peers.span BETWEEN ?2 >> 30 AND ?3 >> 30
        AND log.archived AND log.peer = ?4 AND (?5 IS NULL OR resource = ?5)
    ORDER BY peers.span DESC, log.position DESC";
/// How many records were looked at, up to a bound, and how many of them match. Answered by the index alone.
const COUNT: &str = "
    SELECT count(*), coalesce(sum(archived), 0) FROM (
        SELECT archived FROM log WHERE account = ?1 AND position BETWEEN ?2 AND ?3 LIMIT ?4)";
const COUNT_WITH: &str = "
    SELECT count(*), coalesce(sum(matches), 0) FROM (
        SELECT log.archived AND log.peer = ?4 AS matches FROM peers CROSS JOIN log ON log.account = ?1
            AND log.position BETWEEN max(?2, peers.span << 30) AND min(?3, (peers.span << 30) + 1073741823)
        WHERE peers.account = ?1 AND peers.peer = ?4 AND peers.span BETWEEN ?2 >> 30 AND ?3 >> 30
        LIMIT ?5)";
/// With one resource of a peer: that is not in the index.
const COUNT_WITH_RESOURCE: &str = "
    SELECT count(*), coalesce(sum(matches), 0) FROM (
        SELECT log.archived AND log.peer = ?4 AND resource IS ?6 AS matches FROM peers CROSS JOIN log ON log.account = ?1
            AND log.position BETWEEN max(?2, peers.span << 30) AND min(?3, (peers.span << 30) + 1073741823)
        WHERE peers.account = ?1 AND peers.peer = ?4 AND peers.span BETWEEN ?2 >> 30 AND ?3 >> 30
        LIMIT ?5)";
/// Each record that is looked at for its resource costs as much as so many that are not.
const COUNT_RESOURCE_SHARE: u64 = 8;

fn account_unreadable(row: &Row<'_>, id: usize, reason: String) -> Option<Unreadable> {
    let account = rows::integer(row, id).ok()?;
    Some(Unreadable { source: "accounts", account, key: account.to_string(), reason, position: None })
}

/// Bare JID and resource that a page is filtered by.
fn with(query: &PageQuery) -> (Option<&str>, Option<&str>) {
    match &query.with {
        Some(jid) => match jid.as_str().split_once('/') {
            Some((bare, resource)) => (Some(bare), Some(resource)),
            None => (Some(jid.as_str()), None),
        },
        None => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What SQLite says it will do, a line a table.
    fn plan(sql: &str) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("waft.db");
        let mut connection = Connection::open(&path).expect("it is new");
        crate::schema::migrate(&mut connection, &path, "0.0.0", Stamp(0)).expect("it is new");
        let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("it is SQL");
        let values = vec![1_i64; explain.parameter_count()];
        let rows = explain.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3));
        rows.and_then(Iterator::collect).expect("it is explained")
    }

    #[test]
    fn what_waits_is_looked_through_in_the_order_in_which_it_lies() {
        let plan = plan(WAITING);
        assert!(plan[0].contains("SEARCH pending USING PRIMARY KEY ((account,position)>(?,?))"), "{plan:?}");
        assert!(plan[1].contains("SEARCH log USING INTEGER PRIMARY KEY") && plan.len() == 2, "{plan:?}");
    }

    #[test]
    fn a_page_passes_what_it_shows_and_no_more() {
        for sql in [FORWARDS, BACKWARDS, FORWARDS_WITH, BACKWARDS_WITH, COUNT, COUNT_WITH, COUNT_WITH_RESOURCE] {
            let plan = plan(sql);
            let has = |text: &str| plan.iter().any(|line| line.contains(text));
            assert!(has("log_by_account (account=? AND position>? AND position<?)"), "{plan:?}");
            assert!(!has("SCAN log") && !has("SCAN peers") && !has("TEMP B-TREE"), "{plan:?}");
            let spans = "SEARCH peers USING PRIMARY KEY (account=? AND peer=? AND span>? AND span<?)";
            assert_eq!(has(spans), sql.contains("peers"), "{plan:?}");
            assert_eq!(has("COVERING INDEX log_by_account"), [COUNT, COUNT_WITH].contains(&sql), "{plan:?}");
        }
    }
}
