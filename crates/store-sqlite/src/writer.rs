//! The writer: one thread, one connection, group commit.
//!
//! Whenever it is free it takes what is queued, does it in one transaction, and calls every `done`, in order. While much
//! comes it waits a moment for more before it begins, and with what can wait: see [`crate::queue`].

use crate::apply::{Applier, Memory, Stop, Tally};
use crate::checkpoint::{self, Gauge};
use crate::open;
use crate::queue::{Call, Queue, Room, State, Waited};
use crate::upkeep::{self, Unreadable, Upkeep};
use crate::waiting::Waiting;
use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, ErrorCode, OptionalExtension};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use store::{CLOSED, Change, Committed, Fence, Outcome, Record, StoreError};
use tokio::sync::oneshot;
use xmpp::Stamp;

/// What may wait in the queue; a call that would exceed it is answered `Busy`.
pub const QUEUE_CHANGES_MAX: usize = 100_000;
pub const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Of those that exceed it, so many that may only say again what the log has wait for their turn all the same.
const AGAIN_MAX: usize = 20_000;
/// Unreadable rows that wait to be noted; more are met again.
const UNREADABLE_MAX: usize = 1_000;

/// Why nothing is written after a bug of ours.
const PANICKED: &str = "the writer panicked";

/// What the handle, the writer, the readers and the checkpointer have in common.
pub struct Shared {
    pub queue: Mutex<Queue>,
    /// Something came into the queue.
    pub wake: Condvar,
    /// Whether somebody has waited for the writer for long.
    pub waiting: Waiting,
    /// Why nothing is written any more.
    pub fatal: Mutex<Option<String>>,
    pub figures: Figures,
    pub gauge: Gauge,
    pub epoch: u64,
    pub clock: fn() -> Stamp,
    /// Are the words of messages kept?
    pub fulltext: bool,
    pub on_fatal: Option<crate::OnFatal>,
    /// For tests: pages that the file may have; 0 is no limit.
    pub page_limit: Arc<AtomicU64>,
    /// The database.
    pub path: PathBuf,
}

#[derive(Default)]
pub struct Figures {
    pub commits: AtomicU64,
    pub changes: AtomicU64,
    pub accounts: AtomicI64,
    pub records: AtomicI64,
    pub quarantined: AtomicU64,
    /// 0 if there was none yet.
    pub last_commit: AtomicI64,
}

type Answer = Result<Vec<Outcome>, StoreError>;

impl Shared {
    /// Queues; the writer is woken unless there is more to come.
    pub fn commit(&self, fence: Fence, changes: Vec<Change>, done: Committed, more: bool) {
        let bytes = changes.iter().map(Change::weight).sum();
        // (Who has nothing to write waits for those before.)
        let is_urgent = changes.is_empty() || !changes.iter().all(Change::keeps_books);
        let refused = {
            let mut queue = self.queue.lock();
            let full = queue.changes + changes.len() > QUEUE_CHANGES_MAX || queue.bytes + bytes > QUEUE_BYTES_MAX;
            if queue.state != State::Open {
                StoreError::Fatal(CLOSED.into())
            } else if full && !queue.calls.is_empty() {
                if queue.again < AGAIN_MAX && may_be_said_again(&changes) {
                    queue.again += 1;
                    let changes = changes.into_iter().map(without_text).collect();
                    queue.urgent += 1;
                    let room = Room::Again;
                    queue.calls.push_back(Call { fence, changes, bytes: 0, is_urgent: true, room, done: Some(done) });
                    return;
                }
                StoreError::Busy
            } else {
                queue.changes += changes.len();
                queue.bytes += bytes;
                queue.urgent += usize::from(is_urgent);
                queue.calls.push_back(Call { fence, changes, bytes, is_urgent, room: Room::All, done: Some(done) });
                if !more {
                    self.wake_for(&queue);
                }
                return;
            }
        };
        done(Err(refused));
    }

