//! Whether somebody has waited for the writer for long.
//!
//! Where all threads share one core, the writer may be woken, or begin, and then wait out the slice of a thread that has
//! much to do: 3 to 4 ms on a kernel with 250 ticks a second. Whoever waits for a commit waits for that, too. So who has
//! much to do asks from time to time ([`Waiting::give_way`]). Where the writer has a core to itself nothing waits so long,
//! unless for the disk.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// So long the writer has for what waits before it is given the core of who asks. (At once would be a transaction for each
/// few who want one: docs/design/batching.md.)
const PATIENCE: Duration = Duration::from_millis(1);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Since when calls wait for the writer that it has not answered, nanoseconds of this process; 0: there are none.
#[derive(Debug, Default)]
pub struct Waiting(AtomicU64);

impl Waiting {
    /// Somebody waits from now on, if nobody did before.
    pub fn begin(&self) {
        if self.0.load(Relaxed) == 0 {
            self.0.store(now(), Relaxed);
        }
    }

    /// The writer takes what waits: it has as long for that.
    pub fn taken(&self) {
        self.0.store(now(), Relaxed);
    }

    /// Nobody waits.
    pub fn end(&self) {
        self.0.store(0, Relaxed);
    }

    /// Lets the writer run if it has had so long.
    pub fn give_way(&self) {
        if self.0.load(Relaxed) != 0 && self.is_late(now()) {
            std::thread::yield_now();
        }
    }

    /// Said once in so long: the writer may have a core of its own, and wait for the disk.
    fn is_late(&self, now: u64) -> bool {
        let since = self.0.load(Relaxed);
        let is_late = since != 0 && Duration::from_nanos(now.saturating_sub(since)) > PATIENCE;
        // (Not over the end of the waiting, which the writer may say meanwhile.)
        is_late && self.0.compare_exchange(since, now, Relaxed, Relaxed).is_ok()
    }
}

fn now() -> u64 {
    START.elapsed().as_nanos() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn way_is_given_once_in_so_long_while_somebody_waits() {
        let waiting = Waiting(AtomicU64::new(5 * MS));
        let asked: Vec<u64> = (40..90).map(|tenth| tenth * MS / 10).filter(|now| waiting.is_late(*now)).collect();
        assert_eq!(asked, [61 * MS / 10, 72 * MS / 10, 83 * MS / 10]);
    }

    #[test]
    fn nobody_gives_way_when_nobody_waits() {
        let waiting = Waiting::default();
        assert!(!waiting.is_late(1_000 * MS));
        waiting.begin();
        waiting.end();
        assert!(!waiting.is_late(1_000 * MS));
    }

    #[test]
    fn what_is_taken_begins_anew_and_who_comes_meanwhile_does_not() {
        let waiting = Waiting(AtomicU64::new(1));
        waiting.begin();
        assert_eq!(waiting.0.load(Relaxed), 1);
        waiting.taken();
        assert!(waiting.0.load(Relaxed) > 1);
    }
}
