//! Accounts that move into the running house, and out of it.

use super::entity::CellItem;
use super::{AccountCell, House};
use cluster::Cell;
use moving::settle::{self, Place, Settled, State};
use moving::{Account, leave, pie};
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::StoreError;
use xmpp::BareJid;

/// Within the data folder: what comes in, and what goes out.
pub const IMPORT: &str = "import";
pub const EXPORT: &str = "export";
/// How long an account that was in use may take to leave memory.
const REST_MAX: Duration = Duration::from_secs(20);

/// An account that nothing reaches: what comes for it waits. When it is dropped, the account is read from the store.
struct Held {
    house: Arc<House>,
    cell: Arc<AccountCell>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.house.load(self.cell.clone());
    }
}

impl House {
    /// Holds an account that is not in memory.
    fn held(self: &Arc<House>, jid: &BareJid) -> Option<Held> {
        match self.cells.entry(jid.clone()) {
            dashmap::Entry::Occupied(_) => None,
            dashmap::Entry::Vacant(entry) => {
                let cell = Arc::new(AccountCell { jid: jid.clone(), cell: Cell::loading(None) });
                entry.insert(cell.clone());
                Some(Held { house: self.clone(), cell })
            }
        }
    }

    /// Moves an account in, which must not be in use.
    ///
    /// # Errors
    /// For people.
    pub async fn move_in(self: &Arc<House>, account: Account, dry: bool) -> Result<Settled, String> {
        let jid = account.jid.clone();
        let policy = self.policy(jid.domain()).ok_or_else(|| {
            format!(
                "{} is not hosted here\nadd it to the configuration and say `waft reload`, or `waft domain add`",
                jid.domain()
            )
        })?;
        let mut archive_key = [0; 32];
        self.crypto.random(&mut archive_key);
        let iterations = self.config.read().accounts.scram_iterations;
        let mut place = Place {
            store: &*self.store,
            policy,
            now: self.now().utc,
            archive_key,
            hash: &|password| crate::crypto::credentials(password, iterations),
            dry: true,
        };
        let failed = |error: StoreError| format!("the store could not take it: {error}");
        let commit = |changes| self.commit(&jid, changes);
        // Who has it all already is not disturbed.
        let expected = settle::settle(&place, account.clone(), commit).await.map_err(failed)?;
        if dry || expected.state == State::Unchanged {
            return Ok(expected);
        }
        let _held = self.hold(&jid).await?;
        place.dry = false;
        let settled = settle::settle(&place, account, commit).await.map_err(failed)?;
        if settled.state == State::Made {
            self.old_keys.look();
        }
        Ok(settled)
    }

    /// Holds an account as soon as it leaves memory, which it does at once if nobody is there.
    async fn hold(self: &Arc<House>, jid: &BareJid) -> Result<Held, String> {
        let until = tokio::time::Instant::now() + REST_MAX;
        loop {
            if let Some(held) = self.held(jid) {
                return Ok(held);
            }
            if tokio::time::Instant::now() >= until {
                return Err("the account is in use\nend its sessions, or stop the server, and move it in again".into());
            }
            if let Some(cell) = self.resident(jid) {
                self.post_to(&cell, CellItem::Rest);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The account of a file in the folder [`IMPORT`].
    ///
    /// # Errors
    /// For people.
    pub async fn arrived(&self, file: &str) -> Result<Account, String> {
        let plain =
            !file.is_empty() && file.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        if !plain || file.starts_with('.') {
            return Err(format!("{file:?} is no name of a file in the folder {IMPORT}"));
        }
        let path = self.config.read().data.join(IMPORT).join(file);
        let read = move || read(&path);
        tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?
    }

    /// Writes an account into the folder [`EXPORT`].
    ///
    /// # Errors
    /// For people.
    pub async fn move_out(&self, jid: &BareJid) -> Result<PathBuf, String> {
        let found =
            leave::account(&*self.store, jid).await.map_err(|error| format!("the store cannot be read: {error}"))?;
        let account =
            found.ok_or_else(|| format!("there is no account {jid} here\n`waft user list` shows those there are"))?;
        let folder = self.config.read().data.join(EXPORT);
        let write = move || {
            crate::data::make_subfolder(&folder)
                .map_err(|error| format!("{} cannot be used: {error}", folder.display()))?;
            let path = folder.join(format!("{}.xml", std::process::id()));
            write(&path, &account).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
            Ok(path)
        };
        tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())?
    }
}

/// The one account of a file.
///
/// # Errors
/// For people.
pub fn read(path: &Path) -> Result<Account, String> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut found = Vec::new();
    let read = pie::read(BufReader::new(file), &mut |account| {
        found.push(account);
        Ok(())
    });
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    match (found.pop(), found.is_empty()) {
        (Some(account), true) => Ok(account),
        _ => Err(format!("{} holds not one account", path.display())),
    }
}

/// Writes an account as a document of its own, which only its owner may read.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, account: &Account) -> std::io::Result<()> {
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut writer = pie::Writer::new(BufWriter::new(file))?;
    writer.account(account)?;
    writer.messages(false, &account.jid, &account.archive)?;
    writer.messages(true, &account.jid, &account.offline)?;
    writer.end()?;
    writer.finish()?.into_inner().map_err(|error| error.into_error())?.sync_all()
}