    /// Nothing more comes for now.
    pub fn go(&self) {
        // Under the queue's lock, so that a writer about to sleep has seen what was queued.
        self.wake_for(&self.queue.lock());
    }

    fn wake_for(&self, queue: &Queue) {
        if queue.wants_writer() {
            self.waiting.begin();
            self.wake.notify_one();
        }
    }

    /// Tells the writer of a row that could not be read.
    pub fn unreadable(&self, row: Unreadable) {
        let mut queue = self.queue.lock();
        if queue.unreadable.len() < UNREADABLE_MAX {
            queue.unreadable.push(row);
            self.wake.notify_one();
        }
    }

    /// Asks the writer to end once the queue is empty; what is received when it has, or nothing if it had already.
    pub fn close(&self) -> Option<oneshot::Receiver<()>> {
        let mut queue = self.queue.lock();
        if queue.state == State::Closed {
            return None;
        }
        queue.state = State::Closing;
        let (say, hear) = oneshot::channel();
        queue.closers.push(say);
        self.wake.notify_one();
        Some(hear)
    }

    /// The writer is gone: says so to who waits.
    pub fn closed(&self) {
        let closers = {
            let mut queue = self.queue.lock();
            queue.state = State::Closed;
            std::mem::take(&mut queue.closers)
        };
        for closer in closers {
            // Who no longer waits need not know.
            let _ = closer.send(());
        }
    }

    /// Nothing is written any more.
    pub fn fail(&self, reason: String) {
        tracing::error!(reason, "the store accepts no more writes");
        let mut fatal = self.fatal.lock();
        if fatal.is_none() {
            *fatal = Some(reason.clone());
            drop(fatal);
            if let Err(error) = open::leave_word(&self.path) {
                tracing::warn!(%error, "the next start cannot be told that a write failed");
            }
            if let Some(on_fatal) = &self.on_fatal {
                on_fatal(&reason);
            }
        }
    }
}

/// Are there messages in it that are known by a key?
fn may_be_said_again(changes: &[Change]) -> bool {
    changes.iter().any(|change| matches!(change, Change::Append { record, .. } if record.dedupe.is_some()))
}

fn without_text(change: Change) -> Change {
    match change {
        Change::Append { account, record } => {
            Change::Append { account, record: Record { stanza: Vec::new(), ..record } }
        }
        other => other,
    }
}

/// What the writer does next.
enum Work {
    Batch(Vec<Call>, Vec<Unreadable>),
    Upkeep,
    FinishCheckpoint,
    End,
}

/// What stops a whole transaction.
enum Fault {
    /// A call that cannot be done; not the fault of the others.
    Call,
    All(StoreError),
}

