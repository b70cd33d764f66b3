//! Ticks: when an account asked to be woken, and when to look whether it is still needed in memory.

use super::entity::CellItem;
use super::turns::CELLS_A_TURN;
use super::{AccountCell, House, Ready};
use cluster::Posted;
use im::Item;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Ticks are grouped to this many milliseconds.
const GRAIN_MS: u64 = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Tick,
    Sweep,
}

type Due = (Weak<AccountCell>, What);

/// Bounded by two entries an account in memory (the nearest tick, one sweep) and those that lapsed.
#[derive(Debug, Default)]
pub struct Timers {
    due: Mutex<BTreeMap<u64, Vec<Due>>>,
}

impl Timers {
    pub fn tick(&self, mono_ms: u64, cell: &Arc<AccountCell>) {
        self.add(mono_ms, cell, What::Tick);
    }

    pub fn sweep(&self, mono_ms: u64, cell: &Arc<AccountCell>) {
        self.add(mono_ms, cell, What::Sweep);
    }

    fn add(&self, mono_ms: u64, cell: &Arc<AccountCell>, what: What) {
        let slot = mono_ms.div_ceil(GRAIN_MS);
        self.due.lock().entry(slot).or_default().push((Arc::downgrade(cell), what));
    }
}

/// Wakes what is due until the house is dropped, a turn's worth at a time.
pub async fn carry(house: Arc<House>) {
    let mut pulse = tokio::time::interval(Duration::from_millis(GRAIN_MS));
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pulse.tick().await;
        let slot = house.now().mono_ms / GRAIN_MS;
        let due = {
            let mut all = house.timers.due.lock();
            if all.is_empty() {
                continue;
            }
            let later = all.split_off(&(slot + 1));
            std::mem::replace(&mut *all, later)
        };
        let mut due = due.into_values().flatten().peekable();
        while due.peek().is_some() {
            let mut ready = Ready::new();
            for (cell, what) in due.by_ref().take(CELLS_A_TURN) {
                let Some(cell) = cell.upgrade() else { continue };
                let item = match what {
                    What::Tick => CellItem::Im(Item::Tick),
                    What::Sweep => CellItem::Sweep,
                };
                // Into a cell that went meanwhile: nothing to wake.
                if let Posted::Run = cell.cell.post(item) {
                    ready.push_back(cell);
                }
            }
            house.work(&mut ready);
            super::after_others().await;
        }
    }
}
