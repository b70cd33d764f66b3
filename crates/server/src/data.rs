//! The data folder: made for its owner alone, checked at start. The store locks it while it is open.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes a folder of mode 0700, or checks that the existing one is closed to other users. An empty one is closed.
///
/// # Errors
/// What is wrong and what to do.
pub fn make_private(folder: &Path) -> Result<(), String> {
    match std::fs::metadata(folder) {
        Ok(found) if !found.is_dir() => {
            Err(format!("{} is a file, not a folder\nname a folder with --data DIR", folder.display()))
        }
        Ok(found) if found.mode() & 0o077 == 0 => Ok(()),
        Ok(found) => {
            let empty = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
            if empty && std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).is_ok() {
                return Ok(());
            }
            Err(format!(
                "the data folder {} is open to other users (mode {:04o}), and passwords' keys and messages are in it\nclose it: chmod 700 {}",
                folder.display(),
                found.mode() & 0o7777,
                folder.display()
            ))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
                format!("cannot make the data folder {}: {error}\n{}", folder.display(), advice(&error))
            })
        }
        Err(error) => Err(format!("cannot look at the data folder {}: {error}\n{}", folder.display(), advice(&error))),
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "run waft as the folder's owner, or name a folder of your own with --data DIR"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull => {
            "name a folder on a disk with space that can be written, with --data DIR"
        }
        _ => "name another folder with --data DIR",
    }
}

/// Writes a file of mode 0600 whole or not at all: under another name, synced, renamed.
///
/// # Errors
/// Those of the file system.
pub fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes a folder of mode 0700 within the data folder.
///
/// # Errors
/// Those of the file system.
pub fn make_subfolder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Gives what root made in a folder to the folder's owner, who runs the server. Nothing happens for other users.
///
/// # Errors
/// Those of the file system.
pub fn own_as(folder: &Path, path: &Path) -> io::Result<()> {
    let (owner, found) = (std::fs::metadata(folder)?, std::fs::metadata(path)?);
    if effective_uid() != Some(0) || (owner.uid(), owner.gid()) == (found.uid(), found.gid()) {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))
}

/// Gives all that root made within a folder, some levels deep, to the folder's owner. Nothing happens for other users.
/// What has a second name, or is no file, stays root's: its owner could have put it there.
///
/// # Errors
/// Those of the file system.
pub fn own_all_as(folder: &Path) -> io::Result<()> {
    let owner = std::fs::metadata(folder)?;
    if effective_uid() != Some(0) || owner.uid() == 0 {
        return Ok(());
    }
    give(folder, (owner.uid(), owner.gid()), DEPTH_MAX)
}

/// Folders within folders; waft makes two.
const DEPTH_MAX: usize = 4;

fn give(folder: &Path, (uid, gid): (u32, u32), depth: usize) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = std::fs::symlink_metadata(&path)?.file_type();
        if !kind.is_file() && !kind.is_dir() {
            continue;
        }
        // What was opened is what is given, whatever its name leads to meanwhile.
        let file = match OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let found = file.metadata()?;
        if found.uid() == 0 && (found.is_dir() || found.is_file() && found.nlink() == 1) {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        if found.is_dir() && depth > 0 {
            give(&path, (uid, gid), depth - 1)?;
        }
    }
    Ok(())
}

/// Linux, on all architectures that it is built for here: `open` fails where the last part of the path is a link.
const O_NOFOLLOW: i32 = if cfg!(any(target_arch = "aarch64", target_arch = "arm")) { 0o100_000 } else { 0o400_000 };
/// A pipe is opened without waiting for who writes.
const O_NONBLOCK: i32 = 0o4_000;

/// Whom this process acts as; `None` where the system does not say.
pub fn effective_uid() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|found| found.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_is_closed_to_other_users() {
        let parent = tempfile::tempdir().expect("temporary folder");
        let folder = parent.path().join("a/b");
        make_private(&folder).expect("can be made");
        assert_eq!(std::fs::metadata(&folder).expect("is there").mode() & 0o777, 0o700);
    }

    #[test]
    fn an_empty_open_folder_is_closed() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("can be opened up");
        make_private(folder.path()).expect("is closed");
        assert_eq!(std::fs::metadata(folder.path()).expect("is there").mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_with_files_that_others_can_read_is_refused_with_a_remedy() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(folder.path().join("waft.db"), "x").expect("can be written");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("can be opened up");
        let error = make_private(folder.path()).expect_err("others can read it");
        assert!(error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn a_secret_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("key");
        write_secret(&path, b"one").expect("can be written");
        write_secret(&path, b"two").expect("can be replaced");
        assert_eq!(std::fs::read(&path).expect("can be read"), b"two");
        assert_eq!(std::fs::metadata(&path).expect("is there").mode() & 0o777, 0o600);
    }
}
