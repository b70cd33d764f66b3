//! What survives a restart: one trait, its change types, the memory backend, one contract test.
//!
//! - [`key`]: entities, partitions, the fence: who may write (CLUSTER rules 1, 2).
//! - [`change`]: every write there is, and what came of it.
//! - [`record`]: what is read back.
//! - [`memory`]: the backend of tests and simulations.
//! - `contract` (feature): the sentences that every backend must keep, as tests.

pub mod change;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod key;
pub mod memory;
pub mod record;

pub use change::{CLOSED, Change, Committed, Outcome, TRIM_MAX, position_must_grow};
pub use key::{Fence, Key, Partition};
pub use record::*;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use xmpp::{BareJid, Stamp};

/// What failed in the store itself; logged with JID and operation, becomes `internal-server-error` or
/// `resource-constraint` on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// Another owner has a newer epoch: drop the entity, tell nobody.
    Fenced,
    /// The writer's queue is full: `resource-constraint`, type wait.
    Busy,
    /// No space left: reads go on, writes are refused until space returns.
    Full,
    /// A write or fsync failed: the process must stop accepting writes and recover from the log.
    Fatal(String),
    /// A row that cannot be read, or a call that no row can be made of; the rest of the store is well.
    Damaged(String),
}

pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreError::Fenced => f.write_str("another owner has a newer epoch"),
            StoreError::Busy => f.write_str("the queue of writes is full"),
            StoreError::Full => f.write_str("no space left"),
            StoreError::Fatal(reason) => write!(f, "no more writes: {reason}"),
            StoreError::Damaged(what) => write!(f, "damaged: {what}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Domain operations on what survives a restart. Every write goes through [`Store::commit`]; reads see every commit
/// whose `done` has been called.
pub trait Store: Send + Sync + 'static {
    /// Queues changes; never blocks. All or nothing for this call, in the order of calls (also between calls for
    /// different entities). `done` is called once, from the writer, after the commit that holds the changes is on
    /// disk (or failed); calls of `done` come in the order of the commits. A bounded queue that is full answers
    /// [`StoreError::Busy`] through `done`, at once unless the call may say again what the log has.
    ///
    /// Neither that nor a write that fails refuses what is not new: a call that says again what the log has is answered as
    /// ever. A blob that is put beside a record belongs to it, and was written with it then.
    fn commit(&self, fence: Fence, changes: Vec<Change>, done: Committed);

    /// As [`Store::commit`], but a writer that sleeps may sleep on until [`Store::go`]: for a caller that has more to
    /// write in a moment, so that it becomes one batch. Whoever calls it calls `go` soon.
    fn commit_soon(&self, fence: Fence, changes: Vec<Change>, done: Committed) {
        self.commit(fence, changes, done);
    }
    /// Wakes the writer for what [`Store::commit_soon`] queued.
    fn go(&self) {}
    /// For a thread that has more to do: if calls have waited for the writer for long, it may have this thread's core for a
    /// while. Costs next to nothing otherwise.
    fn give_way(&self) {}

    /// What an account's entity needs in memory; `None` if there is no such account.
    fn load_account<'a>(&'a self, account: &'a BareJid) -> Reply<'a, Option<AccountRecord>>;
    /// Credentials alone (authentication does not load the entity), and whether they are of any use.
    fn login<'a>(&'a self, account: &'a BareJid) -> Reply<'a, Option<Login>>;
    /// FAST tokens of an account and client id. XEP-0484.
    fn tokens<'a>(&'a self, account: &'a BareJid, client: &'a str) -> Reply<'a, Vec<Token>>;
    /// Records of the account's log, oldest first, positions greater than `after`, at most `limit`.
    fn inbox_after<'a>(
        &'a self,
        account: &'a BareJid,
        after: i64,
        only_pending: bool,
        limit: usize,
    ) -> Reply<'a, Vec<Record>>;
    /// Looks at `limit` pending records of all accounts, those behind a page before or the first, and gives those whose
    /// own time was over at `now` and those that came before `before`.
    fn overdue(&self, behind: Option<WaitingPlace>, limit: usize, now: Stamp, before: Stamp) -> Reply<'_, Overdue>;
    /// A page of the archive by filter. XEP-0313 §4.
    fn inbox_page<'a>(&'a self, account: &'a BareJid, page: &'a PageQuery) -> Reply<'a, Page>;
    /// vcard-temp, private XML and whatever else is one value under a name.
    fn blob<'a>(&'a self, account: &'a BareJid, space: &'a str, key: &'a str) -> Reply<'a, Option<Vec<u8>>>;
    /// All accounts of a host, by name (the localpart); `after` is exclusive: a localpart or bare JID, or empty.
    fn accounts<'a>(&'a self, host: &'a str, after: &'a str, limit: usize) -> Reply<'a, Vec<AccountSummary>>;
    /// How many accounts of each host have keys of which mechanisms. A host without accounts is not named.
    fn key_figures(&self) -> Reply<'_, BTreeMap<Box<str>, KeyFigures>>;
    /// The session ledger as it was left: whose sessions of an earlier epoch must be ended. DESIGN.md D11.
    fn session_ledger(&self) -> Reply<'_, Vec<(BareJid, SessionRow)>>;
    /// What waits for other domains: rows with ids greater than `after`, by id, at most `limit`.
    fn outbox(&self, after: i64, limit: usize) -> Reply<'_, Vec<OutboxRow>>;
    /// Which domains were spoken with, and when last: local, remote, UTC.
    fn domains_reached(&self) -> Reply<'_, Vec<(BareJid, Box<str>, Stamp)>>;
    /// The boot counter: grows by one each time the store is opened for serving. CLUSTER rule 10.
    fn epoch(&self) -> u64;
    /// Writes everything, as of one moment, into a new file; commits go on meanwhile. Where the engine behind the store
    /// has tools of its own for it, the error says so.
    fn backup<'a>(&'a self, to: &'a Path) -> Reply<'a, BackupFigures> {
        let _ = to;
        Box::pin(async { Err(StoreError::Damaged("this store is backed up by the tools of its engine".into())) })
    }
    /// Counters for operators: queue depth, commits, records, bytes.
    fn figures(&self) -> Figures;
    /// Waits until all that is queued is on disk, then closes. Later commits answer [`StoreError::Fatal`].
    fn close(&self) -> Reply<'_, ()>;
}

/// What a backup holds. See [`Store::backup`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupFigures {
    pub accounts: u64,
    pub records: u64,
    pub bytes: u64,
    /// Files beside the store that it does not hold.
    pub left_out: Vec<String>,
}

/// See [`Store::figures`].
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub queued_changes: u64,
    pub commits: u64,
    pub changes: u64,
    pub inbox_records: u64,
    pub accounts: u64,
    pub file_bytes: u64,
    /// Rows that could not be read and were set aside. One such row never stops the others.
    pub quarantined: u64,
    /// UTC; when the last commit reached the disk.
    pub last_commit: Option<Stamp>,
}
