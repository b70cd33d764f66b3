//! Files of every schema there ever was are migrated forward with all that is in them; newer ones are refused.

#[path = "fixtures/content.rs"]
mod content;

use rusqlite::Connection;
use std::path::{Path, PathBuf};
use store::Store;
use store::contract::{bare, commit, record, wait};
use store::memory::MemoryStore;
use store::{Change, Outcome, Record};
use store_sqlite::{FILE, OpenError, Options, SCHEMA, SqliteStore, backup};
use tempfile::TempDir;

fn fixture(schema: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("schema-{schema}.sql"))
}

/// A data folder as a waft of that schema left it.
fn left_by(schema: u32) -> TempDir {
    let folder = TempDir::new().expect("there is a folder for temporary files");
    let text = std::fs::read_to_string(fixture(schema)).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; each schema needs one, once it is the newest: \
             cargo run -p store-sqlite --example fixture > {0}",
            fixture(schema).display()
        )
    });
    let connection = Connection::open(folder.path().join(FILE)).expect("SQLite makes it");
    connection.execute_batch(&text).expect("it is SQL");
    folder
}

fn open(folder: &TempDir) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(folder.path(), Options { clock: content::clock, ..Options::default() })
}

fn model() -> String {
    let model = MemoryStore::new();
    commit(&model, content::changes()).expect("it is in memory");
    content::print(&model)
}

#[test]
fn every_schema_there_ever_was_is_migrated_with_all_that_is_in_it() {
    for schema in 1..=SCHEMA {
        let folder = left_by(schema);
        let store = open(&folder).expect("it is migrated");
        for (found, expected) in content::print(&store).lines().zip(model().lines()) {
            assert_eq!(found, expected, "schema {schema}");
        }
        assert_eq!(content::print(&store).lines().count(), model().lines().count(), "schema {schema}");
        assert_eq!(wait(store.integrity()), Ok(vec![]));
        let again = Record { position: i64::MAX, dedupe: Some([40; 16]), ..record(1) };
        let again = Change::Append { account: bare("juliet@capulet.example"), record: again };
        let outcome = commit(&store, vec![again]).expect("it writes");
        assert!(matches!(outcome[..], [Outcome::Duplicate(_)]), "schema {schema}: {outcome:?}");
        assert_eq!(store.figures().quarantined, 0);
    }
}

#[test]
fn a_file_of_a_later_schema_is_refused_and_left_alone() {
    let folder = left_by(SCHEMA);
    let connection = Connection::open(folder.path().join(FILE)).expect("it is there");
    connection.execute("UPDATE meta SET schema = 99, producer = '9.9.9'", []).expect("it can be written");
    drop(connection);
    let before = std::fs::read(folder.path().join(FILE)).expect("it is there");
    let refused = open(&folder).err().expect("it is newer").to_string();
    assert!(refused.contains("was written by waft 9.9.9 (schema 99)"), "{refused}");
    assert!(refused.ends_with("use a newer waft, or restore a backup"), "{refused}");
    let connection = Connection::open(folder.path().join(FILE)).expect("it is there");
    let schema = connection.query_row("SELECT schema FROM meta", [], |row| row.get::<_, i64>(0));
    assert_eq!(schema, Ok(99));
    assert!(!before.is_empty());
}

#[test]
fn a_backup_restores_what_there_was_and_the_files_beside_it() {
    let folder = left_by(SCHEMA);
    std::fs::write(folder.path().join("secret"), [7; 32]).expect("the folder is ours");
    std::fs::create_dir(folder.path().join("tls")).expect("the folder is ours");
    std::fs::write(folder.path().join("tls/key.pem"), "key").expect("the folder is ours");
    let store = open(&folder).expect("it opens");
    let elsewhere = TempDir::new().expect("there is a folder for temporary files");
    let file = elsewhere.path().join("one.backup");
    let held = wait(store.backup(&file)).expect("it is written while the store is open");
    assert_eq!((held.accounts, held.left_out.len()), (2, 0));
    assert!(wait(store.backup(&file)).is_err(), "it is there already");
    commit(&store, vec![Change::AccountRemove { account: bare("juliet@capulet.example") }]).expect("it writes");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("it is there").permissions());
    assert_eq!(mode & 0o777, 0o600);

    let data = elsewhere.path().join("data");
    let brought = backup::restore(&file, &data, false).expect("the folder is empty");
    assert_eq!(brought.files, ["secret", "tls/key.pem"]);
    assert_eq!(std::fs::read(data.join("secret")).expect("it is there"), [7; 32]);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(data.join("tls/key.pem")).expect("it is there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let options = || Options { clock: content::clock, ..Options::default() };
    let restored = SqliteStore::open(&data, options()).expect("it opens");
    assert_eq!(content::print(&restored), model());
    assert!(restored.epoch() > store.epoch() + 1_000, "ids of after the backup are not given out again");
    drop(restored);

    let refused = backup::restore(&file, &data, false).expect_err("it is not empty").to_string();
    assert!(refused.contains("is not empty") && refused.contains("--replace"), "{refused}");
    let replaced = backup::restore(&file, &data, true).expect("it was told").replaced.expect("there was something");
    assert!(replaced.join(FILE).exists());
    let restored = SqliteStore::open(&data, options()).expect("it opens");
    assert_eq!(content::print(&restored), model());
}

#[test]
fn what_is_no_backup_is_not_restored() {
    let elsewhere = TempDir::new().expect("there is a folder for temporary files");
    let letter = elsewhere.path().join("letter");
    std::fs::write(&letter, "a letter to juliet. ".repeat(1_000)).expect("the folder is ours");
    let plain = left_by(SCHEMA);
    for file in [letter, plain.path().join(FILE)] {
        let data = elsewhere.path().join("data");
        let refused = backup::restore(&file, &data, false).expect_err("it is none").to_string();
        assert!(refused.contains("is no backup of waft"), "{refused}");
        let left = std::fs::read_dir(&data).expect("it was made").count();
        assert_eq!(left, 1, "but for the lock nothing is left");
    }
}

#[test]
fn a_restore_that_was_cut_short_is_not_taken_for_a_new_store() {
    let folder = TempDir::new().expect("there is a folder for temporary files");
    std::fs::write(folder.path().join("waft.db.new"), "half").expect("the folder is ours");
    let refused = open(&folder).err().expect("there is only half of it").to_string();
    assert!(refused.contains("was cut short: do it again"), "{refused}");
}
