//! Opening: the folder, its lock, the file, the connections.

use crate::Durability;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The database, in the data folder.
pub const FILE: &str = "waft.db";
/// Held by the process that has the store open; its text is that process's id.
pub const LOCK: &str = "waft.lock";

/// The WAL file is cut back to this when it was larger.
const WAL_BYTES_MAX: i64 = 64 << 20;
/// Page cache of the writer, and of each reader. (SQLite looks through all of the writer's behind each commit that split a
/// page: with 64 MiB a message, two at a time, took 12 % more CPU, and with 300, 3,000 or 30,000 accounts nothing was won.)
const WRITER_CACHE_KIB: i64 = 16 << 10;
const READER_CACHE_KIB: i64 = 16 << 10;
/// How long a statement waits for a lock that some other program holds.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Prepared statements kept by each connection; there are fewer in this crate.
const STATEMENTS_MAX: usize = 96;

/// Why a store was not opened. Its text is for the operator.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it open.
    Held {
        folder: PathBuf,
        pid: Option<u32>,
    },
    /// A later version wrote it.
    Newer {
        path: PathBuf,
        by: String,
        schema: u32,
        producer: String,
        known: u32,
    },
    /// An SQLite file, but none of ours.
    Foreign {
        path: PathBuf,
    },
    /// Not a database, or a broken one.
    Damaged {
        path: PathBuf,
        what: String,
    },
    /// A restore ended before it was through.
    HalfRestored {
        folder: PathBuf,
    },
    /// No space to open it (opening for serving writes the epoch).
    Full {
        path: PathBuf,
    },
    Io {
        path: PathBuf,
        what: &'static str,
        error: io::Error,
    },
    Sqlite {
        path: PathBuf,
        error: rusqlite::Error,
    },
}

impl OpenError {
    /// Did a call to the disk fail?
    pub(crate) fn is_of_disk(&self) -> bool {
        matches!(self, OpenError::Io { .. } | OpenError::Sqlite { .. } | OpenError::Full { .. })
    }

    /// Sorts what SQLite said.
    pub(crate) fn of(path: &Path, error: rusqlite::Error) -> OpenError {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                OpenError::Damaged { path: path.into(), what: error.to_string() }
            }
            Some(ErrorCode::DiskFull) => OpenError::Full { path: path.into() },
            _ => OpenError::Sqlite { path: path.into(), error },
        }
    }
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Held { folder, pid: Some(pid) } => {
                write!(f, "another waft serves {} (pid {pid})\nstop it first: waft stop", folder.display())
            }
            OpenError::Held { folder, pid: None } => {
                write!(f, "another waft serves {}\nstop it first: waft stop", folder.display())
            }
            OpenError::Newer { path, by, schema, producer, known } => write!(
                f,
                "{} was written by waft {by} (schema {schema}); this is waft {producer}, which knows schema {known}: \
                 use a newer waft, or restore a backup",
                path.display()
            ),
            OpenError::Foreign { path } => {
                write!(f, "{} is a database, but not one of waft", path.display())
            }
            OpenError::Damaged { path, what } => {
                write!(f, "{} is damaged ({what}): restore a backup", path.display())
            }
            OpenError::HalfRestored { folder } => {
                write!(f, "a restore into {} was cut short: do it again, with --replace", folder.display())
            }
            OpenError::Full { path } => {
                write!(f, "no space left to open {}: free some, a start writes a page", path.display())
            }
            OpenError::Io { path, what, error } => {
                write!(f, "cannot {what} {}: {error}{}", path.display(), advice(error))
            }
            OpenError::Sqlite { path, error } => {
                let advice = match error.sqlite_error_code() {
                    Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => MAY_WRITE,
                    Some(ErrorCode::SystemIoFailure) => LOOK_AT_DISK,
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ": end the program that holds it",
                    _ => "",
                };
                write!(f, "cannot open {}: {error}{advice}", path.display())
            }
        }
    }
}

const MAY_WRITE: &str = ": let the user that runs waft read and write it and its folder";
const LOOK_AT_DISK: &str = ": look at the disk (the system's log, SMART); if the file is lost, restore a backup";

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => MAY_WRITE,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": free some space",
        // EIO has no kind of its own.
        _ if error.raw_os_error() == Some(5) => LOOK_AT_DISK,
        _ => "",
    }
}

