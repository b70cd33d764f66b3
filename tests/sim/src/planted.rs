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

/// The first seed in which `checker` finds something, and what.
pub fn find(bug: Bug, checker: &str, from: u64, seeds: u64) -> Option<(u64, String)> {
    (from..from + seeds).find_map(|seed| {
        let report = run(&Options { seed, bug: Some(bug), ..Options::default() });
        let found = report.violations.into_iter().find(|it| it.checker == checker)?;
        Some((seed, found.what))
    })
}
