//! Scenes of whole servers, a few. `cargo xtask sim N` runs many, and looks for each planted mistake.

use sim::scene::{Options, run};
use xmpp::planted::Bug;

/// Scenes of the short run.
const SEEDS: u64 = 8;

#[test]
fn nothing_goes_wrong_in_the_first_scenes() {
    let mut wrong = Vec::new();
    for seed in 1..=SEEDS {
        let report = run(&Options { seed, ..Options::default() });
        assert!(report.events > 0, "seed {seed}: nothing happened");
        wrong.extend(report.violations.into_iter().map(|it| format!("seed {seed}: {}: {}", it.checker, it.what)));
    }
    assert!(wrong.is_empty(), "again with: cargo run -p sim -- --log --seed N\n{}", wrong.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 4, 5] {
        let report = || {
            let report = run(&Options { seed, ..Options::default() });
            (report.hash, report.events)
        };
        assert_eq!(report(), report(), "seed {seed}");
    }
    let hash = |seed| run(&Options { seed, ..Options::default() }).hash;
    assert_ne!(hash(3), hash(4));
}

#[test]
fn each_checker_has_a_mistake_that_it_must_find() {
    let bugs = Bug::ALL;
    for (checker, _) in sim::ledger::CHECKERS {
        assert!(bugs.iter().any(|bug| sim::planted::checker_for(*bug) == *checker), "{checker} is not tested");
    }
    for bug in bugs {
        let checker = sim::planted::checker_for(*bug);
        assert!(sim::ledger::CHECKERS.iter().any(|(name, _)| *name == checker), "nobody looks for {bug:?}");
    }
}

/// A checker that is taken out finds nothing: then its mistake is not found.
#[test]
fn each_planted_mistake_is_found_by_its_checker() {
    for bug in Bug::ALL {
        assert!(sim::planted::is_found(*bug, 500), "{} does not find {bug:?}", sim::planted::checker_for(*bug));
    }
}
