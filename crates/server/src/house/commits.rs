//! What the store's writer says, carried from its thread to the entities.

use super::entity::CellItem;
use super::{AccountCell, House, Ready};
use cluster::Posted;
use im::Ticket;
use parking_lot::Mutex;
use std::sync::Arc;
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
                    match note.cell.cell.post(item) {
                        Posted::Run => ready.push_back(note.cell),
                        Posted::Queued | Posted::Gone(_) => {}
                        // A commit's outcome must not be lost: wait for the mailbox on a task of its own.
                        Posted::Full(item) => post_later(&house, note.cell, item),
                    }
                    house.work(&mut ready);
                }
                Err(error) => {
                    if error == StoreError::Fenced {
                        tracing::error!("another server owns this store now; this one must stop");
                        house.count("fenced");
                    }
                    let house = house.clone();
                    let (cell, seq, bounce) = (note.cell, note.seq, note.bounce);
                    // Presence goes on while the disk is full (LIMITS.md §3), and what stands behind such a commit is tried
                    // again and again if it does not happen.
                    let passes = note.upkeep && error != StoreError::Fenced;
                    // The ticket of a failed write is never done by itself: the error answer is its outcome.
                    let ticket = note.ticket;
                    tokio::spawn(async move {
                        tracing::error!(account = %cell.jid, ?error, "a write failed");
                        let stored = house.store.load_account(&cell.jid).await.ok().flatten().map(Box::new);
                        house.post_to(&cell, CellItem::Failed { seq, passes, error, bounce, ticket, stored });
                    });
                }
            }
        }
    }
}

fn post_later(house: &Arc<House>, cell: Arc<AccountCell>, item: CellItem) {
    let house = house.clone();
    tokio::spawn(async move {
        let mut item = item;
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
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
