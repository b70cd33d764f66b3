//! Backup and restore.
//!
//! A backup is one SQLite file: the store as of one moment, and the small files beside it in the data folder (secrets,
//! certificates and their keys) in a table of its own. It holds the keys of all passwords and all messages, and is for
//! its owner's eyes alone.

use crate::open::{self, FILE, LOCK, OpenError};
use crate::schema;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// What lies beside the store is small; what is larger is left out, and said so.
const BESIDE_BYTES_MAX: u64 = 1 << 20;
const BESIDE_FILES_MAX: usize = 1_000;
/// Folders within folders.
const BESIDE_DEPTH_MAX: usize = 3;
/// Added to the epoch of what is restored: ids that were given out after the backup are not given out again.
const EPOCHS_SKIPPED: i64 = 1_000_000;
/// A store on its way into its place.
const COMING: &str = "waft.db.new";
/// Where a running server lays a backup, for the command to fetch it.
pub const BACKUP_FOLDER: &str = "backup";
/// Folders of what a restore replaced begin so.
const REPLACED: &str = "replaced-";

/// Why there is no backup, or nothing was restored. Its text is for the operator.
#[derive(Debug)]
pub enum BackupError {
    /// The file is there.
    Exists(PathBuf),
    /// The folder has something in it.
    NotEmpty(PathBuf),
    /// Not one of ours.
    NoBackup {
        path: PathBuf,
        what: String,
    },
    Io {
        path: PathBuf,
        what: &'static str,
        error: io::Error,
    },
    Open(OpenError),
}

impl From<OpenError> for BackupError {
    fn from(error: OpenError) -> BackupError {
        BackupError::Open(error)
    }
}

impl std::fmt::Display for BackupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BackupError::Exists(path) => write!(f, "{} exists already: name another file", path.display()),
            BackupError::NotEmpty(folder) => write!(
                f,
                "the data folder {} is not empty: name an empty one, or move what is there aside with --replace",
                folder.display()
            ),
            BackupError::NoBackup { path, what } => write!(f, "{} is no backup of waft ({what})", path.display()),
            BackupError::Io { path, what, error } => write!(f, "cannot {what} {}: {error}", path.display()),
            BackupError::Open(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BackupError {}

/// A file beside the store: its name within the data folder, and its bytes.
type Beside = (String, Vec<u8>);

/// What a backup holds, or a restore brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    pub accounts: u64,
    pub records: u64,
    pub bytes: u64,
    /// Names of the files beside the store.
    pub files: Vec<String>,
    /// Those that were too large, or too many.
    pub left_out: Vec<String>,
    /// Where that lies which was there before.
    pub replaced: Option<PathBuf>,
}

fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> BackupError {
    let path = path.to_path_buf();
    move |error| BackupError::Io { path: path.clone(), what, error }
}

fn sql(path: &Path) -> impl Fn(rusqlite::Error) -> BackupError {
    let path = path.to_path_buf();
    move |error| BackupError::Open(OpenError::of(&path, error))
}

/// Writes the store of a data folder, as of one moment, into a new file that only its owner reads. Others may write to
/// the store meanwhile. The file is under its name once it is whole and on disk.
///
/// # Errors
/// [`BackupError`]; nothing is left under the name then.
pub fn backup(folder: &Path, to: &Path) -> Result<Held, BackupError> {
    if to.exists() {
        return Err(BackupError::Exists(to.into()));
    }
    let database = folder.join(FILE);
    if !database.exists() {
        return Err(failed("find", &database)(io::ErrorKind::NotFound.into()));
    }
    let part = with_end(to, ".part");
    let written = write_backup(folder, &database, &part);
    let held = match written {
        Ok(held) => held,
        Err(error) => {
            // Half a backup is of use to nobody.
            let _ = fs::remove_file(&part);
            return Err(error);
        }
    };
    fs::rename(&part, to).map_err(failed("name", to))?;
    sync_folder_of(to)?;
    Ok(held)
}

fn write_backup(folder: &Path, database: &Path, part: &Path) -> Result<Held, BackupError> {
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", part)(error)),
        _ => {}
    }
    drop(open::private(part).map_err(failed("make", part))?);
    {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let source = Connection::open_with_flags(database, flags).map_err(sql(database))?;
        source.busy_timeout(open::LOCK_PATIENCE).map_err(sql(database))?;
        source.execute("VACUUM INTO ?1", [&*part.to_string_lossy()]).map_err(sql(part))?;
    }
    let mut held = Held::default();
    {
        let copy = Connection::open(part).map_err(sql(part))?;
        // Nobody sees it before it is whole.
        copy.execute_batch(
            "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; BEGIN;
             CREATE TABLE backup_files (name TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;",
        )
        .map_err(sql(part))?;
        for (name, path) in beside(folder, &mut held.left_out)? {
            let bytes = fs::read(&path).map_err(failed("read", &path))?;
            copy.execute("INSERT INTO backup_files (name, bytes) VALUES (?1, ?2)", params![name, bytes])
                .map_err(sql(part))?;
            held.files.push(name);
        }
        copy.execute_batch("COMMIT").map_err(sql(part))?;
        (held.accounts, held.records) = count(&copy).map_err(sql(part))?;
    }
    let file = File::open(part).map_err(failed("read", part))?;
    file.sync_all().map_err(failed("sync", part))?;
    held.bytes = file.metadata().map_err(failed("read", part))?.len();
    Ok(held)
}

fn count(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let counts = "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM log)";
    connection.query_row(counts, [], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)))
}

