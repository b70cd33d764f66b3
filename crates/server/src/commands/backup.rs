//! `waft backup` and `waft restore`: all that is kept in one file, and a data folder of such a file.

use super::{Failure, say, status::unexpected};
use crate::admin::client::AdminConnection;
use crate::admin::{Answer, Request};
use crate::cli::Place;
use crate::data;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use store_sqlite::backup;

/// How long the server may take to write it.
const PATIENCE: Duration = Duration::from_secs(6 * 3_600);

/// The running server writes a backup into its data folder, and we fetch it: it may not write elsewhere. When none
/// runs, we write it.
pub fn backup(file: &Path, place: &Place) -> Result<(), Failure> {
    let config = place.sources().load()?;
    if file.exists() {
        return Err(Failure::said(backup::BackupError::Exists(file.into())));
    }
    let (accounts, records, bytes, left_out) = match AdminConnection::open(&config.admin_socket())? {
        Some(mut server) => {
            server.wait(PATIENCE)?;
            let Answer::Backup { path, accounts, records, bytes, left_out } = server.ask(&Request::Backup)? else {
                return Err(unexpected());
            };
            fetch(Path::new(&path), file).map_err(|error| {
                Failure::Said(format!(
                    "the backup cannot be moved to {}: {error}\nit lies in {path}, until the next is made",
                    file.display()
                ))
            })?;
            (accounts, records, bytes, left_out)
        }
        None => {
            let held = backup::backup(&config.data, file).map_err(Failure::said)?;
            (held.accounts, held.records, held.bytes, held.left_out)
        }
    };
    say(format_args!("{}: {accounts} accounts, {records} messages, {bytes} bytes", file.display()));
    for name in left_out {
        say(format_args!("not in it: {name}"));
    }
    Ok(())
}

/// Moves the file, whole or not at all under its new name.
fn fetch(from: &Path, to: &Path) -> io::Result<()> {
    if fs::rename(from, to).is_err() {
        // Another file system.
        let mut name = to.file_name().unwrap_or_default().to_os_string();
        name.push(".part");
        let part = to.with_file_name(name);
        let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        io::copy(&mut File::open(from)?, &mut copy)?;
        copy.sync_all()?;
        fs::rename(&part, to)?;
        fs::remove_file(from)?;
    }
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

pub fn restore(file: &Path, place: &Place, replace: bool) -> Result<(), Failure> {
    let config = place.sources().load()?;
    data::make_private(&config.data)?;
    let held = backup::restore(file, &config.data, replace).map_err(Failure::said)?;
    super::user::owned(&config.data);
    say(format_args!(
        "{} is restored: {} accounts, {} messages, {}",
        config.data.display(),
        held.accounts,
        held.records,
        held.files.join(", ")
    ));
    if let Some(replaced) = held.replaced {
        say(format_args!("what was there lies in {}", replaced.display()));
    }
    Ok(())
}