pub struct Writer {
    pub shared: Arc<Shared>,
    pub connection: Connection,
    pub upkeep: Upkeep,
    memory: Memory,
    page_limit: u64,
    /// Calls of the last transaction.
    last_calls: usize,
    pub log: open::Log,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, mut connection: Connection, log: open::Log) -> rusqlite::Result<Writer> {
        let upkeep = Upkeep::open(&connection, shared.fulltext)?;
        let gauge = shared.clone();
        connection.wal_hook(Some(move |_: &mut _, pages| {
            gauge.gauge.grown(pages);
            Ok(())
        }))?;
        Ok(Writer { shared, connection, upkeep, memory: Memory::default(), page_limit: 0, last_calls: 0, log })
    }

    /// Until the store is closed.
    pub fn run(&mut self) {
        // A bug of ours must not leave callers without an answer.
        while catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            self.shared.fail(PANICKED.into());
        }
    }

    fn work(&mut self) {
        loop {
            match self.next() {
                Work::Batch(calls, unreadable) => self.batch(calls, unreadable),
                Work::Upkeep => {
                    // Where all share one core, who woke during the step before goes first.
                    std::thread::yield_now();
                    self.tidy();
                }
                Work::FinishCheckpoint => self.finish_checkpoint(),
                Work::End => return,
            }
        }
    }

    fn next(&mut self) -> Work {
        let mut queue = self.shared.queue.lock();
        let mut waited = Waited::default();
        loop {
            if self.shared.gauge.wants_finish() {
                return Work::FinishCheckpoint;
            }
            if !queue.calls.is_empty() || !queue.unreadable.is_empty() {
                if let Some(patience) = queue.wait_for_more(self.last_calls, &mut waited) {
                    if queue.is_patient() {
                        self.shared.waiting.end();
                    }
                    self.shared.wake.wait_for(&mut queue, patience);
                    queue.wait_no_more();
                    continue;
                }
                let calls = queue.take();
                self.shared.waiting.taken();
                self.last_calls = calls.len();
                return Work::Batch(calls, std::mem::take(&mut queue.unreadable));
            }
            self.shared.waiting.end();
            if queue.state == State::Closing {
                return Work::End;
            }
            if self.upkeep.waits() && !self.shared.gauge.is_moving() && self.shared.fatal.lock().is_none() {
                return Work::Upkeep;
            }
            self.shared.wake.wait(&mut queue);
        }
    }

    fn batch(&mut self, mut calls: Vec<Call>, unreadable: Vec<Unreadable>) {
        let answers = catch_unwind(AssertUnwindSafe(|| self.answers(&mut calls, &unreadable)));
        let answers = answers.unwrap_or_else(|_| {
            self.shared.fail(PANICKED.into());
            Err(StoreError::Fatal(PANICKED.into()))
        });
        let answers = answers.unwrap_or_else(|error| vec![Err(error); calls.len()]);
        for (call, answer) in calls.iter_mut().zip(answers) {
            let Some(done) = call.done.take() else { continue };
            // A bug of one caller is none of the others' business.
            if catch_unwind(AssertUnwindSafe(|| done(answer))).is_err() {
                tracing::error!("a caller panicked when it heard of its commit");
            }
        }
    }

    /// One transaction; a second, with a savepoint a call, if a call cannot be done. (Savepoints from the start would
    /// cost every commit what next to none needs.)
    fn answers(&mut self, calls: &mut [Call], unreadable: &[Unreadable]) -> Result<Vec<Answer>, StoreError> {
        let fatal = self.shared.fatal.lock().clone();
        if let Some(reason) = fatal {
            return Ok(self.refused(calls, &StoreError::Fatal(reason)));
        }
        let attempt = match self.attempt(calls, unreadable, false) {
            Err(Fault::Call) => self.attempt(calls, unreadable, true),
            attempt => attempt,
        };
        match attempt {
            Ok(answers) => Ok(answers),
            Err(Fault::All(error)) => {
                if let StoreError::Fatal(reason) = &error {
                    self.shared.fail(reason.clone());
                } else {
                    tracing::warn!(%error, calls = calls.len(), "a commit failed");
                }
                Ok(self.refused(calls, &error))
            }
            Err(Fault::Call) => Err(StoreError::Damaged("a call failed outside its savepoint".into())),
        }
    }

    /// Nothing was written. What the log has from before is not refused for that: it is only said again.
    fn refused(&mut self, calls: &[Call], error: &StoreError) -> Vec<Answer> {
        let now = (self.shared.clock)();
        let epoch = self.shared.epoch;
        let mut applier = Applier::new(&self.connection, &mut self.memory, now);
        let mut answer = |call: &Call| match applier.said_again(&call.changes) {
            Ok(Some(outcomes)) if call.fence.epoch == epoch => Ok(outcomes),
            // (A log that cannot be read knows nothing.)
            _ => Err(error.clone()),
        };
        calls.iter().map(&mut answer).collect()
    }

    fn attempt(
        &mut self,
        calls: &mut [Call],
        unreadable: &[Unreadable],
        savepoints: bool,
    ) -> Result<Vec<Answer>, Fault> {
        self.limit_pages();
        let attempt = self.transaction(calls, unreadable, savepoints);
        if let Err(fault) = &attempt {
            self.memory.forget();
            if !self.connection.is_autocommit() {
                // What fails here was rolled back already.
                let _ = self.connection.execute_batch("ROLLBACK");
            }
            if matches!(fault, Fault::All(StoreError::Fatal(_) | StoreError::Full))
                && let Err(error) = self.log.cut()
            {
                tracing::warn!(%error, "what the failed commit wrote stays in the log; a restart may find it");
            }
        }
        attempt
    }

    fn transaction(
        &mut self,
        calls: &mut [Call],
        unreadable: &[Unreadable],
        savepoints: bool,
    ) -> Result<Vec<Answer>, Fault> {
        let run = |connection: &Connection, sql: &'static str| connection.prepare_cached(sql)?.execute([]);
        let now = (self.shared.clock)();
        let connection = &self.connection;
        run(connection, "BEGIN IMMEDIATE").map_err(fault)?;
        let owned = self.shared.epoch == stored_epoch(connection).map_err(fault)?;
        let memory = &mut self.memory;
        let mut applier = Applier::new(connection, memory, now);
        let mut answers = Vec::with_capacity(calls.len());
        let (mut commits, mut changes) = (0, 0);
        for call in calls.iter() {
            if !owned || call.fence.epoch != self.shared.epoch {
                answers.push(Err(StoreError::Fenced));
                continue;
            }
            if call.room == Room::Again {
                // (A log that cannot be read knows nothing.)
                let again = applier.said_again(&call.changes).ok().flatten();
                answers.push(again.ok_or(StoreError::Busy));
                continue;
            }
            if savepoints {
                run(connection, "SAVEPOINT call").map_err(fault)?;
            }
            let (before, trims_before) = (applier.tally, applier.trims.len());
            match applier.call(&call.changes) {
                Ok(outcomes) => {
                    commits += 1;
                    changes += call.changes.len() as u64;
                    answers.push(Ok(outcomes));
                }
                Err(stop) => {
                    let reason = match stop {
                        Stop::Refused(reason) => reason,
                        Stop::Sql(error) => match fault(error) {
                            Fault::Call if savepoints => "a value that no row can hold".into(),
                            fault => return Err(fault),
                        },
                    };
                    if !savepoints {
                        return Err(Fault::Call);
                    }
                    run(connection, "ROLLBACK TO call").map_err(fault)?;
                    applier.memory.forget();
                    applier.tally = before;
                    applier.trims.truncate(trims_before);
                    tracing::error!(reason, "a commit was refused");
                    answers.push(Err(StoreError::Damaged(reason)));
                }
            }
            if savepoints {
                run(connection, "RELEASE call").map_err(fault)?;
            }
        }
        let mut tally = applier.tally;
        let trims = std::mem::take(&mut applier.trims);
        drop(applier);
        let mut noted = 0;
        if owned {
            noted = upkeep::quarantine(connection, unreadable, now).map_err(fault)?;
            if self.upkeep.due() && !self.shared.gauge.is_moving() {
                self.upkeep.step(connection, now, &mut tally).map_err(fault)?;
            }
        }
        #[cfg(feature = "planted-early-ack")]
        {
            for (call, answer) in calls.iter_mut().zip(&answers) {
                if let Some(done) = call.done.take() {
                    done(answer.clone());
                }
            }
            // As on a slow disk, so that a crash can fall in between.
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        run(connection, "COMMIT").map_err(|error| match fault(error) {
            // Not a single call's fault by now.
            Fault::Call => Fault::All(StoreError::Damaged("the transaction could not be committed".into())),
            fault => fault,
        })?;
        self.memory.notice(&tally);
        self.upkeep.committed(&tally, trims);
        let figures = &self.shared.figures;
        figures.commits.fetch_add(commits, Relaxed);
        figures.changes.fetch_add(changes, Relaxed);
        figures.quarantined.fetch_add(noted, Relaxed);
        figures.last_commit.store(now.0, Relaxed);
        figures.count(&tally);
        Ok(answers)
    }

    /// A step of upkeep in a transaction of its own.
    fn tidy(&mut self) {
        let now = (self.shared.clock)();
        let before = self.shared.gauge.pages();
        let mut tally = Tally::default();
        let mut step = || {
            let transaction = self.connection.unchecked_transaction()?;
            if self.shared.epoch == stored_epoch(&transaction)? {
                self.upkeep.step(&transaction, now, &mut tally)?;
            }
            transaction.commit()
        };
        match step().map_err(fault) {
            Ok(()) => {
                self.memory.notice(&tally);
                self.shared.figures.count(&tally);
                self.shared.gauge.tidied(before);
            }
            Err(fault) => {
                let why = match &fault {
                    Fault::Call => "a call that cannot be done".to_owned(),
                    Fault::All(error) => format!("{error:?}"),
                };
                tracing::error!(why, "upkeep of the store failed; it is tried again after the next restart");
                // Tried again after the next restart: it can wait, and must not be tried in a loop.
                self.upkeep = Upkeep::default();
                self.memory.forget();
                if let Fault::All(StoreError::Fatal(reason)) = fault {
                    self.shared.fail(reason);
                }
            }
        }
    }

    /// The last pages of a checkpoint, which the checkpointer cannot reach while we write: few by then.
    fn finish_checkpoint(&mut self) {
        let finished = checkpoint::passive(&self.connection);
        self.shared.gauge.moved();
        if let Err(error) = finished
            && let Some(reason) = is_fatal(error)
        {
            self.shared.fail(reason);
        }
    }

    /// Lets tests fill the disk, and empty it.
    fn limit_pages(&mut self) {
        let limit = self.shared.page_limit.load(Relaxed);
        if limit != self.page_limit {
            self.page_limit = limit;
            let pages = if limit == 0 { i64::from(u32::MAX - 1) } else { limit as i64 };
            if let Err(error) = self.connection.pragma_update(None, "max_page_count", pages) {
                tracing::warn!(%error, "the limit of pages was not set");
            }
        }
    }
}

