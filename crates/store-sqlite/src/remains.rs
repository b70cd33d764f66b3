//! What the file holds of one account, table by table: for a proof that nothing is left. It only reads, beside whoever
//! has the store open.

use crate::open::{self, FILE};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;
use std::path::Path;
use xmpp::BareJid;

/// Tables with rows of accounts. (The index of words follows the log.)
const TABLES: [(&str, &str); 12] = [
    ("accounts", "SELECT count(*) FROM accounts WHERE id = ?1"),
    ("credentials", "SELECT count(*) FROM credentials WHERE account = ?1"),
    ("roster", "SELECT count(*) FROM roster WHERE account = ?1"),
    ("requests", "SELECT count(*) FROM requests WHERE account = ?1"),
    ("blocks", "SELECT count(*) FROM blocks WHERE account = ?1"),
    ("log", "SELECT count(*) FROM log WHERE account = ?1"),
    ("pending", "SELECT count(*) FROM pending WHERE account = ?1"),
    ("dedupe", "SELECT count(*) FROM dedupe WHERE account = ?1"),
    ("sessions", "SELECT count(*) FROM sessions WHERE account = ?1"),
    ("tokens", "SELECT count(*) FROM tokens WHERE account = ?1"),
    ("blobs", "SELECT count(*) FROM blobs WHERE account = ?1"),
    ("quarantine", "SELECT count(*) FROM quarantine WHERE account = ?1"),
];

/// Rows of an account by table; tables without any are not named.
pub type Rows = BTreeMap<&'static str, u64>;

/// What there is of an account: its number in the file, and its rows.
///
/// # Errors
/// For people: the file cannot be read.
pub fn of_account(data: &Path, account: &BareJid) -> Result<Option<(i64, Rows)>, String> {
    read(data, |connection| {
        let sql = "SELECT id FROM accounts WHERE host = ?1 AND local = ?2";
        let names = params![account.domain(), account.local().unwrap_or_default()];
        let id = connection.query_row(sql, names, |row| row.get(0)).optional()?;
        id.map(|id| Ok((id, rows(connection, id)?))).transpose()
    })
}

/// What there is under the number of an account that is gone. Numbers are not given twice.
///
/// # Errors
/// As of [`of_account`].
pub fn of_number(data: &Path, id: i64) -> Result<Rows, String> {
    read(data, |connection| rows(connection, id))
}

/// Where others name the account: their rosters, block lists and messages, and what waits for other domains.
///
/// # Errors
/// As of [`of_account`].
pub fn elsewhere(data: &Path, account: &BareJid) -> Result<Rows, String> {
    const PLACES: [(&str, &str); 5] = [
        ("rosters of others", "SELECT count(*) FROM roster WHERE contact = ?1"),
        ("requests to others", "SELECT count(*) FROM requests WHERE contact = ?1"),
        ("block lists of others", "SELECT count(*) FROM blocks WHERE jid = ?1"),
        ("messages of others", "SELECT count(*) FROM log WHERE peer = ?1"),
        ("stanzas for other domains", "SELECT count(*) FROM outbox WHERE instr(stanza, ?1) > 0"),
    ];
    read(data, |connection| {
        let mut found = Rows::new();
        for (place, sql) in PLACES {
            let count: i64 = connection.query_row(sql, [account.as_str()], |row| row.get(0))?;
            if count > 0 {
                found.insert(place, count as u64);
            }
        }
        Ok(found)
    })
}

fn read<T>(data: &Path, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, String> {
    let connection = open::reader(&data.join(FILE)).map_err(|error| error.to_string())?;
    read(&connection).map_err(|error| format!("{} cannot be read: {error}", data.join(FILE).display()))
}

fn rows(connection: &Connection, id: i64) -> rusqlite::Result<Rows> {
    let mut found = Rows::new();
    for (table, sql) in TABLES {
        let count: i64 = connection.query_row(sql, [id], |row| row.get(0))?;
        if count > 0 {
            found.insert(table, count as u64);
        }
    }
    Ok(found)
}
