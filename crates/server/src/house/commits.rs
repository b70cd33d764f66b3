//! What the store's writer says, carried from its thread to the entities.

use super::entity::CellItem;
use super::mending::Lapsed;
use super::turns::CELLS_A_TURN;
use super::{AccountCell, House, Ready};
use cluster::Posted;
use im::Ticket;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use store::{Change, Outcome, StoreError};
use tokio::sync::Notify;
use xmpp::Stanza;

/// One commit's outcome, on its way to the entity that asked for it.
pub struct Note {
    pub cell: Arc<AccountCell>,
    pub seq: u64,
    pub result: Result<Vec<Outcome>, StoreError>,
    pub bounce: Option<Arc<Stanza>>,
    /// Nothing was promised on the strength of it, see [`is_upkeep`].
    pub upkeep: bool,
    pub ticket: Ticket,
}

/// Does the change only keep the books, which can be behind for a while? Presence and messages between those who are
/// there go on without it, and it is tried again.
pub fn is_upkeep(change: &Change) -> bool {
    change.keeps_books()
        || is_ledger_of_watchers(change)
        || matches!(change, Change::BlobDelete { space, key, .. } if im::modules::outcome::is_key(space, key))
}

fn is_ledger_of_watchers(change: &Change) -> bool {
    matches!(change, Change::BlobPut { space, key, .. } if (&**space, &**key) == (store::SETTINGS, im::watchers::KEY))
}

/// Bounded by the writer's queue: each note is one commit that was in it.
#[derive(Default)]
pub struct Commits {
    notes: Mutex<Vec<Note>>,
    wake: Notify,
    /// Something is to go to the writer.
    pub(super) wants: Notify,
}

impl Commits {
    pub fn push(&self, note: Note) {
        let first = {
            let mut notes = self.notes.lock();
            notes.push(note);
            notes.len() == 1
        };
        if first {
            self.wake.notify_one();
        }
    }
}

/// Wakes the writer for what accounts have queued, behind all that is ready to run. (Where all runs on one core it would have
/// that at once, and begin with what the first of many had to say: chat between domains took a seventh more CPU time.)
pub async fn hand_over(house: Arc<House>) {
    loop {
        house.commits.wants.notified().await;
        super::after_others().await;
        house.commit_now();
    }
}

/// Carries notes until the house is dropped, a turn's worth at a time.
pub async fn carry(house: Arc<House>) {
    loop {
        house.commits.wake.notified().await;
        let mut notes = std::mem::take(&mut *house.commits.notes.lock()).into_iter();
        loop {
            let mut ready = Ready::new();
            for note in notes.by_ref().take(CELLS_A_TURN) {
                carry_one(&house, note, &mut ready);
            }
            house.work(&mut ready);
            if notes.len() == 0 {
                break;
            }
            super::after_others().await;
        }
    }
}

fn carry_one(house: &Arc<House>, note: Note, ready: &mut Ready) {
    let Note { cell, seq, result, bounce, upkeep, ticket } = note;
    let item = match result {
        Ok(outcomes) => CellItem::Committed { seq, outcomes, ticket },
        Err(error) => {
            if error == StoreError::Fenced {
                tracing::error!("another server owns this store now; this one must stop");
                house.count("fenced");
            }
            tracing::error!(account = %cell.jid, ?error, "a write failed");
            // Presence goes on while the disk is full (LIMITS.md §3), and what stands behind such a commit is tried
            // again and again if it does not happen.
            let passes = upkeep && error != StoreError::Fenced;
            // The ticket of a failed write is never done by itself: the error answer is its outcome.
            CellItem::Failed { seq, passes, lapsed: Lapsed { error, bounce, ticket } }
        }
    };
    post(house, cell, item, ready);
}

/// A commit's outcome must not be lost: one that has no room in the mailbox waits for it on a task of its own.
pub(super) fn post(house: &Arc<House>, cell: Arc<AccountCell>, item: CellItem, ready: &mut Ready) {
    match cell.cell.post(item) {
        Posted::Run => ready.push_back(cell),
        Posted::Queued | Posted::Gone(_) => {}
        Posted::Full(item) => post_later(house, cell, item),
    }
}

/// A store that is busy is asked again after so long.
pub(super) const BUSY_RETRY: Duration = Duration::from_millis(20);

fn post_later(house: &Arc<House>, cell: Arc<AccountCell>, item: CellItem) {
    let house = house.clone();
    tokio::spawn(async move {
        let mut item = item;
        loop {
            tokio::time::sleep(BUSY_RETRY).await;
            match cell.cell.post(item) {
                Posted::Run => {
                    let mut ready = Ready::from([cell.clone()]);
                    return house.work(&mut ready);
                }
                Posted::Queued | Posted::Gone(_) => return,
                Posted::Full(back) => item = back,
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::testing::{house, juliet};
    use crate::house::turns::COMMITS_TOGETHER;
    use std::sync::atomic::Ordering;
    use store::Key;
    use xmpp::Stamp;

    #[tokio::test]
    async fn the_writer_is_woken_behind_all_that_is_ready_and_at_once_when_it_has_much() {
        let (house, _) = house();
        let fence = Key::Bare(juliet()).fence(house.store.epoch());
        let queue = |calls| (0..calls).for_each(|_| house.commit_soon(fence, vec![], Box::new(|_| ())));
        let queued = |house: &House| house.uncommitted.load(Ordering::Acquire);
        // (The tasks of the house wait for work by then.)
        tokio::task::yield_now().await;
        queue(1);
        house.commit_in_turn();
        let other = house.clone();
        let ready = tokio::spawn(async move { queued(&other) });
        assert_eq!(ready.await.ok(), Some(1));
        tokio::task::yield_now().await;
        assert_eq!(queued(&house), 0);
        queue(COMMITS_TOGETHER);
        house.commit_in_turn();
        assert_eq!(queued(&house), 0);
    }

    #[test]
    fn only_what_keeps_the_books_passes_a_full_disk() {
        let account = juliet();
        let left = Change::LastActivity { account: account.clone(), left: Stamp(0), status: "".into() };
        assert!(is_upkeep(&left));
        assert!(is_upkeep(&Change::SessionDelete { account: account.clone(), resource: "home".into() }));
        assert!(is_upkeep(&Change::Taken { account: account.clone(), positions: vec![1] }));
        assert!(!is_upkeep(&Change::RequestDelete { account: account.clone(), contact: account }));
    }
}
