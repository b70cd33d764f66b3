//! Marks of records that were taken: they are cleared in batches, within a second. What a crash makes the server send again
//! is bounded by that. DESIGN.md D5.

use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::item::Ticket;
use crate::modules::outcome::{self, State};
use std::collections::VecDeque;
use store::Change;

/// Marks are committed after so many milliseconds at the latest.
pub const BATCH_MS: u64 = 1_000;
/// Marks are committed at once when there are so many.
pub(super) const BATCH_MAX: usize = 500;
/// Marks of earlier batches that are remembered, in case their commit failed.
const LATELY_MAX: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Taken, for the next batch.
    taken: Vec<i64>,
    /// Of those, the ones that no resource took, and why they are not pending any more.
    failed: Vec<(i64, State)>,
    /// Taken, in batches before.
    lately: VecDeque<i64>,
    /// Monotonic milliseconds when the batch is due.
    pub batch_at: Option<u64>,
}

impl Marks {
    pub fn add(&mut self, position: i64) {
        self.taken.push(position);
    }

    /// No resource took it, and it is added nevertheless.
    pub fn failed(&mut self, position: i64, state: State) {
        self.failed.push((position, state));
    }

    pub fn has(&self, position: i64) -> bool {
        self.taken.contains(&position)
    }

    /// A mark is still in the store: was the record taken? One whose mark was not cleared after all goes with the next
    /// batch again.
    pub fn has_or_had(&mut self, position: i64) -> bool {
        if self.lately.contains(&position) && !self.has(position) {
            self.add(position);
        }
        self.has(position)
    }

    /// A commit failed, and it may have been that of a batch.
    pub fn again(&mut self) {
        self.taken.extend(std::mem::take(&mut self.lately));
    }

    pub fn is_any(&self) -> bool {
        !self.taken.is_empty()
    }

    /// Is something to be written?
    pub fn is_busy(&self) -> bool {
        self.is_any() || self.batch_at.is_some()
    }
}

/// A resource took these: their marks go with the next batch.
pub(crate) fn taken(account: &mut Account, positions: impl IntoIterator<Item = i64>, fx: &mut Effects) {
    positions.into_iter().for_each(|position| account.inbox.take(position));
    if account.inbox.marks.taken.len() >= BATCH_MAX {
        let changes = marks(account, fx);
        fx.commit(changes, None, &Ticket::default());
    } else if account.inbox.marks.is_any() {
        batch_soon(account, fx);
    }
}

/// A batch is committed within a second.
pub(crate) fn batch_soon(account: &mut Account, fx: &mut Effects) {
    if account.inbox.marks.batch_at.is_none() {
        let at = account.now.mono_ms + BATCH_MS;
        account.inbox.marks.batch_at = Some(at);
        fx.push(Effect::WakeAt { mono_ms: at });
    }
}

/// The batch is being committed.
pub(crate) fn batch_done(account: &mut Account) {
    account.inbox.marks.batch_at = None;
}

/// The changes that clear the marks of what was taken, if there are any; who asked is told what became of it.
pub(crate) fn marks(account: &mut Account, fx: &mut Effects) -> Vec<Change> {
    let marks = &mut account.inbox.marks;
    let mut positions = std::mem::take(&mut marks.taken);
    if positions.is_empty() {
        return Vec::new();
    }
    positions.sort_unstable();
    marks.lately.extend(&positions);
    let surplus = marks.lately.len().saturating_sub(LATELY_MAX);
    marks.lately.drain(..surplus);
    let failed = std::mem::take(&mut marks.failed);
    let forgotten = outcome::cleared(account, &positions, &failed, fx);
    let mut changes = vec![Change::Taken { account: account.jid.clone(), positions }];
    changes.extend(forgotten);
    changes
}