impl Figures {
    fn count(&self, tally: &Tally) {
        self.accounts.fetch_add(tally.accounts, Relaxed);
        self.records.fetch_add(tally.records, Relaxed);
    }
}

/// The epoch in the file: another process that opened it for serving has raised it.
fn stored_epoch(connection: &Connection) -> rusqlite::Result<u64> {
    let mut epoch = connection.prepare_cached("SELECT epoch FROM meta")?;
    let epoch = epoch.query_row([], |row| row.get::<_, i64>(0)).optional()?;
    Ok(epoch.and_then(|epoch| epoch.try_into().ok()).unwrap_or(u64::MAX))
}

/// Why nothing may be written any more after a checkpoint that failed; `None` if the next may do better.
pub fn is_fatal(error: rusqlite::Error) -> Option<String> {
    match fault(error) {
        Fault::All(StoreError::Fatal(reason)) => Some(reason),
        _ => None,
    }
}

/// Whom a failure concerns. After a failed write or fsync nobody knows what is on disk: the process must end.
fn fault(error: rusqlite::Error) -> Fault {
    // With what only its number says: which call failed.
    let text = match error.sqlite_error() {
        Some(code) => format!("{error} (SQLite's code {})", code.extended_code),
        None => error.to_string(),
    };
    Fault::All(match error.sqlite_error().map(|error| (error.code, error.extended_code)) {
        Some((ErrorCode::DiskFull, _)) => StoreError::Full,
        // The index of the WAL could not grow: no space either, and nothing was written.
        Some((ErrorCode::SystemIoFailure, rusqlite::ffi::SQLITE_IOERR_SHMSIZE)) => StoreError::Full,
        // Another program holds a lock for longer than we wait.
        Some((ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _)) => StoreError::Busy,
        // Without a code it is a value that rusqlite could not convert.
        None | Some((ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch, _)) => {
            tracing::error!(error = text, "a change cannot be written");
            return Fault::Call;
        }
        _ => StoreError::Fatal(text),
    })
}
