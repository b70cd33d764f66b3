//! Checks `docs/impp.md`: each row says yes, partly or no, and names tests that there are.

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::{Path, PathBuf};

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// Names of functions that are run as tests, and are not ignored.
    fn tests_below(folder: &Path, names: &mut HashSet<String>) {
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

    /// (key, answer, how, test) of each row.
    fn rows(text: &str) -> Vec<[String; 5]> {
        let cells = |line: &str| -> Option<[String; 5]> {
            let line = line.strip_prefix('|')?.strip_suffix('|')?;
            let cells: Vec<String> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
            cells.try_into().ok()
        };
        let is_row = |row: &[String; 5]| row[0].starts_with(|c: char| c.is_ascii_digit());
        text.lines().filter_map(cells).filter(is_row).collect()
    }

    fn document() -> String {
        std::fs::read_to_string(root().join("docs/impp.md")).expect("docs/impp.md is there")
    }

    #[test]
    fn the_table_of_the_model_names_tests_that_there_are() {
        let mut names = HashSet::new();
        tests_below(&root().join("crates"), &mut names);
        tests_below(&root().join("tests"), &mut names);
        tests_below(&root().join("xtask"), &mut names);
        assert!(names.len() > 500, "the sources are there: {}", names.len());
        let mut wrong = Vec::new();
        for [key, _, answer, _, tests] in rows(&document()) {
            if !["yes", "partly", "no"].contains(&answer.as_str()) {
                wrong.push(format!("{key}: \"{answer}\" is none of yes, partly, no"));
            }
            let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
            if named.is_empty() && answer != "no" {
                wrong.push(format!("{key}: no test is named"));
            }
            wrong.extend(
                named.iter().filter(|it| !names.contains(**it)).map(|it| format!("{key}: there is no test {it}")),
            );
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }

    #[test]
    fn every_item_of_the_architecture_and_every_requirement_of_rfc_2779_has_a_row() {
        let keys: Vec<String> = rows(&document()).into_iter().map(|[key, ..]| key).collect();
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
}
