//! The checkpointer: moves pages from the WAL into the file, on a thread and a connection of its own, so that no commit
//! waits for it.
//!
//! Only a WAL of which every page was moved starts over, and while the writer writes there is always one more. So the
//! last few are left to the writer itself, between two transactions.

use crate::writer::{self, Shared};
use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Pages in the WAL at which a checkpoint begins: of the 64 MiB it may have, the rest is for what is written meanwhile. (A
/// file costs the system more while it grows than when it is written over. With three times as many a message took 5 % more
/// CPU until it had come around and no less behind that; with a quarter as many it took a sixth more.)
const START_PAGES: i32 = (32 << 20) / 4096;
/// If a reader kept the WAL from starting over, how many more there are until the next attempt.
const AGAIN_PAGES: i32 = START_PAGES / 8;
/// What long upkeep may add to the WAL until it is moved: a millisecond of work. Who waits while thousands are moved at once,
/// and shares the core with that, waits for 3 to 5.
const UPKEEP_PAGES: i32 = 256;
/// Upkeep is long if one step adds so many. (What follows each message adds a few, and they go with all others.)
const LONG_STEP_PAGES: i32 = 32;
/// What is left to the writer.
const FINISH_PAGES: i64 = 256;
/// Passes until the rest is left to the writer even if it is more.
const PASSES_MAX: u32 = 8;
/// After this long without a commit the WAL is emptied.
const IDLE: Duration = Duration::from_secs(30);

/// How long the WAL is, and who does what about it.
#[derive(Default)]
pub struct Gauge {
    state: Mutex<Level>,
    changed: Condvar,
    finish: AtomicBool,
    /// From the beginning of a checkpoint until the writer has done its part.
    moving: AtomicBool,
}

#[derive(Default)]
struct Level {
    /// Pages in the WAL, told by SQLite after each commit.
    pages: i32,
    /// Pages at which the last checkpoint began; 0 since the WAL started over.
    attempted: i32,
    /// Commits since the checkpointer last looked.
    commits: u32,
    /// Pages that long upkeep added since a checkpoint began.
    upkeep: i32,
    end: bool,
}

impl Level {
    fn due(&self) -> bool {
        self.pages >= START_PAGES.max(self.attempted + AGAIN_PAGES) || self.upkeep >= UPKEEP_PAGES
    }
}

impl Gauge {
    /// After a commit.
    pub fn grown(&self, pages: i32) {
        let mut level = self.state.lock();
        if pages < level.pages {
            level.attempted = 0;
        }
        level.pages = pages;
        level.commits += 1;
        if level.due() {
            self.changed.notify_one();
        }
    }

    /// Pages in the WAL.
    pub fn pages(&self) -> i32 {
        self.state.lock().pages
    }

    /// After a step of upkeep, with what was in the WAL before it: what such steps add is moved before the next if it is
    /// enough.
    pub fn tidied(&self, before: i32) {
        let mut level = self.state.lock();
        // (If it started over, all that is in it is the step's.)
        let added = if level.pages < before { level.pages } else { level.pages - before };
        if added >= LONG_STEP_PAGES {
            level.upkeep += added;
        }
        if level.upkeep >= UPKEEP_PAGES {
            self.moving.store(true, Relaxed);
            self.changed.notify_one();
        }
    }

    /// Ends the checkpointer.
    pub fn end(&self) {
        self.state.lock().end = true;
        self.changed.notify_one();
    }

    /// Is a checkpoint under way? What can wait is not written meanwhile: the checkpointer would never be done, and what it
    /// leaves to the writer is a time in which nobody's commit is.
    pub fn is_moving(&self) -> bool {
        self.moving.load(Relaxed)
    }

    /// It is over.
    pub fn moved(&self) {
        self.moving.store(false, Relaxed);
    }

    /// Is the end of a checkpoint left to the writer? Asked once, answered once.
    pub fn wants_finish(&self) -> bool {
        self.finish.load(Relaxed) && self.finish.swap(false, Relaxed)
    }
}

/// Until the end.
pub fn run(shared: &Shared, connection: &Connection) {
    count_records(shared, connection);
    let gauge = &shared.gauge;
    loop {
        let truncate = {
            let mut level = gauge.state.lock();
            let mut idle = false;
            while !level.end && !level.due() && !idle {
                let timed_out = gauge.changed.wait_for(&mut level, IDLE).timed_out();
                idle = timed_out && level.commits == 0 && level.pages > 0 && !level.due();
                if timed_out {
                    level.commits = 0;
                }
            }
            if level.end {
                return;
            }
            level.attempted = level.pages;
            level.upkeep = 0;
            if idle {
                level.pages = 0;
                level.attempted = 0;
            }
            idle
        };
        if let Err(error) = if truncate { truncate_wal(connection) } else { checkpoint(shared, connection) } {
            tracing::warn!(%error, "a checkpoint failed; the WAL grows until one succeeds");
            if let Some(reason) = writer::is_fatal(error) {
                shared.fail(reason);
                return;
            }
        }
    }
}

fn checkpoint(shared: &Shared, connection: &Connection) -> rusqlite::Result<()> {
    shared.gauge.moving.store(true, Relaxed);
    let moved = passes(connection);
    if moved.is_ok() {
        shared.gauge.finish.store(true, Relaxed);
    } else {
        shared.gauge.moved();
    }
    // Under the lock, so that the writer is not between looking and waiting.
    let _queue = shared.queue.lock();
    shared.wake.notify_one();
    moved
}

/// Until few are left, or enough was done.
fn passes(connection: &Connection) -> rusqlite::Result<()> {
    for _ in 0..PASSES_MAX {
        if passive(connection)? <= FINISH_PAGES {
            break;
        }
    }
    Ok(())
}

/// Moves what can be moved without waiting; how many pages are left.
pub fn passive(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |row| {
        let (log, moved): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(log - moved)
    })
}