impl std::error::Error for OpenError {}

/// In the lock file, behind the process id: a write of that process failed.
const FAILED: &str = "failed";

/// The folder, held: dropping it lets it go.
pub struct Hold {
    lock: File,
    /// The last process ended because a write failed: what the system shows of its files is not what the disk has.
    failed: bool,
}

impl Hold {
    /// Writes into the lock file who holds it, and what is wrong. Only the text of a message, and the care of the next
    /// start, depend on it, and a full disk must not keep an operator out.
    fn write(&mut self) {
        let text = format!("{}\n{}", std::process::id(), if self.failed { FAILED } else { "" });
        let lock = &mut self.lock;
        let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(text.as_bytes()));
        if let Err(error) = written {
            tracing::warn!(%error, "cannot write the process id into the lock file");
        }
    }

    /// After a sync that failed the system may hold for written what never came to the disk, and a later sync does not
    /// bring it there. What the next commits build on is therefore written once more. (What a checkpoint did not bring
    /// into the file is in the log still, and goes there with the next one.)
    pub fn heal(&mut self, path: &Path) -> Result<(), OpenError> {
        if !self.failed {
            return Ok(());
        }
        tracing::warn!("the last server ended because a write failed; its log is written anew");
        let wal = beside(path, "-wal");
        rewrite(&wal).map_err(|error| OpenError::Io { path: wal, what: "write anew", error })?;
        self.failed = false;
        self.write();
        Ok(())
    }
}

/// Leaves word for the next start that a write failed: to the system's memory, which is what it must not trust. If the
/// machine goes down as well, the disk has what it has, and no word is needed.
pub fn leave_word(path: &Path) -> io::Result<()> {
    let mut lock = File::options().append(true).open(path.with_file_name(LOCK))?;
    lock.write_all(FAILED.as_bytes())
}

/// SQLite's log (the WAL) and its index, open as long as the store is: to close a file is to give up all locks that
/// this process, and so SQLite, has on it.
pub struct Log {
    wal: File,
    index: File,
}

impl Log {
    /// Of a database that is open.
    pub fn open(path: &Path) -> io::Result<Log> {
        let wal = File::options().write(true).open(beside(path, "-wal"))?;
        Ok(Log { wal, index: File::open(beside(path, "-shm"))? })
    }

    /// Takes back what a commit that failed left in the log: its frames are not part of it, but a start that finds them
    /// whole would take them for one that was done, and its callers heard an error.
    ///
    /// The index says where the log ends (<https://sqlite.org/walformat.html#the_wal_index_file_format>).
    pub fn cut(&mut self) -> io::Result<()> {
        const HEADER_BYTES: u64 = 32;
        const FRAME_HEADER_BYTES: u64 = 24;
        let mut copies = [0; 96];
        self.index.rewind()?;
        self.index.read_exact(&mut copies)?;
        let (index, copy) = copies.split_at(48);
        if index != copy {
            return Err(io::Error::other("the index of the log is being written"));
        }
        let frames = u32::from_ne_bytes([index[16], index[17], index[18], index[19]]);
        let page_bytes = match u16::from_ne_bytes([index[14], index[15]]) {
            1 => 65_536,
            bytes => u64::from(bytes),
        };
        let end = HEADER_BYTES + u64::from(frames) * (FRAME_HEADER_BYTES + page_bytes);
        if self.wal.metadata()?.len() > end {
            self.wal.set_len(end)?;
        }
        Ok(())
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(end);
    name.into()
}

/// Writes the same bytes into the file once more, and syncs it. Nothing to do if there is none.
fn rewrite(path: &Path) -> io::Result<()> {
    let mut file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut part = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        file.seek(io::SeekFrom::Start(at))?;
        let read = file.read(&mut part)?;
        if read == 0 {
            break;
        }
        file.seek(io::SeekFrom::Start(at))?;
        file.write_all(&part[..read])?;
        at += read as u64;
    }
    file.sync_all()
}

