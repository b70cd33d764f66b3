//! Accounts that came from elsewhere with keys of SCRAM-SHA-1 alone. No others can be made of them without the password,
//! so they cannot log in with SCRAM-SHA-256, which most clients choose when it is offered, and stay with when it fails.
//!
//! What is offered must not depend on who asks: it would tell who has an account (RFC 5802 §9). So a domain whose accounts
//! came so, most of them, offers SCRAM-SHA-1 and not SCRAM-SHA-256, to everybody, until the last of them has keys of
//! both: by a new password, or by one that was said (PLAIN). A few among others do not take SCRAM-SHA-256 from those,
//! whose clients may insist on it: they need a new password.
//!
//! Which domains hold so is kept in the file [`FILE`] of the data folder, a domain a line.

use super::House;
use super::run::Streams;
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::{Change, Credentials, KeyFigures, StoreError};
use stream::Hash;
use tokio::sync::Notify;
use xmpp::BareJid;

pub const FILE: &str = "sha1-domains";
/// Between two counts at least: many accounts may come at once.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How a domain's accounts stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keys {
    pub figures: KeyFigures,
    /// SCRAM-SHA-256 is not offered.
    pub sha1_first: bool,
}

impl Keys {
    fn after(self, figures: KeyFigures) -> Keys {
        let KeyFigures { both, sha1_alone, sha256_alone } = figures;
        let is_most = sha1_alone > both + sha256_alone;
        // Whoever has keys of SCRAM-SHA-256 alone would be kept out instead.
        let sha1_first = sha1_alone > 0 && sha1_alone >= sha256_alone && (self.sha1_first || is_most);
        Keys { figures, sha1_first }
    }
}

#[derive(Default)]
pub struct OldKeys {
    domains: RwLock<BTreeMap<Box<str>, Keys>>,
    file: OnceLock<PathBuf>,
    /// Keys may have come or gone.
    changed: Notify,
}

impl OldKeys {
    /// Reads which domains hold; no file is none.
    pub fn open(&self, file: PathBuf) {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let held = text.lines().map(|domain| (domain.into(), Keys { sha1_first: true, ..Keys::default() }));
        self.domains.write().extend(held);
        // Once, at the start.
        let _ = self.file.set(file);
    }

    pub fn of(&self, domain: &str) -> Keys {
        self.domains.read().get(domain).copied().unwrap_or_default()
    }

    /// Accounts have come, or the configuration is another: it is counted again soon.
    pub fn look(&self) {
        self.changed.notify_one();
    }

    /// One account has keys that it had not, or is gone.
    fn look_at(&self, domain: &str) {
        if self.of(domain).figures.sha1_alone > 0 {
            self.look();
        }
    }

    fn held(&self) -> BTreeSet<Box<str>> {
        self.domains.read().iter().filter(|(_, keys)| keys.sha1_first).map(|(domain, _)| domain.clone()).collect()
    }
}

/// Counts again, and keeps what came of it.
///
/// # Errors
/// Those of the store; then all stays as it was.
pub async fn count(house: &House) -> Result<(), StoreError> {
    let keys = &house.old_keys;
    let hosts: Vec<Box<str>> = house.hosts.read().keys().cloned().collect();
    let before = keys.held();
    let figures = house.store.key_figures().await?;
    for domain in hosts {
        let was = keys.of(&domain);
        let now = was.after(figures.get(&domain).copied().unwrap_or_default());
        if now.sha1_first != was.sha1_first || now.figures.sha1_alone > was.figures.sha1_alone {
            say(&domain, now);
        }
        keys.domains.write().insert(domain, now);
    }
    let held = keys.held();
    if held != before
        && let Some(file) = keys.file.get()
    {
        let text: String = held.iter().map(|domain| format!("{domain}\n")).collect();
        if let Err(error) = crate::data::write_secret(file, text.as_bytes()) {
            tracing::error!(%error, "{} cannot be written: after a restart it is decided anew", file.display());
        }
    }
    Ok(())
}

fn say(domain: &str, now: Keys) {
    let accounts = now.figures.sha1_alone;
    match (accounts, now.sha1_first) {
        (0, _) => tracing::info!(domain, "all accounts have keys of SCRAM-SHA-256: it is offered"),
        (_, true) => tracing::warn!(
            domain,
            accounts,
            "accounts have keys of SCRAM-SHA-1 alone: SCRAM-SHA-256 is not offered until each has a new password"
        ),
        (_, false) => tracing::warn!(
            domain,
            accounts,
            "accounts have keys of SCRAM-SHA-1 alone, among others that have more: give them new passwords"
        ),
    }
}

/// Counts again whenever something came or went, and has streams that begin from then on offered what fits.
pub async fn carry(house: Arc<House>, streams: Streams) {
    loop {
        house.old_keys.changed.notified().await;
        match count(&house).await {
            Ok(()) => streams.renew(&house),
            Err(error) => tracing::error!(%error, "accounts' keys could not be counted"),
        }
        tokio::time::sleep(COUNT_EVERY).await;
    }
}

impl House {
    /// Keeps the keys that an account lacked, made of the password that was just proved beside `beside`.
    pub(super) async fn complete_keys(&self, account: &BareJid, hash: Hash, keys: store::ScramKeys, beside: Vec<u8>) {
        let keys = match hash {
            Hash::Sha1 => Credentials { scram_sha1: Some(keys), scram_sha256: None },
            Hash::Sha256 => Credentials { scram_sha1: None, scram_sha256: Some(keys) },
        };
        match self.commit(account, vec![Change::CredentialsAdd { account: account.clone(), keys, beside }]).await {
            Ok(_) => {
                tracing::info!(%account, "has keys of both hashes now");
                self.old_keys.look_at(account.domain());
            }
            // The next time, then.
            Err(error) => tracing::warn!(%account, %error, "the keys that it lacked could not be kept"),
        }
    }

    /// An account has another password, or is gone.
    pub(super) fn keys_changed(&self, account: &BareJid) {
        self.old_keys.look_at(account.domain());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(both: u64, sha1_alone: u64, sha256_alone: u64) -> KeyFigures {
        KeyFigures { both, sha1_alone, sha256_alone }
    }

    #[test]
    fn a_domain_whose_accounts_came_with_sha_1_holds_until_the_last_has_more() {
        let mut keys = Keys::default();
        for (now, holds) in [
            (figures(1, 1, 0), false),
            (figures(1, 9, 0), true),
            (figures(9, 1, 0), true),
            (figures(10, 0, 0), false),
            (figures(10, 1, 0), false),
        ] {
            keys = keys.after(now);
            assert_eq!(keys.sha1_first, holds, "{now:?}");
        }
    }

    #[test]
    fn those_with_sha_256_alone_are_not_kept_out_by_fewer_with_sha_1_alone() {
        assert!(Keys::default().after(figures(0, 3, 2)).sha1_first);
        assert!(!Keys { sha1_first: true, ..Keys::default() }.after(figures(0, 2, 3)).sha1_first);
    }
}
