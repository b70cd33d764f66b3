//! What the operator tells users once: a welcome to whoever has a new account, a message of the day to whoever comes.
//! XEP-0133 §4.24 to §4.28. Both wait for a user who is away, as messages do.
//!
//! They are kept in the file [`FILE`] of the data folder; that an account has had the message of the day is a blob of it.

use super::House;
use im::{Ingress, Item, Ticket};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use store::Change;
use xmpp::{BareJid, Element, MessageType, Stanza, ns};

pub const FILE: &str = "notices";
/// Bytes of one.
const BYTES_MAX: usize = 16_384;
/// Space and key of the blob that says which message of the day was the last.
const HAD: (&str, &str) = ("notice", "motd");

/// When it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Occasion {
    /// To an account when it is made
    Welcome,
    /// The message of the day: to whoever is there, and to others when they come; to each once
    Motd,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    pub text: String,
    /// Microseconds since the epoch: which message of the day it is.
    pub since: i64,
}

#[derive(Default)]
pub struct Notices {
    all: RwLock<BTreeMap<Occasion, Notice>>,
    file: OnceLock<PathBuf>,
}

impl Notices {
    /// Reads what there is; no file is nothing.
    ///
    /// # Errors
    /// For people: the file is there and cannot be read.
    pub fn open(&self, file: PathBuf) -> Result<(), String> {
        let unreadable = |error: &dyn std::fmt::Display| {
            format!(
                "cannot read {}: {error}\nlet the user that runs waft read it, or remove it: nothing is told then",
                file.display()
            )
        };
        match std::fs::read(&file) {
            Ok(bytes) => *self.all.write() = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&error)),
        }
        // Once, at the start.
        let _ = self.file.set(file);
        Ok(())
    }

    pub(super) fn of(&self, occasion: Occasion) -> Option<Notice> {
        self.all.read().get(&occasion).cloned()
    }

    pub fn shown(&self) -> Value {
        json!(*self.all.read())
    }

    /// Sets one, or takes it away.
    fn set(&self, occasion: Occasion, notice: Option<Notice>) -> Result<(), String> {
        let mut new = self.all.read().clone();
        match notice {
            Some(notice) => drop(new.insert(occasion, notice)),
            None => drop(new.remove(&occasion)),
        }
        if let Some(file) = self.file.get() {
            let bytes = serde_json::to_vec(&new).map_err(|error| error.to_string())?;
            crate::data::write_secret(file, &bytes)
                .map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
        }
        *self.all.write() = new;
        Ok(())
    }
}

impl House {
    /// Sets what is told on an occasion; without a text nothing is.
    ///
    /// # Errors
    /// For people; then all is as it was.
    pub(super) fn set_notice(
        self: &Arc<House>,
        occasion: Occasion,
        subject: Option<String>,
        text: Option<String>,
    ) -> Result<Value, String> {
        let text = text.filter(|text| !text.trim().is_empty());
        if text.as_ref().is_some_and(|text| text.len() > BYTES_MAX) {
            return Err(format!("a notice has at most {BYTES_MAX} bytes"));
        }
        self.notices.set(occasion, text.map(|text| Notice { subject, text, since: self.now().utc.0 }))?;
        if occasion == Occasion::Motd {
            for cell in self.accounts_in_memory() {
                let there = cell.cell.peek(|it| it.account.sessions.iter().any(|session| session.edge.is_some()));
                if there == Some(true) {
                    self.has_come(&cell.jid);
                }
            }
        }
        Ok(self.notices.shown())
    }

    /// An account was made: it hears the welcome.
    pub(super) fn was_made(self: &Arc<House>, account: &BareJid) {
        if let Some(notice) = self.notices.of(Occasion::Welcome) {
            self.give_notice(account, &notice);
        }
    }

    /// Somebody has come: they hear the message of the day, if they have not yet.
    pub fn has_come(self: &Arc<House>, account: &BareJid) {
        let Some(notice) = self.notices.of(Occasion::Motd) else { return };
        let (house, account) = (self.clone(), account.clone());
        self.runtime.spawn(async move {
            let (space, key) = HAD;
            let mark = notice.since.to_be_bytes().to_vec();
            match house.store.blob(&account, space, key).await {
                Ok(had) if had.as_ref() == Some(&mark) => return,
                Ok(_) => {}
                Err(error) => return tracing::warn!(%account, %error, "the message of the day was not told"),
            }
            let put = Change::BlobPut { account: account.clone(), space: space.into(), key: key.into(), value: mark };
            // Told when it is noted: so nobody hears it again and again.
            match house.commit(&account, vec![put]).await {
                Ok(_) => house.give_notice(&account, &notice),
                Err(error) => tracing::warn!(%account, %error, "the message of the day was not told"),
            }
        });
    }

    fn give_notice(self: &Arc<House>, account: &BareJid, notice: &Notice) {
        let subject = notice.subject.as_ref().map(|subject| Element::new("subject", ns::CLIENT).text(subject));
        let body = Element::new("body", ns::CLIENT).text(&notice.text);
        let message = Stanza::message(MessageType::Normal)
            .with_from(account.domain_jid())
            .with_to(account.clone())
            .with_children(subject.into_iter().chain([body]));
        let (ingress, to) = (Ingress { stream: 0, ordinal: 0 }, account.clone().into());
        self.post(account, Item::Inbound { stanza: Arc::new(message), to, ingress, ticket: Ticket::default() });
    }
}
