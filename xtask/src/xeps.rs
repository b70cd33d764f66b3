//! `docs/xeps.md`: what is implemented, in which version, and what the compliance suites want.

use crate::{elsewhere, suites};
use im::modules::MODULES;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// One line of the page.
#[derive(Debug, Clone)]
pub struct Done {
    pub version: &'static str,
    /// Empty when all of it is done.
    pub missing: &'static str,
    /// Crate and, for an extension, its module.
    pub place: String,
}

/// A specification: RFCs before XEPs, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spec {
    Rfc(u16),
    Xep(u16),
}

impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Spec::Rfc(number) => write!(f, "RFC {number}"),
            Spec::Xep(number) => write!(f, "XEP-{number:04}"),
        }
    }
}

/// All that is implemented: from the cards, and what lives in crates without cards.
pub fn all() -> BTreeMap<Spec, Done> {
    let mut all = BTreeMap::new();
    for module in MODULES {
        for spec in module.specs {
            let done = Done { version: spec.version, missing: spec.missing, place: format!("im, {}", module.name) };
            all.insert(Spec::Xep(spec.number), done);
        }
    }
    for &(spec, version, missing, place) in elsewhere::SPECS {
        all.insert(spec, Done { version, missing, place: place.to_owned() });
    }
    all
}

/// The page. The same cards give the same bytes.
pub fn page() -> String {
    let all = all();
    let mut page = String::from(
        "# What waft speaks\n\n\
         Printed from the code by `cargo run -p xtask -- xeps`; do not edit. A version is that of the text which was\n\
         implemented from; an empty last column means that all of what is a server's part is done.\n\n\
         ## Specifications\n\n\
         | | Title | Version | Where | Missing |\n|---|---|---|---|---|\n",
    );
    for (spec, done) in &all {
        let title = elsewhere::title(*spec).unwrap_or("");
        line(&mut page, &[&spec.to_string(), title, done.version, &done.place, done.missing]);
    }
    page.push_str(
        "\n## Compliance suites 2023, XEP-0479\n\n\
        What a *server* must do for its level. \"partly\" names what is missing.\n",
    );
    for suite in suites::SUITES {
        let _ = write!(page, "\n### {}\n\n| Feature | Level | Wants | Done |\n|---|---|---|---|\n", suite.name);
        for feature in suite.features {
            let wants =
                feature.wants.iter().map(|group| group.iter().map(Spec::to_string).collect::<Vec<_>>().join(" or "));
            let wants = wants.collect::<Vec<_>>().join(", ");
            line(&mut page, &[feature.name, feature.level.name(), &wants, &status(&all, feature)]);
        }
    }
    page
}

fn line(page: &mut String, cells: &[&str]) {
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

/// `yes`; `no`, or `partly` with what is missing.
fn status(all: &BTreeMap<Spec, Done>, feature: &suites::Feature) -> String {
    let mut missing = Vec::new();
    let mut done = 0;
    for group in feature.wants {
        // Of alternatives the best counts.
        let best = group.iter().filter_map(|spec| all.get(spec)).min_by_key(|done| done.missing.len());
        match best {
            None => missing.push(group.iter().map(Spec::to_string).collect::<Vec<_>>().join(" or ")),
            Some(partly) if !partly.missing.is_empty() => {
                done += 1;
                missing.push(partly.missing.to_owned());
            }
            Some(_) => done += 1,
        }
    }
    match (missing.is_empty(), done) {
        (true, _) => "yes".to_owned(),
        (false, 0) => "no".to_owned(),
        (false, _) => format!("partly: without {}", missing.join("; ")),
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/xeps.md")
}

/// Writes the page.
///
/// # Errors
/// What the file system says.
pub fn write() -> Result<(), String> {
    let path = path();
    std::fs::write(&path, page()).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_book_is_what_the_cards_print() {
        let written = std::fs::read_to_string(path()).unwrap_or_default();
        assert!(written == page(), "docs/xeps.md is stale: run `cargo run -p xtask -- xeps`");
    }

    #[test]
    fn each_specification_has_a_title() {
        let nameless: Vec<_> = all().into_keys().filter(|spec| elsewhere::title(*spec).is_none()).collect();
        assert_eq!(nameless, []);
    }

    #[test]
    fn no_specification_stands_on_two_cards() {
        let mut numbers: Vec<u16> = MODULES.iter().flat_map(|module| module.specs).map(|spec| spec.number).collect();
        numbers.extend(elsewhere::SPECS.iter().filter_map(|(spec, ..)| match spec {
            Spec::Xep(number) => Some(*number),
            Spec::Rfc(_) => None,
        }));
        let before = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), before);
    }

    #[test]
    fn a_feature_whose_specification_is_incomplete_is_done_partly() {
        let all =
            BTreeMap::from([(Spec::Xep(1), Done { version: "1.0", missing: "the hard part", place: String::new() })]);
        let feature = |wants| suites::Feature { name: "", level: suites::Level::Server, wants };
        assert_eq!(status(&all, &feature(&[&[Spec::Xep(1)]])), "partly: without the hard part");
        assert_eq!(status(&all, &feature(&[&[Spec::Xep(2)]])), "no");
        assert_eq!(
            status(&all, &feature(&[&[Spec::Xep(1), Spec::Xep(2)], &[Spec::Xep(2)]])),
            "partly: without the hard part; XEP-0002"
        );
    }
}