/// Moves everything and empties the WAL file, if nobody reads or writes.
pub fn truncate_wal(connection: &Connection) -> rusqlite::Result<()> {
    passive(connection)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Counts the log as it was when the store was opened; the writer adds what came since.
fn count_records(shared: &Shared, connection: &Connection) {
    let counted = connection.query_row("SELECT count(*) FROM log", [], |row| row.get::<_, i64>(0));
    match counted.and_then(|records| connection.execute_batch("COMMIT").map(|()| records)) {
        Ok(records) => {
            shared.figures.records.fetch_add(records, Relaxed);
        }
        Err(error) => tracing::warn!(%error, "the records of the log could not be counted"),
    }
}

/// Opens the snapshot that [`run`] counts.
pub fn pin(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    connection.query_row("SELECT epoch FROM meta", [], |_| Ok(()))
}

/// On a thread of its own.
pub fn spawn(shared: Arc<Shared>, connection: Connection) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("store-checkpoint".into()).spawn(move || run(&shared, &connection))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step of upkeep that adds so many pages.
    fn step(gauge: &Gauge, pages: i32) {
        let before = gauge.pages();
        gauge.grown(before + pages);
        gauge.tidied(before);
    }

    #[test]
    fn upkeep_that_follows_each_message_asks_for_no_checkpoint() {
        let gauge = Gauge::default();
        for _ in 0..4 * UPKEEP_PAGES / LONG_STEP_PAGES {
            step(&gauge, LONG_STEP_PAGES - 1);
        }
        assert!(gauge.pages() > UPKEEP_PAGES && !gauge.is_moving() && !gauge.state.lock().due());
    }

    #[test]
    fn long_upkeep_waits_for_a_checkpoint_when_it_added_enough() {
        let gauge = Gauge::default();
        // What others wrote before does not count.
        gauge.grown(UPKEEP_PAGES);
        for _ in 1..UPKEEP_PAGES / LONG_STEP_PAGES {
            step(&gauge, LONG_STEP_PAGES);
            assert!(!gauge.is_moving());
        }
        step(&gauge, LONG_STEP_PAGES);
        assert!(gauge.is_moving() && gauge.state.lock().due());
        gauge.moved();
        assert!(!gauge.is_moving());
    }

    #[test]
    fn of_a_log_that_started_over_all_is_the_steps() {
        let gauge = Gauge::default();
        gauge.grown(START_PAGES - 1);
        let before = gauge.pages();
        gauge.grown(UPKEEP_PAGES);
        gauge.tidied(before);
        assert!(gauge.is_moving());
    }
}
