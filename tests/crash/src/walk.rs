//! The walk of faults: the same work on the store again and again, and each time the next of its writes, syncs, opens,
//! cuts, renames and removals fails, or is the one at which the process dies, until a run ends without any.

use crate::disk::layout::{MARKS, fate};
use crate::disk::{Disk, Plan, name_of};
use crate::work::{self, FATAL, FINISHED, NOT_OPENED};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub const HOST: &str = "a.example";
/// Positions that a walk has at most: the work has some hundreds.
const POSITIONS_MAX: u64 = 100_000;

const FATES: [i64; 6] = [fate::EIO, fate::ENOSPC, fate::SHORT, fate::KILL_BEFORE, fate::KILL_WITHIN, fate::KILL_AFTER];

/// What an old waft left: the work begins with its migration.
const OLD: &str = include_str!("../../../crates/store-sqlite/tests/fixtures/schema-1.sql");
const OLD_HOST: &str = "capulet.example";
/// Of the positions of a walk these are looked at from there: opening and migrating has some tens.
const OLD_POSITIONS: u64 = 100;

/// Where the walks are done, and with what.
pub struct Ground {
    pub library: PathBuf,
    pub parent: tempfile::TempDir,
}

/// What a walk came to.
#[derive(Default)]
pub struct Walked {
    pub positions: u64,
    pub runs: u64,
    pub fatal: u64,
    pub not_opened: u64,
    pub finished: u64,
    pub killed: u64,
    pub wrong: Vec<String>,
}

/// Starts this program again as the process that works.
pub fn worker(folder: &Path, host: &str, seed: u64) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("work").arg(folder).args(["--host", host, "--seed", &seed.to_string()]);
    command.stdin(Stdio::null());
    Ok(command)
}

/// Walks with every kind of fault, every `step`-th position from `first` on.
pub fn walk(ground: &Ground, seed: u64, step: u64) -> io::Result<Walked> {
    let mut walked = Walked::default();
    let migrated = tempfile::tempdir_in(ground.parent.path())?;
    left_by_old(migrated.path())?;
    let migrated = work::print_of(migrated.path(), OLD_HOST)?;
    for (old, most) in [(None, POSITIONS_MAX), (Some(migrated.as_str()), OLD_POSITIONS)] {
        for (nth, fate) in (0..).zip(FATES) {
            // Other positions with each, if not all are walked.
            let mut position = 1 + nth % step;
            while position < most {
                let chosen = one(ground, seed, position, fate, old, &mut walked)?;
                if !chosen {
                    walked.positions = walked.positions.max(position);
                    break;
                }
                position += step;
            }
        }
    }
    Ok(walked)
}

/// Makes the store that an old waft left.
fn left_by_old(folder: &Path) -> io::Result<()> {
    let database = rusqlite::Connection::open(folder.join(store_sqlite::FILE)).map_err(io::Error::other)?;
    database.execute_batch(OLD).map_err(io::Error::other)
}

/// One run; false if it ended before it came to the position. With `old`, it begins with what an old waft left, and this
/// must be there at the end.
fn one(
    ground: &Ground,
    seed: u64,
    position: u64,
    fate: i64,
    old: Option<&str>,
    walked: &mut Walked,
) -> io::Result<bool> {
    let aside = tempfile::tempdir_in(ground.parent.path())?;
    let folder = aside.path().join("data");
    std::fs::create_dir(&folder)?;
    if old.is_some() {
        left_by_old(&folder)?;
    }
    let disk = Disk::new(&ground.library, &folder, aside.path())?;
    disk.arm(Plan::nth(position, fate))?;
    let mut command = worker(&folder, HOST, seed)?;
    disk.under(&mut command, None);
    let Output { status, stdout, stderr } = command.output()?;
    let chosen = disk.chosen()? > 0;
    walked.runs += 1;
    let mut wrong = |what: String| {
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        walked.wrong.push(format!("{} at {position}: {what}\n{out}{err}", name_of(fate)));
    };
    match status.code().map(|code| code as u8) {
        Some(FINISHED) => walked.finished += 1,
        Some(FATAL) => walked.fatal += 1,
        Some(NOT_OPENED) if !stdout.is_empty() => walked.not_opened += 1,
        None if matches!(fate, fate::KILL_BEFORE | fate::KILL_AFTER | fate::KILL_WITHIN) => walked.killed += 1,
        _ => wrong(format!("the process ended with {status}")),
    }
    if !chosen && status.code() != Some(i32::from(FINISHED)) {
        wrong(format!("without a fault the process ended with {status}"));
    }
    let marks = std::fs::read(folder.join(MARKS)).unwrap_or_default();
    for what in work::compare(&folder, &marks, &[(HOST, seed)]) {
        wrong(what);
    }
    if let Some(old) = old
        && work::print_of(&folder, OLD_HOST)? != old
    {
        wrong("what the old waft left is not there any more".into());
    }
    Ok(chosen)
}
