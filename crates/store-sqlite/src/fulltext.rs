//! The words of archived messages, XEP-0431: an index that follows the log, and how it is asked.
//!
//! Writing a message does not wait for it: the writer indexes what is new when it has nothing else to do. So a message is
//! found some moments after it came.

use rusqlite::{Connection, params};
use xmpp::{Stanza, ns};

/// Records that one step indexes.
const STEP_RECORDS: i64 = 200;
/// Words of one search; more are left out.
const WORDS_MAX: usize = 16;

/// Indexes the next archived records. Are there more?
pub fn step(connection: &Connection) -> rusqlite::Result<bool> {
    let indexed: i64 = connection.query_row("SELECT indexed FROM fulltext_state", [], |row| row.get(0))?;
    let mut next = connection.prepare_cached(
        "SELECT arrival, account, archived, stanza FROM log WHERE arrival > ?1 ORDER BY arrival LIMIT ?2",
    )?;
    let mut insert = connection.prepare_cached("INSERT INTO fulltext (rowid, owner, body) VALUES (?1, ?2, ?3)")?;
    let mut rows = next.query([indexed, STEP_RECORDS])?;
    let (mut count, mut last) = (0, indexed);
    while let Some(row) = rows.next()? {
        last = row.get(0)?;
        count += 1;
        let body = if row.get(2)? { body(row.get_ref(3)?.as_blob().unwrap_or_default()) } else { None };
        if let Some(body) = body {
            insert.execute(params![last, owner(row.get(1)?), body])?;
        }
    }
    if count > 0 {
        connection.prepare_cached("UPDATE fulltext_state SET indexed = ?1")?.execute([last])?;
    }
    Ok(count == STEP_RECORDS)
}

/// What a person would search for in a message. `None` if it cannot be read or says nothing.
fn body(stanza: &[u8]) -> Option<String> {
    let message = Stanza::parse(stanza).ok()?;
    Some(message.payload.child("body", ns::CLIENT)?.to_element().text_content()).filter(|body| !body.is_empty())
}

fn owner(account: i64) -> String {
    format!("a{account}")
}

/// The expression for an account's messages that have all these words. `None` if there is no word.
///
/// Only letters and digits go into it, each word in quotes: what somebody types is never syntax (LIMITS.md §2 row 30).
pub fn expression(account: i64, text: &str) -> Option<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).take(WORDS_MAX);
    let words: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    if words.is_empty() {
        return None;
    }
    Some(format!("owner : {} AND body : ({})", owner(account), words.join(" AND ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    // LIMITS.md §2 row 30.
    #[test]
    fn what_somebody_types_is_never_syntax() {
        for (text, expected) in [
            ("hello World", Some("owner : a7 AND body : (\"hello\" AND \"World\")")),
            (
                "\"a\" OR owner:a1 * NEAR(x)",
                Some("owner : a7 AND body : (\"a\" AND \"OR\" AND \"owner\" AND \"a1\" AND \"NEAR\" AND \"x\")"),
            ),
            ("'; DROP TABLE log; --", Some("owner : a7 AND body : (\"DROP\" AND \"TABLE\" AND \"log\")")),
            ("Übergröße", Some("owner : a7 AND body : (\"Übergröße\")")),
            (" ,.\u{0}!", None),
        ] {
            assert_eq!(expression(7, text).as_deref(), expected, "{text}");
        }
    }
}
