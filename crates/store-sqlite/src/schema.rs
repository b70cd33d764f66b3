//! The schema and its numbered migrations.
//!
//! Own code, because neither refinery nor rusqlite_migration can stamp the producer's version or tell by it who wrote
//! a schema that is too new; and refinery caps the version of rusqlite.

use crate::open::OpenError;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::path::Path;
use xmpp::Stamp;

/// `waft` in ASCII; SQLite keeps it in the file's header.
const APPLICATION_ID: i32 = 0x7761_6674;

/// Name and text; the n-th brings a file from schema n - 1 to schema n. Never changed once released.
const MIGRATIONS: &[(&str, &str)] = &[
    ("first", include_str!("migrations/0001_first.sql")),
    ("outbox", include_str!("migrations/0002_outbox.sql")),
    ("session received", include_str!("migrations/0003_session_received.sql")),
    ("fulltext", include_str!("migrations/0004_fulltext.sql")),
    ("peers", include_str!("migrations/0005_peers.sql")),
    ("spans", include_str!("migrations/0006_spans.sql")),
];

/// The schema that this build reads and writes.
pub const SCHEMA: u32 = MIGRATIONS.len() as u32;

/// Brings the file to [`SCHEMA`], each migration in one transaction.
///
/// # Errors
/// [`OpenError::Newer`] if a later waft wrote it, [`OpenError::Foreign`] if it is no file of waft.
pub fn migrate(connection: &mut Connection, path: &Path, producer: &str, now: Stamp) -> Result<(), OpenError> {
    migrate_by(MIGRATIONS, connection, path, producer, now)
}

fn migrate_by(
    migrations: &[(&str, &str)],
    connection: &mut Connection,
    path: &Path,
    producer: &str,
    now: Stamp,
) -> Result<(), OpenError> {
    let failed = |error| OpenError::of(path, error);
    let known = migrations.len() as u32;
    let (found, by) = known_stamp(connection, path, producer, known)?;
    for (number, (name, text)) in (found + 1..).zip(&migrations[found as usize..]) {
        if found > 0 {
            tracing::info!(
                from = number - 1,
                to = number,
                of = known,
                name,
                "migrating the store, written by waft {by}"
            );
        }
        let migration = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        migration.execute_batch(text).map_err(failed)?;
        if number == 1 {
            migration.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
            let first = "INSERT INTO meta (id, schema, producer, created, epoch) VALUES (1, 1, ?1, ?2, 0)";
            migration.execute(first, params![producer, now.0]).map_err(failed)?;
        }
        let stamp = "UPDATE meta SET schema = ?1, producer = ?2";
        migration.execute(stamp, params![number, producer]).map_err(failed)?;
        migration.commit().map_err(failed)?;
    }
    if found > 0 && found < known {
        tracing::info!(schema = known, "the store is migrated");
    }
    Ok(())
}

/// Is it a file of waft, of a schema that this build can migrate?
pub fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    match known_stamp(connection, path, env!("CARGO_PKG_VERSION"), SCHEMA)? {
        (0, _) => Err(OpenError::Damaged { path: path.into(), what: "it is empty".into() }),
        _ => Ok(()),
    }
}

fn known_stamp(connection: &Connection, path: &Path, producer: &str, known: u32) -> Result<(u32, String), OpenError> {
    let (found, by) = stamped(connection, path)?;
    if found > known {
        return Err(OpenError::Newer { path: path.into(), by, schema: found, producer: producer.into(), known });
    }
    Ok((found, by))
}

/// Schema and producer of the file; schema 0 if it is empty.
fn stamped(connection: &Connection, path: &Path) -> Result<(u32, String), OpenError> {
    let failed = |error| OpenError::of(path, error);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if tables == 0 {
        return Ok((0, String::new()));
    }
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    if application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.into() });
    }
    let stamp = connection.query_row("SELECT schema, producer FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)));
    let missing = || OpenError::Damaged { path: path.into(), what: "its table meta is empty".into() };
    stamp.optional().map_err(failed)?.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &[(&str, &str)] = &[MIGRATIONS[0]];
    const SECOND: &[(&str, &str)] = &[MIGRATIONS[0], ("second", "CREATE TABLE added (id INTEGER PRIMARY KEY) STRICT")];

    fn memory() -> Connection {
        Connection::open_in_memory().expect("SQLite opens in memory")
    }

    fn at(migrations: &[(&str, &str)], connection: &mut Connection, producer: &str) -> Result<(), OpenError> {
        migrate_by(migrations, connection, Path::new("waft.db"), producer, Stamp(1))
    }

    #[test]
    fn an_older_schema_is_migrated_and_stamped() {
        let mut connection = memory();
        at(FIRST, &mut connection, "0.1.0").expect("it is new");
        at(SECOND, &mut connection, "0.2.0").expect("it is older");
        assert_eq!(stamped(&connection, Path::new("waft.db")).expect("it has a stamp"), (2, "0.2.0".into()));
    }

    #[test]
    fn a_newer_schema_is_refused_by_both_names() {
        let mut connection = memory();
        at(SECOND, &mut connection, "0.2.0").expect("it is new");
        let refused = at(FIRST, &mut connection, "0.1.0").expect_err("it is newer");
        assert_eq!(
            refused.to_string(),
            "waft.db was written by waft 0.2.0 (schema 2); this is waft 0.1.0, which knows schema 1: \
             use a newer waft, or restore a backup"
        );
    }

    #[test]
    fn a_failed_migration_changes_nothing() {
        let mut connection = memory();
        at(FIRST, &mut connection, "0.1.0").expect("it is new");
        let broken = &[MIGRATIONS[0], ("broken", "CREATE TABLE half (id INTEGER); CREATE TABLE half (id INTEGER)")];
        at(broken, &mut connection, "0.2.0").expect_err("it makes the same table twice");
        assert_eq!(stamped(&connection, Path::new("waft.db")).expect("it has a stamp"), (1, "0.1.0".into()));
        connection.execute("CREATE TABLE half (id INTEGER)", []).expect("there is none yet");
    }

    #[test]
    fn a_database_of_something_else_is_refused() {
        let mut connection = memory();
        connection.execute("CREATE TABLE prosody (id INTEGER)", []).expect("it is new");
        assert!(matches!(at(FIRST, &mut connection, "0.1.0"), Err(OpenError::Foreign { .. })));
    }
}
