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
const WAL_BYTES_MAX: i64 = 128 << 20;
/// Page cache of the writer, and of each reader.
const WRITER_CACHE_KIB: i64 = 64 << 10;
const READER_CACHE_KIB: i64 = 16 << 10;
/// How long a statement waits for a lock that some other program holds.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
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
                write!(f, "another waft serves {} (pid {pid})", folder.display())
            }
            OpenError::Held { folder, pid: None } => {
                write!(f, "another waft serves {}", folder.display())
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
            OpenError::Full { path } => write!(f, "no space left to open {}", path.display()),
            OpenError::Io { path, what, error } => {
                write!(f, "cannot {what} {}: {error}", path.display())
            }
            OpenError::Sqlite { path, error } => {
                write!(f, "cannot open {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// Makes the folder if need be, and holds it.
pub fn hold(folder: &Path) -> Result<File, OpenError> {
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
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenError::Held { folder: folder.into(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
    }
    let write = |lock: &mut File| {
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())
    };
    // Only the text of a message depends on it, and a full disk must not keep an operator out.
    if let Err(error) = write(&mut lock) {
        tracing::warn!(%error, path = %path.display(), "cannot write the process id into the lock file");
    }
    Ok(lock)
}

/// Opens a file that only its owner reads; makes it if need be.
fn private(path: &Path) -> io::Result<File> {
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
    let mut file = private(&path).map_err(failed("open"))?;
    if new {
        // The name must be on disk before the first commit is.
        file.sync_all().map_err(failed("sync"))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of"))?;
        return Ok(path);
    }
    let bytes = file.metadata().map_err(failed("read"))?.len();
    let wal = std::fs::metadata(folder.join("waft.db-wal")).map_or(0, |wal| wal.len());
    if bytes == 0 || wal > 0 {
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
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
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
