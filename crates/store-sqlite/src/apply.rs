//! Changes as rows. Everything here runs in the writer's transaction.

use crate::rows;
use crate::trim::Trim;
use rusqlite::{CachedStatement, Connection, OptionalExtension, ToSql, params};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use store::{
    Change, Credentials, Direction, Key, Outcome, Record, RosterItem, ScramKeys, SessionRow, TOKENS_PER_ACCOUNT_MAX,
    Token,
};
use xmpp::{BareJid, Stamp};

/// Accounts and dedupe keys that the writer remembers (some 32 bytes a key); with more it starts afresh.
const KNOWN_MAX: usize = 65_536;
const KEYS_MAX: usize = 4_000_000;
/// Of an account's keys these many are remembered, the latest.
const ACCOUNT_KEYS_MAX: i64 = 100_000;
/// A dedupe key is kept this long at least.
pub const KEY_HOURS_MIN: i64 = 24;

pub const MICROSECONDS_PER_HOUR: i64 = 3_600_000_000;
/// A span, in which an account's archive has something with a peer or not, is of positions that are the same but for so
/// many bits: some 18 minutes.
pub const SPAN_BITS: i64 = 30;
/// Spans of peers that the writer remembers to have noted; with more it starts afresh.
const PEERS_MAX: usize = 1_000_000;

/// Why a change was not done.
pub enum Stop {
    /// The call cannot be done, whatever the disk says.
    Refused(String),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Stop {
        Stop::Sql(error)
    }
}

/// What the writer remembers between commits; all of it can be read again.
///
/// The dedupe keys of the last day are looked up here: an index of them on disk would cost a page a record. They are
/// read, an account at a time, from the index of the log, or from the table `dedupe` if their record may go earlier.
#[derive(Default)]
pub struct Memory {
    known: HashMap<BareJid, Known>,
    /// Hash over account and key → position. What is found is compared with what is on disk.
    keys: HashMap<u64, i64, BuildHasherDefault<Hashed>>,
    /// Hashes over account, peer and span, whose rows of `peers` are there.
    peers: HashSet<u64, BuildHasherDefault<Hashed>>,
    hash: RandomState,
}

/// Passes a hash on.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed again");
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[derive(Clone, Copy)]
struct Known {
    id: i64,
    /// The last position appended.
    last: i64,
    /// Are its dedupe keys in memory?
    keyed: bool,
}

impl Memory {
    /// After a rollback nothing remembered can be trusted.
    pub fn forget(&mut self) {
        self.known.clear();
        self.keys.clear();
        self.peers.clear();
    }

    /// What was deleted is not there any more.
    pub fn notice(&mut self, tally: &Tally) {
        if tally.spans > 0 {
            self.peers.clear();
        }
    }

    fn hash(&self, id: i64, key: &[u8; 16]) -> u64 {
        self.hash.hash_one((id, key))
    }
}

/// What a transaction changed of what is counted; added up once it is committed.
#[derive(Default, Clone, Copy)]
pub struct Tally {
    pub accounts: i64,
    pub records: i64,
    /// Rows written to `dedupe`.
    pub keys: u64,
    /// Accounts removed, whose log waits to be deleted.
    pub removed: u64,
    /// Rows deleted from `peers`, which the writer may believe to be there.
    pub spans: u64,
}

/// One transaction's hands.
pub struct Applier<'c> {
    connection: &'c Connection,
    pub memory: &'c mut Memory,
    pub tally: Tally,
    /// What is to be gone on with when the transaction is done.
    pub trims: Vec<Trim>,
    now: Stamp,
    log: Hot<'c>,
    mark: Hot<'c>,
    clear: Hot<'c>,
}

/// A statement that nearly every call needs: looked up once a transaction.
struct Hot<'c>(Option<CachedStatement<'c>>);

impl<'c> Hot<'c> {
    fn of(&mut self, connection: &'c Connection, sql: &'static str) -> rusqlite::Result<&mut CachedStatement<'c>> {
        match &mut self.0 {
            Some(statement) => Ok(statement),
            none => Ok(none.insert(connection.prepare_cached(sql)?)),
        }
    }
}

/// The hour that a time is in.
pub fn hour(at: Stamp) -> i64 {
    at.0.div_euclid(MICROSECONDS_PER_HOUR)
}

