//! Contacts whose subscription may have changed without our knowing: what said so could not be written (the disk was
//! full), or came while a change of ours was on its way that could not be. They are asked, as at a login: who sees nobody
//! any more hears `unsubscribed`. RFC 6121 §4.3.2 rule 1.

use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::presence;
use xmpp::{BareJid, Stanza, StanzaType};

/// Asked after so long; what fails again is in doubt again.
const ASKED_AFTER_MS: u64 = 10_000;
/// More are asked at the next login.
const DOUBTS_MAX: usize = 1_000;

/// Whom to ask, and when.
#[derive(Debug, Default)]
pub struct Doubts {
    contacts: Vec<BareJid>,
    due_at: Option<u64>,
}

impl Doubts {
    pub(crate) fn due_at(&self) -> Option<u64> {
        self.due_at
    }
}

/// This was refused, as it could not be written.
pub(crate) fn refused(account: &mut Account, stanza: &Stanza, fx: &mut Effects) {
    let is_subscription = matches!(stanza.kind, StanzaType::Presence(kind) if crate::ways::is_subscription(kind));
    let Some(from) = stanza.from.as_ref().filter(|from| is_subscription && !from.same_bare(&account.jid)) else {
        return;
    };
    of(account, from.to_bare(), fx);
}

/// What the contact said lately may have been held against a subscription that is another one.
pub(crate) fn of(account: &mut Account, contact: BareJid, fx: &mut Effects) {
    let doubts = &mut account.doubts;
    if doubts.contacts.len() < DOUBTS_MAX && !doubts.contacts.contains(&contact) {
        doubts.contacts.push(contact);
    }
    let at = account.now.mono_ms + ASKED_AFTER_MS;
    fx.push(Effect::WakeAt { mono_ms: *doubts.due_at.get_or_insert(at) });
}

/// Asks those who are due.
pub(crate) fn ask(account: &mut Account, fx: &mut Effects) {
    if account.doubts.due_at.is_none_or(|at| at > account.now.mono_ms) {
        return;
    }
    let contacts = std::mem::take(&mut account.doubts).contacts;
    for contact in contacts.iter().filter(|contact| account.roster.subscription(contact).to) {
        presence::probe(account, contact, fx);
    }
}

#[cfg(test)]
mod tests {
    use crate::item::{Item, Ticket};
    use crate::testing::{account_with, contact, jid, stanza};
    use std::sync::Arc;
    use store::{AccountRecord, StoreError};

    #[test]
    fn a_contact_that_said_something_while_its_removal_failed_is_asked_how_it_stands() {
        let roster = || vec![contact("romeo@example.net", "both"), contact("nurse@example.com", "both")];
        let stored = || AccountRecord { roster: roster(), ..AccountRecord::default() };
        let mut juliet = account_with("juliet@capulet.example", stored()).with("home", 0);
        let removal = "<iq type='set' id='1'><query xmlns='jabber:iq:roster'>\
            <item jid='romeo@example.net' subscription='remove'/></query></iq>";
        juliet.sends("home", removal);
        // He is nobody to her, just now.
        let said = "<presence from='romeo@example.net' to='juliet@capulet.example' type='unsubscribed'/>";
        assert!(juliet.receive(said).commits().is_empty());
        juliet.item(Item::CommitFailed {
            bounce: Some(Arc::new(stanza(&removal.replace("<iq", "<iq from='juliet@capulet.example/home'")))),
            error: StoreError::Full,
            ticket: Ticket::default(),
            stored: Some(Box::new(stored())),
        });
        assert!(juliet.roster.subscription(&jid("romeo@example.net")).to);
        let told = juliet.after_ms(10_000).told();
        assert!(told.len() == 1 && told[0].0 == "romeo@example.net" && told[0].1.contains("type='probe'"), "{told:?}");
    }

    #[test]
    fn a_contact_whose_word_could_not_be_written_is_asked_later_how_it_stands() {
        let stored = AccountRecord {
            roster: vec![contact("romeo@example.net", "both"), contact("nurse@example.com", "both")],
            ..AccountRecord::default()
        };
        let mut juliet = account_with("juliet@capulet.example", stored.clone()).with("home", 0);
        let said = "<presence from='romeo@example.net' to='juliet@capulet.example' type='unsubscribed'/>";
        juliet.receive(said);
        let fx = juliet.item(Item::CommitFailed {
            bounce: Some(Arc::new(stanza(said))),
            error: StoreError::Full,
            ticket: Ticket::default(),
            stored: Some(Box::new(stored)),
        });
        assert!(fx.told()[0].1.contains("<resource-constraint"), "{fx:?}");
        assert!(juliet.roster.subscription(&jid("romeo@example.net")).to);
        assert!(juliet.after_ms(9_000).told().is_empty());
        let told = juliet.after_ms(1_000).told();
        assert!(told.len() == 1 && told[0].0 == "romeo@example.net" && told[0].1.contains("type='probe'"), "{told:?}");
        assert!(juliet.after_ms(60_000).told().is_empty());
    }
}
