//! What the process under test and the one that tests it agree upon; a part of both.

#![allow(dead_code, reason = "each of the two uses its half")]

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

/// The folder whose files are watched, absolute.
pub const FOLDER: &str = "DISK_FOLDER";
/// A file of [`Control`], shared.
pub const CONTROL: &str = "DISK_CONTROL";
/// Where to record all writes; without it none are.
pub const RECORD: &str = "DISK_RECORD";

/// Which file it is.
pub mod file {
    pub const DATABASE: u32 = 1;
    pub const WAL: u32 = 2;
    pub const INDEX: u32 = 4;
    /// Keys, certificates, the lock.
    pub const OTHER: u32 = 8;
    /// Written by a test to have its place among the other writes; it never fails.
    pub const MARK: u32 = 16;
    pub const ALL: u32 = DATABASE | WAL | INDEX | OTHER;

    pub fn of(name: &str) -> u32 {
        match name {
            "waft.db" => DATABASE,
            "waft.db-wal" => WAL,
            "waft.db-shm" => INDEX,
            super::MARKS => MARK,
            _ => OTHER,
        }
    }
}

/// The name of the file of [`file::MARK`].
pub const MARKS: &str = "marks";

/// Which call it is.
pub mod call {
    pub const OPEN: u32 = 1;
    pub const WRITE: u32 = 2;
    pub const SYNC: u32 = 4;
    pub const TRUNCATE: u32 = 8;
    pub const RENAME: u32 = 16;
    pub const UNLINK: u32 = 32;
    pub const ALL: u32 = OPEN | WRITE | SYNC | TRUNCATE | RENAME | UNLINK;
}

/// What becomes of a call that is chosen; an errno above 0 is that error.
pub mod fate {
    pub const EIO: i64 = 5;
    pub const ENOSPC: i64 = 28;
    /// Half of what is to be written is; any other call fails with `EIO`.
    pub const SHORT: i64 = -1;
    /// SIGKILL before the call.
    pub const KILL_BEFORE: i64 = -2;
    /// SIGKILL after the call.
    pub const KILL_AFTER: i64 = -3;
    /// SIGKILL after half of what is to be written was; before any other call.
    pub const KILL_WITHIN: i64 = -4;
}

/// All zeros: nothing fails.
#[repr(C)]
#[derive(Default)]
pub struct Control {
    /// Calls that can be chosen; set before `from`.
    pub calls: AtomicU32,
    pub files: AtomicU32,
    pub fate: AtomicI64,
    /// Such calls so far.
    pub seen: AtomicU64,
    /// The first that is chosen, counted from 1; 0: none is.
    pub from: AtomicU64,
    /// The first after it that is not.
    pub to: AtomicU64,
    /// How many were chosen.
    pub chosen: AtomicU64,
}

/// An entry of the record: its head, the name, the bytes before, the bytes after.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Head {
    pub what: u32,
    pub name_len: u32,
    pub offset: u64,
    pub before_len: u64,
    pub after_len: u64,
}

/// What an entry of the record says.
pub mod what {
    /// The file was made.
    pub const MADE: u32 = 1;
    /// Bytes from `offset` on: as they were, as far as there were any, and as they are.
    pub const WRITTEN: u32 = 2;
    /// All that was written to the file before is on disk.
    pub const SYNCED: u32 = 3;
    /// A sync failed: what was written before and not synced may never come to the disk.
    pub const SYNC_FAILED: u32 = 4;
    /// Cut to `offset`, or made longer by zeros; `before` is what was behind it.
    pub const CUT: u32 = 5;
    /// `after` is the new name; `before` is what was in a file of that name, if `offset` is 1.
    pub const RENAMED: u32 = 6;
    /// `before` is what was in it.
    pub const REMOVED: u32 = 7;
    /// The names in the folder are on disk.
    pub const FOLDER_SYNCED: u32 = 8;
}
