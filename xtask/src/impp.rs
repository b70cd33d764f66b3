//! `docs/impp.md`, the rows of the model and what proves them.
//!
//! - `xtask impp` lists the rows; `xtask impp 2.3.4 58` runs the tests that those rows name.
//! - `xtask impp --ran FILE` looks whether the tests that the table names have passed, in what a test run printed.
//!
//! The tests here check that each row says yes or partly, that its tests are there and go through the real listener, and
//! that each "partly" has one of the reasons that the document gives.

use crate::run;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = "docs/impp.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// One row of one of the tables.
struct Row {
    key: String,
    what: String,
    answer: String,
    how: String,
    /// Names of tests, and paths of scripts.
    proofs: Vec<String>,
}

impl Row {
    fn of(line: &str) -> Option<Row> {
        let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let [key, what, answer, how, tests] = cells[..] else { return None };
        let is_row = key.starts_with(|c: char| c.is_ascii_digit());
        let proofs = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let owned = str::to_owned;
        is_row.then(|| Row { key: owned(key), what: owned(what), answer: owned(answer), how: owned(how), proofs })
    }

    /// Those that are tests of a crate; the others are scripts.
    fn tests(&self) -> impl Iterator<Item = &str> {
        self.proofs.iter().map(String::as_str).filter(|proof| !proof.contains('/'))
    }

    fn scripts(&self) -> impl Iterator<Item = &str> {
        self.proofs.iter().map(String::as_str).filter(|proof| proof.contains('/'))
    }
}

fn document() -> Result<String, String> {
    let path = root().join(DOCUMENT);
    std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

fn rows(text: &str) -> Vec<Row> {
    text.lines().filter_map(Row::of).collect()
}

/// # Errors
/// What went wrong, for people.
pub fn chore(arguments: &[String]) -> Result<(), String> {
    let rows = rows(&document()?);
    match arguments {
        [] => {
            rows.iter().for_each(|row| println!("{:<7} {:<7} {}", row.key, row.answer, row.what));
            Ok(())
        }
        [flag, file] if flag == "--ran" => ran(&rows, file),
        keys => keys.iter().try_for_each(|key| {
            let row = rows.iter().find(|row| row.key == *key).ok_or(format!("there is no row {key}"))?;
            println!("{} {}: {}, {}", row.key, row.what, row.answer, row.how);
            prove(row)
        }),
    }
}

/// Runs what proves a row.
fn prove(row: &Row) -> Result<(), String> {
    for test in row.tests() {
        run("cargo", &["test", "--quiet", "--locked", "-p", "server", "--tests", test])?;
    }
    row.scripts().try_for_each(|script| run(&root().join(script).to_string_lossy(), &[]))
}

/// Names of tests that passed, as nextest and libtest print them.
fn passed(log: &str) -> HashSet<&str> {
    let path = |line: &'_ str| -> Option<(usize, usize)> {
        let text = line.trim();
        let path = if text.starts_with("PASS ") || text.starts_with("FLAKY ") {
            // PASS [   0.1s] (1/2) server::listener rules::a_test
            text.rsplit(' ').next()?
        } else {
            // test rules::a_test ... ok
            text.strip_prefix("test ")?.strip_suffix(" ... ok")?
        };
        let from = line.find(path)? + path.rfind("::").map_or(0, |at| at + 2);
        Some((from, line.find(path)? + path.len()))
    };
    log.lines().filter_map(|line| path(line).map(|(from, to)| &line[from..to])).collect()
}

