//! The embedded store: one SQLite file, one writer thread with group commit, two reader threads.
//!
//! - [`open`]: the folder, its lock, the file, the connections.
//! - [`schema`] and its migrations.
//! - [`writer`]: the queue and the transactions; [`apply`]: changes as rows; [`upkeep`]: what else it does.
//! - [`checkpoint`]: the thread that empties the WAL.
//! - [`backup`]: the store in one file, and back.
//! - [`remains`]: what there is of one account.
//! - [`read`]: the reader threads and their queries; [`rows`]: between rows and records.
//!
//! All of an account is in one file and commits together: log, pending marks, dedupe keys, roster. A process that is
//! killed at any moment leaves a file that needs no repair.

mod apply;
pub mod backup;
mod checkpoint;
mod fulltext;
mod open;
mod queue;
mod read;
pub mod remains;
mod rows;
mod schema;
mod trim;
mod upkeep;
mod waiting;
mod writer;

pub use open::{FILE, LOCK, OpenError};
pub use schema::SCHEMA;

use parking_lot::Mutex;
use read::{JOBS_MAX, Job, Reader};
use rusqlite::config::DbConfig;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{JoinHandle, ThreadId};
use std::time::SystemTime;
use store::*;
use tokio::sync::{mpsc, oneshot};
use writer::{Shared, Writer};
use xmpp::{BareJid, Stamp};

/// Threads that read.
const READERS: usize = 2;

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Power cut: each commit is synced before `done`.
    #[default]
    Full,
    /// `kill -9`, not power cut: the system writes when it likes.
    Os,
}

/// What the store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// Raises the epoch.
    #[default]
    Serving,
    /// A command beside the server, which does not run: the epoch stays. Its commits carry [`Store::epoch`] as well.
    Command,
}

/// Told once, from the writer's thread, when nothing is written any more: the process should end.
pub type OnFatal = Box<dyn Fn(&str) + Send + Sync>;

pub struct Options {
    pub durability: Durability,
    pub purpose: Purpose,
    /// Version that is stamped on what it writes.
    pub producer: &'static str,
    pub on_fatal: Option<OnFatal>,
    /// Keep the words of archived messages, so that they can be searched for. XEP-0431.
    pub fulltext: bool,
    /// UTC.
    pub clock: fn() -> Stamp,
    /// For tests: how many pages the file may have, as a full disk would; 0 is no limit. It may change at any time.
    #[doc(hidden)]
    pub page_limit: Arc<AtomicU64>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            durability: Durability::Full,
            purpose: Purpose::Serving,
            producer: env!("CARGO_PKG_VERSION"),
            on_fatal: None,
            fulltext: false,
            clock: system_clock,
            page_limit: Arc::default(),
        }
    }
}

fn system_clock() -> Stamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Stamp(since.as_micros() as i64)
}

/// See the crate.
pub struct SqliteStore {
    shared: Arc<Shared>,
    jobs: Arc<Mutex<Option<mpsc::Sender<Job>>>>,
    path: PathBuf,
    writer: Mutex<Option<JoinHandle<()>>>,
    writer_id: ThreadId,
}

impl SqliteStore {
    /// Opens the store in a folder, which is made if there is none; brings an older schema up to date.
    ///
    /// # Errors
    /// [`OpenError`]; its text tells the operator what to do.
    pub fn open(folder: impl AsRef<Path>, options: Options) -> Result<SqliteStore, OpenError> {
        let folder = folder.as_ref();
        let lock = open::hold(folder)?;
        let opened = SqliteStore::open_held(folder, lock, options);
        if opened.as_ref().is_err_and(OpenError::is_of_disk) {
            // A sync that failed may have been among what opening does: a migration, the epoch.
            if let Err(error) = open::leave_word(&folder.join(FILE)) {
                tracing::warn!(%error, "the next start cannot be told that this one failed");
            }
        }
        opened
    }

