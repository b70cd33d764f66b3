//! Checks the documents: links lead somewhere, and the tests that guard a rule are there.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Names of functions that are run as tests, and are not ignored.
pub fn tests_below(folder: &Path, names: &mut HashSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.map_while(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target" && name != ".git") {
                tests_below(&path, names);
            }
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).expect("source is text");
            names.extend(tests_in(&text));
        }
    }
}

fn tests_in(text: &str) -> Vec<String> {
    let (mut is_test, mut found) = (false, Vec::new());
    for line in text.lines().map(str::trim) {
        // Those of a store's contract, which a macro makes tests of each store.
        if let Some(name) = line.strip_prefix("pub fn ").and_then(|rest| rest.strip_suffix("<S: Subject>() {")) {
            found.push(name.to_owned());
        }
        let function = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
        match function {
            Some(rest) => {
                let name = rest.split(['(', '<']).next().unwrap_or_default();
                if std::mem::take(&mut is_test) {
                    found.push(name.to_owned());
                }
            }
            None if line.starts_with("#[ignore") => is_test = false,
            None if line == "#[test]" || line.starts_with("#[tokio::test") => is_test = true,
            None => {}
        }
    }
    found
}

/// Of all crates.
pub fn all_tests() -> HashSet<String> {
    let mut names = HashSet::new();
    for folder in ["crates", "tests", "xtask"] {
        tests_below(&root().join(folder), &mut names);
    }
    assert!(names.len() > 500, "the sources are there: {}", names.len());
    names
}

/// All documents: those at the top, and those of `docs`.
fn documents() -> Vec<PathBuf> {
    let mut folders = vec![root(), root().join("docs")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is there").map_while(Result::ok) {
            let path = entry.path();
            if path.is_dir() && folder != root() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// What stands between the parentheses of `[…](…)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() > 10, "{documents:?}");
    let mut wrong = Vec::new();
    for document in documents {
        let text = std::fs::read_to_string(&document).expect("documents are text");
        let folder = document.parent().expect("a file lies in a folder");
        for link in links(&text).filter(|link| !link.contains("://") && !link.starts_with(['#', '<'])) {
            let path = link.split('#').next().unwrap_or_default();
            if !folder.join(path).exists() {
                wrong.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn each_of_the_twelve_rules_has_a_guard_that_is_there() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("it is there");
    let (names, mut rules) = (all_tests(), 0);
    for row in text.lines().filter(|line| line.starts_with("| ") && line[2..].starts_with(|c: char| c.is_ascii_digit()))
    {
        let guards = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        rules += 1;
        let named: Vec<&str> = guards.split("test `").skip(1).filter_map(|rest| rest.split('`').next()).collect();
        assert!(!named.is_empty(), "no test: {row}");
        for test in named {
            assert!(names.contains(test), "there is no test {test}: {row}");
        }
    }
    assert_eq!(rules, 12);
}

// CLUSTER rule 12: who holds an entity is asked of `cluster`, for the right to write, and nowhere else.
#[test]
fn only_who_wants_to_write_asks_where_an_entity_is() {
    let mut folders = vec![root().join("crates")];
    let mut who = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).expect("the folder is there").map_while(Result::ok).map(|it| it.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).expect("source is text");
                if text.contains("cluster::Place") || text.contains("cluster.place(") {
                    who.push(path.strip_prefix(root().join("crates")).expect("it lies there").display().to_string());
                }
            }
        }
    }
    who.sort();
    assert_eq!(who, ["server/src/house/mod.rs", "server/src/s2s/outbox.rs"]);
}

// `module::name` lies in the tests of the listener; `…name` in the module named last; `name…` is the beginning of one.
#[test]
fn every_test_that_the_page_on_security_names_is_there() {
    let text = std::fs::read_to_string(root().join("docs/security.md")).expect("it is there");
    let (mut module, mut looked_at, mut wrong) = ("", 0, Vec::new());
    for quoted in text.split('`').skip(1).step_by(2) {
        let name = match quoted.split_once("::") {
            Some((named, name)) => {
                module = named;
                name
            }
            None => match quoted.strip_prefix('…') {
                Some(name) => name,
                None => continue,
            },
        };
        let path = root().join(format!("crates/server/tests/listener/{module}.rs"));
        let Ok(source) = std::fs::read_to_string(path) else { continue };
        looked_at += 1;
        let end = if name.ends_with('…') { "" } else { "(" };
        if !source.contains(&format!("fn {}{end}", name.trim_end_matches('…'))) {
            wrong.push(format!("{module}::{name}"));
        }
    }
    assert!(wrong.is_empty() && looked_at > 60, "{looked_at}, {wrong:?}");
}

// Of each option of `[limits]`: a test, and how it is counted.
#[test]
fn each_limit_has_a_test_that_trips_it_and_is_counted() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("it is there");
    let section = |text: &str, heading: &str| {
        let rest = text.split(heading).nth(1).expect("the section is there");
        rest.split("\n## ").next().unwrap_or_default().to_owned()
    };
    let rows = |text: &str| -> Vec<Vec<String>> {
        let rows = text.lines().filter(|line| line.starts_with("| `"));
        rows.map(|row| {
            row.trim_matches('|').split(" | ").map(|cell| cell.trim_matches([' ', '`']).to_owned()).collect()
        })
        .collect()
    };
    let options = rows(&section(&read("docs/configuration.md"), "\n## `[limits]`\n"));
    let table =
        rows(&section(&read("docs/security.md"), "\n## Each limit, a test that trips it, and how it is counted\n"));
    assert!(options.len() > 60, "{options:?}");
    let (names, counted) = (all_tests(), read("crates/server/src/limits_hit.rs"));
    let is_counted = |name: &str| counted.contains(&format!("    \"{name}\",\n"));
    let mut wrong: Vec<String> = Vec::new();
    for option in options.iter().map(|row| &row[0]) {
        let Some(row) = table.iter().find(|row| row[0] == *option) else {
            wrong.push(format!("{option} has no row"));
            continue;
        };
        if !names.contains(&row[1]) {
            wrong.push(format!("{option}: there is no test {}", row[1]));
        }
        match &*row[2] {
            "by its name" if is_counted(option) => {}
            "nothing is refused" if !is_counted(option) => {}
            other if is_counted(other) && !is_counted(option) => {}
            other => wrong.push(format!("{option} is counted otherwise than by {other}")),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!(options.len(), table.len(), "a row is of no option");
}