fn ran(rows: &[Row], file: &str) -> Result<(), String> {
    let log = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let log = String::from_utf8_lossy(&log);
    let passed = passed(&log);
    let missing = |row: &Row| {
        let not: Vec<&str> = row.tests().filter(|test| !passed.contains(test)).collect();
        (!not.is_empty()).then(|| format!("{}: {}", row.key, not.join(", ")))
    };
    let missing: Vec<String> = rows.iter().filter_map(missing).collect();
    if missing.is_empty() {
        println!("all tests that {DOCUMENT} names have passed");
        return Ok(());
    }
    Err(format!("tests that {DOCUMENT} names and that have not passed in {file}:\n{}", missing.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests_below;

    /// Where the tests are that go through the real listener.
    const LISTENER: &str = "crates/server/tests";

    /// The rows that the document lets wait: the bold keys of its section on that.
    fn waiting(text: &str) -> HashSet<String> {
        let section = text.split("## Rows that wait").nth(1).and_then(|rest| rest.split("\n## ").next());
        let section = section.expect("the document has the section");
        section.split("**").skip(1).step_by(2).flat_map(|keys| keys.split(", ")).map(str::to_owned).collect()
    }

    #[test]
    fn each_row_is_answered_and_names_tests_that_there_are_and_that_go_through_the_real_listener() {
        let mut names = HashSet::new();
        tests_below(&root().join(LISTENER), &mut names);
        assert!(names.len() > 150, "the sources are there: {}", names.len());
        let started = std::fs::read_to_string(root().join("tests/interop/run")).expect("the script is there");
        let text = document().expect("it is there");
        let waiting = waiting(&text);
        let mut wrong = Vec::new();
        for row in rows(&text) {
            let Row { key, answer, how, .. } = &row;
            if !["yes", "partly"].contains(&answer.as_str()) {
                wrong.push(format!("{key}: \"{answer}\" is neither yes nor partly"));
            }
            if row.proofs.is_empty() {
                wrong.push(format!("{key}: no test is named"));
            }
            wrong.extend(
                row.tests()
                    .filter(|it| !names.contains(*it))
                    .map(|it| format!("{key}: there is no test {it} of the listener")),
            );
            wrong.extend(
                row.scripts()
                    .filter(|it| {
                        !root().join(it).is_file() || !started.contains(it.trim_start_matches("tests/interop/"))
                    })
                    .map(|it| format!("{key}: {it} is not there, or tests/interop/run does not start it")),
            );
            if answer == "partly" && !how.contains("Peers:") && !waiting.contains(key) {
                wrong.push(format!("{key}: partly, for no reason that the document has"));
            }
            if answer == "yes" && waiting.contains(key) {
                wrong.push(format!("{key}: yes, and waits"));
            }
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }

    #[test]
    fn every_item_of_the_architecture_and_every_requirement_of_rfc_2779_has_a_row() {
        let keys: Vec<String> = rows(&document().expect("it is there")).into_iter().map(|row| row.key).collect();
        let sections: [(&str, u32); 18] = [
            ("2.1", 5),
            ("2.2", 6),
            ("2.3", 7),
            ("2.4", 4),
            ("2.5", 4),
            ("3.1", 6),
            ("3.2", 5),
            ("3.3", 3),
            ("3.4", 1),
            ("4.1", 10),
            ("4.2", 1),
            ("4.3", 1),
            ("4.4", 3),
            ("5.1", 18),
            ("5.2", 6),
            ("5.3", 3),
            ("5.4", 10),
            ("", 59),
        ];
        let mut expected = Vec::new();
        for (section, last) in sections {
            for n in 1..=last {
                expected.push(if section.is_empty() { n.to_string() } else { format!("{section}.{n}") });
            }
        }
        let missing: Vec<&String> = expected.iter().filter(|key| !keys.contains(key)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let twice: Vec<&String> = keys.iter().filter(|key| keys.iter().filter(|it| it == key).count() > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    #[test]
    fn what_has_passed_is_read_from_either_runner() {
        let log = "    PASS [   0.123s] (1/2) server::listener rules::a_rule_holds\n\
                   test streams::a_stream_opens ... ok\n\
                   test streams::another ... FAILED\n\
                   FAIL [   0.1s] server::listener rules::a_third\n";
        assert_eq!(passed(log), HashSet::from(["a_rule_holds", "a_stream_opens"]));
    }
}
