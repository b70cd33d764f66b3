//! What is said on a client's stream, condition by condition and mechanism by mechanism: `docs/protocol/transcripts.md`
//! names a test for each row, or why there can be none. RFC 6120 §4.9.3, §6.

use crate::client::Client;
use crate::server::Server;
use std::path::Path;
use xmpp::StreamCondition;

const TABLES: &str = include_str!("../../../../docs/protocol/transcripts.md");

/// The rows of the table under this heading: their cells.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let section = TABLES.split("\n## ").find(|section| section.starts_with(heading)).expect("the heading is there");
    let table = section.lines().filter(|line| line.starts_with("| `"));
    table.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The text of a test: `module::name` is one of these, `path/file.rs::name` another.
#[track_caller]
fn source_of(test: &str) -> String {
    let (file, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("{test} names no file"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = match file.ends_with(".rs") || file.ends_with(".py") {
        true => folder.join("../..").join(file),
        false => folder.join("tests/listener").join(format!("{file}.rs")),
    };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let start = ["fn ", "def "].iter().find_map(|keyword| text.find(&format!("{keyword}{name}(")));
    let text = &text[start.unwrap_or_else(|| panic!("{} has no {name}", path.display()))..];
    let end = ["\n#[", "\n@", "\n    #["].iter().filter_map(|mark| text.find(mark)).min();
    text[..end.unwrap_or(text.len())].to_owned()
}

#[test]
fn every_condition_of_rfc_6120_has_a_row_with_a_test_or_a_reason() {
    let rows = rows("Stream errors");
    let named: Vec<&str> = rows.iter().map(|row| quoted(row[0])[0]).collect();
    assert_eq!(named, StreamCondition::ALL.map(StreamCondition::name), "in the order of RFC 6120 §4.9.3");
    for row in rows {
        let condition = quoted(row[0])[0];
        let tests = quoted(row[2]);
        assert_eq!(tests.is_empty(), row[1].starts_with("never:"), "{condition}: a test, or why it never comes");
        for test in tests {
            let said = source_of(test);
            let by_name = said.contains(condition);
            // A test within the server knows the fault by its own name.
            assert!(by_name || said.contains("InternalError"), "{test} does not hear {condition}");
        }
    }
}

#[test]
fn every_mechanism_and_what_comes_inline_has_a_row_with_a_test() {
    for heading in ["Mechanisms", "With SASL2"] {
        for row in rows(heading) {
            let what = quoted(row[0])[0];
            let tests: Vec<&str> = row[1..].iter().flat_map(|cell| quoted(cell)).collect();
            assert!(!tests.is_empty(), "{what} has no test");
            tests.into_iter().for_each(|test| drop(source_of(test)));
        }
    }
}

// RFC 6120 §4.9.3.16.
#[test]
fn a_session_whose_account_is_given_other_roles_is_reset() {
    let server = Server::start("[limits]\nrates = false\n");
    let mut watcher = Client::available(&server, "romeo", "orchard");
    let mut stays = Client::available(&server, "juliet", "balcony");
    let answer = server.ask(&serde_json::json!({"do": "user-roles", "jid": "romeo@localhost", "roles": ["watcher"]}));
    assert_eq!(answer["is"], "done", "{answer}");
    let heard = watcher.expect_error("reset");
    assert!(heard.contains("other roles"), "{heard}");
    stays.sync();
    // It may come again at once, as what it is now.
    Client::session(&server, "romeo", "orchard");
}