impl<'c> Applier<'c> {
    pub fn new(connection: &'c Connection, memory: &'c mut Memory, now: Stamp) -> Applier<'c> {
        let tally = Tally::default();
        Applier { connection, memory, tally, trims: Vec::new(), now, log: Hot(None), mark: Hot(None), clear: Hot(None) }
    }

    pub fn call(&mut self, changes: &[Change]) -> Result<Vec<Outcome>, Stop> {
        changes.iter().map(|change| self.change(change)).collect()
    }

    fn statement(&self, sql: &'static str) -> rusqlite::Result<CachedStatement<'c>> {
        self.connection.prepare_cached(sql)
    }

    fn run(&self, sql: &'static str, values: &[&dyn ToSql]) -> rusqlite::Result<usize> {
        self.statement(sql)?.execute(values)
    }

    fn change(&mut self, change: &Change) -> Result<Outcome, Stop> {
        if let Change::AccountCreate { account, credentials, created } = change {
            return self.create(account, credentials, created.0);
        }
        if let Some(done) = self.of_other_domains(change)? {
            return Ok(done);
        }
        let account = change.account();
        let Some(known) = self.known(account)? else {
            return Ok(Outcome::NoAccount);
        };
        let id = known.id;
        match change {
            Change::AccountCreate { .. }
            | Change::OutboxPut { .. }
            | Change::OutboxDelete { .. }
            | Change::DomainReached { .. } => unreachable!("handled above"),
            Change::Append { record, .. } => {
                return self.append(account, known, record);
            }
            Change::Taken { positions, .. } => self.taken(id, positions)?,
            Change::AccountRemove { .. } => self.remove(account, id)?,
            Change::CredentialsSet { credentials, .. } => {
                self.credentials(id, credentials)?;
                self.run("DELETE FROM tokens WHERE account = ?1", &[&id])?;
            }
            Change::CredentialsAdd { keys, beside, .. } => self.credentials_add(id, keys, beside)?,
            Change::AccountDisable { disabled, .. } => {
                self.run("UPDATE accounts SET disabled = ?2 WHERE id = ?1", &[&id, disabled])?;
            }
            Change::RosterPut { item, version, .. } => self.roster_put(id, item, *version)?,
            Change::RosterDelete { contact, version, .. } => {
                self.run("DELETE FROM roster WHERE account = ?1 AND contact = ?2", &[&id, &contact.as_str()])?;
                self.roster_version(id, *version)?;
            }
            Change::RequestPut { contact, stanza, received, .. } => {
                self.run(
                    "INSERT INTO requests (account, contact, stanza, received) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (account, contact) DO UPDATE SET stanza = excluded.stanza, received = excluded.received",
                    &[&id, &contact.as_str(), stanza, &received.0],
                )?;
            }
            Change::RequestDelete { contact, .. } => {
                self.run("DELETE FROM requests WHERE account = ?1 AND contact = ?2", &[&id, &contact.as_str()])?;
            }
            Change::Prune { up_to, .. } => self.prune(id, *up_to)?,
            Change::Rewrite { position, stanza, .. } => self.rewrite(id, *position, stanza)?,
            Change::Trim { before, records_max, bytes_max, .. } => {
                let mut trim = Trim::new(id, *before, *records_max, *bytes_max);
                if trim.step(self.connection, self.now, &mut self.tally)? {
                    self.trims.push(trim);
                }
                self.memory.notice(&self.tally);
            }
            Change::SessionPut { row, .. } => self.session_put(id, row)?,
            Change::SessionDelete { resource, .. } => {
                self.run("DELETE FROM sessions WHERE account = ?1 AND resource = ?2", &[&id, resource])?;
            }
            Change::ReceivedDelete { resource, .. } => {
                self.run("UPDATE sessions SET received = NULL WHERE account = ?1 AND resource = ?2", &[&id, resource])?;
            }
            Change::BlobPut { space, key, value, .. } => {
                self.run(
                    "INSERT INTO blobs (account, space, key, value) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (account, space, key) DO UPDATE SET value = excluded.value",
                    &[&id, space, key, value],
                )?;
            }
            Change::BlobDelete { space, key, .. } => {
                self.run("DELETE FROM blobs WHERE account = ?1 AND space = ?2 AND key = ?3", &[&id, space, key])?;
            }
            Change::BlockPut { jid, .. } => {
                let sql = "INSERT INTO blocks (account, jid) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
                self.run(sql, &[&id, &jid.as_str()])?;
            }
            Change::BlockDelete { jid, .. } => {
                self.run("DELETE FROM blocks WHERE account = ?1 AND jid = ?2", &[&id, &jid.as_str()])?;
            }
            Change::TokenPut { token, .. } => self.token_put(id, token)?,
            Change::TokenDelete { client, mechanism, .. } => {
                let sql = "DELETE FROM tokens WHERE account = ?1 AND client = ?2 AND mechanism = ?3";
                self.run(sql, &[&id, client, mechanism])?;
            }
            Change::LastActivity { left, status, .. } => {
                let sql = "UPDATE accounts SET left_at = ?2, left_status = ?3 WHERE id = ?1";
                self.run(sql, &[&id, &left.0, status])?;
            }
        }
        Ok(Outcome::Done)
    }

    /// Rows that belong to a pair of domains and to no account.
    fn of_other_domains(&mut self, change: &Change) -> rusqlite::Result<Option<Outcome>> {
        match change {
            Change::OutboxPut { row } => {
                let sql = "INSERT INTO outbox (id, local, remote, accepted, stanza) VALUES (?1, ?2, ?3, ?4, ?5)
                           ON CONFLICT DO NOTHING";
                self.run(sql, &[&row.id, &row.local.as_str(), &row.remote, &row.accepted.0, &row.stanza])?;
            }
            Change::OutboxDelete { ids, .. } => {
                for id in ids {
                    self.run("DELETE FROM outbox WHERE id = ?1", &[id])?;
                }
            }
            Change::DomainReached { local, remote, at } => {
                let sql = "INSERT INTO domains (local, remote, reached) VALUES (?1, ?2, ?3)
                           ON CONFLICT (local, remote) DO UPDATE SET reached = excluded.reached";
                self.run(sql, &[&local.as_str(), remote, &at.0])?;
            }
            _ => return Ok(None),
        }
        Ok(Some(Outcome::Done))
    }

    /// Id and last position of an account, remembered or read.
    fn known(&mut self, account: &BareJid) -> rusqlite::Result<Option<Known>> {
        if let Some(known) = self.memory.known.get(account) {
            return Ok(Some(*known));
        }
        let mut find = self.statement("SELECT id FROM accounts WHERE host = ?1 AND local = ?2")?;
        let named = params![account.domain(), account.local().unwrap_or_default()];
        let Some(id) = find.query_row(named, |row| row.get(0)).optional()? else {
            return Ok(None);
        };
        let mut last = self.statement("SELECT max(position) FROM log WHERE account = ?1")?;
        let last = last.query_row([id], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0);
        if self.memory.known.len() >= KNOWN_MAX {
            self.memory.forget();
        }
        let known = Known { id, last, keyed: false };
        self.memory.known.insert(account.clone(), known);
        Ok(Some(known))
    }

    fn append(&mut self, account: &BareJid, known: Known, record: &Record) -> Result<Outcome, Stop> {
        let Known { id, last, keyed } = known;
        if let Some(key) = &record.dedupe {
            if !keyed {
                self.remember_keys(account, id)?;
            }
            if let Some(position) = self.duplicate(id, key)? {
                return Ok(Outcome::Duplicate(position));
            }
        }
        if record.position <= last {
            return Err(Stop::Refused(store::position_must_grow(record.position, last)));
        }
        if let Some(known) = self.memory.known.get_mut(account) {
            known.last = record.position;
        }
        if let Some(key) = &record.dedupe {
            let hash = self.memory.hash(id, key);
            self.memory.keys.insert(hash, record.position);
            if !record.archived {
                let sql = "INSERT INTO dedupe (account, key, position, hour) VALUES (?1, ?2, ?3, ?4)
                           ON CONFLICT (account, key) DO UPDATE SET position = excluded.position, hour = excluded.hour";
                let mut keep = self.statement(sql)?;
                keep.execute(params![id, key, record.position, hour(self.now)])?;
                self.tally.keys += 1;
            }
        }
        if !record.pending && !record.archived {
            return Ok(Outcome::Done);
        }
        let peer = record.peer.as_str();
        let (peer, resource) = match peer.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource)),
            None => (peer, None),
        };
        let insert = self.log.of(
            self.connection,
            "INSERT INTO log (account, position, peer, resource, outgoing, archived, expires, dedupe, stanza)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        insert.execute(params![
            id,
            record.position,
            peer,
            resource,
            record.direction == Direction::Outgoing,
            record.archived,
            record.expires.map(|expires| expires.0),
            record.dedupe,
            record.stanza,
        ])?;
        self.tally.records += 1;
        if record.archived {
            self.note_peer(id, peer, record.position >> SPAN_BITS)?;
        }
        if record.pending {
            let arrival = self.connection.last_insert_rowid();
            let sql = "INSERT INTO pending (account, position, arrival, archived, bytes) VALUES (?1, ?2, ?3, ?4, ?5)";
            let bytes = record.stanza.len() as i64;
            let mark = self.mark.of(self.connection, sql)?;
            mark.execute(params![id, record.position, arrival, record.archived, bytes])?;
        }
        Ok(Outcome::Done)
    }

    /// In this span the archive has something of this peer.
    fn note_peer(&mut self, id: i64, peer: &str, span: i64) -> rusqlite::Result<()> {
        if self.memory.peers.len() >= PEERS_MAX {
            self.memory.peers.clear();
        }
        let hash = self.memory.hash.hash_one((id, peer, span));
        if self.memory.peers.insert(hash) {
            let sql = "INSERT INTO peers (account, peer, span) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            self.run(sql, &[&id, &peer, &span])?;
        }
        Ok(())
    }

    /// The outcomes of a call that only says again what the log has; `None` if it says more. Nothing is written.
    pub fn said_again(&mut self, changes: &[Change]) -> Result<Option<Vec<Outcome>>, Stop> {
        if !changes.iter().any(|change| matches!(change, Change::Append { .. })) {
            return Ok(None);
        }
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            let outcome = match change {
                Change::Append { account, record } => {
                    let (Some(key), Some(known)) = (&record.dedupe, self.known(account)?) else { return Ok(None) };
                    if !known.keyed {
                        self.remember_keys(account, known.id)?;
                    }
                    let Some(position) = self.duplicate(known.id, key)? else { return Ok(None) };
                    Outcome::Duplicate(position)
                }
                // What belongs to a record was written with it.
                Change::BlobPut { .. } => Outcome::Done,
                _ => return Ok(None),
            };
            outcomes.push(outcome);
        }
        Ok(Some(outcomes))
    }

    /// Reads the dedupe keys of an account's last day.
    fn remember_keys(&mut self, account: &BareJid, id: i64) -> rusqlite::Result<()> {
        const LOGGED: &str = "
            SELECT dedupe, position FROM log WHERE account = ?1 AND position > ?2 AND dedupe IS NOT NULL
            ORDER BY position DESC LIMIT ?3";
        const KEPT: &str = "SELECT key, position FROM dedupe WHERE account = ?1 LIMIT ?2";
        if self.memory.keys.len() >= KEYS_MAX {
            let known = self.memory.known.get(account).copied();
            self.memory.forget();
            self.memory.known.extend(known.map(|known| (account.clone(), known)));
        }
        let since = self.now.0 - KEY_HOURS_MIN * MICROSECONDS_PER_HOUR;
        let mut logged = self.statement(LOGGED)?;
        let mut kept = self.statement(KEPT)?;
        let logged = logged.query(params![id, since, ACCOUNT_KEYS_MAX])?;
        let kept = kept.query(params![id, ACCOUNT_KEYS_MAX])?;
        for mut rows in [logged, kept] {
            while let Some(row) = rows.next()? {
                let hash = self.memory.hash(id, &row.get(0)?);
                self.memory.keys.insert(hash, row.get(1)?);
            }
        }
        if let Some(known) = self.memory.known.get_mut(account) {
            known.keyed = true;
        }
        Ok(())
    }

    /// Where the record with the key is, if there is one.
    fn duplicate(&self, id: i64, key: &[u8; 16]) -> rusqlite::Result<Option<i64>> {
        let Some(position) = self.memory.keys.get(&self.memory.hash(id, key)) else {
            return Ok(None);
        };
        // Two keys may have one hash.
        let mut found = self.statement(
            "SELECT position FROM log WHERE account = ?1 AND position = ?2 AND dedupe = ?3
             UNION ALL SELECT position FROM dedupe WHERE account = ?1 AND key = ?3",
        )?;
        found.query_row(params![id, position, key], |row| row.get(0)).optional()
    }

    fn taken(&mut self, id: i64, positions: &[i64]) -> rusqlite::Result<()> {
        for position in positions {
            let sql = "DELETE FROM pending WHERE account = ?1 AND position = ?2 AND archived";
            if self.clear.of(self.connection, sql)?.execute(params![id, position])? > 0 {
                continue;
            }
            // What was only queued goes from the log as well.
            let mut find = self.statement("SELECT arrival FROM pending WHERE account = ?1 AND position = ?2")?;
            let Some(arrival) = find.query_row(params![id, position], |row| row.get::<_, i64>(0)).optional()? else {
                continue;
            };
            self.run("DELETE FROM pending WHERE account = ?1 AND position = ?2", &[&id, position])?;
            self.tally.records -= self.run("DELETE FROM log WHERE arrival = ?1", &[&arrival])? as i64;
        }
        Ok(())
    }

    fn prune(&mut self, id: i64, up_to: i64) -> rusqlite::Result<()> {
        // Keys that are not a day old outlive their records.
        let since = self.now.0 - KEY_HOURS_MIN * MICROSECONDS_PER_HOUR;
        let kept = self.run(
            "INSERT INTO dedupe (account, key, position, hour)
             SELECT account, dedupe, position, ?4 FROM log
             WHERE account = ?1 AND position <= ?2 AND position > ?3 AND dedupe IS NOT NULL
             ON CONFLICT DO NOTHING",
            &[&id, &up_to, &since, &hour(self.now)],
        )?;
        self.tally.keys += kept as u64;
        let removed = self.run(
            "DELETE FROM log WHERE arrival IN (
                 SELECT arrival FROM log AS old WHERE account = ?1 AND position <= ?2 AND NOT EXISTS (
                     SELECT 1 FROM pending WHERE pending.account = ?1 AND pending.position = old.position))",
            &[&id, &up_to],
        )?;
        self.tally.records -= removed as i64;
        // What is left is counted anew when it matters.
        self.run("UPDATE accounts SET archive_bytes = 0, archive_counted = 0 WHERE id = ?1", &[&id])?;
        Ok(())
    }

    /// What is counted of the archive's weight stays right.
    fn rewrite(&self, id: i64, position: i64, stanza: &[u8]) -> rusqlite::Result<()> {
        let mut weigh = self.statement("SELECT length(stanza) FROM log WHERE account = ?1 AND position = ?2")?;
        let Some(before) = weigh.query_row([id, position], |row| row.get::<_, i64>(0)).optional()? else {
            return Ok(());
        };
        self.run("UPDATE log SET stanza = ?3 WHERE account = ?1 AND position = ?2", &[&id, &position, &stanza])?;
        let more = stanza.len() as i64 - before;
        let sql = "UPDATE accounts SET archive_bytes = max(archive_bytes + ?3, 0)
                   WHERE id = ?1 AND archive_counted >= ?2 AND EXISTS (
                       SELECT 1 FROM log WHERE account = ?1 AND position = ?2 AND archived)";
        self.run(sql, &[&id, &position, &more])?;
        Ok(())
    }

    fn create(&mut self, account: &BareJid, credentials: &Credentials, created: i64) -> Result<Outcome, Stop> {
        if self.known(account)?.is_some() {
            return Ok(Outcome::Exists);
        }
        let partition = Key::Bare(account.clone()).partition().0;
        self.run(
            "INSERT INTO accounts (host, local, partition, created) VALUES (?1, ?2, ?3, ?4)",
            &[&account.domain(), &account.local().unwrap_or_default(), &partition, &created],
        )?;
        let id = self.connection.last_insert_rowid();
        self.credentials(id, credentials)?;
        self.tally.accounts += 1;
        Ok(Outcome::Done)
    }

    /// What is small goes at once; the log and the dedupe keys in the steps of [`crate::upkeep`].
    fn remove(&mut self, account: &BareJid, id: i64) -> rusqlite::Result<()> {
        const SMALL: &[&str] = &[
            "DELETE FROM accounts WHERE id = ?1",
            "DELETE FROM credentials WHERE account = ?1",
            "DELETE FROM roster WHERE account = ?1",
            "DELETE FROM requests WHERE account = ?1",
            "DELETE FROM blocks WHERE account = ?1",
            "DELETE FROM pending WHERE account = ?1",
            "DELETE FROM sessions WHERE account = ?1",
            "DELETE FROM tokens WHERE account = ?1",
            "DELETE FROM blobs WHERE account = ?1",
            "DELETE FROM quarantine WHERE account = ?1",
            "INSERT INTO removed (account) VALUES (?1)",
        ];
        // What leaves is overwritten, not only given up.
        self.connection.pragma_update(None, "secure_delete", true)?;
        for sql in SMALL {
            self.run(sql, &[&id])?;
        }
        self.connection.pragma_update(None, "secure_delete", false)?;
        self.memory.known.remove(account);
        self.tally.accounts -= 1;
        self.tally.removed += 1;
        Ok(())
    }

    fn credentials(&self, id: i64, credentials: &Credentials) -> rusqlite::Result<()> {
        self.run("DELETE FROM credentials WHERE account = ?1", &[&id])?;
        for (mechanism, ScramKeys { salt, iterations, stored_key, server_key }) in by_mechanism(credentials) {
            self.run(
                "INSERT INTO credentials (account, mechanism, salt, iterations, stored_key, server_key)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                &[&id, &mechanism, salt, iterations, stored_key, server_key],
            )?;
        }
        Ok(())
    }

    fn credentials_add(&self, id: i64, credentials: &Credentials, beside: &[u8]) -> rusqlite::Result<()> {
        for (mechanism, ScramKeys { salt, iterations, stored_key, server_key }) in by_mechanism(credentials) {
            self.run(
                "INSERT INTO credentials (account, mechanism, salt, iterations, stored_key, server_key)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6
                 WHERE EXISTS (SELECT 1 FROM credentials WHERE account = ?1 AND stored_key = ?7)
                 ON CONFLICT DO NOTHING",
                &[&id, &mechanism, salt, iterations, stored_key, server_key, &beside],
            )?;
        }
        Ok(())
    }

    fn roster_put(&self, id: i64, item: &RosterItem, version: u64) -> rusqlite::Result<()> {
        self.run(
            "INSERT INTO roster (account, contact, name, groups, subscription, listed, version)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (account, contact) DO UPDATE SET name = excluded.name, groups = excluded.groups,
                 subscription = excluded.subscription, listed = excluded.listed, version = excluded.version",
            &[
                &id,
                &item.jid.as_str(),
                &item.name,
                &rows::join(item.groups.iter().map(AsRef::as_ref)),
                &rows::subscription_bits(item.subscription),
                &item.listed,
                &(item.version as i64),
            ],
        )?;
        self.roster_version(id, version)
    }

    fn roster_version(&self, id: i64, version: u64) -> rusqlite::Result<()> {
        self.run("UPDATE accounts SET roster_version = ?2 WHERE id = ?1", &[&id, &(version as i64)])?;
        Ok(())
    }

    fn session_put(&self, id: i64, row: &SessionRow) -> rusqlite::Result<()> {
        self.run(
            "INSERT INTO sessions (account, resource, epoch, resume_id_hash, presence, directed, since, received)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (account, resource) DO UPDATE SET epoch = excluded.epoch,
                 resume_id_hash = excluded.resume_id_hash, presence = excluded.presence,
                 directed = excluded.directed, since = excluded.since,
                 received = excluded.received",
            &[
                &id,
                &row.resource,
                &(row.epoch as i64),
                &row.resume_id_hash,
                &row.presence,
                &rows::join(row.directed.iter().map(|jid| jid.as_str())),
                &row.since.0,
                &row.received,
            ],
        )?;
        Ok(())
    }

    fn token_put(&self, id: i64, token: &Token) -> rusqlite::Result<()> {
        let (previous, previous_expires) = token.previous.as_ref().map(|(secret, at)| (secret, at.0)).unzip();
        self.run(
            "INSERT INTO tokens (account, client, mechanism, secret, expires, previous, previous_expires, count)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (account, client, mechanism) DO UPDATE SET secret = excluded.secret,
                 expires = excluded.expires, previous = excluded.previous,
                 previous_expires = excluded.previous_expires, count = excluded.count",
            &[
                &id,
                &token.client,
                &token.mechanism,
                &token.secret,
                &token.expires.0,
                &previous,
                &previous_expires,
                &token.count,
            ],
        )?;
        self.run(
            "DELETE FROM tokens WHERE account = ?1 AND (client, mechanism) IN (
                 SELECT client, mechanism FROM tokens WHERE account = ?1
                 ORDER BY expires DESC, client DESC, mechanism DESC LIMIT -1 OFFSET ?2)",
            &[&id, &(TOKENS_PER_ACCOUNT_MAX as i64)],
        )?;
        Ok(())
    }
}

/// The keys that there are, and of which mechanism.
fn by_mechanism(credentials: &Credentials) -> impl Iterator<Item = (&'static str, &ScramKeys)> {
    let sha1 = credentials.scram_sha1.iter().map(|keys| (SCRAM_SHA_1, keys));
    sha1.chain(credentials.scram_sha256.iter().map(|keys| (SCRAM_SHA_256, keys)))
}

/// As `credentials.mechanism` has them.
pub const SCRAM_SHA_1: &str = "SCRAM-SHA-1";
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
