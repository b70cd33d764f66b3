//! Classes of accounts: what limits differ, and when an account ends. Which class an account is in, and since when, is one
//! of its settings.

use super::House;
use super::accounts::of_store;
use crate::config::Config;
use im::HostPolicy;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::{Change, Outcome, SETTINGS};
use xmpp::{BareJid, Stamp, StanzaCondition, StanzaError};

/// The setting's key.
const KEY: &str = "class";
/// How often it is looked whether accounts with sessions have ended.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const DAY_SECONDS: u64 = 86_400;

/// An account in a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub class: String,
    /// Seconds since the epoch.
    pub since: u64,
}

impl Member {
    fn read(setting: &[u8]) -> Option<Member> {
        serde_json::from_slice(setting).ok()
    }

    /// Is the account's time over?
    fn is_over(&self, config: &Config, now: u64) -> bool {
        let days = config.class(&self.class).and_then(|class| class.options.expires_days);
        days.is_some_and(|days| now >= self.since.saturating_add(u64::from(days) * DAY_SECONDS))
    }
}

/// The host's policy as it is for an account with these settings.
pub fn policy_of(config: &Config, policy: Arc<HostPolicy>, settings: &[(Box<str>, Vec<u8>)]) -> Arc<HostPolicy> {
    let member = settings.iter().find(|(key, _)| **key == *KEY).and_then(|(_, value)| Member::read(value));
    match member.and_then(|member| config.class(&member.class)) {
        Some(class) => {
            let mut own = HostPolicy::clone(&policy);
            class.options.apply(&mut own);
            Arc::new(own)
        }
        None => policy,
    }
}

impl House {
    fn seconds(&self) -> u64 {
        (self.now().utc.0 / 1_000_000).max(0).unsigned_abs()
    }

    async fn member(&self, account: &BareJid) -> Option<Member> {
        // One that cannot be read is as none: the account is nobody's guest.
        self.store.blob(account, SETTINGS, KEY).await.ok().flatten().as_deref().and_then(Member::read)
    }

    /// An account's class, and when it ends by it.
    pub(super) async fn class_of(&self, account: &BareJid) -> Option<(String, Option<Stamp>)> {
        let member = self.member(account).await?;
        let days = self.config.read().class(&member.class).and_then(|class| class.options.expires_days);
        let end = |days: u32| member.since.saturating_add(u64::from(days) * DAY_SECONDS);
        let ends = days.and_then(|days| i64::try_from(end(days)).ok()).map(|at| Stamp(at.saturating_mul(1_000_000)));
        Some((member.class, ends))
    }

    /// Puts an account into a class from now on, or into none. Sessions that are there keep their limits.
    ///
    /// # Errors
    /// `item-not-found` if there is no such account.
    pub async fn set_class(&self, account: &BareJid, class: Option<&str>) -> Result<(), StanzaError> {
        let change = self.class_change(account, class)?;
        match self.commit(account, vec![change]).await {
            Ok(outcomes) if outcomes.first() == Some(&Outcome::NoAccount) => Err(StanzaCondition::ItemNotFound.into()),
            Ok(_) => {
                tracing::info!(%account, class = class.unwrap_or("none"), "account put into a class");
                Ok(())
            }
            Err(error) => Err(of_store(&error)),
        }
    }

    /// What puts it there.
    pub(super) fn class_change(&self, account: &BareJid, class: Option<&str>) -> Result<Change, StanzaError> {
        let (owner, space, key) = (account.clone(), SETTINGS.into(), KEY.into());
        Ok(match class {
            Some(class) => {
                let member = Member { class: class.to_owned(), since: self.seconds() };
                let value = serde_json::to_vec(&member).map_err(|_| StanzaCondition::InternalServerError)?;
                Change::BlobPut { account: owner, space, key, value }
            }
            None => Change::BlobDelete { account: owner, space, key },
        })
    }

    /// Has the account ended by its class? Then it is disabled, too.
    pub async fn has_ended(self: &Arc<House>, account: &BareJid) -> bool {
        let config = self.config.read().clone();
        if config.classes.iter().all(|class| class.options.expires_days.is_none()) {
            return false;
        }
        let Some(member) = self.member(account).await.filter(|it| it.is_over(&config, self.seconds())) else {
            return false;
        };
        tracing::info!(%account, class = member.class, "the account's time is over");
        self.count("accounts_ended");
        // What cannot be written is tried again at the next look.
        let _ = self.disable_account(account, true).await;
        true
    }
}

/// Looks at the accounts that have sessions, until the house is dropped.
pub async fn carry(house: Arc<House>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if house.config.read().classes.iter().all(|class| class.options.expires_days.is_none()) {
            continue;
        }
        for cell in house.accounts_in_memory() {
            if cell.cell.peek(|resident| !resident.account.sessions.is_empty()) == Some(true) {
                house.has_ended(&cell.jid).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Sources};

    fn config() -> Config {
        let text = "[account_class.guest]\nexpires_days = 30\nroster_items_max = 5\ninvites = false\n";
        config::parse(text, None, &Sources::default()).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn settings(class: &str) -> Vec<(Box<str>, Vec<u8>)> {
        vec![(KEY.into(), format!("{{\"class\":\"{class}\",\"since\":1000}}").into_bytes())]
    }

    #[test]
    fn a_class_changes_what_it_names_and_nothing_else() {
        let policy = Arc::new(HostPolicy::of(BareJid::of_domain("localhost").expect("a domain")));
        let of_guest = policy_of(&config(), policy.clone(), &settings("guest"));
        assert_eq!(of_guest.limits.roster_items_max, 5);
        assert_eq!(of_guest.limits.archive_bytes_max, policy.limits.archive_bytes_max);
        assert!(Arc::ptr_eq(&policy_of(&config(), policy.clone(), &settings("unknown")), &policy));
        assert!(Arc::ptr_eq(&policy_of(&config(), policy.clone(), &[]), &policy));
    }

    #[test]
    fn an_account_ends_when_the_days_of_its_class_are_over() {
        let member = Member { class: "guest".into(), since: 1_000 };
        assert!(!member.is_over(&config(), 1_000 + 30 * DAY_SECONDS - 1));
        assert!(member.is_over(&config(), 1_000 + 30 * DAY_SECONDS));
        assert!(!Member { class: "unknown".into(), since: 0 }.is_over(&config(), u64::MAX));
    }
}