/// Makes a data folder of a backup. With `replace`, what is in the folder is moved into one within.
///
/// # Errors
/// [`BackupError`]; what was there is untouched then, unless the disk failed on the way.
pub fn restore(from: &Path, folder: &Path, replace: bool) -> Result<Held, BackupError> {
    let _lock = open::hold(folder)?;
    let old = others(folder)?;
    if !old.is_empty() && !replace {
        return Err(BackupError::NotEmpty(folder.into()));
    }
    let coming = folder.join(COMING);
    let _ = fs::remove_file(&coming);
    let mut source = File::open(from).map_err(failed("read", from))?;
    let mut copy = open::private(&coming).map_err(failed("make", &coming))?;
    io::copy(&mut source, &mut copy).map_err(failed("write", &coming))?;
    drop(copy);
    let made = make_ready(from, &coming);
    let (mut held, files) = match made {
        Ok(made) => made,
        Err(error) => {
            let _ = fs::remove_file(&coming);
            return Err(error);
        }
    };
    if !old.is_empty() {
        held.replaced = Some(move_aside(folder, &old)?);
    }
    for (name, bytes) in files {
        let path = folder.join(&name);
        if let Some(parent) = path.parent() {
            make_folders(parent).map_err(failed("make", parent))?;
        }
        let mut file = open::private(&path).map_err(failed("make", &path))?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed("write", &path))?;
        held.files.push(name);
    }
    let database = folder.join(FILE);
    fs::rename(&coming, &database).map_err(failed("name", &database))?;
    sync_folder_of(&database)?;
    Ok(held)
}

/// Looks whether it is a backup, and makes a store of it; gives what lies beside it.
fn make_ready(from: &Path, coming: &Path) -> Result<(Held, Vec<Beside>), BackupError> {
    let no_backup = |what: String| BackupError::NoBackup { path: from.into(), what };
    let connection = Connection::open(coming).map_err(sql(coming))?;
    let unreadable = |error: rusqlite::Error| no_backup(error.to_string());
    schema::check(&connection, from).map_err(|error| match error {
        OpenError::Newer { .. } => BackupError::Open(error),
        other => no_backup(other.to_string()),
    })?;
    let has = "SELECT 1 FROM sqlite_schema WHERE name = 'backup_files'";
    if connection.query_row(has, [], |_| Ok(())).optional().map_err(unreadable)?.is_none() {
        return Err(no_backup("it has no list of files; `waft backup` writes one".into()));
    }
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(unreadable)?;
    if verdict != "ok" {
        return Err(no_backup(verdict));
    }
    let mut read = connection.prepare("SELECT name, bytes FROM backup_files ORDER BY name").map_err(unreadable)?;
    let files: rusqlite::Result<Vec<Beside>> =
        read.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect);
    let files = files.map_err(unreadable)?;
    drop(read);
    let is_within = |name: &str| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if let Some((name, _)) = files.iter().find(|(name, _)| name.is_empty() || !is_within(name)) {
        return Err(no_backup(["it would write to ", name].concat()));
    }
    let mut held = Held { bytes: fs::metadata(from).map_or(0, |file| file.len()), ..Held::default() };
    (held.accounts, held.records) = count(&connection).map_err(unreadable)?;
    connection.execute_batch("PRAGMA journal_mode = MEMORY; DROP TABLE backup_files").map_err(sql(coming))?;
    connection.execute("UPDATE meta SET epoch = epoch + ?1", [EPOCHS_SKIPPED]).map_err(sql(coming))?;
    drop(connection);
    File::open(coming).and_then(|file| file.sync_all()).map_err(failed("sync", coming))?;
    Ok((held, files))
}

/// What is in the folder, but for the lock and what a restore makes.
fn others(folder: &Path) -> Result<Vec<String>, BackupError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("read", folder))? {
        let name = entry.map_err(failed("read", folder))?.file_name().to_string_lossy().into_owned();
        if name != LOCK && name != COMING && !name.starts_with(REPLACED) {
            names.push(name);
        }
    }
    Ok(names)
}

fn move_aside(folder: &Path, names: &[String]) -> Result<PathBuf, BackupError> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let aside = folder.join([REPLACED, &since.as_millis().to_string()].concat());
    make_folders(&aside).map_err(failed("make", &aside))?;
    // The store last: until it is gone its log must not be without it.
    let (store, rest): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| *name == FILE);
    for name in rest.into_iter().chain(store) {
        let path = folder.join(name);
        fs::rename(&path, aside.join(name)).map_err(failed("move", &path))?;
    }
    Ok(aside)
}

/// Was a restore into this folder cut short?
pub fn is_half_restored(folder: &Path) -> bool {
    folder.join(COMING).exists() && !folder.join(FILE).exists()
}

/// The small files of a data folder, by name within it.
fn beside(folder: &Path, left_out: &mut Vec<String>) -> Result<Vec<(String, PathBuf)>, BackupError> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_path_buf(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(failed("read", &folder))? {
            let entry = entry.map_err(failed("read", &folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_store = depth == 0 && (name.starts_with(FILE) || name == LOCK || name == BACKUP_FOLDER);
            if is_store || name.starts_with(REPLACED) || name.ends_with(".new") {
                continue;
            }
            let Ok(data) = entry.metadata() else { continue };
            let name = [&*prefix, &*name].concat();
            if data.is_dir() && depth < BESIDE_DEPTH_MAX {
                folders.push((entry.path(), [&*name, "/"].concat(), depth + 1));
            } else if data.is_file() && data.len() <= BESIDE_BYTES_MAX && found.len() < BESIDE_FILES_MAX {
                found.push((name, entry.path()));
            } else if data.is_file() || data.is_dir() {
                left_out.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(end);
    name.into()
}

fn make_folders(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn sync_folder_of(path: &Path) -> Result<(), BackupError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder", folder))
}