/// Makes the folder if need be, and holds it.
pub fn hold(folder: &Path) -> Result<Hold, OpenError> {
    let failed = |what, path: &Path| {
        let path = path.to_path_buf();
        move |error| OpenError::Io { path, what, error }
    };
    if !folder.is_dir() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder).map_err(failed("make the folder", folder))?;
    }
    let path = folder.join(LOCK);
    let mut lock = private(&path).map_err(failed("open", &path))?;
    let mut text = String::new();
    // What cannot be read says nothing.
    let _ = lock.read_to_string(&mut text);
    let mut lines = text.lines();
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = lines.next().and_then(|pid| pid.trim().parse().ok());
            return Err(OpenError::Held { folder: folder.into(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
    }
    let mut hold = Hold { lock, failed: lines.nth(1).is_some_and(|word| word.starts_with(FAILED)) };
    hold.write();
    Ok(hold)
}

/// Opens a file that only its owner reads; makes it if need be.
pub fn private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the database file if there is none, and sees that it is whole as far as its first page tells.
pub fn prepare(folder: &Path) -> Result<PathBuf, OpenError> {
    let path = folder.join(FILE);
    let failed = |what| {
        let path = path.clone();
        move |error| OpenError::Io { path, what, error }
    };
    let new = !path.exists();
    if new && crate::backup::is_half_restored(folder) {
        return Err(OpenError::HalfRestored { folder: folder.into() });
    }
    let mut file = private(&path).map_err(failed("open"))?;
    if new {
        // The name must be on disk before the first commit is.
        file.sync_all().map_err(failed("sync"))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of"))?;
        return Ok(path);
    }
    let bytes = file.metadata().map_err(failed("read"))?.len();
    // What a log says counts, and not the file; the first pages are written under a journal.
    let len = |end| std::fs::metadata(beside(&path, end)).map_or(0, |file| file.len());
    if bytes == 0 || len("-wal") > 0 || len("-journal") > 0 {
        return Ok(path);
    }
    let damaged = |what: String| OpenError::Damaged { path: path.clone(), what };
    let mut header = [0; 100];
    file.read_exact(&mut header).map_err(|_| damaged("it is shorter than its header".into()))?;
    if &header[..16] != b"SQLite format 3\0" {
        return Err(damaged("it is not an SQLite file".into()));
    }
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    if bytes < pages * page_bytes {
        return Err(damaged("it is shorter than its header says".into()));
    }
    Ok(path)
}

/// The connection that writes.
pub fn writer(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(LOCK_PATIENCE)?;
        connection.pragma_update(None, "page_size", 4096)?;
        let mode = write_ahead(&connection)?;
        let synchronous = match durability {
            Durability::Full => "FULL",
            Durability::Os => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        common(&connection)?;
        Ok((connection, mode))
    };
    let (connection, mode) = open().map_err(|error| OpenError::of(path, error))?;
    if mode != "wal" {
        let error = io::Error::other("the file system cannot share memory; it must be a local one");
        return Err(OpenError::Io { path: path.into(), what: "write ahead for", error });
    }
    Ok(connection)
}

/// Switches to a log that is written ahead; gives the mode that the file is in. A new file is changed for that, and only
/// the end of the statement tells whether it was.
fn write_ahead(connection: &Connection) -> rusqlite::Result<String> {
    let mut statement = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = statement.query([])?;
    let mode = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?.get(0)?;
    while rows.next()?.is_some() {}
    Ok(mode)
}

/// A connection that only reads.
pub fn reader(path: &Path) -> Result<Connection, OpenError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(LOCK_PATIENCE)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        common(&connection)?;
        Ok(connection)
    };
    open().map_err(|error| OpenError::of(path, error))
}

/// The connection that moves pages from the WAL into the file; it never waits for anybody.
pub fn checkpointer(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    let connection = writer(path, durability)?;
    connection.busy_timeout(Duration::ZERO).map_err(|error| OpenError::of(path, error))?;
    Ok(connection)
}

fn common(connection: &Connection) -> rusqlite::Result<()> {
    // We cascade ourselves.
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // Plans do not depend on the values that are bound; else a statement is prepared anew for each range it is given.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(())
}