    fn open_held(folder: &Path, mut lock: open::Hold, options: Options) -> Result<SqliteStore, OpenError> {
        let path = open::prepare(folder)?;
        lock.heal(&path)?;
        let failed = |error| OpenError::of(&path, error);
        let mut connection = open::writer(&path, options.durability)?;
        schema::migrate(&mut connection, &path, options.producer, (options.clock)())?;
        if options.purpose == Purpose::Serving {
            connection.execute("UPDATE meta SET epoch = epoch + 1", []).map_err(failed)?;
        }
        let count = |sql: &'static str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(failed);
        let epoch = count("SELECT epoch FROM meta")?;
        let figures = writer::Figures::default();
        figures.accounts.store(count("SELECT count(*) FROM accounts")?, Relaxed);
        figures.quarantined.store(count("SELECT count(*) FROM quarantine")? as u64, Relaxed);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Default::default(),
            waiting: Default::default(),
            fatal: Mutex::default(),
            figures,
            gauge: Default::default(),
            epoch: epoch as u64,
            clock: options.clock,
            fulltext: options.fulltext,
            on_fatal: options.on_fatal,
            page_limit: options.page_limit,
            path: path.clone(),
        });
        let checkpointer = open::checkpointer(&path, options.durability)?;
        checkpoint::pin(&checkpointer).map_err(failed)?;
        let readers: Vec<_> = (0..READERS).map(|_| open::reader(&path)).collect::<Result<_, _>>()?;
        let log = open::Log::open(&path);
        let log = log.map_err(|error| OpenError::Io { path: path.clone(), what: "open the log of", error })?;
        let writer = Writer::new(shared.clone(), connection, log).map_err(failed)?;
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let jobs = Arc::new(Mutex::new(Some(jobs)));
        let queue = Arc::new(Mutex::new(queue));
        let spawned = |error| OpenError::Io { path: path.clone(), what: "start a thread for", error };
        let mut threads = vec![checkpoint::spawn(shared.clone(), checkpointer).map_err(spawned)?];
        for connection in readers {
            let reader = Reader { connection, shared: shared.clone() };
            let queue = queue.clone();
            let thread = std::thread::Builder::new().name("store-read".into());
            threads.push(thread.spawn(move || reader.run(&queue)).map_err(spawned)?);
        }
        let end = End { threads, jobs: jobs.clone(), lock };
        let thread = std::thread::Builder::new().name("store-write".into());
        let thread = thread.spawn(move || end.after(writer)).map_err(spawned)?;
        let writer_id = thread.thread().id();
        Ok(SqliteStore { shared, jobs, path, writer: Mutex::new(Some(thread)), writer_id })
    }

    /// Why nothing is written any more; `None` if all is well.
    pub fn fatal(&self) -> Option<String> {
        self.shared.fatal.lock().clone()
    }

    /// Looks through the whole file; what is wrong with it, a line each. Empty if nothing is. It takes a while.
    pub fn integrity(&self) -> Reply<'_, Vec<String>> {
        self.read(|reader| {
            let mut check = reader.connection.prepare("PRAGMA integrity_check")?;
            let found: rusqlite::Result<Vec<String>> = check.query_map([], |row| row.get(0))?.collect();
            let found = match found {
                Ok(found) => found,
                // So damaged that the check itself cannot go on.
                Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
                    vec![error.to_string()]
                }
                Err(error) => return Err(error),
            };
            Ok(found.into_iter().filter(|line| line != "ok").collect())
        })
    }

    /// Asks a reader, and waits for its answer.
    fn read<'a, T: Send + 'static>(
        &'a self,
        read: impl FnOnce(&Reader) -> rusqlite::Result<T> + Send + 'static,
    ) -> Reply<'a, T> {
        let closed = || StoreError::Fatal(CLOSED.into());
        Box::pin(async move {
            let jobs = self.jobs.lock().clone().ok_or_else(closed)?;
            let (say, hear) = oneshot::channel();
            let job: Job = Box::new(move |reader| {
                // Who no longer waits need not be answered.
                if !say.is_closed() {
                    let _ = say.send(reader.transaction(read));
                }
            });
            jobs.send(job).await.map_err(|_| closed())?;
            drop(jobs);
            hear.await.map_err(|_| closed())?
        })
    }
}

/// What is left to do when the writer ends.
struct End {
    threads: Vec<JoinHandle<()>>,
    jobs: Arc<Mutex<Option<mpsc::Sender<Job>>>>,
    /// Held until the very end.
    lock: open::Hold,
}

impl End {
    fn after(self, mut writer: Writer) {
        writer.run();
        self.jobs.lock().take();
        writer.shared.gauge.end();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        let Writer { shared, connection, log, .. } = writer;
        if shared.fatal.lock().is_none()
            && let Err(error) = checkpoint::truncate_wal(&connection)
        {
            tracing::warn!(%error, "the last checkpoint failed; the WAL is read at the next start");
            if let Some(reason) = writer::is_fatal(error) {
                shared.fail(reason);
            }
        }
        if shared.fatal.lock().is_some() {
            // Closing would move the log into the file, with a disk that may not have all of the log.
            let kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            if let Err(error) = kept {
                tracing::warn!(%error, "the log is moved into the file though a write failed");
            }
        }
        drop(connection);
        drop(log);
        drop(self.lock);
        shared.closed();
    }
}

impl Store for SqliteStore {
    fn commit(&self, fence: Fence, changes: Vec<Change>, done: Committed) {
        self.shared.commit(fence, changes, done, false);
    }

    fn commit_soon(&self, fence: Fence, changes: Vec<Change>, done: Committed) {
        self.shared.commit(fence, changes, done, true);
    }

    fn go(&self) {
        self.shared.go();
    }

    fn give_way(&self) {
        self.shared.waiting.give_way();
    }

    fn load_account<'a>(&'a self, account: &'a BareJid) -> Reply<'a, Option<AccountRecord>> {
        let account = account.clone();
        self.read(move |reader| reader.load_account(&account))
    }

