//! Checks `docs/impp.md`: each row says yes, partly or no, and names tests that there are.

#[cfg(test)]
mod tests {
    use crate::documents::{all_tests, root};

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
        let names = all_tests();
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
