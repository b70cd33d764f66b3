//! Prints the fixture of the schema of this build, as SQL: once for each schema, when it comes.
//!
//! ```text
//! cargo run -p store-sqlite --example fixture > crates/store-sqlite/tests/fixtures/schema-N.sql
//! ```

#[path = "../tests/fixtures/content.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod content;

use rusqlite::Connection;
use store::Store;
use store::contract::{commit, wait};
use store_sqlite::{FILE, Options, SqliteStore};

fn main() {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let options = Options { clock: content::clock, ..Options::default() };
    let store = SqliteStore::open(folder.path(), options).expect("the store opens");
    commit(&store, content::changes()).expect("the disk is well");
    wait(store.close()).expect("it closes");
    let connection = Connection::open(folder.path().join(FILE)).expect("it is there");
    dump(&connection).expect("it can be read");
}

fn dump(connection: &Connection) -> rusqlite::Result<()> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    println!("PRAGMA application_id = {application};\nBEGIN;");
    let mut schema = connection.prepare(
        "SELECT name, type, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND name NOT IN (SELECT name FROM pragma_table_list WHERE type = 'shadow') ORDER BY rowid",
    )?;
    let objects: rusqlite::Result<Vec<(String, String, String)>> =
        schema.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect();
    let objects = objects?;
    for (_, _, sql) in &objects {
        println!("{sql};");
    }
    for (name, _, _) in objects.iter().filter(|(_, kind, sql)| kind == "table" && !sql.starts_with("CREATE VIRTUAL")) {
        let columns: rusqlite::Result<Vec<String>> = connection
            .prepare("SELECT name FROM pragma_table_info(?1)")?
            .query_map([name], |row| row.get(0))?
            .collect();
        let columns = columns?;
        let quoted: Vec<String> = columns.iter().map(|column| format!("quote(\"{column}\")")).collect();
        let mut rows = connection.prepare(&format!("SELECT {} FROM {name}", quoted.join(", ")))?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let values: rusqlite::Result<Vec<String>> = (0..columns.len()).map(|at| row.get(at)).collect();
            println!("INSERT INTO {name} ({}) VALUES ({});", columns.join(", "), values?.join(", "));
        }
    }
    println!("COMMIT;");
    Ok(())
}
