//! What the store's writer says, carried from its thread to the entities.

use super::entity::{CellItem, Lapsed};
use super::{AccountCell, House, Ready};
use cluster::Posted;
use im::Ticket;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use store::{Outcome, StoreError};
use tokio::sync::Notify;
use xmpp::Stanza;

/// One commit's outcome, on its way to the entity that asked for it.
pub struct Note {
    pub cell: Arc<AccountCell>,
    pub seq: u64,
    pub result: Result<Vec<Outcome>, StoreError>,
    pub bounce: Option<Arc<Stanza>>,
    /// Nothing was promised on the strength of it, see [`is_upkeep`](super::entity::is_upkeep).
    pub upkeep: bool,
    pub ticket: Ticket,
}

/// Bounded by the writer's queue: each note is one commit that was in it.
#[derive(Default)]
pub struct Commits {
    notes: Mutex<Vec<Note>>,
    wake: Notify,
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

/// Carries notes until the house is dropped.
pub async fn carry(house: Arc<House>) {
    loop {
        house.commits.wake.notified().await;
        let notes = std::mem::take(&mut *house.commits.notes.lock());
        let mut ready = Ready::new();
        for (n, note) in notes.into_iter().enumerate() {
            if n % super::CELLS_A_TURN == super::CELLS_A_TURN - 1 {
                super::after_others().await;
            }
            match note.result {
                Ok(outcomes) => {
                    let item = CellItem::Committed { seq: note.seq, outcomes, ticket: note.ticket };
                    post(&house, note.cell, item, &mut ready);
                    house.work(&mut ready);
                }
                Err(error) => {
                    if error == StoreError::Fenced {
                        tracing::error!("another server owns this store now; this one must stop");
                        house.count("fenced");
                    }
                    tracing::error!(account = %note.cell.jid, ?error, "a write failed");
                    // Presence goes on while the disk is full (LIMITS.md §3), and what stands behind such a commit is tried
                    // again and again if it does not happen.
                    let passes = note.upkeep && error != StoreError::Fenced;
                    // The ticket of a failed write is never done by itself: the error answer is its outcome.
                    let Note { cell, seq, bounce, ticket, .. } = note;
                    post(&house, cell, CellItem::Failed { seq, passes, error, bounce, ticket }, &mut ready);
                    house.work(&mut ready);
                }
            }
        }
    }
}

/// A commit's outcome must not be lost: one that has no room in the mailbox waits for it on a task of its own.
fn post(house: &Arc<House>, cell: Arc<AccountCell>, item: CellItem, ready: &mut Ready) {
    match cell.cell.post(item) {
        Posted::Run => ready.push_back(cell),
        Posted::Queued | Posted::Gone(_) => {}
        Posted::Full(item) => post_later(house, cell, item),
    }
}

/// A store that is busy is asked again after so long.
const BUSY_RETRY: Duration = Duration::from_millis(20);

/// A commit of what is stored of the account failed: that is read again when all that was written behind it is there, or
/// failed as well.
pub(super) fn read_again(house: &Arc<House>, cell: &Arc<AccountCell>, lapsed: Lapsed) {
    let (house, cell) = (house.clone(), cell.clone());
    house.runtime.clone().spawn(async move {
        while let Err(StoreError::Busy) = house.commit(&cell.jid, Vec::new()).await {
            tokio::time::sleep(BUSY_RETRY).await;
        }
        let stored = house.store.load_account(&cell.jid).await.ok().flatten().map(Box::new);
        let mut ready = Ready::new();
        post(&house, cell, CellItem::ReadAgain(Box::new((lapsed, stored))), &mut ready);
        house.work(&mut ready);
    });
}

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