    fn login<'a>(&'a self, account: &'a BareJid) -> Reply<'a, Option<Login>> {
        let account = account.clone();
        self.read(move |reader| reader.login(&account))
    }

    fn tokens<'a>(&'a self, account: &'a BareJid, client: &'a str) -> Reply<'a, Vec<Token>> {
        let (account, client) = (account.clone(), client.to_owned());
        self.read(move |reader| reader.tokens(&account, &client))
    }

    fn inbox_after<'a>(
        &'a self,
        account: &'a BareJid,
        after: i64,
        only_pending: bool,
        limit: usize,
    ) -> Reply<'a, Vec<Record>> {
        let account = account.clone();
        self.read(move |reader| reader.inbox_after(&account, after, only_pending, limit))
    }

    fn overdue(&self, behind: Option<WaitingPlace>, limit: usize, now: Stamp, before: Stamp) -> Reply<'_, Overdue> {
        self.read(move |reader| reader.overdue(behind, limit, now, before))
    }

    fn inbox_page<'a>(&'a self, account: &'a BareJid, page: &'a PageQuery) -> Reply<'a, Page> {
        let (account, page) = (account.clone(), page.clone());
        self.read(move |reader| reader.inbox_page(&account, &page))
    }

    fn blob<'a>(&'a self, account: &'a BareJid, space: &'a str, key: &'a str) -> Reply<'a, Option<Vec<u8>>> {
        let (account, space, key) = (account.clone(), space.to_owned(), key.to_owned());
        self.read(move |reader| reader.blob(&account, &space, &key))
    }

    fn accounts<'a>(&'a self, host: &'a str, after: &'a str, limit: usize) -> Reply<'a, Vec<AccountSummary>> {
        let (host, after) = (host.to_owned(), after.to_owned());
        self.read(move |reader| reader.accounts(&host, &after, limit))
    }

    fn key_figures(&self) -> Reply<'_, BTreeMap<Box<str>, KeyFigures>> {
        self.read(Reader::key_figures)
    }

    fn session_ledger(&self) -> Reply<'_, Vec<(BareJid, SessionRow)>> {
        self.read(Reader::session_ledger)
    }

    fn outbox(&self, after: i64, limit: usize) -> Reply<'_, Vec<OutboxRow>> {
        self.read(move |reader| reader.outbox(after, limit))
    }

    fn domains_reached(&self) -> Reply<'_, Vec<(BareJid, Box<str>, Stamp)>> {
        self.read(Reader::domains_reached)
    }

    fn epoch(&self) -> u64 {
        self.shared.epoch
    }

    fn backup<'a>(&'a self, to: &'a Path) -> Reply<'a, BackupFigures> {
        let (say, hear) = oneshot::channel();
        let (from, to) = (self.path.clone(), to.to_path_buf());
        // For as long as it takes, and readers have others to serve.
        let write = move || {
            let folder = from.parent().unwrap_or(Path::new("."));
            let held = backup::backup(folder, &to).map_err(|error| StoreError::Damaged(error.to_string()));
            let _ = say.send(held);
        };
        let spawned = std::thread::Builder::new().name("store-backup".into()).spawn(write);
        Box::pin(async move {
            spawned.map_err(|error| StoreError::Damaged(error.to_string()))?;
            let held = hear.await.map_err(|_| StoreError::Damaged("the backup panicked".into()))??;
            Ok(BackupFigures {
                accounts: held.accounts,
                records: held.records,
                bytes: held.bytes,
                left_out: held.left_out,
            })
        })
    }

    fn figures(&self) -> store::Figures {
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        let figures = &self.shared.figures;
        let last_commit = figures.last_commit.load(Relaxed);
        store::Figures {
            queued_changes: self.shared.queue.lock().changes as u64,
            commits: figures.commits.load(Relaxed),
            changes: figures.changes.load(Relaxed),
            inbox_records: figures.records.load(Relaxed).max(0) as u64,
            accounts: figures.accounts.load(Relaxed).max(0) as u64,
            file_bytes: bytes(&self.path) + bytes(Path::new(&wal)),
            quarantined: figures.quarantined.load(Relaxed),
            last_commit: (last_commit != 0).then_some(Stamp(last_commit)),
        }
    }

    fn close(&self) -> Reply<'_, ()> {
        let closed = self.shared.close();
        Box::pin(async move {
            if let Some(closed) = closed {
                closed.await.map_err(|_| StoreError::Fatal("the writer is gone".into()))?;
            }
            Ok(())
        })
    }
}

impl Drop for SqliteStore {
    /// Waits until all that is queued is on disk. [`Store::close`] does it without blocking.
    fn drop(&mut self) {
        self.shared.close();
        // The last handle may be held by a `done`, which runs on that very thread.
        if let Some(writer) = self.writer.lock().take()
            && std::thread::current().id() != self.writer_id
            && writer.join().is_err()
        {
            tracing::error!("the writer panicked");
        }
    }
}
