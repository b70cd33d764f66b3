//! Mistakes on purpose: which checker must find which.

use crate::scene::{Options, run};
use xmpp::planted::Bug;

/// The checker that is there for it.
pub fn checker_for(bug: Bug) -> &'static str {
    match bug {
        Bug::AckBeforeCommit | Bug::SilentFailure => "lost",
        Bug::NothingRecognised => "doubled",
        Bug::QueueReversed => "reordered",
        Bug::WrongPayload => "invented",
        Bug::TicketForgotten => "outcome",
        Bug::BacklogUnread => "undelivered",
        Bug::AnswerLost => "answers",
        Bug::BroadcastShort => "presence",
        Bug::LeaseForever => "ghosts",
        Bug::CancelUntold => "subscriptions",
        Bug::PushOmitted => "pushes",
        Bug::ViewSkipped => "view",
        Bug::EdgeLeak => "bounds",
    }
}

/// A scene that showed it, so that it is found soon.
fn hint(bug: Bug) -> u64 {
    match bug {
        Bug::AckBeforeCommit => 138,
        Bug::CancelUntold => 40,
        Bug::LeaseForever => 19,
        Bug::PushOmitted => 4,
        Bug::QueueReversed => 2,
        _ => 1,
    }
}

/// Is the mistake found within `seeds` scenes? The most likely one comes first.
pub fn is_found(bug: Bug, seeds: u64) -> bool {
    let (checker, first) = (checker_for(bug), hint(bug));
    find(bug, checker, first, 1).is_some() || find(bug, checker, 1, seeds).is_some()
}

/// The first seed in which `checker` finds something, and what.
pub fn find(bug: Bug, checker: &str, from: u64, seeds: u64) -> Option<(u64, String)> {
    (from..from + seeds).find_map(|seed| {
        let report = run(&Options { seed, bug: Some(bug), ..Options::default() });
        let found = report.violations.into_iter().find(|it| it.checker == checker)?;
        Some((seed, found.what))
    })
}
